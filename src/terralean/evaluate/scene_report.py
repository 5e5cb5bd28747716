"""The page an analyst reads after scene recognition was evaluated; see `report` for that on maps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terralean.evaluate import page
from terralean.evaluate.calibration_page import CalibrationSection
from terralean.evaluate.compare import points, span
from terralean.evaluate.figures import draw_matrix
from terralean.evaluate.page import NOTHING, SPACE, Cost, bounds, duration, number, percent, unscaled
from terralean.evaluate.report import NUMBERS_UP_TO, Figures, has_long_names, largest_confusions, matrix_cells
from terralean.evaluate.scene_figures import Told, cells
from terralean.evaluate.scene_intervals import SceneComparison, SceneIntervals
from terralean.evaluate.scene_metrics import FIVE, SceneScores
from terralean.spec import Classes

CELLS_UP_TO = 120  # classes; beyond, names beside a matrix cannot be read and it is a picture
CELL = 18  # side of a cell of a matrix with names, in the drawing's units; letters are 11 high
LETTER = 5.6  # width of such a letter, on average
LONGEST = 30  # letters of a name beside a matrix
TOLD = 0.05  # share of a row from which on a cell of such a matrix has its number in it

# What is shown of each overall score: its short and its full name, and what it says in words an analyst uses.
OVERALL = {
    "oa": ("OA", "Overall accuracy", "Share of the test images whose class is recognised; also called top-1."),
    "top5": ("top-5", "Among the five likeliest", "Share of the test images whose class is one of the five likeliest."),
    "aa": ("AA", "Average accuracy", "Share of each class that is recognised, averaged over classes."),
    "mf1": ("mF1", "Mean F1", "Balance of false alarms and misses, averaged over classes."),
    "kappa": ("kappa", "Cohen's kappa", "Agreement beyond chance: 0 is chance, 1 is perfect."),
}
COMPARED = ("oa", "aa", "mf1")


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneBaseline:
    """A simple method that answered for the same images."""

    name: str
    explanation: str  # one sentence
    scores: SceneScores
    comparison: SceneComparison  # the model minus this


@dataclass(frozen=True, kw_only=True, slots=True)
class ScenePeer:
    """Another run scored on the same images."""

    name: str
    model: str
    scores: SceneScores
    intervals: SceneIntervals | None
    cost: Cost
    comparison: SceneComparison  # this run minus the other
    verdict: str
    leaks: bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneSeed:
    """One of several trainings."""

    seed: int
    scores: SceneScores
    intervals: SceneIntervals | None
    training_minutes: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneReport:
    """Everything the page shows. Text is shown as it is: nothing in it can become markup."""

    title: str
    about: tuple[tuple[str, str], ...]  # what was evaluated on what: (("Model", "lemevit_tiny"), ...)
    date: str
    verdict: tuple[str, ...]  # sentences, the first one large
    classes: Classes
    scores: SceneScores  # means over the seeds where there are several
    spread: SceneScores | None  # standard deviation between seeds
    intervals: SceneIntervals | None
    intervals_note: str
    counts: NDArray[np.int64]  # (K, K) images of all seeds: rows are the classes, columns the answers
    leaks: bool | None  # whether training saw test images; None where that could not be checked
    apart: bool  # whether it is known which images are alike, so that no leak means that they are apart
    leakage: str  # one sentence
    baselines: tuple[SceneBaseline, ...]
    peers: tuple[ScenePeer, ...]
    seeds: tuple[SceneSeed, ...]  # empty for a single run
    shown_seed: int | None  # whose answers are shown, where there are several
    calibration: CalibrationSection
    mistakes: tuple[Told, ...]  # the surest first
    right: tuple[Told, ...]
    cost: Cost
    views: float  # judged of an image, on average
    views_per_s: float  # that the model judges, without reading
    figures: Figures
    facts: tuple[tuple[str, str], ...]  # what fixes the result: data, split, seed
    recipe: str  # YAML
    versions: tuple[tuple[str, str], ...]
    commands: tuple[str, ...]
    citation: tuple[str, ...]


def render(report: SceneReport) -> str:
    """The page as one HTML document that loads nothing; SizeError beyond 3 MB."""
    few = len(report.classes) <= NUMBERS_UP_TO
    joined = np.concatenate([report.counts, np.zeros((len(report.classes), 1), np.int64)], axis=1)
    return page.fill(
        "scene_report.html.j2",
        {
            "report": report,
            "badge": _badge(report),
            "rows": _score_rows(report),
            "note": "",
            "cost_lede": "Measured while the test images were recognised.",
            "kept_out": "images",
            "own": _own_row(report),
            "seeds": _seed_rows(report),
            "devices": page.devices_sentence([report.cost, *(peer.cost for peer in report.peers)]),
            "classes": _class_rows(report),
            "absent": _absent_sentence(report),
            "peers": _peer_rows(report),
            "axis": _axis(report),
            "rivals": _rival_rows(report),
            "matrix": matrix_cells(joined) if few else None,
            "grid": None if few or len(report.classes) > CELLS_UP_TO else _grid(report),
            "heat": draw_matrix(report.counts) if len(report.classes) > CELLS_UP_TO else None,
            "long_names": has_long_names(report.classes),
            "confusions": largest_confusions(report.counts, names=report.classes.names),
            "costs": _cost_rows(report),
        },
        too_large="shorten the recipe text, or name fewer runs with --against",
    )


def _badge(report: SceneReport) -> tuple[str, str, str]:
    kind, sign, words = page.HEADLINES[report.leaks]
    if report.leaks is False and not report.apart:
        words = "No test image is among the training images"
    return kind, sign, words


# Rows of the page.


def _score_rows(report: SceneReport) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    best = max(report.baselines, key=lambda rival: rival.scores.oa, default=None)
    for key, (short, name, explanation) in OVERALL.items():
        if key == "top5" and len(report.classes) <= FIVE:
            continue  # always 1
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
                "bar": None if math.isnan(value) else page.bar(value, found),
                "dots": page.places(getattr(seed.scores, key) for seed in report.seeds),
                "rival": page.places(() if best is None else (getattr(best.scores, key),)),
            }
        )
    return rows


def _class_rows(report: SceneReport) -> list[dict[str, object]]:
    scores, found = report.scores, report.intervals
    rows: list[dict[str, object]] = []
    for i, name in enumerate(report.classes.names):
        spread = math.nan if report.spread is None else report.spread.f1[i]
        known = None if found is None else found.f1[i]
        rows.append(
            {
                "name": name,
                "bar": None if math.isnan(scores.f1[i]) else page.bar(scores.f1[i], known),
                "rivals": [next(iter(page.places((rival.scores.f1[i],))), None) for rival in report.baselines],
                "spread": "" if math.isnan(spread) else f"{100 * spread:.1f}",
                "support": page.spaced(scores.support[i]),
                **{key: number(getattr(scores, key)[i]) for key in ("f1", "precision", "recall")},
                **{
                    f"{key}_range": "" if found is None else bounds(getattr(found, key)[i])
                    for key in ("f1", "precision", "recall")
                },
            }
        )
    return rows


def _absent_sentence(report: SceneReport) -> str:
    each = list(zip(report.classes.names, report.scores.support, report.scores.f1, strict=True))
    neither = [name for name, support, f1 in each if math.isnan(f1)]
    unseen = [name for name, support, f1 in each if not support and not math.isnan(f1)]
    parts = []
    if neither:
        parts.append(f"Neither among the test images nor among the answers, so left out of the means: {', '.join(neither)}.")
    if unseen:
        parts.append(f"Answered but not among the test images, so F1 is 0 and counts in its mean: {', '.join(unseen)}.")
    return " ".join(parts)


def _rival_rows(report: SceneReport) -> list[dict[str, object]]:
    return [
        {
            "name": rival.name,
            "explanation": rival.explanation,
            "scores": rival.scores,
            "difference": points(rival.comparison.overall["oa"].value, signed=True),
            "range": "" if (known := rival.comparison.overall["oa"].interval) is None else span(known),
        }
        for rival in report.baselines
    ]


def _peer_rows(report: SceneReport) -> list[dict[str, object]]:
    axis = _axis(report)
    return [
        {
            "peer": peer,
            "oa": "" if peer.intervals is None else bounds(peer.intervals.oa),
            "cost": page.cost_cells(peer.cost),
            "alone": f"{peer.comparison.only_mine:g} images are right in this run only, {peer.comparison.only_theirs:g} in "
            f"{peer.name} only" + (", each a mean over the seeds." if report.seeds else "."),
            "differences": [
                {
                    "name": OVERALL[key][1],
                    "value": points(found.value, signed=True, like=found.interval),
                    "range": "" if found.interval is None else span(found.interval),
                    "place": page.on_axis(found, axis),
                }
                for key in COMPARED
                for found in (peer.comparison.overall[key],)
            ],
            "classes": [
                {
                    "name": name,
                    "mine": number(report.scores.f1[i]),
                    "theirs": number(peer.scores.f1[i]),
                    "value": NOTHING if math.isnan(apart.value) else points(apart.value, signed=True),
                    "range": "" if apart.interval is None else span(apart.interval),
                    "sure": apart.interval is not None and not apart.interval.low <= 0 <= apart.interval.high,
                }
                for i, (name, apart) in enumerate(zip(report.classes.names, peer.comparison.f1, strict=True))
            ],
        }
        for peer in report.peers
    ]


def _axis(report: SceneReport) -> int:
    return page.axis([peer.comparison.overall[key] for peer in report.peers for key in COMPARED])


def _own_row(report: SceneReport) -> dict[str, object]:
    oa = "" if report.intervals is None else bounds(report.intervals.oa)
    return {"model": dict(report.about).get("Model", ""), "oa": oa, "cost": page.cost_cells(report.cost)}


def _seed_rows(report: SceneReport) -> list[dict[str, object]]:
    return [
        {"seed": seed.seed, "training": duration(seed.training_minutes)}
        | {key: number(getattr(seed.scores, key)) for key in COMPARED}
        | {f"{key}_range": "" if seed.intervals is None else bounds(getattr(seed.intervals, key)) for key in COMPARED}
        for seed in report.seeds
    ]


def _cost_rows(report: SceneReport) -> list[tuple[str, str, str]]:
    side = report.cost.window_px
    alone = report.views == 1
    seen = f"{'an image' if alone else 'a view'}{'' if side is None else f' of {side} x {side} px'}"
    many = "" if alone else f" by {report.views:.3g} views each"
    speed = (
        f"Files read and recognised{many} in a second; the model alone judges {report.views_per_s:.3g} "
        f"{'images' if alone else 'views'}/s"
    )
    return page.cost_rows(report.cost, trainings=len(report.seeds) or 1, piece=seen, unit="images/s", speed=speed)


# Drawings.


def _grid(report: SceneReport) -> dict[str, object]:
    """A matrix of many classes in the drawing's units: names at its left and above, and cells that are not empty."""
    names = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in report.classes.names]
    room = round(max(map(len, names)) * LETTER + 12)
    return {
        "side": len(names) * CELL,
        "room": room,
        "cell": CELL,
        "names": [{"text": text, "at": room + i * CELL + CELL / 2} for i, text in enumerate(names)],
        "cells": [
            {
                "x": room + cell.col * CELL,
                "y": room + cell.row * CELL,
                "depth": cell.depth,
                "right": cell.right,
                "text": f"{100 * cell.share:.0f}" if cell.share >= TOLD else "",
                "told": f"{report.classes.names[cell.row]}, answer {report.classes.names[cell.col]}: "
                f"{percent(cell.share)}, {page.spaced(cell.images)} images",
            }
            for cell in cells(report.counts)
        ],
    }
