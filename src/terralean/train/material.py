"""What a model learns from: crops, what it is validated on, and all that the card will say of them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from terralean.data.change_index import files_of
from terralean.data.change_samples import PairCrops
from terralean.data.config import DataConfig, SplitName
from terralean.data.conventions import check_labels
from terralean.data.crops import Crops, Tiles
from terralean.data.index import find
from terralean.data.leakage import check_leakage
from terralean.data.oriented.crops import ObjectCrops, ObjectTiles
from terralean.data.oriented.samples import ObjectSamples
from terralean.data.samples import SampleCrops, Samples, measure_samples
from terralean.data.scene_crops import SceneCrops, SceneViews
from terralean.data.spectral.patches import PixelCrops, PixelPatches
from terralean.data.split import Region, Split, make_split, save_split
from terralean.data.statistics import any_labelled, check_learnable, measure
from terralean.spec import Bands, Classes, Normalisation
from terralean.train.config import Experiment

log = logging.getLogger(__name__)

JUDGES: dict[SplitName, str] = {  # splits that judge a model, and what comes of it where they cannot
    "validation": "the last weights are kept, not the best, and confidence is not calibrated",
    "test": "the run cannot be evaluated on it",
}


@dataclass(frozen=True, kw_only=True)
class Material:
    """Everything that training asks of data."""

    bands: Bands
    classes: Classes
    normalisation: Normalisation
    class_counts: tuple[int, ...]  # labelled pixels of each class, or images where these are labelled as a whole
    crops: PairCrops | Crops | ObjectCrops | SampleCrops | SceneCrops | PixelCrops
    validation: Tiles | ObjectTiles | ObjectSamples | Samples | SceneViews | PixelPatches | None
    one_size: bool  # whether all samples of validation are of one size
    images: int
    split: str  # in words
    leakage: str  # in words
    fingerprint: str
    training: Tiles | Samples | PixelPatches | None = None  # all of it once, in order, for what is fitted instead of trained
    save_split: Callable[[Path], None] | None = None  # None where somebody else's dataset did the splitting
    side_px: int = 0  # of the images, where these are recognised as a whole, or of patches around pixels
    pixels: Tensor | None = None  # (n, bands) as the network sees them, for what starts from spectra
    tiles: int = 0  # with objects, where these are found in tiles
    collate: Callable[[Any], Any] | None = None  # makes a batch of samples, where these are not all of one shape


def from_folder(experiment: Experiment, root: Path) -> Material:
    """Find, split, check and measure a folder of images and labels."""
    config, seed = experiment.data, experiment.seed
    dataset = find(root, config)
    check_labels(dataset, config)
    split = make_split(dataset, config, seed=seed)
    train, validation = split.of("train"), judging(split, config, classes=dataset.classes)
    classes, coding = dataset.classes, dataset.coding
    statistics = measure(train, classes=classes, coding=coding, bands=dataset.bands, config=config, seed=seed)
    check_learnable(statistics, split, classes=classes, config=config)
    length = _crops_between_validations(experiment)
    margin = 0 if experiment.forest is None else experiment.forest.largest_px // 2

    def tiles(regions: tuple[Region, ...]) -> Tiles:
        return Tiles(regions, classes=classes, coding=coding, config=config, margin_px=margin)

    return Material(
        bands=dataset.bands,
        classes=classes,
        normalisation=statistics.normalisation,
        class_counts=statistics.class_pixels,
        crops=Crops(train, classes=classes, coding=coding, config=config, statistics=statistics, length=length, seed=seed),
        training=tiles(train),
        validation=tiles(validation) if validation else None,
        one_size=True,
        images=len({region.image for region in train}),
        split=split.rule,
        leakage=check_leakage(split).verdict,
        fingerprint=fingerprint(train),
        save_split=partial(save_split, split),
    )


def judging(split: Split, config: DataConfig, *, classes: Classes) -> tuple[Region, ...]:
    """The regions to validate on, none where nothing is labelled there; that is warned of, and such a test split."""
    found = {name: split.of(name) for name in JUDGES}
    for name, regions in found.items():
        if regions and not any_labelled(regions, classes=classes, coding=split.coding, config=config):
            log.warning(
                "no pixel of the %s split has a label (%d regions, %s for one), so that %s; label some, or split the data "
                "otherwise (data.split)",
                *(name, len(regions), regions[0].label, JUDGES[name]),
            )
            found[name] = ()
    return found["validation"]


def from_datasets(experiment: Experiment, train: Samples, validation: Samples | None) -> Material:
    """Measure a dataset that yields dictionaries."""
    normalisation, class_counts = measure_samples(train)
    length = _crops_between_validations(experiment)
    name = type(train.dataset).__name__
    told = f"{name} {len(train)} {normalisation} {class_counts}"
    return Material(
        bands=train.bands,
        classes=train.classes,
        normalisation=normalisation,
        class_counts=class_counts,
        crops=SampleCrops(train, normalisation=normalisation, config=experiment.data, length=length, seed=experiment.seed),
        training=train,
        validation=validation,
        one_size=False,
        images=len(train),
        split=f"as {name} has it: {len(train)} samples train, {0 if validation is None else len(validation)} validate",
        leakage=f"not checked: {name} does not say where its samples lie",
        fingerprint=hashlib.sha256(told.encode()).hexdigest()[:16],
    )


def _crops_between_validations(experiment: Experiment) -> int:
    return 0 if experiment.train is None else experiment.train.batch * experiment.train.validate_every


def fingerprint(regions: tuple[Region, ...]) -> str:
    """16 hexadecimal digits of SHA-256 over names, sizes and windows of images and labels."""
    digest = hashlib.sha256()
    for region in sorted(regions, key=lambda r: (r.image, r.window.row, r.window.col)):
        for path in map(Path, (*files_of(region.image), region.label)):
            digest.update(f"{path.name} {path.stat().st_size if path.is_file() else 0} ".encode())
        digest.update(repr(region.window).encode())
    return digest.hexdigest()[:16]
