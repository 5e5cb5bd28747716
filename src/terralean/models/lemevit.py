"""LeMeViT: a few learnable meta tokens exchange information with the dense image tokens.

Jiang et al., "LeMeViT: Efficient Vision Transformer with Learnable Meta Tokens for Remote Sensing Image Interpretation",
IJCAI 2024 (arXiv 2405.09789), sections 3.2-3.4 and table 1. Written from the paper and from facts about the authors' code
(commit 1b48783): state dicts have the same keys and shapes, outputs agree to 1e-5.

Five stages: the meta tokens read the image (S0), image and meta tokens read each other (S1, S2), image tokens read themselves
(S3, S4). S1 and S2 cost is linear in the number of image tokens, S3 and S4 cost is quadratic. In images much larger than
those it was made for, S3 is most of the cost; there image tokens can reach each other in other ways (see lemevit_reach).

Image tokens travel as (B, C, H, W) in channels-last memory, so that (B, N, C) is a view of them and nothing is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from timm.models import FeatureInfo
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from terralean.errors import ConfigError
from terralean.models.lemevit_reach import WHOLE, Grid, Reach, ThroughMeta, Windows, attend

if TYPE_CHECKING:
    from terralean.layers.segmenter import ReducedMaps, Reduction

REDUCTIONS = (4, 8, 16, 32)  # of the four feature maps, those of S1..S4

Stages = Literal["CDDSS", "-DDSS", "CSSSS"]
MetaStem = Literal["mlp", "none"]
Fusion = Literal["sum", "mean", "tokens"]
Scale = Literal["official", "paper"]
S3Attention = Literal["global", "windows", "meta"]
S3_CELL_PX = 16  # side of what a token of S3 stands for
S3_WINDOW_PX = 512


CHOICES = {
    "stages": Stages,
    "meta_stem": MetaStem,
    "fusion": Fusion,
    "attention_scale": Scale,
    "s3_attention": S3Attention,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LeMeViTConfig:
    """Sizes of a LeMeViT; the five depths and dims are those of S0..S4.

    The paper's ablations vary `stages`, `meta_stem`, `fusion` and `attention_scale`; weights do not depend on `s3_attention`.
    """

    depths: tuple[int, int, int, int, int]
    dims: tuple[int, int, int, int, int]
    bands: int = 3
    classes: int = 1000  # 0: no classifier
    meta_tokens: int = 16
    head_dim: int = 32
    mlp_ratio: float = 4.0
    drop_path: float = 0.0  # of the last block; earlier ones rise linearly from 0
    stages: Stages = "CDDSS"  # how tokens read in S0..S4, see _attention; "-": S0 is left out, and the meta MLP after it
    meta_stem: MetaStem = "mlp"  # what meta tokens pass before S0
    fusion: Fusion = "sum"  # of image and meta tokens for the classifier, see FUSIONS
    attention_scale: Scale = "official"  # the authors' code and the text differ, see SCALES
    s3_attention: S3Attention = "global"  # how image tokens reach each other in S3, see lemevit_reach
    s3_window_px: int = S3_WINDOW_PX  # side of a window at most; no larger image has more than one

    def __post_init__(self) -> None:
        odd = [d for d in self.dims if d % self.head_dim]
        if odd:
            raise ConfigError(f"dims must be multiples of head_dim {self.head_dim}, got {odd}")
        if self.meta_tokens < 2:  # noqa: PLR2004 - log(1) would make every attention uniform
            raise ConfigError(f"meta_tokens must be at least 2, got {self.meta_tokens}")
        if self.s3_window_px < S3_CELL_PX or self.s3_window_px % S3_CELL_PX:
            raise ConfigError(f"s3_window_px must be a multiple of {S3_CELL_PX} above 0, got {self.s3_window_px}")
        for name, values in CHOICES.items():
            if getattr(self, name) not in get_args(values):
                raise ConfigError(f"{name} must be one of {', '.join(get_args(values))}, got {getattr(self, name)!r}")


class Scales(NamedTuple):
    """What divides the products of queries and keys: the root of the head's or of the block's width, and log N / log M."""

    cross_by_head: bool  # S0: 1 / sqrt(head_dim) if true, else 1 / sqrt(dim)
    self_by_head: bool  # S3, S4
    log_in_meta_reads: bool  # S0, S1, S2, meta tokens reading the image; the image reading meta tokens always has it


SCALES: dict[Scale, Scales] = {
    "official": Scales(cross_by_head=True, self_by_head=True, log_in_meta_reads=False),
    "paper": Scales(cross_by_head=False, self_by_head=False, log_in_meta_reads=True),
}


def add_means(image: Tensor, meta: Tensor) -> Tensor:
    """image (B, N, C), meta (B, M, C) -> (B, C), their means added, as Jiang et al. 2024 (section 3.3) do."""
    return image.mean(dim=1) + meta.mean(dim=1)


def mean_of_means(image: Tensor, meta: Tensor) -> Tensor:
    """Half of that, as the authors had it before."""
    return add_means(image, meta) / 2


def mean_of_tokens(image: Tensor, meta: Tensor) -> Tensor:
    """The mean over all tokens, meta tokens shrunk to a tenth, as the authors had it first."""
    return torch.cat([image, 0.1 * meta], dim=1).mean(dim=1)


FUSIONS: dict[Fusion, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": add_means,
    "mean": mean_of_means,
    "tokens": mean_of_tokens,
}


class LeMeViT(nn.Module):
    """Scene classifier: (B, bands, H, W) -> logits (B, classes), for any H and W."""

    def __init__(self, config: LeMeViTConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.classes
        self.num_features = self.head_hidden_size = config.dims[-1]
        self.num_prefix_tokens = config.meta_tokens
        self.grad_checkpointing = False
        self.feature_info = _feature_info(config)
        self.meta_tokens = nn.Parameter(torch.empty(config.meta_tokens, config.dims[0]))
        self.downsample_layers = _downsamples(config)
        self.meta_token_downsample = _meta_mlps(config, count=5)
        self.stages = _stages(config, last_reader=None)
        self.norm = nn.BatchNorm2d(config.dims[-1])
        self.norm_c = nn.LayerNorm(config.dims[-1])
        self.fuse = FUSIONS[config.fusion]
        self.head = _classifier(config.dims[-1], config.classes)
        _initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, classes)."""
        return self.forward_head(self.forward_features(image))

    def forward_features(self, image: Tensor) -> Tensor:
        """Normalised tokens of S4 (B, M + N, C): the meta tokens first, then the image tokens by rows."""
        maps, meta = self._run(image)
        return torch.cat([self.norm_c(meta), as_tokens(self.norm(maps[-1]))], dim=1)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Meta and image tokens fused (B, C), and classified unless only that is asked for."""
        meta, image = features.split([self.num_prefix_tokens, features.shape[1] - self.num_prefix_tokens], dim=1)
        pooled = self.fuse(image, meta)
        return pooled if pre_logits else self.head(pooled)

    def forward_intermediates(  # timm's signature
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """timm's call for the maps of S1..S4 (chosen by `indices`; an int n means the last n), and the final tokens."""
        if output_fmt != "NCHW" or return_prefix_tokens or norm:
            raise ConfigError("LeMeViT gives un-normalised NCHW maps without prefix tokens; use forward_features for tokens")
        chosen = _indices(indices)
        maps, meta = self._run(x, last=max(chosen) if stop_early and intermediates_only else 3)
        intermediates = [maps[i] for i in chosen]
        if intermediates_only:
            return intermediates
        return torch.cat([self.norm_c(meta), as_tokens(self.norm(maps[-1]))], dim=1), intermediates

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """Raw maps of S1..S4 at reductions 4, 8, 16, 32, as dense prediction uses them."""
        return self._run(image)[0]

    def meta_attention(self, image: Tensor) -> list[Tensor]:
        """Where each meta token looks, per block of S0..S2: (B, heads, M, h, w), summing to one over h and w."""
        return _watch(self, image, Block.meta_attention, kinds=(MetaReadsImage, DualAttention))

    def image_attention(self, image: Tensor) -> list[Tensor]:
        """What the image reads from each meta token, per block of S1 and S2: (B, heads, M, h, w), summing to one over M."""
        return _watch(self, image, Block.image_attention, kinds=(DualAttention,))

    def fold(self) -> LeMeViT:
        """A copy for inference: the same outputs to rounding, faster (see models.lean)."""
        from terralean.models.lean import fold  # noqa: PLC0415 - it is made of what stands here

        return fold(self)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new last layer; 0 classes: none. The pooling is the model's own and cannot be changed."""
        if global_pool is not None:
            raise ConfigError(f"LeMeViT sums its two means; global_pool cannot be {global_pool!r}")
        self.config, self.num_classes = replace(self.config, classes=num_classes), num_classes
        self.head = _classifier(self.num_features, num_classes).to(self.norm_c.weight.device, self.norm_c.weight.dtype)
        self.head.apply(_initialise_layer)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters to leave without weight decay beside the one-dimensional ones."""
        return {"meta_tokens"}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade compute for memory while training."""
        self.grad_checkpointing = enable

    def _run(self, image: Tensor, *, last: int = 3) -> tuple[list[Tensor], Tensor]:
        x, meta = _enter(image, self.meta_tokens)
        maps: list[Tensor] = []
        for index, blocks in enumerate(_blocks(self.stages)):
            x, meta = self.downsample_layers[index](x), self.meta_token_downsample[index](meta)
            for block in blocks:
                x, meta = _step(block, x, meta, save_memory=self.grad_checkpointing and self.training)
            if index > 0:
                maps.append(x)
            if index > last:
                break
        return maps, cast(Tensor, meta)


