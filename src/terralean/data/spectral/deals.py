"""Ways of dealing labelled pixels: all over the scene, by squares of it, or by scene."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from terralean.data.deal import deal
from terralean.data.spectral.config import SpectralSplitConfig
from terralean.data.spectral.pixels import Pixels
from terralean.data.spectral.places import nearest_px, places
from terralean.data.spectral.scenes import SpectralDataset
from terralean.data.words import listed
from terralean.errors import DatasetError

DEALS = 40  # that are tried with squares of one size
SMALLEST_BLOCK_PX = 4
VALIDATION_SIDE = 0.25  # of the squares that are not for test


@dataclass(frozen=True, kw_only=True, eq=False)
class Dealt:
    """The pixels of each part before the test is kept apart, and how they came about."""

    train: Pixels
    validation: Pixels
    test: Pixels
    rule: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """What is to be dealt."""

    dataset: SpectralDataset
    split: SpectralSplitConfig
    pixels: Pixels
    origin: NDArray[np.int64]
    seed: int
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rng", np.random.default_rng(self.seed))

    @property
    def counts(self) -> NDArray[np.int64]:
        """Pixels of each class (K,)."""
        return self.pixels.counts(len(self.dataset.classes))


def wanted(counts: NDArray[np.int64], split: SpectralSplitConfig) -> NDArray[np.int64]:
    """Training pixels (K,) of classes with so many labelled pixels: one at least is left to test on, unless it is the only."""
    share = np.full(len(counts), split.per_class) if split.per_class else np.round(split.share * counts).astype(np.int64)
    return np.minimum(np.maximum(share, split.least if split.per_class is None else 1), np.maximum(counts - 1, counts > 0))


def random_pixels(task: Task) -> Dealt:
    """Training and validation pixels drawn all over the scene."""
    pixels, counts = task.pixels, task.counts
    train = draw(pixels, wanted(counts, task.split), task.rng)
    left = counts - pixels.take(train).counts(len(counts))
    more = np.minimum(_validated(pixels.take(train).counts(len(counts)), task.split), np.maximum(left - 1, 0))
    rest = np.flatnonzero(~train)
    validation = rest[draw(pixels.take(rest), more, task.rng)]
    test = np.setdiff1d(rest, validation)
    return Dealt(
        train=pixels.take(train),
        validation=pixels.take(validation),
        test=pixels.take(test),
        rule=f"random pixels: {_in_words(task.split)} train (seed {task.seed})",
    )


def squares(task: Task) -> Dealt:
    """The first deal that has every class on both sides; of smaller and smaller squares where none has."""
    split = task.split
    first = split.block_px or 2 * split.window_px
    sides = [first] if split.block_px else [side for i in range(8) if (side := first >> i) >= SMALLEST_BLOCK_PX] or [first]
    best = _deal_blocks(task, side=first)
    fewest = _lacking(best, task)
    for side in (side for side in sides for _ in range(DEALS)):
        if not fewest:
            break
        found = _deal_blocks(task, side=side)
        if (lacking := _lacking(found, task)) < fewest:
            best, fewest = found, lacking
    return best


def whole_scenes(task: Task) -> Dealt:
    """Some scenes for test, and pixels drawn in the others."""
    split, names = task.split, [scene.name for scene in task.dataset.scenes]
    if unknown := [name for name in split.test_scenes if name not in names]:
        raise DatasetError(f"data.split.test_scenes: no scene {', '.join(unknown)}; there are {listed(names)}")
    testing = np.isin(task.pixels.scene, [names.index(name) for name in split.test_scenes])
    learn = task.pixels.take(~testing)
    counts = learn.counts(len(task.dataset.classes))
    drawn = draw(learn, wanted(counts, split), task.rng)
    rest = learn.take(~drawn)
    validation = rest.take(draw(rest, _validated(learn.take(drawn).counts(len(counts)), split), task.rng))
    return Dealt(
        train=learn.take(drawn),
        validation=validation,
        test=task.pixels.take(testing),
        rule=f"tested on {', '.join(split.test_scenes)}; of the other scenes {_in_words(split)} train (seed {task.seed})",
    )


def _deal_blocks(task: Task, *, side: int) -> Dealt:
    split, pixels = task.split, task.pixels
    outer = _sides_of(task, pixels, side=side, shares=(1 - split.test, 0.0, split.test))
    learn, test = pixels.take(outer != 2), pixels.take(outer == 2)  # noqa: PLR2004 - the place of test in NAMES
    apart = VALIDATION_SIDE if split.validation else 0.0
    inner = _sides_of(task, learn, side=max(side // 2, 1), shares=(1 - apart, apart, 0.0))
    mine, validating = learn.take(inner == 0), learn.take(inner == 1)
    train = mine.take(draw(mine, wanted(task.counts, split), task.rng))
    validation = validating.take(draw(validating, _validated(train.counts(len(task.counts)), split), task.rng))
    return Dealt(
        train=train,
        validation=validation,
        test=test,
        rule=(
            f"squares of {side} px, {100 * split.test:g} % of them for test: {_in_words(split)} train, "
            f"validation in squares of {max(side // 2, 1)} px of the same side (seed {task.seed})"
        ),
    )


def _sides_of(task: Task, pixels: Pixels, *, side: int, shares: tuple[float, float, float]) -> NDArray[np.int64]:
    """The part (n,) that the square of each pixel is dealt to."""
    if not len(pixels):  # all squares are for test
        return np.zeros(0, np.int64)
    squares, number = np.unique(places(pixels, task.origin) // side, axis=0, return_inverse=True)
    counts = np.zeros((len(squares), len(task.dataset.classes)), np.int64)
    np.add.at(counts, (number.ravel(), pixels.label), 1)
    return deal(counts, shares=shares, rng=task.rng)[number.ravel()]


def _lacking(found: Dealt, task: Task) -> int:
    """Classes that could be on both sides and are not, with the pixels left out that are too near."""
    near = nearest_px(places(found.test, task.origin), places(found.train, task.origin)) <= task.split.reach_px
    classes = len(task.dataset.classes)
    both = (found.train.counts(classes) > 0) & (found.test.take(~near).counts(classes) > 0)
    return int(((task.counts > 1) & ~both).sum())


def draw(pixels: Pixels, counts: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which pixels (n,) are drawn: so many of each class (K,), or all where there are fewer."""
    chosen = np.zeros(len(pixels), bool)
    for cls, count in enumerate(counts):
        chosen[rng.permutation(np.flatnonzero(pixels.label == cls))[:count]] = True
    return chosen


def _validated(drawn: NDArray[np.int64], split: SpectralSplitConfig) -> NDArray[np.int64]:
    """Validation pixels (K,) of classes of which so many are drawn to train on."""
    each = split.validation * drawn
    share = min(1.0, split.validation_most / max(each.sum(), 1))
    return np.ceil(share * each).astype(np.int64)


def _in_words(split: SpectralSplitConfig) -> str:
    if split.per_class:
        return f"{split.per_class} px of each class"
    return f"{100 * split.share:g} % of each class, {split.least} px at least,"
