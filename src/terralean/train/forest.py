"""Fit a random forest to labelled pixels of the training area, and make of it a model like any other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor

from terralean.data.crops import Tiles
from terralean.data.sample import Sample
from terralean.data.samples import Samples
from terralean.errors import EmptySplit
from terralean.models.forest import Forest, features, write_sides
from terralean.predict.normalise import Normalise
from terralean.train.callbacks import Progress
from terralean.train.config import ForestConfig
from terralean.train.course import MIOU
from terralean.train.material import Material
from terralean.train.module import confusion, overall_scores

POWERS = {"none": 1.0, "root": 0.5, "full": 0.0}  # of the pixels that a class has, by config.balance
TREES_AT_ONCE = 10  # between two words to the user


@dataclass(frozen=True, kw_only=True)
class Grown:
    """A fitted forest, and what it took."""

    model: Forest
    miou: float | None  # on the validation split; None where there is none
    seconds: float

    @property
    def sizes(self) -> dict[str, bool | int | float | str]:
        """What models.forest.forest needs to build one of this shape."""
        model = self.model
        return {"trees": len(model.root), "nodes": len(model.feature), "sides_px": write_sides(model.sides_px)}

    @property
    def cost(self) -> dict[str, int]:
        """As of other models; a forest compares where a network multiplies."""
        return {"parameters": 0, "macs_layers": 0, "macs_attention": 0, "nodes": len(self.model.feature)}


def grow(config: ForestConfig, material: Material, *, seed: int, tell: Callable[[Progress], None]) -> Grown:
    """Draw pixels, fit, and score on the validation split. The same seed and data give the same forest to the last bit."""
    began = time.monotonic()
    values, labels = draw_pixels(config, material, seed=seed)
    model = hold(
        fit(config, values, labels, seed=seed, tell=tell),
        bands=len(material.bands),
        classes=len(material.classes),
        sides_px=config.sides_px,
    )
    miou = None if material.validation is None else _validate(model, material, cast("Tiles | Samples", material.validation))
    return Grown(model=model, miou=miou, seconds=time.monotonic() - began)


def draw_pixels(config: ForestConfig, material: Material, *, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Labelled pixels of the training area, all of a class equally likely: features (n, F), labels (n,)."""
    wanted = quotas(material.class_counts, total=config.pixels, power=POWERS[config.balance])
    if not wanted.any():
        raise EmptySplit("no training pixel has a label; label some, or split the data otherwise")
    rng = np.random.default_rng(seed)
    # By their number among all pixels of the class, in the order in which tiles show them.
    chosen = [
        np.sort(rng.choice(n, w, replace=False, shuffle=False)) for n, w in zip(material.class_counts, wanted, strict=True)
    ]
    normalise, before = Normalise(material.normalisation), np.zeros(len(chosen), np.int64)
    found = []
    assert material.training is not None
    for sample in _each(cast("Tiles | Samples", material.training)):
        places = _places(sample["mask"].numpy().ravel(), chosen, before)
        if len(places):
            seen = features(_seen(sample, normalise), sides_px=config.sides_px)[0].flatten(1)
            found.append((seen[:, places].T.numpy(), sample["mask"].flatten()[places].numpy()))
    return np.concatenate([values for values, _ in found]), np.concatenate([labels for _, labels in found])


def quotas(class_pixels: Sequence[int], *, total: int, power: float) -> NDArray[np.int64]:
    """How many pixels of each class (K,), in proportion to this power of how many there are, one at least, never more than all.

    What a small class cannot give the others do.
    """
    there = np.asarray(class_pixels, np.int64)
    weight = np.where(there > 0, np.maximum(there, 1).astype(np.float64) ** power, 0)
    wanted, open_ = np.zeros(len(there), np.int64), there > 0
    while open_.any():
        share = (total - wanted.sum()) * weight * open_ / (weight * open_).sum()
        share = np.maximum(share.astype(np.int64), open_)
        short = open_ & (share >= there)
        if not short.any():
            return wanted + share
        wanted[short], open_ = there[short], open_ & ~short
    return wanted


