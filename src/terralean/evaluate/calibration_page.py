"""What the page says of confidence: a drawing of how often it is right by how sure it says it is, and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from terralean.evaluate.calibration import Calibrated, Calibration, Range
from terralean.evaluate.compare import points, span
from terralean.evaluate.page import bounds, number, short_count


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationSection:
    """A part of the page; places are in percent."""

    sentence: str
    what: str  # is counted: "pixels" or "images"
    bins: tuple[Mapping[str, object], ...]  # range, count, confidence, accuracy, gap, left, width, height, said, share
    before: tuple[tuple[float, float], ...]  # how sure it said it was and how often it was right, without the temperature
    numbers: tuple[Mapping[str, str], ...]  # name, told, now, range, before
    note: str


def section(found: Calibrated, *, what: str, sentence: str, note: str) -> CalibrationSection:
    """Of one run, or of several together."""
    most = max(one.count for one in found.now.ranges)
    before = () if found.before is None else found.before.ranges
    return CalibrationSection(
        sentence=sentence,
        what=what,
        bins=tuple(_bin(one, most=most) for one in found.now.ranges),
        before=tuple((round(100 * one.confidence, 2), round(100 * one.accuracy, 2)) for one in before),
        numbers=tuple(_numbers(found)),
        note=note,
    )


def _bin(one: Range, *, most: int) -> dict[str, object]:
    return {
        "range": f"{number(one.low, 0)} to {number(one.high, 0)}",
        "count": short_count(one.count),
        "confidence": number(one.confidence),
        "accuracy": number(one.accuracy),
        "gap": points(one.confidence - one.accuracy, signed=True),
        "left": round(100 * one.low, 2),
        "width": round(100 * (one.high - one.low), 2),
        "height": round(100 * one.accuracy, 2),
        "said": round(100 * one.confidence, 2),
        "share": round(one.count / most, 3),
    }


def _numbers(found: Calibrated) -> list[dict[str, str]]:
    now = _told(found.now)
    before = {} if found.before is None else _told(found.before)
    known = found.now.intervals
    ranges = {
        name: {"ece": bounds(one), "gap": span(one)}.get(name, f"{one.low:.3f} to {one.high:.3f}")
        for name, one in known.items()
    }
    return [
        {"name": name, "told": told, "now": now[key], "range": ranges.get(key, ""), "before": before.get(key, "")}
        for key, (name, told) in NAMES.items()
    ]


def _told(one: Calibration) -> dict[str, str]:
    return {
        "ece": number(one.ece),
        "adaptive": number(one.adaptive),
        "classwise": number(one.classwise, 2),
        "gap": points(one.gap, signed=True),
        "brier": f"{one.brier:.3f}",
        "nll": f"{one.nll:.3f}",
    }


NAMES = {
    "ece": ("Expected calibration error", "percent; 15 equal ranges of confidence"),
    "adaptive": ("Adaptive", "percent; ranges that hold equally many"),
    "classwise": ("Classwise", "percent; of every class' probability, mean over classes"),
    "gap": ("Too sure by", "points; mean confidence less accuracy"),
    "brier": ("Brier score", "0 is best, 2 worst"),
    "nll": ("Negative log-likelihood", "nats, 0 is best"),
}