class LeMeViTPyramid(nn.Module):
    """Backbone for dense prediction: (B, bands, H, W) -> maps of S1..S4 at reductions 4, 8, 16, 32, for any H and W.

    The outputs are those of `LeMeViT.pyramid`. Meta tokens cannot reach the maps after their last reading in S2 (in S3, if
    `s3_attention` is "meta"), so what only they would use is neither built nor computed: one or two meta MLPs, one projection,
    the norms and the classifier. Nor are the stages after the last one in `out_indices` (as in timm: positions from 0,
    negative from the end, or an int n for the last n).
    """

    def __init__(self, config: LeMeViTConfig, *, out_indices: int | Sequence[int] = (0, 1, 2, 3)) -> None:
        super().__init__()
        if "D" not in config.stages:
            raise ConfigError(f"no map depends on meta tokens with stages={config.stages!r}; only a classifier can have them")
        self.config = config
        self.out_indices = tuple(_indices(out_indices))
        self.grad_checkpointing = False
        self.feature_info = FeatureInfo(_feature_info(config), self.out_indices)
        last = max(self.out_indices) + 1
        last_reader = min(last, 3 if config.s3_attention == "meta" else 2)
        self.meta_tokens = nn.Parameter(torch.empty(config.meta_tokens, config.dims[0]))
        self.downsample_layers = _downsamples(config)[: last + 1]
        self.meta_token_downsample = _meta_mlps(config, count=last_reader + 1)
        self.stages = _stages(config, last_reader=last_reader)[: last + 1]
        _initialise(self)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps chosen by `out_indices`, un-normalised, (B, C, h, w)."""
        return self.maps(image, third=None)

    def maps(self, image: Tensor, *, third: Callable[[list[Block], Tensor], Tensor] | None) -> list[Tensor]:
        """As `forward`; `third` stands in for running the blocks of S3 on their map."""
        x, meta = _enter(image, self.meta_tokens)
        maps = []
        for index, blocks in enumerate(_blocks(self.stages)):
            x = self.downsample_layers[index](x)
            reads_meta = index < len(self.meta_token_downsample)
            meta = self.meta_token_downsample[index](meta) if reads_meta else None
            if index == 3 and third is not None:  # noqa: PLR2004 - S3
                x = third(blocks, x)
            else:
                for block in blocks:
                    x, meta = _step(block, x, meta, save_memory=self.grad_checkpointing and self.training)
            maps.append(x)
        return [maps[index + 1] for index in self.out_indices]

    def graders(self, config: Any, *, classes: int) -> nn.ModuleDict:
        """The parameters that a method of token reduction adds (see models.reduced_lemevit)."""
        from terralean.models.reduced_lemevit import graders  # noqa: PLC0415 - it is made of what stands here

        return graders(self, config, classes=classes)

    def reduced(self, image: Tensor, reduction: Reduction) -> ReducedMaps:
        """The maps, by a method of token reduction in S3, and what it did."""
        from terralean.models.reduced_lemevit import reduced  # noqa: PLC0415 - it is made of what stands here

        return reduced(self, image, reduction)

    def meta_attention(self, image: Tensor) -> list[Tensor]:
        """Where each meta token looks, per block of S0..S2: (B, heads, M, h, w), summing to one over h and w.

        Nobody uses what the last of these blocks would find: its meta tokens are read as they came.
        """
        return _watch(self, image, Block.meta_attention, kinds=(MetaReadsImage, DualAttention))

    def image_attention(self, image: Tensor) -> list[Tensor]:
        """What the image reads from each meta token, per block of S1 and S2: (B, heads, M, h, w), summing to one over M."""
        return _watch(self, image, Block.image_attention, kinds=(DualAttention,))

    def fold(self, *, reduced: bool = False) -> LeMeViTPyramid:
        """A copy for inference: the same maps to rounding, faster (see models.lean). `reduced`: S3 stays as it is."""
        from terralean.models.lean import fold  # noqa: PLC0415 - it is made of what stands here

        return fold(self, but=(3,) if reduced else ())

    def no_weight_decay(self) -> set[str]:
        """Names of parameters to leave without weight decay beside the one-dimensional ones."""
        return {"meta_tokens"}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade compute for memory while training."""
        self.grad_checkpointing = enable


