"""Labels from polygons: GeoPackage, GeoJSON, FlatGeobuf, Shapefile, reprojected and burnt onto the grid of an image.

A pixel belongs to the polygon that holds its centre, to the later feature of the file where two do (FlatGeobuf reorders
features when it is written). Edges are straight in the CRS of the image. Only what lies near a window is read where the file
has a spatial index (GeoPackage, FlatGeobuf); a file without one is held in memory up to 256 MB, and read anew for each window
beyond that.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import rasterio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import CRS, Transformer
from rasterio.features import rasterize

from terralean.errors import GridMismatch, LabelError
from terralean.raster.coding import PLAIN, Coding
from terralean.raster.grid import Grid, Window
from terralean.raster.source import check_there
from terralean.spec import IGNORE, Classes

Box = tuple[float, float, float, float]  # west, south, east, north
IN_MEMORY_BYTES = 2**28  # of a file without a spatial index
SUFFIXES = {".gpkg", ".geojson", ".json", ".geojsonl", ".fgb", ".shp", ".gml", ".kml"}
FIELDS = ("class", "name", "label")  # tried in this order
NEAR, FAR = 0.01, 10.0  # margins round an image, as shares of its size
POLYGONS = {3, 6}  # shapely's numbers of Polygon and MultiPolygon


def is_vector(path: str | Path) -> bool:
    """Whether a path is named as a vector file."""
    return Path(path).suffix.lower() in SUFFIXES


def burn_polygons(
    path: str,
    *,
    like: Grid,
    window: Window,
    classes: Classes | None,
    coding: Coding = PLAIN,
    field: str | None,
    name: str,
) -> NDArray[np.uint8]:
    """Class values (h, w) in a window of the image `name`, 255 outside all polygons. Only polygons near the window are read."""
    labels = np.full((window.height, window.width), IGNORE, dtype=np.uint8)
    inside = window.cut(like.window)
    layer, theirs = _placed_layer(path, like=like, name=name, instead="labels as a raster of the same size")
    if not inside.pixels:
        return labels
    column = choose_field(path, layer["fields"], layer["dtypes"], field=field)
    polygons, found = _near(path, layer, column=column, bbox=_bounds(like.crop(inside), theirs, margin=NEAR))
    values = class_values(found, classes=classes, coding=coding, path=path, field=column)
    shapes = [pair for pair in zip(_brought_home(polygons, theirs, like), values, strict=True) if not pair[0].is_empty]
    if shapes:
        labels[inside.slices(origin=window)] = rasterize(
            shapes,
            out_shape=(inside.height, inside.width),
            transform=rasterio.Affine(*like.crop(inside).transform),
            fill=IGNORE,
            dtype="uint8",
        )
    return labels


def polygons_on(path: str, *, like: Grid) -> NDArray[Any]:
    """The polygons of a vector file that lie near a grid, in its CRS."""
    layer = _layer(path)
    theirs = _crs(path, layer)
    polygons, _ = _read(path, layer["layer_name"], column=None, bbox=_bounds(like, theirs, margin=NEAR))
    return _brought_home(polygons, theirs, like)


def polygons_in_px(path: str, *, like: Grid, window: Window, field: str | None, name: str) -> tuple[NDArray[Any], list[str]]:
    """Polygons that meet a window of the image `name`, in px from the image's outer corner, and their class attribute as text.

    In the order of the file; polygons are whole, also where they leave the window.
    """
    layer, theirs = _placed_layer(path, like=like, name=name, instead="polygons in px, such as DOTA's text files")
    inside = window.cut(like.window)
    if not layer["features"]:  # an empty GeoJSON has no attributes
        return np.empty(0, dtype=object), []
    column = choose_field(path, layer["fields"], layer["dtypes"], field=field)
    if not inside.pixels:
        return np.empty(0, dtype=object), []
    polygons, found = _near(path, layer, column=column, bbox=_bounds(like.crop(inside), theirs, margin=NEAR))
    _check_filled(found, path=path, field=column)
    a, b, c, d, e, f = tuple(~rasterio.Affine(*like.transform))[:6]

    def to_px(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return a * x + b * y + c, d * x + e * y + f

    ours = shapely.transform(_brought_home(polygons, theirs, like), to_px, interleaved=False)
    meet = np.flatnonzero(shapely.intersects(ours, shapely.box(*_sides(inside))))
    return ours[meet], [str(_plain(found[number])) for number in meet]


def field_values(path: str, *, field: str | None) -> dict[int, int] | dict[str, int]:
    """Class value or name to the number of features, in order."""
    layer = _layer(path)
    column = choose_field(path, layer["fields"], layer["dtypes"], field=field)
    _, _, _, (values,) = pyogrio.raw.read(path, layer=layer["layer_name"], columns=[column], read_geometry=False)
    _check_filled(values, path=path, field=column)
    counts = Counter(_plain(value) for value in values)
    if all(isinstance(value, int) for value in counts):
        return {int(value): counts[value] for value in sorted(counts, key=int)}
    return {str(value): counts[value] for value in sorted(counts, key=str)}


def choose_field(path: str, fields: Sequence[str], dtypes: Sequence[str], *, field: str | None) -> str:
    """The attribute that holds the class: `field`, else `class`, `name` or `label`, else the only text or integer column."""
    columns = ", ".join(fields) or "none"
    if field is not None:
        if field not in fields:
            near = get_close_matches(field, fields, n=1)
            hint = f"; nearest: {near[0]}" if near else ""
            raise LabelError(f"{path} has no attribute {field!r}{hint}; it has {columns}; name the one that holds the class")
        return field
    lower = {name.lower(): name for name in fields}
    for usual in FIELDS:
        if usual in lower:
            return lower[usual]
    able = [name for name, dtype in zip(fields, dtypes, strict=True) if dtype.startswith(("object", "str", "int", "uint"))]
    if len(able) != 1:
        raise LabelError(
            f"{path} does not say which attribute holds the class; it has {columns}; name it with label_field, e.g. "
            f"--set data.label_field={(able or ['class'])[0]}"
        )
    return able[0]


def class_values(found: NDArray[Any], *, classes: Classes | None, coding: Coding = PLAIN, path: str, field: str) -> list[int]:
    """Class values of attribute values: names by their place among the classes, numbers as the coding has them."""
    _check_filled(found, path=path, field=field)
    names = {name: value for value, name in enumerate(classes.names)} if classes is not None else {}
    names |= dict.fromkeys(coding.ignored_names, IGNORE)
    stored = coding.numbers(len(classes) if classes is not None else IGNORE)
    numbers: dict[int | None, int] = {number: value for value, number in enumerate(stored)}
    numbers |= dict.fromkeys((*coding.ignored, IGNORE), IGNORE)
    distinct = {_plain(value) for value in found}
    meant = {raw: names.get(str(raw), numbers.get(_number(raw))) for raw in distinct}
    values = {raw: value for raw, value in meant.items() if value is not None}
    if wrong := distinct - values.keys():
        raise LabelError(_strange(wrong, classes=classes, coding=coding, path=path, field=field))
    return [values[_plain(value)] for value in found]


def _placed_layer(path: str, *, like: Grid, name: str, instead: str) -> tuple[dict[str, Any], CRS]:
    """The layer of polygons and its CRS. Raises GridMismatch where the image has no place on the ground."""
    if like.crs is None:
        raise GridMismatch(
            f"{path} cannot be laid on {name}, which has no CRS; set it (gdal_edit.py -a_srs EPSG:code) or give {instead}"
        )
    layer = _layer(path)
    return layer, _crs(path, layer)


def _sides(window: Window) -> Box:
    return window.col, window.row, window.col + window.width, window.row + window.height


def _layer(path: str) -> dict[str, Any]:
    """Facts of the one layer that holds polygons."""
    check_there(path, expected="a vector file of polygons")
    return _layer_facts(path, _changed(path))


def _changed(path: str) -> int | None:
    """When a file was last written; None where that cannot be told."""
    return os.stat(path).st_mtime_ns if os.path.exists(path) else None


@lru_cache(maxsize=256)
def _layer_facts(path: str, changed: int | None) -> dict[str, Any]:
    """Remembered until the file changes: a GeoJSON is parsed from end to end to tell them."""
    try:
        layers = {str(name): kind for name, kind in pyogrio.list_layers(path) if kind is not None}
        polygons = [name for name, kind in layers.items() if "Polygon" in kind] or list(layers)
        if len(polygons) == 1:
            return pyogrio.read_info(path, layer=polygons[0])
    except (DataSourceError, DataLayerError) as error:
        raise LabelError(
            f"{path} is not a vector file that GDAL can open ({error}); expected polygons as GeoPackage, GeoJSON, FlatGeobuf "
            "or Shapefile; see what `ogrinfo` says of it"
        ) from error
    raise LabelError(
        f"{path} has {len(layers)} layers ({', '.join(layers) or 'none'}); expected one of polygons; "
        "keep it in a file of its own"
    )


def _crs(path: str, layer: dict[str, Any]) -> CRS:
    if not layer["crs"]:
        raise LabelError(
            f"{path} has no CRS, so its polygons have no place; set it, e.g. ogr2ogr -a_srs EPSG:code out.gpkg {path}"
        )
    return CRS.from_user_input(layer["crs"])


def _bounds(grid: Grid, crs: CRS, *, margin: float) -> Box | None:
    """Bounds of a grid in a CRS, with a margin as a share of their size; None where they cannot be told."""
    xs, ys = zip(*grid.corners(), strict=True)
    to_crs = Transformer.from_crs(CRS.from_user_input(grid.crs), crs, always_xy=True)
    left, bottom, right, top = to_crs.transform_bounds(min(xs), min(ys), max(xs), max(ys), densify_pts=21)
    if not np.isfinite([left, bottom, right, top]).all() or left > right:  # left > right: across the 180th meridian
        return None
    wide, high = margin * (right - left), margin * (top - bottom)
    return left - wide, bottom - high, right + wide, top + high


def _brought_home(polygons: NDArray[Any], crs: CRS, like: Grid) -> NDArray[Any]:
    """Polygons in the CRS of the image.

    An ocean that reaches to where the projection folds or ends is cut first, round the whole image, so that the cut does not
    depend on the window.
    """
    change = Transformer.from_crs(crs, CRS.from_user_input(like.crs), always_xy=True)
    reach = _bounds(like, crs, margin=FAR)
    polygons = _cut(polygons, _far(polygons, reach), reach)
    ours = shapely.transform(polygons, change.transform, interleaved=False)
    endless = ~np.isfinite(shapely.bounds(ours)).all(axis=1) & ~shapely.is_empty(polygons)
    if endless.any():
        near = _cut(polygons, endless, _bounds(like, crs, margin=NEAR))
        ours[endless] = shapely.transform(near[endless], change.transform, interleaved=False)
    return ours


def _far(polygons: NDArray[Any], bounds: Box | None) -> NDArray[np.bool_]:
    """Which polygons reach beyond the bounds."""
    if bounds is None:
        return np.zeros(len(polygons), dtype=bool)
    low, high = np.split(shapely.bounds(polygons), 2, axis=1)
    return np.asarray((low < bounds[:2]).any(axis=1) | (high > bounds[2:]).any(axis=1))


def _cut(polygons: NDArray[Any], which: NDArray[np.bool_], bounds: Box | None) -> NDArray[Any]:
    cut = polygons.copy()
    if bounds is not None and which.any():
        cut[which] = shapely.clip_by_rect(polygons[which], *bounds)
    return cut


def _near(path: str, layer: dict[str, Any], *, column: str, bbox: Box | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Polygons whose bounds meet the box, and their attribute, in the order of the file."""
    indexed = layer["capabilities"]["fast_spatial_filter"]
    if indexed or bbox is None or not os.path.exists(path) or os.stat(path).st_size > IN_MEMORY_BYTES:
        return _read(path, layer["layer_name"], column=column, bbox=bbox)
    shapes, values, tree = _remembered(path, layer["layer_name"], column, _changed(path))
    near = np.sort(tree.query(shapely.box(*bbox)))
    return shapes[near], values[near]


