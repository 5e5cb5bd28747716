"""A folder in which one process at a time makes a map."""

from __future__ import annotations

from pathlib import Path

from terralean.errors import JobError
from terralean.weights import lock
from terralean.weights.lock import NAME

__all__ = ["NAME", "Lock"]


class Lock(lock.Lock):
    """As `weights.lock.Lock`. Raises JobError where another process holds the folder."""

    def __init__(self, folder: Path) -> None:
        try:
            super().__init__(folder)
        except lock.AtWork as error:
            raise JobError(
                f"{folder} is at work in another process{f', {error}' if str(error) else ''}; wait until it is done, stop it, "
                "or map to another folder"
            ) from error
