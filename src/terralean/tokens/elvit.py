"""ELViT: from one layer on clusters of tokens go on in place of the tokens, and the tokens are made of them again at the end.

Liang et al., "Expediting Large-Scale Vision Transformer for Dense Prediction without Fine-tuning", NeurIPS 2022, section 3, and
facts about the authors' code. Nothing is learned. There the weights of the clusters that a token is made of have an L2 norm of
one, so that a token of k equal clusters comes out up to the root of k times as large; here they sum to one unless asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from terralean.errors import ConfigError

Norm = Literal["sum", "l2"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ELViTConfig:
    """Where and how tokens are clustered. Temperatures and counts are the published ones of ViT-L."""

    method: Literal["elvit"] = "elvit"
    after: tuple[int, ...] = (5,)  # layer (ViT), blocks of different stages (Swin), from 1 on; for 12 layers not published
    side: float = 0.7  # of the grid of clusters to that of tokens, or of a window of Swin; published 28 of 40, Swin 8 of 12
    iterations: int = 5  # of soft k-means
    neighbourhood: int = 5  # side, in clusters, of the square around a token's own whose clusters it may belong to
    temperature: float = 0.02  # per squared distance, of the weights of clusters in k-means; Swin-L 0.01
    nearest: int = 20  # clusters that a token is made of again; Swin-L 10
    back_temperature: float = 0.02  # of their weights
    norm: Norm = "sum"  # of their weights; published l2

    def __post_init__(self) -> None:
        if not self.after or sorted({*self.after}) != [*self.after]:
            raise ConfigError(f"reduce.after of elvit is one layer, or rising blocks of Swin, got {self.after}")
        if not 0 < self.side <= 1:
            raise ConfigError(f"reduce.side must be above 0 up to 1, got {self.side}")
        if self.neighbourhood < 1 or self.neighbourhood % 2 == 0:
            raise ConfigError(f"reduce.neighbourhood must be odd, so that it has a middle, got {self.neighbourhood}")
        if self.iterations < 0 or self.nearest < 1:
            raise ConfigError(
                f"reduce.iterations must be 0 or more and reduce.nearest 1 or more, got {self.iterations} and {self.nearest}"
            )
        for name in ("temperature", "back_temperature"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"reduce.{name} must be above 0, got {getattr(self, name)}")


def cluster_grid(grid: tuple[int, int], *, side: float) -> tuple[int, int]:
    """Rows and columns of clusters for a grid of tokens, at least one."""
    rows, columns = (max(1, round(length * side)) for length in grid)
    return rows, columns


def find_clusters(x: Tensor, *, grid: tuple[int, int], clusters: tuple[int, int], config: ELViTConfig) -> Tensor:
    """x (B, h * w, C) of a grid (h, w) -> features of clusters (B, rows * columns, C), by rows.

    They start as means over rectangles of the grid; each iteration makes them means of the tokens, weighted by how near these
    are among the clusters around a token's own rectangle.
    """
    centres = F.adaptive_avg_pool2d(x.transpose(1, 2).unflatten(2, grid), clusters).flatten(2).transpose(1, 2)
    far = ~neighbours(grid, clusters=clusters, side=config.neighbourhood, device=x.device)
    for _ in range(config.iterations):
        distance = squared_distances(x, centres).masked_fill(far, torch.inf)
        share = (-config.temperature * distance).softmax(dim=2)
        share = share / share.sum(dim=1, keepdim=True).clamp(min=1e-12)
        centres = share.transpose(1, 2).to(x.dtype) @ x
    return centres


def neighbours(grid: tuple[int, int], *, clusters: tuple[int, int], side: int, device: torch.device) -> Tensor:
    """Which clusters a token may belong to: bool (h * w, rows * columns)."""
    near = []
    for length, count in zip(grid, clusters, strict=True):
        own = torch.arange(length, device=device) * count // length
        near.append((own[:, None] - torch.arange(count, device=device)).abs() <= side // 2)
    rows, columns = near
    return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(2).flatten(0, 1)


def squared_distances(x: Tensor, centres: Tensor) -> Tensor:
    """x (B, N, C), centres (B, M, C) -> (B, N, M), in float32."""
    # What all have in common is taken away first: it adds nothing to a distance but digits that the squares cannot hold.
    middle = centres.float().mean(dim=1, keepdim=True)
    a, b = x.float() - middle, centres.float() - middle
    squares = a.square().sum(dim=2)[..., None] + b.square().sum(dim=2)[:, None]
    return (squares - 2 * a @ b.transpose(1, 2)).clamp(min=0)


def labels(x: Tensor, centres: Tensor) -> Tensor:
    """The nearest cluster of each token, wherever it is: (B, N)."""
    return squared_distances(x, centres).argmin(dim=2)


def weights_back(x: Tensor, centres: Tensor, config: ELViTConfig) -> Tensor:
    """With which weights each token is made of clusters, (B, N, M), zero for all but the nearest.

    x (B, N, C) and centres (B, M, C) are tokens and clusters of the layer where they were clustered.
    """
    exponent = -config.back_temperature * squared_distances(x, centres)
    best = exponent.topk(min(config.nearest, exponent.shape[2]), dim=2)
    if config.norm == "sum":
        weights = best.values.softmax(dim=2)
    else:
        weights = F.normalize((best.values - best.values[..., :1]).exp(), dim=2)
    return torch.zeros_like(exponent).scatter(2, best.indices, weights).to(x.dtype)


def make_again(clusters: Tensor, weights: Tensor) -> Tensor:
    """clusters (B, M, C) as they came out of the layers, weights (B, N, M) -> tokens (B, N, C)."""
    return weights @ clusters
