"""The page an analyst reads after an evaluation: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from numpy.typing import NDArray

from terralean.errors import SizeError
from terralean.evaluate.compare import Comparison, Difference, points, span
from terralean.evaluate.figures import ERROR_RGB, UNMAPPED_RGB, Chart, Picture
from terralean.evaluate.intervals import Interval, Intervals
from terralean.evaluate.metrics import Scores
from terralean.spec import Classes

TEMPLATE, STYLE = Path(__file__).with_name("report.html.j2"), Path(__file__).with_name("report.css")
MAX_BYTES = 3_000_000  # of the page: it goes by mail
NOTHING = "\N{EN DASH}"
SPACE = "\N{NARROW NO-BREAK SPACE}"
NUMBERS_UP_TO = 20  # classes; beyond, a matrix with numbers is too large to read
CONFUSIONS = 6  # the largest are listed
SHORT_NAME = 9  # letters of a word that fits above a column of the matrix
AXES = (1, 2, 5, 10, 20, 50, 100)  # points to either side of the axis of differences

# What is shown of each overall score: its short and its full name, and what it says in words an analyst uses.
OVERALL = {
    "oa": ("OA", "Overall accuracy", "Share of the labelled test pixels whose class is right."),
    "miou": ("mIoU", "Mean IoU", "Overlap of mapped and true areas, averaged over classes. Small classes count fully."),
    "mf1": ("mF1", "Mean F1", "Balance of false alarms and misses, averaged over classes."),
    "aa": ("AA", "Average accuracy", "Share of each class that was found, averaged over classes."),
    "kappa": ("kappa", "Cohen's kappa", "Agreement beyond chance: 0 is chance, 1 is perfect."),
}
COMPARED = ("miou", "oa", "mf1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a model costs; None where it was not measured."""

    parameters: int  # 0 of a forest, which has nodes
    nodes: int | None = None
    macs: float | None = None  # multiply-adds for one window of `window_px`
    window_px: int | None = None
    images_per_s: float | None = None  # windows of `window_px` predicted in a second
    training_minutes: float | None = None
    peak_memory_bytes: int | None = None
    device: str | None = None  # that predicted


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """A simple method scored on the same ground."""

    name: str
    explanation: str  # one line
    scores: Scores
    comparison: Comparison  # the map minus this


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """Another run scored on the same pixels."""

    name: str
    model: str
    scores: Scores
    intervals: Intervals | None
    cost: Cost
    comparison: Comparison  # the map minus this
    verdict: str
    leaks: bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedScores:
    """One of several trainings."""

    seed: int
    scores: Scores
    intervals: Intervals | None
    training_minutes: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """The pictures of a page, None where there is none."""

    image: Picture | None = None
    reference: Picture | None = None
    map: Picture | None = None
    errors: Picture | None = None
    matrix: Picture | None = None  # in place of a table of numbers, where there are many classes
    losses: Chart | None = None
    validation: Chart | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Everything the page shows. Text is shown as it is: nothing in it can become markup."""

    title: str
    about: tuple[tuple[str, str], ...]  # what was evaluated on what: (("Model", "lemevit_tiny"), ...)
    date: str
    verdict: tuple[str, ...]  # sentences, the first one large
    classes: Classes
    scores: Scores  # means over the seeds where there are several
    spread: Scores | None  # standard deviation between seeds
    intervals: Intervals | None
    intervals_note: str
    counts: NDArray[np.int64]  # (K, K + 1): rows are the reference, the last column has no class in the map
    leaks: bool | None  # whether training saw test pixels; None where that could not be checked
    leakage: str  # one sentence
    baselines: tuple[Baseline, ...]
    peers: tuple[Peer, ...]
    seeds: tuple[SeedScores, ...]  # empty for a single run
    shown_seed: int | None  # whose map is drawn, where there are several
    cost: Cost
    figures: Figures
    facts: tuple[tuple[str, str], ...]  # what fixes the result: data, split, seed
    recipe: str  # YAML
    versions: tuple[tuple[str, str], ...]
    commands: tuple[str, ...]
    citation: tuple[str, ...]


def render(report: Report) -> str:
    """The page as one HTML document that loads nothing; SizeError beyond 3 MB."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": percent, "number": number, "data_uri": _data_uri, "glued": _glued, "spaced": spaced}
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        report=report,
        style=STYLE.read_text(encoding="utf-8"),
        rows=_score_rows(report),
        own=_own_row(report),
        seeds=_seed_rows(report),
        devices=_devices_sentence(report),
        classes=_class_rows(report),
        peers=_peer_rows(report),
        axis=_axis(report.peers),
        rivals=_rival_rows(report),
        matrix=_matrix(report),
        long_names=max(len(word) for name in report.classes.names for word in name.split() or [name]) > SHORT_NAME,
        confusions=_confusions(report),
        costs=_cost_rows(report.cost, trainings=len(report.seeds) or 1),
        unmapped=_unmapped_sentence(report.scores),
        absent=_absent_sentence(report),
        error_rgb=ERROR_RGB,
        unmapped_rgb=UNMAPPED_RGB,
    )
    size = len(page.encode())
    if size > MAX_BYTES:
        raise SizeError(f"the report is {size / 1e6:.1f} MB, at most {MAX_BYTES / 1e6:.0f}: {_largest(report.figures)}")
    return page