class Block(nn.Module):
    """Positional convolution, attention, feed-forward; image and meta tokens share norms and feed-forward."""

    def __init__(self, dim: int, attention: nn.Module, *, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.pos_embed = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        # The identity keeps the authors' numbering of the layers, where an optional convolution stands.
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.Identity(), nn.GELU(), nn.Linear(hidden, dim))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, image: Tensor, meta: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """image (B, C, H, W), meta (B, M, C) -> the same; what the attention does not update is returned as it came."""
        tokens = self._placed(image)
        meta_normed = None if meta is None else self.norm1(meta)
        image_update, meta_update = self.attn(self.norm1(tokens), meta_normed, grid=image.shape[-2:])
        if meta is not None and meta_update is not None:
            meta = self._feed_forward(meta + self.drop_path(meta_update))
        if image_update is not None:
            image = as_map(self._feed_forward(tokens + self.drop_path(image_update)), like=image)
        return image, meta

    def meta_attention(self, image: Tensor, meta: Tensor) -> Tensor:
        """Weights with which meta tokens read the image, (B, heads, M, H, W)."""
        attention = cast("MetaReadsImage | DualAttention", self.attn)
        weights = attention.meta_weights(self.norm1(self._placed(image)), self.norm1(meta))
        return weights.unflatten(-1, image.shape[-2:])

    def image_attention(self, image: Tensor, meta: Tensor) -> Tensor:
        """Weights with which the image reads meta tokens, (B, heads, M, H, W); only where it does, in S1 and S2."""
        attention = cast("DualAttention", self.attn)
        weights = attention.image_weights(self.norm1(self._placed(image)), self.norm1(meta))
        return weights.mT.unflatten(-1, image.shape[-2:])

    def _placed(self, image: Tensor) -> Tensor:
        return as_tokens(image + self.pos_embed(image))

    def _feed_forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class MetaReadsImage(nn.Module):
    """S0: meta tokens (queries) read the image tokens (Jiang et al. 2024, eq. 3)."""

    def __init__(self, dim: int, *, heads: int, scales: Scales) -> None:
        super().__init__()
        self.heads, self.log = heads, scales.log_in_meta_reads
        self.scale = (dim // heads if scales.cross_by_head else dim) ** -0.5
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, image: Tensor, meta: Tensor, *, grid: Grid | None = None) -> tuple[None, Tensor]:
        """image (B, N, C), meta (B, M, C) -> no update of the image, update of meta. All tokens see all, whatever the grid."""
        key, value = split_heads(self.kv(image), parts=2, heads=self.heads)
        (query,) = split_heads(self.q(meta), parts=1, heads=self.heads)
        query = query * log_ratio(few=meta, many=image) if self.log else query
        return None, self.proj(attend(query, key, value, scale=self.scale))

    def meta_weights(self, image: Tensor, meta: Tensor) -> Tensor:
        """Softmax weights (B, heads, M, N)."""
        key, _ = split_heads(self.kv(image), parts=2, heads=self.heads)
        (query,) = split_heads(self.q(meta), parts=1, heads=self.heads)
        query = query * log_ratio(few=meta, many=image) if self.log else query
        return (self.scale * query @ key.transpose(-1, -2)).softmax(dim=-1)


