"""What a map is made of on disk: classes, and if asked for confidence, scores, compute, polygons and a table."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from terralean.errors import OutputFailed
from terralean.mapping.item import Origin, write_map_item
from terralean.mapping.job import Job
from terralean.mapping.work import CERTAINTY, CERTAINTY_STEPS, COMPUTE, CONFIDENCE, scores_content
from terralean.raster.cog import Content, write_cog
from terralean.raster.envi_write import write_classification
from terralean.raster.grid import Grid
from terralean.raster.outlines import PolygonWriter
from terralean.raster.write import Totals, map_content, write_map
from terralean.spec import IGNORE, Classes

Polygons = Literal["gpkg", "fgb", "parquet"]
COLUMNS = ("row", "col", "x", "y", "class", "confidence")  # of the table
AT_ONCE_PX = 2**20  # read of the rows for polygons and table


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """Where the parts of a map go; None: not asked for."""

    map: Path
    confidence: Path | None = None
    scores: Path | None = None
    compute: Path | None = None
    polygons: Path | None = None
    table: Path | None = None
    stac: Path | None = None
    envi: Path | None = None  # the header of an ENVI Classification; its data lie beside it

    @property
    def paths(self) -> list[Path]:
        """All that were asked for, the map first."""
        return [path for path in (getattr(self, field.name) for field in fields(self)) if path is not None]

    def contents(self, classes: Classes) -> dict[str, Content]:
        """The rows that have to be known for them, by what they say."""
        contents = {"classes": map_content(classes)}
        if self.confidence is not None or self.polygons is not None:
            contents["confidence"] = CONFIDENCE
        if self.scores is not None:
            contents["scores"] = scores_content(classes)
        if self.compute is not None:
            contents["compute"] = COMPUTE
        if self.table is not None:
            contents["certainty"] = CERTAINTY
        return contents


@dataclass(frozen=True, kw_only=True, slots=True)
class Legend:
    """What the pixels of a map are: where they lie and what their numbers mean."""

    grid: Grid
    place: Grid  # the same with coordinates even where the scene has none, for polygons and table
    classes: Classes
    tags: Mapping[str, str]
    min_area_m2: float | None = None  # smaller polygons are left out, smaller holes closed


def check_absent(paths: Iterable[Path]) -> None:
    """Raise OutputFailed where a file is there already."""
    for path in paths:
        if path.exists():
            raise OutputFailed(f"{path} exists; delete it, choose another folder, or say --overwrite")


def make_files(job: Job, targets: Targets, legend: Legend, totals: Totals, origin: Origin) -> None:
    """Make of the finished rows what is not made yet, and give all of it its names."""
    rasters = {"confidence": targets.confidence, "scores": targets.scores, "compute": targets.compute}
    for name, path in rasters.items():
        if path is not None:
            _make_raster(job, name, path, legend)
    if targets.polygons is not None:
        _make_polygons(job, targets.polygons, legend)
    if targets.table is not None:
        _make_table(job, targets.table, legend)
    with job.making(targets.map.name) as path:
        if path is not None:
            rows, tags = job.rows["classes"], legend.tags
            write_map(path, rows, totals=totals, grid=legend.grid, classes=legend.classes, tags=tags)
    if targets.envi is not None:
        _make_envi(job, targets.envi, legend)
    if targets.stac is not None:
        _make_item(job, targets, legend, totals, origin)
    job.name_files(last=targets.map.name)


def _make_raster(job: Job, name: str, target: Path, legend: Legend) -> None:
    with job.making(target.name) as path:
        if path is not None:
            write_cog(path, job.rows[name], grid=legend.grid, content=job.contents[name], tags=legend.tags)


def _make_polygons(job: Job, target: Path, legend: Legend) -> None:
    with job.making(target.name) as path:
        if path is not None:
            with PolygonWriter(path, grid=legend.place, classes=legend.classes, min_area_m2=legend.min_area_m2) as writer:
                for _, classes, confidence in _both(job, "confidence", legend.grid):
                    writer.write(classes, confidence)


def _make_table(job: Job, target: Path, legend: Legend) -> None:
    with job.making(target.name) as path:
        if path is not None:
            with path.open("w", encoding="utf-8", newline="") as file:
                lines = csv.writer(file, lineterminator="\n")
                lines.writerow(COLUMNS)
                for row, classes, certainty in _both(job, "certainty", legend.grid):
                    lines.writerows(_lines(row, classes, certainty, legend))


def _make_envi(job: Job, target: Path, legend: Legend) -> None:
    with job.making(target.name) as path:
        if path is not None:
            labels = _read(job, "classes", legend.grid)
            write_classification(path, labels, grid=legend.grid, classes=legend.classes, overwrite=True)


def _make_item(job: Job, targets: Targets, legend: Legend, totals: Totals, origin: Origin) -> None:
    """After all other files, whose checksums are in it."""
    assert targets.stac is not None
    with job.making(targets.stac.name) as path:
        if path is not None:
            write_map_item(
                path,
                {key: (path.with_name(name), job.contents.get(kind)) for key, (name, kind) in _described(targets).items()},
                labels=_read(job, "classes", legend.grid),
                grid=legend.grid,
                classes=legend.classes,
                totals=totals,
                origin=origin,
                out=targets.map.parent,
            )


def _described(targets: Targets) -> dict[str, tuple[str, str]]:
    """By what they are: names of files, and the rows that rasters are made of."""
    kinds = {"map": "classes", "confidence": "confidence", "scores": "scores", "compute": "compute"}
    asked = {field.name: getattr(targets, field.name) for field in fields(targets) if field.name not in ("stac", "envi")}
    beside = {
        "style": targets.map.with_suffix(".qml"),
        "table of classes": targets.map.with_name(f"{targets.map.name}.aux.xml"),
    }
    return {key: (path.name, kinds.get(key, "")) for key, path in (asked | beside).items() if path is not None}


def _both(job: Job, name: str, grid: Grid) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[Any]]]:
    """Classes and what else is known, some rows at a time, and the number of the first."""
    row = 0
    for classes, others in zip(_read(job, "classes", grid), _read(job, name, grid), strict=True):
        yield row, classes, others
        row += len(classes)


def _read(job: Job, name: str, grid: Grid) -> Iterator[NDArray[Any]]:
    """The first band of the rows of a file, some (h, w) at a time."""
    step = max(1, AT_ONCE_PX // grid.width)
    for row in range(0, grid.height, step):
        yield job.rows[name].read(row, min(step, grid.height - row))[0]


def _lines(first: int, classes: NDArray[np.uint8], certainty: NDArray[np.uint16], legend: Legend) -> Iterator[tuple[Any, ...]]:
    """Of each pixel of the map with data its row and column from 0, its centre, class and confidence."""
    a, b, c, d, e, f = legend.place.transform
    for down, col in np.argwhere(classes != IGNORE).tolist():
        row = first + down
        x, y = a * (col + 0.5) + b * (row + 0.5) + c, d * (col + 0.5) + e * (row + 0.5) + f
        name = legend.classes.names[classes[down, col]]
        yield row, col, repr(x), repr(y), name, f"{certainty[down, col] / CERTAINTY_STEPS:.4f}"
