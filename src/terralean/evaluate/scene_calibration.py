"""Whether a model's confidence can be believed: of answers that are 90 % sure, 90 of 100 should be right.

The expected calibration error (ECE) is the mean gap between confidence and accuracy over equally wide bins of confidence
(Naeini et al. 2015; Guo et al. 2017). Of few images it is above 0 even where confidence is perfect, so beside it stands what it
would be by chance (consistency resampling: Bröcker and Smith 2007).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terralean.evaluate.page import percent
from terralean.evaluate.scene_metrics import Answers

BINS = 15
DRAWS = 200
CHANCE = 0.95  # of the draws lie below what chance is said to reach


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """The answers of one range of confidence."""

    low: float
    high: float
    images: int
    confidence: float  # mean; NaN where there is no image
    accuracy: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """How confidence and accuracy go together."""

    bins: tuple[Bin, ...]
    ece: float
    by_chance: float  # the ECE that a perfectly calibrated model stays below in 95 of 100 such samples
    confidence: float  # mean over all images
    accuracy: float

    @property
    def shown(self) -> bool:
        """Whether the gap is more than chance."""
        return self.ece > self.by_chance


def calibrate(answers: Answers, *, generator: np.random.Generator, bins: int = BINS) -> Calibration:
    """Bins of the likeliest class' probability, each with its right answers."""
    confidence, right = answers.confidence, answers.right
    place = np.clip((confidence * bins).astype(np.int64), 0, bins - 1)
    images = np.bincount(place, minlength=bins)
    sums = np.bincount(place, weights=confidence, minlength=bins)
    hits = np.bincount(place, weights=right, minlength=bins)
    edges = np.linspace(0, 1, bins + 1).tolist()
    return Calibration(
        bins=tuple(
            Bin(
                low=edges[i],
                high=edges[i + 1],
                images=int(n),
                confidence=float(sums[i] / n) if n else math.nan,
                accuracy=float(hits[i] / n) if n else math.nan,
            )
            for i, n in enumerate(images)
        ),
        ece=_error(sums, hits, images=len(right)),
        by_chance=_by_chance(confidence, place, sums, generator=generator),
        confidence=float(confidence.mean()),
        accuracy=float(right.mean()),
    )


def sentence(found: Calibration) -> str:
    """What an analyst must know of it."""
    gap = found.confidence - found.accuracy
    said = f"it says {percent(found.confidence)} on average and is right for {percent(found.accuracy)}"
    if not found.shown:
        return f"Its confidence can be believed as far as these images can tell: {said}."
    if abs(gap) < found.ece / 2:
        return f"Its confidence is off by {percent(found.ece)} on average, too high for some answers and too low for others."
    return f"The model is {'too sure of itself' if gap > 0 else 'more often right than it is sure'}: {said}."


def _error(sums: NDArray[Any], hits: NDArray[Any], *, images: int) -> float:
    return float(np.abs(sums - hits).sum() / images)


def _by_chance(confidence: NDArray[Any], place: NDArray[Any], sums: NDArray[Any], *, generator: np.random.Generator) -> float:
    """The errors of samples in which each answer is right as often as it says."""
    found = [
        _error(
            sums,
            np.bincount(place, weights=generator.random(len(confidence)) < confidence, minlength=len(sums)),
            images=len(confidence),
        )
        for _ in range(DRAWS)
    ]
    return float(np.quantile(found, CHANCE))
