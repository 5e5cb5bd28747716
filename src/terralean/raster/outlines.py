"""Regions of a class map as polygons, written while the map is made, from top to bottom.

Pixels of one class that share an edge are one region; a corner alone does not join. Polygons follow the pixels' edges. Memory
does not grow with the map's height, but for the regions that go on below.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import rasterio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.features import shapes
from scipy import ndimage

from terralean.raster.area import row_area_m2
from terralean.raster.cog import failed
from terralean.raster.grid import Grid
from terralean.spec import IGNORE, Classes

DRIVERS = {".gpkg": "GPKG", ".fgb": "FlatGeobuf"}
LAYER = "classes"
BLOCK_PX = 2**17  # of the map that are outlined at once
PX_BYTES = 1000  # measured of noise, where nearly each pixel is a region; other maps take a tenth
VECTOR_ERRORS = (DataSourceError, DataLayerError)


@dataclass(kw_only=True)
class _Region:
    """What is known of a region so far."""

    value: int
    pixels: int
    area_m2: float  # NaN where the ground is not known
    confidence: float  # sum over the pixels
    pieces: list[Any]  # polygons in px of the map

    def take(self, other: _Region) -> None:
        """Become one with another region."""
        self.pixels += other.pixels
        self.area_m2 += other.area_m2
        self.confidence += other.confidence
        self.pieces += other.pieces

    @property
    def outline(self) -> Any:
        """One polygon, without vertices where pieces met."""
        return self.pieces[0] if len(self.pieces) == 1 else shapely.simplify(shapely.union_all(self.pieces), 0)


class PolygonWriter:
    """Context manager that writes the regions of a class map as GeoPackage or FlatGeobuf, whole or not at all.

    A polygon has `class` (its name), `value` (its number), `pixels`, `area_m2` (null without a CRS) and `confidence`, the mean
    over its pixels. Its corners are in the grid's CRS; without one and without a transform in px, x right and y down.
    """

    def __init__(self, path: str | Path, *, grid: Grid, classes: Classes) -> None:
        self.path, self._grid, self._classes = Path(path), grid, classes
        self._folder = self.path.with_name(f"{self.path.name}.part")
        self._file = self._folder / f"{self.path.stem}.gpkg"
        self._row_area_m2 = row_area_m2(grid)
        self._waiting: list[tuple[NDArray[np.uint8], NDArray[np.float32]]] = []
        self._row = 0  # first one that waits
        self._open: dict[int, _Region] = {}  # regions that touch the last row, by number
        self._above = np.full(grid.width, -1, dtype=np.int64)  # number of the region of each pixel of the last row; -1: none
        self._next = 0

    def __enter__(self) -> PolygonWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self._folder, ignore_errors=True)  # a killed run's
            self._folder.mkdir()
        except OSError as error:
            raise failed(self.path, error) from error
        return self

    def write(self, labels: NDArray[np.uint8], confidence: NDArray[np.float32]) -> None:
        """Class values (h, w) of the next rows, 255 where there is none, and confidence (h, w), which counts where there is."""
        some = max(1, BLOCK_PX // self._grid.width)
        for row in range(0, len(labels), some):
            self._waiting.append((labels[row : row + some], confidence[row : row + some]))
            if sum(rows.size for rows, _ in self._waiting) >= BLOCK_PX:
                self._outline()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._outline()
                self._finish(sorted(self._open))
                os.replace(self._converted(), self.path)
        except OSError as error:
            raise failed(self.path, error) from error
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _outline(self) -> None:
        """Outline what waits, join it to the regions above, and write those that are finished."""
        if not self._waiting:
            return
        labels, confidence = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
        ids, values = components(labels)
        numbers = np.where(ids > 0, ids + (self._next - 1), -1)
        self._open |= {self._next + i: region for i, region in enumerate(self._regions(ids, values, confidence))}
        renamed = self._join(numbers[0])
        found, place = np.unique(numbers[-1], return_inverse=True)
        self._above = np.array([_root(number, renamed) for number in found.tolist()])[place]
        self._next += len(values)
        self._row += len(labels)
        self._waiting = []
        self._finish(sorted(self._open.keys() - set(self._above.tolist())))

    def _regions(self, ids: NDArray[np.int32], values: list[int], confidence: NDArray[np.float32]) -> list[_Region]:
        """The regions 1, 2, ... of a block of rows."""
        height, width = ids.shape
        flat, most = ids.ravel(), len(values) + 1
        pixels = np.bincount(flat, minlength=most)
        sums = np.bincount(flat, weights=confidence.ravel(), minlength=most)
        areas = np.full(most, np.nan)
        if self._row_area_m2 is not None:
            rows = self._row_area_m2[self._row : self._row + height]
            areas = np.bincount(flat, weights=np.repeat(rows, width), minlength=most)
        regions = [
            _Region(value=value, pixels=int(pixels[i]), area_m2=float(areas[i]), confidence=float(sums[i]), pieces=[])
            for i, value in enumerate(values, start=1)
        ]
        down = rasterio.Affine.translation(0, self._row)
        for outline, number in shapes(ids, mask=ids > 0, connectivity=4, transform=down):
            regions[int(number) - 1].pieces.append(shapely.geometry.shape(outline))
        return regions

    def _join(self, top: NDArray[np.int64]) -> dict[int, int]:
        """Join the regions of a first row to those above; by number what each has become part of."""
        renamed: dict[int, int] = {}
        touching = (top >= 0) & (self._above >= 0)
        for above, below in np.unique(np.stack([self._above, top])[:, touching], axis=1).T.tolist():
            one, other = sorted((_root(above, renamed), _root(below, renamed)))
            if one != other and self._open[one].value == self._open[other].value:
                self._open[one].take(self._open.pop(other))
                renamed[other] = one
        return renamed

    def _finish(self, numbers: Sequence[int]) -> None:
        """Write regions, in order, and forget them."""
        if not numbers:
            return
        regions = [self._open.pop(number) for number in numbers]
        outlines = shapely.transform(np.array([region.outline for region in regions]), self._on_ground)
        columns = {
            "class": np.array([self._classes.names[region.value] for region in regions], dtype=object),
            "value": np.array([region.value for region in regions], dtype=np.int32),
            "pixels": np.array([region.pixels for region in regions], dtype=np.int64),
            "area_m2": np.array([region.area_m2 for region in regions]),
            "confidence": np.array([region.confidence / region.pixels for region in regions]).round(4),
        }
        self._save(shapely.to_wkb(outlines), columns)

    def _save(self, outlines: NDArray[Any], columns: dict[str, NDArray[Any]]) -> None:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", "'crs' was not provided"
                )  # a scene without a place makes polygons without one
                pyogrio.raw.write(
                    self._file,
                    geometry=outlines,
                    field_data=[*columns.values()],
                    fields=np.array([*columns], dtype=object),
                    crs=self._grid.crs,
                    geometry_type="Polygon",
                    driver="GPKG",
                    layer=LAYER,
                    append=self._file.exists(),
                )
        except VECTOR_ERRORS as error:
            raise failed(self.path, error) from error

    def _converted(self) -> Path:
        """The finished file in the format of its name."""
        driver = DRIVERS[self.path.suffix]
        if driver == "GPKG":
            return self._file
        target = self._folder / self.path.name
        try:
            with warnings.catch_warnings(), pyogrio.raw.open_arrow(self._file, use_pyarrow=False) as (meta, features):
                warnings.filterwarnings("ignore", "'crs' was not provided")
                pyogrio.raw.write_arrow(
                    features,
                    target,
                    driver=driver,
                    layer=LAYER,
                    geometry_name=meta["geometry_name"],
                    geometry_type="Polygon",
                    crs=meta["crs"],
                )
        except VECTOR_ERRORS as error:
            raise failed(self.path, error) from error
        return target

    def _on_ground(self, corners: NDArray[np.float64]) -> NDArray[np.float64]:
        """Columns and rows (n, 2) -> x and y (n, 2)."""
        a, b, c, d, e, f = self._grid.transform
        col, row = corners.T
        return np.stack([a * col + b * row + c, d * col + e * row + f], axis=1)


def bytes_needed(grid: Grid) -> int:
    """Peak bytes of outlining a map of noise, beside the regions that go on below."""
    return PX_BYTES * min(BLOCK_PX, grid.window.pixels)


def components(labels: NDArray[np.uint8]) -> tuple[NDArray[np.int32], list[int]]:
    """Regions of (h, w): their numbers from 1 (h, w), 0 where there is no class, and the class of each."""
    ids, values = np.zeros(labels.shape, dtype=np.int32), list[int]()
    for value in np.unique(labels[labels != IGNORE]).tolist():
        found, count = ndimage.label(labels == value)
        ids += np.where(found, found + len(values), 0).astype(np.int32)
        values += [value] * count
    return ids, values


def _root(number: int, renamed: dict[int, int]) -> int:
    while number in renamed:
        number = renamed[number]
    return number
