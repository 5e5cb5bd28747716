"""What a scene classifier must beat: the commonest class, and a logistic regression on colours and how rough they are.

They learn from training images of the model's, and answer for the very images that it answers for.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from terralean.data.scene_config import SceneDataConfig
from terralean.data.scene_index import SceneImage
from terralean.data.scene_picture import Picture, read_picture
from terralean.evaluate.scene_intervals import SceneComparison
from terralean.evaluate.scene_metrics import Answers, SceneScores, answers, score

TRAIN_IMAGES = 2000  # of which the regression learns, at most
LOOK_PX = 128  # of larger images as much as leaves so many pixels along the shorter side, or up to twice as many
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
STEPS = 500  # of the optimiser, at most


@dataclass(frozen=True, kw_only=True)
class SceneRival:
    """A simple method with its answers."""

    name: str
    explanation: str  # one sentence
    answers: Answers
    scores: SceneScores
    comparison: SceneComparison | None = None  # the model minus this


def score_rivals(
    train: Sequence[SceneImage], test: Sequence[SceneImage], *, classes: int, config: SceneDataConfig
) -> tuple[SceneRival, ...]:
    """The commonest class of the training images, and the regression, answering for the test images."""
    label = np.array([image.label for image in test])
    shares = np.bincount([image.label for image in train], minlength=classes) / len(train)
    learnt = [train[i] for i in chosen(train, most=TRAIN_IMAGES)]
    votes = _regress(learnt, test, classes=classes, config=config)
    many = "all" if len(learnt) == len(train) else f"{len(learnt)} of the"
    found = (
        (
            "Regression on colours and texture",
            f"A logistic regression on {FEATURES}; it learns from {many} {len(train)} training images.",
            answers(votes, label),
        ),
        (
            "Commonest class for all",
            "Every image is given the commonest class of the training images.",
            answers(np.tile(shares, (len(test), 1)), label),
        ),
    )
    return tuple(
        SceneRival(name=name, explanation=words, answers=given, scores=score(given, classes=classes))
        for name, words, given in found
    )


FEATURES = "mean, deviation, quantiles and roughness of each band and the correlations between bands"


def describe(picture: Picture) -> NDArray[np.float64]:
    """What a regression sees of an image, (8 C + C (C - 1) / 2 + C,) of C bands. Roughness is how much neighbours differ."""
    values, valid = picture.values.astype(np.float64), picture.valid
    known = values[:, valid]
    spread = known.std(axis=1)
    rough = [
        np.abs(np.diff(values, axis=axis))[:, both].mean(axis=1) if both.any() else np.zeros(len(values))
        for axis, both in ((1, valid[1:] & valid[:-1]), (2, valid[:, 1:] & valid[:, :-1]))
    ]
    apart = known - known.mean(axis=1, keepdims=True)
    scale = np.outer(spread, spread)
    alike = np.divide(apart @ apart.T / known.shape[1], scale, out=np.zeros_like(scale), where=scale > 0)
    pairs = alike[np.triu_indices(len(values), k=1)]
    return np.concatenate([known.mean(axis=1), spread, *np.quantile(known, QUANTILES, axis=1), *rough, pairs])


def chosen(images: Sequence[SceneImage], *, most: int) -> list[int]:
    """Up to so many images at random, one of each class among them if there is room."""
    order = np.random.default_rng(0).permutation(len(images)).tolist()
    first = {images[i].label: i for i in reversed(order)}
    others = [i for i in order if first[images[i].label] != i]
    return sorted([*first.values(), *others][:most])


def _regress(
    train: Sequence[SceneImage], test: Sequence[SceneImage], *, classes: int, config: SceneDataConfig
) -> NDArray[np.float64]:
    """Probabilities (n, K) of the test images."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=STEPS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # what it has learned by then is what it is judged by
        model.fit(_described(train, config), [image.label for image in train])
    votes = np.zeros((len(test), classes))
    votes[:, model.classes_] = model.predict_proba(_described(test, config))
    return votes


def _described(images: Sequence[SceneImage], config: SceneDataConfig) -> NDArray[np.float64]:
    return np.stack([describe(read_picture(image.path, config=config, keep_px=LOOK_PX)) for image in images])
