"""UPerNet: pooled context on the coarsest map, a top-down path, and all levels fused at the finest resolution.

Xiao et al., "Unified Perceptual Parsing for Scene Understanding", ECCV 2018, section 3, with the sizes of Jiang et al. 2024
(IJCAI, section 4.3), which are those of mmsegmentation: 512 channels, pooled grids of 1, 2, 3 and 6, bilinear resizing with
corners not aligned, dropout of a tenth before the classifier. While training, a fully convolutional head on the third map
is a second way for the loss into the backbone.

The paper's table 5 counts 37.05, 45.59 and 83.19 M parameters: the authors' backbone carries 0.58, 1.34 and 1.87 M that no
map depends on, and ours does not build them. Its 217.88, 228.16 and 263.75 GMACs are counted by mmcv: not only convolutions
and linear layers are in them, see tests/models/test_upernet.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terralean.errors import ConfigError
from terralean.layers.pooling import grid_means
from terralean.layers.segmenter import Segmenter, at_size_of
from terralean.models import lemevit
from terralean.models.lemevit import S3_WINDOW_PX, LeMeViTConfig, LeMeViTPyramid, S3Attention, sized_pyramid
from terralean.models.pyramid import TimmPyramid, pyramid
from terralean.models.swin import SwinPyramid

POOL_SIDES = (1, 2, 3, 6)
DROPOUT = 0.1  # of whole channels before each classifier
AUXILIARY_LEVEL = 2  # the third map, at a 16th of the image's resolution
AUXILIARY_WIDTH = 256


class UPerHead(nn.Module):
    """Maps of a pyramid, finest first -> scores (B, classes, h, w) at the finest map's resolution."""

    def __init__(self, channels: Sequence[int], *, classes: int, width: int) -> None:
        super().__init__()
        if width <= 0:
            raise ConfigError(f"width must be above 0, got {width}")
        self.context = PooledContext(channels[-1], width)
        self.lateral = nn.ModuleList(ConvNormReLU(c, width, 1) for c in channels[:-1])
        self.smooth = nn.ModuleList(ConvNormReLU(width, width, 3) for _ in channels[:-1])
        self.fuse = ConvNormReLU(len(channels) * width, width, 3)
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The coarsest map with its context is carried down; every level, smoothed, is fused and classified."""
        x = self.context(maps[-1])
        levels = [x]
        for lateral, smooth, fine in reversed(list(zip(self.lateral, self.smooth, maps[:-1], strict=True))):
            x = lateral(fine) + at_size_of(fine, x)
            levels.insert(0, smooth(x))
        together = torch.cat([levels[0], *(at_size_of(levels[0], level) for level in levels[1:])], dim=1)
        return self.classify(self.dropout(self.fuse(together)))


class FCNHead(nn.Module):
    """The map of one level of a pyramid -> scores (B, classes, h, w) at its resolution."""

    def __init__(self, channels: Sequence[int], *, level: int, classes: int, width: int) -> None:
        super().__init__()
        if level >= len(channels):
            raise ConfigError(
                f"the auxiliary head reads map {level + 1} of the backbone, which has {len(channels)}; build the model "
                "without that head: set model.sizes.auxiliary=false"
            )
        self.level = level
        self.convolve = ConvNormReLU(channels[level], width, 3)
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Scores of the level's map."""
        return self.classify(self.dropout(self.convolve(maps[self.level])))


class PooledContext(nn.Module):
    """A map beside its own means over coarse grids, so that each place knows what surrounds it (Zhao et al. 2017)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(ConvNormReLU(channels, width, 1) for _ in POOL_SIDES)
        self.fuse = ConvNormReLU(channels + len(POOL_SIDES) * width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, width, h, w)."""
        pooled = [at_size_of(x, reduce(grid_means(x, side=side))) for side, reduce in zip(POOL_SIDES, self.reduce, strict=True)]
        return self.fuse(torch.cat([x, *pooled], dim=1))


class ConvNormReLU(nn.Module):
    """Convolution without bias, batch norm, ReLU; the size stays.

    The mean of a whole map is a single value a channel where there is one image in the batch. A single value has no variance,
    and PyTorch refuses to train on it; here it is normalised by the running statistics, as when the model is used. Norms that
    share the batches of several processes see more than one.
    """

    def __init__(self, before: int, after: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, h, w) -> (B, after, h, w)."""
        x = self.conv(x)
        norm = self.norm
        if self.training and x.numel() == x.shape[1] and isinstance(norm, nn.BatchNorm2d):
            x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps)
        else:
            x = norm(x)
        return F.relu(x)


def upernet(
    *, bands: int, classes: int, backbone: str, drop_path: float = 0.0, width: int = 512, auxiliary: bool = True
) -> Segmenter:
    """UPerNet on any backbone of timm's that gives a pyramid, LeMeViT's included."""
    body = pyramid(backbone, bands=bands, drop_path=drop_path)
    return _segmenter(body, classes=classes, width=width, auxiliary=auxiliary)


def _on_lemevit(name: str, size: Callable[..., LeMeViTConfig], told: str) -> Callable[..., Segmenter]:
    def build(
        *,
        bands: int,
        classes: int,
        drop_path: float = 0.0,
        meta_tokens: int = 16,
        width: int = 512,
        auxiliary: bool = True,
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
        return _segmenter(body, classes=classes, width=width, auxiliary=auxiliary)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = told
    return build


lemevit_tiny_upernet = _on_lemevit(
    "lemevit_tiny_upernet", lemevit.tiny, "LeMeViT-tiny with UPerNet and its auxiliary head, 36.47 M parameters."
)
lemevit_small_upernet = _on_lemevit(
    "lemevit_small_upernet", lemevit.small, "LeMeViT-small with UPerNet and its auxiliary head, 44.25 M parameters."
)
lemevit_base_upernet = _on_lemevit(
    "lemevit_base_upernet", lemevit.base, "LeMeViT-base with UPerNet and its auxiliary head, 81.32 M parameters."
)


def swin_tiny_upernet(
    *, bands: int, classes: int, drop_path: float = 0.0, width: int = 512, auxiliary: bool = True
) -> Segmenter:
    """Swin-T (Liu et al. 2021, timm's) with UPerNet and its auxiliary head, 59.83 M parameters."""
    body = pyramid("swin_tiny_patch4_window7_224", bands=bands, drop_path=drop_path)
    return _segmenter(body, classes=classes, width=width, auxiliary=auxiliary)


def _segmenter(backbone: LeMeViTPyramid | SwinPyramid | TimmPyramid, *, classes: int, width: int, auxiliary: bool) -> Segmenter:
    channels = backbone.feature_info.channels()
    second = FCNHead(channels, level=AUXILIARY_LEVEL, classes=classes, width=AUXILIARY_WIDTH) if auxiliary else None
    return Segmenter(backbone, UPerHead(channels, classes=classes, width=width), classes=classes, auxiliary=second)
