"""Read what becomes of tokens window by window and hand out strips of it, from top to bottom.

A decision cannot be blended. Where windows overlap, a place belongs to the window whose centre is nearest (of two equally
near, to the upper or left one), so that every place shows what one window decided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terralean.errors import ConfigError, UnreadableScene
from terralean.explain.strips import Lattice, data_of_places
from terralean.explain.tokens import Decisions, Tracer
from terralean.mapping.plan import Plan
from terralean.mapping.strips import Readable
from terralean.raster.grid import Grid, Window

Known = Mapping[Window, Decisions]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What was decided in one window."""

    window: Window
    decisions: Decisions
    valid: Tensor  # (H, W)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Strip:
    """Full-width rows of the grid of places; codes and sizes are 0 where there is no data."""

    window: Window
    codes: NDArray[np.int64]  # (points, height, width), as in Kept, but groups of different windows have different numbers
    sizes: NDArray[np.uint16]  # (points, height, width) tokens that the group of each place holds; of pruning 1
    data: NDArray[np.bool_]  # (height, width)


def first_reading(tracer: Tracer, scene: Readable, plan: Plan, *, path: str) -> Reading:
    """The first window that holds data. Raises UnreadableScene where none does."""
    for row in plan.rows:
        for reading in _readings(tracer, scene, plan.row_of_windows(row), known={}):
            return reading
    raise UnreadableScene(
        f"{path} holds no valid pixel in these bands: every one is nodata, masked or NaN; explain another scene"
    )


def token_lattice(tracer: Tracer, grid: Grid, decisions: Decisions, *, tile_px: int, overlap_px: int) -> Lattice:
    """The places of a scene: the finest tokens of these decisions. The overlap is the next smaller one that is whole in them.

    Raises ConfigError for a window that does not hold whole tokens: those of all windows would not lie on one grid.
    """
    seen, shrink = tracer.side_seen(tile_px), tracer.predictor.card.shrink
    coarsest = tracer.token_px(seen_px=seen, side=min(point.side for point in decisions.points))
    if tile_px % (coarsest * shrink):
        raise ConfigError(
            f"a window of {tile_px} px, of which the model sees {seen} px a side, does not hold whole tokens of {coarsest} px "
            f"each; give --tile a multiple of {coarsest * shrink}"
        )
    place_px = tile_px // decisions.side
    return Lattice(plan=Plan(grid=grid, tile_px=tile_px, overlap_px=overlap_px - overlap_px % place_px), side=decisions.side)


def strips(
    tracer: Tracer,
    scene: Readable,
    lattice: Lattice,
    *,
    known: Known,
    tell: Callable[[Reading], None] = lambda reading: None,
) -> Iterator[Strip]:
    """Strips that together cover the scene once; `tell` is given each window. Memory does not grow with the scene's height.

    `known`: decisions of windows that were looked at before.
    """
    plan, grid = lattice.plan, lattice.grid
    for number, row in enumerate(plan.rows):
        own = owned(row, plan.rows, lattice)
        top = lattice.places(row) + own.start
        window = Window(row=top, col=0, height=own.stop - own.start, width=grid.width).cut(grid.window)
        strip: Strip | None = None
        for reading in _readings(tracer, scene, plan.row_of_windows(row), known=known):
            tell(reading)
            strip = strip or _empty(window, points=len(reading.decisions.points))
            first = number * len(plan.cols) * lattice.side**2
            _put(reading, strip, lattice, rows=own, first=first + plan.cols.index(reading.window.col) * lattice.side**2)
        yield strip or _empty(window, points=0)


def owned(start: int, all_starts: list[int], lattice: Lattice) -> slice:
    """The places along a window, from its own first, that belong to it and not to its neighbours."""
    overlap = lattice.places(lattice.plan.overlap_px)
    before = 0 if start == all_starts[0] else overlap - overlap // 2
    after = 0 if start == all_starts[-1] else overlap // 2
    return slice(before, lattice.side - after)


def in_places_of(values: NDArray, *, side: int) -> NDArray:
    """Values of a coarser grid of tokens (h, h) for each place (side, side)."""
    times = side // len(values)
    return values.repeat(times, axis=0).repeat(times, axis=1)


def group_sizes(codes: NDArray[np.int64]) -> NDArray[np.uint16]:
    """How many tokens the group of each token holds, (h, w), at most what the numbers can say."""
    counts = np.bincount(codes.ravel())
    return np.minimum(counts, np.iinfo(np.uint16).max).astype(np.uint16)[codes]


def _readings(tracer: Tracer, scene: Readable, windows: Iterator[Window], *, known: Known) -> Iterator[Reading]:
    """Windows without data cost nothing."""
    for window in windows:
        values, mask = scene.read(window)
        if mask.any():
            valid = torch.from_numpy(mask)
            decisions = known.get(window) or tracer(torch.from_numpy(values.astype(np.float32)), valid)
            yield Reading(window=window, decisions=decisions, valid=valid)


def _empty(window: Window, *, points: int) -> Strip:
    shape = (points, window.height, window.width)
    return Strip(
        window=window, codes=np.zeros(shape, np.int64), sizes=np.zeros(shape, np.uint16), data=np.zeros(shape[1:], bool)
    )


def _put(reading: Reading, strip: Strip, lattice: Lattice, *, rows: slice, first: int) -> None:
    """Write what belongs to a window; its groups are numbered from `first`."""
    cols = owned(reading.window.col, lattice.plan.cols, lattice)
    left = lattice.places(reading.window.col) + cols.start
    to = slice(left, min(left + cols.stop - cols.start, strip.window.width))
    source = (slice(rows.start, rows.start + strip.window.height), slice(cols.start, cols.start + to.stop - to.start))
    data = data_of_places(reading.valid, side=lattice.side)[source]
    strip.data[:, to] = data
    for number, point in enumerate(reading.decisions.points):
        merges = reading.decisions.merges
        sizes = group_sizes(point.codes) if merges else np.ones_like(point.codes, np.uint16)
        codes = point.codes + first if merges else point.codes
        strip.codes[number, :, to] = in_places_of(codes, side=lattice.side)[source] * data
        strip.sizes[number, :, to] = in_places_of(sizes, side=lattice.side)[source] * data
