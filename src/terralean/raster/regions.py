"""Regions of a class map whose rows come from top to bottom: what is in each, and the corners of its outline.

Pixels of one class that share an edge are one region; a corner alone does not join. Memory does not grow with the map's
height: a region's corners wait only until nothing of it goes on below, and where too many wait, the regions with most of them
are cut along a row, below which they are regions of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from terralean.raster.rings import NONE, Corners, corners
from terralean.spec import IGNORE

BLOCK_PX = 2**17  # of the map that are looked at together
MOST_CORNERS = 2**19  # that may wait: a polygon of 8 MB


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Regions:
    """What is known of n regions."""

    value: NDArray[np.uint8]
    pixels: NDArray[np.int64]
    area_m2: NDArray[np.float64]  # NaN where the ground is not known
    confidence: NDArray[np.float64]  # sum over the pixels
    cut: NDArray[np.bool_]  # whether it hangs on one that was cut off above

    def chosen(self, which: NDArray[np.bool_]) -> Regions:
        """Some of them."""
        return Regions(**{field.name: getattr(self, field.name)[which] for field in fields(self)})

    def and_then(self, others: Regions) -> Regions:
        """These and others."""
        pairs = {field.name: (getattr(self, field.name), getattr(others, field.name)) for field in fields(self)}
        return Regions(**{name: np.concatenate(pair) for name, pair in pairs.items()})

    def merged(self, into: NDArray[np.int64], count: int) -> Regions:
        """So many, where into (n,) says which each has become part of."""

        def total(values: NDArray[np.float64]) -> NDArray[np.float64]:
            return _totals(into, values, count)

        value = np.zeros(count, np.uint8)
        value[into] = self.value
        return Regions(
            value=value,
            pixels=total(self.pixels.astype(np.float64)).astype(np.int64),
            area_m2=total(self.area_m2),
            confidence=total(self.confidence),
            cut=total(self.cut.astype(np.float64)) > 0,
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Complete:
    """Regions of which nothing goes on below, and the corners of their outlines, by position in `regions`."""

    regions: Regions
    corners: Corners


class RegionFinder:
    """Takes the rows of a map and hands out its regions as they are complete. By how many the rows come changes nothing."""

    def __init__(self, *, width: int, row_area_m2: NDArray[np.float64] | None, min_area_m2: float | None) -> None:
        self.cuts = 0  # made so far
        self._row_area_m2, self._min_area_m2 = row_area_m2, min_area_m2
        self._block_rows = max(1, BLOCK_PX // width)
        self._waiting: list[tuple[NDArray[np.uint8], NDArray[np.float64]]] = []
        self._row = 0  # first one that waits
        self._open = _no_regions()  # those with pixels in the last row
        self._places: list[list[NDArray[np.int64]]] = []  # of their corners
        self._above = np.full(width, NONE, dtype=np.int64)  # position in `_open` of each pixel of the last row
        self._class_above = np.full(width, IGNORE, dtype=np.uint8)

    def take(self, labels: NDArray[np.uint8], confidence: NDArray[Any]) -> Iterator[Complete]:
        """Class values and confidence of the next rows, (h, w) each."""
        while len(labels):
            due = self._block_rows - sum(len(rows) for rows, _ in self._waiting)
            self._waiting.append((labels[:due].copy(), confidence[:due].astype(np.float64)))
            if len(labels) >= due:
                yield from self._block()
            labels, confidence = labels[due:], confidence[due:]

    def finish(self) -> Iterator[Complete]:
        """What is left when there are no more rows."""
        if self._waiting:
            yield from self._block()
        yield self._cut_off(np.ones(len(self._places), dtype=np.bool_))

    def _block(self) -> Iterator[Complete]:
        """Look at the rows that wait; the regions that are complete with them."""
        labels, confidence = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
        before = len(self._places)
        ids, found = _look(labels, confidence, areas=self._areas(len(labels)))
        ids = np.where(ids == NONE, NONE, ids + before)
        under_cut = (self._above == NONE) & (ids[0] != NONE) & (labels[0] == self._class_above)
        found.cut[ids[0][under_cut] - before] = True
        into, count = self._join(labels[0], ids[0], total=before + len(found.value))
        lattice = np.append(into, NONE)[np.concatenate([self._above[None], ids])]  # NONE is the last
        places: list[list[NDArray[np.int64]]] = [[] for _ in range(count)]
        for old, new in enumerate(into[:before].tolist()):
            places[new] += self._places[old]
        outlines = corners(lattice, first_line=self._row)
        self._open, self._places = self._open.and_then(found).merged(into, count), places
        self._above, self._class_above, self._row, self._waiting = lattice[-1], labels[-1], self._row + len(labels), []
        yield self._take_out(~_among(self._above, count), outlines)
        yield from self._relieve()

    def _areas(self, rows: int) -> NDArray[np.float64]:
        """Of a pixel in each of the rows that wait."""
        if self._row_area_m2 is None:
            return np.full(rows, np.nan)
        return self._row_area_m2[self._row : self._row + rows]

    def _join(self, labels: NDArray[np.uint8], ids: NDArray[np.int64], *, total: int) -> tuple[NDArray[np.int64], int]:
        """Of all regions, those that go on first, the position after those that meet in the first row have become one."""
        meet = (self._above != NONE) & (labels == self._class_above)
        return _components(self._above[meet], ids[meet], total=total)

    def _take_out(self, which: NDArray[np.bool_], outlines: Corners) -> Complete:
        """Some of the open regions, with the corners that waited and the last ones, which are complete; others wait on."""
        done, places = Corners.joined([_of(outlines, which[outlines.region])]), self._places
        for position, found in _by_region(_of(outlines, ~which[outlines.region])):
            places[position].append(found)
        parts = [Corners.at(position, part) for position in np.flatnonzero(which).tolist() for part in places[position]]
        regions, self._open = self._open.chosen(which), self._open.chosen(~which)
        self._places = [places[position] for position in np.flatnonzero(~which).tolist()]
        moved = np.append(np.where(which, NONE, np.cumsum(~which) - 1), NONE)
        self._above = moved[self._above]
        every = Corners.joined([done, *parts])
        return Complete(regions=regions, corners=Corners(region=(np.cumsum(which) - 1)[every.region], place=every.place))

    def _cut_off(self, which: NDArray[np.bool_]) -> Complete:
        """Some of the open regions, as if the map ended here."""
        last = np.where(np.append(which, False)[self._above], self._above, NONE)
        below = corners(np.stack([last, np.full_like(last, NONE)]), first_line=self._row)
        return self._take_out(which, below)

    def _relieve(self) -> Iterator[Complete]:
        """Where too many corners wait, cut off the regions with most of them until half as many do.

        One that may yet turn out too small to be kept is left alone; it has few.
        """
        waiting = np.array([sum(map(len, places)) for places in self._places], dtype=np.int64)
        if waiting.sum() <= MOST_CORNERS:
            return
        waiting[(self._open.area_m2 < (self._min_area_m2 or 0)) & ~self._open.cut] = 0
        order = np.argsort(-waiting, kind="stable")
        enough = 1 + np.searchsorted(np.cumsum(waiting[order]), waiting.sum() - MOST_CORNERS // 2)
        which = np.zeros(len(waiting), dtype=np.bool_)
        which[order[:enough]] = True
        which &= waiting > 0
        self.cuts += int(which.sum())
        yield self._cut_off(which)


def components(labels: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Regions of (h, w): the position of each pixel's among them (h, w), NONE where there is no class, and first pixels.

    Regions stand in the order of their first pixels, (n,) positions in the flattened rows.
    """
    begins = np.ones(labels.shape, dtype=np.bool_)  # of a run of one class in a row
    begins[:, 1:] = labels[:, 1:] != labels[:, :-1]
    run = np.cumsum(begins.ravel()).reshape(labels.shape) - 1
    meet = (labels[1:] == labels[:-1]) & (begins[1:] | begins[:-1])  # once for two runs
    region, count = _components(run[:-1][meet], run[1:][meet], total=int(run[-1, -1]) + 1)
    first = np.full(count, labels.size)
    starts = np.flatnonzero(begins)
    np.minimum.at(first, region, starts)
    known = labels.ravel()[first] != IGNORE
    position = np.where(known, np.cumsum(known) - 1, NONE)
    return position[region][run], first[known]


