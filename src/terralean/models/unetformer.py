"""UNetFormer: a ResNet-18 and a decoder whose blocks look at windows, rows, columns and neighbours at once.

Wang et al., "UNetFormer: A UNet-like transformer for efficient semantic segmentation of remote sensing urban scene imagery",
ISPRS Journal of Photogrammetry and Remote Sensing 190 (2022). Written from the paper. What it leaves open, the edges, is ours:
positions past the edge of a map are hidden from attention and do not count in means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terralean.errors import ConfigError
from terralean.layers.attention import fused_attention


@dataclass(frozen=True, kw_only=True, slots=True)
class UNetFormerConfig:
    """Sizes of a UNetFormer."""

    bands: int
    classes: int
    backbone: str = "resnet18"  # timm's name; any with maps at strides 4, 8, 16, 32
    width: int = 64  # channels of the decoder
    heads: int = 8
    window: int = 8  # side of the attention windows, length of the row and column means, kernel of the projection
    mlp_ratio: int = 4
    dropout: float = 0.1  # before each of the two classifiers, whole channels

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ConfigError(f"width must be a multiple of heads {self.heads}, got {self.width}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"sizes.dropout must be 0 up to below 1, got {self.dropout}")


class UNetFormer(nn.Module):
    """Segmenter: (B, bands, H, W) -> scores (B, classes, H, W), for any H and W."""

    def __init__(self, config: UNetFormerConfig) -> None:
        super().__init__()
        self.config = config
        backbone: Any = timm.create_model(
            config.backbone, pretrained=False, features_only=True, in_chans=config.bands, out_indices=(1, 2, 3, 4)
        )
        fine, *skips, deep = backbone.feature_info.channels()
        self.backbone = backbone
        self.enter = conv_norm(deep, config.width, 1)
        self.blocks = nn.ModuleList(GlobalLocalBlock(config) for _ in range(3))  # at strides 32, 16, 8
        self.fusions = nn.ModuleList(Fusion(channels, config.width) for channels in reversed(skips))
        self.refine = Refinement(fine, config.width)
        self.classify = classifier(config)
        self.auxiliary = classifier(config)

    def forward(self, image: Tensor) -> Tensor | dict[str, Tensor]:
        """Scores (logits) at the image's resolution; in training a dict of "scores" and "auxiliary", both of that shape."""
        finest, *skips, deepest = self.backbone(image)
        levels = self._levels(skips, deepest)
        scores = resize(self.classify(self.refine(levels[-1], finest)), image)
        if not self.training:
            return scores
        together = sum((resize(level, levels[-1]) for level in levels[:-1]), start=levels[-1])
        return {"scores": scores, "auxiliary": resize(self.auxiliary(together), image)}

    def _levels(self, skips: Sequence[Tensor], deepest: Tensor) -> list[Tensor]:
        """What the three blocks give, coarsest first."""
        first, *others = self.blocks
        levels = [first(self.enter(deepest))]
        for block, fuse, skip in zip(others, self.fusions, reversed(skips), strict=True):
            levels.append(block(fuse(levels[-1], skip)))
        return levels

    def no_weight_decay(self) -> set[str]:
        """Names of parameters to leave without weight decay beside the one-dimensional ones: biases of relative position."""
        return {name for name, _ in self.named_parameters() if name.endswith("relative.table")}


