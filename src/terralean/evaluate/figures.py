"""The pictures of a report: image, reference, map and errors as PNG bytes, training curves as lines to draw.

Everything with words or numbers in it is drawn by the page itself, so that it takes the page's font, colours and width. Blue
and orange, light and dark carry the meaning, never red against green.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from terralean.errors import GridMismatch, SizeError
from terralean.raster.display import hatch, stretch
from terralean.spec import IGNORE, Bands, Classes

MAX_SIDE_PX = 640  # of a raster picture: sharp at a third of a wide page, and a photograph stays below a megabyte
MIN_SIDE_PX = 400  # smaller ones are enlarged in whole steps, so that pixels stay square and sharp
MATRIX_PX = 900  # about the side of a matrix that is drawn without numbers

ERROR_RGB = (170, 0, 70)
UNMAPPED_RGB = (20, 20, 20)
FAINT = 0.22  # share of the class colour where the map is right; the rest is white
RIGHT_RGB, WRONG_RGB = (0, 114, 178), (213, 94, 0)
LEAST = 0.12  # of the colour of a cell that is not empty: a share of one in a thousand must still be seen

CHART_PX = (460, 230)  # width and height of a chart in its own units
MARGINS_PX = (46, 10, 14, 40)  # left, right, top, bottom: room for the numbers at the axes
TICKS = 6  # along an axis at most


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A PNG."""

    png: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Photo:
    """A JPEG, of which a page can show many."""

    jpeg: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One curve of a chart, in the chart's units from its top left corner."""

    label: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """Curves over the optimiser's steps. A tick is a place along its axis and what is written there."""

    title: str
    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    best: tuple[float, float] | None = None  # a point to be ringed
    size_px: tuple[int, int] = CHART_PX
    margins_px: tuple[int, int, int, int] = MARGINS_PX


def draw_image(values: NDArray[Any], valid: NDArray[np.bool_], *, bands: Bands) -> Picture:
    """The scene as a person would see it: values (C, H, W), valid (H, W); hatched where not valid."""
    step = _step(*valid.shape)
    return _raster(stretch(values[:, ::step, ::step], valid[::step, ::step], bands=bands))


def draw_classes(labels: NDArray[Any], *, classes: Classes) -> Picture:
    """Labels (H, W) in the colours of their classes; hatched where there is none (255)."""
    step = _step(*labels.shape)
    return _raster(_coloured(labels[::step, ::step], classes))


def draw_errors(reference: NDArray[Any], map: NDArray[Any], *, classes: Classes) -> Picture:
    """Where the map (H, W) is wrong, strong; where right, faint in the class colour; hatched where there is no reference.

    Black where the reference has a class and the map has none.
    """
    if reference.shape != map.shape:
        raise GridMismatch(f"reference {reference.shape} and map {map.shape} differ in size; read both on the grid of the map")
    step = _step(*reference.shape)
    truth, mapped = reference[::step, ::step], map[::step, ::step]
    colours = (255 - FAINT * (255.0 - _coloured(truth, classes))).astype(np.uint8)
    colours[(truth != IGNORE) & (mapped != truth)] = ERROR_RGB
    colours[(truth != IGNORE) & (mapped == IGNORE)] = UNMAPPED_RGB
    return _raster(np.where((truth == IGNORE)[..., None], hatch(*truth.shape), colours).astype(np.uint8))