class DualAttention(nn.Module):
    """S1, S2: image and meta tokens read each other at once, from the same projections (Jiang et al. 2024, eq. 4-5).

    With `answers` false only the image is updated: the last block of a dense backbone, where nobody reads meta tokens later.
    """

    def __init__(self, dim: int, *, heads: int, scales: Scales, answers: bool) -> None:
        super().__init__()
        self.dim, self.heads, self.scales = dim, heads, scales
        self.scale = dim**-0.5
        self.qkv1 = nn.Linear(dim, 3 * dim)
        self.qkv2 = nn.Linear(dim, 3 * dim)
        self.proj_x = nn.Linear(dim, dim)
        self.proj_c = nn.Linear(dim, dim) if answers else None

    def forward(self, image: Tensor, meta: Tensor, *, grid: Grid | None = None) -> tuple[Tensor, Tensor | None]:
        """image (B, N, C), meta (B, M, C) -> their updates. All tokens see all, whatever the grid."""
        ratio = log_ratio(few=meta, many=image)
        query2, key2, value2 = split_heads(self.qkv2(meta), parts=3, heads=self.heads)
        if self.proj_c is None:
            query1 = F.linear(image, self.qkv1.weight[: self.dim], self.qkv1.bias[: self.dim])
            (query1,) = split_heads(query1, parts=1, heads=self.heads)
            return self._read_meta(query1, key2, value2, ratio=ratio), None
        query1, key1, value1 = split_heads(self.qkv1(image), parts=3, heads=self.heads)
        query2 = query2 * ratio if self.scales.log_in_meta_reads else query2
        answer = self.proj_c(attend(query2, key1, value1, scale=self.scale))
        return self._read_meta(query1, key2, value2, ratio=ratio), answer

    def meta_weights(self, image: Tensor, meta: Tensor) -> Tensor:
        """Softmax weights with which meta tokens read the image, (B, heads, M, N)."""
        _, key1, _ = split_heads(self.qkv1(image), parts=3, heads=self.heads)
        query2, _, _ = split_heads(self.qkv2(meta), parts=3, heads=self.heads)
        query2 = query2 * log_ratio(few=meta, many=image) if self.scales.log_in_meta_reads else query2
        return (self.scale * query2 @ key1.transpose(-1, -2)).softmax(dim=-1)

    def image_weights(self, image: Tensor, meta: Tensor) -> Tensor:
        """Softmax weights with which the image reads meta tokens, (B, heads, N, M)."""
        query1, _, _ = split_heads(self.qkv1(image), parts=3, heads=self.heads)
        _, key2, _ = split_heads(self.qkv2(meta), parts=3, heads=self.heads)
        return (self.scale * query1 @ (key2 * log_ratio(few=meta, many=image)).transpose(-1, -2)).softmax(dim=-1)

    def _read_meta(self, query: Tensor, key: Tensor, value: Tensor, *, ratio: Tensor) -> Tensor:
        # The factor goes on the few keys instead of the many queries: the same products, a thousandth of the work.
        return self.proj_x(attend(query, key * ratio, value, scale=self.scale))


