"""Runs that recognise scenes, one or one for each seed, scored on the same images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from terralean.data.scene_config import SceneDataConfig
from terralean.data.scene_index import SceneImage
from terralean.data.scene_split import SceneSplit, load_scene_split
from terralean.data.words import listed
from terralean.errors import ConfigError, MissingFile, RunError
from terralean.evaluate import scene_metrics
from terralean.evaluate.contenders import Contender, ReadRun, part_of
from terralean.evaluate.scene_intervals import SceneBootstrap, bootstrap
from terralean.evaluate.scene_measure import SceneMeasured, measure_scenes
from terralean.evaluate.scene_metrics import Answers, SceneScores, Units
from terralean.predict import load
from terralean.predict.predictor import Precision
from terralean.weights.card import Card, read_card

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SceneRun:
    """A finished training run."""

    folder: Path
    card: Card
    config: SceneDataConfig
    recipe: str
    split: SceneSplit


@dataclass(frozen=True, kw_only=True)
class SceneGround:
    """What all are scored on."""

    root: str
    images: tuple[SceneImage, ...]
    units: Units


@dataclass(frozen=True, kw_only=True)
class SceneScored:
    """A run with its answers."""

    run: SceneRun
    measured: SceneMeasured
    scores: SceneScores

    @property
    def answers(self) -> Answers:
        """What it says of each image."""
        return self.measured.answers


@dataclass(frozen=True, kw_only=True)
class SceneStanding:
    """A contender with its scores, the means where it has several runs."""

    contender: Contender[SceneRun]
    each: tuple[SceneScored, ...]
    scores: SceneScores
    spread: SceneScores | None  # standard deviation between runs
    boot: SceneBootstrap

    @property
    def answers(self) -> list[Answers]:
        """Of every run."""
        return [scored.answers for scored in self.each]

    @property
    def typical(self) -> SceneScored:
        """The run whose overall accuracy is nearest to the mean."""
        return min(self.each, key=lambda scored: abs(scored.scores.oa - self.scores.oa))


# Opening and checking: everything that can be refused is refused before anything is predicted.


def open_scene_run(folder: Path, *, read: ReadRun) -> SceneRun:
    """A run that recognises scenes. RunError where it is not finished, or its files do not belong together."""
    card = read_card(folder)
    experiment, recipe = read(folder)
    if not isinstance(experiment.data, SceneDataConfig):
        raise RunError(f"{folder}: the card is of {card.task}, the recipe is not; copy the whole run folder again")
    split = load_scene_split(folder / "split.json")
    if split.classes != card.classes.names:
        raise RunError(
            f"{folder}: split.json has the classes {listed(split.classes)}, the card {listed(card.classes.names)}; copy the "
            "whole run folder again"
        )
    return SceneRun(folder=folder, card=card, config=experiment.data, recipe=recipe, split=split)


def check_same_images(run: SceneRun, reference: SceneRun) -> None:
    """Raise ConfigError unless the run keeps the very test images of another: else it may have learned from them."""
    mine, theirs = (_named(one.split) for one in (run, reference))
    if mine == theirs:
        return
    told = [
        f"only {one.folder} has {len(only)} ({listed(sorted(name for name, _ in only))})"
        for one, only in ((run, mine - theirs), (reference, theirs - mine))
        if only
    ]
    raise ConfigError(
        f"{run.folder} and {reference.folder} were not tested on the same images: {len(mine & theirs)} are the same, "
        f"{', '.join(told)}; train them on the same data with the same data.split, its seed included, or score them on other "
        "data with --data DIR --out DIR"
    )


def check_there(images: Sequence[SceneImage], *, run: Path) -> None:
    """Raise MissingFile where images to be judged are not there any more."""
    if gone := absent(images):
        raise MissingFile(
            f"{run}: {len(gone)} of {len(images)} test images are gone since training: {listed(gone)}; put them back, or "
            "name labelled data with --data DIR --out DIR"
        )


def absent(images: Sequence[SceneImage]) -> list[str]:
    """Paths of images that are not there."""
    return [image.path for image in images if not Path(image.path).is_file()]


def units_of(images: Sequence[SceneImage]) -> Units:
    """Groups where they are known, an image without one being a group of its own; else images."""
    if not any(image.group for image in images):
        return Units(name="images", number=np.arange(len(images)), count=len(images))
    names, number = np.unique([f"group {i.group}" if i.group else f"image {i.path}" for i in images], return_inverse=True)
    return Units(name="groups", number=number.astype(np.int64), count=len(names))


def _named(split: SceneSplit) -> set[tuple[str, int]]:
    """Test images by the names of their files within the data folder, so that a copy of the data is the same."""
    return {(within(image.path, split.root), image.label) for image in split.of("test")}


def within(path: str, root: str) -> str:
    """A path as it is named within a folder, where it is in it."""
    return Path(path).relative_to(root).as_posix() if Path(path).is_relative_to(root) else path


# Scoring.


def score_scenes(
    contender: Contender[SceneRun],
    ground: SceneGround,
    *,
    device: str | None,
    precision: Precision | None,
    progress: Callable[[int, int], None],
) -> SceneStanding:
    """Score every run of a contender."""
    each = tuple(
        _score_run(run, ground, device=device, precision=precision, progress=part_of(progress, i, len(contender.runs)))
        for i, run in enumerate(contender.runs)
    )
    scores, several = [scored.scores for scored in each], len(each) > 1
    return SceneStanding(
        contender=contender,
        each=each,
        scores=scene_metrics.mean(scores) if several else scores[0],
        spread=scene_metrics.spread(scores) if several else None,
        boot=bootstrap(
            [scored.answers for scored in each],
            units=ground.units,
            classes=len(contender.card.classes),
            generator=np.random.default_rng(0),
        ),
    )


def _score_run(
    run: SceneRun,
    ground: SceneGround,
    *,
    device: str | None,
    precision: Precision | None,
    progress: Callable[[int, int], None],
) -> SceneScored:
    predictor = load(run.folder, device=device, precision=precision)
    measured = measure_scenes(predictor, ground.images, config=run.config, progress=progress)
    if (odd := np.flatnonzero(~np.isfinite(measured.answers.confidence))).size:
        raise RunError(
            f"{run.folder}: the model's answer for {ground.images[odd[0]].path} is no number; its training has diverged: train "
            "again with a lower train.lr, or name another run"
        )
    return SceneScored(run=run, measured=measured, scores=scene_metrics.score(measured.answers, classes=len(run.card.classes)))
