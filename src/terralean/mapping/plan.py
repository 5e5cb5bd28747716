"""Which windows of a scene are predicted, and with what weight each enters the map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terralean.errors import ConfigError
from terralean.raster.grid import Grid, Window

MIN_TILE_PX = 32  # the coarsest map of a pyramid is then at least one pixel


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Square windows on a lattice fixed by the scene's first pixel; those at the far edges reach past the scene."""

    grid: Grid
    tile_px: int
    overlap_px: int  # shared by neighbours, blended with a linear taper

    def __post_init__(self) -> None:
        if self.tile_px < MIN_TILE_PX:
            raise ConfigError(f"tile must be at least {MIN_TILE_PX} px, got {self.tile_px}")
        if not 0 <= self.overlap_px <= self.tile_px // 2:
            raise ConfigError(f"overlap must be 0 to half the tile ({self.tile_px // 2} px), got {self.overlap_px}")

    @property
    def rows(self) -> list[int]:
        """First rows of the windows."""
        return starts(self.grid.height, tile=self.tile_px, overlap=self.overlap_px)

    @property
    def cols(self) -> list[int]:
        """First columns of the windows."""
        return starts(self.grid.width, tile=self.tile_px, overlap=self.overlap_px)

    def row_of_windows(self, row: int) -> Iterator[Window]:
        """The windows that begin in one row, from left to right."""
        for col in self.cols:
            yield Window(row=row, col=col, height=self.tile_px, width=self.tile_px)

    def weight(self, window: Window) -> NDArray[np.float32]:
        """Share of a window in each of its pixels, (tile, tile); over all windows the shares of a pixel sum to one."""
        down = taper(window.row, self.rows, tile=self.tile_px, overlap=self.overlap_px)
        across = taper(window.col, self.cols, tile=self.tile_px, overlap=self.overlap_px)
        return down[:, None] * across[None, :]

    def bytes_needed(self, *, bands: int, classes: int, batch: int) -> int:
        """Peak bytes of the arrays held at once: one strip of scores, its mask and classes, one batch of windows."""
        strip = self.tile_px * max(self.grid.width, self.tile_px) * (4 * classes + 2)
        return strip + batch * self.tile_px**2 * 4 * (2 * bands + 2 * classes)


def starts(length: int, *, tile: int, overlap: int) -> list[int]:
    """Offsets of equal tiles covering [0, length), all multiples of the stride; what reaches past the edge is not valid."""
    return list(range(0, max(length - overlap, 1), tile - overlap))


def taper(start: int, all_starts: list[int], *, tile: int, overlap: int) -> NDArray[np.float32]:
    """Weights (tile,) of one window along one axis: rising over the overlap with the one before, falling with the one after."""
    weight = np.ones(tile, np.float32)
    ramp = (np.arange(overlap, dtype=np.float32) + 0.5) / max(overlap, 1)
    if start != all_starts[0]:
        weight[:overlap] = ramp
    if start != all_starts[-1]:
        weight[tile - overlap :] = 1 - ramp
    return weight
