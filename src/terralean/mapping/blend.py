"""Scores of windows blended into full-width strips, from top to bottom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from terralean.mapping.plan import Plan
from terralean.mapping.reading import Batch
from terralean.predict import Predictor
from terralean.raster.grid import Window


class Weighted(NamedTuple):
    """Answers for n windows, times the share of each window in its pixels."""

    scores: NDArray[np.float32]  # (n, K, side, side) probabilities
    kept: NDArray[np.float32] | None  # (n, side, side) share of tokens kept
    kept_means: tuple[float, ...]  # of each window, before it was weighted


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Strip:
    """Full-width rows of a map that no later window touches. Arrays are overwritten once the next strip is asked for."""

    window: Window  # in px of the scene
    probabilities: NDArray[np.float32]  # (K, height, width), blended; sum to one where valid
    valid: NDArray[np.bool_]  # (height, width) pixels that are mapped
    kept: NDArray[np.float32] | None = None  # (height, width) share of tokens kept, blended
    windows: int = 0  # that were predicted for it, of those that begin in one row
    kept_sum: float = 0.0  # over these


def predict_pixels(predictor: Predictor, plan: Plan, batch: Batch, *, compute: bool = False) -> Weighted:
    """What a network says of the pixels of a batch, and with `compute` what share of their tokens it kept."""
    images, valid = torch.from_numpy(batch.values.astype(np.float32)), torch.from_numpy(batch.valid)
    kept = None
    if compute:
        probabilities, shares = predictor.with_compute(images, valid)
        kept = shares.numpy()
    else:
        probabilities = predictor(images, valid)
    scores = probabilities.numpy()
    means = () if kept is None else tuple(kept.mean(axis=(1, 2), dtype=np.float64).tolist())
    for index, window in enumerate(batch.windows):
        weight = plan.weight(window)
        scores[index] *= weight
        if kept is not None:
            kept[index] *= weight
    return Weighted(scores, kept, means)


def blend(
    answers: Iterator[tuple[Batch, Weighted | None]], plan: Plan, *, classes: int, compute: bool = False, done: int = 0
) -> Iterator[Strip]:
    """Strips, one for each row of windows, perhaps of no height; those of the first `done` rows are left out.

    Answers are added in the order of the windows. Of rows of windows that are done only the last one still counts.
    """
    rows, cols = plan.rows, len(plan.cols)
    sums = _Sums(plan, classes=classes, compute=compute)
    at = 0
    for batch, found in answers:
        for index, number in enumerate(batch.numbers):
            while at < number // cols:
                yield from sums.strip(rows[at], told=at >= done)
                at += 1
            if at >= done - 1:
                sums.add(batch, found, index)
        while at < batch.end // cols:
            yield from sums.strip(rows[at], told=at >= done)
            at += 1


class _Sums:
    """Sums of weighted answers over the rows that the windows of one row see."""

    def __init__(self, plan: Plan, *, classes: int, compute: bool) -> None:
        self._plan, self._left = plan, plan.cols[0]
        shape = (plan.tile_px, plan.cols[-1] + plan.tile_px - self._left)
        self._scores = np.zeros((classes, *shape), np.float32)
        self._valid = np.zeros(shape, np.bool_)
        self._kept = np.zeros(shape, np.float32) if compute else None
        self._windows, self._kept_sum = 0, 0.0

    def add(self, batch: Batch, found: Weighted | None, index: int) -> None:
        """Add the answer for a window."""
        assert found is not None, "a batch with windows has an answer"
        columns = slice(batch.windows[index].col - self._left, batch.windows[index].col - self._left + self._plan.tile_px)
        self._scores[:, :, columns] += found.scores[index]
        self._valid[:, columns] |= batch.wanted[index]
        self._windows += 1
        if self._kept is not None and found.kept is not None:
            self._kept[:, columns] += found.kept[index]
            self._kept_sum += found.kept_means[index]

    def strip(self, row: int, *, told: bool) -> Iterator[Strip]:
        """What is finished now that the windows of this row are added, if it is to be told; then make room for the next."""
        window = self._plan.strip(row)
        seen = Window(row=row, col=self._left, height=self._plan.tile_px, width=self._valid.shape[1])
        if told:
            inside = window.slices(origin=seen)
            yield Strip(
                window=window,
                probabilities=self._scores[:, *inside],
                valid=self._valid[inside],
                kept=None if self._kept is None else self._kept[inside],
                windows=self._windows,
                kept_sum=self._kept_sum,
            )
        self._windows, self._kept_sum = 0, 0.0
        arrays: list[NDArray[Any]] = [self._scores, self._valid]
        for array in arrays if self._kept is None else (*arrays, self._kept):
            _shift(array, by=self._plan.tile_px - self._plan.overlap_px)


def _shift(rows: NDArray[Any], *, by: int) -> None:
    """Drop the first rows, move the others up, and clear what is free."""
    left = rows.shape[-2] - by
    rows[..., :left, :] = rows[..., by:, :].copy()
    rows[..., left:, :] = 0
