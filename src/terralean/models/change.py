"""Change networks that compare the feature maps of two dates plainly, with the light head: what BIT has to beat.

Daudt, Le Saux and Boulch, "Fully Convolutional Siamese Networks for Change Detection", ICIP 2018: both dates go through one
backbone, and the maps are either subtracted (absolute differences) or put side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from terralean.layers.folding import fold_norms
from terralean.layers.segmenter import at_size_of
from terralean.models.bit import DATES, bands_of_date, by_date
from terralean.models.light import LightHead
from terralean.models.pyramid import pyramid

Comparison = Literal["difference", "concatenation"]


def difference(before: Tensor, after: Tensor) -> Tensor:
    """The same whichever date comes first."""
    return (before - after).abs()


def concatenation(before: Tensor, after: Tensor) -> Tensor:
    """(B, 2 C, h, w): the head has to learn what a difference is, and may tell building from demolition."""
    return torch.cat([before, after], dim=1)


COMPARISONS: dict[Comparison, Callable[[Tensor, Tensor], Tensor]] = {
    "difference": difference,
    "concatenation": concatenation,
}


class SiameseChange(nn.Module):
    """A pair (B, 2, C, H, W) or (B, 2 C, H, W) -> scores (B, classes, H, W), class 1 = changed."""

    def __init__(self, backbone: nn.Module, head: nn.Module, *, comparison: Comparison) -> None:
        super().__init__()
        self.backbone, self.head, self.comparison = backbone, head, comparison

    def forward(self, image: Tensor) -> Tensor:
        """Logits at the resolution of the pair."""
        dates = by_date(image)
        compare = COMPARISONS[self.comparison]
        maps: Sequence[Tensor] = self.backbone(dates)
        return at_size_of(dates, self.head([compare(*x.chunk(DATES)) for x in maps]))

    def fold(self) -> SiameseChange:
        """A copy for inference: the same scores to rounding, faster."""
        folded = fold_norms(self)
        own: Callable[[], nn.Module] | None = getattr(self.backbone, "fold", None)
        folded.backbone = folded.backbone if own is None else own()
        return folded

    def no_weight_decay(self) -> set[str]:
        """Names of parameters to leave without weight decay beside the one-dimensional ones."""
        own: set[str] = getattr(self.backbone, "no_weight_decay", set)()
        return {f"backbone.{name}" for name in own}


def change_difference_light(
    *, bands: int, classes: int, backbone: str = "lemevit_tiny", drop_path: float = 0.0, width: int = 128
) -> SiameseChange:
    """Differences of maps, on LeMeViT-tiny or another backbone of timm's."""
    return _siamese("difference", bands=bands, classes=classes, backbone=backbone, drop_path=drop_path, width=width)


def change_concatenation_light(
    *, bands: int, classes: int, backbone: str = "lemevit_tiny", drop_path: float = 0.0, width: int = 128
) -> SiameseChange:
    """Maps side by side, on LeMeViT-tiny or another backbone of timm's."""
    return _siamese("concatenation", bands=bands, classes=classes, backbone=backbone, drop_path=drop_path, width=width)


def _siamese(comparison: Comparison, *, bands: int, classes: int, backbone: str, drop_path: float, width: int) -> SiameseChange:
    body = pyramid(backbone, bands=bands_of_date(bands), drop_path=drop_path)
    times = DATES if comparison == "concatenation" else 1
    head = LightHead([times * c for c in body.feature_info.channels()], classes=classes, width=width)
    return SiameseChange(body, head, comparison=comparison)
