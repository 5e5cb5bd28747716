"""What is known of the objects of one image, whichever format it was read from, and what a detector finds in it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from terralean.data.words import counted, listed
from terralean.errors import DatasetError, LabelError
from terralean.spec import Classes

log = logging.getLogger(__name__)

CORNERS = 4
Crossing = Literal["order", "refuse"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """The labelled objects of one image. Polygons are in px from the image's outer corner, and may leave the image."""

    image: str  # path
    polygons: NDArray[np.float64]  # (n, 8): x1 y1 x2 y2 x3 y3 x4 y4
    labels: NDArray[np.int64]  # (n,) number of the class
    difficult: NDArray[np.uint8]  # (n,) 0, or above 0 for what is not scored: 1 hard to see, 2 cut by the edge of a tile

    def __post_init__(self) -> None:
        count = len(self.labels)
        assert self.polygons.shape == (count, 2 * CORNERS) and self.difficult.shape == (count,), self.polygons.shape

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Record:
        """Some of the objects, by mask or by number."""
        return replace(self, polygons=self.polygons[which], labels=self.labels[which], difficult=self.difficult[which])


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """What a detector finds in one image."""

    image: str  # path, or the name that result files give it
    polygons: NDArray[np.float64]  # (n, 8) px
    scores: NDArray[np.float64]  # (n,)
    labels: NDArray[np.int64]  # (n,)

    def __post_init__(self) -> None:
        count = len(self.labels)
        assert self.polygons.shape == (count, 2 * CORNERS) and self.scores.shape == (count,), self.polygons.shape

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """Objects as a label file has them, with the names of their classes."""

    file: str
    polygons: NDArray[np.float64]  # (n, 8) px
    names: tuple[str, ...]  # (n,)
    difficult: NDArray[np.uint8]  # (n,)
    places: tuple[str, ...]  # (n,) where in the file each is: "line 3"
    facts: Mapping[str, str] = field(default_factory=dict)  # what else the file says: DOTA's imagesource and gsd
    size: tuple[int, int] | None = None  # width and height of the image that was labelled, where the file says it


def labelled(
    file: str,
    rows: Sequence[tuple[str, Sequence[float], str, int]],
    facts: Mapping[str, str] | None = None,
    *,
    size: tuple[int, int] | None = None,
) -> Labelled:
    """Objects from rows of place, eight numbers, name and difficulty. Raises LabelError where a number is not finite."""
    polygons = np.array([row[1] for row in rows], dtype=np.float64).reshape(len(rows), 2 * CORNERS)
    for number in np.flatnonzero(~np.isfinite(polygons).all(axis=1))[:1]:
        raise LabelError(f"{file}, {rows[number][0]}: a corner is {rows[number][1]}; expected numbers in px; correct the line")
    return Labelled(
        file=file,
        polygons=polygons,
        names=tuple(row[2] for row in rows),
        difficult=np.array([row[3] for row in rows], dtype=np.uint8),
        places=tuple(row[0] for row in rows),
        facts=facts or {},
        size=size,
    )


def class_names(files: Iterable[Labelled]) -> tuple[str, ...]:
    """The names of all classes, in alphabetical order."""
    return tuple(sorted({name for one in files for name in one.names}))


def to_record(one: Labelled, *, image: str, classes: Classes) -> Record:
    """Objects with the numbers of their classes. Raises LabelError, with file and line, for a name that is no class."""
    numbers = {name: number for number, name in enumerate(classes.names)}
    for name, place in zip(one.names, one.places, strict=True):
        if name not in numbers:
            near = get_close_matches(name, classes.names, n=1)
            hint = f"nearest: {near[0]}; " if near else ""
            raise LabelError(
                f"{one.file}, {place}: the class {name!r} is none of {', '.join(classes.names)}; {hint}correct the name, or "
                "add it to data.classes"
            )
    labels = np.array([numbers[name] for name in one.names], dtype=np.int64)
    return Record(image=image, polygons=one.polygons, labels=labels, difficult=one.difficult)


# What can be wrong with polygons.


