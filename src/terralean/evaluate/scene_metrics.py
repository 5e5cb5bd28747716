"""Accuracy of scene recognition: what a model answers for images whose class is known, and the scores that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from terralean.evaluate.metrics import agreement, deviation_known, mean_known

PER_RUN = ("oa", "top5", "aa", "kappa", "mf1")
PER_CLASS = ("f1", "precision", "recall")
FIVE = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """What a model says of n images."""

    label: NDArray[np.int64]  # (n,) the true class
    likeliest: NDArray[np.int64]  # (n, L) classes, the likeliest first: five, or as many as there are
    probability: NDArray[np.float64]  # (n, L) of these
    rank: NDArray[np.int64]  # (n,) of the true class, 0 where the answer is right

    @property
    def answer(self) -> NDArray[np.int64]:
        """The likeliest class (n,)."""
        return self.likeliest[:, 0]

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Its probability (n,)."""
        return self.probability[:, 0]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the likeliest class is the true one (n,)."""
        return self.rank == 0

    def of(self, images: NDArray[Any]) -> Answers:
        """Those of some images, by number or by mask."""
        return Answers(
            label=self.label[images],
            likeliest=self.likeliest[images],
            probability=self.probability[images],
            rank=self.rank[images],
        )


def answers(probabilities: NDArray[Any], label: NDArray[Any]) -> Answers:
    """probabilities (n, K), label (n,). Of equally likely classes the first counts as the likelier, as in validation."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    likeliest = order[:, :FIVE]
    return Answers(
        label=np.asarray(label, np.int64),
        likeliest=likeliest.astype(np.int64),
        probability=np.take_along_axis(probabilities, likeliest, axis=1).astype(np.float64),
        rank=np.argmax(order == np.asarray(label)[:, None], axis=1).astype(np.int64),
    )


def joined(parts: Sequence[Answers]) -> Answers:
    """Answers of several lots of images, in order."""
    return Answers(
        label=np.concatenate([part.label for part in parts]),
        likeliest=np.concatenate([part.likeliest for part in parts]),
        probability=np.concatenate([part.probability for part in parts]),
        rank=np.concatenate([part.rank for part in parts]),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Units:
    """What is drawn for the intervals: images, or groups of images that are alike."""

    name: str  # "images" or "groups"
    number: NDArray[np.int64]  # (n,) of the unit that each image is in, from 0
    count: int


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Images of each unit by class, as sparse matrices (units, K), and of all classes (units,)."""

    reference: csr_array  # whose class it is
    answered: csr_array  # whose answer it is
    right: csr_array  # whose class and answer it is
    five: NDArray[np.float64]  # whose class is among the five likeliest

    @property
    def units(self) -> int:
        """Rows."""
        return len(self.five)


def count(answers: Answers, units: Units, *, classes: int) -> Counts:
    """Count answers by unit and class."""

    def table(chosen: NDArray[np.bool_], of: NDArray[np.int64]) -> csr_array:
        places = units.number[chosen], of[chosen]
        return csr_array((np.ones(len(places[0])), places), shape=(units.count, classes))

    every = np.ones(len(answers.label), bool)
    return Counts(
        reference=table(every, answers.label),
        answered=table(every, answers.answer),
        right=table(answers.right, answers.label),
        five=np.bincount(units.number[answers.rank < FIVE], minlength=units.count).astype(np.float64),
    )


def measures(counts: Counts, times: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Scores where each unit counts so many times (R, units): PER_RUN as (R,), PER_CLASS as (R, K)."""
    reference = times @ counts.reference
    found = agreement(times @ counts.right, reference=reference, answered=times @ counts.answered)
    return found | {"top5": times @ counts.five / reference.sum(axis=-1)}


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneScores:
    """What answers are worth, as shares 0..1.

    NaN where a score has no meaning, and left out of the means: recall of a class without an image, precision of one that is
    never the answer, F1 of one that is neither, kappa where all images and answers are of one class.
    """

    oa: float  # overall accuracy, top-1: share of images whose likeliest class is the true one
    top5: float  # share of images whose class is among the five likeliest; 1 where there are no more than five
    aa: float  # average accuracy: mean recall over the classes that have images
    kappa: float  # Cohen's kappa: agreement beyond chance, -1..1
    mf1: float  # mean F1 over classes that have images or are answers
    f1: tuple[float, ...]  # per class: harmonic mean of precision and recall
    precision: tuple[float, ...]  # per class: share of the answers that are right
    recall: tuple[float, ...]  # per class: share of the images that are recognised
    support: tuple[int, ...]  # per class: images


def score(answers: Answers, *, classes: int) -> SceneScores:
    """Scores of answers."""
    every = Units(name="images", number=np.zeros(len(answers.label), np.int64), count=1)
    found = measures(count(answers, every, classes=classes), np.ones((1, 1)))
    support = tuple(np.bincount(answers.label, minlength=classes).tolist())
    return _scores({name: values[0] for name, values in found.items()}, support=support)


def confusion(answers: Answers, *, classes: int) -> NDArray[np.int64]:
    """Images by true class (rows) and answer (columns): (K, K)."""
    return np.bincount(answers.label * classes + answers.answer, minlength=classes**2).reshape(classes, classes)


def mean(several: Sequence[SceneScores]) -> SceneScores:
    """Of runs on the same images: each score's mean, over the runs in which it has a meaning."""
    return _over(several, mean_known)


def spread(several: Sequence[SceneScores]) -> SceneScores:
    """Each score's standard deviation between runs (n - 1); NaN where fewer than two give it a meaning."""
    return _over(several, deviation_known)


def _over(several: Sequence[SceneScores], summary: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> SceneScores:
    names = (*PER_RUN, *PER_CLASS)
    each = {name: summary(np.array([getattr(one, name) for one in several], np.float64).T) for name in names}
    return _scores(each, support=several[0].support)


def _scores(found: dict[str, NDArray[np.float64]], *, support: tuple[int, ...]) -> SceneScores:
    """By name: PER_RUN as (), PER_CLASS as (K,)."""
    return SceneScores(
        oa=float(found["oa"]),
        top5=float(found["top5"]),
        aa=float(found["aa"]),
        kappa=float(found["kappa"]),
        mf1=float(found["mf1"]),
        f1=tuple(found["f1"].tolist()),
        precision=tuple(found["precision"].tolist()),
        recall=tuple(found["recall"].tolist()),
        support=support,
    )
