"""How sure scores of detection are: intervals from draws of whole images, groups of images, or blocks of a scene.

Objects of one image are alike in size, sort and difficulty, so they are drawn together; see `intervals`, whose intervals these
are. Average precision is computed anew for each draw. Where each draw finds all objects it has no spread; an exact interval, as
a share has, does not exist for it, so there is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terralean.errors import ConfigError
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
    several = _occupied(several)
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


def detection_document(scores: DetectionScores, bootstrap: DetectionBootstrap, *, names: Sequence[str]) -> dict[str, object]:
    """Scores with intervals for a JSON file, by the names of the field; null where a score has no meaning."""
    found = bootstrap.intervals
    overall = {FIELD_NAMES[n]: entry(getattr(scores, n), None if found is None else found.overall[n], None) for n in PER_SET}
    classes = [
        {"name": name, "objects": scores.support[i], "difficult": scores.difficult[i], "detections": scores.found[i]}
        | {
            FIELD_NAMES[n]: entry(getattr(scores, n)[i], None if found is None else found.classes[n][i], None)
            for n in PER_CLASS
        }
        for i, name in enumerate(names)
    ]
    return {**overall, "classes": classes, "intervals": bootstrap.note}


def _occupied(several: Sequence[Outcomes]) -> list[Outcomes]:
    """The same outcomes without the units in which no training has an object or a detection."""
    there = several[0].objects.sum(axis=1) > 0
    for one in several:
        there[one.unit] = True
    number = there.cumsum() - 1
    return [_renumbered(one, number[one.unit], one.objects[there]) for one in several]


def _renumbered(one: Outcomes, unit: NDArray[np.int64], objects: NDArray[np.int64]) -> Outcomes:
    return Outcomes(
        score=one.score,
        label=one.label,
        unit=unit,
        right=one.right,
        counted=one.counted,
        objects=objects,
        difficult=one.difficult,
        thresholds=one.thresholds,
    )


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
