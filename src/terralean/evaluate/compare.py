"""Which of two maps of the same ground is better: paired differences, and a sentence that claims no more than they show.

Both maps are scored on the same draws of the same blocks, and the difference is taken within each draw. What makes a block hard
is hard for both and falls out, so that the interval of the difference is far narrower than two intervals side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terralean.evaluate.intervals import (
    FIELD_NAMES,
    MIN_BLOCKS,
    RESAMPLES,
    Drawn,
    Interval,
    blocks_with,
    draw,
    draw_times,
    ends,
)
from terralean.evaluate.metrics import PER_MAP

FINE = 0.005  # an interval narrower than half a point is told with two digits


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A score of this map minus that of the other, with its 95 % interval; NaN and None where they have no meaning."""

    value: float
    interval: Interval | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """How this map differs from another: above 0 this one is better."""

    overall: dict[str, Difference]  # by PER_MAP
    iou: tuple[Difference, ...]  # of each class
    blocks: int
    trainings: int  # pairs of trainings with the same seed

    @property
    def miou(self) -> Difference:
        """What the verdict goes by."""
        return self.overall["miou"]


def compare(
    mine: NDArray[np.int64], theirs: NDArray[np.int64], *, generator: np.random.Generator, resamples: int = RESAMPLES
) -> Comparison:
    """Take the other from this, on the same blocks: counts (S, n, K, K + 1) of S trainings each, paired in order.

    One map on the other side, of a method without seeds, is paired with each. The interval is of the percentiles of the
    differences of one pair, and of the mean over several as in `intervals.mean_bootstrap`.
    """
    there = mine.sum(axis=(0, 2, 3)) > 0
    mine, theirs = mine[:, there], np.broadcast_to(theirs, mine.shape)[:, there]
    times = draw_times(mine.shape[1], generator=generator, resamples=resamples)
    one, other = draw(mine, times), draw(theirs, times)
    apart = Drawn(
        whole={name: one.whole[name] - other.whole[name] for name in one.whole},
        draws={name: one.draws[name] - other.draws[name] for name in one.draws},
    )
    blocks = mine.shape[1]
    held = blocks_with(mine)[0]
    return Comparison(
        overall={name: _difference(apart, name, blocks=blocks) for name in PER_MAP},
        iou=tuple(_difference(apart, "iou", blocks=blocks, of=i, held=int(n)) for i, n in enumerate(held)),
        blocks=blocks,
        trainings=len(mine),
    )


def verdict(comparison: Comparison, *, other: str) -> str:
    """Whether this map is ahead of the other, behind it, or neither, by mIoU, in one sentence."""
    return sentence(comparison.miou, other=other, score="mIoU", drawn="test blocks", count=comparison.blocks)


def sentence(found: Difference, *, other: str, score: str, drawn: str, count: int) -> str:
    """Ahead of the other, behind it, or neither, by a score; `drawn` are the `count` things that intervals are drawn from."""
    if math.isnan(found.value):
        return f"Not comparable with {other}: the {score} of one of them has no meaning."
    if found.interval is None:
        return (
            f"Differs from {other} by {points(found.value, signed=True)} points of {score}; {count} {drawn} are "
            "too few to say how sure that is."
        )
    low, high = found.interval.low, found.interval.high
    if low == high == 0:
        return f"No different from {other}: both have the same {score} on every draw of the {drawn}."
    if low <= 0 <= high:
        value, bounds = points(found.value, signed=True, like=found.interval), span(found.interval)
        return f"Not distinguishable from {other}: {score} differs by {value} points (95 % interval {bounds})."
    value = points(abs(found.value), like=found.interval)
    bounds = span(found.interval if low > 0 else Interval(low=-high, high=-low))
    return f"{'Ahead of' if low > 0 else 'Behind'} {other} by {value} points of {score} (95 % interval {bounds})."


def document(comparison: Comparison, *, names: Sequence[str]) -> dict[str, object]:
    """Differences for a JSON file, by the names of the field."""
    overall: dict[str, object] = {FIELD_NAMES[name]: difference_entry(found) for name, found in comparison.overall.items()}
    return overall | {
        "classes": [{"name": name, "IoU": difference_entry(found)} for name, found in zip(names, comparison.iou, strict=True)]
    }


def points(share: float, *, signed: bool = False, like: Interval | None = None) -> str:
    """A difference of shares in points of percent, with a true minus."""
    digits = 2 if like is not None and like.high - like.low < FINE else 1
    text = f"{100 * share:{'+' if signed else ''}.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def span(interval: Interval) -> str:
    """Both ends of an interval of differences, in points."""
    return f"{points(interval.low, like=interval)} to {points(interval.high, like=interval)}"


def _difference(apart: Drawn, name: str, *, blocks: int, of: int | None = None, held: int | None = None) -> Difference:
    whole = apart.whole[name] if of is None else apart.whole[name][:, of]
    enough = blocks >= MIN_BLOCKS and (held is None or held >= MIN_BLOCKS)
    return Difference(value=float(whole.mean()), interval=ends(apart, name, blocks=blocks, of=of) if enough else None)


def difference_entry(found: Difference) -> dict[str, float | None]:
    """A difference for a JSON file, null where it has no meaning."""
    entry: dict[str, float | None] = {"value": None if math.isnan(found.value) else found.value}
    return entry if found.interval is None else entry | {"low": found.interval.low, "high": found.interval.high}
