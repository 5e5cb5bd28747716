"""Accuracy of a map against a reference: the confusion matrix, and the scores of the field that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terralean.errors import GridMismatch, LabelError
from terralean.spec import IGNORE

PER_MAP = ("oa", "aa", "kappa", "miou", "mf1")
PER_CLASS = ("iou", "f1", "precision", "recall")
CHUNK_PX = 1 << 22  # counting needs 8 bytes a pixel; 32 MiB at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """What a confusion matrix says, as shares 0..1.

    Pixels that the reference labels and the map leaves without a class are errors: they lower OA, recall, IoU, F1 and kappa.
    NaN where a score has no meaning, and left out of the means: recall of a class that the reference does not hold, precision
    of a class that the map does not hold, IoU and F1 of a class that neither holds, kappa where all pixels are of one class.
    """

    oa: float  # overall accuracy: share of labelled pixels that are right
    aa: float  # average accuracy: mean recall over the classes of the reference
    kappa: float  # Cohen's kappa: agreement beyond chance, -1..1
    miou: float  # mean IoU over classes that the reference or the map holds
    mf1: float  # mean F1 over the same classes
    iou: tuple[float, ...]  # per class: intersection over union
    f1: tuple[float, ...]  # per class: harmonic mean of precision and recall
    precision: tuple[float, ...]  # per class: user's accuracy, share of what is mapped as the class that is the class
    recall: tuple[float, ...]  # per class: producer's accuracy, share of the class that is mapped as such
    support: tuple[int, ...]  # per class: labelled pixels of the reference
    unmapped: tuple[int, ...]  # per class: those of them that the map leaves without a class


def confusion(reference: NDArray[Any], map: NDArray[Any], *, classes: int) -> NDArray[np.int64]:
    """Pixel counts (K, K): rows are the reference, columns the map.

    Arrays of one shape, whole numbers. 255 in the reference is not counted. 255 in the map where the reference has a class is
    not in this matrix: `unmapped` counts it, and every score takes both.
    """
    return _table(reference, map, classes=classes)[:classes, :classes]


def unmapped(reference: NDArray[Any], map: NDArray[Any], *, classes: int) -> NDArray[np.int64]:
    """Pixels (K,) of each reference class that the map leaves without a class (255): errors of omission."""
    return _table(reference, map, classes=classes)[:classes, IGNORE]


def score(confusion: NDArray[np.int64], *, unmapped: NDArray[np.int64]) -> Scores:
    """Scores of a confusion matrix (K, K) and the counts of `unmapped` (K,)."""
    found = measures(confusion, unmapped=unmapped)
    return Scores(
        oa=float(found["oa"]),
        aa=float(found["aa"]),
        kappa=float(found["kappa"]),
        miou=float(found["miou"]),
        mf1=float(found["mf1"]),
        iou=tuple(found["iou"].tolist()),
        f1=tuple(found["f1"].tolist()),
        precision=tuple(found["precision"].tolist()),
        recall=tuple(found["recall"].tolist()),
        support=tuple((confusion.sum(axis=1) + unmapped).tolist()),
        unmapped=tuple(unmapped.tolist()),
    )


def mean(several: Sequence[Scores]) -> Scores:
    """Of maps of one area: each score's mean, over the maps in which it has a meaning; unmapped pixels rounded."""
    return _over(several, mean_known)


def spread(several: Sequence[Scores]) -> Scores:
    """Of maps of one area: each score's standard deviation (n - 1); NaN where fewer than two maps give it a meaning."""
    return _over(several, deviation_known)