def _look(
    labels: NDArray[np.uint8], confidence: NDArray[np.float64], *, areas: NDArray[np.float64]
) -> tuple[NDArray[np.int64], Regions]:
    """The regions of a block of rows: the position of each pixel's (h, w), and what they hold."""
    ids, first = components(labels)
    known = ids != NONE
    flat, count = ids[known], len(first)
    regions = Regions(
        value=labels.ravel()[first],
        pixels=np.bincount(flat, minlength=count),
        area_m2=_totals(flat, np.broadcast_to(areas[:, None], labels.shape)[known], count),
        confidence=_totals(flat, confidence[known], count),
        cut=np.zeros(count, dtype=np.bool_),
    )
    return ids, regions


def _totals(group: NDArray[np.int64], values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    return np.asarray(np.bincount(group, weights=values, minlength=count), dtype=np.float64)


def _components(one: NDArray[np.int64], other: NDArray[np.int64], *, total: int) -> tuple[NDArray[np.int64], int]:
    """Of so many things, linked in pairs, the group of each (total,), in the order of their first members; and how many."""
    links = coo_array((np.ones(len(one), dtype=np.bool_), (one, other)), shape=(total, total))
    count, group = connected_components(links, directed=False)
    first = np.unique(group, return_index=True)[1]
    place = np.empty(count, dtype=np.int64)
    place[np.argsort(first)] = np.arange(count)
    return place[group], count


def _no_regions() -> Regions:
    real = np.zeros(0)
    whole = np.zeros(0, dtype=np.int64)
    return Regions(value=whole.astype(np.uint8), pixels=whole, area_m2=real, confidence=real, cut=whole.astype(np.bool_))


def _among(positions: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Which of so many positions are there."""
    there = np.zeros(count + 1, dtype=np.bool_)
    there[positions] = True  # NONE is the last
    return there[:count]


def _of(found: Corners, which: NDArray[np.bool_]) -> Corners:
    return Corners(region=found.region[which], place=found.place[which])


def _by_region(found: Corners) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """The corners of one region after the other."""
    order = np.argsort(found.region, kind="stable")
    region, place = found.region[order], found.place[order]
    names, starts = np.unique(region, return_index=True)
    yield from zip(names.tolist(), np.split(place, starts[1:]), strict=True) if len(names) else ()
