"""How sure a score is: intervals from resampling blocks of the test area, because neighbouring pixels are alike.

Drawing single pixels would treat a field of ten thousand equal pixels as ten thousand observations and give intervals that
are far too narrow. Blocks are drawn with replacement instead, and each draw of as many blocks as there are is scored anew
(percentile bootstrap: Efron and Tibshirani 1993, chapter 13; blocks: Künsch 1989).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terralean.errors import ConfigError
from terralean.evaluate.metrics import PER_CLASS, PER_MAP, Scores, measures

LEVEL = 0.95
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


def block_bootstrap(
    confusions: NDArray[np.int64],
    *,
    unmapped: NDArray[np.int64],
    generator: np.random.Generator,
    resamples: int = 2000,
) -> Bootstrap:
    """Intervals of the scores of the sum of blocks: confusions (n, K, K), unmapped (n, K).

    Blocks without a labelled pixel are not drawn. The means of a draw (AA, mIoU, mF1) are over the classes that it holds.
    """
    if resamples < MIN_RESAMPLES:
        raise ConfigError(f"{resamples} resamples are too few for the ends of a 95 % interval; use {MIN_RESAMPLES} or more")
    counts = np.concatenate([confusions, unmapped[:, :, None]], axis=2)
    counts = counts[counts.sum(axis=(1, 2)) > 0]
    if len(counts) < MIN_BLOCKS:
        return Bootstrap(
            intervals=None,
            note=f"No intervals: the test area has {len(counts)} block{'' if len(counts) == 1 else 's'} with labels, "
            f"and at least {MIN_BLOCKS} are needed. Label more places, or use smaller blocks.",
        )
    drawn = _draw(counts.astype(np.float64), generator=generator, resamples=resamples)
    return Bootstrap(intervals=_intervals(drawn, counts, resamples=resamples), note=_note(len(counts), resamples))


def document(scores: Scores, bootstrap: Bootstrap, *, names: Sequence[str]) -> dict[str, object]:
    """Scores with intervals for a JSON file, by the names of the field; null where a score has no meaning."""
    found = bootstrap.intervals
    per_class = [
        {"name": class_name, "support_px": scores.support[i], "unmapped_px": scores.unmapped[i]}
        | {FIELD_NAMES[n]: _entry(getattr(scores, n)[i], None if found is None else getattr(found, n)[i]) for n in PER_CLASS}
        for i, class_name in enumerate(names)
    ]
    overall = {FIELD_NAMES[n]: _entry(getattr(scores, n), None if found is None else getattr(found, n)) for n in PER_MAP}
    return {**overall, "classes": per_class, "intervals": bootstrap.note}


def _entry(value: float, interval: Interval | None) -> dict[str, float | None]:
    entry: dict[str, float | None] = {"value": None if math.isnan(value) else value}
    return entry if interval is None else entry | {"low": interval.low, "high": interval.high}


def _draw(counts: NDArray[np.float64], *, generator: np.random.Generator, resamples: int) -> dict[str, NDArray[np.float64]]:
    """Scores of draws of n out of n blocks (n, K, K + 1), the last column unmapped: (resamples,) or (resamples, K) each."""
    blocks, classes, _ = counts.shape
    flat = counts.reshape(blocks, -1)
    times = generator.multinomial(blocks, np.full(blocks, 1 / blocks), size=resamples).astype(np.float64)
    step = max(1, CHUNK_BYTES // (8 * flat.shape[1]))
    parts = []
    for start in range(0, resamples, step):
        sums = (times[start : start + step] @ flat).reshape(-1, classes, classes + 1)
        parts.append(measures(sums[:, :, :classes], unmapped=sums[:, :, classes]))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _intervals(drawn: dict[str, NDArray[np.float64]], counts: NDArray[np.int64], *, resamples: int) -> Intervals:
    in_reference = (counts.sum(axis=2) > 0).sum(axis=0)
    in_map = (counts[:, :, :-1].sum(axis=1) > 0).sum(axis=0)
    return Intervals(
        blocks=len(counts),
        resamples=resamples,
        oa=_ends(drawn["oa"]),
        aa=_ends(drawn["aa"]),
        kappa=_ends(drawn["kappa"]),
        miou=_ends(drawn["miou"]),
        mf1=_ends(drawn["mf1"]),
        iou=_ends_each(drawn["iou"], in_reference),
        f1=_ends_each(drawn["f1"], in_reference),
        precision=_ends_each(drawn["precision"], in_map),
        recall=_ends_each(drawn["recall"], in_reference),
    )


def _ends_each(draws: NDArray[np.float64], blocks: NDArray[np.int64]) -> tuple[Interval | None, ...]:
    return tuple(_ends(draws[:, i]) if blocks[i] >= MIN_BLOCKS else None for i in range(draws.shape[1]))


def _ends(draws: NDArray[np.float64]) -> Interval | None:
    known = draws[~np.isnan(draws)]
    if not known.size:
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(low=float(low), high=float(high))


def _note(blocks: int, resamples: int) -> str:
    few = " With so few blocks they tend to be too narrow." if blocks < FEW_BLOCKS else ""
    return (
        f"95 % intervals from {resamples} draws of the {blocks} test blocks. Whole blocks are drawn, not pixels, because "
        f"neighbouring pixels are alike.{few}"
    )
