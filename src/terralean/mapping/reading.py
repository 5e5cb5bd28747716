"""A scene read from top to bottom, each block of the file once, and cut into batches of windows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from terralean.errors import UnreadableScene
from terralean.mapping.plan import Lattice
from terralean.raster.clip import Clip
from terralean.raster.grid import Window
from terralean.raster.scene import Scene

ROWS_AT_ONCE = 256  # at least, of blocks that are lower: fewer and larger reads


class Readable(Protocol):
    """A scene, or an array that reads as one."""

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Values (C, h, w) and valid (h, w); outside, 0 and not valid."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Piece:
    """Rows of a scene."""

    window: Window
    values: NDArray[Any]  # (C, h, w)
    valid: NDArray[np.bool_]  # (h, w) pixels that hold data
    wanted: NDArray[np.bool_]  # (h, w) those that are to be mapped


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """Windows that are predicted together. Of windows that follow each other in the lattice, those with something to map."""

    end: int  # number of the window behind the last of those that follow each other
    numbers: tuple[int, ...]  # of the n windows that are predicted
    windows: tuple[Window, ...]
    values: NDArray[Any]  # (n, C, side, side)
    valid: NDArray[np.bool_]  # (n, side, side)
    wanted: NDArray[np.bool_]  # (n, side, side)


def pieces(scene: Readable, lattice: Lattice, *, first_row: int, clip: Clip | None = None) -> Iterator[Piece]:
    """The rows that windows from `first_row` on see, in pieces that end where blocks of the file do.

    Rows that are far from what is to be mapped are left out. Raises UnreadableScene, naming the block.
    """
    end = min(lattice.rows[-1] + lattice.side_px, lattice.grid.height)
    first_col, last_col = lattice.cols[0], min(lattice.cols[-1] + lattice.side_px, lattice.grid.width)
    for top, bottom in pairwise(_edges(scene, first_row, end, step=_piece_height(scene))):
        near = Window(row=top - lattice.side_px, col=0, height=bottom - top + 2 * lattice.side_px, width=lattice.grid.width)
        if clip is not None and not clip.reaches(near):
            continue
        window = Window(row=top, col=first_col, height=bottom - top, width=last_col - first_col)
        values, valid = _read(scene, window)
        wanted = valid if clip is None else valid & clip.inside(window)
        yield Piece(window=window, values=values, valid=valid, wanted=wanted)


def batches(found: Iterator[Piece], lattice: Lattice, *, size: int, first_row: int) -> Iterator[Batch]:
    """All batches that hold a window from `first_row` on. Which windows form one depends on their numbers alone.

    `found` has the pieces from `first_row_read` on.
    """
    rows, cols, side = lattice.rows, lattice.cols, lattice.side_px
    held = _Held(found, end=lattice.grid.height)
    first = rows.index(first_row) * len(cols)
    for begin in range(first - first % size, len(rows) * len(cols), size):
        end = min(begin + size, len(rows) * len(cols))
        cuts: list[_Cut] = []
        for number in range(begin, end):
            window = Window(row=rows[number // len(cols)], col=cols[number % len(cols)], height=side, width=side)
            cut = held.cut(number, window)
            if lattice.holds(cut.wanted):
                cuts.append(cut)
        yield _stacked(cuts, end=end)


def batch_count(lattice: Lattice, *, size: int) -> int:
    """Batches of all windows."""
    return -(-len(lattice.rows) * len(lattice.cols) // size)


def batch_at(scene: Readable, lattice: Lattice, number: int, *, size: int, clip: Clip | None = None) -> Batch:
    """One of these batches, each of its windows read by itself."""
    rows, cols, side = lattice.rows, lattice.cols, lattice.side_px
    end, cuts = min((number + 1) * size, len(rows) * len(cols)), list[_Cut]()
    for at in range(number * size, end):
        window = Window(row=rows[at // len(cols)], col=cols[at % len(cols)], height=side, width=side)
        values, valid = scene.read(window)
        cut = _Cut(at, window, values, valid, valid if clip is None else valid & clip.inside(window))
        cuts += [cut] if lattice.holds(cut.wanted) else []
    return _stacked(cuts, end=end)


def first_row_read(lattice: Lattice, *, size: int, first_row: int) -> int:
    """Where reading begins for batches that hold a window from `first_row` on: a batch may begin in the row above."""
    first = lattice.rows.index(first_row) * len(lattice.cols)
    return lattice.rows[(first - first % size) // len(lattice.cols)]


def bytes_read(scene: Scene, lattice: Lattice, *, batch: int, at_once: int) -> int:
    """Of pieces that are held at once, one of them being read, and of batches that are under way."""
    side, pixel = lattice.side_px, np.dtype(scene.bands.dtype).itemsize * len(scene.bands)
    height = min(_piece_height(scene), lattice.grid.height)
    width = min(lattice.cols[-1] + side, lattice.grid.width) - lattice.cols[0]
    held = min((-(-side // height) + 2) * height, lattice.grid.height) + height  # while it is read, a piece is there twice
    return held * width * (pixel + 2) + (at_once + 1) * batch * side**2 * (pixel + 2)


class _Cut(NamedTuple):
    """One window."""

    number: int
    window: Window
    values: NDArray[Any]
    valid: NDArray[np.bool_]
    wanted: NDArray[np.bool_]


class _Held:
    """Pieces that windows still need."""

    def __init__(self, found: Iterator[Piece], *, end: int) -> None:
        self._found, self._end = found, end
        self._pieces: deque[Piece] = deque()
        self._bands: tuple[int, np.dtype[Any]] = (0, np.dtype(np.uint8))
        self._read = 0  # row below those that were read or left out

    def cut(self, number: int, window: Window) -> _Cut:
        """A window; no later one begins further up."""
        self._take_until(min(window.row + window.height, self._end))
        while self._pieces and self._pieces[0].window.row + self._pieces[0].window.height <= window.row:
            self._pieces.popleft()
        count, dtype = self._bands
        values = np.zeros((count, window.height, window.width), dtype)
        valid, wanted = (np.zeros((window.height, window.width), np.bool_) for _ in range(2))
        for piece in self._pieces:
            inside = window.cut(piece.window)
            to, source = inside.slices(origin=window), inside.slices(origin=piece.window)
            values[:, *to] = piece.values[:, *source]
            valid[to], wanted[to] = piece.valid[source], piece.wanted[source]
        return _Cut(number, window, values, valid, wanted)

    def _take_until(self, row: int) -> None:
        while self._read < row and (piece := next(self._found, None)) is not None:
            self._pieces.append(piece)
            self._bands = len(piece.values), piece.values.dtype
            self._read = piece.window.row + piece.window.height


def _stacked(cuts: list[_Cut], *, end: int) -> Batch:
    def stacked(name: str) -> NDArray[Any]:
        return np.stack([getattr(cut, name) for cut in cuts]) if cuts else np.zeros((0, 0, 0))

    return Batch(
        end=end,
        numbers=tuple(cut.number for cut in cuts),
        windows=tuple(cut.window for cut in cuts),
        values=stacked("values"),
        valid=stacked("valid"),
        wanted=stacked("wanted"),
    )


def _edges(scene: Readable, first: int, end: int, *, step: int) -> list[int]:
    """Rows from `first` to `end` between which pieces lie: where blocks of the file begin."""
    shift = scene.part.row if isinstance(scene, Scene) else 0
    inner = range(first - (first + shift) % step + step, end, step)
    return [first, *inner, end]


def _piece_height(scene: Readable) -> int:
    """Whole blocks."""
    height = scene.block()[0] if isinstance(scene, Scene) else 1
    return -(-ROWS_AT_ONCE // height) * height


def _read(scene: Readable, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    try:
        return scene.read(window)
    except UnreadableScene:
        if isinstance(scene, Scene):
            height, width = scene.block()
            for row, col in product(range(0, window.height, height), range(0, window.width, width)):
                block = Window(row=window.row + row, col=window.col + col, height=height, width=width)
                scene.read(block.cut(window))  # the block that breaks names itself
        raise
