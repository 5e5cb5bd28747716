"""A list on disk that only grows: a line for each thing that is done, written after the thing itself is safe."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Entry = Mapping[str, Any]


class Journal:
    """Lines of JSON. What a kill or a fault of the disk left half or garbled, and all behind it, is not there."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
        self.entries, self._ends = _whole_lines(self._file.read())
        self.damaged = self._end < self._file.seek(0, os.SEEK_END)

    @property
    def _end(self) -> int:
        return self._ends[-1] if self._ends else 0

    def append(self, entry: Entry) -> None:
        """Add a line; it is on the disk when this returns."""
        line = json.dumps(entry).encode() + b"\n"
        self._file.truncate(self._end)
        self._file.seek(self._end)
        left = memoryview(line)
        while left:
            left = left[self._file.write(left) :]
        os.fsync(self._file.fileno())
        self._ends.append(self._end + len(line))
        self.entries.append(entry)

    def cut(self, count: int) -> None:
        """Keep so many lines."""
        del self.entries[count:], self._ends[count:]
        self._file.truncate(self._end)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def _whole_lines(text: bytes) -> tuple[list[Entry], list[int]]:
    """Entries up to the first that is none, and where each ends."""
    entries, ends, at = list[Entry](), list[int](), 0
    for line in text.splitlines(keepends=True):
        try:
            entry = json.loads(line)
        except ValueError:
            break
        if not isinstance(entry, dict) or not line.endswith(b"\n"):
            break
        at += len(line)
        entries.append(entry)
        ends.append(at)
    return entries, ends
