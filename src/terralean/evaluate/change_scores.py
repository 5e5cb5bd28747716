"""The scores of change detection, each by its full name, of the counts of a map; `tasks.change` says why there are several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from terralean.evaluate.contenders import Standing
from terralean.evaluate.measure import Measured
from terralean.tasks.change import F1, F1_CLASSES, IOU, PRECISION, RECALL, change_scores

F1_IMAGES = "f1_mean_of_images"  # an image for a batch; 0 where nothing has changed in it and nothing was found


def document(standing: Standing) -> dict[str, float]:
    """Of the changed class over all test pixels, unless the name says otherwise; means over seeds where there are several."""
    return mean([of_measured(scored.measured) for scored in standing.each])


def of_measured(measured: Measured) -> dict[str, float]:
    """Of one run."""
    return of_blocks(measured.blocks, images=measured.places[:, 0])


def of_blocks(blocks: NDArray[np.int64], *, images: NDArray[np.int64]) -> dict[str, float]:
    """Of confusions (n, 2, 2), references in rows, and the image of each block (n,)."""
    found = change_scores(torch.from_numpy(blocks.sum(axis=0)))
    each = [change_scores(torch.from_numpy(blocks[images == image].sum(axis=0)))[F1] for image in np.unique(images)]
    return found | {F1_IMAGES: float(np.mean(each))}


def mean(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of several runs."""
    return {name: round(float(np.mean([scores[name] for scores in found])), 6) for name in found[0]}


def sentences(scores: dict[str, float]) -> tuple[str, str]:
    """How well change was found: what a report begins with, and the other names of F1."""
    return (
        f"F1 of change is {scores[F1]:.3f}: precision {scores[PRECISION]:.3f}, recall {scores[RECALL]:.3f}.",
        f"That is over all test pixels together, IoU {scores[IOU]:.3f}; the mean F1 over images is {scores[F1_IMAGES]:.3f}, "
        f"over both classes {scores[F1_CLASSES]:.3f}.",
    )
