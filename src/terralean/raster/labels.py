"""Labels onto the grid of an image: from a raster of class numbers or from polygons in a vector file.

In a label raster 0 to K-1 are classes. 255, the file's nodata value, and pixels that a mask or alpha band hides are ignored.
A nodata value of 0 is taken for class 0 all the same: many programs set it on rasters in which 0 is the first class.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terralean.errors import LabelError
from terralean.raster.grid import Grid, Window, check_same_grid
from terralean.raster.polygons import burn_polygons, field_values, is_vector
from terralean.raster.scene import Scene, describe
from terralean.spec import IGNORE, Classes

log = logging.getLogger(__name__)

STRIP_PIXELS = 2**24  # read at once when a whole label raster is looked through


def read_labels(
    path: str | Path, *, like: Grid, window: Window, classes: Classes | None, field: str | None = None, name: str
) -> NDArray[np.uint8]:
    """Class values (h, w) in a window of the image `name`, whose grid is `like`; 255 where there is no label.

    The window may reach past the edges: there 255. `field` is the attribute that holds the class of a polygon. Without
    `classes` any value 0..254 passes. Raises MissingFile, LabelError, and GridMismatch where a label raster lies elsewhere.
    """
    if is_vector(path):
        return burn_polygons(str(path), like=like, window=window, classes=classes, field=field, name=name)
    with _open(path) as scene:
        check_same_grid(like, scene.grid, image_name=name, mask_name=str(path))
        values, valid = scene.read(window)
    return checked(values[0], valid, classes=classes, path=str(path))


def label_values(path: str | Path, *, field: str | None = None) -> dict[int, int] | dict[str, int]:
    """What a label file holds, in order: class value to number of pixels, or for polygons class value or name to their number.

    Ignored pixels are not counted. A raster is read in strips.
    """
    if is_vector(path):
        return field_values(str(path), field=field)
    counts: Counter[int] = Counter()
    hidden = 0
    with _open(path) as scene:
        rows = max(1, STRIP_PIXELS // scene.grid.width)
        for row in range(0, scene.grid.height, rows):
            strip = Window(row=row, col=0, height=rows, width=scene.grid.width).cut(scene.grid.window)
            values, valid = scene.read(strip)
            hidden += int((values[0][valid] == IGNORE).sum())
            counts.update(_counted(_whole(values[0], valid, path=str(path))))
    if set(counts) == {0} and hidden:
        log.warning("%s holds 0 and 255 only, and 255 means ignored: if it is a class, write it as 1", path)
    return dict(sorted(counts.items()))


def checked(values: NDArray[Any], valid: NDArray[np.bool_], *, classes: Classes | None, path: str) -> NDArray[np.uint8]:
    """Class values (h, w) with 255 where not valid; LabelError where a valid value is no class."""
    whole = _whole(values, valid, path=path)
    most = len(classes) if classes is not None else IGNORE
    wrong = valid & (whole != IGNORE) & ((whole < 0) | (whole >= most))
    if wrong.any():
        raise LabelError(_strange(_counted(np.where(wrong, whole, IGNORE)), classes=classes, path=path))
    return whole.astype(np.uint8)


def _open(path: str | Path) -> Scene:
    scene = describe(path, expected="a raster of class numbers or a vector file of polygons")
    if len(scene.bands) != 1:
        scene.close()
        raise LabelError(
            f"{path} has {len(scene.bands)} bands; labels are one band of class numbers 0 to K-1 (255: ignored); "
            "if its colours stand for classes, write one number per colour"
        )
    if scene.nodata == 0:
        return replace(scene, nodata_values=(None,))
    return scene


def _whole(values: NDArray[Any], valid: NDArray[np.bool_], *, path: str) -> NDArray[Any]:
    """Whole numbers, 255 where not valid."""
    if values.dtype.kind != "f":
        return np.where(valid, values, np.array(IGNORE, dtype=values.dtype if values.dtype != np.int8 else np.int16))
    known = np.where(valid, values, IGNORE)
    broken = known[known != np.rint(known)]
    if broken.size:
        raise LabelError(
            f"{path} holds {broken.size} px that are no whole numbers, {broken[0]:g} for example; labels are class numbers 0 "
            "to K-1 (255: ignored); rasterise or resample them without interpolation (gdalwarp -r near)"
        )
    return known.astype(np.int64)


def _counted(values: NDArray[Any]) -> dict[int, int]:
    """Pixels of each value but 255."""
    found, counts = np.unique(values, return_counts=True)
    return {int(value): int(count) for value, count in zip(found, counts, strict=True) if value != IGNORE}


def _strange(wrong: dict[int, int], *, classes: Classes | None, path: str) -> str:
    shown = ", ".join(f"{value} ({count} px)" for value, count in list(wrong.items())[:10])
    more = f" and {len(wrong) - 10} more" if len(wrong) > 10 else ""  # noqa: PLR2004 - ten lines say enough
    if classes is None:
        expected = "class numbers are 0 to 254, 255 is ignored"
    else:
        expected = f"the classes are {', '.join(f'{value} {name}' for value, name in enumerate(classes.names))}; 255 is ignored"
    fix = "number the classes from 0, name the missing ones"
    if len(wrong) == 1:
        fix += f", or if {next(iter(wrong))} means no label, declare it: gdal_edit.py -a_nodata {next(iter(wrong))}"
    return f"{path} holds {shown}{more}; {expected}; {fix}"
