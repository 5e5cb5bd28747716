"""The page an analyst reads after an evaluation: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from terralean.errors import SizeError
from terralean.evaluate.figures import ERROR_RGB, UNMAPPED_RGB, Picture
from terralean.evaluate.intervals import Interval, Intervals
from terralean.evaluate.metrics import Scores
from terralean.spec import Classes

TEMPLATE = Path(__file__).with_name("report.html.j2")
MAX_BYTES = 3_000_000  # of the page: it goes by mail
NOTHING = "\N{EN DASH}"
SPACE = "\N{NARROW NO-BREAK SPACE}"

# What is shown of each overall score: its short and its full name, and what it says in words an analyst uses.
OVERALL = {
    "oa": ("OA", "Overall accuracy", "Share of the labelled test pixels whose class is right."),
    "miou": ("mIoU", "Mean IoU", "How well mapped and true areas overlap, averaged over classes. Small classes count fully."),
    "mf1": ("mF1", "Mean F1", "Balance of false alarms and misses, averaged over classes."),
    "aa": ("AA", "Average accuracy", "Share of each class that was found, averaged over classes."),
    "kappa": ("kappa", "Cohen's kappa", "Agreement beyond what chance would give: 0 is chance, 1 is perfect."),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What the model costs; None where it was not measured."""

    parameters: int
    macs: float | None = None  # multiply-adds for one window of `window_px`
    window_px: int | None = None
    images_per_s: float | None = None  # windows of `window_px` predicted in a second
    training_minutes: float | None = None
    peak_memory_bytes: int | None = None
    device: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """A simple method scored on the same pixels."""

    name: str
    explanation: str  # one line
    scores: Scores


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """The pictures of a page, None where there is none."""

    image: Picture | None = None
    reference: Picture | None = None
    map: Picture | None = None
    errors: Picture | None = None
    bars: Picture | None = None
    confusion: Picture | None = None
    curves: Picture | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Everything the page shows. Text is shown as it is: nothing in it can become markup."""

    title: str
    about: tuple[tuple[str, str], ...]  # what was evaluated on what: (("Model", "lemevit_tiny"), ...)
    date: str
    verdict: tuple[str, ...]  # sentences, the first one large
    classes: Classes
    scores: Scores
    intervals: Intervals | None
    intervals_note: str
    leaks: bool | None  # whether training saw test pixels; None where that could not be checked
    leakage: str  # one sentence
    leakage_findings: tuple[str, ...]
    baselines: tuple[Baseline, ...]
    cost: Cost
    figures: Figures
    recipe: str  # YAML
    versions: tuple[tuple[str, str], ...]
    commands: tuple[str, ...]


def render(report: Report) -> str:
    """The page as one HTML document without a reference to anything outside it; SizeError beyond 3 MB."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": percent, "data_uri": _data_uri, "glued": _glued}
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        report=report,
        tiles=_tiles(report),
        rows=_class_rows(report),
        rivals=_rival_rows(report),
        costs=_cost_rows(report.cost),
        unmapped=_unmapped_sentence(report.scores),
        absent=_absent_sentence(report),
        error_rgb=ERROR_RGB,
        unmapped_rgb=UNMAPPED_RGB,
    )
    size = len(page.encode())
    if size > MAX_BYTES:
        raise SizeError(f"the report is {size / 1e6:.1f} MB, at most {MAX_BYTES / 1e6:.0f}: {_largest(report.figures)}")
    return page


def verdict(
    scores: Scores, *, intervals: Intervals | None, names: Sequence[str], baselines: Mapping[str, Scores]
) -> tuple[str, ...]:
    """What the scores say, in sentences: how right the map is, whether that beats the baselines, and where it is weak."""
    known = "" if intervals is None or intervals.oa is None else f" (95 % interval {_range(intervals.oa)})"
    first = f"The map is right for {percent(scores.oa)} of the labelled test pixels{known}."
    return tuple(sentence for sentence in (first, _against(scores, intervals, baselines), _weakest(scores, names)) if sentence)


def percent(share: float, digits: int = 1) -> str:
    """A share in percent, a dash where it has no meaning. Never 100.0 % unless it is exactly that."""
    if math.isnan(share):
        return NOTHING
    text = f"{100 * share:.{digits}f}"
    if share < 1 and float(text) == 100:  # noqa: PLR2004 - rounding must not hide the last errors
        text = f"{100 - 10**-digits:.{digits}f}"
    return f"{text}{SPACE}%"


def _against(scores: Scores, intervals: Intervals | None, baselines: Mapping[str, Scores]) -> str:
    if not baselines or math.isnan(scores.miou):
        return ""
    name, best = max(baselines.items(), key=lambda item: item[1].miou)
    points = 100 * (scores.miou - best.miou)
    lead = f"Its mean IoU of {percent(scores.miou)} is {abs(points):.1f} points {'above' if points >= 0 else 'below'} "
    lead += f"the best baseline ({name}: {percent(best.miou)})"
    known = None if intervals is None else intervals.miou
    if known is not None and known.low <= best.miou <= known.high:
        return f"{lead}, which lies inside the interval, so the difference is not certain."
    return f"{lead}." if points >= 0 else f"{lead}: the simple method is the better choice here."


def _weakest(scores: Scores, names: Sequence[str]) -> str:
    found = [(iou, name) for iou, name, n in zip(scores.iou, names, scores.support, strict=True) if n and not math.isnan(iou)]
    if len(found) < 2:  # noqa: PLR2004 - of one class none is the weakest
        return ""
    iou, name = min(found)
    return f"Weakest class: {name} (IoU {percent(iou)})."


