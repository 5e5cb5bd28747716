"""Simple methods scored on random pixels of the same test blocks, so that the difference from a model has an interval."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from terralean.data.reading import Reader
from terralean.data.split import Region
from terralean.evaluate import baselines, metrics
from terralean.evaluate.baselines import Forest, Majority
from terralean.evaluate.compare import Comparison
from terralean.evaluate.contenders import Ground
from terralean.evaluate.intervals import join
from terralean.evaluate.measure import Tally
from terralean.raster.grid import Window
from terralean.spec import IGNORE, Classes

TRAIN_PX = 50_000
TEST_PX = 500_000  # a forest on every pixel of a large test area would take longer than the model


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A simple method with its counts on a sample of the test pixels."""

    name: str
    explanation: str  # one line
    counts: NDArray[np.int64]  # (n, K, K + 1) of the model's blocks
    comparison: Comparison | None = None  # the model minus this

    @property
    def scores(self) -> metrics.Scores:
        """Of the sample."""
        total = self.counts.sum(axis=0)
        return metrics.score(total[:, :-1], unmapped=total[:, -1])


def score_rivals(
    train: Sequence[Region], ground: Ground, *, classes: Classes, places: NDArray[np.int64], block_px: int
) -> tuple[Rival, ...]:
    """The commonest class and a random forest on single pixels: trained where the model was, scored in the blocks `places`."""
    reader = Reader(classes=classes, coding=ground.coding, config=ground.config)
    values, labels = _training_pixels(reader, train)
    methods: tuple[Majority | Forest, ...] = (baselines.majority(labels), baselines.pixel_forest(values, labels, seed=0))
    told = ("What a map of one colour would reach", f"Sees the {values.shape[1]} values of a pixel and nothing around it")
    tallies = _tally(methods, reader, ground.regions, classes=len(classes), block_px=block_px)
    rivals = []
    for method, words, tally in zip(methods, told, tallies, strict=True):
        rivals.append(Rival(name=method.name, explanation=words, counts=_at(places, tally)))
    return tuple(rivals)


def _training_pixels(reader: Reader, train: Sequence[Region]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Labelled valid pixels, evenly over the area: (n, C) and (n,)."""
    generator = np.random.default_rng(0)
    total = sum(region.window.pixels for region in train)
    found = []
    for region in train:
        for strip in reader.strips(region.image, region.window):
            values, valid = reader.values(region.image, strip)
            labels = reader.labels(region.image, region.label, strip)
            wanted = math.ceil(TRAIN_PX * strip.pixels / total)
            found.append(baselines.sample_pixels(values, valid, labels, count=wanted, generator=generator))
    return np.concatenate([values for values, _ in found]), np.concatenate([labels for _, labels in found])


def _tally(
    methods: Sequence[Majority | Forest], reader: Reader, regions: Sequence[Region], *, classes: int, block_px: int
) -> list[Tally]:
    """Counts of each method on the same random pixels of the test area, all of them where there are fewer than TEST_PX."""
    generator = np.random.default_rng(1)
    share = TEST_PX / sum(region.window.pixels for region in regions)
    tallies = [Tally(classes=classes, side=block_px) for _ in methods]
    for index, region, strip in _strips(reader, regions):
        values, valid = reader.values(region.image, strip)
        labels = reader.labels(region.image, region.label, strip)
        chosen = valid & (labels != IGNORE) & (generator.random(valid.shape) < share)
        reference = np.where(chosen, labels, IGNORE).astype(np.uint8)
        window = replace(strip, row=strip.row - region.window.row, col=strip.col - region.window.col)
        for method, tally in zip(methods, tallies, strict=True):
            tally.add(reference, method.predict(values, chosen), region=index, window=window)
    return tallies


def _strips(reader: Reader, regions: Sequence[Region]) -> Iterator[tuple[int, Region, Window]]:
    for index, region in enumerate(regions):
        for strip in reader.strips(region.image, region.window):
            yield index, region, strip


def _at(places: NDArray[np.int64], tally: Tally) -> NDArray[np.int64]:
    """Counts in the order of `places` (n, 3): (n, K, K + 1), zeros where no pixel was drawn."""
    out = np.zeros((len(places), tally.classes, tally.classes + 1), np.int64)
    for i, place in enumerate(map(tuple, places.tolist())):
        if place in tally.counts:
            out[i] = join(*tally.counts[place])
    return out
