"""How sure scores of detection are: intervals from draws of whole images, groups of images, or blocks of a scene.

Objects of one image are alike in size, sort and difficulty, so they are drawn together; see `intervals`, whose intervals these
are. Average precision is computed anew for each draw. Where each draw finds all objects it has no spread; an exact interval, as
a share has, does not exist for it, so there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terralean.errors import ConfigError
from terralean.evaluate import compare
from terralean.evaluate.compare import Difference
from terralean.evaluate.intervals import (
    CHUNK_BYTES,
    FEW_BLOCKS,
    MIN_BLOCKS,
    MIN_RESAMPLES,
    RESAMPLES,
    Drawn,
    Interval,
    ends,
    entry,
    inside,
)
from terralean.tasks.detection_scores import FIELD_NAMES, PER_CLASS, PER_SET, DetectionScores, Outcomes, measures


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionIntervals:
    """The 95 % interval of every score of `DetectionScores`, by its name; None where there is none.

    A class has one only where at least five units hold an object of it.
    """

    overall: dict[str, Interval | None]  # by PER_SET
    classes: dict[str, tuple[Interval | None, ...]]  # by PER_CLASS


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionBootstrap:
    """Intervals with a sentence on how they came about, or None with the reason."""

    intervals: DetectionIntervals | None
    note: str


def bootstrap_detections(
    several: Sequence[Outcomes], *, unit: str, generator: np.random.Generator, resamples: int = RESAMPLES
) -> DetectionBootstrap:
    """Intervals of the scores of one training, or of the means of several, on the same units: "images", "groups", "blocks".

    Units without an object or a detection are not drawn. Raises ConfigError below 1000 draws.
    """
    if resamples < MIN_RESAMPLES:
        raise ConfigError(f"{resamples} resamples are too few for the ends of a 95 % interval; use {MIN_RESAMPLES} or more")
    several = same_units(several)
    units = len(several[0].objects)
    if units < MIN_BLOCKS:
        return DetectionBootstrap(intervals=None, note=_too_few(units, unit))
    drawn = _draw(several, generator=generator, resamples=resamples)
    held = (several[0].objects > 0).sum(axis=0)
    overall = {name: _interval(drawn, name, units=units) for name in PER_SET}
    classes = {
        name: tuple(
            _interval(drawn, name, units=units, of=label) if count >= MIN_BLOCKS else None for label, count in enumerate(held)
        )
        for name in PER_CLASS
    }
    note = _note(units, unit, resamples, trainings=len(several))
    return DetectionBootstrap(intervals=DetectionIntervals(overall=overall, classes=classes), note=note)


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionComparison:
    """How this run differs from another on the same images: above 0 this one is better."""

    overall: dict[str, Difference]  # by PER_SET
    ap50: tuple[Difference, ...]  # of each class, by VOC 2007's rule
    units: int
    unit: str


def compare_detections(
    mine: Sequence[Outcomes],
    theirs: Sequence[Outcomes],
    *,
    unit: str,
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> DetectionComparison:
    """Take the other from this, within the same draws of the same units: as many trainings each, paired in order."""
    every, n = same_units([*mine, *theirs]), len(mine)
    drawn = _draw(every, generator=generator, resamples=resamples)
    apart = Drawn(
        whole={name: values[:n] - values[n:] for name, values in drawn.whole.items()},
        draws={name: values[:n] - values[n:] for name, values in drawn.draws.items()},
    )
    units, held = len(every[0].objects), (every[0].objects > 0).sum(axis=0)
    return DetectionComparison(
        overall={name: _difference(apart, name, held=units, units=units) for name in PER_SET},
        ap50=tuple(_difference(apart, "ap50_voc07", held=int(k), units=units, of=i) for i, k in enumerate(held)),
        units=units,
        unit=unit,
    )


def _difference(apart: Drawn, name: str, *, held: int, units: int, of: int | None = None) -> Difference:
    whole = apart.whole[name] if of is None else apart.whole[name][:, of]
    enough = min(held, units) >= MIN_BLOCKS
    return Difference(value=float(whole.mean()), interval=ends(apart, name, blocks=units, of=of) if enough else None)


def verdict(comparison: DetectionComparison, *, other: str) -> str:
    """Whether this run is ahead of the other, behind it, or neither, by DOTA's score, in one sentence."""
    found, drawn = comparison.overall["map50_voc07"], f"test {comparison.unit}"
    return compare.sentence(found, other=other, score=FIELD_NAMES["map50_voc07"], drawn=drawn, count=comparison.units)


def comparison_document(comparison: DetectionComparison, *, names: Sequence[str]) -> dict[str, object]:
    """Differences for a JSON file, by the names of the field."""
    overall: dict[str, object] = {
        FIELD_NAMES[name]: compare.difference_entry(found) for name, found in comparison.overall.items()
    }
    apart = zip(names, comparison.ap50, strict=True)
    return overall | {
        "classes": [{"name": name, FIELD_NAMES["ap50_voc07"]: compare.difference_entry(found)} for name, found in apart]
    }


def mean_scores(several: Sequence[DetectionScores]) -> DetectionScores:
    """Of several trainings; detections are rounded."""
    found = tuple(round(float(np.mean(counts))) for counts in zip(*(one.found for one in several), strict=True))
    return replace(several[0], **_over(several, np.mean), found=found)


