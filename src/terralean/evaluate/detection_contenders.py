"""Runs that find oriented boxes, one or one for each seed, scored on the same images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from terralean.data.oriented.config import DetectionDataConfig
from terralean.data.oriented.layouts import Picture, find_objects
from terralean.data.oriented.record import Detections
from terralean.data.oriented.split import ObjectsSplit, SavedSplit, group_of, load_objects_split, read_root, resplit
from terralean.data.words import listed
from terralean.errors import ConfigError, DatasetError, EmptySplit, RunError
from terralean.evaluate.contenders import Contender, ReadRun, part_of
from terralean.evaluate.detection_intervals import (
    MIN_BLOCKS,
    DetectionBootstrap,
    bootstrap_detections,
    mean_scores,
    spread_scores,
)
from terralean.mapping.boxes_run import BoxesConfig, detections_of, search_scene
from terralean.predict import load
from terralean.predict.predictor import Precision
from terralean.raster.scene import open_scene
from terralean.spec import check_bands
from terralean.tasks.detection_scores import DetectionScores, Outcomes, outcomes, score
from terralean.weights.card import Card, read_card

SPLIT = "split.json"


@dataclass(frozen=True, kw_only=True)
class DetectionRun:
    """A finished training run."""

    folder: Path
    card: Card
    config: DetectionDataConfig
    recipe: str


@dataclass(frozen=True, kw_only=True)
class DetectionGround:
    """What all are scored on."""

    pictures: tuple[Picture, ...]
    split: ObjectsSplit | None  # None: other data than the run's own
    root: str
    block_px: float | None  # images or groups are too few, so that intervals are drawn from blocks of this side

    @property
    def unit(self) -> str:
        """What intervals are drawn from."""
        if self.block_px is not None:
            return "blocks"
        return "groups" if len({*self.groups}) < len(self.pictures) else "images"

    @property
    def groups(self) -> list[str]:
        """That each image belongs to, itself where it belongs to none."""
        return [one.group or one.record.image for one in self.pictures]


@dataclass(frozen=True, kw_only=True)
class DetectionStanding:
    """A contender with its scores, the means where it has several runs."""

    contender: Contender[DetectionRun]
    found: tuple[list[Detections], ...]  # of each run, image by image
    outcomes: tuple[Outcomes, ...]
    each: tuple[DetectionScores, ...]
    scores: DetectionScores
    spread: DetectionScores | None  # standard deviation between runs
    boot: DetectionBootstrap

    @property
    def typical(self) -> int:
        """The place of the run whose score is nearest to the mean."""
        mean = self.scores.map50_voc07
        return min(range(len(self.each)), key=lambda i: abs(self.each[i].map50_voc07 - mean))


def open_detection_run(folder: Path, *, read: ReadRun) -> DetectionRun:
    """A run that finds boxes. RunError where it is not finished, or its files do not belong together."""
    card = read_card(folder)
    experiment, recipe = read(folder)
    config = experiment.data
    if not isinstance(config, DetectionDataConfig):
        raise RunError(f"{folder}: the card is of detection, the recipe is not; copy the whole run folder again")
    return DetectionRun(folder=folder, card=card, config=config, recipe=recipe)


def check_same_images(run: DetectionRun, reference: DetectionRun) -> None:
    """Raise ConfigError unless the run keeps the very test images of another: else it may have learned from them."""
    mine, theirs = ({*_tested(one)} for one in (run, reference))
    if mine != theirs:
        raise ConfigError(
            f"{run.folder} and {reference.folder} were not tested on the same images: {len(mine & theirs)} are the same, "
            f"{listed(sorted(mine ^ theirs))} only one of them has; train them on the same data with the same data.split, its "
            "seed included, or score them on other data with --data DIR --out DIR"
        )


def _tested(run: DetectionRun) -> tuple[str, ...]:
    saved: SavedSplit = load_objects_split(run.folder / SPLIT)
    return saved.of("test")


def own_ground(run: DetectionRun) -> DetectionGround:
    """The run's own test images. Raises EmptySplit where it has none."""
    root = read_root(run.folder / SPLIT)
    split = resplit(find_objects(root, replace(run.config, classes=run.card.classes.names)), run.folder / SPLIT)
    if not split.of("test"):
        raise EmptySplit(
            f"{run.folder} has no test images ({split.rule}); name labelled data with --data DIR --out DIR, or train with "
            "data.split.test above 0"
        )
    return _ground(split.of("test"), run, split=split, root=str(root))


def other_ground(run: DetectionRun, data: Path) -> DetectionGround:
    """All images of other data, with the run's classes."""
    pictures = find_objects(data, replace(run.config, classes=run.card.classes.names)).pictures
    if run.config.group is not None:
        pictures = tuple(replace(one, group=group_of(one, run.config)) for one in pictures)
    return _ground(pictures, run, split=None, root=str(data))


def _ground(pictures: tuple[Picture, ...], run: DetectionRun, *, split: ObjectsSplit | None, root: str) -> DetectionGround:
    stems = Counter(Path(one.record.image).stem for one in pictures)
    if twice := [stem for stem, count in stems.items() if count > 1]:
        raise DatasetError(f"{root}: several images are called {listed(twice)}; result files name them so, rename all but one")
    units = {one.group or one.record.image for one in pictures}
    block_px = float(run.card.tile_px) if len(units) < MIN_BLOCKS else None
    return DetectionGround(pictures=pictures, split=split, root=root, block_px=block_px)


def score_detectors(
    contender: Contender[DetectionRun],
    ground: DetectionGround,
    *,
    device: str | None,
    precision: Precision | None,
    progress: Callable[[int, int], None],
) -> DetectionStanding:
    """Search the images with every run, as `map` does, and compare with what is there."""
    count, classes = len(contender.runs), len(contender.card.classes)
    found = tuple(
        _search(run, ground.pictures, device=device, precision=precision, progress=part_of(progress, i, count))
        for i, run in enumerate(contender.runs)
    )
    counts = tuple(outcomes_on(ground, some, classes=classes) for some in found)
    each = tuple(score(one) for one in counts)
    return DetectionStanding(
        contender=contender,
        found=found,
        outcomes=counts,
        each=each,
        scores=mean_scores(each) if count > 1 else each[0],
        spread=spread_scores(each) if count > 1 else None,
        boot=bootstrap_detections(counts, unit=ground.unit, generator=np.random.default_rng(0)),
    )


def outcomes_on(ground: DetectionGround, found: Sequence[Detections], *, classes: int) -> Outcomes:
    """What became of detections, in units that are alike within: groups or images, or blocks where these are few."""
    truth = [one.record for one in ground.pictures]
    if ground.block_px is not None:
        return outcomes(found, truth, classes=classes, block_px=ground.block_px)
    return outcomes(found, truth, classes=classes, groups=ground.groups)


def _search(
    run: DetectionRun,
    pictures: Sequence[Picture],
    *,
    device: str | None,
    precision: Precision | None,
    progress: Callable[[int, int], None],
) -> list[Detections]:
    """What is found in each image."""
    predictor = load(run.folder, device=device, precision=precision)
    found = []
    for number, picture in enumerate(pictures):
        progress(number, len(pictures))
        with open_scene(picture.record.image, bands=run.config.bands) as scene:
            check_bands(scene.bands, predictor.card.bands, scene=scene.path)
            merged = search_scene(predictor, scene, config=BoxesConfig())
        found.append(detections_of(merged, image=picture.record.image))
    progress(len(pictures), len(pictures))
    return found