class GlobalLocalBlock(nn.Module):
    """A transformer block with batch norms: global-local attention, then an MLP, both with a shortcut."""

    def __init__(self, config: UNetFormerConfig) -> None:
        super().__init__()
        hidden = config.mlp_ratio * config.width
        self.norm_attention = nn.BatchNorm2d(config.width)
        self.attention = GlobalLocalAttention(config.width, heads=config.heads, window=config.window)
        self.norm_mlp = nn.BatchNorm2d(config.width)
        self.mlp = nn.Sequential(nn.Conv2d(config.width, hidden, 1), nn.ReLU6(), nn.Conv2d(hidden, config.width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        x = x + self.attention(self.norm_attention(x))
        return x + self.mlp(self.norm_mlp(x))


class GlobalLocalAttention(nn.Module):
    """Attention in windows carried along rows and columns, plus convolutions of the neighbourhood, mixed by a wide kernel."""

    def __init__(self, width: int, *, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.local_area = conv_norm(width, width, 3)
        self.local_point = conv_norm(width, width, 1)
        self.qkv = nn.Conv2d(width, 3 * width, 1, bias=False)
        self.relative = RelativeBias(heads=heads, window=window)
        self.project = nn.Sequential(centred_pad(window), *separable(width, kernel=window))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        local = self.local_area(x) + self.local_point(x)
        seen = attend_in_windows(self.qkv(x), self.relative(), window=self.window)
        return self.project(cross_means(seen, length=self.window) + local)


class RelativeBias(nn.Module):
    """What each head adds for the offset between query and key in a window."""

    index: Tensor

    def __init__(self, *, heads: int, window: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.table, std=0.02)
        self.register_buffer("index", offsets(window), persistent=False)

    def forward(self) -> Tensor:
        """(heads, L, L) for L = window², queries first."""
        return self.table[self.index].permute(2, 0, 1)


class Fusion(nn.Module):
    """A decoder map, enlarged, and an encoder map in learned shares that are never negative and sum to one."""

    def __init__(self, skip_channels: int, width: int) -> None:
        super().__init__()
        self.lateral = nn.Conv2d(skip_channels, width, 1, bias=False)
        self.weights = nn.Parameter(torch.ones(2))  # of the encoder's map, of the decoder's
        self.smooth = nn.Sequential(*conv_norm(width, width, 3), nn.ReLU6())

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """x (B, width, h, w), skip (B, C, H, W) -> (B, width, H, W)."""
        encoder, decoder = shares(self.weights)
        return self.smooth(encoder * self.lateral(skip) + decoder * resize(x, skip))


class Refinement(nn.Module):
    """Fusion with the finest map, then attention to places and, beside it, to channels, with a shortcut around both."""

    def __init__(self, skip_channels: int, width: int) -> None:
        super().__init__()
        squeezed = max(1, width // 16)
        self.fuse = Fusion(skip_channels, width)
        self.place = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.channel = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, squeezed, 1, bias=False),
            nn.ReLU6(),
            nn.Conv2d(squeezed, width, 1, bias=False),
        )
        self.project = nn.Sequential(centred_pad(3), *separable(width, kernel=3))
        self.shortcut = conv_norm(width, width, 1)
        self.activate = nn.ReLU6()

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """x (B, width, h, w), skip (B, C, H, W) -> (B, width, H, W)."""
        x = self.fuse(x, skip)
        attended = x * self.place(x).sigmoid() + x * self.channel(x).sigmoid()
        return self.activate(self.project(attended) + self.shortcut(x))


def unetformer_resnet18(*, bands: int, classes: int, deep_stem: bool = False, dropout: float = 0.1) -> UNetFormer:
    """UNetFormer on ResNet-18, 11.72 M parameters; `deep_stem`: three 3x3 convolutions instead of the 7x7, 11.74 M."""
    backbone = "resnet18d" if deep_stem else "resnet18"
    return UNetFormer(UNetFormerConfig(bands=bands, classes=classes, backbone=backbone, dropout=dropout))


def attend_in_windows(qkv: Tensor, bias: Tensor, *, window: int) -> Tensor:
    """Self-attention in square windows from the top-left corner: qkv (B, 3C, h, w), bias (heads, L, L) -> (B, C, h, w).

    The heads are slices of the channels. Windows that reach past the map hold fewer keys.
    """
    batch, _, height, width = qkv.shape
    past = (0, -width % window, 0, -height % window)
    padded = F.pad(qkv, past)
    tokens = split_windows(padded, window=window).unflatten(2, (3, len(bias), -1))
    query, key, value = tokens.permute(2, 0, 3, 1, 4)
    if any(past):
        there = split_windows(F.pad(qkv.new_ones(1, 1, height, width), past), window=window)
        hidden = (there == 0).squeeze(2)[:, None, None]
        bias = bias.masked_fill(hidden, -torch.inf).repeat(batch, 1, 1, 1)
    seen = fused_attention(query, key, value, mask=bias.expand(len(query), -1, -1, -1))
    rows, columns = padded.shape[-2] // window, padded.shape[-1] // window
    return join_windows(seen.transpose(1, 2).flatten(2), rows=rows, columns=columns)[..., :height, :width]


def split_windows(x: Tensor, *, window: int) -> Tensor:
    """(B, C, h, w), both multiples of `window` -> (B * windows, L, C), the windows of an image and their pixels by rows."""
    x = x.unflatten(3, (-1, window)).unflatten(2, (-1, window))
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(0, 2)


def join_windows(tokens: Tensor, *, rows: int, columns: int) -> Tensor:
    """The inverse of `split_windows`: (B * rows * columns, L, C) -> (B, C, h, w)."""
    window = int(tokens.shape[1] ** 0.5)
    x = tokens.unflatten(1, (window, window)).unflatten(0, (-1, rows, columns))
    return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def cross_means(x: Tensor, *, length: int) -> Tensor:
    """Mean over the `length` pixels around each along its column plus that along its row, of the pixels that exist.

    For even lengths one more pixel lies after than before. (B, C, h, w) -> the same shape.
    """
    before, even = length // 2, 1 - length % 2
    down = F.avg_pool2d(x, (length, 1), stride=1, padding=(before, 0), count_include_pad=False)
    along = F.avg_pool2d(x, (1, length), stride=1, padding=(0, before), count_include_pad=False)
    return down[..., even:, :] + along[..., even:]


def offsets(window: int) -> Tensor:
    """Row of the bias table for each query and key: (L, L), one number for one offset in rows and columns."""
    side = torch.arange(window)
    row, column = (axis.flatten() for axis in torch.meshgrid(side, side, indexing="ij"))
    down, along = (axis[:, None] - axis + window - 1 for axis in (row, column))
    return down * (2 * window - 1) + along


def shares(weights: Tensor) -> Tensor:
    """Weights made non-negative and divided by their sum."""
    positive = weights.relu()
    return positive / (positive.sum() + 1e-8)


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Bilinearly, to the height and width of another map."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def classifier(config: UNetFormerConfig) -> nn.Sequential:
    """A map -> scores of the classes."""
    return nn.Sequential(
        *conv_norm(config.width, config.width, 3),
        nn.ReLU6(),
        nn.Dropout2d(config.dropout),
        nn.Conv2d(config.width, config.classes, 1, bias=False),
    )


def conv_norm(before: int, after: int, kernel: int) -> nn.Sequential:
    """A convolution of odd kernel and its norm."""
    return nn.Sequential(nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(after))


def separable(width: int, *, kernel: int) -> nn.Sequential:
    """Each channel by itself over the kernel, without padding, then all channels of each pixel."""
    return nn.Sequential(
        nn.Conv2d(width, width, kernel, groups=width, bias=False),
        nn.BatchNorm2d(width),
        nn.Conv2d(width, width, 1, bias=False),
    )


def centred_pad(kernel: int) -> nn.ZeroPad2d:
    """Zeros so that a kernel keeps the size; an even one reaches one pixel further down and right."""
    before, after = (kernel - 1) // 2, kernel // 2
    return nn.ZeroPad2d((before, after, before, after))
