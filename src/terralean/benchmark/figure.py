"""The paper's scatter figure, of this machine: accuracy against images a second, the area of a marker being its parameters.

Drawn as SVG by hand: it takes light or dark from who looks at it, and its words stay words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from terralean.benchmark.accuracy import Accuracy
from terralean.benchmark.config import BenchmarkConfig, Size
from terralean.benchmark.machine import threads
from terralean.benchmark.published import IMAGENET, OURS, TABLE_3, TABLE_4
from terralean.benchmark.run import Report, Row
from terralean.errors import ConfigError, OutputFailed

WIDTH, HEIGHT = 960, 640  # px
LEFT, RIGHT, TOP, BOTTOM = 72, 28, 104, 112  # margins of the plot, px
PX_PER_ROOT_MILLION = 2.6  # radius of a marker: its area is in proportion to the parameters
LEAST_RADIUS_PX = 3.0
LETTER_PX, STRONG_LETTER_PX, LINE_PX = 7.2, 8.2, 15  # of a label: upper bounds of a letter's mean width, height of a line
GAP_PX = 4  # between a marker and its label
LEADER_PX = 12  # a label farther from its marker than this gets a line to it
RINGS, SPOKES = 60, 16  # places tried for a label
LEGEND_M = (10, 50, 100)  # parameters
NOTE_LETTERS = 138  # that fit in a line below the plot
NICE = ((1, 2, 3, 5, 7), (1, 2, 5), (1,))  # digits of ticks on a logarithmic axis: the first that are not too many
MOST_TICKS = 9
STYLE = """
svg { --ink: #1c2126; --soft: #5b6570; --line: #e3e6ea; --paper: #ffffff; --ours: #c2500a; --theirs: #1f6fae; }
@media (prefers-color-scheme: dark) {
  svg { --ink: #e8eaed; --soft: #a2abb5; --line: #30363d; --paper: #14181c; --ours: #ff9d57; --theirs: #6cb6f0; }
}
text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: var(--ink); }
.title { font-size: 17px; font-weight: 600; } .soft { fill: var(--soft); font-size: 12px; } .strong { font-weight: 600; }
.grid { stroke: var(--line); } .axis { stroke: var(--soft); } .leader { stroke: var(--soft); stroke-width: 0.8; }
.paper { fill: var(--paper); } .ours { color: var(--ours); } .theirs { color: var(--theirs); }
.family { fill: none; stroke: currentColor; stroke-opacity: 0.35; stroke-width: 1.4; }
.spread { stroke: currentColor; stroke-width: 1.6; }
.filled { fill: currentColor; fill-opacity: 0.62; stroke: currentColor; stroke-width: 1.2; }
.hollow { fill: var(--paper); fill-opacity: 0.55; stroke: currentColor; stroke-width: 1.8; stroke-dasharray: 4 2.5; }
"""


class Point(NamedTuple):
    """One model of the figure."""

    model: str
    label: str
    images_per_s: tuple[float, float, float]  # lower quartile, median, upper quartile
    accuracy: Accuracy
    parameters_m: float
    how: str  # mode and precision of its fastest row


class Disc(NamedTuple):
    """A marker on the page, px."""

    x: float
    y: float
    radius: float


class Box(NamedTuple):
    """A label on the page, px."""

    left: float
    top: float
    right: float
    bottom: float


class Frame(NamedTuple):
    """From images a second and percent to places on the page; and the axes' ticks."""

    x: Callable[[float], float]
    y: Callable[[float], float]
    x_ticks: tuple[float, ...]
    y_ticks: tuple[float, ...]


def check_figure(config: BenchmarkConfig, path: Path) -> None:
    """Raise ConfigError for a file that is no SVG, and for a run whose rows are not of one kind."""
    if path.suffix.lower() != ".svg":
        raise ConfigError(f"a figure is written as SVG; name it {path.with_suffix('.svg').name} rather than {path.name}")
    if len(config.workloads) > 1:
        raise ConfigError("a figure shows one size and one batch; give one of each, or leave --figure out")


def points(report: Report, accuracies: Mapping[str, Accuracy]) -> list[Point]:
    """The fastest row of each model that has an accuracy."""
    return [_point(row, accuracies[row.model]) for row in report.rows if row.best and row.model in accuracies]


def draw(report: Report, accuracies: Mapping[str, Accuracy]) -> str:
    """An SVG document. Raises OutputFailed where there is nothing to show."""
    shown = points(report, accuracies)
    if not shown:
        raise OutputFailed("there is no figure: no model that was measured has an accuracy; give one with --accuracy")
    frame = _frame(shown)
    discs = {point.model: _disc(point, frame) for point in shown}
    parts = [
        *_head(report),
        *_axes(frame),
        *_families(shown, discs),
        *(mark for point in sorted(shown, key=lambda p: -p.parameters_m) for mark in _marker(point, discs[point.model], frame)),
        *_labels(shown, discs, frame),
        *_legend(shown),
        *_notes(report, shown),
    ]
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    start = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="accuracy against images a second">'
    return "\n".join([start, f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def place_labels(discs: Sequence[Disc], widths: Sequence[float], *, taken: Sequence[Box] = ()) -> list[Box]:
    """A box for each disc, near it, within the plot, on no other box, no disc and nothing taken, as far as there is room."""
    placed: list[Box] = []
    for disc, width in zip(discs, widths, strict=True):
        free = (box for box in _places(disc, width) if _inside(box) and not _hits(box, [*placed, *taken], discs))
        placed.append(next(free, None) or next(box for box in _places(disc, width)))
    return placed


def _point(row: Row, accuracy: Accuracy) -> Point:
    names = {model: name for table in (TABLE_4, TABLE_3) for name, (model, _) in table.items() if model is not None}
    speed = (row.images_per_s_low or 0.0, row.images_per_s or 0.0, row.images_per_s_high or 0.0)
    size = (row.parameters or 0) / 1e6
    return Point(row.model, names.get(row.model, row.model), speed, accuracy, size, f"{row.mode} {row.precision}")


def _disc(point: Point, frame: Frame) -> Disc:
    radius = max(LEAST_RADIUS_PX, PX_PER_ROOT_MILLION * math.sqrt(point.parameters_m))
    return Disc(frame.x(point.images_per_s[1]), frame.y(point.accuracy.percent), radius)


# Axes


def _frame(shown: Sequence[Point]) -> Frame:
    speeds = [speed for point in shown for speed in point.images_per_s if speed > 0]
    percents = [point.accuracy.percent for point in shown]
    low, high = math.log(min(speeds) / 1.25), math.log(max(speeds) * 1.25)
    spare = max(0.1 * (max(percents) - min(percents)), 0.5)
    bottom, top = min(percents) - spare, max(percents) + spare
    across, up = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    return Frame(
        x=lambda speed: LEFT + across * (math.log(max(speed, 1e-9)) - low) / (high - low),
        y=lambda percent: HEIGHT - BOTTOM - up * (percent - bottom) / (top - bottom),
        x_ticks=_log_ticks(math.exp(low), math.exp(high)),
        y_ticks=_linear_ticks(bottom, top),
    )


def _log_ticks(low: float, high: float) -> tuple[float, ...]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    kinds = [[times * 10.0**power for power in powers for times in digits] for digits in NICE]
    within = [tuple(tick for tick in ticks if low <= tick <= high) for ticks in kinds]
    found = next((ticks for ticks in within if len(ticks) <= MOST_TICKS), within[-1])
    return found if len(found) > 2 else _linear_ticks(low, high)  # noqa: PLR2004 - two ticks do not show a scale


def _linear_ticks(low: float, high: float) -> tuple[float, ...]:
    power = 10.0 ** math.floor(math.log10(high - low))
    step = next(s for s in (times * power / 10 for times in (1, 2, 5, 10)) if (high - low) / s <= MOST_TICKS)
    return tuple(round(i * step, 9) for i in range(math.ceil(low / step), math.floor(high / step) + 1))


def _axes(frame: Frame) -> Iterator[str]:
    foot = HEIGHT - BOTTOM
    for tick in frame.y_ticks:
        y = frame.y(tick)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="soft" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
    for tick in frame.x_ticks:
        x = frame.x(tick)
        yield f'<line class="grid" y1="{TOP}" y2="{foot}" x1="{x:.1f}" x2="{x:.1f}"/>'
        yield f'<text class="soft" x="{x:.1f}" y="{foot + 18}" text-anchor="middle">{tick:g}</text>'
    yield f'<path class="axis" fill="none" d="M{LEFT} {TOP} V{foot} H{WIDTH - RIGHT}"/>'
    middle = (TOP + foot) / 2
    yield f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{foot + 38}" text-anchor="middle">images a second (logarithmic)</text>'
    yield f'<text x="20" y="{middle}" text-anchor="middle" transform="rotate(-90 20 {middle})">top-1 accuracy, %</text>'


# Markers


def _families(shown: Sequence[Point], discs: Mapping[str, Disc]) -> Iterator[str]:
    """A line through models of one family, from the fastest to the slowest."""
    families: dict[str, list[Disc]] = {}
    for point in shown:
        families.setdefault(point.model.partition("_")[0], []).append(discs[point.model])
    for name, members in families.items():
        if len(members) > 1:
            path = " ".join(f"{disc.x:.1f},{disc.y:.1f}" for disc in sorted(members))
            yield f'<polyline class="family {_side(name)}" points="{path}"/>'


def _spread(point: Point, frame: Frame) -> Box:
    """What the line of the quartiles takes."""
    low, _, high = point.images_per_s
    y = frame.y(point.accuracy.percent)
    return Box(frame.x(low), y - 1, frame.x(high), y + 1)


def _marker(point: Point, disc: Disc, frame: Frame) -> Iterator[str]:
    low, median, high = point.images_per_s
    look = "hollow" if point.accuracy.published else "filled"
    words = (
        f"{point.model}: {median:.1f} images/s ({low:.1f} .. {high:.1f}), {point.how}; {point.accuracy.percent:g} % "
        f"({point.accuracy.source}); {point.parameters_m:.2f} M parameters"
    )
    yield f'<g class="{_side(point.model)}"><title>{escape(words)}</title>'
    yield f'<circle class="{look}" cx="{disc.x:.1f}" cy="{disc.y:.1f}" r="{disc.radius:.1f}"/>'
    yield f'<line class="spread" x1="{frame.x(low):.1f}" x2="{frame.x(high):.1f}" y1="{disc.y:.1f}" y2="{disc.y:.1f}"/></g>'


def _side(model: str) -> str:
    return "ours" if model in OURS or model == OURS[0].partition("_")[0] else "theirs"


# Labels


def _labels(shown: Sequence[Point], discs: Mapping[str, Disc], frame: Frame) -> Iterator[str]:
    own = [discs[point.model] for point in shown]
    widths = [(STRONG_LETTER_PX if _side(p.model) == "ours" else LETTER_PX) * len(p.label) for p in shown]
    boxes = place_labels(own, widths, taken=[_spread(point, frame) for point in shown])
    for point, disc, box in zip(shown, own, boxes, strict=True):
        x, y = min(max(disc.x, box.left), box.right), min(max(disc.y, box.top), box.bottom)
        away = math.hypot(x - disc.x, y - disc.y)
        if away - disc.radius > LEADER_PX:
            edge = disc.radius / away
            start = f'x1="{disc.x + edge * (x - disc.x):.1f}" y1="{disc.y + edge * (y - disc.y):.1f}"'
            yield f'<line class="leader" {start} x2="{x:.1f}" y2="{y:.1f}"/>'
        strong = ' class="strong"' if _side(point.model) == "ours" else ""
        middle = (box.left + box.right) / 2
        yield f'<text{strong} x="{middle:.1f}" y="{box.bottom - 3:.1f}" text-anchor="middle">{escape(point.label)}</text>'


def _places(disc: Disc, width: float) -> Iterator[Box]:
    """Boxes around a disc, near ones first: to the right, to the left, above, below, then between."""
    turns = sorted(range(SPOKES), key=lambda turn: (turn % (SPOKES // 4) != 0, turn % (SPOKES // 2) != 0, turn))
    for ring in range(RINGS):
        away = disc.radius + GAP_PX + 4 * ring
        for turn in turns:
            across, up = math.cos(2 * math.pi * turn / SPOKES), math.sin(2 * math.pi * turn / SPOKES)
            middle = disc.x + across * (away + width / 2), disc.y - up * (away + LINE_PX / 2)
            yield Box(middle[0] - width / 2, middle[1] - LINE_PX / 2, middle[0] + width / 2, middle[1] + LINE_PX / 2)


def _inside(box: Box) -> bool:
    return box.left > LEFT and box.right < WIDTH - RIGHT / 2 and box.top > TOP and box.bottom < HEIGHT - BOTTOM


def _hits(box: Box, placed: Iterable[Box], discs: Iterable[Disc]) -> bool:
    return any(_overlap(box, other) for other in placed) or any(_touches(box, disc) for disc in discs)


def _overlap(one: Box, other: Box) -> bool:
    across = one.left < other.right and other.left < one.right
    return across and one.top < other.bottom and other.top < one.bottom


def _touches(box: Box, disc: Disc) -> bool:
    x, y = min(max(disc.x, box.left), box.right), min(max(disc.y, box.top), box.bottom)
    return math.hypot(x - disc.x, y - disc.y) < disc.radius


# Words around the plot


def _head(report: Report) -> Iterator[str]:
    row, machine = report.rows[0], report.machine
    size = Size(row.height_px, row.width_px)
    where = f"{machine.device}, {threads(machine)}, batches of {row.batch} x {size} px, each model at its fastest"
    yield f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>'
    yield f'<text class="title" x="{LEFT}" y="32">Accuracy against {row.work} speed</text>'
    yield f'<text class="soft" x="{LEFT}" y="52">{escape(where)}</text>'


def _legend(shown: Sequence[Point]) -> Iterator[str]:
    """What colours, rims and areas mean, in a row above the plot."""
    x, y = LEFT, 80
    for side, look, words in _kinds(shown):
        yield f'<g class="{side}"><circle class="{look}" cx="{x + 7}" cy="{y - 4}" r="7"/></g>'
        yield f'<text class="soft" x="{x + 20}" y="{y}">{words}</text>'
        x += 34 + round(6.4 * len(words))
    x = WIDTH - RIGHT - 250
    yield f'<text class="soft" x="{x}" y="{y}">parameters</text>'
    for millions, at in zip(LEGEND_M, (x + 88, x + 136, x + 200), strict=True):
        radius = PX_PER_ROOT_MILLION * math.sqrt(millions)
        yield f'<circle class="axis" fill="none" cx="{at}" cy="{y - 4}" r="{radius:.1f}"/>'
        yield f'<text class="soft" x="{at}" y="{y}" text-anchor="middle">{millions}</text>'
    yield f'<text class="soft" x="{WIDTH - RIGHT - 18}" y="{y}">M</text>'


def _kinds(shown: Sequence[Point]) -> Iterator[tuple[str, str, str]]:
    sides = {_side(point.model) for point in shown}
    published = {point.accuracy.published for point in shown}
    usual = "filled" if False in published else "hollow"
    for side, words in (("ours", "LeMeViT"), ("theirs", "others")):
        if side in sides:
            yield side, usual, words
    if len(published) > 1:
        yield "theirs", "hollow", "accuracy published, not measured"


def _notes(report: Report, shown: Sequence[Point]) -> Iterator[str]:
    sources = dict.fromkeys(point.accuracy.source for point in shown if point.accuracy.published)
    notes = [f"Accuracy of dashed markers: {'; '.join(sources)} (Jiang et al. 2024)."] if sources else []
    row = report.rows[0]
    if sources and (row.height_px, row.width_px) != (IMAGENET.size_px,) * 2:
        notes.append(
            f"Speeds are of images of {Size(row.height_px, row.width_px)} px, at which those accuracies were not measured."
        )
    missing = dict.fromkeys(row.model for row in report.rows if row.model not in {point.model for point in shown})
    if missing:
        notes.append(f"Not shown, for want of an accuracy or of a measurement: {', '.join(missing)}.")
    notes.append("Lines through markers: quartiles of images a second.")
    for index, line in enumerate(_wrapped(" ".join(notes))):
        yield f'<text class="soft" x="{LEFT}" y="{HEIGHT - BOTTOM + 62 + 15 * index}">{escape(line)}</text>'


def _wrapped(text: str) -> list[str]:
    """Three lines at most; more ends in an ellipsis."""
    lines = [""]
    for word in text.split():
        lines = [*lines, word] if len(lines[-1]) + len(word) >= NOTE_LETTERS else [*lines[:-1], f"{lines[-1]} {word}".strip()]
    return lines if len(lines) <= 3 else [*lines[:2], f"{lines[2]} ..."]  # noqa: PLR2004 - that fit below the plot