@lru_cache(maxsize=4)
def _remembered(path: str, layer: str, column: str, changed: int | None) -> tuple[NDArray[Any], NDArray[Any], shapely.STRtree]:
    """All polygons of a file without a spatial index: parsing a GeoJSON takes as long for one window as for all."""
    shapes, values = _read(path, layer, column=column, bbox=None)
    return shapes, values, shapely.STRtree(shapes)


def _read(path: str, layer: str, *, column: str | None, bbox: Box | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Polygons and their attribute; without a column their numbers in the file."""
    columns = [] if column is None else [column]
    try:
        _, ids, wkb, fields = pyogrio.raw.read(path, layer=layer, columns=columns, bbox=bbox, force_2d=True, return_fids=True)
    except DataSourceError as error:
        raise LabelError(f"{path} breaks off while it is read ({error}); copy or export it again") from error
    order = np.argsort(ids)  # an index hands features out in its own order, and the later one is drawn above
    shapes, values = shapely.from_wkb(wkb[order]), fields[0] if fields else ids
    there = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    shapes, values = shapes[there], values[order][there]
    odd = [shape.geom_type for shape in shapes if shapely.get_type_id(shape) not in POLYGONS]
    if odd:
        raise LabelError(
            f"{path}: {len(odd)} of {len(shapes)} features are no polygons but {', '.join(sorted(set(odd)))}; buffer them to "
            "the ground they cover, or delete them"
        )
    return shapes, values


def _check_filled(values: NDArray[Any], *, path: str, field: str) -> None:
    empty = sum(1 for value in values if value is None or value != value or value == "")  # noqa: PLR0124 - NaN
    if empty:
        raise LabelError(f"{path}: {empty} of {len(values)} polygons have no {field!r}; fill it in, or delete them")


def _plain(value: Any) -> int | str:
    """An attribute value as int where it is a whole number, else as text."""
    if isinstance(value, int | float | np.number | np.bool_) and float(value).is_integer():
        return int(value)
    return str(value)


def _number(raw: int | str) -> int | None:
    """The number, written as text too."""
    return int(raw) if isinstance(raw, int) or raw.isdecimal() else None


def _strange(wrong: set[int | str], *, classes: Classes | None, coding: Coding, path: str, field: str) -> str:
    if classes is None:
        return (
            f"{path}: {field!r} holds {', '.join(sorted(map(repr, wrong)))}, which are no class numbers 0 to 254; "
            "name the classes, so that each has its number"
        )
    hints = []
    for raw in sorted(map(str, wrong)):
        near = get_close_matches(raw, classes.names, n=1)
        hints.append(f"{raw!r}" + (f" (nearest: {near[0]})" if near else ""))
    numbers = coding.numbers(len(classes))
    told = f"{numbers[0]} to {numbers[-1]}" if coding.values is None else ", ".join(map(str, numbers))
    return (
        f"{path}: {field!r} holds {', '.join(hints)}; the classes are {', '.join(classes.names)}, or their numbers {told}; "
        "correct the attribute, add the class, or list what is no class in data.ignore"
    )
