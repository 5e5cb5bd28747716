"""BiFormer: each region of the image chooses the few regions that its tokens read.

Zhu et al., "BiFormer: Vision Transformer with Bi-Level Routing Attention", CVPR 2023 (arXiv 2303.08810). Written from the
paper; the rival behind 1.85 times of LeMeViT's table 3. From its section 3 and algorithm 1: 7 x 7 regions, their affinity as
the product of mean queries and mean keys over all channels, attention to the tokens of the best 1, 4, 16 and all regions in
stages 1 to 4, plus a depth-wise 5x5 convolution of the values; blocks of a depth-wise 3x3 convolution with a shortcut, this
attention, and an MLP of expansion 3; heads of 32 channels; four stages that begin with an overlapping patch embedding and
patch mergings; depths and widths.

Inferred: patch embedding and mergings are 3x3 convolutions of stride 2 with batch norms, a last batch norm stands before the
mean, and the projections of stage 4 to queries, keys and values have no bias. With these, the parameters are 13.14 M and
56.80 M as published (with those biases 13.15 and 56.81). Epsilons, initialisation and a drop path that rises linearly are
guesses. MACs with attention are 2.22 and 9.76 G, the 2.2 and 9.8 of the paper; without, as LeMeViT's tables count, 2.08 and
9.32 G: those tables have 9.32 for the base model, but for tiny 2.20, so that figure seems to be the paper's.

Ours: where the sides of a map are no multiples of 7, the regions are the smallest ones of which 7 x 7 cover it, and tokens
past its end are neither averaged nor read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from terralean.errors import ConfigError
from terralean.layers.attention import fused_attention
from terralean.layers.tiles import join_tiles, split_tiles, tiling, valid_in_tiles


@dataclass(frozen=True, kw_only=True, slots=True)
class BiFormerConfig:
    """Sizes of a BiFormer."""

    depths: tuple[int, int, int, int]
    dim: int  # channels of stage 1; each later stage has twice as many
    bands: int
    classes: int  # 0: no classifier
    regions: int = 7  # at most, along each side of a map
    reads: tuple[int, int, int] = (1, 4, 16)  # regions that a region reads in stages 1 to 3; in stage 4, all
    head_dim: int = 32
    mlp_ratio: float = 3.0
    drop_path: float = 0.0  # of the last block; earlier ones rise linearly from 0

    def __post_init__(self) -> None:
        if self.dim % self.head_dim:
            raise ConfigError(f"dim must be a multiple of head_dim {self.head_dim}, got {self.dim}")
        if self.regions < 1 or min(self.reads) < 1:
            raise ConfigError(f"regions and reads must be at least 1, got {self.regions} and {self.reads}")
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"drop_path must be 0 up to below 1, got {self.drop_path}")


class BiFormer(nn.Module):
    """Scene classifier: (B, bands, H, W) -> logits (B, classes), for any H and W."""

    def __init__(self, config: BiFormerConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.classes
        self.num_features = self.head_hidden_size = 8 * config.dim
        self.downsample_layers = _downsamples(config)
        self.stages = _stages(config)
        self.norm = nn.BatchNorm2d(self.num_features)
        self.head = _classifier(self.num_features, config.classes)
        self.apply(_initialise)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, classes)."""
        return self.forward_head(self.forward_features(image))

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """Maps of the four stages at reductions 4, 8, 16, 32."""
        x = image.contiguous(memory_format=torch.channels_last)
        maps = []
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
            maps.append(x)
        return maps

    def forward_features(self, image: Tensor) -> Tensor:
        """Normalised map of the last stage, (B, C, H / 32, W / 32), rounded up."""
        return self.norm(self.pyramid(image)[-1])

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
        self.head = _classifier(self.num_features, num_classes).to(self.norm.weight.device, self.norm.weight.dtype)
        self.head.apply(_initialise)


