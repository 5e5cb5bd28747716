"""Fit a support vector machine to labelled pixels, and make of it a model like any other."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import SVC
from torch import Tensor

from terralean.errors import ConfigError, EmptySplit
from terralean.models.svm import SVM
from terralean.train.svm_config import SVMConfig


@dataclass(frozen=True, kw_only=True)
class FittedSVM:
    """A machine, and what it took."""

    model: SVM
    cost: float
    gamma: float
    accuracy: float | None  # mean over the folds, of these two; None where there was one choice
    seconds: float

    @property
    def sizes(self) -> dict[str, bool | int | float | str]:
        """What models.svm.svm needs to build one of this shape."""
        model = self.model
        return {"support": len(model.support), "components": len(model.axes), "side_px": model.window_px}


def fit_svm(
    config: SVMConfig,
    patches: Iterable[tuple[Tensor, Tensor]],
    *,
    bands: int,
    classes: int,
    seed: int,
    component_pixels: Tensor | None = None,
) -> FittedSVM:
    """Fit to patches (b, bands, h, w), as networks see them, with the labels (b,) of their middle pixels.

    Components are those of the middle pixels, or of `component_pixels` (n, bands) where others are to be seen, too. The same
    seed and data give the same machine. Raises EmptySplit where there are not two classes.
    """
    began = time.monotonic()
    cut = [(_inner(patch, side_px=config.side_px), label) for patch, label in patches]
    if not cut or len(torch.cat([label for _, label in cut]).unique()) < 2:  # noqa: PLR2004
        raise EmptySplit("a support vector machine needs training pixels of two classes at least; label some of another class")
    inner, labels = torch.cat([patch for patch, _ in cut]), torch.cat([label for _, label in cut]).numpy()
    shape = {"bands": bands, "classes": classes, "components": config.components, "side_px": config.side_px}
    seeing = SVM(support=0, **shape)
    middle = inner[..., config.side_px // 2, config.side_px // 2]
    seeing.start_from(middle if component_pixels is None else component_pixels)
    features = seeing.shared(inner)[..., 0, 0].double().numpy()
    seeing.mean, seeing.deviation = _standard(features)
    standardised = (features - seeing.mean.double().numpy()) / seeing.deviation.double().numpy()
    found, accuracy = _search(config, standardised, labels, seed=seed)
    model = SVM(support=len(found.support_vectors_), **shape)
    model.load_state_dict(seeing.state_dict() | hold(found, classes=classes))
    return FittedSVM(
        model=model.eval(), cost=float(found.C), gamma=float(found.gamma), accuracy=accuracy, seconds=time.monotonic() - began
    )


def hold(machine: SVC, *, classes: int) -> dict[str, Tensor]:
    """What scikit-learn's machine knows, by the names of models.svm.SVM. Pairs with a class that it never saw are 0."""
    known = machine.classes_.astype(np.int64)
    pairs = {pair: place for place, pair in enumerate(_pairs(classes))}
    # Of two classes scikit-learn turns the sign around.
    sign = -1.0 if len(known) == 2 else 1.0  # noqa: PLR2004
    starts = np.cumsum([0, *machine.n_support_])
    weight, bias = np.zeros((len(pairs), len(machine.support_vectors_))), np.zeros(len(pairs))
    for number, (i, j) in enumerate(_pairs(len(known))):
        place = pairs[int(known[i]), int(known[j])]
        # The weights of a class's vectors against each other class are rows of dual_coef_, its own left out.
        of_i, of_j = slice(starts[i], starts[i + 1]), slice(starts[j], starts[j + 1])
        weight[place, of_i] = sign * machine.dual_coef_[j - 1, of_i]
        weight[place, of_j] = sign * machine.dual_coef_[i, of_j]
        bias[place] = sign * machine.intercept_[number]
    state = {
        "support": machine.support_vectors_,
        "weight": weight,
        "bias": bias,
        "gamma": np.asarray(float(machine.gamma)),
        "known": np.isin(np.arange(classes), known),
    }
    return {name: torch.from_numpy(np.asarray(value)).to(_dtype(name)) for name, value in state.items()}


def _dtype(name: str) -> torch.dtype:
    return torch.bool if name == "known" else torch.float32


def _pairs(count: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(count) for j in range(i + 1, count)]


def _inner(patch: Tensor, *, side_px: int) -> Tensor:
    """The square of this side in the middle of patches. Raises ConfigError where they are smaller."""
    height, width = patch.shape[-2:]
    if min(height, width) < side_px:
        raise ConfigError(f"patches of {height} x {width} px are smaller than svm.side_px {side_px}; cut larger ones")
    top, left = height // 2 - side_px // 2, width // 2 - side_px // 2
    return patch[..., top : top + side_px, left : left + side_px]


def _standard(features: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Means and deviations of features (n, F); where all are alike the deviation is 1."""
    deviation = features.std(axis=0)
    deviation[deviation == 0] = 1
    return torch.from_numpy(features.mean(axis=0)).float(), torch.from_numpy(deviation).float()


def _search(
    config: SVMConfig, features: NDArray[np.float64], labels: NDArray[np.int64], *, seed: int
) -> tuple[SVC, float | None]:
    """The machine of the best cost and gamma, fitted to all pixels, and its accuracy on pixels left out."""
    gammas = [gamma / features.shape[1] for gamma in config.gammas]
    smallest = int(np.unique(labels, return_counts=True)[1].min())
    folds = min(config.folds, max(2, smallest))
    if len(config.costs) * len(gammas) == 1:
        return SVC(C=config.costs[0], gamma=gammas[0]).fit(features, labels), None
    tried: dict[str, Any] = {"C": list(config.costs), "gamma": gammas}
    search = GridSearchCV(SVC(), tried, cv=StratifiedKFold(folds, shuffle=True, random_state=seed))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class in y has only")  # it is left out of a fold
        search.fit(features, labels)
    return search.best_estimator_, float(search.best_score_)
