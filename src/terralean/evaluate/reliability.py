"""What probabilities said and what was true, summed while a map or answers pass by, in memory that does not grow with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terralean.raster.grid import Window
from terralean.spec import IGNORE

BINS = 15  # equally wide ranges of probability (Guo et al. 2017)
CELLS = 4096  # fine ranges of confidence, evenly in the logarithm of what it lacks of 1
OCTAVES = 24  # that they span: float32 knows nothing between 1 - 2^-24 and 1
LEAST = float(np.finfo(np.float32).eps)  # a probability counts as this at least in the logarithm
CHUNK = 1 << 22  # probabilities worked on at once

COUNT, SAID, TRUE = range(3)  # of a range: how many, the sum of their probabilities, how many of them were true
BRIER, LOG = range(2)  # of a block: sums of squared errors over all classes, and of negative logarithms of the true class'


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sums:
    """Sums over labelled pixels or images, from which all numbers of calibration follow; n blocks of what is alike."""

    bins: NDArray[np.float64]  # (n, BINS, 3) by the likeliest class' probability
    losses: NDArray[np.float64]  # (n, 2)
    classes: NDArray[np.float64]  # (K, BINS, 3) by each class' own probability, of all blocks
    cells: NDArray[np.float64]  # (CELLS, 3) as bins but finer, of all blocks

    def grouped(self, number: NDArray[np.int64], *, count: int) -> Sums:
        """The same with blocks put together: `number` (n,) says to which of `count` each goes."""
        bins, losses = np.zeros((count, *self.bins.shape[1:])), np.zeros((count, 2))
        np.add.at(bins, number, self.bins)
        np.add.at(losses, number, self.losses)
        return Sums(bins=bins, losses=losses, classes=self.classes, cells=self.cells)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Reliability:
    """Of probabilities as they are, and as they would be without the temperature, None where that is 1."""

    now: Sums
    before: Sums | None

    @property
    def finite(self) -> bool:
        """Whether all probabilities are numbers."""
        return bool(np.isfinite(self.now.losses).all())

    def grouped(self, number: NDArray[np.int64], *, count: int) -> Reliability:
        """As Sums.grouped."""
        before = None if self.before is None else self.before.grouped(number, count=count)
        return Reliability(now=self.now.grouped(number, count=count), before=before)


def sums(probabilities: NDArray[Any], labels: NDArray[Any], blocks: NDArray[Any], *, count: int) -> Sums:
    """probabilities (K, P), their true classes (P,) and blocks (P,) below `count`; losses tell where one is no number."""
    p = np.asarray(probabilities, np.float64)
    answer, own = p.argmax(axis=0), np.take_along_axis(p, labels[None].astype(np.intp), axis=0)[0]
    confidence, right = np.nan_to_num(p.max(axis=0)), answer == labels
    place = blocks * BINS + _range(confidence)
    brier = (p**2).sum(axis=0) - 2 * own + 1
    return Sums(
        bins=_totals(place, confidence, right, length=count * BINS).reshape(count, BINS, 3),
        losses=np.stack(
            [np.bincount(blocks, weights=w, minlength=count) for w in (brier, -np.log(own.clip(LEAST)))],
            axis=1,
        ),
        classes=_of_classes(p, labels),
        cells=_totals(_cell(confidence), confidence, right, length=CELLS),
    )


def without(probabilities: NDArray[Any], *, temperature: float) -> NDArray[np.float64]:
    """(K, P) probabilities at a temperature -> those at temperature 1.

    Exact where they are a softmax; a mean of several (where windows overlap, of several views) is taken as if it were one.
    """
    powered = np.asarray(probabilities, np.float64) ** temperature
    return powered / powered.sum(axis=0)


def of_images(probabilities: NDArray[Any], labels: NDArray[Any], *, temperature: float) -> Reliability:
    """probabilities (n, K), labels (n,): each image is a block of its own."""
    found, count = probabilities.T, len(labels)
    before = None if temperature == 1 else without(found, temperature=temperature)
    return Reliability(
        now=sums(found, labels, np.arange(count), count=count),
        before=None if before is None else sums(before, labels, np.arange(count), count=count),
    )


def joined(parts: Sequence[Reliability]) -> Reliability:
    """Of several lots of images, in order."""
    before = [part.before for part in parts if part.before is not None]
    return Reliability(now=_joined([part.now for part in parts]), before=_joined(before) if before else None)


class MapReliability:
    """Sums of a map by square blocks of each region, the very blocks of the confusion matrices."""

    def __init__(self, *, classes: int, side: int, temperature: float) -> None:
        self.classes, self.side = classes, side
        self.now = _Growing(classes)
        self.before = None if temperature == 1 else _Growing(classes)
        self.temperature = temperature

    def add(self, probabilities: NDArray[Any], reference: NDArray[np.uint8], *, region: int, window: Window) -> None:
        """A strip: probabilities (K, h, w), reference (h, w) with 255 where nothing is judged."""
        rows = max(1, CHUNK // (self.classes * max(window.width, 1)))
        for start in range(0, window.height, rows):
            part = slice(start, start + rows)
            self._add(probabilities[:, part], reference[part], region=region, row=window.row + start, col=window.col)

    def reliability(self) -> Reliability:
        """Of all that was added, blocks in order of region, row and column."""
        return Reliability(now=self.now.sums(), before=None if self.before is None else self.before.sums())

    def _add(self, probabilities: NDArray[Any], reference: NDArray[Any], *, region: int, row: int, col: int) -> None:
        down, across = np.nonzero(reference != IGNORE)
        if not down.size:
            return
        height, width = reference.shape
        first = row // self.side, col // self.side
        wide = (col + width - 1) // self.side - first[1] + 1
        count = wide * ((row + height - 1) // self.side - first[0] + 1)
        blocks = ((row + down) // self.side - first[0]) * wide + (col + across) // self.side - first[1]
        keys = [(region, first[0] + i // wide, first[1] + i % wide) for i in range(count)]
        found, labels = probabilities[:, down, across], reference[down, across].astype(np.int64)
        self.now.add(sums(found, labels, blocks, count=count), keys)
        if self.before is not None:
            found = without(found, temperature=self.temperature)
            self.before.add(sums(found, labels, blocks, count=count), keys)


class _Growing:
    """Sums to which blocks come as they pass by."""

    def __init__(self, classes: int) -> None:
        self.blocks: dict[tuple[int, int, int], tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
        self.classes, self.cells = np.zeros((classes, BINS, 3)), np.zeros((CELLS, 3))

    def add(self, more: Sums, keys: list[tuple[int, int, int]]) -> None:
        self.classes += more.classes
        self.cells += more.cells
        for key, bins, losses in zip(keys, more.bins, more.losses, strict=True):
            if bins[:, COUNT].any():
                old = self.blocks.get(key)
                self.blocks[key] = (bins.copy(), losses.copy()) if old is None else (old[0] + bins, old[1] + losses)

    def sums(self) -> Sums:
        found = [self.blocks[key] for key in sorted(self.blocks)]
        return Sums(
            bins=np.stack([bins for bins, _ in found]),
            losses=np.stack([losses for _, losses in found]),
            classes=self.classes,
            cells=self.cells,
        )


def _joined(parts: Sequence[Sums]) -> Sums:
    return Sums(
        bins=np.concatenate([part.bins for part in parts]),
        losses=np.concatenate([part.losses for part in parts]),
        classes=np.sum([part.classes for part in parts], axis=0),
        cells=np.sum([part.cells for part in parts], axis=0),
    )


def _of_classes(p: NDArray[np.float64], labels: NDArray[Any]) -> NDArray[np.float64]:
    """(K, BINS, 3). Nearly all probabilities are in the lowest range, which is what the others leave of the whole."""
    classes = len(p)
    high, at = np.nonzero(p >= 1 / BINS)
    value = p[high, at]
    found = _totals(high * BINS + _range(value), value, labels[at] == high, length=classes * BINS).reshape(classes, BINS, 3)
    whole = np.stack([np.full(classes, p.shape[1]), p.sum(axis=1), np.bincount(labels, minlength=classes)], axis=1)
    found[:, 0] += whole - found.sum(axis=1)
    return found


def _totals(place: NDArray[Any], said: NDArray[Any], true: NDArray[Any], *, length: int) -> NDArray[np.float64]:
    """(length, 3): how many are at each place, what they say and how many are true."""
    weights: tuple[NDArray[Any] | None, ...] = (None, said, true)
    return np.stack([np.bincount(place, weights=w, minlength=length).astype(np.float64) for w in weights], axis=1)


def _range(value: NDArray[np.float64]) -> NDArray[np.intp]:
    return (value * BINS).astype(np.intp).clip(0, BINS - 1)


def _cell(confidence: NDArray[np.float64]) -> NDArray[np.intp]:
    lack = (1 - confidence).clip(2.0**-OCTAVES, 1.0)
    return (-np.log2(lack) * (CELLS / OCTAVES)).astype(np.intp).clip(0, CELLS - 1)