# Numbers in words.


def percent(share: float, digits: int = 1) -> str:
    """A share in percent, a dash where it has no meaning. Never 100.0 % unless it is exactly that."""
    text = number(share, digits)
    return text if text == NOTHING else f"{text}{SPACE}%"


def number(share: float, digits: int = 1) -> str:
    """`percent` without its sign, for tables."""
    if math.isnan(share):
        return NOTHING
    text = f"{100 * share:.{digits}f}"
    if share < 1 and float(text) == 100:  # noqa: PLR2004 - rounding must not hide the last errors
        return f"{100 - 10**-digits:.{digits}f}"
    return text


def bounds(interval: Interval | None, *, plain: bool = False) -> str:
    """Both ends in percent without the sign, or as they are; nothing where there is no interval."""
    if interval is None:
        return ""
    low, high = (_plain(end) if plain else number(end) for end in (interval.low, interval.high))
    return f"{low} to {high}"


def _plain(value: float) -> str:
    return NOTHING if math.isnan(value) else f"{value:.3f}"


def spaced(count: int) -> str:
    """A count in groups of three digits."""
    return f"{count:,}".replace(",", SPACE)


def _scaled(count: float) -> str:
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if count >= size:
            return f"{count / size:.3g} {word}"
    return spaced(round(count))


def _duration(minutes: float) -> str:
    if minutes < 1:
        return f"{60 * minutes:.0f} s"
    hours, rest = divmod(round(minutes), 60)
    return f"{hours} h {rest} min" if hours else f"{minutes:.3g} min"


def _glued(text: str) -> str:
    """No line break between a number and its percent sign."""
    return text.replace(" %", f"{SPACE}%")


# Rows of the page.


def _score_rows(report: Report) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    best = max((b for b in report.baselines if not math.isnan(b.scores.miou)), key=lambda b: b.scores.miou, default=None)
    for key, (short, name, explanation) in OVERALL.items():
        value, plain = getattr(report.scores, key), key == "kappa"
        found = None if report.intervals is None else getattr(report.intervals, key)
        spread = math.nan if report.spread is None else getattr(report.spread, key)
        rows.append(
            {
                "short": short,
                "name": name,
                "explanation": explanation,
                "value": _plain(value) if plain else percent(value),
                "range": bounds(found, plain=plain) + ("" if plain or found is None else f"{SPACE}%"),
                "spread": "" if math.isnan(spread) else (_plain(spread) if plain else f"{100 * spread:.1f}"),
                "bar": None if math.isnan(value) else _bar(value, found),
                "dots": _places(getattr(seed.scores, key) for seed in report.seeds),
                "rival": _places(() if best is None else (getattr(best.scores, key),)),
            }
        )
    return rows


def _bar(value: float, interval: Interval | None) -> dict[str, float]:
    """Places on a track from 0 to 100, for the style sheet."""
    low, high = (value, value) if interval is None else (interval.low, interval.high)
    low, high, value = (100 * min(1.0, max(0.0, x)) for x in (low, high, value))
    return {"low": round(low, 2), "width": round(high - low, 2), "value": round(value, 2)}


def _places(values: Iterable[float]) -> list[float]:
    return [round(100 * min(1.0, max(0.0, value)), 2) for value in values if not math.isnan(value)]


