"""Regions of a class map as polygons, written while the map is made, from top to bottom.

Pixels of one class that share an edge are one region; a corner alone does not join. Polygons follow the pixels' edges, and
each is valid, its outer ring counterclockwise. Memory does not grow with the map's height: a region with more corners than
`terralean.raster.regions.MOST_CORNERS` becomes several polygons that meet along a row (dissolved by class, they are one again).
"""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terralean.errors import ConfigError
from terralean.raster import regions
from terralean.raster.area import row_area_m2
from terralean.raster.cog import failed
from terralean.raster.features import VECTOR_ERRORS, FeatureFile, Features, FlatGeobuf, GeoPackage
from terralean.raster.geoparquet import GeoParquet, import_pyarrow
from terralean.raster.grid import Grid
from terralean.raster.regions import Complete, RegionFinder
from terralean.raster.rings import polygons, rings
from terralean.spec import Classes

log = logging.getLogger(__name__)

FORMATS: dict[str, type[FeatureFile]] = {".gpkg": GeoPackage, ".fgb": FlatGeobuf, ".parquet": GeoParquet}
AT_ONCE = 2**16  # features that are written together, less where they have many corners
MOST_CORNERS = 2**20
PX_BYTES = 700  # measured of noise, where nearly each pixel is a region; other maps take a tenth
CORNER_BYTES = 300  # measured of a region that is cut
PERCENT = 100
ROUNDING = 1e-9  # a hundred pixels of 0.09 m2 sum to less than 9 m2


class PolygonWriter:
    """Context manager that writes the regions of a class map, whole or not at all: GeoPackage, FlatGeobuf or GeoParquet.

    A polygon has `class` (its name), `value` (its number), `pixels`, `area_m2` (null without a CRS) and `confidence`, the mean
    over its pixels. Its corners are in the grid's CRS; without one and without a transform in px, x right and y down.

    With `min_area_m2` smaller regions are left out, and smaller holes of the others closed, whatever is in them; `area_m2` is
    then that of the polygon, while `pixels` and `confidence` are still those of its class. A hole that a cut goes through
    stays open.
    """

    def __init__(self, path: str | Path, *, grid: Grid, classes: Classes, min_area_m2: float | None = None) -> None:
        self.path, self._grid, self._classes = Path(path), grid, classes
        self._folder = self.path.with_name(f"{self.path.name}.part")
        row_areas = row_area_m2(grid)
        if min_area_m2 is not None:
            _check_min_area(min_area_m2, grid, row_areas, path=self.path)
        self._least_m2 = None if min_area_m2 is None else min_area_m2 * (1 - ROUNDING)
        self._area_above = None if row_areas is None else np.concatenate([[0.0], np.cumsum(row_areas)])
        self._finder = RegionFinder(width=grid.width, row_area_m2=row_areas, min_area_m2=self._least_m2)
        self._waiting: list[Features] = []
        self._file: FeatureFile | None = None

    def __enter__(self) -> PolygonWriter:
        with self._whole_or_nothing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self._folder, ignore_errors=True)  # a killed run's
            self._folder.mkdir()
            self._file = FORMATS[self.path.suffix](self._folder / self.path.name, crs=self._grid.crs)
        return self

    def write(self, labels: NDArray[np.uint8], confidence: NDArray[Any]) -> None:
        """Class values (h, w) of the next rows, 255 where there is none, and confidence (h, w), which counts where there is.

        Confidence is 0 to 1, or whole percent where it is uint8.
        """
        share = confidence / PERCENT if confidence.dtype == np.uint8 else confidence
        with self._whole_or_nothing():
            for complete in self._finder.take(labels, share):
                self._keep(self._features(complete))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._drop()
            return
        with self._whole_or_nothing():
            for complete in self._finder.finish():
                self._keep(self._features(complete))
            if self._waiting:
                self._save()
            assert self._file is not None
            self._file.close()
            os.replace(self._file.path, self.path)
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._finder.cuts:
            log.info(
                "%s: regions with many corners were cut along rows %d times, so that they fit into memory; "
                "dissolve by class where they must be whole",
                *(self.path, self._finder.cuts),
            )

    @contextmanager
    def _whole_or_nothing(self) -> Iterator[None]:
        """Leave nothing after any error; what the disk says becomes OutputFailed."""
        try:
            yield
        except BaseException as error:
            self._drop()
            if isinstance(error, (OSError, *VECTOR_ERRORS)):
                raise failed(self.path, error) from error
            raise

    def _drop(self) -> None:
        if self._file is not None:
            self._file.abandon()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _features(self, complete: Complete) -> Features:
        """Polygons of regions, less those that are too small."""
        found = complete.regions
        lines = rings(complete.corners, stride=self._grid.width + 1, lines=self._grid.height + 1)
        large, kept, area_m2 = np.ones(len(found.value), np.bool_), np.ones(len(lines.region), np.bool_), found.area_m2
        if self._least_m2 is not None and self._area_above is not None:
            inside = lines.enclosed(self._area_above)
            closed = ~lines.outer & (inside < self._least_m2)
            large = found.cut | (area_m2 >= self._least_m2)
            kept = large[lines.region] & ~closed
            area_m2 = area_m2 + np.bincount(lines.region, weights=inside * closed, minlength=len(large))
        return Features(
            polygons=polygons(lines, kept=kept, transform=self._grid.transform),
            value=found.value[large],
            pixels=found.pixels[large],
            area_m2=area_m2[large],
            confidence=(found.confidence / found.pixels)[large].round(4),
        )

    def _keep(self, features: Features) -> None:
        """Write when there is enough, in parts that do not depend on how the rows came."""
        self._waiting.append(features)
        if (
            sum(len(some.value) for some in self._waiting) >= AT_ONCE
            or sum(some.corners for some in self._waiting) >= MOST_CORNERS
        ):
            self._save()

    def _save(self) -> None:
        assert self._file is not None
        self._file.write(Features.joined(self._waiting), self._classes)
        self._waiting = []


def bytes_needed(grid: Grid) -> int:
    """Peak bytes of outlining any map of this size."""
    block, most = min(regions.BLOCK_PX, grid.window.pixels), min(regions.MOST_CORNERS, 4 * grid.window.pixels)
    return PX_BYTES * block + CORNER_BYTES * most


def check_polygons(path: Path, *, grid: Grid, min_area_m2: float | None) -> None:
    """Raise ConfigError or MissingExtra, as writing them would in the end, where polygons cannot be written so."""
    if path.suffix == ".parquet":
        import_pyarrow(path.name)
    if min_area_m2 is not None:
        _check_min_area(min_area_m2, grid, row_area_m2(grid), path=path)


def _check_min_area(min_area_m2: float, grid: Grid, row_areas: NDArray[np.float64] | None, *, path: Path) -> None:
    if not (math.isfinite(min_area_m2) and min_area_m2 > 0):
        raise ConfigError(f"{path}: the smallest area must be above 0 m2, got {min_area_m2:g}")
    if row_areas is None:
        why = "has no CRS" if grid.crs is None else "has a CRS in which areas cannot be told"
        raise ConfigError(
            f"{path}: a smallest area of {min_area_m2:g} m2 was asked for and the scene {why}; leave it out, or give the scene "
            "its CRS with gdal_edit.py -a_srs EPSG:code"
        )
