"""Score detectors of oriented boxes on images they have not learned from: what a user gets of them, with intervals."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from terralean.data.oriented.dota import write_results
from terralean.data.oriented.split import leakage
from terralean.data.words import counted
from terralean.evaluate.contenders import ReadRun, check_comparable, open_contender
from terralean.evaluate.detection_contenders import (
    DetectionGround,
    DetectionStanding,
    check_same_images,
    open_detection_run,
    other_ground,
    own_ground,
    score_detectors,
)
from terralean.evaluate.detection_figures import overlays
from terralean.evaluate.detection_intervals import (
    bootstrap_detections,
    compare_detections,
    comparison_document,
    detection_document,
    verdict,
)
from terralean.evaluate.detection_page import render
from terralean.evaluate.evaluation import Evaluation, write_all
from terralean.predict.predictor import Precision
from terralean.tasks.detection_scores import FIELD_NAMES, PER_SET
from terralean.weights.card import write_card

log = logging.getLogger(__name__)

HEADLINE = FIELD_NAMES["map50_voc07"]


def evaluate_detection(
    folder: Path,
    *,
    read: ReadRun,
    against: Sequence[Path],
    data: Path | None,
    out: Path,
    device: str | None,
    precision: Precision | None,
    progress: Callable[[int, int], None],
) -> Evaluation:
    """What `run_evaluation` does for runs of oriented detection.

    Images are searched as `map` does, and windows merged. Writes evaluation.json, report.html and, in `detections/`, DOTA's
    result files of the images scored, of several seeds those of the one nearest to their mean.
    """
    contenders = [open_contender(one, open_run=partial(open_detection_run, read=read), read=read) for one in (folder, *against)]
    mine = contenders[0]
    check_comparable(mine, contenders[1:])
    if data is None:
        for run in (run for contender in contenders for run in contender.runs):
            check_same_images(run, mine.runs[0])
    ground = own_ground(mine.runs[0]) if data is None else other_ground(mine.runs[0], data)
    first, *others = [score_detectors(one, ground, device=device, precision=precision, progress=progress) for one in contenders]
    document = _document(first, others, ground)
    shown, run = first.found[first.typical], mine.runs[first.typical]
    photographs = overlays(ground.pictures, shown, bands=run.config.bands)
    page = render(document, photographs, recipe=run.recipe, date=f"{datetime.now(UTC):%Y-%m-%d}")
    write_all({"report.html": page.encode(), "evaluation.json": (json.dumps(document, indent=1) + "\n").encode()}, out)
    write_results(out / "detections", shown, classes=mine.card.classes)
    if data is None:
        _write_cards(first)
    return Evaluation(document=document, verdict=tuple(document["verdict"]), report=str(out / "report.html"))


def _write_cards(standing: DetectionStanding) -> None:
    """The scores of each run into its card."""
    for run, scores in zip(standing.contender.runs, standing.each, strict=True):
        alone = detection_document(scores, standing.boot, names=()) if len(standing.each) == 1 else None
        told = {
            FIELD_NAMES[name]: {"value": getattr(scores, name)} if alone is None else alone[FIELD_NAMES[name]]
            for name in PER_SET
        }
        write_card(replace(run.card, metrics={**run.card.metrics, "test": told}), run.folder)


def _document(mine: DetectionStanding, others: Sequence[DetectionStanding], ground: DetectionGround) -> dict[str, Any]:
    contender, card = mine.contender, mine.contender.card
    objects = sum(mine.scores.support)
    about = {
        "Model": card.model,
        "Training": f"{card.length}, {card.training.images} images",
        "Split": card.training.split,
        "Scored": f"{counted(len(ground.pictures), 'image')} of {ground.root}, {counted(objects, 'object')}",
    }
    document: dict[str, Any] = {
        "task": "detection",
        "run": {"folder": str(contender), "model": card.model},
        "data": Path(ground.root).name,
        "images": len(ground.pictures),
        "leakage": None if ground.split is None else leakage(ground.split),
        "about": about,
        "seeds": _seeds(mine, ground) if contender.several else [],
        **detection_document(mine.scores, mine.boot, names=card.classes.names, spread=mine.spread),
    }
    against = [_other(one, mine, ground) for one in others]
    verdicts = [*_verdict(document, objects=objects), *(one["verdict"] for one in against)]
    return document | {"against": against, "verdict": verdicts}


def _seeds(standing: DetectionStanding, ground: DetectionGround) -> list[dict[str, Any]]:
    """Each run by itself."""
    names, told = standing.contender.card.classes.names, []
    for run, scores, counts in zip(standing.contender.runs, standing.each, standing.outcomes, strict=True):
        boot = bootstrap_detections([counts], unit=ground.unit, generator=np.random.default_rng(0))
        about = {"seed": run.card.training.seed, "folder": str(run.folder)}
        told.append({**about, **detection_document(scores, boot, names=names)})
    return told


def _other(other: DetectionStanding, mine: DetectionStanding, ground: DetectionGround) -> dict[str, Any]:
    """Another run beside this one."""
    names = mine.contender.card.classes.names
    apart = compare_detections(mine.outcomes, other.outcomes, unit=ground.unit, generator=np.random.default_rng(0))
    return {
        "folder": str(other.contender),
        "model": other.contender.card.model,
        "verdict": verdict(apart, other=str(other.contender)),
        "difference": comparison_document(apart, names=names),
        **detection_document(other.scores, other.boot, names=names, spread=other.spread),
    }


def _verdict(document: dict[str, Any], *, objects: int) -> tuple[str, ...]:
    entry, images = document[HEADLINE], counted(document["images"], "image")
    if entry["value"] is None:
        return (f"None of {images} holds an object that is not difficult, so nothing can be scored.",)
    span = f" (95 % interval {100 * entry['low']:.1f} to {100 * entry['high']:.1f})" if "low" in entry else ""
    of = f" in the mean over {len(document['seeds'])} seeds" if document["seeds"] else ""
    first = f"{HEADLINE} is {100 * entry['value']:.1f} %{of}{span}."
    scored = [one for one in document["classes"] if one[FIELD_NAMES["ap50_area"]]["value"] is not None]
    worst = min(scored, key=lambda one: one[FIELD_NAMES["ap50_area"]]["value"])
    second = f"{counted(objects, 'object')} in {images}; {worst['name']} is found worst."
    return first, second
