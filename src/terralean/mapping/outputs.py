"""What a map is made of on disk: classes, and if asked for confidence, polygons and a table, all of them or none."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from terralean.raster.cog import CogWriter, Content
from terralean.raster.grid import Grid, Window
from terralean.raster.outlines import PolygonWriter
from terralean.raster.whole import whole
from terralean.raster.write import MapWriter
from terralean.spec import IGNORE, Classes

Polygons = Literal["gpkg", "fgb"]
COLUMNS = ("row", "col", "x", "y", "class", "confidence")  # of the table
CONFIDENCE = Content(bands=("confidence_percent",), dtype="uint8", nodata=IGNORE, overviews="AVERAGE", bits=8)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Full-width rows of a map."""

    window: Window  # in px of the map
    classes: NDArray[np.uint8]  # (h, w), 255 where there is no data
    confidence: NDArray[np.float32]  # (h, w), the probability of that class; means nothing where there is no data


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """Where the parts of a map go; None: not asked for."""

    map: Path
    confidence: Path | None = None
    polygons: Path | None = None
    table: Path | None = None

    @property
    def names(self) -> list[str]:
        """File names, the map's first."""
        return [path.name for path in (self.map, self.confidence, self.polygons, self.table) if path is not None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outputs:
    """Takes the rows of a map from top to bottom and hands them to whatever writes a part of it."""

    map: MapWriter
    others: tuple[Callable[[Answer], None], ...]

    def write(self, answer: Answer) -> None:
        """The next rows."""
        self.map.write(answer.window, answer.classes)
        for write in self.others:
            write(answer)


@contextmanager
def outputs(
    targets: Targets, *, grid: Grid, place: Grid, classes: Classes, tags: Mapping[str, str], overwrite: bool
) -> Iterator[Outputs]:
    """Writers of a map on `grid`; polygons and table have the coordinates of `place`, the same pixels.

    Files appear when the block ends without an error. Raises OutputFailed as `whole` does.
    """
    with whole(targets.map.parent, targets.names, overwrite=overwrite) as folder, ExitStack() as stack:
        others: list[Callable[[Answer], None]] = []
        if targets.confidence is not None:
            cog = stack.enter_context(CogWriter(folder / targets.confidence.name, grid=grid, content=CONFIDENCE, tags=tags))
            others.append(lambda answer: cog.write(answer.window, percent(answer)[None]))
        if targets.polygons is not None:
            outlines = stack.enter_context(PolygonWriter(folder / targets.polygons.name, grid=place, classes=classes))
            others.append(lambda answer: outlines.write(answer.classes, answer.confidence))
        if targets.table is not None:
            file = stack.enter_context((folder / targets.table.name).open("w", encoding="utf-8", newline=""))
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(COLUMNS)
            others.append(lambda answer: lines.writerows(_rows(answer, place=place, classes=classes)))
        map_ = stack.enter_context(MapWriter(folder / targets.map.name, grid=grid, classes=classes, tags=tags))
        yield Outputs(map=map_, others=tuple(others))


def percent(answer: Answer) -> NDArray[np.uint8]:
    """Confidence in whole percent (h, w), 255 where there is no data."""
    known = answer.classes != IGNORE
    return np.where(known, np.where(known, answer.confidence, 0).clip(0, 1) * 100 + 0.5, IGNORE).astype(np.uint8)


def _rows(answer: Answer, *, place: Grid, classes: Classes) -> Iterator[tuple[Any, ...]]:
    """Of each pixel of the map with data its row and column from 0, its centre, class and confidence."""
    a, b, c, d, e, f = place.transform
    for down, across in np.argwhere(answer.classes != IGNORE).tolist():
        row, col = answer.window.row + down, answer.window.col + across
        x, y = a * (col + 0.5) + b * (row + 0.5) + c, d * (col + 0.5) + e * (row + 0.5) + f
        name = classes.names[answer.classes[down, across]]
        yield row, col, repr(x), repr(y), name, f"{answer.confidence[down, across]:.4f}"
