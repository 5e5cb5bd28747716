"""Predict a scene window by window and hand out finished strips of blended scores, from top to bottom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from terralean.mapping.plan import Plan
from terralean.predict import Predictor
from terralean.raster.grid import Window


class Readable(Protocol):
    """A scene, or an array that reads as one."""

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Values (C, h, w) and valid (h, w); outside, 0 and not valid."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Strip:
    """Full-width rows of a scene that no later window touches."""

    window: Window
    probabilities: NDArray[np.float32]  # (K, height, width), blended; sum to one where valid
    valid: NDArray[np.bool_]  # (height, width)


def strips(predictor: Predictor, scene: Readable, plan: Plan, *, batch: int) -> Iterator[Strip]:
    """Strips that together cover the scene once. Memory does not grow with its height."""
    classes, tile, rows = len(predictor.card.classes), plan.tile_px, plan.rows
    padded_width = plan.cols[-1] + tile
    scores = np.zeros((classes, tile, padded_width), np.float32)
    valid = np.zeros((tile, padded_width), np.bool_)
    for row in rows:
        windows = plan.row_of_windows(row)
        while group := list(islice(windows, batch)):
            _add(predictor, scene, plan, group, scores=scores, valid=valid)
        done = tile if row == rows[-1] else tile - plan.overlap_px
        window = Window(row=row, col=0, height=done, width=padded_width).cut(plan.grid.window)
        inside = window.slices(origin=Window(row=row, col=0, height=tile, width=padded_width))
        yield Strip(window=window, probabilities=scores[:, *inside].copy(), valid=valid[inside].copy())
        _shift(scores, by=done)
        _shift(valid, by=done)


def _add(
    predictor: Predictor,
    scene: Readable,
    plan: Plan,
    windows: list[Window],
    *,
    scores: NDArray[np.float32],
    valid: NDArray[np.bool_],
) -> None:
    """Predict some windows of one row and add their share; windows without data cost nothing."""
    reads = [(window, *scene.read(window)) for window in windows]
    reads = [(window, values, mask) for window, values, mask in reads if mask.any()]
    if not reads:
        return
    images = torch.from_numpy(np.stack([values.astype(np.float32) for _, values, _ in reads]))
    masks = torch.from_numpy(np.stack([mask for _, _, mask in reads]))
    for (window, _, mask), probabilities in zip(reads, predictor(images, masks).numpy(), strict=True):
        columns = slice(window.col, window.col + plan.tile_px)
        scores[:, :, columns] += probabilities * plan.weight(window)
        valid[:, columns] |= mask


def _shift(rows: NDArray, *, by: int) -> None:
    """Drop the first rows, move the others up, and clear what is free."""
    left = rows.shape[-2] - by
    rows[..., :left, :] = rows[..., by:, :].copy()
    rows[..., left:, :] = 0
