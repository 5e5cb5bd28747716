"""What a map must beat: the commonest class, and a random forest on single pixels.

They see the same training pixels as the model. A forest that also sees what surrounds a pixel is a model of its own, trained by
the recipe random_forest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from terralean.errors import BandMismatch, EmptySplit, GridMismatch
from terralean.spec import IGNORE

CHUNK_BYTES = 1 << 27  # values and votes of one chunk of rows
TREES = 100
LEAF = 5  # training pixels in a leaf at least: half the leaves of 2, faster, and no less right on noisy scenes


@dataclass(frozen=True, kw_only=True, slots=True)
class Majority:
    """Every pixel is of the commonest class of the training pixels."""

    label: int
    name: str = "Commonest class everywhere"

    def predict(self, values: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Label every pixel: values (C, H, W), valid (H, W) -> (H, W), 255 where not valid."""
        return np.where(valid, self.label, IGNORE).astype(np.uint8)


@dataclass(frozen=True, kw_only=True, slots=True)
class Forest:
    """A random forest on the band values of a pixel."""

    trees: RandomForestClassifier
    bands: int
    name: str = "Random forest, single pixels"

    def predict(self, values: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Label every pixel: values (C, H, W), valid (H, W) -> (H, W), 255 where not valid. Memory beyond these is bounded."""
        if len(values) != self.bands:
            raise BandMismatch(
                f"the image has {len(values)} bands, the forest was trained on {self.bands}; give it the same bands"
            )
        height, width = valid.shape
        labels = np.full((height, width), IGNORE, np.uint8)
        rows = max(1, CHUNK_BYTES // (8 * width * (self.bands + 2 * len(self.trees.classes_))))
        for top in range(0, height, rows):
            part = slice(top, top + rows)
            inside = valid[part]
            if inside.any():
                labels[part][inside] = self.trees.predict(values[:, part][:, inside].T.astype(np.float32))
        return labels


def majority(train_labels: NDArray[Any]) -> Majority:
    """Find the commonest class of labels (n,); 255 does not count, the lowest value wins a tie."""
    return Majority(label=int(np.bincount(_labelled(train_labels)).argmax()))


def pixel_forest(train_values: NDArray[Any], train_labels: NDArray[Any], *, seed: int, trees: int = TREES) -> Forest:
    """Train a forest on single pixels: train_values (n, C) band values, train_labels (n,)."""
    chosen = _labelled(train_labels)
    forest = RandomForestClassifier(trees, min_samples_leaf=LEAF, random_state=seed, n_jobs=-1)
    forest.fit(train_values[np.asarray(train_labels) != IGNORE], chosen)
    forest.set_params(n_jobs=1)  # several threads add the votes in any order, and rounding can then turn a tie
    return Forest(trees=forest, bands=train_values.shape[1])


def sample_pixels(
    values: NDArray[Any], valid: NDArray[np.bool_], labels: NDArray[Any], *, count: int, generator: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Up to `count` valid, labelled pixels, all equally likely: values (C, H, W), labels (H, W) -> (n, C), (n,)."""
    if labels.shape != valid.shape or values.shape[1:] != valid.shape:
        raise GridMismatch(f"values {values.shape}, valid {valid.shape} and labels {labels.shape} differ in height or width")
    places = np.flatnonzero(valid & (labels != IGNORE))
    chosen = np.sort(generator.choice(places, size=min(count, places.size), replace=False))
    return values.reshape(len(values), -1)[:, chosen].T.astype(np.float32), labels.reshape(-1)[chosen].astype(np.uint8)


def _labelled(labels: NDArray[Any]) -> NDArray[np.int64]:
    chosen = np.asarray(labels, np.int64)
    chosen = chosen[chosen != IGNORE]
    if not chosen.size:
        raise EmptySplit("no training pixel has a label; a baseline needs at least one, so label some or leave baselines out")
    return chosen
