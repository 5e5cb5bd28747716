"""FactSeg: one branch tells foreground from background, another tells the classes apart, and their probabilities are joined.

Ma, Wang, Zhong and Zheng, "FactSeg: Foreground activation-driven small object semantic segmentation in large-scale remote
sensing imagery", IEEE Transactions on Geoscience and Remote Sensing 60 (2021). Written from the paper. Each branch is a Feature
Pyramid Network (Lin et al. 2017) with the decoder of Panoptic FPN (Kirillov et al. 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terralean.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class FactSegConfig:
    """Sizes of a FactSeg, and how its two branches become one answer."""

    bands: int
    classes: int
    backbone: str = "resnet50"  # timm's name; any with maps at strides 4, 8, 16, 32
    pyramid_width: int = 256
    decoder_width: int = 128
    background: int = 0  # the class that is no foreground
    joint: bool = True  # scores are logarithms of joint probabilities; False: scores of the class branch, as on LoveDA

    def __post_init__(self) -> None:
        if not 0 <= self.background < self.classes:
            raise ConfigError(
                f"sizes.background must be one of the classes 0 to {self.classes - 1}, got {self.background}; "
                "set it with --set model.sizes.background=..."
            )


class FactSeg(nn.Module):
    """Segmenter: (B, bands, H, W) -> scores (B, classes, H, W), for any H and W."""

    def __init__(self, config: FactSegConfig) -> None:
        super().__init__()
        self.config = config
        self.background = config.background  # what the loss of the foreground branch asks for
        backbone: Any = timm.create_model(
            config.backbone, pretrained=False, features_only=True, in_chans=config.bands, out_indices=(1, 2, 3, 4)
        )
        channels = backbone.feature_info.channels()
        self.backbone = backbone
        self.classes = branch(config, channels, scores=config.classes)
        self.foreground = branch(config, channels, scores=1)

    def forward(self, image: Tensor) -> Tensor | dict[str, Tensor]:
        """Scores at the resolution of the image; in training a dict of "scores" and the logit "foreground" (B, 1, H, W)."""
        maps = self.backbone(image)
        scores = resize(self.classes(maps), image)
        if not (self.config.joint or self.training):
            return scores
        foreground = resize(self.foreground(maps), image)
        if self.config.joint:
            scores = joint_scores(scores, foreground, background=self.background)
        return {"scores": scores, "foreground": foreground} if self.training else scores


class FeaturePyramid(nn.Module):
    """Maps of an encoder, finest first -> as many maps of one width, each of which knows of all coarser ones."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Finest first, each of the size of its encoder's map."""
        summed = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for level in reversed(range(len(summed) - 1)):
            summed[level] = summed[level] + F.interpolate(summed[level + 1], size=summed[level].shape[-2:], mode="nearest")
        return [smooth(x) for smooth, x in zip(self.smooth, summed, strict=True)]


class Decoder(nn.Module):
    """Maps of a pyramid, finest first -> the mean of all, each brought to the finest by a convolution for every doubling."""

    def __init__(self, before: int, width: int, *, levels: int) -> None:
        super().__init__()
        self.paths = nn.ModuleList(
            nn.ModuleList(_conv(before if step == 0 else width, width) for step in range(max(level, 1)))
            for level in range(levels)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """(B, width, h, w) at the size of the finest map."""
        carried = [self._carry(level, maps) for level in range(len(maps))]
        return sum(carried[1:], start=carried[0]) / len(maps)

    def _carry(self, level: int, maps: Sequence[Tensor]) -> Tensor:
        x = maps[level]
        for step, conv in enumerate(cast(nn.ModuleList, self.paths[level])):
            x = conv(x)
            if step < level:
                x = resize(x, maps[level - 1 - step])
        return x


def factseg_resnet50(*, bands: int, classes: int, background: int = 0, joint: bool = True, deep_stem: bool = False) -> FactSeg:
    """FactSeg on ResNet-50, 33.45 M parameters; `deep_stem`: three 3x3 convolutions instead of the 7x7, 33.46 M."""
    backbone = "resnet50d" if deep_stem else "resnet50"
    return FactSeg(FactSegConfig(bands=bands, classes=classes, backbone=backbone, background=background, joint=joint))


def joint_scores(scores: Tensor, foreground: Tensor, *, background: int) -> Tensor:
    """Logarithms of the joint probabilities of the classes: scores (B, K, H, W), foreground logit (B, 1, H, W) -> (B, K, H, W).

    The background's probability is multiplied by that of no foreground, each other by that of foreground; they sum to one.
    """
    background_side = F.logsigmoid(-foreground)
    sides = [background_side if k == background else F.logsigmoid(foreground) for k in range(scores.shape[1])]
    return (scores.log_softmax(dim=1) + torch.cat(sides, dim=1)).log_softmax(dim=1)


def branch(config: FactSegConfig, channels: Sequence[int], *, scores: int) -> nn.Sequential:
    """Maps of the encoder -> scores at stride 4."""
    return nn.Sequential(
        FeaturePyramid(channels, config.pyramid_width),
        Decoder(config.pyramid_width, config.decoder_width, levels=len(channels)),
        nn.Conv2d(config.decoder_width, scores, 1),
    )


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Bilinearly, corner on corner, to the height and width of another map."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)


def _conv(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True))
