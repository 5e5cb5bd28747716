"""Whether confidence can be believed: of what is 90 % sure, 90 of 100 should be right.

The expected calibration error (ECE) is the mean gap between confidence and accuracy over 15 equally wide ranges of confidence
(Naeini et al. 2015; Guo et al. 2017). Two relatives stand beside it: with ranges that hold equally many (adaptive: Nguyen and
O'Connor 2015; Nixon et al. 2019), and over the probabilities of every class instead of the likeliest one, averaged over classes
(classwise: Kull et al. 2019). Brier score (Brier 1950, summed over classes: 0 to 2) and negative log-likelihood judge
probabilities as a whole, accuracy included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terralean.evaluate.intervals import MIN_BLOCKS, RESAMPLES, Drawn, Interval, draw_times, ends, entry
from terralean.evaluate.page import bounds, percent
from terralean.evaluate.reliability import BINS, BRIER, COUNT, LOG, SAID, TRUE, Reliability, Sums

DRAWN = ("ece", "gap", "brier", "nll")  # what has an interval
SMALL = 0.01  # below, an error in confidence is of no account to an analyst


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """What one range of confidence holds, of all runs together."""

    low: float
    high: float
    count: int  # pixels or images
    confidence: float  # mean
    accuracy: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """How confidence and accuracy go together; of several runs means, with the ranges of all together."""

    ece: float
    adaptive: float  # ECE over ranges that hold equally many
    classwise: float  # ECE of every class' own probability, mean over classes
    gap: float  # mean confidence less accuracy: above 0 too sure
    brier: float
    nll: float  # nats
    confidence: float  # mean
    accuracy: float
    intervals: dict[str, Interval]  # 95 %, of DRAWN; empty with too few blocks
    ranges: tuple[Range, ...]  # those that hold something


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibrated:
    """Calibration as it is, and without the temperature, None where that is 1 in every run."""

    now: Calibration
    before: Calibration | None
    temperatures: tuple[float, ...]  # of each run
    not_calibrated: str  # why there is none; nothing where there is one


def calibrated(several: Sequence[Reliability], *, temperatures: Sequence[float], not_calibrated: str) -> Calibrated:
    """Of one run, or of several that differ in their seed, on the same blocks."""
    before = None
    if any(one.before is not None for one in several):
        before = measure([one.before or one.now for one in several], generator=np.random.default_rng(0))
    now = measure([one.now for one in several], generator=np.random.default_rng(0))
    return Calibrated(now=now, before=before, temperatures=tuple(temperatures), not_calibrated=not_calibrated)


def measure(several: Sequence[Sums], *, generator: np.random.Generator, resamples: int = RESAMPLES) -> Calibration:
    """Numbers of one run or means of several, with intervals from draws of the blocks that they share."""
    totals = np.stack([one.bins.sum(axis=0) for one in several])
    whole = _scores(totals, np.stack([one.losses.sum(axis=0) for one in several]))
    return Calibration(
        **{name: float(values.mean()) for name, values in whole.items()},
        adaptive=float(np.mean([adaptive_error(one.cells) for one in several])),
        classwise=float(np.mean([error(one.classes).mean() for one in several])),
        intervals=_intervals(several, whole, generator=generator, resamples=resamples),
        ranges=_ranges(totals.sum(axis=0)),
    )


def error(bins: NDArray[np.float64]) -> NDArray[np.float64]:
    """ECE of ranges (..., BINS, 3) -> (...)."""
    return np.abs(bins[..., SAID] - bins[..., TRUE]).sum(axis=-1) / bins[..., COUNT].sum(axis=-1)


def adaptive_error(cells: NDArray[np.float64], *, bins: int = BINS) -> float:
    """ECE over ranges that hold as equally many as fine cells (CELLS, 3) allow: a cell is never cut."""
    count = cells[:, COUNT]
    middle = np.cumsum(count) - count / 2
    place = (middle * bins / count.sum()).astype(np.intp).clip(0, bins - 1)
    said, true = (np.bincount(place, weights=cells[:, i], minlength=bins) for i in (SAID, TRUE))
    return float(np.abs(said - true).sum() / count.sum())


def _scores(bins: NDArray[np.float64], losses: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Of ranges (..., BINS, 3) and losses (..., 2), each (...)."""
    count = bins[..., COUNT].sum(axis=-1)
    confidence, accuracy = bins[..., SAID].sum(axis=-1) / count, bins[..., TRUE].sum(axis=-1) / count
    return {
        "ece": error(bins),
        "gap": confidence - accuracy,
        "brier": losses[..., BRIER] / count,
        "nll": losses[..., LOG] / count,
        "confidence": confidence,
        "accuracy": accuracy,
    }


