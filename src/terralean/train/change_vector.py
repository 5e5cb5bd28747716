"""Fit change vector analysis: the threshold and the slope, of the lengths of change in the training area."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from terralean.errors import EmptySplit
from terralean.models.change_vector import ChangeVector, change_vector, lengths, otsu
from terralean.predict.normalise import Normalise
from terralean.predict.predictor import Predictor
from terralean.tasks.change import change_scores
from terralean.train.change_config import VectorConfig
from terralean.train.material import Material
from terralean.train.module import confusion


@dataclass(frozen=True, kw_only=True)
class FittedVector:
    """Change vector analysis with its threshold."""

    model: ChangeVector
    pixels: int  # that it was fitted to
    seconds: float


def fit_vector(config: VectorConfig, material: Material) -> FittedVector:
    """Otsu's threshold of the lengths, and the slope of the log odds of two normal classes of equal spread beside it."""
    began = time.monotonic()
    counts = histogram(config, material)
    if not counts.sum():
        raise EmptySplit("no training pixel holds data in both dates; check the nodata values of the pairs")
    edge = otsu(counts) + 1
    centres = (np.arange(config.bins) + 0.5) * config.longest / config.bins
    model = change_vector(bands=len(material.bands), classes=len(material.classes))
    model.threshold.fill_(edge * config.longest / config.bins)
    model.slope.fill_(_slope(counts, centres, edge))
    return FittedVector(model=model, pixels=int(counts.sum()), seconds=time.monotonic() - began)


def histogram(config: VectorConfig, material: Material) -> NDArray[np.int64]:
    """Valid training pixels by the length of their change vectors, (bins,)."""
    assert material.training is not None
    normalise, counts = Normalise(material.normalisation), np.zeros(config.bins, dtype=np.int64)
    for sample in DataLoader(material.training, batch_size=1):
        found = lengths(normalise(sample["image"], sample["valid"]))[sample["valid"]]
        place = (found * (config.bins / config.longest)).long().clamp_max(config.bins - 1)
        counts += torch.bincount(place, minlength=config.bins).numpy()
    return counts


def validate_vector(predictor: Predictor, material: Material) -> dict[str, float]:
    """Scores on the validation split, nothing without one."""
    if material.validation is None:
        return {}
    counts = torch.zeros(2, 2, dtype=torch.int64)
    for sample in DataLoader(material.validation, batch_size=1):
        counts += confusion(predictor.scores(sample["image"], sample["valid"]).cpu(), sample["mask"])
    return {name: round(value, 6) for name, value in change_scores(counts).items()}


def _slope(counts: NDArray[np.int64], centres: NDArray[np.float64], edge: int) -> float:
    """Difference of the classes' means over their common variance."""
    means, squares = [], 0.0
    for part in (slice(None, edge), slice(edge, None)):
        weights = counts[part]
        mean = float((weights * centres[part]).sum() / weights.sum())
        means.append(mean)
        squares += float((weights * (centres[part] - mean) ** 2).sum())
    return (means[1] - means[0]) / max(squares / counts.sum(), (centres[1] - centres[0]) ** 2)
