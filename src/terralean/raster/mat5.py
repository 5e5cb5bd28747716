"""MATLAB files of version 5 to 7.2: where each variable lies, so that parts of an array can be read without the rest of it.

The format: MATLAB MAT-File Format, The MathWorks. scipy reads what is small (`values_of`).
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import numpy as np

from terralean.errors import UnreadableScene
from terralean.raster.arrays import Layout, Mapped, Store, Unpacked

HEADER_BYTES = 128
MATRIX, COMPRESSED = 14, 15
COMPLEX_FLAG, LOGICAL_FLAG = 0x08, 0x02
CHUNK_BYTES = 2**20
NOT_NUMBERS = ("cell", "struct", "object", "char", "sparse")
NUMBERS = ("double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
CLASSES = NOT_NUMBERS + NUMBERS  # from 1
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}  # types of elements


@dataclass(frozen=True, kw_only=True, slots=True)
class Variable:
    """An array in a MATLAB file."""

    name: str
    kind: str  # its class in MATLAB, "complex double" if complex
    shape: tuple[int, ...]  # as in MATLAB
    dtype: str  # as stored, which is often smaller than the class: 12-bit counts of class double lie there as uint16
    store: Callable[[Layout], Store] | None  # what reads it, told what the axes are; None if it is no array of real numbers
    reversed_axes: bool = True  # the first axis is the fastest on disk, as MATLAB has it


def variables(path: str) -> list[Variable]:
    """All variables of a file, in order. Raises UnreadableScene where it breaks off."""
    try:
        with open(path, "rb") as file:
            order = _byte_order(file, path)
            return list(_walk(file, path, order))
    except (struct.error, zlib.error, KeyError, IndexError, ValueError) as error:
        raise UnreadableScene(f"{path} breaks off or is damaged ({error}); copy or download it again") from error


def values_of(path: str, names: list[str]) -> dict[str, Any]:
    """Small variables by name, as scipy reads them."""
    from scipy.io import loadmat  # noqa: PLC0415 - every verb that reads scenes would load all formats that scipy knows

    return loadmat(path, variable_names=names)


def _byte_order(file: BinaryIO, path: str) -> str:
    header = file.read(HEADER_BYTES)
    order = {b"IM": "<", b"MI": ">"}.get(header[126:128])
    if order is None:
        raise UnreadableScene(
            f"{path} is no MATLAB file of version 5 to 7.3 (it begins with {header[:20]!r}); in MATLAB: save('NAME.mat', '-v7')"
        )
    return order


def _walk(file: BinaryIO, path: str, order: str) -> Iterator[Variable]:
    place, end = HEADER_BYTES, os.fstat(file.fileno()).st_size
    while tag := file.read(8):
        kind, size = struct.unpack(f"{order}II", tag)
        start = place + 8
        place = start + size
        if place > end:
            raise struct.error(f"it should have {place:,} bytes and has {end:,}")
        if kind == MATRIX:
            yield _plain(file, path, order, start=start)
        elif kind == COMPRESSED:
            yield _compressed(file, path, order, start=start, size=size)
        file.seek(place)


def _plain(file: BinaryIO, path: str, order: str, *, start: int) -> Variable:
    reader = _Reader(file.read, order)
    found = reader.header()
    offset = start + reader.done
    store = None if found.bytes is None else partial(_mapped, path, offset)
    return Variable(name=found.name, kind=found.kind, shape=found.shape, dtype=found.dtype, store=store)


def _compressed(file: BinaryIO, path: str, order: str, *, start: int, size: int) -> Variable:
    stream = _Inflated(file, size=size)
    stream.read(8)  # the tag of the matrix inside
    reader = _Reader(stream.read, order)
    found = reader.header()
    chunks = partial(_data, path, start=start, size=size, skip=8 + reader.done, length=found.bytes or 0)
    store = None if found.bytes is None else partial(_unpacked, path, chunks)
    return Variable(name=found.name, kind=found.kind, shape=found.shape, dtype=found.dtype, store=store)


def _mapped(path: str, offset: int, layout: Layout) -> Store:
    return Mapped(path, offset=offset, layout=layout)


def _unpacked(path: str, chunks: Callable[[], Iterator[bytes]], layout: Layout) -> Store:
    return Unpacked(path, layout=layout, chunks=chunks)


def _data(path: str, *, start: int, size: int, skip: int, length: int) -> Iterator[bytes]:
    """The numbers of a compressed variable, piece by piece."""
    with open(path, "rb") as file:
        file.seek(start)
        stream = _Inflated(file, size=size)
        stream.read(skip)
        while length > 0 and (chunk := stream.read(min(length, CHUNK_BYTES))):
            length -= len(chunk)
            yield chunk


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int | None  # of the numbers; None where there are none, or not of this kind


class _Reader:
    """The parts of a variable before its numbers, from a function that reads bytes."""

    def __init__(self, read: Callable[[int], bytes], order: str) -> None:
        self._read, self._order = read, order
        self.done = 0

    def header(self) -> _Found:
        """Flags, dimensions, name, and the tag of the numbers."""
        flags = struct.unpack(f"{self._order}II", self._element()[1])[0]
        shape = np.frombuffer(self._element()[1], dtype=f"{self._order}i4")
        name = self._element()[1].decode("latin-1")
        kind = CLASSES[(flags & 0xFF) - 1]
        is_complex = bool(flags >> 8 & COMPLEX_FLAG)
        dims = tuple(int(n) for n in shape)
        if kind not in NUMBERS or is_complex or not all(dims):
            return _Found(name=name, kind=f"complex {kind}" if is_complex else kind, shape=dims, dtype="", bytes=None)
        stored, size, _ = self._tag()
        dtype = np.dtype(self._order + STORED[stored])
        if size < (wanted := math.prod(dims) * dtype.itemsize):
            raise UnreadableScene(f"variable {name} has {size:,} bytes for an array that takes {wanted:,}; its file is damaged")
        return _Found(name=name, kind=kind, shape=dims, dtype=dtype.str, bytes=size)

    def _element(self) -> tuple[int, bytes]:
        kind, size, small = self._tag()
        data = self._take(size)
        self._take(4 - size if small else -size % 8)
        return kind, data

    def _tag(self) -> tuple[int, int, bool]:
        first = struct.unpack(f"{self._order}I", self._take(4))[0]
        if first >> 16:  # up to four bytes of data lie in the tag itself
            return first & 0xFFFF, first >> 16, True
        return first, struct.unpack(f"{self._order}I", self._take(4))[0], False

    def _take(self, size: int) -> bytes:
        data = self._read(size)
        if len(data) < size:
            raise struct.error("it ends inside a variable")
        self.done += size
        return data


class _Inflated:
    """Bytes out of a zlib stream of `size` bytes of a file."""

    def __init__(self, file: BinaryIO, *, size: int) -> None:
        self._file, self._left, self._stream, self._ready = file, size, zlib.decompressobj(), b""

    def read(self, size: int) -> bytes:
        """So many bytes, fewer at the end."""
        parts, missing = [], size
        while missing > 0:
            if not self._ready:
                self._ready = self._more(missing)
                if not self._ready:
                    break
            parts.append(self._ready[:missing])
            self._ready = self._ready[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)

    def _more(self, size: int) -> bytes:
        while not self._stream.eof:
            packed = self._stream.unconsumed_tail or self._file.read(min(self._left, 2**16))
            if not self._stream.unconsumed_tail:
                self._left -= len(packed)
                if not packed:
                    return b""
            if out := self._stream.decompress(packed, max(size, 2**12)):
                return out
        return b""