def checked(one: Labelled, *, width: int, height: int, crossing: Crossing) -> Labelled:
    """The objects of an image of this size, their corners in order. Raises LabelError where one lies outside it altogether.

    A polygon that crosses itself has its corners put in order round their middle, with a warning; "refuse" raises instead.
    """
    points = one.polygons.reshape(-1, CORNERS, 2)
    low, high = points.min(axis=1, initial=np.inf), points.max(axis=1, initial=-np.inf)
    outside = ((high < 0) | (low > [width, height])).any(axis=1)
    for number in np.flatnonzero(outside)[:1]:
        raise LabelError(
            f"{one.file}, {one.places[number]}: the {one.names[number]} at {_told(points[number])} lies outside its image of "
            f"{width} x {height} px; expected pixels of that image, x before y; delete the object or correct it"
        )
    crosses = crossing_itself(one.polygons)
    if not crosses.any():
        return one
    first = int(np.flatnonzero(crosses)[0])
    what = f"{one.file}, {one.places[first]}: the {one.names[first]} at {_told(points[first])} crosses itself"
    if crossing == "refuse":
        raise LabelError(f"{what}; put its corners in order, or let that be done: --set data.crossing=order")
    also = f" ({counted(int(crosses.sum()), 'polygon')} of the file)" if crosses.sum() > 1 else ""
    log.warning("%s%s; its corners are taken in order round their middle", what, also)
    polygons = one.polygons.copy()
    polygons[crosses] = in_order(one.polygons[crosses])
    return replace(one, polygons=polygons)


def crossing_itself(polygons: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of polygons (n, 8) have two opposite sides that cross."""
    a, b, c, d = np.moveaxis(polygons.reshape(-1, CORNERS, 2), 1, 0)
    return _cross(a, b, c, d) | _cross(b, c, d, a)


def in_order(polygons: NDArray[np.float64]) -> NDArray[np.float64]:
    """Polygons (n, 8) with the same corners in order of their direction from the middle, clockwise on screen."""
    points = polygons.reshape(-1, CORNERS, 2)
    from_middle = points - points.mean(axis=1, keepdims=True)
    order = np.argsort(np.arctan2(from_middle[..., 1], from_middle[..., 0]), axis=1, kind="stable")
    return np.take_along_axis(points, order[..., None], axis=1).reshape(polygons.shape)


def _cross(a: NDArray, b: NDArray, c: NDArray, d: NDArray) -> NDArray[np.bool_]:
    """Whether lines from a to b and from c to d (n, 2) cross within both."""

    def side(p: NDArray, q: NDArray, r: NDArray) -> NDArray[np.float64]:
        return np.sign((q[:, 0] - p[:, 0]) * (r[:, 1] - p[:, 1]) - (q[:, 1] - p[:, 1]) * (r[:, 0] - p[:, 0]))

    return (side(a, b, c) * side(a, b, d) < 0) & (side(c, d, a) * side(c, d, b) < 0)


def _told(points: NDArray[np.float64]) -> str:
    return " ".join(f"({x:g}, {y:g})" for x, y in points)


# Detections beside the images they are of.


def side_by_side(found: Sequence[Detections], records: Sequence[Record]) -> list[Detections]:
    """Detections in the order of the records, matched by file name without suffix; none where an image has none.

    Raises DatasetError for detections of an image that is not there, and for two sets of one image.
    """
    stems = [Path(record.image).stem for record in records]
    twice = [name for name, count in Counter(stems).items() if count > 1]
    if twice:
        raise DatasetError(f"several images are called {listed(twice)}; detections are matched by name, so give each its own")
    places = {stem: number for number, stem in enumerate(stems)}
    out = [no_detections(record.image) for record in records]
    seen: set[str] = set()
    for one in found:
        name = one.image if one.image in places else Path(one.image).stem
        if name not in places:
            near = get_close_matches(name, stems, n=1)
            raise DatasetError(
                f"there are detections in {one.image!r}, which is none of the {len(records)} images"
                + (f" (nearest: {near[0]})" if near else "")
                + "; give the images that were searched, or take the others out of the result files"
            )
        if name in seen:
            raise DatasetError(f"there are two sets of detections in {name!r}; join them")
        seen.add(name)
        out[places[name]] = replace(one, image=records[places[name]].image)
    return out


def no_detections(image: str) -> Detections:
    """Nothing found."""
    none = np.zeros(0)
    return Detections(image=image, polygons=np.zeros((0, 2 * CORNERS)), scores=none, labels=none.astype(np.int64))
