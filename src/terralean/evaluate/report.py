"""The page an analyst reads after an evaluation: one HTML file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terralean.evaluate import page
from terralean.evaluate.calibration_page import CalibrationSection
from terralean.evaluate.compare import Comparison, points, span
from terralean.evaluate.curve_page import CurveSection
from terralean.evaluate.figures import ERROR_RGB, UNMAPPED_RGB, Chart, Picture
from terralean.evaluate.intervals import Intervals
from terralean.evaluate.metrics import Scores
from terralean.evaluate.page import (
    NOTHING,
    SPACE,
    Cost,
    axis,
    bar,
    bounds,
    cost_cells,
    cost_rows,
    duration,
    number,
    on_axis,
    percent,
    places,
    short_count,
    spaced,
    unscaled,
)
from terralean.evaluate.token_page import TokenSection
from terralean.spec import Classes

NUMBERS_UP_TO = 20  # classes; beyond, a matrix with numbers is too large to read
CONFUSIONS = 6  # the largest are listed
SHORT_NAME = 9  # letters of a word that fits above a column of the matrix

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
class NoiseTable:
    """Scores with noisy pixels."""

    mode: str
    range: str  # of noisy values, in words
    rows: tuple[Mapping[str, object], ...]  # run, pixels, miou, oa, mf1, change; operations and left where a run is reduced
    reduced: bool = False  # whether a run takes tokens out or merges them


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """The pictures of a page, None where there is none."""

    image: Picture | None = None
    later: Picture | None = None  # the second date, where change is told
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
    calibration: CalibrationSection
    curve: CurveSection | None = None  # where it was measured
    noise: NoiseTable | None = None
    tokens: TokenSection | None = None  # where a run takes tokens out or merges them


def render(report: Report) -> str:
    """The page as one HTML document that loads nothing; SizeError beyond 3 MB."""
    return page.fill(
        "report.html.j2",
        {
            "report": report,
            "badge": page.HEADLINES[report.leaks],
            "rows": _score_rows(report),
            "own": _own_row(report),
            "seeds": _seed_rows(report),
            "devices": page.devices_sentence([report.cost, *(peer.cost for peer in report.peers)]),
            "classes": _class_rows(report),
            "peers": _peer_rows(report),
            "axis": _axis(report),
            "rivals": _rival_rows(report),
            "matrix": matrix_cells(report.counts) if len(report.classes) <= NUMBERS_UP_TO else None,
            "long_names": has_long_names(report.classes),
            "confusions": largest_confusions(report.counts, names=[*report.classes.names, "no class"]),
            "costs": _cost_rows(report),
            "unmapped": (unmapped := _unmapped_sentence(report.scores)),
            "note": unmapped,
            "cost_lede": "Measured while the test area was mapped.",
            "kept_out": "areas",
            "absent": _absent_sentence(report),
            "error_rgb": ERROR_RGB,
            "unmapped_rgb": UNMAPPED_RGB,
        },
        too_large=_largest(report.figures),
    )


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
                "value": unscaled(value) if plain else percent(value),
                "range": bounds(found, plain=plain) + ("" if plain or found is None else f"{SPACE}%"),
                "spread": "" if math.isnan(spread) else (unscaled(spread) if plain else f"{100 * spread:.1f}"),
                "bar": None if math.isnan(value) else bar(value, found),
                "dots": places(getattr(seed.scores, key) for seed in report.seeds),
                "rival": places(() if best is None else (getattr(best.scores, key),)),
            }
        )
    return rows


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
                "bar": None if math.isnan(scores.iou[i]) else bar(scores.iou[i], known),
                "rivals": [next(iter(places((rival.scores.iou[i],))), None) for rival in report.baselines],
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
    points_shown = _axis(report)
    return [
        {
            "peer": peer,
            "miou": "" if peer.intervals is None else bounds(peer.intervals.miou),
            "cost": cost_cells(peer.cost),
            "differences": [
                {
                    "name": OVERALL[key][1],
                    "value": points(
                        peer.comparison.overall[key].value, signed=True, like=peer.comparison.overall[key].interval
                    ),
                    "range": "" if (known := peer.comparison.overall[key].interval) is None else span(known),
                    "place": on_axis(peer.comparison.overall[key], points_shown),
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
    return {"model": dict(report.about).get("Model", ""), "miou": miou, "cost": cost_cells(report.cost)}


def _seed_rows(report: Report) -> list[dict[str, object]]:
    return [
        {"seed": seed.seed, "training": duration(seed.training_minutes)}
        | {key: number(getattr(seed.scores, key)) for key in COMPARED}
        | {f"{key}_range": "" if seed.intervals is None else bounds(getattr(seed.intervals, key)) for key in COMPARED}
        for seed in report.seeds
    ]


def _axis(report: Report) -> int:
    return axis([peer.comparison.overall[key] for peer in report.peers for key in COMPARED])


def matrix_cells(counts: NDArray[np.int64]) -> list[list[dict[str, object]]]:
    """A confusion matrix (K, K + 1) as cells, without its last column where that is empty."""
    counts = counts if counts[:, -1].any() else counts[:, :-1]
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


def largest_confusions(counts: NDArray[np.int64], *, names: Sequence[str]) -> list[dict[str, object]]:
    """The largest numbers of a matrix (K, L) beside its diagonal; `names` are those of its columns, the first K of its rows."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(wrong, axis=None, kind="stable")[::-1][:CONFUSIONS]
    pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True) if wrong[i, j]]
    support = counts.sum(axis=1)
    return [
        {
            "from": names[i],
            "to": names[j],
            "share": percent(wrong[i, j] / support[i], 0 if wrong[i, j] / support[i] >= 0.1 else 1),  # noqa: PLR2004
            "count": spaced(int(wrong[i, j])),
        }
        for i, j in pairs
    ]


def _cost_rows(report: Report) -> list[tuple[str, str, str]]:
    side = report.cost.window_px
    window = "one window" if side is None else f"a window of {side} x {side} px"
    speed = f"How often {window} is predicted in a second"
    return cost_rows(report.cost, trainings=len(report.seeds) or 1, piece=window, unit="windows/s", speed=speed)


def has_long_names(classes: Classes) -> bool:
    """Whether a word of a class' name does not fit above a column of the matrix."""
    return max(len(word) for name in classes.names for word in name.split() or [name]) > SHORT_NAME


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
