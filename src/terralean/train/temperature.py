"""The number that scores are divided by so that confidence means what it says, fitted to the validation split.

Temperature scaling (Guo et al. 2017, section 4.2): the temperature is that of the least mean negative log-likelihood of the
true classes. It leaves every class where it was. Networks trained to the end tend to be too sure, and theirs is above 1.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.utils.data import DataLoader

from terralean.predict.predictor import Predictor
from terralean.spec import IGNORE
from terralean.tasks.classification import UNLABELLED
from terralean.train.material import Material

log = logging.getLogger(__name__)

PIXELS = 1 << 18  # that it is fitted to at most: the temperature is then sure to about a third of a percent
VALUES = 1 << 25  # scores that are held at most, of all pixels and classes: 128 MiB
RANGE = (1 / 32, 32.0)  # in which it is looked for
STEPS = 41  # of the first look over that range
EXACT = 1e-5  # to which its logarithm is found
CHUNK = 1 << 16  # rows of scores worked on at once

NO_SPLIT = "there is no validation split to fit a temperature to"
SEPARATED = (
    "the validation split is told apart so well that no temperature is the best: with hardly a mistake there, nothing says "
    "how sure is too sure"
)
BLIND = "the scores say nothing of the classes of the validation split, so that no temperature makes them right"
DIVERGED = "scores on the validation split are not finite"
NO_LABEL = "the validation split holds no labelled valid pixel or image"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evidence:
    """Scores with their true classes. An image that is judged by several views has a row for each."""

    scores: Tensor  # (m, K) float32
    labels: Tensor  # (m,) int64
    firsts: NDArray[np.int64]  # (n,) row at which each pixel or image begins
    of: int  # pixels or images in the split, of which these are a sample


NOTHING = Evidence(scores=torch.zeros(0, 1), labels=torch.zeros(0, dtype=torch.int64), firsts=np.zeros(0, np.int64), of=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """A temperature, or why there is none."""

    temperature: float = 1.0
    before: float = math.nan  # mean negative log-likelihood at temperature 1, nats
    after: float = math.nan
    why_not: str = ""


def calibrate(predictor: Predictor, material: Material, *, batch: int, seed: int) -> tuple[float, dict[str, Any]]:
    """The temperature of a trained model, 1 where none can be fitted, and what its card says of that.

    That is `on`, `pixels` or `images`, and `nll` and `nll_calibrated`, nats; or `not_fitted` with the reason.
    """
    if material.validation is None:
        return 1.0, {"not_fitted": NO_SPLIT}
    task = predictor.card.task
    pixels = task in ("segmentation", "change", "spectral")
    loader = DataLoader(material.validation, batch_size=batch if material.one_size else 1)
    if task == "spectral":
        evidence = _of_patches(predictor, loader)
    else:
        evidence = _of_pixels(predictor, loader, seed=seed) if pixels else _of_images(predictor, loader)
    found = fit(evidence)
    if found.why_not:
        log.warning("confidence is not calibrated: %s", found.why_not)
        return 1.0, {"not_fitted": found.why_not}
    what, count = "pixels" if pixels else "images", len(evidence.firsts)
    log.info("confidence: temperature %.3g, fitted to %d of %d validation %s", found.temperature, count, evidence.of, what)
    told = {"on": "validation split", what: count, "nll": round(found.before, 6), "nll_calibrated": round(found.after, 6)}
    return round(found.temperature, 6), told


def fit(evidence: Evidence) -> Fitted:
    """The temperature of the least loss: a look over the range, then Brent's method around the best place."""
    if not len(evidence.firsts):
        return Fitted(why_not=NO_LABEL)
    if not bool(evidence.scores.isfinite().all()):
        return Fitted(why_not=DIVERGED)
    grid = np.linspace(math.log(RANGE[0]), math.log(RANGE[1]), STEPS)
    losses = [loss(evidence, temperature=math.exp(place)) for place in grid]
    best = int(np.argmin(losses))
    if best in (0, STEPS - 1):
        return Fitted(why_not=BLIND if best else SEPARATED)
    found = minimize_scalar(
        lambda place: loss(evidence, temperature=math.exp(place)),
        bounds=(grid[best - 1], grid[best + 1]),
        method="bounded",
        options={"xatol": EXACT},
    )
    return Fitted(temperature=math.exp(found.x), before=loss(evidence, temperature=1.0), after=float(found.fun))