def _tiles(report: Report) -> list[dict[str, object]]:
    tiles: list[dict[str, object]] = []
    for key, (short, name, explanation) in OVERALL.items():
        value = getattr(report.scores, key)
        found = None if report.intervals is None else getattr(report.intervals, key)
        plain = key == "kappa"
        tiles.append(
            {
                "short": short,
                "name": name,
                "explanation": explanation,
                "value": _plain(value) if plain else percent(value),
                "range": "" if found is None else _range(found, plain=plain),
                "bar": None if math.isnan(value) else _bar(value, found),
            }
        )
    return tiles


def _bar(value: float, interval: Interval | None) -> dict[str, float]:
    """Places on a track from 0 to 100, for the style sheet."""
    low, high = (value, value) if interval is None else (interval.low, interval.high)
    low, high, value = (100 * min(1.0, max(0.0, x)) for x in (low, high, value))
    return {"low": round(low, 2), "width": round(high - low, 2), "value": round(value, 2)}


def _class_rows(report: Report) -> list[dict[str, object]]:
    scores, found = report.scores, report.intervals
    total = sum(scores.support)
    rows: list[dict[str, object]] = []
    for i, (name, colour) in enumerate(zip(report.classes.names, report.classes.colours, strict=True)):
        known = None if found is None else found.iou[i]
        rows.append(
            {
                "name": name,
                "value": i,
                "colour": colour,
                "iou": percent(scores.iou[i]),
                "range": "" if known is None else _range(known),
                "f1": percent(scores.f1[i]),
                "precision": percent(scores.precision[i]),
                "recall": percent(scores.recall[i]),
                "support": _spaced(scores.support[i]),
                "share": percent(scores.support[i] / total) if total else NOTHING,
            }
        )
    return rows


def _rival_rows(report: Report) -> list[dict[str, object]]:
    own: dict[str, object] = {"name": "This map", "explanation": "", "scores": report.scores, "own": True}
    rivals: list[dict[str, object]] = [
        {"name": rival.name, "explanation": rival.explanation, "scores": rival.scores, "own": False}
        for rival in report.baselines
    ]
    return [own, *rivals]


def _cost_rows(cost: Cost) -> list[tuple[str, str, str]]:
    """Name, value, what it means; only what was measured."""
    window = "one window" if cost.window_px is None else f"a window of {cost.window_px} x {cost.window_px} px"
    where = "" if cost.device is None else f" on {cost.device}"
    rows = [("Parameters", _scaled(cost.parameters), "Numbers the model has learned; they set the size of its file.")]
    if cost.macs is not None:
        rows.append(("Multiply-adds", _scaled(cost.macs), f"Arithmetic for {window} (MACs)."))
    if cost.images_per_s is not None:
        rows.append(("Speed", f"{cost.images_per_s:.3g} windows/s", f"How often {window} is predicted in a second{where}."))
    if cost.training_minutes is not None:
        rows.append(("Training", _duration(cost.training_minutes), f"Wall-clock time{where}."))
    if cost.peak_memory_bytes is not None:
        rows.append(("Peak memory", f"{cost.peak_memory_bytes / 2**30:.2f} GiB", f"The most memory held at once{where}."))
    return rows


def _unmapped_sentence(scores: Scores) -> str:
    count, total = sum(scores.unmapped), sum(scores.support)
    if not count:
        return ""
    return f"{_spaced(count)} labelled pixels ({percent(count / total, 2)}) have no class in the map; each counts as an error."


def _absent_sentence(report: Report) -> str:
    scores = report.scores
    names = [name for name, iou in zip(report.classes.names, scores.iou, strict=True) if math.isnan(iou)]
    unseen = [
        name
        for name, support, iou in zip(report.classes.names, scores.support, scores.iou, strict=True)
        if not support and not math.isnan(iou)
    ]
    parts = []
    if names:
        parts.append(f"Neither in the reference nor in the map, so left out of the means: {', '.join(names)}.")
    if unseen:
        parts.append(f"Mapped but not in the reference, so IoU and F1 are 0 and count in the means: {', '.join(unseen)}.")
    return " ".join(parts)


def _largest(figures: Figures) -> str:
    sizes = {name: len(p.light) + len(p.dark or b"") for name in Figures.__slots__ if (p := getattr(figures, name)) is not None}
    if not sizes:
        return "shorten the recipe text"
    name = max(sizes, key=sizes.__getitem__)
    return f"the figure {name!r} alone has {sizes[name] / 1e6:.1f} MB, draw it smaller"


def _range(interval: Interval, *, plain: bool = False) -> str:
    if plain:
        return f"{_plain(interval.low)} to {_plain(interval.high)}"
    return f"{percent(interval.low).removesuffix(f'{SPACE}%')} to {percent(interval.high)}"


def _plain(value: float) -> str:
    return NOTHING if math.isnan(value) else f"{value:.3f}"


def _spaced(count: int) -> str:
    return f"{count:,}".replace(",", SPACE)


def _scaled(count: float) -> str:
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if count >= size:
            return f"{count / size:.3g} {word}"
    return _spaced(round(count))


def _duration(minutes: float) -> str:
    if minutes < 1:
        return f"{60 * minutes:.0f} s"
    hours, rest = divmod(round(minutes), 60)
    return f"{hours} h {rest} min" if hours else f"{minutes:.3g} min"


def _glued(text: str) -> str:
    """No line break between a number and its percent sign."""
    return text.replace(" %", f"{SPACE}%")


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