def fit(
    config: ForestConfig,
    values: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    seed: int,
    tell: Callable[[Progress], None],
) -> RandomForestClassifier:
    """scikit-learn's forest of features (n, F) and labels (n,), grown some trees at a time, which changes nothing in them."""
    forest = RandomForestClassifier(
        min_samples_leaf=config.min_leaf, max_depth=config.depth, random_state=seed, warm_start=True, n_jobs=-1
    )
    for done in [*range(TREES_AT_ONCE, config.trees, TREES_AT_ONCE), config.trees]:
        forest.set_params(n_estimators=done).fit(values, labels)
        tell(Progress(step=done, steps=config.trees, loss=None, best=None, score=MIOU.name))
    return forest


def hold(forest: RandomForestClassifier, *, bands: int, classes: int, sides_px: Sequence[int]) -> Forest:
    """The model that answers as this forest does. Classes that it never saw have no votes."""
    trees = [_Tree.of(tree.tree_, values=forest.classes_, classes=classes) for tree in forest.estimators_]
    first = np.cumsum([0, *(len(tree.feature) for tree in trees)])
    model = Forest(bands=bands, classes=classes, trees=len(trees), nodes=int(first[-1]), sides_px=sides_px)
    state = {
        "feature": np.concatenate([tree.feature for tree in trees]),
        "threshold": np.concatenate([tree.threshold for tree in trees]),
        "below": np.concatenate([tree.below + start for tree, start in zip(trees, first, strict=False)]),
        "root": first[:-1],
        "probability": np.concatenate([tree.probability for tree in trees]),
    }
    model.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return model.eval()


@dataclass(frozen=True, kw_only=True)
class _Tree:
    """One tree in the order of models.forest.Forest: level by level, the two nodes below a node side by side."""

    feature: NDArray[np.int64]  # (nodes,)
    threshold: NDArray[np.float32]  # (nodes,)
    below: NDArray[np.int64]  # (nodes,)
    probability: NDArray[np.float64]  # (leaves, classes)

    @classmethod
    def of(cls, tree: Any, *, values: NDArray[Any], classes: int) -> _Tree:
        """From scikit-learn's; `values` (k,) are the classes that its columns stand for."""
        order = _by_level(tree.children_left, tree.children_right)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        leaf = tree.children_left[order] < 0
        probability = np.zeros((leaf.sum(), classes))
        probability[:, values.astype(np.int64)] = tree.value[order[leaf], 0]
        return cls(
            feature=np.where(leaf, 0, tree.feature[order]),
            threshold=np.where(leaf, np.inf, _not_above(tree.threshold[order])).astype(np.float32),
            below=np.where(leaf, np.arange(len(order)), place[tree.children_left[order]]),
            probability=probability,
        )


def _by_level(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """Nodes from the root down, level by level; -1 in `left` and `right` where there is none below."""
    levels = [np.zeros(1, np.int64)]
    while len(inner := levels[-1][left[levels[-1]] >= 0]):
        levels.append(np.stack([left[inner], right[inner]], axis=1).ravel())
    return np.concatenate(levels)


def _not_above(threshold: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 up to each threshold: a float32 is above the one exactly where it is above the other."""
    near = threshold.astype(np.float32)
    return np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)


def _each(samples: Tiles | Samples) -> Iterator[Sample]:
    """One by one, as a batch of one; a Dataset is not iterable by itself."""
    for index in range(len(samples)):
        yield samples[index]


def _seen(sample: Sample, normalise: Normalise) -> Tensor:
    """What a model sees of a sample, (1, C, H, W)."""
    return normalise(sample["image"][None], sample["valid"][None])


def _places(mask: NDArray[np.int64], chosen: Sequence[NDArray[np.int64]], before: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where in a flat mask the chosen pixels are; `before` counts the pixels of each class up to here, and goes on."""
    places = []
    for value, numbers in enumerate(chosen):
        here = np.flatnonzero(mask == value)
        low, high = np.searchsorted(numbers, [before[value], before[value] + len(here)])
        places.append(here[numbers[low:high] - before[value]])
        before[value] += len(here)
    return np.concatenate(places)


def _validate(model: Forest, material: Material, validation: Tiles | Samples) -> float:
    """Mean IoU over all labelled pixels, by the model itself as it will answer."""
    normalise, counts = Normalise(material.normalisation), torch.zeros(1, dtype=torch.int64)
    with torch.inference_mode():
        for sample in _each(validation):
            counts = counts + confusion(model(_seen(sample, normalise)), sample["mask"][None])
    return overall_scores(counts)["val_miou"]
