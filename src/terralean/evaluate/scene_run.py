"""Score a run that recognises scenes on images it has not learned from, with intervals, cost, leakage and calibration."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from terralean.data.index import group_of
from terralean.data.scene_check import Seen, check_images, look_at_all
from terralean.data.scene_config import SceneDataConfig, SceneSplitConfig
from terralean.data.scene_index import SceneImage, find_scenes
from terralean.data.scene_leakage import scene_leakage
from terralean.data.scene_split import SceneSplit
from terralean.data.words import listed
from terralean.errors import EmptySplit, LabelError
from terralean.evaluate.contenders import Contender, ReadRun, check_comparable, open_contender
from terralean.evaluate.evaluation import Evaluation, write_all
from terralean.evaluate.scene_contenders import (
    SceneGround,
    SceneRun,
    SceneStanding,
    absent,
    check_same_images,
    check_there,
    open_scene_run,
    score_scenes,
    units_of,
)
from terralean.evaluate.scene_found import (
    UNCHECKED,
    SceneFound,
    SceneOther,
    as_csv,
    as_document,
    as_report,
    as_sheet,
    leaks,
    named,
)
from terralean.evaluate.scene_intervals import SceneComparison, compare_scenes
from terralean.evaluate.scene_metrics import Answers
from terralean.evaluate.scene_report import render
from terralean.evaluate.scene_rivals import SceneRival, score_rivals
from terralean.predict.predictor import Precision
from terralean.spec import check_bands
from terralean.weights.card import write_card

log = logging.getLogger(__name__)

TOLD = ("OA", "top5", "AA", "kappa", "mF1")  # of a document, in a card


def evaluate_scenes(
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
    """What `run_evaluation` does for runs of scene recognition."""
    contenders = [open_contender(one, open_run=partial(open_scene_run, read=read), read=read) for one in (folder, *against)]
    mine = contenders[0]
    check_comparable(mine, contenders[1:])
    ground, seen = _own(mine.runs[0]) if data is None else _elsewhere(mine.runs[0], data)
    if data is None:
        for run in (run for contender in contenders for run in contender.runs):
            check_same_images(run, mine.runs[0])
    standings = [score_scenes(one, ground, device=device, precision=precision, progress=progress) for one in contenders]
    leakage = _Leakage(ground=ground, own=data is None, seen=seen)
    found = SceneFound(
        mine=standings[0],
        data=data,
        ground=ground,
        leakage=leakage.of(mine),
        rivals=_rivals(standings[0], ground),
        others=_others(standings[0], standings[1:], ground, leakage),
    )
    return _keep(found, out=out)


# What is scored.


def _own(run: SceneRun) -> tuple[SceneGround, Mapping[str, Seen]]:
    images = run.split.of("test")
    if not images:
        raise EmptySplit(
            f"{run.folder} has no test split ({run.split.rule}); name labelled data with --data DIR --out DIR, or train with "
            "data.split.test above 0, or with test images in the index, lists or folders of the data"
        )
    check_there(images, run=run.folder)
    return SceneGround(root=run.split.root, images=images, units=units_of(images)), {}


def _elsewhere(run: SceneRun, data: Path) -> tuple[SceneGround, Mapping[str, Seen]]:
    """All images of other data, and what looking at them showed."""
    config = _reading(run.config, data)
    try:
        dataset = find_scenes(data, config, classes=run.card.classes)
    except LabelError as error:
        raise LabelError(f"{error}; {run.folder} can answer no other classes than it was trained on") from error
    checked = check_images(replace(dataset, images=_grouped(dataset.images, run.config.group)), config)
    check_bands(checked.dataset.bands, run.card.bands, scene=str(data))
    images = checked.dataset.images
    return SceneGround(root=dataset.root, images=images, units=units_of(images)), checked.seen


def _reading(config: SceneDataConfig, data: Path) -> SceneDataConfig:
    """How other data than the run's own are read: their split says nothing, list files are chosen where there are some."""
    listed_there = not (data / "index.csv").is_file() and any(data.glob("train_labels*.txt"))
    return replace(config, split=SceneSplitConfig(), classes=None, group=None, lists=config.lists if listed_there else None)


def _grouped(images: tuple[SceneImage, ...], expression: str | None) -> tuple[SceneImage, ...]:
    """In the groups of the run's expression, where the names of other data have them."""
    if expression is None:
        return images
    other = [image.path for image in images if re.search(expression, Path(image.path).name) is None]
    if other:
        log.warning("data.group %r is not found in %s: intervals take images as independent", expression, listed(other))
        return images
    return tuple(replace(image, group=group_of(Path(image.path).name, expression)) for image in images)


# Whether training has seen it.


