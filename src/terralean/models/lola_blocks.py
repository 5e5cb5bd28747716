"""What LoLA-SpecViT is made of: attention in windows, feed-forward with SwiGLU, squeeze and excitation, halving.

Zidi et al. 2025, "LoLA-SpecViT" (arXiv 2506.17759), and their released network (FadiZidiDz/LoLA-SpecViT-Model), from which the
parts that the text leaves open were read. Names of parameters are theirs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from terralean.layers.attention import fused_attention

Linear = Callable[[int, int], nn.Module]  # inputs, outputs -> a layer with a bias


class SwiGLU(nn.Module):
    """W3(SiLU(W1 x) * W2 x), back to the width of x; Shazeer 2020."""

    def __init__(self, dim: int, hidden: int, *, linear: Linear) -> None:
        super().__init__()
        self.w1, self.w2, self.w3 = linear(dim, hidden), linear(dim, hidden), linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., dim) -> the same shape."""
        return self.w3(F.silu(self.w1(x)) * self.w2(x))


def slim_mlp(dim: int, *, linear: Linear) -> nn.Module:
    """SwiGLU with 8/3 of the width, which has as many weights as a plain feed-forward with 4 times."""
    return SwiGLU(dim, 8 * dim // 3, linear=linear)


def wide_mlp(dim: int, *, linear: Linear) -> nn.Module:
    """The authors': out to 4 times the width, a SwiGLU of full matrices there, and back; the SwiGLU is never adapted."""
    inner = SwiGLU(4 * dim, 4 * dim, linear=nn.Linear)
    return nn.Sequential(linear(dim, 4 * dim), inner, nn.Identity(), linear(4 * dim, dim))


class WindowAttention(nn.Module):
    """Tokens of a map look at those of their own window, with a learned bias for each relative position.

    A map smaller than a window is one window. What a map lacks to whole windows is filled up with zeros at right and bottom,
    which nobody looks at, or, as the authors have it, tokens like the others, and then every map fills whole windows.
    """

    relative_position_index: Tensor  # (side * side, side * side)

    def __init__(self, dim: int, *, heads: int, side: int, linear: Linear, attend_padding: bool) -> None:
        super().__init__()
        self.heads, self.side, self.attend_padding = heads, side, attend_padding
        self.qkv, self.proj = linear(dim, 3 * dim), linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * side - 1) ** 2, heads))
        self.register_buffer("relative_position_index", relative_index(side))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, h, w, C) -> the same shape."""
        size = x.shape[1:3]
        sides = [self.side if self.attend_padding else min(self.side, length) for length in size]
        rest = [-length % side for length, side in zip(size, sides, strict=True)]
        windows = _cut(F.pad(x, (0, 0, 0, rest[1], 0, rest[0])), sides)
        query, key, value = self.qkv(windows).unflatten(-1, (3, self.heads, -1)).movedim(-3, 0).transpose(-3, -2).unbind(0)
        between = self._bias(sides)
        if any(rest) and not self.attend_padding:
            there = F.pad(x.new_ones(1, *size, 1), (0, 0, 0, rest[1], 0, rest[0]))
            between = between + _cut(there, sides)[..., 0].log()[:, :, None, None, :]  # log 0: nobody looks there
        mixed = fused_attention(query, key, value, mask=between.to(query.dtype))
        changed = self.proj(mixed.transpose(-3, -2).flatten(-2))
        whole = [length + more for length, more in zip(size, rest, strict=True)]
        return _join(changed, whole, sides)[:, : size[0], : size[1]]

    def _bias(self, sides: list[int]) -> Tensor:
        """Added to the scores of each pair of positions of a window of these sides: (heads, n, n)."""
        # Only the distance of two positions counts, so the corner of the largest window says all about a smaller one.
        index = self.relative_position_index.view(4 * (self.side,))[: sides[0], : sides[1], : sides[0], : sides[1]]
        area = sides[0] * sides[1]
        return self.relative_position_bias_table[index.flatten()].view(area, area, -1).permute(2, 0, 1)


def relative_index(side: int) -> Tensor:
    """For each pair of positions of a window, by rows, the row of the table for how far apart they are: (n, n)."""
    row, col = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    down, right = (at.flatten()[:, None] - at.flatten()[None] + side - 1 for at in (row, col))
    return down * (2 * side - 1) + right


class Block(nn.Module):
    """Attention in windows, then feed-forward, each behind a norm and added to what came."""

    def __init__(self, dim: int, attention: WindowAttention, mlp: nn.Module, *, drop_path: float) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), attention
        self.norm2, self.mlp = nn.LayerNorm(dim), mlp
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """x (B, h, w, C) -> the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class SqueezeExcitation(nn.Module):
    """Scales channels by what their means over the map say; Hu et al. 2018."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        few = max(4, channels // 16)  # of one or two rectified units all may be silent from the start
        self.fc = nn.Sequential(
            nn.Linear(channels, few, bias=False), nn.ReLU(), nn.Linear(few, channels, bias=False), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, h, w) -> the same shape."""
        return x * self.fc(x.mean(dim=(2, 3)))[..., None, None]


class Downsample(nn.Module):
    """Half the sides, rounded up, and twice the width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False),
            nn.SiLU(),
            SqueezeExcitation(dim),
            nn.Conv2d(dim, 2 * dim, 1, bias=False),
        )
        self.norm = nn.BatchNorm2d(2 * dim)
        self.reduction = nn.Conv2d(2 * dim, 2 * dim, 3, stride=2, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, h, w, C) -> (B, h / 2, w / 2, 2 C)."""
        return self.reduction(self.norm(self.conv(x.permute(0, 3, 1, 2)))).permute(0, 2, 3, 1)


def _cut(x: Tensor, sides: list[int]) -> Tensor:
    """(B, h, w, C) -> (B, windows, area, C), all by rows."""
    return x.unflatten(1, (-1, sides[0])).unflatten(3, (-1, sides[1])).transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _join(windows: Tensor, size: list[int], sides: list[int]) -> Tensor:
    """What `_cut` undoes."""
    columns = size[1] // sides[1]
    return windows.unflatten(2, sides).unflatten(1, (-1, columns)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
