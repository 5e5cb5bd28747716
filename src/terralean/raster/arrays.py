"""Numbers of three axes in a file, of which only what is asked for is read.

A cube has its axes in any order on disk: b band, r row, c column, from the slowest to the fastest. BSQ is "brc", BIL "rbc",
BIP "rcb", an array of MATLAB "bcr". Reads give (bands, rows, columns).
"""

from __future__ import annotations

import math
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from terralean.errors import UnreadableScene

MAPPED_BYTES = 64 * 2**20  # of a file mapped at once, so that memory in use does not grow with what is read

Index = Sequence[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """What the axes on disk are and how long each is."""

    order: str
    shape: tuple[int, int, int]  # in this order
    dtype: str  # numpy's, with the byte order

    def size(self, axis: str) -> int:
        """Length of the axis b, r or c."""
        return self.shape[self.order.index(axis)]

    @property
    def bytes(self) -> int:
        """What all of it takes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class Store(Protocol):
    """A file, or memory, that holds an array in its layout."""

    layout: Layout

    def part(self, start: Sequence[int], stop: Sequence[int]) -> NDArray[Any]:
        """What lies between two positions on the three axes in their order on disk; may be a view of the file."""

    def step_bytes(self, wide: int, long: int) -> int:
        """Memory in use for a step along the slowest axis, of which so many positions on the others are asked for."""

    def close(self) -> None:
        """Let go of the file; the next read opens it again."""


def read(store: Store, *, bands: Index, rows: Index, cols: Index) -> NDArray[Any]:
    """Values (len(bands), len(rows), len(cols)) at these positions from 0, in this order and the machine's byte order."""
    layout = store.layout
    wanted = {"b": bands, "r": rows, "c": cols}
    index = [wanted[axis] for axis in layout.order]
    out = np.empty((len(bands), len(rows), len(cols)), dtype=np.dtype(layout.dtype).newbyteorder("="))
    if out.size == 0:
        return out
    place = out.transpose([("brc").index(axis) for axis in layout.order])  # a view in the order of the disk
    low, high = [min(one) for one in index], [max(one) + 1 for one in index]
    step = store.step_bytes(high[1] - low[1], high[2] - low[2])
    others = [[i - start for i in one] for one, start in zip(index[1:], low[1:], strict=True)]
    for first, last in _groups(index[0], most=max(1, MAPPED_BYTES // max(step, 1))):
        group = index[0][first:last]
        start = min(group)
        part = store.part((start, *low[1:]), (max(group) + 1, *high[1:]))
        place[first:last] = _picked(part, [[i - start for i in group], *others])
    return out


def _groups(index: Index, *, most: int) -> Iterator[tuple[int, int]]:
    """Parts of an index whose positions lie within `most` of each other."""
    first = 0
    low = high = index[0] if index else 0
    for place, position in enumerate(index):
        low, high = min(low, position), max(high, position)
        if high - low >= most and place > first:
            yield first, place
            first, low, high = place, position, position
    if index:
        yield first, len(index)


def _picked(part: NDArray[Any], index: Sequence[Index]) -> NDArray[Any]:
    """Slices first, which copy nothing, then what is no regular step."""
    slices = [_as_slice(positions) for positions in index]
    found = part[tuple(slice(None) if one is None else one for one in slices)]
    for axis, (one, positions) in enumerate(zip(slices, index, strict=True)):
        if one is None:
            found = np.take(found, positions, axis=axis)
    return found


def _as_slice(positions: Index) -> slice | None:
    step = positions[1] - positions[0] if len(positions) > 1 else 1
    regular = step > 0 and all(b - a == step for a, b in pairwise(positions))
    return slice(positions[0], positions[-1] + 1, step) if regular else None


class Mapped:
    """An array stored plainly in a file. The file is mapped anew for each part, so that no memory stays in use."""

    def __init__(self, path: str, *, offset: int, layout: Layout) -> None:
        self.path, self.offset, self.layout = path, offset, layout

    def part(self, start: Sequence[int], stop: Sequence[int]) -> NDArray[Any]:
        """As `Store` says; a view of the file."""
        try:
            return _between(self.path, self.layout, start, stop, offset=self.offset)
        except (OSError, ValueError) as error:
            raise UnreadableScene(f"{self.path} cannot be read: {error}; copy or download it again") from error

    def step_bytes(self, wide: int, long: int) -> int:
        """As `Store` says: pages around what is asked for may be in use."""
        return self.layout.bytes // self.layout.shape[0]

    def close(self) -> None:
        """Nothing is open."""


class Unpacked:
    """An array that a file holds compressed as a whole: unpacked when first read, to memory or, if large, to a file without a
    name in the folder for such (TMPDIR), of which parts are mapped.
    """

    def __init__(self, path: str, *, layout: Layout, chunks: Callable[[], Iterator[bytes]]) -> None:
        self.path, self.layout, self._chunks = path, layout, chunks
        self._held: bytearray | None = None
        self._file: Any = None
        self._lock = threading.Lock()

    def part(self, start: Sequence[int], stop: Sequence[int]) -> NDArray[Any]:
        """As `Store` says."""
        with self._lock:
            if self._held is None and self._file is None:
                self._unpack()
            held, file = self._held, self._file
        if held is None:
            return _between(file, self.layout, start, stop, offset=0)
        whole = np.ndarray(self.layout.shape, dtype=self.layout.dtype, buffer=held)
        return whole[tuple(map(slice, start, stop))]

    def step_bytes(self, wide: int, long: int) -> int:
        """As `Store` says."""
        return self.layout.bytes // self.layout.shape[0]

    def close(self) -> None:
        """Let go of what was unpacked."""
        with self._lock:
            self._held = self._file = None

    def _unpack(self) -> None:
        small = self.layout.bytes <= MAPPED_BYTES
        held, file, done = bytearray(), None if small else tempfile.TemporaryFile(), 0  # noqa: SIM115 - it stays open as long as it is mapped
        try:
            for chunk in self._chunks():
                done += len(chunk)
                held.extend(chunk) if file is None else file.write(chunk)
        except (OSError, zlib.error) as error:
            raise UnreadableScene(f"{self.path} cannot be unpacked: {error}; copy or download it again") from error
        if done < self.layout.bytes:
            raise UnreadableScene(f"{self.path} holds {done:,} of {self.layout.bytes:,} bytes; copy or download it again")
        if file is None:
            self._held = held
            return
        file.flush()
        self._file = file


def _between(file: Any, layout: Layout, start: Sequence[int], stop: Sequence[int], *, offset: int) -> NDArray[Any]:
    """A view of part of a file, of which no more is mapped than steps of the slowest axis from start to stop."""
    begin = offset + start[0] * (layout.bytes // layout.shape[0])
    shape = (stop[0] - start[0], *layout.shape[1:])
    mapped = np.memmap(file, dtype=layout.dtype, mode="r", offset=begin, shape=shape)
    return mapped[:, start[1] : stop[1], start[2] : stop[2]]
