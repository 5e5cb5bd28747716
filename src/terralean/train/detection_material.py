"""What a detector of oriented boxes learns from, of a folder of images with labelled objects."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from terralean.data.oriented.crops import (
    ObjectCrops,
    ObjectTiles,
    Tiled,
    bands_of,
    collate,
    count_objects,
    cut_pictures,
    measure_tiles,
    training_tiles,
)
from terralean.data.oriented.layouts import Picture, find_objects
from terralean.data.oriented.samples import ObjectSamples
from terralean.data.oriented.split import deal_objects, leakage, save_objects_split
from terralean.errors import BandMismatch
from terralean.spec import Bands, Normalisation
from terralean.train.detection_config import DetectionExperiment
from terralean.train.material import Material
from terralean.train.scene_material import IMAGENET

log = logging.getLogger(__name__)


def from_objects(experiment: DetectionExperiment, root: Path) -> Material:
    """Find, check, deal, cut and measure a folder of images with objects."""
    config, seed = experiment.data, experiment.seed
    found = find_objects(root, config)
    split = deal_objects(found, config, seed=seed)
    train, validation, classes = split.of("train"), split.of("validation"), found.classes
    tiles, empty = training_tiles(train, classes=classes, config=config)
    bands = bands_of(train, config)
    normalisation = _normalisation(experiment, tiles, bands)
    judged = ObjectTiles(cut_pictures(validation, config, judge=True), classes=classes, config=config)
    log.info("%d training tiles of %d px with objects, %d validation tiles", len(tiles), config.tile_px, len(judged))
    return Material(
        bands=bands,
        classes=classes,
        normalisation=normalisation,
        class_counts=count_objects(tiles, classes=classes),
        crops=_crops(experiment, tiles, empty, normalisation=normalisation),
        validation=judged if len(judged) else None,
        one_size=True,
        images=len(train),
        split=split.rule,
        leakage=leakage(split),
        fingerprint=objects_fingerprint(train),
        save_split=partial(save_objects_split, split),
        tiles=len(tiles),
        collate=collate,
    )


def from_object_datasets(experiment: DetectionExperiment, train: ObjectSamples, validation: ObjectSamples | None) -> Material:
    """Measure a dataset that yields dictionaries; see data.oriented.samples.from_object_samples."""
    config = experiment.data
    tiles = train.of_side(config.tile_px)
    counts = count_objects(tiles, classes=train.classes)
    normalisation = _normalisation(experiment, tiles, train.bands)
    name = type(train.dataset).__name__
    told = f"{name} {len(train)} {normalisation} {counts}"
    return Material(
        bands=train.bands,
        classes=train.classes,
        normalisation=normalisation,
        class_counts=counts,
        crops=_crops(experiment, tiles, None, normalisation=normalisation),
        validation=None if validation is None else validation.of_side(config.tile_px),
        one_size=True,
        images=len(train),
        split=f"as {name} has it: {len(train)} samples train, {0 if validation is None else len(validation)} validate",
        leakage=f"not checked: {name} does not say where its samples lie",
        fingerprint=hashlib.sha256(told.encode()).hexdigest()[:16],
        tiles=len(tiles),
        collate=collate,
    )


def _crops(
    experiment: DetectionExperiment, tiles: Tiled, empty: ObjectTiles | None, *, normalisation: Normalisation
) -> ObjectCrops:
    """One epoch of Lightning: as many as there are between two validations."""
    course = experiment.train.course(tiles=len(tiles))
    length = course.batch * course.validate_every
    return ObjectCrops(tiles, empty, normalisation=normalisation, config=experiment.data, length=length, seed=experiment.seed)


def objects_fingerprint(pictures: Sequence[Picture]) -> str:
    """16 hexadecimal digits of SHA-256 over names, sizes and objects of images."""
    digest = hashlib.sha256()
    for one in sorted(pictures, key=lambda one: one.record.image):
        path = Path(one.record.image)
        digest.update(f"{path.name} {path.stat().st_size} ".encode())
        digest.update(one.record.polygons.tobytes() + one.record.labels.tobytes() + one.record.difficult.tobytes())
    return digest.hexdigest()[:16]


def _normalisation(experiment: DetectionExperiment, tiles: Tiled, bands: Bands) -> Normalisation:
    if experiment.train.normalise == "data":
        return measure_tiles(tiles, bands=bands, seed=experiment.seed)
    if len(bands) != len(IMAGENET.mean):
        raise BandMismatch(
            f"train.normalise imagenet is for red, green and blue, the images have {len(bands)} bands: "
            f"{', '.join(bands.names)}; choose three with data.bands, or set train.normalise=data"
        )
    return IMAGENET
