"""How good detections of oriented objects are: average precision by the rule of DOTA's own evaluation.

Within an image and a class, detections are taken by falling score. Each is compared with the object with which its polygon has
the highest IoU. If that IoU is above the threshold, the first detection of an object is right, any further one is wrong, and
one of a difficult object is neither; if it is not, the detection is wrong. Objects that are not difficult can be found.

Precision and recall as the score falls give the average precision, by one of two rules of PASCAL VOC (Everingham et al. 2010):
"voc07" is the mean, over recall 0, 0.1, .. 1, of the highest precision at that recall or beyond; DOTA's server reports it, and
papers do. "area" is the area below precision made falling. Detections of equal score count together, so that the order of
images does not matter; recall is compared exactly, where the published code is a rounding error off at 0.3, 0.6 and 0.7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from terralean.boxes.polygons import best_matches
from terralean.data.oriented.record import Detections, Record
from terralean.errors import DatasetError

Rule = Literal["voc07", "area"]
RULES: tuple[Rule, ...] = get_args(Rule)
IOU_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
TENTHS = 10
PER_SET = tuple(f"m{name}_{rule}" for rule in RULES for name in ("ap50", "ap50_95"))
PER_CLASS = (*(f"{name}_{rule}" for rule in RULES for name in ("ap50", "ap50_95")), "recall50")
FIELD_NAMES = {
    "map50_voc07": "mAP@0.5 (VOC07)",
    "map50_area": "mAP@0.5 (area)",
    "map50_95_voc07": "mAP@0.5:0.95 (VOC07)",
    "map50_95_area": "mAP@0.5:0.95 (area)",
    "ap50_voc07": "AP@0.5 (VOC07)",
    "ap50_area": "AP@0.5 (area)",
    "ap50_95_voc07": "AP@0.5:0.95 (VOC07)",
    "ap50_95_area": "AP@0.5:0.95 (area)",
    "recall50": "recall@0.5",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcomes:
    """What became of D detections, at T thresholds of IoU, and the objects that could be found, in U units and K classes.

    A unit is what is drawn as a whole for intervals: an image, a group of images, or a block of a scene.
    """

    score: NDArray[np.float64]  # (D,)
    label: NDArray[np.int64]  # (D,)
    unit: NDArray[np.int64]  # (D,)
    right: NDArray[np.bool_]  # (D, T)
    counted: NDArray[np.bool_]  # (D, T) False where the detection is of a difficult object
    objects: NDArray[np.int64]  # (U, K) those that are not difficult
    difficult: NDArray[np.int64]  # (K,)
    thresholds: tuple[float, ...]
    places: NDArray[np.int64] | None = None  # (U, 3) image or group, row and column of each block; None: unit i is image i


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionScores:
    """Average precision of detections, 0..1. NaN for a class without an object to be found, which no mean counts."""

    map50_voc07: float  # mean over classes, at IoU 0.5, by VOC 2007's eleven points: what DOTA's server reports
    map50_area: float  # by the area below the curve
    map50_95_voc07: float  # mean over IoU 0.5, 0.55, .. 0.95 too
    map50_95_area: float
    ap50_voc07: tuple[float, ...]  # per class
    ap50_area: tuple[float, ...]
    ap50_95_voc07: tuple[float, ...]
    ap50_95_area: tuple[float, ...]
    recall50: tuple[float, ...]  # per class: share of the objects that any detection finds, at IoU 0.5
    support: tuple[int, ...]  # per class: objects that are not difficult
    difficult: tuple[int, ...]  # per class: objects that are, and are not scored
    found: tuple[int, ...]  # per class: detections


def score(outcomes: Outcomes) -> DetectionScores:
    """Scores of all detections together."""
    values = measures(outcomes, np.ones((1, len(outcomes.objects))))
    found = np.bincount(outcomes.label, minlength=outcomes.objects.shape[1])
    return DetectionScores(
        **{name: float(values[name][0]) for name in PER_SET},  # type: ignore[arg-type]
        **{name: tuple(values[name][0].tolist()) for name in PER_CLASS},  # type: ignore[arg-type]
        support=tuple(outcomes.objects.sum(axis=0).tolist()),
        difficult=tuple(outcomes.difficult.tolist()),
        found=tuple(found.tolist()),
    )


class Judged(NamedTuple):
    """What becomes of the n detections and m objects of an image, at one threshold of IoU."""

    right: NDArray[np.bool_]  # (n,)
    ignored: NDArray[np.bool_]  # (n,) of a difficult object; what is neither is wrong
    missed: NDArray[np.bool_]  # (m,) not difficult, and no detection is right


def judge(found: Detections, truth: Record, *, iou: float) -> Judged:
    """Detections and objects of one image, as scores take them."""
    matched = _match(found, truth, (iou,))
    right, missed = matched.right[:, 0], truth.difficult == 0
    missed[matched.best[right]] = False
    return Judged(right=right, ignored=~matched.counted[:, 0], missed=missed)


# What becomes of each detection.


def outcomes(
    found: Sequence[Detections],
    truth: Sequence[Record],
    *,
    classes: int,
    groups: Sequence[str] | None = None,
    block_px: float | None = None,
    thresholds: tuple[float, ...] = IOU_THRESHOLDS,
) -> Outcomes:
    """Compare detections with objects, image by image in the same order. Images without either count too.

    Units are the images, unless `groups` names one for each image, or `block_px` is the side of square blocks of an image: an
    object and all detections of it are in the block of the object's middle, other detections in that of their own. Raises
    DatasetError where images differ.
    """
    for one, other in zip(found, truth, strict=True):
        if one.image != other.image:
            raise DatasetError(f"detections of {one.image} stand beside objects of {other.image}; put them in one order")
    matched = [_match(one, other, thresholds) for one, other in zip(found, truth, strict=True)]
    numbers = np.arange(len(truth)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    units = _units(found, truth, matched, numbers.astype(np.int64), block_px=block_px)
    labels = np.concatenate([NO_LABELS, *(one.labels for one in truth)])
    hard = np.concatenate([NO_LABELS, *(one.difficult for one in truth)]) > 0
    objects = np.zeros((units.count, classes), dtype=np.int64)
    np.add.at(objects, (units.of_truth[~hard], labels[~hard]), 1)
    none = np.zeros((0, len(thresholds)), dtype=np.bool_)
    return Outcomes(
        score=np.concatenate([np.zeros(0), *(one.scores for one in found)]),
        label=np.concatenate([NO_LABELS, *(one.labels for one in found)]),
        unit=units.of_found,
        right=np.concatenate([none, *(one.right for one in matched)]),
        counted=np.concatenate([none, *(one.counted for one in matched)]),
        objects=objects,
        difficult=np.bincount(labels[hard], minlength=classes),
        thresholds=thresholds,
        places=units.places,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Matched:
    """What became of the n detections of one image."""

    best: NDArray[np.int64]  # (n,) number of the object that each is compared with; -1 where none overlaps
    hit: NDArray[np.bool_]  # (n,) whether the IoU with it is above the first threshold
    right: NDArray[np.bool_]  # (n, T)
    counted: NDArray[np.bool_]  # (n, T)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Units:
    """Which unit each detection and each object is in."""

    of_found: NDArray[np.int64]
    of_truth: NDArray[np.int64]
    count: int
    places: NDArray[np.int64] | None  # (count, 3)


NO_LABELS = np.zeros(0, dtype=np.int64)


def _match(found: Detections, truth: Record, thresholds: tuple[float, ...]) -> _Matched:
    given = (found.polygons, truth.polygons, found.labels, truth.labels)
    iou, best = (some.numpy() for some in best_matches(*(torch.from_numpy(some) for some in given)))
    hits = iou[:, None] > np.asarray(thresholds)
    hard = np.append(truth.difficult > 0, False)[best]
    right = np.zeros_like(hits)
    order = np.argsort(-found.scores, kind="stable")
    for place in range(len(thresholds)):
        hitting = order[hits[order, place] & ~hard[order]]
        _, first = np.unique(best[hitting], return_index=True)
        right[hitting[first], place] = True
    return _Matched(best=best, hit=hits[:, 0], right=right, counted=~(hits & hard[:, None]))


def _units(
    found: Sequence[Detections],
    truth: Sequence[Record],
    matched: Sequence[_Matched],
    numbers: NDArray[np.int64],
    *,
    block_px: float | None,
) -> _Units:
    places = [np.zeros((0, 3), dtype=np.int64)]
    places += [_blocks(one.polygons, number, block_px) for one, number in zip(truth, numbers, strict=True)]
    objects = sum(map(len, truth))
    for one, other, match, number in zip(found, truth, matched, numbers, strict=True):
        own, theirs = (_blocks(some.polygons, number, block_px) for some in (one, other))
        own[match.hit] = theirs[match.best[match.hit]]
        places.append(own)
    every = np.concatenate(places)
    kinds = None
    if block_px is None:
        unit, count = every[:, 0], int(numbers.max(initial=-1)) + 1
    else:
        kinds, unit = np.unique(every, axis=0, return_inverse=True)
        count = len(kinds)
    return _Units(of_truth=unit[:objects], of_found=unit[objects:], count=count, places=kinds)


def _blocks(polygons: NDArray[np.float64], number: int, block_px: float | None) -> NDArray[np.int64]:
    """Number of the image or group, row and column of the block (n, 3) that holds the middle of each polygon."""
    places = np.full((len(polygons), 3), number, dtype=np.int64)
    middles = polygons.reshape(-1, 4, 2).mean(axis=1)
    places[:, 1:] = 0 if block_px is None else np.floor(middles[:, ::-1] / block_px)
    return places


# Average precision.


def measures(outcomes: Outcomes, times: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Scores where each unit counts so many times (R, U): PER_SET as (R,), PER_CLASS as (R, K)."""
    objects = times @ outcomes.objects
    table = np.full((len(RULES), len(outcomes.thresholds), *objects.shape), np.nan)
    recall = np.full(objects.shape, np.nan)
    for label in range(objects.shape[1]):
        some = np.flatnonzero(outcomes.label == label)
        some = some[np.argsort(-outcomes.score[some], kind="stable")]
        last = _last_of_each(outcomes.score[some])
        weight = times[:, outcomes.unit[some]]
        for place in range(len(outcomes.thresholds)):
            right = (weight * outcomes.right[some, place]).cumsum(axis=1)[:, last]
            answered = (weight * outcomes.counted[some, place]).cumsum(axis=1)[:, last]
            table[:, place, :, label] = average_precision(right, answered, objects[:, label])
            if place == 0:
                recall[:, label] = _ratio(right[:, -1] if len(last) else np.zeros(len(times)), objects[:, label])
    per_class = {"recall50": recall}
    for rule, values in zip(RULES, table, strict=True):
        per_class |= {f"ap50_{rule}": values[0], f"ap50_95_{rule}": values.mean(axis=0)}
    return per_class | {f"m{name}": mean_known(per_class[name]) for name in per_class if name.startswith("ap")}