def draw_matrix(counts: NDArray[np.int64]) -> Picture:
    """A confusion matrix (K, L) of many classes without numbers: each cell the deeper, the larger its share of the row."""
    support = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, support, out=np.zeros(counts.shape), where=support > 0)
    depth = np.where(counts > 0, LEAST + (1 - LEAST) * share, 0)[..., None]
    diagonal = np.equal.outer(np.arange(counts.shape[0]), np.arange(counts.shape[1]))[..., None]
    rgb = 255 - depth * (255 - np.where(diagonal, RIGHT_RGB, WRONG_RGB))
    times = max(1, MATRIX_PX // max(counts.shape))
    return _png(np.rint(rgb).astype(np.uint8).repeat(times, axis=0).repeat(times, axis=1))


def side_by_side(pictures: Sequence[Picture], *, height_px: int = 400, gap_px: int = 6) -> bytes:
    """One PNG of several pictures in a row, for a slide or a page of documentation."""
    images = [Image.open(io.BytesIO(picture.png)).convert("RGB") for picture in pictures]
    images = [
        image.resize((round(image.width * height_px / image.height), height_px), Image.Resampling.LANCZOS) for image in images
    ]
    row = Image.new("RGB", (sum(image.width + gap_px for image in images) - gap_px, height_px), "white")
    left = 0
    for image in images:
        row.paste(image, (left, 0))
        left += image.width + gap_px
    out = io.BytesIO()
    row.quantize(256).save(out, "PNG", optimize=True)  # a palette is a third of the bytes and looks the same
    return out.getvalue()


def draw_losses(rows: Sequence[Mapping[str, Any]], *, columns: Mapping[str, str], step: str = "step") -> Chart | None:
    """Losses by step: columns of a metrics.csv (column -> label). What is missing is not drawn; None if nothing is left."""
    curves = {label: _curve(rows, x=step, y=column) for column, label in columns.items()}
    return _chart("Loss (lower is better)", {label: points for label, points in curves.items() if points})


def draw_score(rows: Sequence[Mapping[str, Any]], *, column: str, label: str, step: str = "step") -> Chart | None:
    """A share by step in percent, the best one ringed; None where the column is missing or empty."""
    points = [(x, 100 * y) for x, y in _curve(rows, x=step, y=column)]
    if not points:
        return None
    best = max(range(len(points)), key=lambda i: points[i][1])
    title = f"{label} in percent: best {points[best][1]:.1f} at step {points[best][0]:.0f}"
    return _chart(title, {label: points}, ring=best)


# The parts of raster pictures.


def _coloured(labels: NDArray[Any], classes: Classes) -> NDArray[np.uint8]:
    table = np.zeros((256, 3), np.uint8)
    table[: len(classes)] = classes.colours
    return np.where((labels == IGNORE)[..., None], hatch(*labels.shape), table[labels]).astype(np.uint8)


def _step(height: int, width: int) -> int:
    if not height or not width:
        raise SizeError(f"an image of {height} x {width} px cannot be drawn; give one with at least one pixel")
    return -(-max(height, width) // MAX_SIDE_PX)


def _raster(rgb: NDArray[np.uint8]) -> Picture:
    times = max(1, MIN_SIDE_PX // max(rgb.shape[:2]))
    return _png(rgb.repeat(times, axis=0).repeat(times, axis=1))


def _png(rgb: NDArray[np.uint8]) -> Picture:
    """Of few colours a palette holds all exactly, in a third of the bytes."""
    image, target = Image.fromarray(np.ascontiguousarray(rgb)), io.BytesIO()
    if image.getcolors(256) is not None:
        image = image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    image.save(target, format="PNG", optimize=True)
    return Picture(png=target.getvalue())


# The parts of charts.


def _chart(title: str, curves: Mapping[str, Sequence[tuple[float, float]]], *, ring: int | None = None) -> Chart | None:
    """All curves on common axes."""
    if not curves:
        return None
    (width, height), (left, right, top, bottom) = CHART_PX, MARGINS_PX
    every = np.array([point for points in curves.values() for point in points])
    x_ticks, y_ticks = ticks(every[:, 0], within=True), ticks(every[:, 1], within=False)
    across = scale((*every[:, 0], *x_ticks), start=left, stop=width - right)
    up = scale((*every[:, 1], *y_ticks), start=height - bottom, stop=top)
    lines = tuple(
        Line(label=label, points=tuple((across(float(x)), up(float(y))) for x, y in points)) for label, points in curves.items()
    )
    return Chart(
        title=title,
        lines=lines,
        x_ticks=tuple((across(x), f"{x:g}") for x in x_ticks),
        y_ticks=tuple((up(y), f"{y:g}") for y in y_ticks),
        best=None if ring is None else lines[0].points[ring],
    )


def scale(values: Sequence[float], *, start: float, stop: float) -> Callable[[float], float]:
    """From the range of values to places between start and stop; to the middle where there is no range."""
    low, high = float(min(values)), float(max(values))
    if low == high:
        return lambda value: (start + stop) / 2
    return lambda value: round(start + (value - low) / (high - low) * (stop - start), 1)


def ticks(values: NDArray[np.float64], *, within: bool) -> list[float]:
    """Some round numbers within the range of values, or around it; the value itself where there is but one."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / TICKS))
    step = next(step for times in (1, 2, 5, 10, 20) if (high - low) / (step := times * power) < TICKS)
    first, last = (math.ceil, math.floor) if within else (math.floor, math.ceil)
    return [round(i * step, 12) for i in range(first(low / step), last(high / step) + 1)]


def _curve(rows: Sequence[Mapping[str, Any]], *, x: str, y: str) -> list[tuple[float, float]]:
    points = [(_number(row.get(x)), _number(row.get(y))) for row in rows]
    return sorted((a, b) for a, b in points if math.isfinite(a) and math.isfinite(b))


def _number(value: object) -> float:
    """NaN where a cell is empty or missing."""
    return float(value) if isinstance(value, int | float) or (isinstance(value, str) and value.strip()) else math.nan
