"""Images without coordinates that continue each other: neighbouring tiles of one scene, found by their edges.

Along a seam the outermost line of one image runs beside the outermost line of the other, so their fine structure agrees: the
high-passed profiles correlate, and the step across is about as large as a step between neighbouring lines inside. Lines of
unrelated images do not correlate, however alike their land cover is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from terralean.raster.grid import Window
from terralean.raster.scene import Scene, open_scene

Side = Literal["top", "bottom", "left", "right"]
OPPOSITE: dict[Side, Side] = {"top": "bottom", "bottom": "top", "left": "right", "right": "left"}

# Measured on 48 parts of 8 aerial tiles (56 seams, 51 found), 26 unrelated aerial photographs and 2500 EuroSAT images of 64 px
# (none found among 12.5 million pairs). Missed are seams along open water, which has no structure, and short ones in JPEG.
LEAST_CORRELATION = 0.3
CHANCE = 6.0  # divided by the root of an edge's length: what short edges reach by chance, over millions of pairs
LIMIT = 8.0  # a profile is cut off at so many times its median, so that one bright shore on still water does not decide
LARGEST_STEP = 3.0  # across the seam, in steps between neighbouring lines inside
DECODE_PX = 1 << 25  # images up to this size are read whole: most formats without coordinates cannot read a column alone


@dataclass(frozen=True, kw_only=True, slots=True)
class Seam:
    """Side `side` of image `one` continues in image `other`."""

    one: str
    other: str
    side: Side
    correlation: float


@dataclass(frozen=True, kw_only=True)
class Edges:
    """The two outermost lines of each side of an image, outermost first: (2, L, C) as stored, and where both are valid (L,)."""

    image: str
    lines: dict[Side, NDArray]
    valid: dict[Side, NDArray[np.bool_]]


def read_edges(image: str, *, bands: Sequence[int] | None = None) -> Edges:
    """The edges of one image."""
    with open_scene(image, bands=bands) as scene:
        lines, valid = _read_sides(scene)
    return Edges(
        image=image,
        lines={side: np.moveaxis(values, 0, -1) for side, values in lines.items()},
        valid={side: np.logical_and.reduce(where, axis=0) for side, where in valid.items()},
    )


def find_seams(ones: Sequence[Edges], others: Sequence[Edges]) -> list[Seam]:
    """Where an image of `ones` continues in an image of `others`, the strongest of each side."""
    best: dict[tuple[str, Side], Seam] = {}
    for side, facing in OPPOSITE.items():
        for seam in _seams(ones, others, side, facing):
            key = (seam.one, side)
            if key not in best or seam.correlation > best[key].correlation:
                best[key] = seam
    return list(best.values())


def _read_sides(scene: Scene) -> tuple[dict[Side, NDArray], dict[Side, NDArray[np.bool_]]]:
    """Two lines of each side, outermost first: values (C, 2, L), valid (2, L)."""
    high, wide = scene.grid.height, scene.grid.width
    whole = scene.read(scene.grid.window) if scene.grid.window.pixels <= DECODE_PX else None

    def read(window: Window) -> tuple[NDArray, NDArray[np.bool_]]:
        if whole is None:
            return scene.read(window)
        part = window.slices()
        return whole[0][:, *part].copy(), whole[1][part].copy()

    deep, broad = min(2, high), min(2, wide)
    top, top_valid = read(Window(row=0, col=0, height=deep, width=wide))
    bottom, bottom_valid = read(Window(row=high - deep, col=0, height=deep, width=wide))
    left, left_valid = read(Window(row=0, col=0, height=high, width=broad))
    right, right_valid = read(Window(row=0, col=wide - broad, height=high, width=broad))
    lines: dict[Side, NDArray] = {
        "top": top,
        "bottom": bottom[:, ::-1],
        "left": left.transpose(0, 2, 1),
        "right": right.transpose(0, 2, 1)[:, ::-1],
    }
    valid: dict[Side, NDArray[np.bool_]] = {
        "top": top_valid,
        "bottom": bottom_valid,
        "left": left_valid.T,
        "right": right_valid.T,
    }
    return lines, valid


def _seams(ones: Sequence[Edges], others: Sequence[Edges], side: Side, facing: Side) -> list[Seam]:
    """All pairs in which `side` of one continues at `facing` of the other; only edges of one length and band count meet."""
    found, theirs = [], _by_shape(others, facing)
    for shape, mine in _by_shape(ones, side).items():
        if shape not in theirs:
            continue
        correlation = _profiles(mine, side) @ _profiles(theirs[shape], facing).T
        for i, j in np.argwhere(correlation >= _threshold(shape[0])):
            one, other = mine[i], theirs[shape][j]
            if one.image != other.image and _step(one, side, other, facing) <= LARGEST_STEP:
                found.append(Seam(one=one.image, other=other.image, side=side, correlation=float(correlation[i, j])))
    return found


def _threshold(length: int) -> float:
    return max(LEAST_CORRELATION, CHANCE / length**0.5)


def _by_shape(edges: Sequence[Edges], side: Side) -> dict[tuple[int, int], list[Edges]]:
    out = defaultdict(list)
    for edge in edges:
        out[edge.lines[side].shape[1:]].append(edge)
    return out


def _profiles(edges: Sequence[Edges], side: Side) -> NDArray[np.float32]:
    """High-passed outermost lines (n, D) of unit length, bands of equal weight; zero where there is no structure."""
    out = []
    for edge in edges:
        line, valid = edge.lines[side][0].astype(np.float32), edge.valid[side]
        rise = np.where((valid[2:] & valid[:-2])[:, None], line[2:] - line[:-2], 0)
        usual = np.median(np.abs(rise), axis=0, keepdims=True)
        rise = np.clip(rise / np.maximum(usual, 1e-6), -LIMIT, LIMIT)
        out.append(rise.ravel() / max(float(np.linalg.norm(rise)), 1e-6))
    return np.stack(out)


def _step(one: Edges, side: Side, other: Edges, facing: Side) -> float:
    """Mean difference across the seam in mean differences between the two outermost lines inside."""
    a, b = one.lines[side].astype(np.float32), other.lines[facing].astype(np.float32)
    inside = (np.abs(a[0] - a[-1]).mean() + np.abs(b[0] - b[-1]).mean()) / 2
    return float(np.abs(a[0] - b[0]).mean() / max(float(inside), 1e-6))
