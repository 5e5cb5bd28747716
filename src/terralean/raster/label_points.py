"""Labels from a table of points: a CSV file with a line for each pixel that somebody has been to.

Columns are told by their names: `row` and `col` (or `column`), pixels of the image from 0 at the top left; or `x` and `y` in
the CRS of the image; or `lon` and `lat` in degrees (WGS 84). The class, by name or number, is in the column `class`, `name` or
`label`, or the one that is named. A point labels the pixel that it lies in.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from rasterio import Affine

from terralean.errors import GridMismatch, LabelError
from terralean.raster.coding import PLAIN, Coding
from terralean.raster.grid import Grid, Window
from terralean.raster.polygons import choose_field, class_values
from terralean.raster.source import check_there
from terralean.spec import IGNORE, Classes

SUFFIXES = {".csv", ".tsv"}
PLACES = (("row", "col"), ("row", "column"), ("y", "x"), ("lat", "lon"), ("latitude", "longitude"))  # down, then across
SHOWN = 5
WGS84 = "EPSG:4326"


@dataclass(frozen=True, kw_only=True, slots=True)
class Points:
    """A table of labelled points, as it is written."""

    path: str
    columns: tuple[str, str]  # of the places: down, across
    down: tuple[float, ...]
    across: tuple[float, ...]
    labels: tuple[str | int, ...]
    lines: tuple[int, ...]  # of the file
    field: str


def is_points(path: str | Path) -> bool:
    """Whether a path is named as a table."""
    return Path(path).suffix.lower() in SUFFIXES


def read_points(path: str | Path, *, field: str | None = None) -> Points:
    """Raises MissingFile, and LabelError for a table without places or classes, or with a line that lacks one."""
    check_there(str(path), expected="a table of points with the columns row,col,class or x,y,class")
    found = Path(path).stat()
    return _read(str(path), found.st_mtime_ns, found.st_size, field)


@lru_cache(maxsize=16)
def _read(path: str, changed: int, size: int, field: str | None) -> Points:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelError(f"{path} is not in UTF-8 (byte {error.start}); save the table as CSV in UTF-8") from error
    table = csv.DictReader(io.StringIO(text), delimiter=max(",;\t", key=text[:4096].count), skipinitialspace=True)
    header = [name.strip() for name in table.fieldnames or ()]
    table.fieldnames = header
    rows = list(table)
    columns = _columns(path, header)
    places = [name for name in header if name.lower() in columns]
    others = [name for name in header if name not in places]
    named = choose_field(path, others, ["str"] * len(others), field=field)
    by_lower = {name.lower(): name for name in header}
    down, across = (tuple(_numbers(path, rows, by_lower[column])) for column in columns)
    labels = tuple(_label(path, row.get(named), line, named) for line, row in enumerate(rows, 2))
    if not labels:
        raise LabelError(f"{path} has no line below its header; expected one for each labelled point")
    lines = tuple(range(2, len(rows) + 2))
    return Points(path=path, columns=columns, down=down, across=across, labels=labels, lines=lines, field=named)


def _columns(path: str, header: Sequence[str]) -> tuple[str, str]:
    lower = [name.lower() for name in header]
    for pair in PLACES:
        if all(name in lower for name in pair):
            return pair
    raise LabelError(
        f"{path} has the columns {', '.join(header) or 'none'}; expected row,col,class, x,y,class or lon,lat,class"
    )


def _numbers(path: str, rows: Sequence[dict[str, str]], column: str) -> list[float]:
    out = []
    for line, row in enumerate(rows, 2):
        try:
            out.append(float(row[column]))
            if not math.isfinite(out[-1]):
                raise ValueError(row[column])
        except (TypeError, ValueError) as error:
            raise LabelError(f"{path}, line {line}: {column} is {row[column]!r}; expected a number") from error
    return out


def _label(path: str, text: str | None, line: int, column: str) -> str | int:
    found = (text or "").strip()
    if not found:
        raise LabelError(f"{path}, line {line}: {column} is empty; expected the name or number of a class")
    return int(found) if found.lstrip("-").isdigit() else found


def point_values(points: Points) -> dict[int, int] | dict[str, int]:
    """Class number or name to how many points have it, in order; all are texts where one is."""
    if all(isinstance(label, int) for label in points.labels):
        numbers = Counter(int(label) for label in points.labels)
        return {number: numbers[number] for number in sorted(numbers)}
    texts = Counter(str(label) for label in points.labels)
    return {text: texts[text] for text in sorted(texts)}


def burn_points(
    path: str,
    *,
    like: Grid,
    window: Window,
    classes: Classes | None,
    coding: Coding = PLAIN,
    field: str | None = None,
    name: str,
) -> NDArray[np.uint8]:
    """Class values (h, w) in a window of the image `name`, 255 where there is no point.

    Raises LabelError for points outside the image, and for two points of different classes in one pixel.
    """
    points = read_points(path, field=field)
    rows, cols = pixels(points, like=like, name=name)
    labels = (
        points.labels if all(isinstance(label, int) for label in points.labels) else [str(label) for label in points.labels]
    )
    values = np.array(
        class_values(np.array(labels, dtype=object), classes=classes, coding=coding, path=path, field=points.field),
        dtype=np.uint8,
    )
    _check_one_class(points, rows, cols, values, width=like.width)
    out = np.full((window.height, window.width), IGNORE, dtype=np.uint8)
    rows, cols = rows - window.row, cols - window.col
    inside = (rows >= 0) & (rows < window.height) & (cols >= 0) & (cols < window.width)
    out[rows[inside], cols[inside]] = values[inside]
    return out


def pixels(points: Points, *, like: Grid, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the pixels that points lie in. Raises LabelError where one lies outside the image."""
    down, across = np.array(points.down), np.array(points.across)
    if points.columns[0] != "row":
        down, across = _to_pixels(points, down, across, like, name)
    outside = np.flatnonzero(~((down >= 0) & (down < like.height) & (across >= 0) & (across < like.width)))
    if outside.size:
        first = [f"line {points.lines[i]} ({points.across[i]:g}, {points.down[i]:g})" for i in outside[:SHOWN]]
        from_one = points.columns[0] == "row" and min(points.down) >= 1 and min(points.across) >= 1
        hint = "; rows and columns count from 0" if from_one else ""
        raise LabelError(
            f"{points.path}: {outside.size} of {len(down)} points lie outside {name} ({like.width} x {like.height} px), "
            f"{', '.join(first)}{hint}; correct or delete these lines"
        )
    return np.floor(down).astype(np.int64), np.floor(across).astype(np.int64)