def loss(evidence: Evidence, *, temperature: float) -> float:
    """Mean negative log-likelihood of the true classes, nats; of several views of an image the mean probability counts."""
    rows = [
        (scores.double() / temperature).log_softmax(dim=1).gather(1, labels[:, None])[:, 0]
        for scores, labels in zip(evidence.scores.split(CHUNK), evidence.labels.split(CHUNK), strict=True)
    ]
    likelihood = torch.cat(rows).numpy()
    if len(evidence.firsts) == len(likelihood):
        return -float(likelihood.mean())
    views = np.diff(evidence.firsts, append=len(likelihood))
    return -float((np.logaddexp.reduceat(likelihood, evidence.firsts) - np.log(views)).mean())


class Reservoir:
    """A sample of the pixels that pass by, each as likely as any other, the same for any batches; its memory is bounded.

    Every labelled pixel draws a number, and those of the lowest numbers are kept.
    """

    def __init__(self, *, most: int, seed: int) -> None:
        self.most, self.seed, self.seen, self.images = most, seed, 0, 0
        self.highest = 1.0  # numbers from there on are not kept any more
        self.parts: list[tuple[NDArray[np.float64], Tensor, Tensor]] = []

    def add(self, scores: Tensor, mask: Tensor) -> None:
        """scores (K, H, W), mask (H, W) with 255 where there is no label."""
        known = (mask != IGNORE).flatten()
        labels = mask.flatten()[known]
        draws = np.random.default_rng([self.seed, self.images]).random(len(labels))
        limit = self.highest if len(draws) <= self.most else min(self.highest, float(np.partition(draws, self.most)[self.most]))
        chosen = torch.from_numpy(np.flatnonzero(draws < limit))
        rows = scores.flatten(1)[:, known.nonzero()[chosen, 0].to(scores.device)].T.float().cpu()
        self.parts.append((draws[chosen.numpy()], rows, labels[chosen]))
        self.seen, self.images = self.seen + len(labels), self.images + 1
        if sum(len(part[0]) for part in self.parts) > 2 * self.most:
            self._shrink()

    def evidence(self) -> Evidence:
        """What was kept."""
        if not self.seen:
            return NOTHING
        self._shrink()
        _, rows, labels = self.parts[0]
        return Evidence(scores=rows, labels=labels, firsts=np.arange(len(rows)), of=self.seen)

    def _shrink(self) -> None:
        draws = np.concatenate([part[0] for part in self.parts])
        order = np.sort(np.argsort(draws, kind="stable")[: self.most])
        kept = torch.from_numpy(order)
        rows = torch.cat([rows for _, rows, _ in self.parts])[kept]
        labels = torch.cat([labels for _, _, labels in self.parts])[kept]
        if len(draws) >= self.most:
            self.highest = float(draws[order].max())
        self.parts = [(draws[order], rows, labels)]


def _of_pixels(predictor: Predictor, loader: DataLoader, *, seed: int) -> Evidence:
    """A sample of the labelled pixels that hold data."""
    most = min(PIXELS, VALUES // len(predictor.card.classes))
    reservoir = Reservoir(most=most, seed=seed)
    for batch in loader:
        scores = predictor.scores(batch["image"], batch["valid"])
        mask = batch["mask"].where(batch["valid"], IGNORE)
        for one, labels in zip(scores, mask, strict=True):
            reservoir.add(one, labels)
    return reservoir.evidence()


def _of_patches(predictor: Predictor, loader: DataLoader) -> Evidence:
    """All validation pixels, each by the patch around it."""
    found = [(predictor.view_scores(batch["image"], batch["valid"]).cpu(), batch["label"]) for batch in loader]
    scores, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Evidence(scores=scores, labels=labels, firsts=np.arange(len(labels)), of=len(labels))


def _of_images(predictor: Predictor, loader: DataLoader) -> Evidence:
    """All labelled images, by their views."""
    scores, labels, views = [], [], []
    for batch in loader:
        known = batch["label"] != UNLABELLED
        image, valid, label = batch["image"][known], batch["valid"][known], batch["label"][known]
        if not len(label):
            continue
        scores.append(predictor.view_scores(image.flatten(0, 1), valid.flatten(0, 1)).cpu())
        labels.append(label.repeat_interleave(image.shape[1]))
        views += [image.shape[1]] * len(label)
    if not views:
        return NOTHING
    firsts = np.cumsum([0, *views[:-1]])
    return Evidence(scores=torch.cat(scores), labels=torch.cat(labels), firsts=firsts, of=len(views))
