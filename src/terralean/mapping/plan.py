"""Which windows of a scene are predicted, and with what weight each enters the map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from terralean.errors import ConfigError
from terralean.raster.grid import Grid, Window
from terralean.weights.card import MIN_TILE_PX


class Lattice(Protocol):
    """Square windows in rows and columns; they are numbered along the rows, from the top left one on, which is 0."""

    @property
    def grid(self) -> Grid:
        """Of the scene."""

    @property
    def side_px(self) -> int:
        """Of a window."""

    @property
    def overlap_px(self) -> int:
        """Shared by neighbours."""

    @property
    def rows(self) -> list[int]:
        """First rows of the windows."""

    @property
    def cols(self) -> list[int]:
        """First columns of the windows."""

    def holds(self, wanted: NDArray[np.bool_]) -> bool:
        """Whether a window is to be predicted of which these pixels (side, side) are to be mapped."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Square windows on a lattice fixed by the scene's first pixel; those at the far edges reach past the scene.

    Where only a part of the scene is mapped, the windows are those of the whole that reach into it.
    """

    grid: Grid  # of the scene
    tile_px: int
    overlap_px: int  # shared by neighbours, blended with a linear taper
    part: Window | None = None  # what is mapped; None: all
    margin_px: int = 0  # outermost pixels of a window that count for nothing where it has a neighbour

    def __post_init__(self) -> None:
        if self.tile_px < MIN_TILE_PX:
            raise ConfigError(f"tile must be at least {MIN_TILE_PX} px, got {self.tile_px}")
        if not 0 <= self.overlap_px <= self.tile_px // 2:
            raise ConfigError(f"overlap must be 0 to half the tile ({self.tile_px // 2} px), got {self.overlap_px}")
        assert 0 <= 2 * self.margin_px <= self.overlap_px, "a pixel counts in some window"

    @property
    def side_px(self) -> int:
        """Of a window."""
        return self.tile_px

    @property
    def mapped(self) -> Window:
        """What of the scene the map covers."""
        return self.grid.window if self.part is None else self.part

    @property
    def map_grid(self) -> Grid:
        """Of the map."""
        return self.grid.crop(self.mapped)

    @property
    def rows(self) -> list[int]:
        """First rows of the windows."""
        mapped = self.mapped
        return _reaching(self._all_rows, tile=self.tile_px, first=mapped.row, end=mapped.row + mapped.height)

    @property
    def cols(self) -> list[int]:
        """First columns of the windows."""
        mapped = self.mapped
        return _reaching(self._all_cols, tile=self.tile_px, first=mapped.col, end=mapped.col + mapped.width)

    def row_of_windows(self, row: int) -> Iterator[Window]:
        """The windows that begin in one row, from left to right."""
        for col in self.cols:
            yield Window(row=row, col=col, height=self.tile_px, width=self.tile_px)

    def strip(self, row: int) -> Window:
        """What is finished of the map, in px of the scene, when the windows that begin in this row are: perhaps nothing."""
        last = row == self._all_rows[-1]
        height = self.tile_px if last else self.tile_px - self.overlap_px
        return Window(row=row, col=self.mapped.col, height=height, width=self.mapped.width).cut(self.mapped)

    def weight(self, window: Window) -> NDArray[np.float32]:
        """Share of a window in each of its pixels, (tile, tile); over all windows the shares of a pixel sum to one."""
        down = taper(window.row, self._all_rows, tile=self.tile_px, overlap=self.overlap_px, margin=self.margin_px)
        across = taper(window.col, self._all_cols, tile=self.tile_px, overlap=self.overlap_px, margin=self.margin_px)
        return down[:, None] * across[None, :]

    def holds(self, wanted: NDArray[np.bool_]) -> bool:
        """Windows without a pixel to map are not predicted."""
        return bool(wanted.any())

    @property
    def _all_rows(self) -> list[int]:
        return starts(self.grid.height, tile=self.tile_px, overlap=self.overlap_px)

    @property
    def _all_cols(self) -> list[int]:
        return starts(self.grid.width, tile=self.tile_px, overlap=self.overlap_px)


def starts(length: int, *, tile: int, overlap: int) -> list[int]:
    """Offsets of equal tiles covering [0, length), all multiples of the stride; what reaches past the edge is not valid."""
    return list(range(0, max(length - overlap, 1), tile - overlap))


def taper(start: int, all_starts: list[int], *, tile: int, overlap: int, margin: int = 0) -> NDArray[np.float32]:
    """Weights (tile,) of one window along one axis: rising over the overlap with the one before, falling with the one after.

    The outermost `margin` px of an overlap have no weight.
    """
    weight = np.ones(tile, np.float32)
    inner = overlap - 2 * margin
    ramp = ((np.arange(overlap, dtype=np.float32) - margin + 0.5) / max(inner, 1)).clip(0, 1)
    if margin and not inner:
        ramp = np.repeat(np.array([0, 1], np.float32), margin)
    if start != all_starts[0]:
        weight[:overlap] = ramp
    if start != all_starts[-1]:
        weight[tile - overlap :] = 1 - ramp
    return weight


def _reaching(all_starts: list[int], *, tile: int, first: int, end: int) -> list[int]:
    """Of these the starts of tiles that reach into [first, end)."""
    return [start for start in all_starts if start < end and start + tile > first]