class Block(nn.Module):
    """Depth-wise convolution, bi-level routing attention and MLP, each with a shortcut."""

    def __init__(self, dim: int, attention: nn.Module, *, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.position = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attention = attention
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape, in channels-last memory."""
        x = (x + self.position(x)).permute(0, 2, 3, 1)
        x = x + self.drop_path(self.attention(self.norm1(x)))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x.permute(0, 3, 1, 2)


class BiLevelAttention(nn.Module):
    """Tokens read those of the `reads` regions that concern their region most, and their neighbours' values (algorithm 1).

    A map that has no more regions than are read is read as a whole, which is the same.
    """

    def __init__(self, dim: int, *, heads: int, regions: int, reads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads, self.regions, self.reads = heads, regions, reads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.context = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        qkv = self.qkv(x)
        values = qkv[..., 2 * x.shape[-1] :]
        around = self.context(values.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.proj(self._read(qkv) + around)

    def _read(self, qkv: Tensor) -> Tensor:
        size = (qkv.shape[1], qkv.shape[2])
        tile = region_size(size, regions=self.regions)
        rows, columns = tiling(size, tile=tile)
        if self.reads >= rows * columns:
            return read_all(qkv, heads=self.heads)
        valid = valid_in_tiles(size, tile=tile, device=qkv.device)
        dim = qkv.shape[-1] // 3
        query, key_value = (split_tiles(part, tile=tile) for part in qkv.split([dim, 2 * dim], dim=-1))
        index = route(query, key_value[..., :dim], valid=valid, reads=self.reads)
        return join_tiles(read_regions(query, key_value, index, heads=self.heads, valid=valid), tile=tile, size=size)


def biformer_tiny(*, bands: int, classes: int, drop_path: float = 0.0) -> BiFormer:
    """BiFormer-T, 13.14 M parameters and 2.08 GMACs at 224 px with 1000 classes, 2.22 with attention."""
    return BiFormer(BiFormerConfig(depths=(2, 2, 8, 2), dim=64, bands=bands, classes=classes, drop_path=drop_path))


def biformer_base(*, bands: int, classes: int, drop_path: float = 0.0) -> BiFormer:
    """BiFormer-B, 56.80 M parameters and 9.32 GMACs at 224 px with 1000 classes, 9.76 with attention."""
    return BiFormer(BiFormerConfig(depths=(4, 4, 18, 4), dim=96, bands=bands, classes=classes, drop_path=drop_path))


def region_size(size: tuple[int, int], *, regions: int) -> tuple[int, int]:
    """Rows and columns of the smallest region of which at most `regions` x `regions` cover a map; then none is empty."""
    return -(-size[0] // regions), -(-size[1] // regions)


@torch.no_grad()
def route(query: Tensor, key: Tensor, *, valid: Tensor | None, reads: int) -> Tensor:
    """Which regions each region reads: query, key (B, R, L, C) and valid (R, L) -> indices (B, R, reads), best first.

    By the product of the region's mean query with the other's mean key; what is not valid must be zero.
    """
    count = query.shape[2] if valid is None else valid.sum(dim=1)[:, None]
    mean_query, mean_key = (tokens.sum(dim=2) / count for tokens in (query, key))
    return (mean_query @ mean_key.mT).topk(reads, dim=-1).indices


def read_regions(query: Tensor, key_value: Tensor, index: Tensor, *, heads: int, valid: Tensor | None) -> Tensor:
    """Attention of each region's queries (B, R, L, C) to the regions in index (B, R, k), joined: (B, R, L, C).

    key_value (B, R, L, 2C) holds keys, then values; the heads are slices of the channels. valid (R, L): keys that are read.
    """
    batch, regions, length, dim = query.shape
    first = regions * torch.arange(batch, device=index.device)[:, None, None]
    # One row a region, so that a region is copied as one piece and not token by token.
    gathered = key_value.reshape(batch * regions, -1).index_select(0, (index + first).flatten())
    keys, values = gathered.view(batch * regions, -1, 2, heads, dim // heads).permute(2, 0, 3, 1, 4)
    queries = query.view(batch * regions, length, heads, -1).transpose(1, 2)
    mask = None if valid is None else valid[index].view(batch * regions, 1, 1, -1)
    seen = fused_attention(queries, keys, values, mask=mask)
    return seen.transpose(1, 2).reshape(query.shape)


def read_all(qkv: Tensor, *, heads: int) -> Tensor:
    """Attention of all tokens to all: (B, H, W, 3C) -> (B, H, W, C)."""
    parts = qkv.flatten(1, 2).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    seen = fused_attention(*parts.unbind(0))
    return seen.transpose(1, 2).flatten(2).unflatten(1, qkv.shape[1:3])


def _downsamples(config: BiFormerConfig) -> nn.ModuleList:
    """Into each stage: the overlapping patch embedding, then the patch mergings."""
    dims = _dims(config)
    stem = nn.Sequential(*_halve(config.bands, config.dim // 2), nn.GELU(), *_halve(config.dim // 2, config.dim))
    return nn.ModuleList([stem, *(_halve(before, after) for before, after in pairwise(dims))])


def _halve(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after))


def _stages(config: BiFormerConfig) -> nn.ModuleList:
    rates = torch.linspace(0, config.drop_path, sum(config.depths), device="cpu").tolist()
    stages = nn.ModuleList()
    for stage, (depth, dim) in enumerate(zip(config.depths, _dims(config), strict=True)):
        blocks = [
            Block(dim, _attention(config, stage), mlp_ratio=config.mlp_ratio, drop_path=rates.pop(0)) for _ in range(depth)
        ]
        stages.append(nn.Sequential(*blocks))
    return stages


def _attention(config: BiFormerConfig, stage: int) -> BiLevelAttention:
    dim, routed = _dims(config)[stage], stage < len(config.reads)
    return BiLevelAttention(
        dim,
        heads=dim // config.head_dim,
        regions=config.regions,
        reads=config.reads[stage] if routed else config.regions**2,
        qkv_bias=routed,
    )


def _dims(config: BiFormerConfig) -> list[int]:
    return [config.dim * 2**stage for stage in range(4)]


def _classifier(dim: int, classes: int) -> nn.Module:
    return nn.Linear(dim, classes) if classes else nn.Identity()


def _initialise(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
