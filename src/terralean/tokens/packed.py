"""Batches whose images hold different numbers of tokens, and tokens taken out and put back.

Two forms. Padded: x (B, n, C) with `there` (B, n), true for a token and false for a row that fills up; None where every row is
a token. Packed: x (T, C), the tokens of all images one image after the other, so that linear layers and norms do no work for
rows that fill up. Tokens keep the order that they have in the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Packed(NamedTuple):
    """Tokens of a batch, without gaps."""

    x: Tensor  # (T, C)
    lengths: tuple[int, ...]  # tokens of each image


class Kept(NamedTuple):
    """Rows that were taken out of a padded batch, and where they stood."""

    x: Tensor  # (B, k, C), k that of the fullest image
    place: Tensor  # (B, k) rows of the batch that they came from, each at most once an image
    there: Tensor | None  # (B, k)


def pack(x: Tensor, there: Tensor | None) -> Packed:
    """Padded to packed."""
    if there is None:
        return Packed(x.flatten(0, 1), (x.shape[1],) * x.shape[0])
    return Packed(x[there], tuple(there.sum(dim=1).tolist()))


def pad(x: Tensor, lengths: Sequence[int], there: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Packed (T, ...) to padded (B, n, ...) and `there`; rows that fill up are zero.

    They come last, unless `there` tells where the tokens stood, which makes it the inverse of `pack`.
    """
    if there is None and len(set(lengths)) == 1:
        return x.unflatten(0, (len(lengths), lengths[0])), None
    if there is None:
        count = torch.tensor(lengths, device=x.device)
        there = torch.arange(max(lengths), device=x.device) < count[:, None]
    return x.new_zeros(*there.shape, *x.shape[1:]).index_put(there.nonzero(as_tuple=True), x), there


def keep(x: Tensor, chosen: Tensor, *, most: int | None = None) -> Kept:
    """The chosen rows of x (B, n, C), chosen (B, n) true for them, in their order.

    `most` is the largest number of an image, where it is known beforehand and equal in all of them: then no shape depends on
    values, which export needs.
    """
    counts = chosen.sum(dim=1)
    width = int(counts.max()) if most is None else most
    # Rows that fill up are rows that were not chosen: so no row is named twice, and they can be put back where they were.
    position = torch.arange(chosen.shape[1], device=chosen.device)
    order = position.where(chosen, position + chosen.shape[1])  # all different, so that no sort has to be a stable one
    index = order.topk(width, dim=1, largest=False).indices
    there = None if most is not None or bool((counts == width).all()) else chosen.gather(1, index)
    return Kept(take(x, index), index, there)


def put_back(x: Tensor, index: Tensor, there: Tensor | None, full: Tensor) -> Tensor:
    """The inverse of `keep`: full (B, n, C) with x (B, k, C) in the rows `index` (B, k); what only fills up changes nothing."""
    if there is not None:
        x = torch.where(there[..., None], x, take(full, index))
    return full.scatter(1, index[..., None].expand_as(x), x)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x (B, n, C) by index (B, k): (B, k, C)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def rows_of_equal_images(lengths: Sequence[int], *, device: torch.device) -> list[Tensor]:
    """Rows of a packed batch, (images, length) for each length that occurs: images that a product can take at once.

    Images without a token have no rows.
    """
    starts = torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0)
    groups = []
    for length in sorted({*lengths} - {0}):
        firsts = torch.stack([starts[i] for i, other in enumerate(lengths) if other == length])
        groups.append((firsts[:, None] + torch.arange(length)).to(device))
    return groups
