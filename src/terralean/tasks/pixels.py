"""Hyperspectral pixels: the pixel in the middle of a patch gets one of the classes."""

from __future__ import annotations

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
