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
    bands_of,
    collate,
    count_objects,
    cut_pictures,
    measure_tiles,
    training_tiles,
)
from terralean.data.oriented.layouts import Picture, find_objects
from terralean.data.oriented.split import deal_objects, leakage, save_objects_split
from terralean.errors import BandMismatch, ConfigError
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
    course = experiment.train.course(tiles=len(tiles))
    judged = ObjectTiles(cut_pictures(validation, config, judge=True), classes=classes, config=config)
    log.info("%d training tiles of %d px with objects, %d validation tiles", len(tiles), config.tile_px, len(judged))
    return Material(
        bands=bands,
        classes=classes,
        normalisation=normalisation,
        class_counts=count_objects(tiles, classes=len(classes)),
        crops=ObjectCrops(
            tiles,
            empty,
            normalisation=normalisation,
            config=config,
            length=course.batch * course.validate_every,
            seed=seed,
        ),
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


def from_no_objects(experiment: DetectionExperiment, train: object, validation: object) -> Material:
    """Datasets that yield dictionaries are not taken."""
    raise ConfigError("task detection learns from a folder; write the dataset's objects as DOTA's labelTxt beside the images")


def objects_fingerprint(pictures: Sequence[Picture]) -> str:
    """16 hexadecimal digits of SHA-256 over names, sizes and objects of images."""
    digest = hashlib.sha256()
    for one in sorted(pictures, key=lambda one: one.record.image):
        path = Path(one.record.image)
        digest.update(f"{path.name} {path.stat().st_size} ".encode())
        digest.update(one.record.polygons.tobytes() + one.record.labels.tobytes() + one.record.difficult.tobytes())
    return digest.hexdigest()[:16]


def _normalisation(experiment: DetectionExperiment, tiles: ObjectTiles, bands: Bands) -> Normalisation:
    if experiment.train.normalise == "data":
        return measure_tiles(tiles, bands=bands, seed=experiment.seed)
    if len(bands) != len(IMAGENET.mean):
        raise BandMismatch(
            f"train.normalise imagenet is for red, green and blue, the images have {len(bands)} bands: "
            f"{', '.join(bands.names)}; choose three with data.bands, or set train.normalise=data"
        )
    return IMAGENET
