"""ALGM: tokens of small windows that look alike are merged early, alike tokens anywhere are merged later.

Norouzi et al., "ALGM: Adaptive Local-then-Global Token Merging for Efficient Semantic Segmentation with Plain Vision
Transformers", CVPR 2024, sections 3.2 and 3.3, and facts about the authors' code. There the number merged is the smallest of
the images of a batch, so that an image's result depends on its neighbours; here every image has its own number unless asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from terralean.errors import ConfigError
from terralean.tokens.groups import Groups
from terralean.tokens.tome import best_match, match


@dataclass(frozen=True, kw_only=True, slots=True)
class ALGMConfig:
    """Where tokens are merged, between attention and feed-forward, and how alike they must be. Defaults are those of ViT-B."""

    method: Literal["algm"] = "algm"
    after: tuple[int, ...] = (1, 5)  # layers of local and of global merging, from 1 on; (1, 7) for ViT-L; one: local alone
    threshold: float = 0.94  # mean cosine between the tokens of a window from which on they are merged
    window: int = 2  # side of a window in tokens
    count: Literal["image", "batch"] = "image"  # how many are merged: each image's own number, or the smallest of the batch

    def __post_init__(self) -> None:
        if len(self.after) not in (1, 2) or min(self.after) < 1 or [*self.after] != sorted({*self.after}):
            raise ConfigError(
                f"reduce.after of algm is the layer of local merging and, unless it is to be left out, a later one of global "
                f"merging, got {self.after}"
            )
        if self.window < 2:  # noqa: PLR2004 - one token has nothing to merge with
            raise ConfigError(f"reduce.window must be 2 tokens or more, got {self.window}")


def similarity(x: Tensor, *, grid: tuple[int, int], window: int) -> Tensor:
    """x (B, h * w, C) of a grid (rows, columns) -> mean cosine between the tokens of each whole window (B, windows)."""
    unit = F.normalize(_windows(x, grid=grid, window=window), dim=-1)
    members = window * window
    # the sum over all pairs is the squared length of the sum; each token's cosine with itself is no pair
    return (unit.sum(dim=2).square().sum(dim=-1) - unit.square().sum(dim=(2, 3))) / (members * (members - 1))


def alike_windows(similar: Tensor, config: ALGMConfig) -> Tensor:
    """similar (B, windows) -> true for windows to merge, (B, windows)."""
    alike = similar >= config.threshold
    if config.count == "image":
        return alike
    fewest = alike.sum(dim=1).min()
    return similar.argsort(dim=1, descending=True).argsort(dim=1) < fewest


def local_groups(similar: Tensor, merged: Tensor, *, grid: tuple[int, int], window: int, class_token: bool = False) -> Groups:
    """similar and merged (B, windows) -> groups of the tokens (B, [1 +] h * w).

    The class token comes first if there is one, then merged windows by falling similarity, then the others in grid order. Rows
    and columns that fill no window stay as they are.
    """
    rank = similar.masked_fill(~merged, -torch.inf).argsort(dim=1, descending=True).argsort(dim=1)
    of_window = rank.where(merged, -1)[..., None].expand(-1, -1, window * window)
    group = _grid(of_window, grid=grid, window=window)
    single, count = group < 0, merged.sum(dim=1)
    group = torch.where(single, count[:, None] + single.cumsum(dim=1) - 1, group)
    count = count + single.sum(dim=1)
    if class_token:
        group, count = torch.cat([torch.zeros_like(group[:, :1]), group + 1], dim=1), count + 1
    return Groups(group, count)


def global_groups(x: Tensor, *, layer: int, count: Literal["image", "batch"] = "image", class_token: bool = False) -> Groups:
    """x (B, N, C) after the attention of `layer` -> groups of tokens.

    An even token is merged with the most similar odd one if their cosine is at least the mean of all such cosines and their
    standard deviation divided by the layer's number.
    """
    best, _ = best_match(x, class_token=class_token)
    if class_token:
        best = best[:, 1:]
    if best.shape[1] < 2:  # noqa: PLR2004 - no deviation
        return match(x, r=0)
    threshold = best.mean(dim=1, keepdim=True) + best.std(dim=1, keepdim=True) / layer
    if count == "image":
        return match(x, r=(best >= threshold).sum(dim=1), class_token=class_token)
    fewest = (best >= threshold.mean()).sum(dim=1).min()
    return match(x, r=fewest, class_token=class_token)


def _windows(x: Tensor, *, grid: tuple[int, int], window: int) -> Tensor:
    """(B, h * w, C) -> the tokens of whole windows (B, windows, window ** 2, C)."""
    rows, columns = (side // window for side in grid)
    whole = x.unflatten(1, grid)[:, : rows * window, : columns * window]
    return whole.unflatten(2, (columns, window)).unflatten(1, (rows, window)).transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _grid(value: Tensor, *, grid: tuple[int, int], window: int) -> Tensor:
    """The inverse of `_windows` for one value a token, -1 for tokens in no window: (B, windows, window ** 2) -> (B, h * w)."""
    rows, columns = (side // window for side in grid)
    whole = value.unflatten(2, (window, window)).unflatten(1, (rows, columns)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    return F.pad(whole, (0, grid[1] - columns * window, 0, grid[0] - rows * window), value=-1).flatten(1)
