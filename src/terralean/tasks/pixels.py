"""Hyperspectral pixels: the pixel in the middle of a patch gets one of the classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from terralean.data.spectral.pixels import agreement
from terralean.tasks.classification import UNLABELLED

Balance = Literal["none", "root", "full"]
PROBABILITY, OA, AA, KAPPA = "probability", "oa", "aa", "kappa"


def loss(scores: Tensor, label: Tensor, *, label_smoothing: float) -> Tensor:
    """Mean cross-entropy of scores (B, K) and classes (B,); what is not labelled does not count."""
    return F.cross_entropy(scores, label, label_smoothing=label_smoothing, ignore_index=UNLABELLED)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Mixed:
    """Patches, each mixed with another of the batch."""

    image: Tensor  # (B, C, h, w)
    other: Tensor  # (B,) classes of those that were mixed in
    share: Tensor  # () of the first in the mixture


def mix(image: Tensor, label: Tensor, *, alpha: float) -> Mixed:
    """image (B, C, h, w), label (B,) mixed within the batch by a share drawn from Beta(alpha, alpha).

    Zhang et al. 2018, "mixup". Few pixels are learned by heart with their surroundings, mixtures of them are not.
    """
    drawn = torch.tensor(float(alpha))
    share = torch.distributions.Beta(drawn, drawn).sample().to(image)
    order = torch.randperm(len(label)).to(label.device)
    return Mixed(image=share * image + (1 - share) * image[order], other=label[order], share=share)


def mixed_loss(scores: Tensor, label: Tensor, mixed: Mixed, *, label_smoothing: float) -> Tensor:
    """The losses of both classes of each mixture, by their shares."""
    first = loss(scores, label, label_smoothing=label_smoothing)
    other = loss(scores, mixed.other, label_smoothing=label_smoothing)
    return mixed.share * first + (1 - mixed.share) * other


def tally(scores: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """scores (B, K), label (B,) -> counts (K, K) by class and answer, and the sums (2,) of -log p and p of the true class."""
    known, classes = label != UNLABELLED, scores.shape[1]
    likely = scores[known].double().log_softmax(dim=1)
    true = likely.gather(1, label[known][:, None])[:, 0]
    pairs = label[known] * classes + likely.argmax(dim=1)
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes), torch.stack([-true.sum(), true.exp().sum()])


def shares(counts: Tensor, sums: Tensor) -> dict[str, float]:
    """What `tally` found of a whole split: the mean probability of the true class, OA, AA and kappa, and the loss."""
    total = counts.sum().item()
    found = agreement(counts.cpu().numpy())
    return {"loss": sums[0].item() / total, PROBABILITY: sums[1].item() / total, **found}
