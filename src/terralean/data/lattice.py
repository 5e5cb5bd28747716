"""Blocks of a lattice on the ground: which pixels of a scene lie in which block, and how far from the blocks that judge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from terralean.data.config import SplitConfig
from terralean.data.ground import Frame, aligned, pixel_units, placed, to_frame
from terralean.raster.grid import Grid, Window

BLOCKS = 40  # blocks aimed at where no size is given: enough to deal several classes, few enough to stay large
MANY = 10  # scenes that can be dealt whole
LARGEST_PX = 512
SMALLEST_PX = 16
GAP_PX = 32
GAPS = 4  # least side of a block in gaps: with one gap off either side half of it remains
SLACK_PX = 1e-3  # by so much a pixel may cross a line of the lattice and still count as inside: rounding of coordinates
CELLS = 32  # cells across a block where rows and columns do not run along the lattice


@dataclass(frozen=True, kw_only=True)
class Lattice:
    """Equal blocks over a frame, numbered row by row from the corner where the first scene's first pixel would be."""

    frame: Frame
    origin: tuple[float, float]  # x, y in units of the frame
    side: tuple[float, float]  # of a block along columns and rows, in units of the frame; the second is negative if y is up
    shape: tuple[int, int]  # rows, columns of blocks
    gap: tuple[float, float]  # along columns and rows, in sides

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Rectangles of whole pixels of one scene, R rows by C columns of them, placed on a lattice."""

    rows: NDArray[np.int64]  # (R + 1,) where they begin and end, in pixels
    cols: NDArray[np.int64]  # (C + 1,)
    block: NDArray[np.int64]  # (R, C) the block that holds the cell; -1 where it lies across a border
    reach: NDArray[np.int64]  # (R, C, 4) first and last block row, first and last block column within the gap of the cell


def settle(config: SplitConfig, grids: Sequence[Grid]) -> SplitConfig:
    """The configuration with a gap, for blocks of the size that it asks for or that the scenes suggest."""
    if config.gap_px is not None:
        return config
    pixel_m = max((max(grid.pixel_m() or (1.0,)) for grid in grids if placed(grid)), default=None)
    side = config.block_px or _suggested_px(grids)
    if config.block_m is not None and pixel_m is not None:
        side = config.block_m / pixel_m
    return replace(config, gap_px=min(GAP_PX, int(side / GAPS)))


def lattice(frame: Frame, grids: Sequence[Grid], config: SplitConfig) -> Lattice:
    """The lattice for the scenes of a frame, of all `grids`; `config` is settled."""
    down = -1.0 if frame.crs is not None and plane_is_up(grids[frame.members[0]]) else 1.0
    x, y = _corners(frame, grids)
    wide, high = x.max() - x.min(), y.max() - y.min()
    pixel = tuple(max(sizes) for sizes in zip(*(pixel_units(grids[i], frame) for i in frame.members), strict=True))
    gap = _units(config.gap_m, config.gap_px or 0, frame, pixel)
    side = _side(config, frame, grids, pixel, gap=gap, extent=(wide, high))
    origin = (float(x.min()), float(y.max() if down < 0 else y.min()))
    slack = [SLACK_PX * p for p in pixel]
    shape = (max(1, math.ceil((high - slack[1]) / side[1])), max(1, math.ceil((wide - slack[0]) / side[0])))
    return Lattice(
        frame=frame, origin=origin, side=(side[0], down * side[1]), shape=shape, gap=(gap[0] / side[0], gap[1] / side[1])
    )


def plane_is_up(grid: Grid) -> bool:
    """Whether y grows from the last row to the first, as on a map."""
    return grid.transform[4] < 0 or (grid.transform[4] == 0 and grid.transform[3] < 0)


def cells(grid: Grid, on: Lattice) -> Cells:
    """The scene cut so finely that each cell lies in one block, or across a border, and is within the gap or not."""
    straight = aligned(grid, on.frame)
    cols = _breaks(grid, on, axis=0) if straight else _steps(grid.width, _cell_px(grid, on))
    rows = _breaks(grid, on, axis=1) if straight else _steps(grid.height, _cell_px(grid, on))
    u, v = _on_lattice(grid, on, cols, rows)
    slack = _slack(grid, on)
    block_cols, block_rows = _range(u, margin=-slack[0]), _range(v, margin=-slack[1])
    alone = (block_cols[0] == block_cols[1]) & (block_rows[0] == block_rows[1])
    block = np.where(alone, block_rows[0] * on.shape[1] + block_cols[0], -1)
    # A curved border is only met at the corners of a cell: what is not straight keeps a hundredth of a cell more distance.
    extra = (0.0, 0.0) if straight else (0.01 * np.ptp(u, axis=0).max(), 0.01 * np.ptp(v, axis=0).max())
    near_rows = _range(v, margin=on.gap[1] - slack[1] + extra[1])
    near_cols = _range(u, margin=on.gap[0] - slack[0] + extra[0])
    return Cells(rows=rows, cols=cols, block=block, reach=np.stack([*near_rows, *near_cols], axis=-1))


def apart(on: Cells, judging: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(R, C): cells that keep the gap to every block of judging (rows, columns of the lattice)."""
    rows, cols = judging.shape
    total = np.zeros((rows + 1, cols + 1), dtype=np.int64)
    total[1:, 1:] = judging.cumsum(axis=0).cumsum(axis=1)
    top, bottom = (np.clip(on.reach[..., i] + i, 0, rows) for i in (0, 1))
    left, right = (np.clip(on.reach[..., i + 2] + i, 0, cols) for i in (0, 1))
    return total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left] == 0


