"""The pictures of a report as PNG bytes: image, reference, map, errors, confusion matrix, IoU per class, training curves.

Drawn on matplotlib's Figure objects, without pyplot and its global state. Charts come in two colour schemes, so that a page can
show the one that suits it. Blue and orange, light and dark carry the meaning, never red against green.
"""

from __future__ import annotations

import functools
import io
import itertools
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from terralean.errors import GridMismatch, SizeError
from terralean.evaluate.intervals import Intervals
from terralean.evaluate.metrics import Scores
from terralean.spec import IGNORE, Bands, Classes

MAX_SIDE_PX = 640  # of a raster picture: sharp at a third of a wide page, and a photograph stays below a megabyte
MIN_SIDE_PX = 400  # smaller ones are enlarged in whole steps, so that pixels stay square and sharp
DPI = 144
CHART_COLOURS = 128
MAX_BARS = 40
NUMBERS_UP_TO = 20  # classes; beyond, the cells of the matrix are too small for numbers
NAME_CHARS = 26  # a line of a class name, of which there are two at most

ERROR_RGB = (170, 0, 70)
UNMAPPED_RGB = (20, 20, 20)
HATCH_RGB = ((226, 228, 231), (186, 190, 195))  # no label, no data: ground and stripes
FAINT = 0.22  # share of the class colour where the map is right; the rest is white

