"""Segmentation with the light head: a pyramid backbone, pooled context, a top-down path of 3x3 convolutions, one map.

Our own head, in the line of Feature Pyramid Networks (Lin et al. 2017) and pooled context (Zhao et al. 2017). UPerNet costs
209 GMACs at 512 px, 24 times LeMeViT-tiny itself; this one costs 3.5, since every layer works at `width` channels and
lateral maps are added instead of concatenated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from terralean.errors import ConfigError
from terralean.layers.pooling import grid_means
from terralean.layers.segmenter import Segmenter, at_size_of
from terralean.models import lemevit
from terralean.models.lemevit import S3_WINDOW_PX, LeMeViTConfig, LeMeViTPyramid, S3Attention, sized_pyramid
from terralean.models.pyramid import TimmPyramid, pyramid
from terralean.models.swin import SwinPyramid

POOL_SIDES = (1, 2, 3, 6)  # of the pooled context, as in Zhao et al. 2017


class LightHead(nn.Module):
    """Maps of a pyramid, finest first -> scores (B, classes, h, w) at the finest map's resolution."""

    def __init__(self, channels: Sequence[int], *, classes: int, width: int) -> None:
        super().__init__()
        if width <= 0 or width % len(POOL_SIDES):
            raise ConfigError(f"width must be a positive multiple of {len(POOL_SIDES)}, got {width}")
        self.context = PooledContext(channels[-1], width)
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels[:-1])
        self.smooth = nn.ModuleList(_conv(width, width, 3) for _ in channels[:-1])
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The coarsest map with its context is carried down to the finest, which is classified."""
        x = self.context(maps[-1])
        for lateral, smooth, fine in reversed(list(zip(self.lateral, self.smooth, maps[:-1], strict=True))):
            carried = at_size_of(fine, x)
            x = smooth(lateral(fine) + carried)
        return self.classify(x)


class PooledContext(nn.Module):
    """A map beside its own means over coarse grids, so that each place knows what surrounds it."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        part = width // len(POOL_SIDES)
        # No batch norm on a 1 x 1 map: with one image in the batch it would see a single value.
        self.reduce = nn.ModuleList(nn.Sequential(nn.Conv2d(channels, part, 1), nn.ReLU()) for _ in POOL_SIDES)
        self.fuse = _conv(channels + part * len(POOL_SIDES), width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, width, h, w)."""
        pooled = [at_size_of(x, reduce(grid_means(x, side=side))) for side, reduce in zip(POOL_SIDES, self.reduce, strict=True)]
        return self.fuse(torch.cat([x, *pooled], dim=1))


def light(*, bands: int, classes: int, backbone: str, drop_path: float = 0.0, width: int = 128) -> Segmenter:
    """The light head on any backbone of timm's that gives a pyramid, LeMeViT's included."""
    return _segmenter(pyramid(backbone, bands=bands, drop_path=drop_path), classes=classes, width=width)


def _on_lemevit(name: str, size: Callable[..., LeMeViTConfig], told: str) -> Callable[..., Segmenter]:
    def build(
        *,
        bands: int,
        classes: int,
        drop_path: float = 0.0,
        meta_tokens: int = 16,
        width: int = 128,
        s3_attention: S3Attention = "global",
        s3_window_px: int = S3_WINDOW_PX,
    ) -> Segmenter:
        body = sized_pyramid(
            size,
            bands=bands,
            drop_path=drop_path,
            meta_tokens=meta_tokens,
            s3_attention=s3_attention,
            s3_window_px=s3_window_px,
        )
        return _segmenter(body, classes=classes, width=width)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = told
    return build


lemevit_tiny_light = _on_lemevit("lemevit_tiny_light", lemevit.tiny, "LeMeViT-tiny with the light head, 8.79 M parameters.")
lemevit_small_light = _on_lemevit(
    "lemevit_small_light", lemevit.small, "LeMeViT-small with the light head, 15.84 M parameters."
)
lemevit_base_light = _on_lemevit("lemevit_base_light", lemevit.base, "LeMeViT-base with the light head, 52.05 M parameters.")


def _segmenter(backbone: LeMeViTPyramid | SwinPyramid | TimmPyramid, *, classes: int, width: int) -> Segmenter:
    head = LightHead(backbone.feature_info.channels(), classes=classes, width=width)
    return Segmenter(backbone, head, classes=classes)


def _conv(before: int, after: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )
