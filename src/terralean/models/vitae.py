"""ViTAEv2: transformer cells with convolutions beside attention, and dilated convolutions where the map gets smaller.

Zhang et al., "ViTAEv2: Vision Transformer Advanced by Exploring Inductive Bias for Image Recognition and Beyond", IJCV 2023
(arXiv 2202.10108); Xu et al., "ViTAE", NeurIPS 2021, sections 3.2 to 3.4, for the cells; Wang et al., "An Empirical Study of
Remote Sensing Pretraining", TGRS 2022 (RSP), section III-B and figures 2 and 3, for ViTAEv2-S on aerial images. Written from
the papers; the rival behind 1.96 times of LeMeViT's table 4.

From the papers: four stages, each a reduction cell and then normal cells; a reduction cell is dilated convolutions side by
side with GELU, joined, attention over them, plus three convolutions of the input side by side with both (batch norm and SiLU
after the first two only), then a feed-forward network with a shortcut; a normal cell is the same without the dilated
convolutions and with a shortcut; attention in windows in stages 1 and 2, over the whole map in 3 and 4, windows neither
shifted nor given relative positions; classification by the mean over the map.

Inferred: widths, kernels, dilations, depths, groups, a feed-forward network of expansion 1 in reduction cells and 4 in normal
cells, the middle of the three convolutions as wide as the dilated ones in reduction cells and 4 times the map in normal ones.
With these, ViTAEv2-S has the published 18.87 M parameters with 51 classes and 5.48 GMACs at 224 px, attention left out as
LeMeViT's tables do (5.75 with it; the ViTAEv2 paper has 5.7). That paper's 19.2 M with 1000 classes does not fit 18.87 M with
51, since 949 more classes of 512 weights make 19.36 M. Windows of 7 and heads of 64 channels, of 128 in the later reduction
cells, epsilons, initialisation and drop path in normal cells only are guesses that these figures do not settle.

Ours: maps are rounded up where a stage divides them, and windows past the end of a map hold fewer keys.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from terralean.errors import ConfigError
from terralean.layers.attention import fused_attention
from terralean.layers.tiles import join_tiles, split_tiles, valid_in_tiles


@dataclass(frozen=True, kw_only=True, slots=True)
class StageConfig:
    """Sizes of one stage: of its reduction cell, then of its normal cells."""

    reduction: int  # 2, or 4 for two halvings
    kernel: int  # odd, of the dilated convolutions
    dilations: tuple[int, ...]
    branch: int  # channels of each dilated convolution
    dim: int  # channels of the stage's map
    reduction_heads: int
    reduction_groups: int  # of the three convolutions
    depth: int  # normal cells
    heads: int
    groups: int
    window: int | None  # side in tokens; None: attention over the whole map

    def __post_init__(self) -> None:
        if self.reduction not in STRIDES:
            raise ConfigError(f"reduction must be one of {', '.join(map(str, STRIDES))}, got {self.reduction}")
        if self.kernel % 2 == 0 or self.kernel < self.reduction:
            raise ConfigError(f"kernel must be odd and above reduction {self.reduction}, got {self.kernel}")
        for name in ("reduction_heads", "reduction_groups", "heads", "groups"):
            if self.dim % getattr(self, name):
                raise ConfigError(f"dim must be a multiple of {name} {getattr(self, name)}, got {self.dim}")
        if self.branch % self.reduction_groups:
            raise ConfigError(f"branch must be a multiple of reduction_groups {self.reduction_groups}, got {self.branch}")


STRIDES = {2: (2, 1, 1), 4: (2, 2, 1)}  # of the three convolutions of a reduction cell


@dataclass(frozen=True, kw_only=True, slots=True)
class ViTAEv2Config:
    """Sizes of a ViTAEv2."""

    stages: tuple[StageConfig, ...]
    bands: int
    classes: int  # 0: no classifier
    drop_path: float = 0.0  # of the last normal cell; earlier ones rise linearly from 0

    def __post_init__(self) -> None:
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"drop_path must be 0 up to below 1, got {self.drop_path}")


SMALL = (
    StageConfig(
        reduction=4,
        kernel=7,
        dilations=(1, 2, 3, 4),
        branch=64,
        dim=64,
        reduction_heads=1,
        reduction_groups=1,
        depth=2,
        heads=1,
        groups=1,
        window=7,
    ),
    StageConfig(
        reduction=2,
        kernel=3,
        dilations=(1, 2, 3),
        branch=64,
        dim=128,
        reduction_heads=1,
        reduction_groups=16,
        depth=2,
        heads=2,
        groups=32,
        window=7,
    ),
    StageConfig(
        reduction=2,
        kernel=3,
        dilations=(1, 2),
        branch=128,
        dim=256,
        reduction_heads=2,
        reduction_groups=32,
        depth=8,
        heads=4,
        groups=64,
        window=None,
    ),
    StageConfig(
        reduction=2,
        kernel=3,
        dilations=(1, 2),
        branch=256,
        dim=512,
        reduction_heads=4,
        reduction_groups=64,
        depth=2,
        heads=8,
        groups=128,
        window=None,
    ),
)

# What reads the image in ViTAEv2-S: a convolution for each dilation and the first of those beside.
FIRST_CONVOLUTIONS = (*(f"stages.0.0.scales.branches.{i}" for i in range(len(SMALL[0].dilations))), "stages.0.0.local.0")


class ViTAEv2(nn.Module):
    """Scene classifier: (B, bands, H, W) -> logits (B, classes), for any H and W."""

    def __init__(self, config: ViTAEv2Config) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.classes
        self.num_features = self.head_hidden_size = config.stages[-1].dim
        self.stages = _stages(config)
        self.head = _classifier(self.num_features, config.classes)
        self.apply(_initialise)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, classes)."""
        return self.forward_head(self.forward_features(image))

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """Maps of the stages, of ViTAEv2-S at reductions 4, 8, 16, 32."""
        x = image.contiguous(memory_format=torch.channels_last)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def forward_features(self, image: Tensor) -> Tensor:
        """Map of the last stage, of ViTAEv2-S (B, 512, H / 32, W / 32), rounded up."""
        return self.pyramid(image)[-1]

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """The mean over the map, classified."""
        pooled = features.mean(dim=(2, 3))
        return pooled if pre_logits else self.head(pooled)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """A new last layer; 0 classes: none."""
        self.config, self.num_classes = replace(self.config, classes=num_classes), num_classes
        like = next(self.parameters())
        self.head = _classifier(self.num_features, num_classes).to(like.device, like.dtype)
        self.head.apply(_initialise)


class ReductionCell(nn.Module):
    """A smaller map that has seen several scales: attention over dilated convolutions, beside three plain ones."""

    def __init__(self, before: int, stage: StageConfig) -> None:
        super().__init__()
        wide = stage.branch * len(stage.dilations)
        self.scales = PyramidReduction(before, stage)
        self.norm1 = nn.LayerNorm(wide, eps=1e-6)
        self.attention = Attention(wide, stage.dim, heads=stage.reduction_heads, window=stage.window)
        self.local = local_path(
            (before, stage.branch, stage.branch, stage.dim), strides=STRIDES[stage.reduction], groups=stage.reduction_groups
        )
        self.norm2 = nn.LayerNorm(stage.dim, eps=1e-6)
        self.mlp = Mlp(stage.dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim, H / reduction, W / reduction), rounded up, in channels-last memory."""
        seen = self.attention(self.norm1(_last(self.scales(x))))
        x = seen + _last(self.local(x))
        return _first(x + self.mlp(self.norm2(x)))


class NormalCell(nn.Module):
    """A transformer block with three convolutions beside its attention."""

    def __init__(self, stage: StageConfig, *, drop_path: float) -> None:
        super().__init__()
        hidden = 4 * stage.dim
        self.norm1 = nn.LayerNorm(stage.dim, eps=1e-6)
        self.attention = Attention(stage.dim, stage.dim, heads=stage.heads, window=stage.window)
        self.local = local_path((stage.dim, hidden, stage.dim, stage.dim), strides=(1, 1, 1), groups=stage.groups)
        self.norm2 = nn.LayerNorm(stage.dim, eps=1e-6)
        self.mlp = Mlp(stage.dim, hidden)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape, in channels-last memory."""
        tokens = _last(x)
        tokens = tokens + self.drop_path(self.attention(self.norm1(tokens)) + _last(self.local(x)))
        return _first(tokens + self.drop_path(self.mlp(self.norm2(tokens))))


class PyramidReduction(nn.Module):
    """Strided convolutions of several dilations side by side, all over the same pixels: the maps joined."""

    def __init__(self, before: int, stage: StageConfig) -> None:
        super().__init__()
        self.reduction = stage.reduction
        self.branches = nn.ModuleList(
            nn.Conv2d(
                before,
                stage.branch,
                stage.kernel,
                stride=stage.reduction,
                padding=_padding(stage.kernel, dilation=dilation, stride=stage.reduction),
                dilation=dilation,
            )
            for dilation in stage.dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, branches * branch, H / reduction, W / reduction), rounded up."""
        down, along = (-length % self.reduction for length in x.shape[2:])
        if down or along:
            x = F.pad(x, (0, along, 0, down))
        return F.gelu(torch.cat([branch(x) for branch in self.branches], dim=1))


class Attention(nn.Module):
    """Self-attention over the whole map, or in windows of this side from its top-left corner."""

    def __init__(self, before: int, dim: int, *, heads: int, window: int | None) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(before, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, before) -> (B, H, W, dim)."""
        size = (x.shape[1], x.shape[2])
        tile = size if self.window is None else (self.window, self.window)
        tokens = split_tiles(self.qkv(x), tile=tile)
        valid = valid_in_tiles(size, tile=tile, device=x.device)
        return self.proj(join_tiles(attend(tokens, heads=self.heads, valid=valid), tile=tile, size=size))


def vitae_v2_s(*, bands: int, classes: int, drop_path: float = 0.0) -> ViTAEv2:
    """ViTAEv2-S, 18.87 M parameters and 5.48 GMACs at 224 px with 51 classes, 5.75 with attention."""
    return ViTAEv2(ViTAEv2Config(stages=SMALL, bands=bands, classes=classes, drop_path=drop_path))


def attend(qkv: Tensor, *, heads: int, valid: Tensor | None) -> Tensor:
    """Self-attention in each tile: qkv (B, T, L, 3C), valid (T, L) keys -> (B, T, L, C); the heads are slices of C."""
    batch, tiles = qkv.shape[:2]
    query, key, value = qkv.flatten(0, 1).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    mask = None if valid is None else valid.repeat(batch, 1)[:, None, None]
    seen = fused_attention(query, key, value, mask=mask)
    return seen.transpose(1, 2).flatten(2).unflatten(0, (batch, tiles))


def local_path(dims: tuple[int, int, int, int], *, strides: tuple[int, int, int], groups: int) -> nn.Sequential:
    """Three grouped 3x3 convolutions between these numbers of channels; norm and SiLU after the first two."""
    layers: list[nn.Module] = []
    for (before, after), stride in zip(pairwise(dims), strides, strict=True):
        layers += [nn.Conv2d(before, after, 3, stride=stride, padding=1, groups=groups), nn.BatchNorm2d(after), nn.SiLU()]
    return nn.Sequential(*layers[:-2])


def _padding(kernel: int, *, dilation: int, stride: int) -> int:
    """Zeros at each side with which a map that the stride divides gives one that many times smaller."""
    return (dilation * (kernel - 1) + 2 - stride) // 2


def _stages(config: ViTAEv2Config) -> nn.ModuleList:
    rates = iter(torch.linspace(0, config.drop_path, sum(s.depth for s in config.stages), device="cpu").tolist())
    before = [config.bands, *(stage.dim for stage in config.stages)]
    return nn.ModuleList(
        nn.Sequential(ReductionCell(dim, stage), *(NormalCell(stage, drop_path=next(rates)) for _ in range(stage.depth)))
        for dim, stage in zip(before, config.stages, strict=False)
    )


def _last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def _classifier(dim: int, classes: int) -> nn.Module:
    return nn.Linear(dim, classes) if classes else nn.Identity()


def _initialise(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
