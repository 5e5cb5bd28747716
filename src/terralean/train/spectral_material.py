"""What a classifier of pixels learns from: patches of labelled cubes."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from terralean.data.spectral.leakage import check_leakage
from terralean.data.spectral.parts import PixelSplit, fingerprint, save_split
from terralean.data.spectral.patches import (
    CubeReader,
    PixelCrops,
    PixelPatches,
    normalisation_of,
    normalised,
    open_cubes,
    scene_spectra,
    spectra,
    with_data,
)
from terralean.data.spectral.scenes import SpectralDataset, find_cubes
from terralean.data.spectral.split import deal_pixels, known_pixels
from terralean.errors import ConfigError
from terralean.models import create
from terralean.train.material import Material
from terralean.train.spectral_config import SpectralExperiment

log = logging.getLogger(__name__)

NO_DATA_HELD = {"training": "the training pixels", "scene": "all pixels of the scene, test pixels too (transductive)"}


def from_cubes(experiment: SpectralExperiment, root: Path) -> Material:
    """Find, check, deal and measure labelled pixels."""
    config, seed = experiment.data, experiment.seed
    dataset = find_cubes(root, config)
    window_px = window_of(experiment, bands=len(dataset.bands), classes=len(dataset.classes))
    if window_px > config.split.window_px:
        raise ConfigError(
            f"model {experiment.model.name} sees {window_px} px, the split keeps test pixels apart for windows of "
            f"{config.split.window_px} px; raise --set data.split.window_px={window_px}, for all runs that are compared"
        )
    readers = open_cubes([scene.image for scene in dataset.scenes], bands=config.bands)
    split = deal_pixels(dataset, config, with_data(known_pixels(dataset, config), readers), seed=seed)
    for name, found in split.counts(dataset.classes.names).items():
        log.info("%s: %d px train, %d validate, %d test", name, found["train"], found["validation"], found["test"])
    for note in split.notes:
        log.warning("%s", note)
    leakage = check_leakage(split, classes=len(dataset.classes))
    return _material(experiment, dataset, readers, split, leakage=leakage.verdict, window_px=window_px)


def _material(
    experiment: SpectralExperiment,
    dataset: SpectralDataset,
    readers: list[CubeReader],
    split: PixelSplit,
    *,
    leakage: str,
    window_px: int,
) -> Material:
    config, fitted = experiment.data, NO_DATA_HELD[experiment.data.fitted_on]
    if config.fitted_on == "scene":
        values, normalisation = scene_spectra(readers, seed=experiment.seed)
    else:
        values = spectra(split.train, readers)
        normalisation = normalisation_of(values, bands=dataset.bands, told=dataset.root)
    patches = partial(PixelPatches, readers, side_px=window_px)
    training = patches(split.train)
    train = experiment.train
    crops = PixelCrops(
        training,
        normalisation=normalisation,
        config=config.augment,
        balance="none" if train is None else train.balance,
        length=0 if train is None else train.batch * train.validate_every,
        seed=experiment.seed,
    )
    notes = "".join(f"; {note}" for note in split.notes)
    return Material(
        bands=dataset.bands,
        classes=dataset.classes,
        normalisation=normalisation,
        class_counts=tuple(split.train.counts(len(dataset.classes)).tolist()),
        crops=crops,
        validation=patches(split.validation) if len(split.validation) else None,
        one_size=True,
        images=len(np.unique(split.train.scene)),
        split=f"{split.rule}{notes}; values normalised by {fitted}",
        leakage=leakage,
        fingerprint=fingerprint(split),
        training=training,
        save_split=partial(save_split, split),
        side_px=window_px,
        pixels=normalised(values, normalisation),
    )


def window_of(experiment: SpectralExperiment, *, bands: int, classes: int) -> int:
    """Side in px of the patch that the model sees."""
    if experiment.svm is not None:
        return experiment.svm.side_px
    with torch.device("meta"):
        model = create(experiment.model.name, bands=bands, classes=classes, **experiment.model.sizes)
    return cast("int", model.window_px)


def from_no_samples(experiment: SpectralExperiment, train: Any, validation: Any) -> Material:
    """Nobody's datasets hold pixels of cubes."""
    raise ConfigError("task spectral learns from cubes with labels; call train.run.run with their folder, not run_samples")
