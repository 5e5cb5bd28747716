"""A support vector machine in the place of a trained network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from terralean.data.spectral.patches import PixelPatches
from terralean.predict.normalise import Normalise
from terralean.predict.predictor import Predictor
from terralean.tasks.pixels import shares, tally
from terralean.train.material import Material
from terralean.train.svm import FittedSVM, fit_svm
from terralean.train.svm_config import SVMConfig

BATCH = 256


def fit_to_pixels(config: SVMConfig, material: Material, *, seed: int) -> FittedSVM:
    """Fit to the training pixels, and to whatever else its components may see."""
    normalise = Normalise(material.normalisation)

    def patches() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in DataLoader(cast("PixelPatches", material.training), batch_size=BATCH):
            yield normalise(batch["image"], batch["valid"]), batch["label"]

    return fit_svm(
        config,
        patches(),
        bands=len(material.bands),
        classes=len(material.classes),
        seed=seed,
        component_pixels=material.pixels,
    )


def validate(predictor: Predictor, material: Material) -> dict[str, float]:
    """Scores of the validation pixels, with the card's temperature; nothing where there are none."""
    if material.validation is None:
        return {}
    classes = len(material.classes)
    counts, sums = torch.zeros(classes, classes, dtype=torch.int64), torch.zeros(2, dtype=torch.float64)
    for batch in DataLoader(material.validation, batch_size=BATCH):
        scores = predictor.view_scores(batch["image"], batch["valid"]).cpu() / predictor.card.temperature
        more, likely = tally(scores, batch["label"])
        counts, sums = counts + more, sums + likely
    return {key: round(value, 6) for key, value in shares(counts, sums).items() if key != "loss"}
