"""How sure scores of scene recognition are, and differences between runs: intervals from draws of the test images.

Images of one group (of one place, one flight) are alike, so where groups are known these are drawn as a whole. Each draw of as
many units as there are is scored anew; of several trainings see `intervals`, whose intervals these are. Where all images are
right every draw is the same; a share then has the exact interval instead (Clopper and Pearson 1934), and a score that is no
share has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terralean.evaluate.compare import Difference, sentence
from terralean.evaluate.intervals import (
    CHUNK_BYTES,
    FEW_BLOCKS,
    LEVEL,
    MIN_BLOCKS,
    RESAMPLES,
    Drawn,
    Interval,
    ends,
    inside,
)
from terralean.evaluate.scene_metrics import PER_CLASS, PER_RUN, Answers, Counts, Units, count, measures

SHARES = ("oa", "top5", "precision", "recall")  # of units that are right or wrong each


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneIntervals:
    """The 95 % interval of every score of `SceneScores`, None where there is none.

    A class has one only where at least five units hold it (for precision: are answered with it).
    """

    oa: Interval | None
    top5: Interval | None
    aa: Interval | None
    kappa: Interval | None
    mf1: Interval | None
    f1: tuple[Interval | None, ...]
    precision: tuple[Interval | None, ...]
    recall: tuple[Interval | None, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneBootstrap:
    """Intervals with a sentence on how they came about, or None with the reason."""

    intervals: SceneIntervals | None
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneComparison:
    """How this run differs from another on the same images: above 0 this one is better."""

    overall: dict[str, Difference]  # by PER_RUN
    f1: tuple[Difference, ...]  # of each class
    units: Units
    only_mine: float  # images that this run alone has right, and those that the other alone has; means over pairs
    only_theirs: float


def bootstrap(
    several: Sequence[Answers], *, units: Units, classes: int, generator: np.random.Generator, resamples: int = RESAMPLES
) -> SceneBootstrap:
    """Intervals of the scores of one training, or of the means of several, on the same images."""
    if units.count < MIN_BLOCKS:
        return SceneBootstrap(intervals=None, note=_too_few(units))
    counts = [count(one, units, classes=classes) for one in several]
    drawn = _draw(counts, generator=generator, resamples=resamples)
    held, answered = _held(counts)
    overall = {name: _interval(drawn, name, units=units.count, held=units.count) for name in PER_RUN}
    per_class = {
        name: tuple(
            _interval(drawn, name, units=units.count, held=int(n), of=i) if n >= MIN_BLOCKS else None
            for i, n in enumerate(answered if name == "precision" else held)
        )
        for name in PER_CLASS
    }
    intervals = SceneIntervals(**overall, **per_class)  # type: ignore[arg-type]
    return SceneBootstrap(intervals=intervals, note=_note(units, resamples, trainings=len(several)))


def compare_scenes(
    mine: Sequence[Answers],
    theirs: Sequence[Answers],
    *,
    units: Units,
    classes: int,
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> SceneComparison:
    """Take the other from this, within the same draws of the same images: S trainings each, paired in order.

    One on the other side, of a method without seeds, is paired with each.
    """
    theirs = [*theirs] * (len(mine) // len(theirs))
    counts = [count(one, units, classes=classes) for one in (*mine, *theirs)]
    drawn, n = _draw(counts, generator=generator, resamples=resamples), len(mine)
    apart = Drawn(
        whole={name: values[:n] - values[n:] for name, values in drawn.whole.items()},
        draws={name: values[:n] - values[n:] for name, values in drawn.draws.items()},
    )
    held, _ = _held(counts)
    pairs = [(one.right, other.right) for one, other in zip(mine, theirs, strict=True)]
    return SceneComparison(
        overall={name: _difference(apart, name, units=units.count, held=units.count) for name in PER_RUN},
        f1=tuple(_difference(apart, "f1", units=units.count, held=int(k), of=i) for i, k in enumerate(held)),
        units=units,
        only_mine=float(np.mean([(one & ~other).sum() for one, other in pairs])),
        only_theirs=float(np.mean([(other & ~one).sum() for one, other in pairs])),
    )


def verdict(comparison: SceneComparison, *, other: str) -> str:
    """Whether this run is ahead of the other, behind it, or neither, by overall accuracy, in one sentence."""
    units = comparison.units
    return sentence(
        comparison.overall["oa"], other=other, score="overall accuracy", drawn=f"test {units.name}", count=units.count
    )


# Draws.


def _draw(counts: Sequence[Counts], *, generator: np.random.Generator, resamples: int) -> Drawn:
    """Score each training on all units, and on the same draws of them."""
    units, classes = counts[0].reference.shape
    whole = [measures(one, np.ones((1, units))) for one in counts]
    parts: list[list[dict[str, NDArray[np.float64]]]] = [[] for _ in counts]
    for times in _times(units, rows=max(1, CHUNK_BYTES // (16 * (units + classes))), generator=generator, resamples=resamples):
        for part, one in zip(parts, counts, strict=True):
            part.append(measures(one, times))
    names = whole[0].keys()
    return Drawn(
        whole={name: np.concatenate([one[name] for one in whole]) for name in names},
        draws={name: np.stack([np.concatenate([some[name] for some in part]) for part in parts]) for name in names},
    )


def _times(units: int, *, rows: int, generator: np.random.Generator, resamples: int) -> Iterator[NDArray[np.float64]]:
    """How often each unit is in each draw of n out of n: (resamples, units), so many rows at a time."""
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        yield generator.multinomial(units, np.full(units, 1 / units), size=size).astype(np.float64)


def _held(counts: Sequence[Counts]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many units hold each class (K,), and how many are answered with it by the poorest training."""
    answered = np.stack([(one.answered > 0).sum(axis=0) for one in counts])
    return (counts[0].reference > 0).sum(axis=0), answered.min(axis=0)