def _class_rows(report: Report) -> list[dict[str, object]]:
    scores, found = report.scores, report.intervals
    total = sum(scores.support)
    rows: list[dict[str, object]] = []
    for i, (name, colour) in enumerate(zip(report.classes.names, report.classes.colours, strict=True)):
        known = None if found is None else found.iou[i]
        spread = math.nan if report.spread is None else report.spread.iou[i]
        rows.append(
            {
                "name": name,
                "value": i,
                "colour": colour,
                "iou": number(scores.iou[i]),
                "range": bounds(known),
                "spread": "" if math.isnan(spread) else f"{100 * spread:.1f}",
                "bar": None if math.isnan(scores.iou[i]) else _bar(scores.iou[i], known),
                "rivals": [next(iter(_places((rival.scores.iou[i],))), None) for rival in report.baselines],
                "f1": number(scores.f1[i]),
                "precision": number(scores.precision[i]),
                "recall": number(scores.recall[i]),
                "support": spaced(scores.support[i]),
                "share": percent(scores.support[i] / total) if total else NOTHING,
            }
        )
    return rows


def _rival_rows(report: Report) -> list[dict[str, object]]:
    return [
        {
            "name": rival.name,
            "explanation": rival.explanation,
            "scores": rival.scores,
            "difference": points(rival.comparison.miou.value, signed=True),
            "range": "" if rival.comparison.miou.interval is None else span(rival.comparison.miou.interval),
        }
        for rival in report.baselines
    ]


def _peer_rows(report: Report) -> list[dict[str, object]]:
    axis = _axis(report.peers)
    return [
        {
            "peer": peer,
            "miou": "" if peer.intervals is None else bounds(peer.intervals.miou),
            "cost": _cost_cells(peer.cost),
            "differences": [
                {
                    "name": OVERALL[key][1],
                    "value": points(
                        peer.comparison.overall[key].value, signed=True, like=peer.comparison.overall[key].interval
                    ),
                    "range": "" if (known := peer.comparison.overall[key].interval) is None else span(known),
                    "place": _on_axis(peer.comparison.overall[key], axis),
                }
                for key in COMPARED
            ],
            "classes": [
                {
                    "name": name,
                    "mine": number(report.scores.iou[i]),
                    "theirs": number(peer.scores.iou[i]),
                    "value": NOTHING if math.isnan(apart.value) else points(apart.value, signed=True),
                    "range": "" if apart.interval is None else span(apart.interval),
                    "sure": apart.interval is not None and not apart.interval.low <= 0 <= apart.interval.high,
                }
                for i, (name, apart) in enumerate(zip(report.classes.names, peer.comparison.iou, strict=True))
            ],
        }
        for peer in report.peers
    ]


def _own_row(report: Report) -> dict[str, object]:
    miou = "" if report.intervals is None else bounds(report.intervals.miou)
    return {"model": dict(report.about).get("Model", ""), "miou": miou, "cost": _cost_cells(report.cost)}


def _seed_rows(report: Report) -> list[dict[str, object]]:
    return [
        {"seed": seed.seed, "training": _duration(seed.training_minutes)}
        | {key: number(getattr(seed.scores, key)) for key in COMPARED}
        | {f"{key}_range": "" if seed.intervals is None else bounds(getattr(seed.intervals, key)) for key in COMPARED}
        for seed in report.seeds
    ]


def _devices_sentence(report: Report) -> str:
    """Where the speeds that stand beside each other were measured."""
    devices = {cost.device for cost in (report.cost, *(peer.cost for peer in report.peers)) if cost.device is not None}
    if not devices:
        return ""
    told = " and ".join(sorted(devices))
    if len(devices) > 1:
        return f"Speeds were measured on different devices ({told}) and cannot be compared."
    return f"Speeds were measured on {told}, each run at its own time: differences of some percent mean nothing."


def _cost_cells(cost: Cost) -> dict[str, str]:
    """What a run costs in a row of a table."""
    speed = NOTHING if cost.images_per_s is None else f"{cost.images_per_s:.3g}"
    return {
        "parameters": f"{cost.nodes / 1e6:.3g} M nodes" if cost.nodes else f"{cost.parameters / 1e6:.3g} M",
        "macs": NOTHING if cost.macs is None else f"{cost.macs / 1e9:.3g}",
        "window": "" if cost.window_px is None else f"{cost.window_px} px",
        "speed": speed,
        "device": cost.device or "",
        "training": NOTHING if cost.training_minutes is None else _duration(cost.training_minutes),
    }


def _axis(peers: Sequence[Peer]) -> int:
    """Points to either side that hold all differences and their intervals."""
    found = [peer.comparison.overall[key] for peer in peers for key in COMPARED]
    ends = [end for d in found if d.interval is not None for end in (d.interval.low, d.interval.high)]
    most = max((100 * abs(value) for value in (*ends, *(d.value for d in found)) if not math.isnan(value)), default=0)
    return next((axis for axis in AXES if most <= axis), AXES[-1])