def _intervals(
    several: Sequence[Sums], whole: dict[str, NDArray[np.float64]], *, generator: np.random.Generator, resamples: int
) -> dict[str, Interval]:
    blocks = len(several[0].bins)
    if blocks < MIN_BLOCKS:
        return {}
    times = draw_times(blocks, generator=generator, resamples=resamples)
    each = [_scores((times @ one.bins.reshape(blocks, -1)).reshape(-1, BINS, 3), times @ one.losses) for one in several]
    drawn = Drawn(whole=whole, draws={name: np.stack([one[name] for one in each]) for name in whole})
    found = {name: ends(drawn, name, blocks=blocks) for name in DRAWN}
    return {name: _possible(known, name) for name, known in found.items() if known is not None}


def _possible(interval: Interval, name: str) -> Interval:
    """Errors and losses are not below 0."""
    return interval if name == "gap" else Interval(low=max(interval.low, 0.0), high=interval.high)


def _ranges(bins: NDArray[np.float64]) -> tuple[Range, ...]:
    edges = np.linspace(0, 1, BINS + 1).tolist()
    return tuple(
        Range(low=edges[i], high=edges[i + 1], count=round(count), confidence=said / count, accuracy=true / count)
        for i, (count, said, true) in enumerate(bins.tolist())
        if count
    )


# Numbers and words.


def document(found: Calibrated) -> dict[str, Any]:
    """What evaluation.json holds: ECE, gap, Brier and NLL with intervals, the same without the temperature as `before`."""
    return {
        "temperature": found.temperatures[0] if len(set(found.temperatures)) == 1 else list(found.temperatures),
        "not_calibrated": found.not_calibrated or None,
        **_document(found.now),
        "before": None if found.before is None else _document(found.before),
    }


def _document(found: Calibration) -> dict[str, Any]:
    known = found.intervals
    return {
        "ECE": entry(found.ece, known.get("ece"), None),
        "ECE_adaptive": found.adaptive,
        "ECE_classwise": found.classwise,
        "gap": entry(found.gap, known.get("gap"), None),
        "Brier": entry(found.brier, known.get("brier"), None),
        "NLL": entry(found.nll, known.get("nll"), None),
        "confidence": found.confidence,
        "accuracy": found.accuracy,
        "bins": [
            {"low": one.low, "high": one.high, "count": one.count, "confidence": one.confidence, "accuracy": one.accuracy}
            for one in found.ranges
        ],
    }


def sentence(found: Calibrated) -> str:
    """What an analyst must know of a map's confidence."""
    now = found.now
    known = now.intervals.get("gap")
    told = f"it says {percent(now.confidence)} on average and is right for {percent(now.accuracy)}"
    if now.ece < SMALL:
        start = "Its confidence can be believed"
    elif known is None or known.low <= 0 <= known.high:
        start = "Its confidence is off, too high for some pixels and too low for others"
    else:
        start = "It is too sure of itself" if now.gap > 0 else "It is more often right than it is sure"
    return f"{start}: {told}. {remark(found)}"


def remark(found: Calibrated) -> str:
    """The error with its interval, what the temperature did, or why there is none."""
    known = found.now.intervals.get("ece")
    sure = "" if known is None else f" (95 % interval {bounds(known)} %)"
    was = "" if found.before is None else f"; without its {_temperature(found)} it would be {percent(found.before.ece)}"
    why = f" No temperature was fitted to it: {found.not_calibrated}." if found.not_calibrated else ""
    return f"The expected calibration error is {percent(found.now.ece)}{sure}{was}.{why}"


def _temperature(found: Calibrated) -> str:
    several = sorted(set(found.temperatures))
    if len(several) == 1:
        return f"temperature of {several[0]:.3g}"
    return f"temperatures of {several[0]:.3g} to {several[-1]:.3g}"
