"""A map that is there already: whether it is the one that is asked for, and what was told of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from terralean.mapping.job import Job
from terralean.raster.grid import Grid
from terralean.raster.source import GDAL_ERRORS
from terralean.raster.write import Totals, count_classes
from terralean.spec import Classes

DIGITS = 16
JOB, WINDOWS, COMPUTE = "TERRALEAN_JOB", "TERRALEAN_WINDOWS", "TERRALEAN_COMPUTE_SHARE"  # tags of a map


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """What making a map took and gave."""

    totals: Totals
    windows: int  # that were predicted
    compute_share: float | None  # of what these cost without token reduction; None where it was not asked for
    resumed_share: float  # of the rows, that were there before

    @classmethod
    def of(cls, job: Job, totals: Totals) -> Made:
        """Of a job whose rows are all there."""
        share = round(job.kept_sum / job.windows, 6) if "compute" in job.contents else None
        return cls(
            totals=totals,
            windows=job.windows,
            compute_share=share,
            resumed_share=round(job.resumed_rows / job.height, 6),
        )

    def tags(self, facts: Mapping[str, Any]) -> dict[str, str]:
        """By which `find_made` knows the map again."""
        said = {JOB: job_digest(facts), WINDOWS: str(self.windows)}
        return said if self.compute_share is None else said | {COMPUTE: repr(self.compute_share)}


def job_digest(facts: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of what a map is made of; where the scene's files lie, and since when, is not among it."""
    files = [{"name": Path(file["path"]).name, "bytes": file["bytes"]} for file in facts["scene"]["files"]]
    told = {**facts, "scene": {**facts["scene"], "files": files}}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:DIGITS]


def find_made(paths: Sequence[Path], facts: Mapping[str, Any], *, grid: Grid, classes: Classes) -> Made | None:
    """The map of these files, the map itself first, if all are there, made of these facts and no older than the scene."""
    if not all(path.is_file() for path in paths) or newest(facts) > paths[0].stat().st_mtime:
        return None
    try:
        with rasterio.open(paths[0]) as dataset:
            tags = dataset.tags()
            if tags.get(JOB) != job_digest(facts) or (dataset.width, dataset.height) != (grid.width, grid.height):
                return None
            totals = count_classes(_Rows(dataset), grid=grid, classes=classes)
    except GDAL_ERRORS:
        return None  # it is damaged, and in the way
    share = float(tags[COMPUTE]) if COMPUTE in tags else None
    return Made(totals=totals, windows=int(tags[WINDOWS]), compute_share=share, resumed_share=1.0)


class _Rows:
    """A map on disk, read as its rows are while it is made."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def read(self, row: int, height: int) -> NDArray[np.uint8]:
        """Values (1, h, w)."""
        found: NDArray[np.uint8] = self._dataset.read(window=Window(0, row, self._dataset.width, height))
        return found


def newest(facts: Mapping[str, Any]) -> float:
    """When the last of the scene's local files was written."""
    paths = [file["path"] for file in facts["scene"]["files"]]
    return max((os.stat(path).st_mtime for path in paths if os.path.exists(path)), default=0.0)