class SelfAttention(nn.Module):
    """S3, S4: image tokens read image tokens as `reach` has it, meta tokens read meta tokens, through the same weights.

    With `answers` false only the image is updated.
    """

    def __init__(self, dim: int, *, heads: int, scales: Scales, reach: Reach = WHOLE, answers: bool = True) -> None:
        super().__init__()
        self.heads, self.reach, self.answers = heads, reach, answers
        self.scale = (dim // heads if scales.self_by_head else dim) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, image: Tensor, meta: Tensor | None, *, grid: Grid | None = None) -> tuple[Tensor, Tensor | None]:
        """image (B, N, C) by rows of a grid, which only windows ask for, meta (B, M, C) or None -> their updates."""
        update = self.reach(image, meta, grid=grid, project=self._project, scale=self.scale)
        return self.proj(update), self.meta_update(meta)

    def meta_update(self, meta: Tensor | None) -> Tensor | None:
        """What meta tokens (B, M, C) read of each other; None where nobody asks for it."""
        if meta is None or not self.answers:
            return None
        return self.proj(attend(*self._project(meta), scale=self.scale))

    def _project(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """tokens (B, N, C) -> query, key, value (B, heads, N, d)."""
        return split_heads(self.qkv(tokens), parts=3, heads=self.heads)


def tiny(*, bands: int = 3, classes: int = 1000, drop_path: float = 0.0, meta_tokens: int = 16) -> LeMeViTConfig:
    """LeMeViT-tiny, 8.64 M parameters and 1.78 GMACs at 224 px with 1000 classes (table 3)."""
    return _config((1, 2, 2, 8, 2), (64, 64, 128, 192, 320), bands, classes, drop_path, meta_tokens)


def tiny_d7(*, bands: int = 3, classes: int = 1000, drop_path: float = 0.0, meta_tokens: int = 16) -> LeMeViTConfig:
    """The earlier tiny with 7 blocks in S3, behind the paper's change-detection row, 8.19 M parameters and 1.68 GMACs."""
    return _config((1, 2, 2, 7, 2), (64, 64, 128, 192, 320), bands, classes, drop_path, meta_tokens)


def small(*, bands: int = 3, classes: int = 1000, drop_path: float = 0.0, meta_tokens: int = 16) -> LeMeViTConfig:
    """LeMeViT-small, 16.40 M parameters and 3.74 GMACs at 224 px with 1000 classes (table 3)."""
    return _config((1, 2, 2, 6, 2), (96, 96, 192, 320, 384), bands, classes, drop_path, meta_tokens)


def base(*, bands: int = 3, classes: int = 1000, drop_path: float = 0.0, meta_tokens: int = 16) -> LeMeViTConfig:
    """LeMeViT-base, 53.10 M parameters and 11.06 GMACs at 224 px with 1000 classes (table 3)."""
    return _config((2, 4, 4, 18, 4), (96, 96, 192, 384, 512), bands, classes, drop_path, meta_tokens)


def _config(
    depths: tuple[int, int, int, int, int],
    dims: tuple[int, int, int, int, int],
    bands: int,
    classes: int,
    drop_path: float,
    meta_tokens: int,
) -> LeMeViTConfig:
    return LeMeViTConfig(depths=depths, dims=dims, bands=bands, classes=classes, drop_path=drop_path, meta_tokens=meta_tokens)


def sized_pyramid(
    size: Callable[..., LeMeViTConfig],
    *,
    bands: int,
    drop_path: float,
    meta_tokens: int = 16,
    s3_attention: S3Attention = "global",
    s3_window_px: int = S3_WINDOW_PX,
) -> LeMeViTPyramid:
    """The backbone of one of the sizes above."""
    config = size(bands=bands, drop_path=drop_path, meta_tokens=meta_tokens)
    return LeMeViTPyramid(replace(config, s3_attention=s3_attention, s3_window_px=s3_window_px))


def _enter(image: Tensor, meta_tokens: Tensor) -> tuple[Tensor, Tensor | None]:
    meta = meta_tokens.expand(image.shape[0], -1, -1)
    return image.contiguous(memory_format=torch.channels_last), meta


def _blocks(stages: nn.ModuleList) -> Iterator[list[Block]]:
    for stage in stages:
        yield list(cast("nn.ModuleList", stage))  # type: ignore[arg-type]


def _step(block: nn.Module, image: Tensor, meta: Tensor | None, *, save_memory: bool) -> tuple[Tensor, Tensor | None]:
    return checkpoint(block, image, meta, use_reentrant=False) if save_memory else block(image, meta)


def _watch(
    model: LeMeViT | LeMeViTPyramid,
    image: Tensor,
    look: Callable[[Block, Tensor, Tensor], Tensor],
    *,
    kinds: tuple[type[nn.Module], ...],
) -> list[Tensor]:
    """What `look` finds in each block with attention of these kinds, up to S2, where image and meta tokens meet last."""
    x, meta = _enter(image, model.meta_tokens)
    found = []
    for stage, blocks in enumerate(_blocks(model.stages[:3])):
        x, meta = model.downsample_layers[stage](x), model.meta_token_downsample[stage](meta)
        for block in blocks:
            if isinstance(block.attn, kinds):
                found.append(look(block, x, cast(Tensor, meta)))
            x, meta = block(x, meta)
    return found


def as_tokens(image: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H * W, C), a view of it in channels-last memory."""
    return image.permute(0, 2, 3, 1).flatten(1, 2)


def as_map(tokens: Tensor, *, like: Tensor) -> Tensor:
    """What `as_tokens` undoes."""
    return tokens.unflatten(1, like.shape[-2:]).permute(0, 3, 1, 2)


def split_heads(projected: Tensor, *, parts: int, heads: int) -> tuple[Tensor, ...]:
    """(B, N, parts * C) -> that many (B, heads, N, C / heads)."""
    return projected.unflatten(-1, (parts, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def log_ratio(*, few: Tensor, many: Tensor) -> Tensor:
    """log M / log N as a tensor: a Python float would be frozen at the traced size by export and trace."""
    logs = [torch.full((), t.shape[1], dtype=torch.float32, device=t.device).clamp(min=2).log() for t in (few, many)]
    return (logs[0] / logs[1]).to(few.dtype)


def _downsamples(config: LeMeViTConfig) -> nn.ModuleList:
    """Image path into each stage: the stem, nothing, then a strided convolution each."""
    first, dims = config.dims[0], config.dims
    stem = nn.Sequential(
        nn.Conv2d(config.bands, first // 2, 3, stride=2, padding=1),
        nn.BatchNorm2d(first // 2),
        nn.GELU(),
        nn.Conv2d(first // 2, first, 3, stride=2, padding=1),
        nn.BatchNorm2d(first),
    )
    halves = [
        nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after))
        for before, after in pairwise(dims[1:])
    ]
    return nn.ModuleList([stem, nn.Identity(), *halves])


def _meta_mlps(config: LeMeViTConfig, *, count: int) -> nn.ModuleList:
    """Meta-token path into each of the first `count` stages."""
    before = (config.dims[0], *config.dims[:-1])
    mlps = nn.ModuleList(_meta_mlp(i, o) for i, o in list(zip(before, config.dims, strict=True))[:count])
    if config.meta_stem == "none":
        mlps[0] = nn.Identity()
    if config.stages[0] == "-":
        mlps[1] = nn.Identity()
    return mlps


def _meta_mlp(before: int, after: int) -> nn.Sequential:
    hidden = 4 * before
    return nn.Sequential(
        nn.Linear(before, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, after), nn.LayerNorm(after)
    )


def _stages(config: LeMeViTConfig, *, last_reader: int | None) -> nn.ModuleList:
    """The blocks; after stage `last_reader` nobody reads meta tokens, so that its last block need not update them."""
    depths = [0 if kind == "-" else depth for kind, depth in zip(config.stages, config.depths, strict=True)]
    rates = torch.linspace(0, config.drop_path, sum(depths), device="cpu").tolist()
    stages = nn.ModuleList()
    for stage, (depth, dim) in enumerate(zip(depths, config.dims, strict=True)):
        blocks = nn.ModuleList()
        for index in range(depth):
            answers = not (stage == last_reader and index == depth - 1)
            attention = _attention(config, stage=stage, dim=dim, answers=answers)
            blocks.append(Block(dim, attention, mlp_ratio=config.mlp_ratio, drop_path=rates.pop(0)))
        stages.append(blocks)
    return stages


def _attention(config: LeMeViTConfig, *, stage: int, dim: int, answers: bool) -> nn.Module:
    heads, scales, kind = dim // config.head_dim, SCALES[config.attention_scale], config.stages[stage]
    if kind == "C":
        return MetaReadsImage(dim, heads=heads, scales=scales)
    if kind == "D":
        return DualAttention(dim, heads=heads, scales=scales, answers=answers)
    reach = _reach(config) if stage == 3 else WHOLE  # noqa: PLR2004 - S3
    return SelfAttention(dim, heads=heads, scales=scales, reach=reach, answers=answers)


def _reach(config: LeMeViTConfig) -> Reach:
    """Between image tokens of S3."""
    if config.s3_attention == "windows":
        return Windows(side=config.s3_window_px // S3_CELL_PX)
    return ThroughMeta() if config.s3_attention == "meta" else WHOLE


def _classifier(dim: int, classes: int) -> nn.Module:
    return nn.Linear(dim, classes) if classes else nn.Identity()


def _initialise(model: LeMeViT | LeMeViTPyramid) -> None:
    nn.init.normal_(model.meta_tokens)
    model.apply(_initialise_layer)


def _initialise_layer(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)


def _feature_info(config: LeMeViTConfig) -> list[dict[str, int | str]]:
    return [
        {"num_chs": dim, "reduction": reduction, "module": f"stages.{stage}"}
        for stage, (dim, reduction) in enumerate(zip(config.dims[1:], REDUCTIONS, strict=True), start=1)
    ]


def _indices(indices: int | Sequence[int] | None) -> list[int]:
    """Positions 0..3 of maps; an int n means the last n, None all."""
    count = len(REDUCTIONS)
    if isinstance(indices, int):
        chosen = list(range(count - indices, count)) if indices <= count else []
    else:
        chosen = list(range(count) if indices is None else indices)
    if not chosen or not all(-count <= i < count for i in chosen):
        raise ConfigError(
            f"LeMeViT has {count} feature maps: give positions 0 to {count - 1} (-{count} to -1 from the end) or, "
            f"as a number, how many of the last; got {indices}"
        )
    return [i % count for i in chosen]