DISPLAY_NM = (660.0, 560.0, 480.0)
NEAR_NM = 60.0
MARKERS = ("D", "s", "^", "v", "P")
# Names in other scripts need a font that has them; the first that is installed is used.
FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei", "Microsoft YaHei", "PingFang SC", "Noto Sans Arabic")


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A PNG, and for charts the same on a dark ground."""

    light: bytes
    dark: bytes | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Theme:
    """Colours of a chart."""

    paper: str
    ink: str
    quiet: str  # axes and small print
    line: str  # grid
    right: str
    bar: str  # pale, so that intervals and markers on it stand out
    wrong: str
    rivals: tuple[str, ...]


LIGHT = Theme(
    paper="#ffffff",
    ink="#1b1f24",
    quiet="#5b6570",
    line="#dfe3e8",
    right="#0072b2",
    bar="#9ccbe8",
    wrong="#d55e00",
    rivals=("#d55e00", "#1b1f24", "#a0497a", "#00795a", "#7a5a00"),
)
DARK = Theme(
    paper="#1a1e24",
    ink="#e8ebef",
    quiet="#a3adb8",
    line="#343b45",
    right="#56b4e9",
    bar="#2c6a94",
    wrong="#f08a3c",
    rivals=("#f5a65b", "#ffffff", "#e39fc6", "#4fd0a5", "#f0e442"),
)


def display_bands(bands: Bands) -> tuple[int, ...]:
    """Positions shown as red, green and blue: by name, else by wavelength, else the first three; one band is shown grey."""
    names = [name.lower() for name in bands.names]
    if all(colour in names for colour in ("red", "green", "blue")):
        return tuple(names.index(colour) for colour in ("red", "green", "blue"))
    near = _by_wavelength(bands)
    if near is not None:
        return near
    return (0, 1, 2) if len(bands) >= 3 else (0,)  # noqa: PLR2004 - red, green, blue


def stretch(values: NDArray[Any], valid: NDArray[np.bool_], *, bands: Bands) -> NDArray[np.uint8]:
    """Colours for the screen (H, W, 3): each shown band from its 2nd to its 98th percentile over valid pixels."""
    shown = [_stretch_band(values[i], valid) for i in display_bands(bands)]
    rgb = np.stack(shown * 3 if len(shown) == 1 else shown, axis=-1)
    return np.where(valid[..., None], rgb, _hatch(*valid.shape)).astype(np.uint8)


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
    return _raster(np.where((truth == IGNORE)[..., None], _hatch(*truth.shape), colours).astype(np.uint8))


def draw_confusion(confusion: NDArray[np.int64], *, unmapped: NDArray[np.int64], names: Sequence[str]) -> Picture:
    """The confusion matrix (K, K) in percent of each row, with counts; a last column for pixels without a class in the map."""
    columns = [*names, "(no class)"] if unmapped.any() else list(names)
    counts = np.column_stack([confusion, unmapped]) if unmapped.any() else confusion
    return _both(lambda theme: _confusion_chart(counts, rows=names, columns=columns, theme=theme))


def draw_class_bars(
    scores: Scores,
    *,
    intervals: Intervals | None,
    names: Sequence[str],
    baselines: Mapping[str, Scores],
) -> Picture:
    """IoU of each class as a bar with its 95 % interval, the baselines as markers. Of more than 40 classes the commonest 40."""
    order = sorted(np.argsort(scores.support, kind="stable")[::-1][:MAX_BARS].tolist())
    return _both(lambda theme: _bars_chart(scores, intervals, names, baselines, order=order, theme=theme))


def side_by_side(pictures: Sequence[Picture], *, height_px: int = 400, gap_px: int = 6) -> bytes:
    """One PNG of several pictures in a row, for a slide or a page of documentation."""
    images = [Image.open(io.BytesIO(picture.light)).convert("RGB") for picture in pictures]
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


def draw_curves(
    rows: Sequence[Mapping[str, Any]],
    *,
    step: str = "step",
    losses: Mapping[str, str],
    score: str,
) -> Picture | None:
    """Training by step: the columns of `losses` (column -> label) beside the column `score` (a share, shown in percent).

    Rows of a metrics.csv, values as text or numbers. A column or a value that is missing is not drawn; None if nothing is.
    """
    curves = {label: _curve(rows, x=step, y=column) for column, label in losses.items()}
    curves = {label: points for label, points in curves.items() if points}
    validation = [(x, 100 * y) for x, y in _curve(rows, x=step, y=score)]
    if not curves and not validation:
        return None
    return _both(lambda theme: _curves_chart(curves, validation, theme=theme))


# The parts of raster pictures.


def _by_wavelength(bands: Bands) -> tuple[int, ...] | None:
    nm = [math.inf if w is None else w for w in bands.wavelength_nm or ()]
    if not nm:
        return None
    near = [min(range(len(nm)), key=lambda i: abs(nm[i] - wanted)) for wanted in DISPLAY_NM]
    close = all(abs(nm[i] - wanted) <= NEAR_NM for i, wanted in zip(near, DISPLAY_NM, strict=True))
    return tuple(near) if close and len(set(near)) == len(near) else None


def _stretch_band(band: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    known = band[valid].astype(np.float64)
    if not known.size:
        return np.zeros(band.shape)
    low, high = np.percentile(known, [2, 98])
    if high == low:
        return np.full(band.shape, 128.0)
    return 255 * np.clip((np.where(valid, band, low) - low) / (high - low), 0, 1)


def _coloured(labels: NDArray[Any], classes: Classes) -> NDArray[np.uint8]:
    table = np.zeros((256, 3), np.uint8)
    table[: len(classes)] = classes.colours
    return np.where((labels == IGNORE)[..., None], _hatch(*labels.shape), table[labels]).astype(np.uint8)


def _hatch(height: int, width: int) -> NDArray[np.uint8]:
    """Diagonal stripes (H, W, 3) that no class colour looks like, about 60 over the longer side."""
    period = max(4, max(height, width) // 60)
    place = np.add.outer(np.arange(height), np.arange(width)) % period
    return np.where((place < max(1, period // 4))[..., None], HATCH_RGB[1], HATCH_RGB[0]).astype(np.uint8)


def _step(height: int, width: int) -> int:
    if not height or not width:
        raise SizeError(f"an image of {height} x {width} px cannot be drawn; give one with at least one pixel")
    return -(-max(height, width) // MAX_SIDE_PX)


def _raster(rgb: NDArray[np.uint8]) -> Picture:
    times = max(1, MIN_SIDE_PX // max(rgb.shape[:2]))
    target = io.BytesIO()
    enlarged = rgb.repeat(times, axis=0).repeat(times, axis=1)
    imsave(target, enlarged, format="png", pil_kwargs={"optimize": True})
    return Picture(light=target.getvalue())


# The parts of charts.


def _both(draw: Callable[[Theme], Figure]) -> Picture:
    return Picture(light=_png(draw(LIGHT)), dark=_png(draw(DARK)))


def _png(figure: Figure) -> bytes:
    target = io.BytesIO()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    # A chart has few colours: a palette makes it a third of the size, and the page carries every chart twice.
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).quantize(CHART_COLOURS, dither=Image.Dither.NONE)
    drawn.save(target, format="png", optimize=True)
    return target.getvalue()


def _figure(width_in: float, height_in: float, *, columns: int, theme: Theme) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width_in, height_in), dpi=DPI, facecolor=theme.paper, layout="constrained")
    axes = [figure.add_subplot(1, columns, i + 1) for i in range(columns)]
    for ax in axes:
        ax.set_facecolor(theme.paper)
        ax.tick_params(colors=theme.quiet, labelsize=9, length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
    return figure, axes


def _confusion_chart(counts: NDArray[np.int64], *, rows: Sequence[str], columns: Sequence[str], theme: Theme) -> Figure:
    cell_in = 0.66 if len(rows) <= NUMBERS_UP_TO else max(0.06, 9 / len(rows))
    figure, (ax,) = _figure(2.6 + cell_in * len(columns), 1.9 + cell_in * len(rows), columns=1, theme=theme)
    support = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, support, out=np.full(counts.shape, np.nan), where=support > 0)
    diagonal = np.equal.outer(np.arange(counts.shape[0]), np.arange(counts.shape[1]))
    for shown, colour in ((diagonal, theme.right), (~diagonal, theme.wrong)):
        scale = LinearSegmentedColormap.from_list("share", [theme.paper, colour])
        ax.imshow(np.where(shown, share, np.nan), cmap=scale, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    _name_ticks(ax, rows=rows, columns=columns, theme=theme)
    if len(rows) <= NUMBERS_UP_TO:
        _write_cells(ax, counts, share, theme=theme)
    ax.set_xlabel("in the map", color=theme.ink, fontsize=10)
    ax.set_ylabel("in the reference", color=theme.ink, fontsize=10)
    ax.xaxis.set_label_position("top")
    return figure


def _name_ticks(ax: Axes, *, rows: Sequence[str], columns: Sequence[str], theme: Theme) -> None:
    size = 9 if len(rows) <= NUMBERS_UP_TO else max(2.0, 280 / len(rows))
    ax.xaxis.tick_top()
    lines = 2 if len(rows) <= NUMBERS_UP_TO else 1
    ax.set_xticks(range(len(columns)), [_label(name, value=i, lines=lines) for i, name in enumerate(columns)])
    ax.set_yticks(range(len(rows)), [_label(name, value=i, lines=lines) for i, name in enumerate(rows)])
    for label in ax.get_xticklabels():
        label.set(rotation=40, ha="left", va="bottom", rotation_mode="anchor")
    for label in (*ax.get_xticklabels(), *ax.get_yticklabels()):
        label.set(color=theme.ink, fontsize=min(9, size), parse_math=False, fontfamily=_families())
    ax.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    ax.grid(which="minor", color=theme.line, linewidth=0.8)
    ax.tick_params(which="minor", length=0)


def _write_cells(ax: Axes, counts: NDArray[np.int64], share: NDArray[np.float64], *, theme: Theme) -> None:
    """Percent above the count; nothing where the count is 0, n/a in the row of a class that the reference lacks."""
    for (row, column), count in np.ndenumerate(counts):
        if math.isnan(share[row, column]):
            ax.text(column, row, "n/a", ha="center", va="center", color=theme.quiet, fontsize=9)
        elif count:
            fill = theme.right if row == column else theme.wrong
            colour = _legible(_mixed(theme.paper, fill, share=float(share[row, column])), theme=theme)
            percent = 100 * share[row, column]
            text = "<1 %" if percent < 0.5 else f"{percent:.0f} %"  # noqa: PLR2004 - what would round to 0
            ax.text(column, row - 0.13, text, ha="center", va="center", color=colour, fontsize=10)
            ax.text(column, row + 0.24, short_count(int(count)), ha="center", va="center", color=colour, fontsize=7.5)


def _mixed(one: str, other: str, *, share: float) -> NDArray[np.float64]:
    return (1 - share) * np.array(to_rgb(one)) + share * np.array(to_rgb(other))


def _legible(ground: NDArray[np.float64], *, theme: Theme) -> str:
    """Ink or paper, whichever has the higher contrast on this ground (WCAG 2 contrast ratio)."""
    level = _luminance(ground) + 0.05
    ink, paper = (_luminance(np.array(to_rgb(colour))) + 0.05 for colour in (theme.ink, theme.paper))
    return theme.ink if max(ink / level, level / ink) >= max(paper / level, level / paper) else theme.paper


def _luminance(rgb: NDArray[np.float64]) -> float:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)  # noqa: PLR2004 - sRGB (IEC 61966-2-1)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def _bars_chart(
    scores: Scores,
    intervals: Intervals | None,
    names: Sequence[str],
    baselines: Mapping[str, Scores],
    *,
    order: Sequence[int],
    theme: Theme,
) -> Figure:
    figure, (ax,) = _figure(6.0, 1.1 + 0.48 * len(order) + 0.2 * len(baselines), columns=1, theme=theme)
    for place, i in enumerate(order):
        if math.isnan(scores.iou[i]):
            ax.text(0.8, place, "neither in the reference nor in the map", va="center", color=theme.quiet, fontsize=9)
            continue
        ax.barh(place, 100 * scores.iou[i], height=0.6, color=theme.bar, zorder=2)
        found = None if intervals is None else intervals.iou[i]
        if found is not None:
            ax.plot([100 * found.low, 100 * found.high], [place, place], color=theme.ink, linewidth=1.8, zorder=4)
            for end in (found.low, found.high):
                ax.plot([100 * end, 100 * end], [place - 0.15, place + 0.15], color=theme.ink, linewidth=1.8, zorder=4)
    _mark_baselines(ax, baselines, order=order, theme=theme)
    ax.set(xlim=(0, 100), ylim=(len(order) - 0.5, -0.5))
    ax.set_yticks(range(len(order)), [_label(names[i], value=i, lines=2) for i in order])
    for label in ax.get_yticklabels():
        label.set(color=theme.ink, fontsize=9, parse_math=False, fontfamily=_families())
    ax.tick_params(axis="y", pad=9)
    ax.grid(axis="x", color=theme.line, linewidth=0.8, zorder=0)
    less = "" if len(order) == len(names) else f" (the {len(order)} commonest of {len(names)} classes)"
    ax.set_xlabel(f"IoU in percent{less}", color=theme.ink, fontsize=10)
    _bars_legend(figure, baselines, with_intervals=intervals is not None, theme=theme)
    return figure


def _mark_baselines(ax: Axes, baselines: Mapping[str, Scores], *, order: Sequence[int], theme: Theme) -> None:
    for index, rival in enumerate(baselines.values()):
        ax.plot(
            [100 * rival.iou[i] for i in order],
            [place + 0.12 * (index - (len(baselines) - 1) / 2) for place in range(len(order))],
            **_marker(index, theme=theme),
            clip_on=False,
            zorder=5,
        )


def _marker(index: int, *, theme: Theme) -> dict[str, Any]:
    colour = theme.rivals[index % len(theme.rivals)]
    shape = MARKERS[index % len(MARKERS)]
    return {
        "marker": shape,
        "color": colour,
        "markeredgecolor": theme.paper,
        "markeredgewidth": 1.0,
        "markersize": 8,
        "linestyle": "",
    }


def _bars_legend(figure: Figure, baselines: Mapping[str, Scores], *, with_intervals: bool, theme: Theme) -> None:
    entries: list[Patch | Line2D] = [Patch(color=theme.bar, label="This map")]
    if with_intervals:
        entries.append(Line2D([], [], color=theme.ink, linewidth=1.8, label="95 % interval"))
    entries += [Line2D([], [], label=name, **_marker(i, theme=theme)) for i, name in enumerate(baselines)]
    legend = figure.legend(handles=entries, loc="outside upper left", ncols=1, frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set(color=theme.ink, parse_math=False)


def _curves_chart(
    curves: Mapping[str, Sequence[tuple[float, float]]], validation: Sequence[tuple[float, float]], *, theme: Theme
) -> Figure:
    columns = bool(curves) + bool(validation)
    figure, axes = _figure(4.6 * columns, 3.0, columns=columns, theme=theme)
    for ax in axes:
        ax.grid(color=theme.line, linewidth=0.8)
        ax.set_xlabel("optimiser step", color=theme.ink, fontsize=10)
    if curves:
        _draw_losses(axes[0], curves, theme=theme)
    if validation:
        _draw_validation(axes[-1], validation, theme=theme)
    return figure


def _draw_losses(ax: Axes, curves: Mapping[str, Sequence[tuple[float, float]]], *, theme: Theme) -> None:
    looks = itertools.cycle(((theme.right, "-"), (theme.wrong, "--"), (theme.quiet, ":")))
    for (label, points), (colour, style) in zip(curves.items(), looks, strict=False):
        x, y = zip(*points, strict=True)
        ax.plot(x, y, color=colour, linestyle=style, linewidth=1.8, label=label)
    ax.set_title("Loss (lower is better)", color=theme.ink, fontsize=10, loc="left")
    if len(curves) > 1:
        ax.legend(frameon=False, fontsize=9, labelcolor=theme.ink)


def _draw_validation(ax: Axes, points: Sequence[tuple[float, float]], *, theme: Theme) -> None:
    x, y = zip(*points, strict=True)
    best = max(range(len(y)), key=y.__getitem__)
    ax.plot(x, y, color=theme.right, linewidth=1.8, marker="o", markersize=3.5)
    ax.plot(x[best], y[best], marker="o", markersize=9, markerfacecolor="none", markeredgecolor=theme.wrong, markeredgewidth=2)
    title = f"Validation mIoU in percent (best: {y[best]:.1f} at step {x[best]:.0f})"
    ax.set_title(title, color=theme.ink, fontsize=10, loc="left")


def _curve(rows: Sequence[Mapping[str, Any]], *, x: str, y: str) -> list[tuple[float, float]]:
    points = [(_number(row.get(x)), _number(row.get(y))) for row in rows]
    return sorted((a, b) for a, b in points if math.isfinite(a) and math.isfinite(b))


def _number(value: object) -> float:
    """NaN where a cell is empty or missing."""
    return float(value) if isinstance(value, int | float) or (isinstance(value, str) and value.strip()) else math.nan


def _label(name: str, *, value: int, lines: int) -> str:
    """A class name in so many lines; `class 7` where no installed font can draw it (the page's table has both)."""
    if not all(ord(character) in _characters() for character in name):
        return f"class {value}"
    return textwrap.fill(name, NAME_CHARS, max_lines=lines, placeholder=" …") or name


def _families() -> list[str]:
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *[font for font in FONTS if font in installed][:1]]


@functools.cache
def _characters() -> frozenset[int]:
    """Code points that the fonts of `_families` can draw."""
    paths = [font_manager.findfont(family) for family in _families()]
    return frozenset(point for path in paths for point in font_manager.get_font(path).get_charmap())


def short_count(count: int) -> str:
    """A count in four or five characters: 873, 12.4k, 3.1M."""
    for size, letter in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:.1f}{letter}" if count < 100 * size else f"{count / size:.0f}{letter}"
    return str(count)
