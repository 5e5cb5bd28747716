"""Rows of a raster as plain bytes in a file: what was written stays readable whatever happens next.

A compressed file may be unreadable if its writer is killed. Of plain rows all but the last are there, and whole rows can be cut
off again. A row holds its bands one after the other, which GDAL reads as it is (see `terralean.raster.cog`).
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class RowFile:
    """Full rows of a raster, added at the end. A file that is there is taken up; `close` lets go of it."""

    def __init__(self, path: str | Path, *, width: int, bands: int, dtype: str) -> None:
        self.path = Path(path)
        self.width, self.bands, self.dtype = width, bands, np.dtype(dtype)
        self._file = self.path.open("r+b" if self.path.exists() else "w+b", buffering=0)

    @property
    def row_bytes(self) -> int:
        """Of one row."""
        return self.width * self.bands * self.dtype.itemsize

    @property
    def height(self) -> int:
        """Whole rows that the file holds."""
        return os.fstat(self._file.fileno()).st_size // self.row_bytes

    def append(self, values: NDArray[Any]) -> int:
        """Add rows, values (C, h, w); the checksum of their bytes."""
        assert values.shape[::2] == (self.bands, self.width) and values.dtype == self.dtype, f"{values.dtype} {values.shape}"
        plain = np.ascontiguousarray(values.swapaxes(0, 1)).reshape(-1).view(np.uint8).data
        self._file.seek(0, os.SEEK_END)
        left = plain
        while left:
            left = left[self._file.write(left) :]
        return zlib.crc32(plain)

    def read(self, row: int, height: int) -> NDArray[Any]:
        """Values (C, h, w) of the rows from `row` on."""
        return np.frombuffer(self._bytes(row, height), self.dtype).reshape(-1, self.bands, self.width).swapaxes(0, 1)

    def checksum(self, row: int, height: int) -> int | None:
        """What `append` gave for these rows if they are as they were; None where the file does not hold them all."""
        found = self._bytes(row, height)
        return zlib.crc32(found) if len(found) == height * self.row_bytes else None

    def cut(self, height: int) -> None:
        """Keep so many rows."""
        self._file.truncate(height * self.row_bytes)

    def sync(self) -> None:
        """Return when the disk has what was written."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _bytes(self, row: int, height: int) -> bytes:
        self._file.seek(row * self.row_bytes)
        parts = []
        left = height * self.row_bytes
        while left and (part := self._file.read(left)):  # a single call reads at most 2 GB
            parts.append(part)
            left -= len(part)
        return b"".join(parts)
