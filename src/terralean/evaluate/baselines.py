"""What a map must beat: the commonest class, and a random forest on single pixels or on pixels with their surroundings.

The forests are what an analyst would use without a neural network. They see the same training pixels as the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from terralean.errors import BandMismatch, EmptySplit, GridMismatch
from terralean.spec import IGNORE

CONTEXT_PX = (5, 15)  # sides of the squares whose means the context variant sees beside the pixel
CHUNK_BYTES = 1 << 27  # features and votes of one chunk of rows
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
    """A random forest on band values and, where `context_px` has sides, on the means of squares around the pixel."""

    trees: RandomForestClassifier
    bands: int
    context_px: tuple[int, ...]
    name: str

    def predict(self, values: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Label every pixel: values (C, H, W), valid (H, W) -> (H, W), 255 where not valid. Memory beyond these is bounded."""
        if len(values) != self.bands:
            raise BandMismatch(
                f"the image has {len(values)} bands, the forest was trained on {self.bands}; give it the same bands"
            )
        height, width = valid.shape
        labels = np.full((height, width), IGNORE, np.uint8)
        halo = max(self.context_px, default=1) // 2
        rows = max(1, CHUNK_BYTES // (8 * width * (self.bands * (1 + len(self.context_px)) + 2 * len(self.trees.classes_))))
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            start, stop = max(0, top - halo), min(height, bottom + halo)
            seen = features(values[:, start:stop], valid[start:stop], context_px=self.context_px)
            inner, inside = seen[:, top - start : bottom - start], valid[top:bottom]
            if inside.any():
                labels[top:bottom][inside] = self.trees.predict(inner[:, inside].T)
        return labels


def majority(train_labels: NDArray[Any]) -> Majority:
    """Find the commonest class of labels (n,); 255 does not count, the lowest value wins a tie."""
    return Majority(label=int(np.bincount(_labelled(train_labels)).argmax()))


def pixel_forest(train_values: NDArray[Any], train_labels: NDArray[Any], *, seed: int, trees: int = TREES) -> Forest:
    """Train a forest on single pixels: train_values (n, C) band values, train_labels (n,)."""
    name = "Random forest, single pixels"
    return _fit(train_values, train_labels, bands=train_values.shape[1], context_px=(), name=name, seed=seed, trees=trees)


def context_forest(
    train_values: NDArray[Any],
    train_labels: NDArray[Any],
    *,
    seed: int,
    trees: int = TREES,
    context_px: Sequence[int] = CONTEXT_PX,
) -> Forest:
    """Train a forest on pixels and their surroundings: train_values (n, F) from `sample_pixels` with the same `context_px`."""
    sides = tuple(context_px)
    name = f"Random forest, pixels and means of {' and '.join(str(side) for side in sides)} px around"
    bands, left = divmod(train_values.shape[1], 1 + len(sides))
    if left:
        raise BandMismatch(
            f"{train_values.shape[1]} features are not the bands and their means over {len(sides)} squares; "
            "sample the training pixels with the same context_px"
        )
    return _fit(train_values, train_labels, bands=bands, context_px=sides, name=name, seed=seed, trees=trees)


def sample_pixels(
    values: NDArray[Any],
    valid: NDArray[np.bool_],
    labels: NDArray[Any],
    *,
    count: int,
    generator: np.random.Generator,
    context_px: Sequence[int] = (),
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Up to `count` valid, labelled pixels, all equally likely: values (C, H, W), labels (H, W) -> (n, F), (n,)."""
    if labels.shape != valid.shape or values.shape[1:] != valid.shape:
        raise GridMismatch(f"values {values.shape}, valid {valid.shape} and labels {labels.shape} differ in height or width")
    places = np.flatnonzero(valid & (labels != IGNORE))
    chosen = np.sort(generator.choice(places, size=min(count, places.size), replace=False))
    seen = features(values, valid, context_px=context_px)
    return seen.reshape(len(seen), -1)[:, chosen].T, labels.reshape(-1)[chosen].astype(np.uint8)


def features(values: NDArray[Any], valid: NDArray[np.bool_], *, context_px: Sequence[int]) -> NDArray[np.float32]:
    """Band values and, for each side in `context_px` (odd), their means over valid pixels of the square: (F, H, W)."""
    known = np.where(valid, values, 0)
    parts = [known.astype(np.float32)]
    for side in context_px:
        weight = np.maximum(_box_sums(valid[None], side_px=side), 1)
        parts.extend((_box_sums(band[None], side_px=side) / weight).astype(np.float32) for band in known)
    return np.concatenate(parts)


def _box_sums(layers: NDArray[Any], *, side_px: int) -> NDArray[np.float64]:
    """Sum (C, H, W) over the square around each pixel, as far as it lies inside the image. Exact for whole numbers."""
    sums = layers.astype(np.float64)
    for axis in (1, 2):
        length, half = sums.shape[axis], side_px // 2
        upto = np.concatenate([np.zeros_like(sums.take([0], axis)), sums.cumsum(axis)], axis)
        place = np.arange(length)
        sums = upto.take(np.minimum(place + half + 1, length), axis) - upto.take(np.maximum(place - half, 0), axis)
    return sums


def _fit(
    values: NDArray[Any],
    labels: NDArray[Any],
    *,
    bands: int,
    context_px: tuple[int, ...],
    name: str,
    seed: int,
    trees: int,
) -> Forest:
    if any(side < 1 or side % 2 == 0 for side in context_px):
        raise GridMismatch(f"context_px must be odd numbers of pixels, got {list(context_px)}")
    chosen = _labelled(labels)
    forest = RandomForestClassifier(trees, min_samples_leaf=LEAF, random_state=seed, n_jobs=-1)
    forest.fit(values[np.asarray(labels) != IGNORE], chosen)
    forest.set_params(n_jobs=1)  # several threads add the votes in any order, and rounding can then turn a tie
    return Forest(trees=forest, bands=bands, context_px=context_px, name=name)


def _labelled(labels: NDArray[Any]) -> NDArray[np.int64]:
    chosen = np.asarray(labels, np.int64)
    chosen = chosen[chosen != IGNORE]
    if not chosen.size:
        raise EmptySplit("no training pixel has a label; a baseline needs at least one, so label some or leave baselines out")
    return chosen
