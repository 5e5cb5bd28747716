"""Read the attention of a scene window by window and hand out finished strips of blended maps, from top to bottom.

A token's weights are shares of its attention within one window: they sum to one over the window. Times the number of places
with data they are multiples of the average, so that windows can lie beside one another: 1 is what every place would have if
the token looked everywhere alike. Where the image reads meta tokens, a place's weights over all tokens sum to one; times the
number of tokens, 1 is what every token would have if none were preferred. Where windows overlap both are blended as the
scores of a map are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from terralean.errors import ConfigError
from terralean.explain.attention import BlockId, Look, Watcher
from terralean.explain.numbers import normalised
from terralean.mapping.plan import Plan, taper
from terralean.mapping.strips import Readable
from terralean.models.lemevit import REDUCTIONS
from terralean.raster.grid import Grid, Window

REDUCTION = (REDUCTIONS[0], REDUCTIONS[0], REDUCTIONS[1])  # of S0, S1, S2


@dataclass(frozen=True, kw_only=True, slots=True)
class Lattice:
    """The windows of a plan in places, one for each image token, instead of pixels; those of overlapping windows coincide."""

    plan: Plan
    side: int  # places along a window

    @property
    def grid(self) -> Grid:
        """Of the places: the scene's CRS and origin; the last ones may reach past its edge."""
        scene, pixels = self.plan.grid, self.plan.tile_px / self.side
        a, b, c, d, e, f = scene.transform
        return Grid(
            width=-self.places(-scene.width),
            height=-self.places(-scene.height),
            crs=scene.crs,
            transform=(a * pixels, b * pixels, c, d * pixels, e * pixels, f),
        )

    def places(self, px: int) -> int:
        """How many whole places lie along so many px; of a negative number, less how many are needed to cover it."""
        return px * self.side // self.plan.tile_px

    def weight(self, window: Window) -> NDArray[np.float32]:
        """Share of a window in each of its places (side, side), as `Plan.weight`."""
        overlap = self.places(self.plan.overlap_px)
        down = taper(window.row, self.plan.rows, tile=self.side, overlap=overlap)
        return down[:, None] * taper(window.col, self.plan.cols, tile=self.side, overlap=overlap)[None, :]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What was read in one window."""

    window: Window
    weights: Mapping[BlockId, Tensor]  # of each block, (heads, tokens, h, w) or (tokens, heads, h, w)
    valid: Tensor  # (H, W)


@dataclass(frozen=True, kw_only=True, slots=True)
class Strip:
    """Full-width rows of the grid of places that no later window touches."""

    window: Window
    attention: NDArray[np.float32]  # (maps, height, width), 1 = average; NaN where there is no data


def make_lattice(watcher: Watcher, grid: Grid, *, tile_px: int, overlap_px: int) -> Lattice:
    """The lattice of a scene; the overlap is the next smaller one that is whole in places.

    Raises ConfigError for a window that does not hold whole tokens.
    """
    checked = Plan(grid=grid, tile_px=tile_px, overlap_px=overlap_px)
    card, reduction = watcher.predictor.card, REDUCTION[watcher.look.shown.stage]
    seen, step = watcher.side_seen(tile_px), reduction * card.shrink
    if seen % reduction or (card.seen_px is None and tile_px % step):
        fix = f"give --tile a multiple of {step}" if card.seen_px is None else f"train with data.size_px a multiple of {step}"
        raise ConfigError(
            f"a window of {tile_px} px, of which the model sees {seen} px a side, does not hold whole tokens of "
            f"S{watcher.look.shown.stage}, {reduction} px each; {fix}"
        )
    side = seen // reduction
    able = [k * tile_px // side for k in range(side // 2 + 1) if k * tile_px % side == 0]
    overlap = max(px for px in able if px <= checked.overlap_px)
    return Lattice(plan=Plan(grid=grid, tile_px=tile_px, overlap_px=overlap), side=side)


def strips(
    watcher: Watcher, scene: Readable, lattice: Lattice, *, tell: Callable[[Reading], None] = lambda reading: None
) -> Iterator[Strip]:
    """Strips that together cover the scene once; `tell` is given each window. Memory does not grow with the scene's height."""
    plan, side = lattice.plan, lattice.side
    width = lattice.places(plan.cols[-1]) + side
    total = np.zeros((len(watcher.look.maps), side, width), np.float32)
    known = np.zeros((side, width), np.bool_)
    for row in plan.rows:
        for reading in _readings(watcher, scene, plan.row_of_windows(row)):
            _add(reading, lattice, look=watcher.look, total=total, known=known)
            tell(reading)
        first = lattice.places(row)
        done = side if row == plan.rows[-1] else side - lattice.places(plan.overlap_px)
        window = Window(row=first, col=0, height=done, width=width).cut(lattice.grid.window)
        inside = window.slices(origin=Window(row=first, col=0, height=side, width=width))
        yield Strip(window=window, attention=np.where(known[inside], total[:, *inside], np.float32(np.nan)))
        total, known = _moved_up(total, by=done), _moved_up(known, by=done)


def data_of_places(valid: Tensor, *, side: int) -> NDArray[np.bool_]:
    """valid (H, W) -> (side, side): where any pixel of a place holds data."""
    return F.adaptive_max_pool2d(valid[None].float(), side)[0].bool().numpy()


def relative(weights: NDArray[np.float32], valid: NDArray[np.bool_], *, look: Look) -> NDArray[np.float32]:
    """weights (maps, h, w) of a window as multiples of the average, which is taken where there is data; 0 elsewhere."""
    if look.direction == "image":
        return weights * valid * np.float32(look.count)
    found = np.zeros_like(weights)
    found[:, valid] = normalised(weights[:, valid].astype(np.float64)) * valid.sum()
    return found


def _readings(watcher: Watcher, scene: Readable, windows: Iterator[Window]) -> Iterator[Reading]:
    """Windows without data cost nothing."""
    for window in windows:
        values, mask = scene.read(window)
        if mask.any():
            valid = torch.from_numpy(mask)
            weights = watcher(torch.from_numpy(values.astype(np.float32)), valid)
            yield Reading(window=window, weights=weights, valid=valid)


def _add(reading: Reading, lattice: Lattice, *, look: Look, total: NDArray[np.float32], known: NDArray[np.bool_]) -> None:
    """Add the share of one window to the rows that are being filled."""
    weights = reading.weights[look.shown].mean(dim=0).numpy()
    held = data_of_places(reading.valid, side=lattice.side)
    first = lattice.places(reading.window.col)
    columns = slice(first, first + lattice.side)
    total[:, :, columns] += relative(weights, held, look=look) * lattice.weight(reading.window)
    known[:, columns] |= held


def _moved_up(rows: NDArray, *, by: int) -> NDArray:
    """Without the first rows, and with as many empty ones below."""
    moved = np.zeros_like(rows)
    moved[..., : rows.shape[-2] - by, :] = rows[..., by:, :]
    return moved
