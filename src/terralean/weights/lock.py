"""A folder in which one process at a time works. The system lets go of the lock when the process ends, however it does."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    def _take(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _take(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


NAME = "lock"


class AtWork(Exception):
    """Another process holds a folder; the text is its number, or nothing where that is not known."""


class Lock:
    """Holds a folder, which is made where it is not there, until `release`. Raises AtWork where another process holds it."""

    def __init__(self, folder: Path) -> None:
        self._handle: int | None = _held(folder)
        os.truncate(self._handle, 0)
        os.write(self._handle, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let others have it."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)


def _held(folder: Path) -> int:
    """A handle of the folder's lock file, locked."""
    path = folder / NAME
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _take(handle)
        except OSError as error:
            holder = os.pread(handle, 20, 0).decode().strip() if hasattr(os, "pread") else ""
            os.close(handle)
            raise AtWork(holder) from error
        if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
            return handle
        os.close(handle)  # its holder finished in between and took the folder away