def _on_axis(difference: Difference, axis: int) -> dict[str, float] | None:
    """Places from 0 (the other is better by `axis` points) to 100 (this is), for the style sheet."""
    if math.isnan(difference.value):
        return None
    known = difference.interval or Interval(low=difference.value, high=difference.value)
    low, high, value = (round(50 + 50 * 100 * x / axis, 2) for x in (known.low, known.high, difference.value))
    return {"low": low, "width": round(high - low, 2), "value": value}


def _matrix(report: Report) -> list[list[dict[str, object]]] | None:
    """The confusion matrix as cells; None where there are too many classes for numbers."""
    if len(report.classes) > NUMBERS_UP_TO:
        return None
    lost = bool(report.counts[:, -1].any())
    counts = report.counts if lost else report.counts[:, :-1]
    support = counts.sum(axis=1)
    return [
        [_cell(int(count), int(support[i]), right=i == j) for j, count in enumerate(row)]
        for i, row in enumerate(counts.tolist())
    ]


def _cell(count: int, support: int, *, right: bool) -> dict[str, object]:
    share = count / support if support else math.nan
    text = "" if not count else ("<1" if share < 0.005 else f"{100 * share:.0f}")  # noqa: PLR2004 - what would round to 0
    return {
        "text": text,
        "count": short_count(count) if count else "",
        "share": 0 if not count else round(share, 3),
        "right": right,
    }


def _confusions(report: Report) -> list[dict[str, object]]:
    """The largest confusions by pixels."""
    names = [*report.classes.names, "no class"]
    wrong = report.counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(wrong, axis=None, kind="stable")[::-1][:CONFUSIONS]
    pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True) if wrong[i, j]]
    support = report.counts.sum(axis=1)
    return [
        {
            "from": names[i],
            "to": names[j],
            "share": percent(wrong[i, j] / support[i], 0 if wrong[i, j] / support[i] >= 0.1 else 1),  # noqa: PLR2004
            "count": spaced(int(wrong[i, j])),
        }
        for i, j in pairs
    ]


def _cost_rows(cost: Cost, *, trainings: int) -> list[tuple[str, str, str]]:
    """Name, value, what it means; only what was measured."""
    window = "one window" if cost.window_px is None else f"a window of {cost.window_px} x {cost.window_px} px"
    where = "" if cost.device is None else f" on {cost.device}"
    size = ("Tree nodes", cost.nodes, "Questions and answers") if cost.nodes else ("Parameters", cost.parameters, "Numbers")
    rows = [(size[0], _scaled(size[1]), f"{size[2]} the model has learned; they set the size of its file.")]
    if cost.macs is not None:
        told = f"For {window}. A multiplication and its addition count as one; where papers count two, halve theirs."
        rows.append(("Multiply-adds", f"{cost.macs / 1e9:.3g} GMACs", told))
    if cost.images_per_s is not None:
        rows.append(("Speed", f"{cost.images_per_s:.3g} windows/s", f"How often {window} is predicted in a second{where}."))
    if cost.training_minutes is not None:
        each = "" if trainings == 1 else f", each of {trainings} seeds"
        rows.append(("Training", _duration(cost.training_minutes), f"Wall-clock time, validation included{each}."))
    if cost.peak_memory_bytes is not None:
        rows.append(
            ("Peak memory", f"{cost.peak_memory_bytes / 2**30:.2f} GiB", f"The most held at once while predicting{where}.")
        )
    return rows


def _unmapped_sentence(scores: Scores) -> str:
    count, total = sum(scores.unmapped), sum(scores.support)
    if not count:
        return ""
    return f"{spaced(count)} labelled pixels ({percent(count / total, 2)}) have no class in the map; each counts as an error."


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
    sizes = {name: len(p.png) for name in Figures.__slots__ if isinstance(p := getattr(figures, name), Picture)}
    if not sizes:
        return "shorten the recipe text"
    name = max(sizes, key=sizes.__getitem__)
    return f"the figure {name!r} alone has {sizes[name] / 1e6:.1f} MB, draw it smaller"


def short_count(count: int) -> str:
    """A count in four or five characters: 873, 12.4k, 3.1M."""
    for size, letter in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:.1f}{letter}" if count < 100 * size else f"{count / size:.0f}{letter}"
    return str(count)


def _data_uri(picture: Picture) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"
