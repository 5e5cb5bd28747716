"""Dealing blocks, groups or images to splits so that each gets its share of every class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from terralean.data.config import SplitName

NAMES: tuple[SplitName, ...] = ("train", "validation", "test")


def deal(counts: NDArray[np.int64], *, shares: tuple[float, float, float], rng: np.random.Generator) -> NDArray[np.int64]:
    """Position in NAMES for each of n units with class counts (n, K), close to the shares in every class.

    Each class has a unit in training where possible, and each split that is to have a share has a unit where there are
    enough. Large units go first; equal ones in random order.
    """
    totals = np.maximum(counts.sum(axis=0), 1)
    parts = counts / totals  # of each class, the part that a unit holds
    size = np.maximum(counts.sum(axis=1), 1)
    order = np.lexsort((rng.random(len(counts)), -np.floor(np.log2(size))))
    wanted = np.array(shares)
    held = np.zeros((3, counts.shape[1]))
    dealt = np.zeros(len(counts), dtype=np.int64)
    for unit in order:
        dealt[unit] = _neediest(held, parts[unit], wanted)
        held[dealt[unit]] += parts[unit]
    _fill_empty(dealt, parts, wanted)
    _teach_every_class(dealt, parts, wanted)
    return dealt


def _neediest(held: NDArray[np.float64], part: NDArray[np.float64], wanted: NDArray[np.float64]) -> int:
    """The split whose shares come closest by taking the unit: least growth of the squared error relative to the share."""
    before = held - wanted[:, None]
    growth = ((before + part) ** 2 - before**2).sum(axis=1)
    allowed = wanted > 0
    return int(np.argmin(np.where(allowed, growth / np.where(allowed, wanted, 1), np.inf)))


def _fill_empty(dealt: NDArray[np.int64], parts: NDArray[np.float64], wanted: NDArray[np.float64]) -> None:
    for split in np.flatnonzero(wanted > 0):
        counts = np.bincount(dealt, minlength=3)
        if counts[split] or counts.max() < 2:  # noqa: PLR2004 - a split does not give its last unit
            continue
        givers = np.flatnonzero(dealt == counts.argmax())
        dealt[givers[parts[givers].sum(axis=1).argmin()]] = split


def _teach_every_class(dealt: NDArray[np.int64], parts: NDArray[np.float64], wanted: NDArray[np.float64]) -> None:
    """Move a unit of each class that training lacks there, unless that would empty the split it comes from."""
    for cls in np.argsort(parts.max(axis=0)):
        holders = np.flatnonzero(parts[:, cls] > 0)
        if not len(holders) or (dealt[holders] == 0).any():
            continue
        givers = [unit for unit in holders if np.count_nonzero(dealt == dealt[unit]) > 1]
        if givers:
            dealt[max(givers, key=lambda unit: parts[unit, cls])] = 0
