"""The polygons of regions of pixels, made of nothing but the corners of their outlines.

An outline runs along the edges of pixels, so that its corners say all: those of a row of the lattice are, from left to right,
the two ends of one horizontal edge after the other, those of a column the ends of vertical edges. Corners can therefore be
found row by row, forgotten which came first, and be joined to rings once the region is complete.

A region hangs together over pixels that share an edge. Where two of its pixels share a corner only, the rings around the two
other pixels touch there, and no ring touches itself: polygons are valid, with one outer ring each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

NONE = -1  # the number of no region
RIGHT, DOWN, CONVEX = 4, 2, 1  # bits of a corner: where its edges go, and whether only one of the four pixels is the region's
BITS = 3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Corners:
    """Corners of the outlines of regions."""

    region: NDArray[np.int64]  # (n,) number of the region
    place: NDArray[np.int64]  # (n,) row * stride + col on the lattice, and behind it the bits

    @classmethod
    def at(cls, region: int, place: NDArray[np.int64]) -> Corners:
        """Corners of one region."""
        return cls(region=np.full(len(place), region, dtype=np.int64), place=place)

    @classmethod
    def joined(cls, parts: list[Corners]) -> Corners:
        """All corners of some."""
        empty = np.zeros(0, np.int64)
        region, place = ([getattr(part, name) for part in parts] for name in ("region", "place"))
        return cls(region=np.concatenate([empty, *region]), place=np.concatenate([empty, *place]))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rings:
    """Closed lines around regions; of each region the outer one first, then those around its holes."""

    region: NDArray[np.int64]  # (r,) ascending
    outer: NDArray[np.bool_]  # (r,)
    start: NDArray[np.int64]  # (r + 1,) of each ring in `row` and `col`, and the end
    row: NDArray[np.int64]  # (c,) of the corners on the lattice; clockwise where rows go down
    col: NDArray[np.int64]

    def enclosed(self, above: NDArray[np.float64]) -> NDArray[np.float64]:
        """What each ring has inside, (r,), where a column one pixel wide holds above[row] between the first row and `row`."""
        over, along = above[self.row[::2]], self.col[::2] - self.col[1::2]  # each other edge is horizontal
        return np.add.reduceat(over * along, self.start[:-1] // 2) if len(self.region) else np.zeros(0)


def corners(numbers: NDArray[np.int64], *, first_line: int) -> Corners:
    """Corners on the lines between the rows of regions' numbers (h + 1, w), NONE where there is none.

    `first_line` is the line of the map between the first two rows.
    """
    stride = numbers.shape[1] + 1
    padded = np.full((len(numbers), stride + 1), NONE, dtype=np.int64)
    padded[:, 1:-1] = numbers
    up, down = padded[:-1], padded[1:]
    corner = (up[:, :-1] != up[:, 1:]) | (down[:, :-1] != down[:, 1:])
    corner &= (up[:, :-1] != down[:, :-1]) | (up[:, 1:] != down[:, 1:])
    line, col = np.nonzero(corner)
    place = (line + first_line) * stride + col << BITS
    found = []
    for right in (0, 1):
        for below in (0, 1):  # the pixel around whose corner the edges go: one of the four
            own, beside = padded[line + below, col + right], padded[line + below, col + 1 - right]
            over, across = padded[line + 1 - below, col + right], padded[line + 1 - below, col + 1 - right]
            convex = (own != NONE) & (own != beside) & (own != over) & (own != across)
            reflex = (beside != NONE) & (beside == over) & (beside != own)
            at = place + RIGHT * right + DOWN * below
            found += [
                Corners(region=own[convex], place=at[convex] + CONVEX),
                Corners(region=beside[reflex], place=at[reflex]),
            ]
    return Corners.joined(found)


def rings(found: Corners, *, stride: int, lines: int) -> Rings:
    """The rings of complete regions, on a lattice of so many columns and rows."""
    order = np.lexsort((found.place, found.region))
    region, place = found.region[order], _parted(found.region[order], found.place[order])
    line, col = np.divmod(place >> BITS, stride)
    upright = np.lexsort(((col * lines + line) * DOWN + (place & DOWN), region))
    opposite = np.empty_like(upright)
    opposite[upright[::2]], opposite[upright[1::2]] = upright[1::2], upright[::2]
    around, start = _around(opposite.tolist())
    of_ring = region[around[start[:-1]]]
    return Rings(
        region=of_ring,
        outer=np.diff(of_ring, prepend=NONE) != 0,
        start=start,
        row=line[around],
        col=col[around],
    )


def polygons(found: Rings, *, kept: NDArray[np.bool_], transform: tuple[float, ...]) -> NDArray[Any]:
    """A polygon on the ground of each region out of the rings `kept` (r,), outer rings among them and counterclockwise."""
    a, b, c, d, e, f = transform
    forward = a * e - b * d > 0  # what is clockwise where rows go down is so on the ground if that is mirrored
    length = np.diff(found.start)[kept]
    offset = np.concatenate([[0], np.cumsum(length + 1)])  # a ring ends with the corner it began with
    step = np.arange(offset[-1]) - np.repeat(offset[:-1], length + 1)
    sides = np.repeat(length, length + 1)
    turned = np.repeat(found.outer[kept] != forward, length + 1)
    at = np.where(turned, sides - step, step) % np.maximum(sides, 1) + np.repeat(found.start[:-1][kept], length + 1)
    col, row = found.col[at], found.row[at]
    outlines = np.stack([a * col + b * row + c, d * col + e * row + f], axis=1)
    first = np.append(np.flatnonzero(found.outer[kept]), len(length))
    return np.asarray(shapely.from_ragged_array(shapely.GeometryType.POLYGON, outlines, (offset, first)))


def _parted(region: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sorted corners, where two pixels that share a corner only, and turned out to be of one region later, are told apart.

    Their outlines, found when they were thought to be of two regions, would be one ring that touches itself.
    """
    same = (region[1:] == region[:-1]) & (place[1:] >> BITS == place[:-1] >> BITS) & ((place[1:] & place[:-1] & CONVEX) > 0)
    both = np.append(same, False) | np.insert(same, 0, False)
    return np.where(both, place ^ DOWN, place)


def _around(opposite: list[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Corners in order around each ring, and where each ring begins, and the end.

    Corner i has its horizontal edge in common with i ^ 1, its vertical one with opposite[i]. The first corner of a ring is
    the leftmost of its topmost ones, from where it goes right.
    """
    around, start = list[int](), [0]
    seen = bytearray(len(opposite))
    first = seen.find(0)
    while first >= 0:
        corner = first
        while not seen[corner]:
            other = corner ^ 1
            seen[corner] = seen[other] = 1
            around += (corner, other)
            corner = opposite[other]
        start.append(len(around))
        first = seen.find(0, first)
    return np.array(around, dtype=np.int64), np.array(start, dtype=np.int64)
