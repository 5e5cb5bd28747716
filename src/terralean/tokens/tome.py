"""ToMe: in every layer the tokens most like another one are merged with it.

Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023, section 3 (progressive: what was merged stays merged), and its
port to segmentation by Liang et al., "Expediting Large-Scale Vision Transformer for Dense Prediction without Fine-tuning",
NeurIPS 2022 (by sublayer: a share is merged for one attention or feed-forward and copied back behind it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from terralean.errors import ConfigError
from terralean.tokens.groups import Groups, alone


@dataclass(frozen=True, kw_only=True, slots=True)
class ToMeConfig:
    """Which tokens are merged where.

    The row of Zhang & Yao 2025 (table 3, 62.40 G) does not tell its settings: 68 a layer cost 62.2 G, a share of 0.43 62.7 G.
    """

    method: Literal["tome"] = "tome"
    mode: Literal["progressive", "sublayer"] = "progressive"
    r: int | tuple[int, ...] = 68  # progressive: tokens merged by each layer, or by the first, the second, ...
    inflection: float = 0.0  # progressive, one r: how much more than r the last layer merges, the first as much less (-1..1)
    fraction: float = 0.43  # by sublayer: share of the tokens that attention or feed-forward is spared
    proportional: bool = True  # progressive: a merged token counts in attention as often as it has members

    def __post_init__(self) -> None:
        if min(self.r, default=0) < 0 if isinstance(self.r, tuple) else self.r < 0:
            raise ConfigError(f"reduce.r counts tokens that a layer merges and cannot be negative, got {self.r}")
        if not -1 <= self.inflection <= 1:
            raise ConfigError(f"reduce.inflection must be from -1 to 1, got {self.inflection}")
        if self.inflection and isinstance(self.r, tuple):
            raise ConfigError("reduce.inflection spreads one r over the layers; leave it out where reduce.r lists them")
        if not 0 <= self.fraction <= 0.5:  # noqa: PLR2004 - each pair of tokens can lose one
            raise ConfigError(f"reduce.fraction must be from 0 to 0.5, got {self.fraction}")


def tokens_per_layer(config: ToMeConfig, *, depth: int) -> list[int]:
    """How many tokens each layer merges, if it has twice as many; ConfigError where the list is of another length."""
    if isinstance(config.r, int):
        first = int(config.r * (1 - config.inflection))
        step = 2 * (config.r - first) / max(depth - 1, 1)
        return [int(first + step * layer) for layer in range(depth)]
    if len(config.r) != depth:
        raise ConfigError(
            f"reduce.r lists {len(config.r)} layers, the encoder has {depth}; give {depth} numbers, or one for all"
        )
    return list(config.r)


def match(metric: Tensor, *, r: int | Tensor, class_token: bool = False) -> Groups:
    """metric (B, N, D): what tokens are compared by -> groups of which `r` less than N are left.

    Even tokens look for the most similar odd one (cosine); the r even ones that found the best are merged with it. r is one
    for all images or (B,), at most half of the tokens; a class token, the first, is never merged. Then the even tokens that
    are left come first (by falling similarity; in their order if there is a class token), the odd ones follow. With r = 0
    everywhere all tokens stay where they are.
    """
    images, tokens = metric.shape[:2]
    limit = (tokens - class_token) // 2
    if limit == 0 or not (r if isinstance(r, int) else r.any()):
        return alone(images, tokens, device=metric.device)
    merged = torch.as_tensor(r, device=metric.device).clamp(max=limit).expand(images)
    best, partner = best_match(metric, class_token=class_token)
    even = _places(best, merged=merged, sort=not class_token)
    odd = best.shape[1] - merged[:, None] + torch.arange(tokens // 2, device=metric.device)
    gone = even < 0
    even = torch.where(gone, odd.gather(1, partner), even)
    group = even.new_empty(images, tokens)
    group[:, ::2], group[:, 1::2] = even, odd
    return Groups(group, tokens - merged)


def best_match(metric: Tensor, *, class_token: bool) -> tuple[Tensor, Tensor]:
    """metric (B, N, D) -> of each even token the cosine to the most similar odd one, and which of these it is, both (B, N / 2).

    The cosine is minus infinity for a class token.
    """
    unit = metric / metric.norm(dim=-1, keepdim=True)
    scores = unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)
    best, partner = scores.max(dim=-1)
    if class_token:
        best = best.index_fill(1, torch.zeros(1, dtype=torch.int64, device=best.device), -math.inf)
    return best, partner


def _places(best: Tensor, *, merged: Tensor, sort: bool) -> Tensor:
    """Where each even token goes among those that are left, -1 if it is merged: best (B, A), merged (B,) -> (B, A)."""
    rank = best.argsort(dim=1, descending=True).argsort(dim=1)
    left = rank >= merged[:, None]
    place = rank - merged[:, None] if sort else left.cumsum(dim=1) - 1
    return place.where(left, -1)
