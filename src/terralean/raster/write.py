"""Class maps and scenes onto disk."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

from terralean.raster.area import row_area_m2
from terralean.raster.cog import Content, failed, write_cog
from terralean.raster.grid import Grid
from terralean.raster.rows import RowFile
from terralean.raster.source import GDAL_ERRORS
from terralean.raster.style import attribute_table, join_pam, qml
from terralean.spec import IGNORE, Bands, Classes, check_mappable

RGB = ("red", "green", "blue")
COUNTED_PX = 2**22  # at once, for each of which numpy takes 8 bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """How much of a class map each class covers."""

    pixels: tuple[int, ...]
    area_m2: tuple[float, ...] | None  # on the ground; None without a CRS


def write_map(path: Path, rows: RowFile, *, totals: Totals, grid: Grid, classes: Classes, tags: Mapping[str, str]) -> None:
    """Make a class map of rows and what was counted of them: COG, attribute table (`.aux.xml`) and QGIS style (`.qml`).

    The map has the grid's CRS, transform and size, nodata 255, a colour table, overviews in which every pixel has a class of
    the pixels below it, class names in the tags of its band (`class_0`, `class_1`, ...) and `tags` of its own. As with
    `write_cog` it is nothing to show before this returns.
    """
    check_mappable(classes, where=str(path))
    write_cog(path, rows, grid=grid, content=map_content(classes), tags=tags)
    table, aux = attribute_table(classes, totals.pixels, area_m2=totals.area_m2), path.with_name(f"{path.name}.aux.xml")
    aux.write_text(join_pam(table, aux.read_text(encoding="utf-8")) if aux.exists() else table, encoding="utf-8")
    path.with_suffix(".qml").write_text(qml(classes), encoding="utf-8")


class Rows(Protocol):
    """A class map, read from a `RowFile` or from a raster."""

    def read(self, row: int, height: int) -> NDArray[Any]:
        """Values (1, h, w) of the rows from `row` on."""


def count_classes(rows: Rows, *, grid: Grid, classes: Classes) -> Totals:
    """Count the pixels of a class map, values 0 to K-1 and 255 where there is none."""
    counts, area_m2, of_rows = np.zeros(IGNORE + 1, dtype=np.int64), np.zeros(IGNORE + 1), row_area_m2(grid)
    step = max(1, COUNTED_PX // grid.width)
    for row in range(0, grid.height, step):
        labels = rows.read(row, min(step, grid.height - row))[0]
        found = np.bincount(labels.ravel(), minlength=IGNORE + 1)
        counts += found
        if of_rows is not None:
            area_m2 += _areas(labels, of_rows[row : row + len(labels)], found)
    strange = np.flatnonzero(counts[len(classes) : IGNORE]) + len(classes)
    assert not strange.size, f"values {strange.tolist()} are none of {len(classes)} classes"
    known = slice(len(classes))
    return Totals(pixels=tuple(counts[known].tolist()), area_m2=None if of_rows is None else tuple(area_m2[known].tolist()))


def map_content(classes: Classes) -> Content:
    """What a class map holds."""
    colours = {value: (*colour, 255) for value, colour in enumerate(classes.colours)}
    return Content(
        bands=("class",),
        dtype="uint8",
        nodata=IGNORE,
        overviews="MODE",
        bits=len(classes).bit_length(),  # classes and nodata
        colours=colours | {IGNORE: (0, 0, 0, 0)},
        band_tags={f"class_{value}": name for value, name in enumerate(classes.names)},
    )


def write_scene(path: str | Path, values: NDArray[Any], *, grid: Grid, bands: Bands, nodata: float | None = None) -> None:
    """Values (C, H, W) as a tiled GeoTIFF with the bands' names, wavelengths, units and scale; whole or not at all."""
    path = Path(path)
    assert values.shape == (len(bands), grid.height, grid.width), f"{values.shape} for {len(bands)} bands on {grid}"
    assert values.dtype == bands.dtype, f"{values.dtype} values for bands of {bands.dtype}"
    folder = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True)
        _write_geotiff(folder / path.name, values, grid=grid, bands=bands, nodata=nodata)
        for part in sorted(folder.iterdir(), reverse=True):  # what GDAL puts beside it (.aux.xml) first
            os.replace(part, path.with_name(part.name))
    except (OSError, *GDAL_ERRORS) as error:
        raise failed(path, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _areas(labels: NDArray[np.uint8], row_area_m2: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Area of each value 0..255 in a strip."""
    if np.ptp(row_area_m2) == 0:
        return np.asarray(counts * row_area_m2[0])
    per_pixel = np.repeat(row_area_m2, labels.shape[1])
    return np.asarray(np.bincount(labels.ravel(), weights=per_pixel, minlength=IGNORE + 1))


def _write_geotiff(path: Path, values: NDArray[Any], *, grid: Grid, bands: Bands, nodata: float | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        file = rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=grid.width,
            height=grid.height,
            count=len(bands),
            dtype=bands.dtype,
            nodata=nodata,
            crs=grid.crs,
            transform=rasterio.Affine(*grid.transform),
            tiled=True,
            blockxsize=256,
            blockysize=256,
            compress="DEFLATE",
            bigtiff="IF_SAFER",
            photometric="MINISBLACK",  # else GDAL takes the fourth of four bytes for alpha
        )
    with file:
        if bands.names[:3] == RGB:
            others = [ColorInterp.undefined] * (len(bands) - len(RGB))
            file.colorinterp = [*(ColorInterp[name] for name in RGB), *others]
        if bands.named:
            file.descriptions = bands.names
        file.scales = [bands.scale] * len(bands)
        if bands.units != Bands(names=("any",)).units:
            file.units = [bands.units] * len(bands)
        for position, nm in enumerate(bands.wavelength_nm or (), start=1):
            if nm is not None:
                file.update_tags(position, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=f"{nm / 1000:.7g}")
        file.write(values)