# Ends.


def _interval(drawn: Drawn, name: str, *, units: int, held: int, of: int | None = None) -> Interval | None:
    found = ends(drawn, name, blocks=units, of=of)
    if found is None or found.low < found.high:
        return inside(found, name)
    return _exact(found.low, units=held) if name in SHARES else None


def _exact(share: float, *, units: int) -> Interval | None:
    """Of units that are all right, or all wrong. None of others: that all draws agree then says nothing."""
    reach = ((1 - LEVEL) / 2) ** (1 / units)
    return {0.0: Interval(low=0.0, high=1 - reach), 1.0: Interval(low=reach, high=1.0)}.get(share)


def _difference(apart: Drawn, name: str, *, units: int, held: int, of: int | None = None) -> Difference:
    whole = apart.whole[name] if of is None else apart.whole[name][:, of]
    enough = min(units, held) >= MIN_BLOCKS
    return Difference(value=float(whole.mean()), interval=ends(apart, name, blocks=units, of=of) if enough else None)


# Words.


def _note(units: Units, resamples: int, *, trainings: int) -> str:
    whole = "" if units.name == "images" else " Whole groups are drawn, because images of one group are alike."
    few = " With so few they tend to be too narrow." if units.count < FEW_BLOCKS else ""
    exact = " Where all images are right or all wrong the interval is the exact one of a share."
    if trainings == 1:
        return f"95 % intervals from {resamples} draws of the {units.count} test {units.name}.{whole}{few}{exact}"
    return (
        f"95 % intervals of the mean over {trainings} trainings that differ in their seed: the variance over {resamples} draws "
        f"of the {units.count} test {units.name}, plus the variance between the trainings.{whole}{few}{exact}"
    )


def _too_few(units: Units) -> str:
    one = units.name.removesuffix("s") if units.count == 1 else units.name
    return f"No intervals: there are {units.count} test {one}, and at least {MIN_BLOCKS} are needed. Label more."
