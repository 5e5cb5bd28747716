"""How sure a score is: intervals from resampling blocks of the test area, because neighbouring pixels are alike.

Drawing single pixels would treat a field of ten thousand equal pixels as ten thousand observations and give intervals that
are far too narrow. Blocks are drawn with replacement instead, and each draw of as many blocks as there are is scored anew
(percentile bootstrap: Efron and Tibshirani 1993, chapter 13; blocks: Künsch 1989).

The mean score of several seeds is unsure for two reasons, the area and the training. Drawing seeds as well as blocks holds the
truth in 84 instead of 95 of 100 cases where three seeds differ by more than the area makes them. So the variance between seeds
is added to that of the draws, and Student's t takes account of how few seeds there are (freedom: Satterthwaite 1946); with
three seeds that holds the truth in 93 to 97 cases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from terralean.errors import ConfigError
from terralean.evaluate.metrics import PER_CLASS, PER_MAP, Scores, measures

LEVEL = 0.95
RESAMPLES = 2000
MIN_BLOCKS = 5  # below, the draws are too much alike to say anything
FEW_BLOCKS = 20  # below, percentile intervals hold the truth clearly less often than they say
MIN_RESAMPLES = 1000  # below, fewer than 25 draws lie beyond each end
CHUNK_BYTES = 1 << 26

FIELD_NAMES = {
    "oa": "OA",
    "aa": "AA",
    "kappa": "kappa",
    "miou": "mIoU",
    "mf1": "mF1",
    "iou": "IoU",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """Ends of a 95 % interval of a score, in the units of the score."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Intervals:
    """The 95 % interval of every score of `Scores`, None where there is none.

    A class has an interval only where at least five blocks hold it (in the reference; for precision, in the map): of a class
    in one block every draw says the same, and an interval of no width would be a lie.
    """

    blocks: int
    resamples: int
    oa: Interval | None
    aa: Interval | None
    kappa: Interval | None
    miou: Interval | None
    mf1: Interval | None
    iou: tuple[Interval | None, ...]
    f1: tuple[Interval | None, ...]
    precision: tuple[Interval | None, ...]
    recall: tuple[Interval | None, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bootstrap:
    """Intervals with a sentence on how they came about, or None with the reason."""

    intervals: Intervals | None
    note: str


class Drawn(NamedTuple):
    """Scores of S trainings by name: on the whole area (S,) or (S, K), and of R draws of its blocks (S, R) or (S, R, K)."""

    whole: dict[str, NDArray[np.float64]]
    draws: dict[str, NDArray[np.float64]]


def block_bootstrap(
    confusions: NDArray[np.int64],
    *,
    unmapped: NDArray[np.int64],
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Bootstrap:
    """Intervals of the scores of the sum of blocks: confusions (n, K, K), unmapped (n, K).

    Blocks without a labelled pixel are not drawn. The means of a draw (AA, mIoU, mF1) are over the classes that it holds.
    """
    return mean_bootstrap(join(confusions, unmapped)[None], generator=generator, resamples=resamples)


def mean_bootstrap(counts: NDArray[np.int64], *, generator: np.random.Generator, resamples: int = RESAMPLES) -> Bootstrap:
    """Intervals of the mean scores of S trainings on the same blocks: counts (S, n, K, K + 1) of `join`.

    Of one training those of `block_bootstrap`.
    """
    counts = labelled(counts)
    trainings, blocks = counts.shape[:2]
    if blocks < MIN_BLOCKS:
        return Bootstrap(intervals=None, note=_too_few(blocks))
    drawn = draw(counts, draw_times(blocks, generator=generator, resamples=resamples))
    in_reference, in_map = blocks_with(counts)
    overall = {name: inside(ends(drawn, name, blocks=blocks), name) for name in PER_MAP}
    per_class = {
        name: tuple(
            inside(ends(drawn, name, blocks=blocks, of=i), name) if n >= MIN_BLOCKS else None
            for i, n in enumerate(in_map if name == "precision" else in_reference)
        )
        for name in PER_CLASS
    }
    intervals = Intervals(blocks=blocks, resamples=resamples, **overall, **per_class)  # type: ignore[arg-type]
    return Bootstrap(intervals=intervals, note=_note(blocks, resamples, trainings=trainings))


def document(scores: Scores, bootstrap: Bootstrap, *, names: Sequence[str], spread: Scores | None = None) -> dict[str, object]:
    """Scores with intervals for a JSON file, by the names of the field; null where a score has no meaning.

    With `spread`, that of several trainings, each overall score and IoU has it as `sd`.
    """
    found = bootstrap.intervals
    per_class = [
        {"name": class_name, "support_px": scores.support[i], "unmapped_px": scores.unmapped[i]}
        | {
            FIELD_NAMES[n]: entry(
                getattr(scores, n)[i],
                None if found is None else getattr(found, n)[i],
                None if spread is None else getattr(spread, n)[i],
            )
            for n in PER_CLASS
        }
        for i, class_name in enumerate(names)
    ]
    overall = {
        FIELD_NAMES[n]: entry(
            getattr(scores, n), None if found is None else getattr(found, n), None if spread is None else getattr(spread, n)
        )
        for n in PER_MAP
    }
    return {**overall, "classes": per_class, "intervals": bootstrap.note}


# What comparisons of several maps share.


def join(confusions: NDArray[np.int64], unmapped: NDArray[np.int64]) -> NDArray[np.int64]:
    """Confusions (..., K, K) with the pixels that have no class in the map (..., K) as a last column: (..., K, K + 1)."""
    return np.concatenate([confusions, unmapped[..., None]], axis=-1)


def labelled(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The blocks of (S, n, K, K + 1) in which a pixel is labelled."""
    return counts[:, counts.sum(axis=(0, 2, 3)) > 0]


def blocks_with(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """In how many blocks of (S, n, K, K + 1) the reference holds each class (K,), and how many the map of the poorest one."""
    in_reference = (counts[0].sum(axis=2) > 0).sum(axis=0)
    in_map = (counts[..., :-1].sum(axis=2) > 0).sum(axis=1).min(axis=0)
    return in_reference, in_map


def draw_times(blocks: int, *, generator: np.random.Generator, resamples: int = RESAMPLES) -> NDArray[np.float64]:
    """How often each block is in each draw of n out of n blocks, (R, n). Raises ConfigError below 1000 draws."""
    if resamples < MIN_RESAMPLES:
        raise ConfigError(f"{resamples} resamples are too few for the ends of a 95 % interval; use {MIN_RESAMPLES} or more")
    return generator.multinomial(blocks, np.full(blocks, 1 / blocks), size=resamples).astype(np.float64)


def draw(counts: NDArray[np.int64], times: NDArray[np.float64]) -> Drawn:
    """Score each training (S, n, K, K + 1), and draws with each block so many times (R, n), the same for all trainings."""
    each = [_draw_one(training.astype(np.float64), times) for training in counts]
    total = counts.sum(axis=1)
    whole = measures(total[..., :-1], unmapped=total[..., -1])
    return Drawn(whole=whole, draws={name: np.stack([one[name] for one in each]) for name in whole})


def ends(drawn: Drawn, name: str, *, blocks: int, of: int | None = None) -> Interval | None:
    """The 95 % interval of the mean over trainings of a score, or of a class's score; None where it has no meaning."""
    whole, draws = drawn.whole[name], drawn.draws[name]
    if of is not None:
        whole, draws = whole[:, of], draws[:, :, of]
    mean = draws.mean(axis=0)
    known = mean[~np.isnan(mean)]
    if not known.size or np.isnan(whole).any():
        return None
    return _quantiles(known) if len(whole) == 1 else _student(whole, known, blocks=blocks)


def _quantiles(known: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(low=float(low), high=float(high))


def _student(whole: NDArray[np.float64], means: NDArray[np.float64], *, blocks: int) -> Interval:
    """Of a mean over trainings (S,), whose draws of blocks are `means` (R,)."""
    centre, trainings = float(whole.mean()), len(whole)
    area, training = float(means.var(ddof=1)), float(whole.var(ddof=1)) / trainings
    if not area + training:
        return Interval(low=centre, high=centre)
    freedom = (area + training) ** 2 / (area**2 / (blocks - 1) + training**2 / (trainings - 1))
    half = float(student.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(area + training)
    return Interval(low=centre - half, high=centre + half)


def inside(interval: Interval | None, name: str) -> Interval | None:
    """Cut where no score can be."""
    if interval is None:
        return None
    return Interval(low=max(interval.low, -1.0 if name == "kappa" else 0.0), high=min(interval.high, 1.0))


def _draw_one(counts: NDArray[np.float64], times: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Scores of draws of blocks (n, K, K + 1), each block so many times (R, n): (R,) or (R, K) each."""
    blocks, classes, _ = counts.shape
    flat = counts.reshape(blocks, -1)
    step = max(1, CHUNK_BYTES // (8 * flat.shape[1]))
    parts = []
    for start in range(0, len(times), step):
        sums = (times[start : start + step] @ flat).reshape(-1, classes, classes + 1)
        parts.append(measures(sums[:, :, :classes], unmapped=sums[:, :, classes]))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def entry(value: float, interval: Interval | None, spread: float | None) -> dict[str, float | None]:
    """A score for a JSON file, null where it has no meaning."""
    told: dict[str, float | None] = {"value": None if math.isnan(value) else value}
    if interval is not None:
        told |= {"low": interval.low, "high": interval.high}
    if spread is not None:
        told["sd"] = None if math.isnan(spread) else spread
    return told


def _note(blocks: int, resamples: int, *, trainings: int) -> str:
    few = " With so few blocks they tend to be too narrow." if blocks < FEW_BLOCKS else ""
    if trainings == 1:
        return (
            f"95 % intervals from {resamples} draws of the {blocks} test blocks. Whole blocks are drawn, not pixels, because "
            f"neighbouring pixels are alike.{few}"
        )
    return (
        f"95 % intervals of the mean over {trainings} trainings that differ in their seed: the variance over {resamples} draws "
        f"of the {blocks} test blocks, whole blocks because neighbouring pixels are alike, plus the variance between the "
        f"trainings.{few}"
    )


def _too_few(blocks: int) -> str:
    return (
        f"No intervals: the test area has {blocks} block{'' if blocks == 1 else 's'} with labels, "
        f"and at least {MIN_BLOCKS} are needed. Label more places, or use smaller blocks."
    )