def rectangles(wanted: NDArray[np.bool_], on: Cells) -> list[tuple[Window, tuple[slice, slice]]]:
    """Disjoint windows that cover the wanted cells (R, C) and no others, each with the cells in it."""
    out: list[tuple[slice, slice]] = []
    open_runs: dict[tuple[int, int], int] = {}
    for row in range(len(wanted) + 1):
        runs = _runs(wanted[row]) if row < len(wanted) else []
        for run in [run for run in open_runs if run not in runs]:
            out.append((slice(open_runs.pop(run), row), slice(*run)))
        for run in runs:
            open_runs.setdefault(run, row)
    return [(_window(on, part), part) for part in sorted(out, key=lambda part: (part[0].start, part[1].start))]


def _window(on: Cells, part: tuple[slice, slice]) -> Window:
    top, bottom, left, right = on.rows[part[0].start], on.rows[part[0].stop], on.cols[part[1].start], on.cols[part[1].stop]
    return Window(row=int(top), col=int(left), height=int(bottom - top), width=int(right - left))


def _runs(wanted: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], wanted, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _corners(frame: Frame, grids: Sequence[Grid]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    found = []
    for i in frame.members:
        cols = np.array([0, grids[i].width, grids[i].width, 0], dtype=float)
        rows = np.array([0, 0, grids[i].height, grids[i].height], dtype=float)
        found.append(np.stack(to_frame(grids[i], frame, cols, rows)))
    x, y = np.concatenate(found, axis=1)
    return x, y


def _units(metres: float | None, px: float, frame: Frame, pixel: Sequence[float]) -> tuple[float, float]:
    """A length in units of x and y, from metres where both are known, else from pixels."""
    if metres is not None and frame.crs is not None:
        return metres / frame.metres[0], metres / frame.metres[1]
    return px * pixel[0], px * pixel[1]


def _side(
    config: SplitConfig,
    frame: Frame,
    grids: Sequence[Grid],
    pixel: Sequence[float],
    *,
    gap: tuple[float, float],
    extent: tuple[float, float],
) -> tuple[float, float]:
    """Sides of a block, whole pixels."""
    if config.block_px is not None or (config.block_m is not None and frame.crs is not None):
        side = _units(config.block_m, config.block_px or 0, frame, pixel)
        return tuple(max(1, round(s / p)) * p for s, p in zip(side, pixel, strict=True))  # type: ignore[return-value]
    wanted_px = max(GAPS * max(g / p for g, p in zip(gap, pixel, strict=True)), _suggested_px(grids))
    return tuple(_even(e / p, wanted_px) * p for e, p in zip(extent, pixel, strict=True))  # type: ignore[return-value]


def _suggested_px(grids: Sequence[Grid]) -> float:
    """Side of a block such that all scenes together hold some forty; where there are many scenes, small ones stay whole."""
    covered = sum(grid.width * grid.height for grid in grids)
    whole = float(np.median([max(grid.width, grid.height) for grid in grids])) if len(grids) >= MANY else 0.0
    return max(SMALLEST_PX, min(LARGEST_PX, max(math.sqrt(covered / BLOCKS), whole)))


def _even(length_px: float, side_px: float) -> int:
    """About `side_px`, such that the last block is about as large as the others."""
    count = max(1, round(length_px / side_px))
    return max(1, math.ceil(round(length_px, 3) / count))


def _slack(grid: Grid, on: Lattice) -> tuple[float, float]:
    wide, high = pixel_units(grid, on.frame)
    return SLACK_PX * wide / abs(on.side[0]), SLACK_PX * high / abs(on.side[1])


def _cell_px(grid: Grid, on: Lattice) -> int:
    wide, high = pixel_units(grid, on.frame)
    return max(1, int(min(abs(on.side[0]) / wide, abs(on.side[1]) / high) / CELLS))


def _steps(length: int, step: int) -> NDArray[np.int64]:
    return np.append(np.arange(0, length, step), length)


def _breaks(grid: Grid, on: Lattice, *, axis: int) -> NDArray[np.int64]:
    """Columns (axis 0) or rows (axis 1) next to a line of the lattice, or one gap off it."""
    length = (grid.width, grid.height)[axis]
    ends = np.array([0.0, length])
    first, last = (to_frame(grid, on.frame, ends, ends)[axis] - on.origin[axis]) / on.side[axis]
    lines = np.arange(on.shape[1 - axis] + 1, dtype=float)
    lines = np.concatenate([lines - on.gap[axis], lines, lines + on.gap[axis]])
    px = (lines - first) / (last - first) * length
    around = np.concatenate([np.ceil(px - SLACK_PX), np.floor(px + SLACK_PX)])
    return np.unique(np.concatenate([[0, length], around[(around > 0) & (around < length)]])).astype(np.int64)


def _on_lattice(grid: Grid, on: Lattice, cols: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[NDArray, NDArray]:
    """Corners of the cells in sides from the origin: along columns and along rows, each (4, R, C)."""
    across, along = np.meshgrid(cols.astype(float), rows.astype(float))
    x, y = to_frame(grid, on.frame, across, along)
    u, v = (x - on.origin[0]) / on.side[0], (y - on.origin[1]) / on.side[1]
    corners = [
        (slice(None, -1), slice(None, -1)),
        (slice(None, -1), slice(1, None)),
        (slice(1, None), slice(None, -1)),
        (slice(1, None), slice(1, None)),
    ]
    return np.stack([u[corner] for corner in corners]), np.stack([v[corner] for corner in corners])


def _range(position: NDArray[np.float64], *, margin: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last block that a cell with these corners (4, R, C), widened by `margin`, lies in."""
    low, high = position.min(axis=0) - margin, position.max(axis=0) + margin
    return np.floor(low).astype(np.int64), np.ceil(high).astype(np.int64) - 1