def average_precision(
    right: NDArray[np.float64], answered: NDArray[np.float64], objects: NDArray[np.float64]
) -> NDArray[np.float64]:
    """AP by each rule, (2, R): how many are right and how many count down to each score (R, P), and objects (R,).

    Scores fall along P. NaN where there is no object.
    """
    precision = _ratio(right, answered, otherwise=0.0)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    area = (np.diff(right, axis=1, prepend=0) * best).sum(axis=1)
    eleven = np.zeros(len(objects))
    for tenth in range(TENTHS + 1 if right.shape[1] else 0):
        reached = TENTHS * right >= tenth * objects[:, None]
        at = np.take_along_axis(best, reached.argmax(axis=1)[:, None], axis=1)[:, 0]
        eleven += np.where(reached.any(axis=1), at, 0.0)
    known = np.where(objects > 0, 1.0, np.nan)
    return np.stack([eleven / (TENTHS + 1) * known, _ratio(area, objects)])


def mean_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis of what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1).astype(np.float64))


def _last_of_each(falling: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the last of each run of equal numbers."""
    return np.flatnonzero(np.append(falling[1:] != falling[:-1], True)) if len(falling) else NO_LABELS


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64], *, otherwise: float = np.nan) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full_like(whole, otherwise, dtype=np.float64), where=whole > 0)
