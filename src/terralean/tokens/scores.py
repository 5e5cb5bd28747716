"""What tokens are judged by: how settled their class is, and how much the others attend to them.

Zhang & Yao, "Multi-Faceted Adaptive Token Pruning", Remote Sensing 2025, 17(14), 2508, name both ideas (Shannon entropy of the
classes that an auxiliary head sees, and attention); the exact formulas are not published. All functions are for single
precision or better, without gradient, and look at one image at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

EntropySource = Literal["sigmoid_norm", "softmax"]
TINY = 1e-8
TWO_WAY = 2  # class logits of object and no object


def class_map(masks: Tensor, objects: Tensor) -> Tensor:
    """Logits masks (B, K, n) and objects (B, K, 2) or (B, K, K + 1) -> how much a token is of each class, (B, K, n) in 0..1.

    Two ways: the mask of a class times the probability that the class is there (Liu et al., "Dynamic Token Pruning in Plain
    Vision Transformers for Semantic Segmentation", ICCV 2023). K + 1 ways: masks of all queries, weighted by what a query is,
    the last one being nothing (Zhang et al., "SegViT", NeurIPS 2022); with two ways and one class the former is meant.
    """
    if objects.shape[-1] == TWO_WAY:
        return masks.sigmoid() * objects.softmax(dim=-1)[..., :1]
    return objects.softmax(dim=-1)[..., :-1].transpose(1, 2) @ masks.sigmoid()


def entropy(masks: Tensor, objects: Tensor, *, source: EntropySource) -> Tensor:
    """Shannon entropy of each token's classes, in nats: (B, n). Low where the class is settled. Shapes as in `class_map`."""
    masks, objects = masks.float(), objects.float()
    probability = DISTRIBUTIONS[source](masks, objects)
    return -(probability * (probability + TINY).log()).sum(dim=1)


def normalised_map(masks: Tensor, objects: Tensor) -> Tensor:
    """The class map, made to sum to one over classes."""
    s = class_map(masks, objects)
    return s / (s.sum(dim=1, keepdim=True) + TINY)


def softmax_map(masks: Tensor, objects: Tensor) -> Tensor:
    """Softmax over classes of mask logit and logarithm of the class's probability; sharper than the normalised map."""
    if objects.shape[-1] == TWO_WAY:
        there = objects.log_softmax(dim=-1)[..., :1]
    else:
        there = objects.log_softmax(dim=-1)[..., :-1].diagonal(dim1=1, dim2=2)[..., None]
    return (masks + there).softmax(dim=1)


DISTRIBUTIONS: dict[EntropySource, Callable[[Tensor, Tensor], Tensor]] = {
    "sigmoid_norm": normalised_map,
    "softmax": softmax_map,
}


def attention_received(weights: Tensor, there: Tensor | None, *, exclude_self: bool = False) -> Tensor:
    """weights (B, heads, n, n) after softmax, rows are queries -> mean over heads and queries of what each token gets, (B, n).

    Its mean over the tokens of an image is one over their number. there (B, n): queries that are no tokens do not count.
    `exclude_self` leaves out what tokens give to themselves.
    """
    weights = weights.float()
    if exclude_self:
        weights = weights - torch.diag_embed(weights.diagonal(dim1=-2, dim2=-1))
    if there is None:
        return weights.mean(dim=(1, 2))
    queries = there[:, None, :, None]
    return (weights * queries).sum(dim=2).mean(dim=1) / there.sum(dim=1, keepdim=True).clamp(min=1)


def attention_of_classes(masks: Tensor, there: Tensor | None) -> Tensor:
    """masks (B, K, n), logits -> the largest share that a class's attention over the tokens gives each of them, (B, n)."""
    masks = masks.float()
    if there is not None:
        masks = masks.masked_fill(~(there | ~there.any(dim=1, keepdim=True))[:, None], -torch.inf)
    return masks.softmax(dim=-1).amax(dim=1)


def ranks(score: Tensor, there: Tensor | None) -> Tensor:
    """Position of each token by rising score, from 0; equal scores by position. What is no token comes first. (B, n)."""
    if there is not None:
        score = score.masked_fill(~there, -math.inf)
    return score.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
