"""Tokens put together in groups, and what became of a group copied back to its members.

A decision says for each token (B, N) the number of its group, from 0 on in the order that the merged tokens will have, and
how many groups each image has (B,). Images may differ in that number; what is applied works on the tokens of all images, one
image after the other.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Groups(NamedTuple):
    """Which tokens are put together: the group of each token (B, N), and the number of groups of each image (B,)."""

    group: Tensor
    counts: Tensor


def alone(images: int, tokens: int, *, device: torch.device) -> Groups:
    """Every token its own group."""
    group = torch.arange(tokens, device=device).expand(images, -1)
    return Groups(group, torch.full((images,), tokens, device=device))


def flat_index(groups: Groups) -> Tensor:
    """The group of every token (B * N,) among the groups of all images, those of the first image first."""
    start = groups.counts.cumsum(0) - groups.counts
    return (groups.group + start[:, None]).flatten()


def merge(x: Tensor, index: Tensor, *, size: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """x (T, C), index (T,) below `total`, size (T,) -> means of the groups weighted by size (total, C), sizes (total,).

    A size is the number of tokens of the grid that a token stands for. Sums are in float32 whatever x is.
    """
    summed = x.new_zeros(total, x.shape[1], dtype=torch.float32).index_add_(0, index, x.float() * size[:, None])
    sizes = size.new_zeros(total).index_add_(0, index, size)
    return (summed / sizes[:, None]).to(x.dtype), sizes


def copy_back(x: Tensor, index: Tensor) -> Tensor:
    """x (groups, C), index (T,) -> each token's group (T, C)."""
    return x.index_select(0, index)


def after(first: Tensor, second: Tensor) -> Tensor:
    """Two groupings one after the other: the group of each token (T,), and of each such group (groups,), -> (T,)."""
    return second.index_select(0, first)


def merge_alike(x: Tensor, groups: Groups, *, size: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`merge` where all images have `count` groups: x (B, N, C), size (B, N) -> (B, count, C), (B, count)."""
    images = x.shape[0]
    merged, sizes = merge(x.flatten(0, 1), flat_index(groups), size=size.flatten(), total=images * count)
    return merged.unflatten(0, (images, count)), sizes.unflatten(0, (images, count))


def copy_back_alike(x: Tensor, groups: Groups) -> Tensor:
    """`copy_back` where all images have as many groups: x (B, groups, C) -> (B, N, C)."""
    return x.gather(1, groups.group[..., None].expand(-1, -1, x.shape[-1]))
