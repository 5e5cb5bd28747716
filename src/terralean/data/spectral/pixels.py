"""Labelled pixels as arrays, and how right answers for them are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Pixels:
    """n pixels with their classes."""

    scene: NDArray[np.int64]  # (n,) which of the scenes
    row: NDArray[np.int64]  # (n,) from 0 at the top
    col: NDArray[np.int64]  # (n,)
    label: NDArray[np.int64]  # (n,) class, from 0

    def __len__(self) -> int:
        return len(self.label)

    def take(self, chosen: NDArray[Any]) -> Pixels:
        """Some of them, by number or mask."""
        return Pixels(scene=self.scene[chosen], row=self.row[chosen], col=self.col[chosen], label=self.label[chosen])

    def counts(self, classes: int) -> NDArray[np.int64]:
        """Of each class (K,)."""
        return np.bincount(self.label, minlength=classes)


def joined(parts: Sequence[Pixels]) -> Pixels:
    """All of them, in order."""
    return Pixels(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in ("scene", "row", "col", "label")}
    )


def labelled(labels: NDArray[np.uint8], *, scene: int, none: int) -> Pixels:
    """The pixels of a label map (H, W) that hold anything but `none`, along the rows."""
    row, col = np.nonzero(labels != none)
    return Pixels(scene=np.full(len(row), scene), row=row, col=col, label=labels[row, col].astype(np.int64))


def agreement(counts: NDArray[Any]) -> dict[str, float]:
    """Shares "oa", "aa" and "kappa" of a confusion matrix (K, K), rows true; classes without a true pixel are not in AA."""
    wide = np.asarray(counts, np.float64)
    total, right, true = wide.sum(), wide.diagonal(), wide.sum(axis=1)
    oa = float(right.sum() / total)
    chance = float((true * wide.sum(axis=0)).sum() / total**2)
    kappa = (oa - chance) / (1 - chance) if chance < 1 else float("nan")
    return {"oa": oa, "aa": float((right[true > 0] / true[true > 0]).mean()), "kappa": kappa}


def confusion(true: NDArray[np.int64], answer: NDArray[np.int64], *, classes: int) -> NDArray[np.int64]:
    """Pixels by true class (rows) and answer (columns), (K, K)."""
    return np.bincount(true * classes + answer, minlength=classes**2).reshape(classes, classes)