def spread_scores(several: Sequence[DetectionScores]) -> DetectionScores:
    """Standard deviations between trainings, of two or more."""
    return replace(several[0], **_over(several, lambda values: np.std(values, ddof=1)))


def _over(several: Sequence[DetectionScores], of: Callable[[list[float]], np.floating]) -> dict[str, Any]:
    overall = {name: float(of([getattr(one, name) for one in several])) for name in PER_SET}
    classes = {
        name: tuple(float(of([*values])) for values in zip(*(getattr(one, name) for one in several), strict=True))
        for name in PER_CLASS
    }
    return overall | classes


def detection_document(
    scores: DetectionScores, bootstrap: DetectionBootstrap, *, names: Sequence[str], spread: DetectionScores | None = None
) -> dict[str, object]:
    """Scores with intervals for a JSON file, by the names of the field; null where a score has no meaning."""
    found = bootstrap.intervals
    overall = {
        FIELD_NAMES[n]: entry(
            getattr(scores, n), None if found is None else found.overall[n], None if spread is None else getattr(spread, n)
        )
        for n in PER_SET
    }
    classes = [
        {"name": name, "objects": scores.support[i], "difficult": scores.difficult[i], "detections": scores.found[i]}
        | {
            FIELD_NAMES[n]: entry(
                getattr(scores, n)[i],
                None if found is None else found.classes[n][i],
                None if spread is None else getattr(spread, n)[i],
            )
            for n in PER_CLASS
        }
        for i, name in enumerate(names)
    ]
    return {**overall, "classes": classes, "intervals": bootstrap.note}


def same_units(several: Sequence[Outcomes]) -> list[Outcomes]:
    """The same outcomes in units that are common to all, without those in which none has an object or a detection."""
    several = _same_blocks(several)
    there = several[0].objects.sum(axis=1) > 0
    for one in several:
        there[one.unit] = True
    number = there.cumsum() - 1
    return [replace(one, unit=number[one.unit], objects=one.objects[there], places=None) for one in several]


def _same_blocks(several: Sequence[Outcomes]) -> list[Outcomes]:
    """Blocks are known only where a training has something in them: number those of all together."""
    places = [one.places for one in several if one.places is not None]
    if len(places) < len(several):
        return [*several]
    every, number = np.unique(np.concatenate(places), axis=0, return_inverse=True)
    out = []
    for one, mine in zip(several, np.split(number, np.cumsum([len(some) for some in places])[:-1]), strict=True):
        objects = np.zeros((len(every), one.objects.shape[1]), dtype=np.int64)
        objects[mine] = one.objects
        out.append(replace(one, unit=mine[one.unit], objects=objects, places=every))
    return out


def _draw(several: Sequence[Outcomes], *, generator: np.random.Generator, resamples: int) -> Drawn:
    """Score each training on all units, and on the same draws of them."""
    units = len(several[0].objects)
    whole = [measures(one, np.ones((1, units))) for one in several]
    parts: list[list[dict[str, NDArray[np.float64]]]] = [[] for _ in several]
    for times in _times(several, generator=generator, resamples=resamples):
        for part, one in zip(parts, several, strict=True):
            part.append(measures(one, times))
    names = whole[0].keys()
    return Drawn(
        whole={name: np.concatenate([one[name] for one in whole]) for name in names},
        draws={name: np.stack([np.concatenate([some[name] for some in part]) for part in parts]) for name in names},
    )


def _times(several: Sequence[Outcomes], *, generator: np.random.Generator, resamples: int) -> Iterator[NDArray[np.float64]]:
    """How often each unit is in each draw of n out of n, so many rows at a time that what follows is bounded."""
    units = len(several[0].objects)
    most = max(int(np.bincount(one.label, minlength=1).max()) for one in several)
    rows = max(1, CHUNK_BYTES // (8 * (units + 6 * most)))
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        yield generator.multinomial(units, np.full(units, 1 / units), size=size).astype(np.float64)


def _interval(drawn: Drawn, name: str, *, units: int, of: int | None = None) -> Interval | None:
    """None where all draws are the same: a score without spread is not a sure one."""
    found = ends(drawn, name, blocks=units, of=of)
    return None if found is None or found.low == found.high else inside(found, name)


def _note(units: int, unit: str, resamples: int, *, trainings: int) -> str:
    few = f" With so few {unit} they tend to be too narrow." if units < FEW_BLOCKS else ""
    because = "because objects near each other are alike"
    if trainings == 1:
        return f"95 % intervals from {resamples} draws of the {units} test {unit}, drawn as a whole {because}.{few}"
    return (
        f"95 % intervals of the mean over {trainings} trainings that differ in their seed: the variance over {resamples} draws "
        f"of the {units} test {unit}, drawn as a whole {because}, plus the variance between the trainings.{few}"
    )


def _too_few(units: int, unit: str) -> str:
    return (
        f"No intervals: the test set has {units} {unit if units != 1 else unit.removesuffix('s')} with objects or detections, "
        f"and at least {MIN_BLOCKS} are needed. Test more, or draw smaller units."
    )
