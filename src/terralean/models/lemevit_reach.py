"""How image tokens read each other in a stage of self-attention: all of them, those of a window, or through the meta tokens.

All reading all costs 2 N^2 C multiply-accumulates for N tokens of width C: at 1024 px three quarters of LeMeViT-tiny, in S3. In
windows of n tokens they are 2 N n C, through M meta tokens 4 N M C. Parameters are the same.

Windows are those of Swin (Liu et al. 2021) without its shift: what lies across a border is met by the positional convolution
before each attention, and in S4, where all read all. They are as equal as can be, not larger than asked for, and where one
window holds the map the result is that of all reading all, bit by bit.

Reading through meta tokens is agent attention (Han et al., "Agent Attention: On the Integration of Softmax and Linear
Attention", ECCV 2024) with the meta tokens as agents: softmax(Q Km') softmax(Qm K') V, without that paper's biases and
convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from terralean.layers.attention import fused_attention

Grid = tuple[int, int]  # rows and columns of a map
Project = Callable[[Tensor], tuple[Tensor, ...]]  # (B, N, C) -> query, key, value (B, heads, N, d)


class Reach(Protocol):
    """What image tokens (B, N, C) read: (B, N, C). They lie by rows on a grid; meta (B, M, C), or None where there are none."""

    def __call__(self, image: Tensor, meta: Tensor | None, *, grid: Grid | None, project: Project, scale: float) -> Tensor:
        """What each token has read, before its last projection."""
        ...


class Whole:
    """All read all."""

    def __call__(self, image: Tensor, meta: Tensor | None, *, grid: Grid | None, project: Project, scale: float) -> Tensor:
        """As `Reach`."""
        return attend(*project(image), scale=scale)


WHOLE = Whole()


class ThroughMeta:
    """Meta tokens read all, and each image token what they have read."""

    def __call__(self, image: Tensor, meta: Tensor | None, *, grid: Grid | None, project: Project, scale: float) -> Tensor:
        """As `Reach`."""
        assert meta is not None, "the networks that read so keep their meta tokens"
        query, key, value = project(image)
        meta_query, meta_key, _ = project(meta)
        gathered = fused_attention(meta_query, key, value, scale=scale)
        return attend(query, meta_key, gathered, scale=scale)


@dataclass(frozen=True, slots=True)
class Windows:
    """The tokens of a window read each other."""

    side: int  # in tokens, at most

    def __call__(self, image: Tensor, meta: Tensor | None, *, grid: Grid | None, project: Project, scale: float) -> Tensor:
        """As `Reach`."""
        assert grid is not None, "tokens that lie in windows lie on a grid"
        cuts = _cut(grid[0], self.side), _cut(grid[1], self.side)
        mask = _there(grid, cuts, device=image.device)
        mask = None if mask is None else mask.repeat(image.shape[0], 1)[:, None, None]
        read = attend(*project(_windows(image, grid, cuts)), scale=scale, mask=mask)
        return _by_rows(read, grid, cuts)


def attend(query: Tensor, key: Tensor, value: Tensor, *, scale: float, mask: Tensor | None = None) -> Tensor:
    """(B, heads, N, d) each, mask True for keys that are there -> (B, N, heads * d)."""
    return fused_attention(query, key, value, mask=mask, scale=scale).transpose(1, 2).flatten(2)


Cut = tuple[int, int]  # number of windows along an axis, and their length


def _cut(length: int, side: int) -> Cut:
    """As few windows as hold a length, as short as so many can be."""
    count = -(-length // side)
    return count, -(-length // count)


def _windows(tokens: Tensor, grid: Grid, cuts: tuple[Cut, Cut]) -> Tensor:
    """(B, N, C) -> (B * windows, area, C), zeros past the map."""
    (down, height), (along, width) = cuts
    past = (0, 0, 0, along * width - grid[1], 0, down * height - grid[0])
    batch, _, channels = tokens.shape
    whole = F.pad(tokens.reshape(batch, *grid, channels), past).reshape(batch, down, height, along, width, channels)
    return whole.transpose(2, 3).reshape(batch * down * along, height * width, channels)


def _by_rows(windows: Tensor, grid: Grid, cuts: tuple[Cut, Cut]) -> Tensor:
    """What `_windows` undoes."""
    (down, height), (along, width) = cuts
    parts = windows.reshape(-1, down, along, height, width, windows.shape[-1]).transpose(2, 3)
    return parts.reshape(-1, down * height, along * width, windows.shape[-1])[:, : grid[0], : grid[1]].flatten(1, 2)


def _there(grid: Grid, cuts: tuple[Cut, Cut], *, device: torch.device) -> Tensor | None:
    """True (windows, area) for tokens of the map; None where all are."""
    (down, height), (along, width) = cuts
    if (down * height, along * width) == tuple(grid):
        return None
    rows, cols = torch.arange(down * height, device=device) < grid[0], torch.arange(along * width, device=device) < grid[1]
    inside = rows.reshape(down, 1, height, 1) & cols.reshape(1, along, 1, width)
    return inside.reshape(down * along, height * width)
