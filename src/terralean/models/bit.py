"""BIT on any backbone: a few tokens of two dates say what matters in them, and what has changed.

Chen, Qi and Shi, "Remote Sensing Image Change Detection with Transformers", IEEE TGRS 2021, on LeMeViT as Jiang et al. 2024
(section 4.4, table 5) use it. Written from the papers and from facts about the code of the latter's authors (commit 1b48783):
with `unused=True` state dicts have the same keys and shapes, and outputs agree to 1e-5.

A pair comes as (B, 2, C, H, W), the earlier date first, or with both dates' bands in one axis, (B, 2 C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terralean.errors import ConfigError
from terralean.layers.attention import fused_attention
from terralean.layers.folding import fold_norms
from terralean.models import lemevit
from terralean.models.lemevit import LeMeViT, LeMeViTConfig, LeMeViTPyramid
from terralean.models.pyramid import pyramid

WIDTH = 32  # of the features that both dates are compared in
TOKENS = 4  # of a date
HEADS, HEAD_DIM = 8, 64
HIDDEN = 64  # of the feed-forward layers
DECODERS = 8
STRIDE = 16  # of the map that is read
DATES = 2


class BIT(nn.Module):
    """A pair -> scores (B, classes, H, W), class 1 = changed. The names of the parts are those of the authors' state dicts."""

    def __init__(self, backbone: nn.Module, *, channels: int, classes: int, read: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.backbone = backbone
        self.conv_pred = nn.Conv2d(channels, WIDTH, 3, padding=1)
        self.conv_a = nn.Conv2d(WIDTH, TOKENS, 1, bias=False)
        self.pos_embedding = nn.Parameter(torch.randn(1, DATES * TOKENS, WIDTH))
        self.transformer = Layers(1, SelfRead)
        self.transformer_decoder = Layers(DECODERS, read)
        self.classifier = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
            nn.Conv2d(WIDTH, classes, 3, padding=1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Logits at the resolution of the pair, for any H and W."""
        dates = by_date(image)
        maps = self._features(dates)
        tokens = self._tokens(maps)
        before, after = self._refined(maps, self._related(tokens)).chunk(DATES)
        x = F.interpolate((before - after).abs(), scale_factor=2.0, mode="nearest")
        x = F.interpolate(x, scale_factor=4.0, mode="bilinear", align_corners=True)
        height, width = dates.shape[-2:]
        return self.classifier(x)[..., :height, :width]

    def fold(self) -> BIT:
        """A copy for inference: the same scores to rounding, faster."""
        folded = fold_norms(self)
        own: Callable[[], nn.Module] | None = getattr(self.backbone, "fold", None)
        folded.backbone = folded.backbone if own is None else own()
        return folded

    def no_weight_decay(self) -> set[str]:
        """Names of parameters to leave without weight decay beside the one-dimensional ones."""
        own: set[str] = getattr(self.backbone, "no_weight_decay", set)()
        return {"pos_embedding"} | {f"backbone.{name}" for name in own}

    def _features(self, dates: Tensor) -> Tensor:
        """dates (2 B, C, H, W) -> (2 B, 32, H / 8, W / 8)."""
        (coarse,) = self.backbone(dates)
        return self.conv_pred(F.interpolate(coarse, scale_factor=2.0, mode="nearest"))

    def _tokens(self, maps: Tensor) -> Tensor:
        """maps (2 B, 32, h, w) -> (2 B, 4, 32), means over places that each token chooses."""
        weights = self.conv_a(maps).flatten(2).softmax(dim=-1)
        return weights @ maps.flatten(2).mT

    def _related(self, tokens: Tensor) -> Tensor:
        """The tokens of both dates of a pair after they have read each other, (2 B, 4, 32)."""
        both = torch.cat(tokens.chunk(DATES), dim=1) + self.pos_embedding
        return torch.cat(self.transformer(both).chunk(DATES, dim=1))

    def _refined(self, maps: Tensor, tokens: Tensor) -> Tensor:
        """The maps after each place has read the tokens of its date."""
        places = maps.flatten(2).mT
        return self.transformer_decoder(places, tokens).mT.unflatten(2, maps.shape[-2:])


def by_date(image: Tensor) -> Tensor:
    """A pair (B, 2, C, H, W), or (B, 2 C, H, W) -> (2 B, C, H, W), the earlier dates first: one pass through a backbone."""
    pairs = image if image.dim() == 5 else image.unflatten(1, (DATES, -1))  # noqa: PLR2004 - with an axis of dates
    return pairs.transpose(0, 1).flatten(0, 1)


def bands_of_date(bands: int) -> int:
    """Bands that a backbone sees, of the bands of a pair. Raises ConfigError for an odd number."""
    if bands % DATES:
        raise ConfigError(f"a pair has as many bands in both dates, so an even number together, got {bands}")
    return bands // DATES


class Layers(nn.Module):
    """Reading and feed-forward in turn, each beside what it is added to."""

    def __init__(self, depth: int, read: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleList([Added(Normed(read())), Added(Normed(FeedForward()))]) for _ in range(depth))

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        """x (B, N, 32), memory (B, M, 32) or None: x reads itself -> (B, N, 32)."""
        for layer in self.layers:
            read, feed = cast("nn.ModuleList", layer)
            x = read(x) if memory is None else read(x, memory)
            x = feed(x)
        return x


class Added(nn.Module):
    """A part whose result is added to its first input."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        """x and what the part makes of all inputs."""
        return x + self.fn(x, *others)


class Normed(nn.Module):
    """A part whose inputs are normalised first, all by one norm."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.fn = fn

    def forward(self, *inputs: Tensor) -> Tensor:
        """What the part makes of the normalised inputs."""
        return self.fn(*(self.norm(x) for x in inputs))


class SelfRead(nn.Module):
    """Tokens read each other. Products are divided by the root of the full width, not of a head's."""

    def __init__(self) -> None:
        super().__init__()
        self.to_qkv = nn.Linear(WIDTH, 3 * HEADS * HEAD_DIM, bias=False)
        self.to_out = nn.Sequential(nn.Linear(HEADS * HEAD_DIM, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, N, 32) -> its update."""
        return self.to_out(_attend(*self.to_qkv(x).chunk(3, dim=-1)))


class CrossRead(nn.Module):
    """Places read tokens, of which there are few: what they ask of a place, and say to it, is worked out once for each token.

    To rounding the same as `PlaceRead`, whose products it takes in another order, so that no place gets a vector of 512 values.
    """

    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(WIDTH, HEADS * HEAD_DIM, bias=False) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(HEADS * HEAD_DIM, WIDTH))

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """x (B, N, 32), memory (B, M, 32) -> the update of x."""
        out = cast("nn.Linear", self.to_out[0])
        keys, values = (part(memory).unflatten(-1, (HEADS, HEAD_DIM)) for part in (self.to_k, self.to_v))
        asked = torch.einsum("bmhd,hdc->bhmc", keys, self.to_q.weight.unflatten(0, (HEADS, HEAD_DIM))).flatten(1, 2)
        said = torch.einsum("bmhd,chd->bhmc", values, out.weight.unflatten(1, (HEADS, HEAD_DIM))).flatten(1, 2)
        weights = (x @ asked.mT * WIDTH**-0.5).unflatten(-1, (HEADS, -1)).softmax(dim=-1).flatten(-2)
        return weights @ said + out.bias


class PlaceRead(nn.Module):
    """Places read tokens as the authors' network does it: queries and values of each place, head by head."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(WIDTH, HEADS * HEAD_DIM, bias=False) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(HEADS * HEAD_DIM, WIDTH))

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """x (B, N, 32), memory (B, M, 32) -> the update of x."""
        return self.to_out(_attend(self.to_q(x), self.to_k(memory), self.to_v(memory)))


class FeedForward(nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        # The identity keeps the authors' numbering of the layers, where dropout of rate 0 stands.
        self.net = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Identity(), nn.Linear(HIDDEN, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, N, 32) -> its update."""
        return self.net(x)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key, value = (x.unflatten(-1, (HEADS, HEAD_DIM)).transpose(1, 2) for x in (query, key, value))
    return fused_attention(query, key, value, scale=WIDTH**-0.5).transpose(1, 2).flatten(2)


class WholeLeMeViT(nn.Module):
    """LeMeViT as the authors' change network holds it: S4, norms and all, of which nothing but the map of S3 is used.

    It has the parameters and costs the multiplications of theirs, those of the paper's table 5; a pyramid that ends at S3 gives
    the same map.
    """

    def __init__(self, config: LeMeViTConfig) -> None:
        super().__init__()
        whole = LeMeViT(replace(config, classes=0))
        self.meta_tokens = whole.meta_tokens
        self.downsample_layers, self.meta_token_downsample = whole.downsample_layers, whole.meta_token_downsample
        self.stages, self.norm, self.norm_c = whole.stages, whole.norm, whole.norm_c

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, bands, H, W) -> the map of S3, (B, C, H / 16, W / 16)."""
        x, meta = image.contiguous(memory_format=torch.channels_last), self.meta_tokens.expand(len(image), -1, -1)
        maps = []
        for stage, blocks in enumerate(self.stages):
            x, meta = self.downsample_layers[stage](x), self.meta_token_downsample[stage](meta)
            reads = stage < 3  # noqa: PLR2004 - from S3 on the image reads itself, and meta tokens are left alone
            for block in cast("nn.ModuleList", blocks):
                x, meta = block(x, meta) if reads else (block(x, None)[0], meta)
            maps.append(x)
        return [maps[3]]

    def no_weight_decay(self) -> set[str]:
        """Names of parameters to leave without weight decay beside the one-dimensional ones."""
        return {"meta_tokens"}


class OneMap(nn.Module):
    """The map at reduction 16 of a pyramid; what lies above it is computed all the same."""

    def __init__(self, body: nn.Module, *, position: int) -> None:
        super().__init__()
        self.body, self.position = body, position

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, bands, H, W) -> that map alone."""
        return [self.body(image)[self.position]]

    def no_weight_decay(self) -> set[str]:
        """Names of parameters to leave without weight decay beside the one-dimensional ones."""
        own: set[str] = getattr(self.body, "no_weight_decay", set)()
        return {f"body.{name}" for name in own}


def bit(*, bands: int, classes: int, backbone: str, drop_path: float = 0.0) -> BIT:
    """BIT on any backbone of timm's with a map at reduction 16."""
    body = pyramid(backbone, bands=bands_of_date(bands), drop_path=drop_path)
    reductions = body.feature_info.reduction()
    if STRIDE not in reductions:
        raise ConfigError(
            f"{backbone} gives maps at the reductions {', '.join(map(str, reductions))}, and BIT reads one at {STRIDE}; use "
            "for instance swin_tiny_patch4_window7_224 or lemevit_tiny"
        )
    position = reductions.index(STRIDE)
    channels = body.feature_info.channels()[position]
    return BIT(OneMap(body, position=position), channels=channels, classes=classes, read=CrossRead)


def bit_swin_tiny(*, bands: int, classes: int, drop_path: float = 0.0) -> BIT:
    """BIT on Swin-T, as Jiang et al. 2024 compare with (table 5)."""
    return bit(bands=bands, classes=classes, backbone="swin_tiny_patch4_window7_224", drop_path=drop_path)


def bit_lemevit_tiny(*, bands: int, classes: int, drop_path: float = 0.0, unused: bool = False) -> BIT:
    """BIT on LeMeViT-tiny; with the unused S4 9.009 M parameters."""
    return _on_lemevit(lemevit.tiny(bands=bands_of_date(bands), drop_path=drop_path), classes=classes, unused=unused)


def bit_lemevit_tiny_d7(*, bands: int, classes: int, drop_path: float = 0.0, unused: bool = False) -> BIT:
    """BIT on the earlier LeMeViT-tiny with 7 blocks in S3, the published one; with the unused S4 8.563 M parameters."""
    return _on_lemevit(lemevit.tiny_d7(bands=bands_of_date(bands), drop_path=drop_path), classes=classes, unused=unused)


def bit_lemevit_small(*, bands: int, classes: int, drop_path: float = 0.0, unused: bool = False) -> BIT:
    """BIT on LeMeViT-small; with the unused S4 16.747 M parameters."""
    return _on_lemevit(lemevit.small(bands=bands_of_date(bands), drop_path=drop_path), classes=classes, unused=unused)


def bit_lemevit_base(*, bands: int, classes: int, drop_path: float = 0.0, unused: bool = False) -> BIT:
    """BIT on LeMeViT-base; with the unused S4 53.335 M parameters."""
    return _on_lemevit(lemevit.base(bands=bands_of_date(bands), drop_path=drop_path), classes=classes, unused=unused)


def _on_lemevit(config: LeMeViTConfig, *, classes: int, unused: bool) -> BIT:
    """`unused`: build and compute all that the authors' network does, in its order; S4 above all, on which no score depends."""
    backbone = WholeLeMeViT(config) if unused else LeMeViTPyramid(config, out_indices=(2,))
    return BIT(backbone, channels=config.dims[3], classes=classes, read=PlaceRead if unused else CrossRead)