@dataclass(kw_only=True)
class _Leakage:
    """What training shares with the images that judge. The same training images are looked at once."""

    ground: SceneGround
    own: bool  # whether these are the runs' own test images
    seen: Mapping[str, Seen]  # what looking at them showed, where that was done
    known: dict[tuple[SceneImage, ...], str | None] = field(default_factory=dict)

    def of(self, contender: Contender[SceneRun]) -> str | None:
        """A sentence, of all seeds the worst; None where training images are gone.

        Of its own test images a run's card says it: training looked at every image. It also says it of validation images, so
        what leaks is looked at again.
        """
        found = [self._of_run(run) for run in contender.runs]
        if None in found:
            return None
        return max((told for told in found if told is not None), key=lambda told: bool(leaks(told)))

    def _of_run(self, run: SceneRun) -> str | None:
        told, train = run.card.training.leakage, run.split.of("train")
        if self.own and not leaks(told):
            return told
        if gone := absent(train):
            if self.own:
                return told
            log.warning("%s: %d training images are gone (%s): leakage is not checked", run.folder, len(gone), listed(gone))
            return None
        if train not in self.known:
            self.known[train] = self._look(run, train)
        return self.known[train]

    def _look(self, run: SceneRun, train: tuple[SceneImage, ...]) -> str | None:
        log.info("looking at %d images for what training and test share", len(train) + len(self.ground.images))
        judged = tuple(replace(image, split="test") for image in self.ground.images)
        left = [image for image in (*train, *judged) if image.path not in self.seen]
        seen = {look.image.path: look.seen for look in look_at_all(left, run.config) if look.seen is not None}
        if broken := [image.path for image in left if image.path not in seen]:
            log.warning(
                "%s: %d images cannot be read any more (%s): leakage is not checked", run.folder, len(broken), broken[0]
            )
            return None
        split: SceneSplit = replace(run.split, images=(*train, *judged))
        return scene_leakage(split, seen={**self.seen, **seen})


# Beside what.


def _rivals(mine: SceneStanding, ground: SceneGround) -> tuple[SceneRival, ...]:
    run = mine.contender.runs[0]
    train, classes = run.split.of("train"), len(run.card.classes)
    if gone := absent(train):
        log.warning("%s: %d training images are gone (%s): baselines are left out", run.folder, len(gone), listed(gone))
        return ()
    return tuple(
        replace(rival, comparison=_compared(mine, [rival.answers], ground))
        for rival in score_rivals(train, ground.images, classes=classes, config=run.config)
    )


def _others(
    mine: SceneStanding, others: Sequence[SceneStanding], ground: SceneGround, leakage: _Leakage
) -> tuple[SceneOther, ...]:
    return tuple(
        SceneOther(
            standing=other,
            name=name,
            comparison=_compared(mine, other.answers, ground),
            leakage=leakage.of(other.contender),
        )
        for other, name in zip(others, named(others), strict=True)
    )


def _compared(mine: SceneStanding, theirs: Sequence[Answers], ground: SceneGround) -> SceneComparison:
    classes = len(mine.contender.card.classes)
    return compare_scenes(mine.answers, theirs, units=ground.units, classes=classes, generator=np.random.default_rng(0))


# What is written.


def _keep(found: SceneFound, *, out: Path) -> Evaluation:
    """Write report, numbers, table and picture, and the scores of a run's own test split into its card."""
    content, page = as_document(found), as_report(found)
    files = {
        "report.html": render(page).encode(),
        "picture.png": as_sheet(found),
        "answers.csv": as_csv(found).encode(),
        "evaluation.json": _as_json(content).encode(),
    }
    write_all(files, out)
    if found.data is None:
        _tell_cards(found, content)
    return Evaluation(document=content, verdict=(*page.verdict, found.leakage or UNCHECKED), report=str(out / "report.html"))


def _as_json(content: dict[str, Any]) -> str:
    """With a line for each row of the confusion matrix, which may have a million numbers."""
    rows = ",\n".join(f"  {json.dumps(row)}" for row in content["confusion"])
    text = json.dumps({**content, "confusion": None}, indent=1)
    return text.replace('"confusion": null', f'"confusion": [\n{rows}\n ]', 1) + "\n"


def _tell_cards(found: SceneFound, content: dict[str, Any]) -> None:
    for scored, own in zip(found.mine.each, content["seeds"] or [content], strict=True):
        card, measured = scored.run.card, scored.measured
        scores = {key: own[key] for key in TOLD if key in own}
        speed = {"images_per_s": round(measured.images_per_s, 3), "views_per_s": round(measured.views_per_s, 3)}
        cost = card.cost | speed | {"device": measured.device}
        write_card(replace(card, metrics={**card.metrics, "test": scores}, cost=cost), scored.run.folder)
