"""Score a detector of oriented boxes on images it has not learned from: what a user gets of them, with intervals."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from terralean.data.oriented.config import DetectionDataConfig
from terralean.data.oriented.dota import write_results
from terralean.data.oriented.layouts import Picture, find_objects
from terralean.data.oriented.record import Detections
from terralean.data.oriented.split import ObjectsSplit, group_of, leakage, read_root, resplit
from terralean.data.words import counted
from terralean.errors import ConfigError, EmptySplit, RunError
from terralean.evaluate.contenders import ReadRun
from terralean.evaluate.detection_intervals import MIN_BLOCKS, bootstrap_detections, detection_document
from terralean.evaluate.detection_page import render
from terralean.evaluate.evaluation import Evaluation, write_all
from terralean.mapping.boxes_run import BoxesConfig, detections_of, search_scene
from terralean.predict import load
from terralean.predict.predictor import Precision, Predictor
from terralean.raster.scene import open_scene
from terralean.spec import check_bands
from terralean.tasks.detection_scores import FIELD_NAMES, PER_SET, Outcomes, outcomes, score
from terralean.weights.card import Card, read_card, seed_folders, write_card

log = logging.getLogger(__name__)

SPLIT = "split.json"
HEADLINE = FIELD_NAMES["map50_voc07"]


@dataclass(frozen=True, kw_only=True)
class _Ground:
    """What is scored."""

    pictures: tuple[Picture, ...]
    split: ObjectsSplit | None  # None: other data than the run's own
    root: str


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
    result files of the images scored.
    """
    card, config, recipe = _opened(folder, against=against, read=read)
    ground = _ground(folder, card, config, data=data)
    predictor = load(folder, device=device, precision=precision)
    found = _search(predictor, ground, config, progress)
    document, verdict = _document(folder, card, ground, found)
    page = render(document, verdict=verdict, recipe=recipe, date=f"{datetime.now(UTC):%Y-%m-%d}")
    write_all({"report.html": page.encode(), "evaluation.json": (json.dumps(document, indent=1) + "\n").encode()}, out)
    write_results(out / "detections", found, classes=card.classes)
    if data is None:
        told = {FIELD_NAMES[name]: document[FIELD_NAMES[name]] for name in PER_SET}
        write_card(replace(card, metrics={**card.metrics, "test": told}), folder)
    return Evaluation(document=document, verdict=verdict, report=str(out / "report.html"))


def _opened(folder: Path, *, against: Sequence[Path], read: ReadRun) -> tuple[Card, DetectionDataConfig, str]:
    if against:
        raise ConfigError(f"--against {against[0]}: runs of detection are scored one at a time; leave it out")
    if seeds := seed_folders(folder):
        raise ConfigError(f"{folder} holds several seeds; name one of them, e.g. {seeds[min(seeds)]}")
    experiment, recipe = read(folder)
    config = experiment.data
    if not isinstance(config, DetectionDataConfig):
        raise RunError(f"{folder}: the card is of detection, the recipe is not; copy the whole run folder again")
    return read_card(folder), config, recipe


def _ground(folder: Path, card: Card, config: DetectionDataConfig, *, data: Path | None) -> _Ground:
    """The run's own test images, or all images of other data, with the run's classes."""
    root = read_root(folder / SPLIT) if data is None else data
    found = find_objects(root, replace(config, classes=card.classes.names))
    if data is not None:
        pictures = found.pictures
        if config.group is not None:
            pictures = tuple(replace(one, group=group_of(one, config)) for one in pictures)
        return _Ground(pictures=pictures, split=None, root=str(data))
    split = resplit(found, folder / SPLIT)
    if not split.of("test"):
        raise EmptySplit(
            f"{folder} has no test images ({split.rule}); name labelled data with --data DIR --out DIR, or train with "
            "data.split.test above 0"
        )
    return _Ground(pictures=split.of("test"), split=split, root=str(root))


def _search(
    predictor: Predictor, ground: _Ground, config: DetectionDataConfig, progress: Callable[[int, int], None]
) -> list[Detections]:
    """What is found in each image."""
    found, total = [], len(ground.pictures)
    for number, picture in enumerate(ground.pictures):
        progress(number, total)
        with open_scene(picture.record.image, bands=config.bands) as scene:
            check_bands(scene.bands, predictor.card.bands, scene=scene.path)
            merged = search_scene(predictor, scene, config=BoxesConfig())
        found.append(detections_of(merged, image=picture.record.image))
    progress(total, total)
    return found


def _outcomes(ground: _Ground, found: Sequence[Detections], card: Card) -> tuple[Outcomes, str]:
    """What became of detections, in units that are alike within: groups or images, or blocks where these are few."""
    truth, classes = [one.record for one in ground.pictures], len(card.classes)
    groups = [one.group or one.record.image for one in ground.pictures]
    if len({*groups}) < MIN_BLOCKS:
        return outcomes(found, truth, classes=classes, block_px=float(card.tile_px)), "blocks"
    unit = "groups" if len({*groups}) < len(groups) else "images"
    return outcomes(found, truth, classes=classes, groups=groups), unit


def _document(folder: Path, card: Card, ground: _Ground, found: Sequence[Detections]) -> tuple[dict[str, Any], tuple[str, ...]]:
    counts, unit = _outcomes(ground, found, card)
    scores = score(counts)
    bootstrap = bootstrap_detections([counts], unit=unit, generator=np.random.default_rng(0))
    objects = sum(scores.support)
    about = {
        "Model": card.model,
        "Training": f"{card.length}, {card.training.images} images",
        "Split": card.training.split,
        "Scored": f"{counted(len(ground.pictures), 'image')} of {ground.root}, {counted(objects, 'object')}",
    }
    document = {
        "task": "detection",
        "run": {"folder": str(folder), "model": card.model},
        "data": Path(ground.root).name,
        "images": len(ground.pictures),
        "leakage": None if ground.split is None else leakage(ground.split),
        "about": about,
        "seeds": [],
        "against": [],
        **detection_document(scores, bootstrap, names=card.classes.names),
    }
    return document, _verdict(document, objects=objects)


def _verdict(document: dict[str, Any], *, objects: int) -> tuple[str, ...]:
    entry, images = document[HEADLINE], counted(document["images"], "image")
    if entry["value"] is None:
        return (f"None of {images} holds an object that is not difficult, so nothing can be scored.",)
    span = f" (95 % interval {100 * entry['low']:.1f} to {100 * entry['high']:.1f})" if "low" in entry else ""
    first = f"{HEADLINE} is {100 * entry['value']:.1f} %{span}."
    scored = [one for one in document["classes"] if one[FIELD_NAMES["ap50_area"]]["value"] is not None]
    worst = min(scored, key=lambda one: one[FIELD_NAMES["ap50_area"]]["value"])
    second = f"{counted(objects, 'object')} in {images}; {worst['name']} is found worst."
    return first, second
