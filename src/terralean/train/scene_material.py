"""What a scene classifier learns from, of a folder of labelled images."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from terralean.data.scene_check import Seen, check_images
from terralean.data.scene_crops import SceneCrops, SceneViews
from terralean.data.scene_index import SceneImage, find_scenes
from terralean.data.scene_leakage import scene_leakage
from terralean.data.scene_reading import Pictures, SceneFiles
from terralean.data.scene_split import deal_scenes, save_scene_split
from terralean.data.scene_statistics import measure_scenes
from terralean.errors import BandMismatch
from terralean.spec import Bands, Normalisation
from terralean.train.material import Material
from terralean.train.scene_config import SceneExperiment

log = logging.getLogger(__name__)

# Of red, green and blue in 0..255, as the weights that others trained on ImageNet expect them.
IMAGENET = Normalisation(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
WORD_S = 30.0  # between two words on how far the check is


def from_scenes(experiment: SceneExperiment, root: Path) -> Material:
    """Find, check, deal and measure a folder of images that each have a class."""
    config, seed = experiment.data, experiment.seed
    checked = check_images(find_scenes(root, config), config, progress=_word())
    dataset = checked.dataset
    split = deal_scenes(dataset, config, seed=seed)
    train, validation = split.of("train"), split.of("validation")

    def pictures(images: Sequence[SceneImage]) -> Pictures:
        return SceneFiles(images, bands=dataset.bands, classes=dataset.classes, config=config)

    measured, counts = measure_scenes(pictures(train), seed=seed)
    normalisation = _imagenet(dataset.bands) if experiment.train.normalise == "imagenet" else measured
    views = SceneViews(pictures(validation), config=config) if validation else None
    return Material(
        bands=dataset.bands,
        classes=dataset.classes,
        normalisation=normalisation,
        class_counts=counts,
        crops=_crops(experiment, pictures(train), normalisation=normalisation),
        validation=views,
        one_size=views is None or views.one_size,
        images=len(train),
        split=split.rule,
        leakage=scene_leakage(split, seen=checked.seen),
        fingerprint=scene_fingerprint(train, seen=checked.seen),
        save_split=partial(save_scene_split, split),
        side_px=round(checked.side_px * config.size_px / config.resize_px),
    )


def from_pictures(experiment: SceneExperiment, train: Pictures, validation: Pictures | None) -> Material:
    """Measure images that somebody else's datasets hold; see data.scene_samples."""
    config, seed = experiment.data, experiment.seed
    measured, counts = measure_scenes(train, seed=seed)
    normalisation = _imagenet(train.bands) if experiment.train.normalise == "imagenet" else measured
    views = None if validation is None else SceneViews(validation, config=config)
    told = f"{len(train)} {measured} {counts}"
    return Material(
        bands=train.bands,
        classes=train.classes,
        normalisation=normalisation,
        class_counts=counts,
        crops=_crops(experiment, train, normalisation=normalisation),
        validation=views,
        one_size=views is None or views.one_size,
        images=len(train),
        split=f"as the datasets have it: {len(train)} images train, {0 if validation is None else len(validation)} validate",
        leakage="not checked: the datasets do not say where their images lie",
        fingerprint=hashlib.sha256(told.encode()).hexdigest()[:16],
        side_px=config.size_px,
    )


def _crops(experiment: SceneExperiment, train: Pictures, *, normalisation: Normalisation) -> SceneCrops:
    """One epoch of Lightning: as many as there are between two validations."""
    length = experiment.train.batch * experiment.train.course(images=len(train)).validate_every
    return SceneCrops(train, normalisation=normalisation, config=experiment.data, length=length, seed=experiment.seed)


def scene_fingerprint(images: Sequence[SceneImage], *, seen: Mapping[str, Seen]) -> str:
    """16 hexadecimal digits of SHA-256 over names, classes and pixels of images."""
    digest = hashlib.sha256()
    for image in sorted(images, key=lambda image: image.path):
        digest.update(f"{Path(image.path).name} {image.label} {seen[image.path].digest} ".encode())
    return digest.hexdigest()[:16]


def _imagenet(bands: Bands) -> Normalisation:
    if len(bands) != len(IMAGENET.mean):
        raise BandMismatch(
            f"train.normalise imagenet is for red, green and blue, the images have {len(bands)} bands: "
            f"{', '.join(bands.names)}; choose three with data.bands, or set train.normalise=data"
        )
    return IMAGENET


def _word() -> Callable[[int, int], None]:
    """Says now and then how many images were looked at."""
    last = time.monotonic()

    def word(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > WORD_S:
            last = time.monotonic()
            log.info("%d of %d images looked at", done, total)

    return word