def _to_pixels(
    points: Points, down: NDArray[np.float64], across: NDArray[np.float64], like: Grid, name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if points.columns[0] != "y":
        if like.crs is None:
            raise GridMismatch(f"{points.path} has longitudes and latitudes, but {name} has no CRS; give row and col instead")
        turn = Transformer.from_crs(WGS84, CRS.from_user_input(like.crs), always_xy=True)
        across, down = turn.transform(across, down)
    inverse = ~Affine(*like.transform)
    across, down = inverse.a * across + inverse.b * down + inverse.c, inverse.d * across + inverse.e * down + inverse.f
    return np.asarray(down), np.asarray(across)


def _check_one_class(
    points: Points, rows: NDArray[np.int64], cols: NDArray[np.int64], values: NDArray[np.uint8], *, width: int
) -> None:
    """Points of one pixel must agree."""
    place = rows * width + cols
    order = np.argsort(place, kind="stable")
    same = (place[order][1:] == place[order][:-1]) & (values[order][1:] != values[order][:-1])
    if same.any():
        one, two = order[np.flatnonzero(same)[0]], order[np.flatnonzero(same)[0] + 1]
        raise LabelError(
            f"{points.path}: lines {points.lines[one]} and {points.lines[two]} lie in one pixel (row {rows[one]}, column "
            f"{cols[one]}) and are of class {points.labels[one]} and {points.labels[two]}; keep one of them"
        )