def measures(confusion: NDArray[Any], *, unmapped: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Scores of many matrices at once, (..., K, K) and (..., K): PER_MAP as (...), PER_CLASS as (..., K)."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    reference = confusion.sum(axis=-1).astype(np.float64) + unmapped
    mapped = confusion.sum(axis=-2).astype(np.float64)
    iou = _ratio(right, reference + mapped - right)
    return agreement(right, reference=reference, answered=mapped) | {"iou": iou, "miou": mean_known(iou)}


def agreement(
    right: NDArray[np.float64], *, reference: NDArray[np.float64], answered: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Scores of what is right of each class, of its members and of the answers that name it, (..., K) each.

    "oa", "kappa", "aa" and "mf1" as (...); "f1", "precision" and "recall" as (..., K).
    """
    total = reference.sum(axis=-1)
    share = _ratio(right.sum(axis=-1), total)
    chance = _ratio((reference * answered).sum(axis=-1), total**2)
    f1, recall = _ratio(2 * right, reference + answered), _ratio(right, reference)
    return {
        "oa": share,
        "kappa": _ratio(share - chance, 1 - chance),
        "f1": f1,
        "precision": _ratio(right, answered),
        "recall": recall,
        "aa": mean_known(recall),
        "mf1": mean_known(f1),
    }


def _table(reference: NDArray[Any], map: NDArray[Any], *, classes: int) -> NDArray[np.int64]:
    """Count every pair of byte values (256, 256); LabelError where a labelled pixel holds a value without a class."""
    if reference.shape != map.shape:
        raise GridMismatch(f"reference {reference.shape} and map {map.shape} differ in size; read both on the grid of the map")
    for name, values in (("reference", reference), ("map", map)):
        _check_bytes(values, name=name)
    table = np.zeros(256 * 256, np.int64)
    pairs = zip(_chunks(reference), _chunks(map), strict=True)
    for ref, mapped in pairs:
        table += np.bincount(ref.astype(np.intp) * 256 + mapped, minlength=256 * 256)
    square = table.reshape(256, 256)
    _check_values(square.sum(axis=1), classes=classes, name="reference")
    _check_values(square[:IGNORE].sum(axis=0), classes=classes, name="map")
    return square


def _chunks(values: NDArray[Any]) -> list[NDArray[Any]]:
    flat = values.reshape(-1)
    return [flat[start : start + CHUNK_PX] for start in range(0, flat.size, CHUNK_PX)]


def _check_bytes(values: NDArray[Any], *, name: str) -> None:
    if values.dtype.kind not in "iu":
        raise LabelError(f"the {name} holds {values.dtype} values; class values are whole numbers, 255 for no class")
    if values.size and (values.min() < 0 or values.max() > IGNORE):
        raise LabelError(f"the {name} holds values {values.min()}..{values.max()}; class values are 0..254, 255 for no class")


def _check_values(counts: NDArray[np.int64], *, classes: int, name: str) -> None:
    strange = [value for value in np.flatnonzero(counts).tolist() if classes <= value < IGNORE]
    if strange:
        values = ", ".join(str(value) for value in strange)
        raise LabelError(
            f"the {name} holds the values {values}, but there are {classes} classes (0..{classes - 1}); "
            "give the classes for all values, or 255 for pixels that should not count"
        )


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0)


def mean_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis of what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1).astype(np.float64))


def deviation_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation over the last axis of what is not NaN."""
    known = ~np.isnan(values)
    apart = np.where(known, values - mean_known(values)[..., None], 0.0)
    return np.sqrt(_ratio((apart**2).sum(axis=-1), known.sum(axis=-1) - 1.0))


def _over(several: Sequence[Scores], summary: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Scores:
    each = {name: summary(np.array([getattr(one, name) for one in several], np.float64).T) for name in (*PER_MAP, *PER_CLASS)}
    return Scores(
        oa=float(each["oa"]),
        aa=float(each["aa"]),
        kappa=float(each["kappa"]),
        miou=float(each["miou"]),
        mf1=float(each["mf1"]),
        iou=tuple(each["iou"].tolist()),
        f1=tuple(each["f1"].tolist()),
        precision=tuple(each["precision"].tolist()),
        recall=tuple(each["recall"].tolist()),
        support=several[0].support,
        unmapped=tuple(np.rint(np.mean([one.unmapped for one in several], axis=0)).astype(int).tolist()),
    )
