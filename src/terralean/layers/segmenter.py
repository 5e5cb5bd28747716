"""A backbone and the heads that read its maps, which is what most segmentation networks are."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from terralean.layers.folding import fold_norms


class Segmenter(nn.Module):
    """A backbone that gives a pyramid and a head that reads it: (B, bands, H, W) -> scores (B, classes, H, W).

    An auxiliary head reads the same pyramid while training, so that the loss reaches the middle of the backbone; the scores
    of the head do not depend on it.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, *, auxiliary: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.auxiliary = auxiliary

    def forward(self, image: Tensor) -> Tensor | dict[str, Tensor]:
        """Scores (logits) at the resolution of the image, for any H and W.

        In training, with an auxiliary head: a dict of "scores" and "auxiliary", both of that shape.
        """
        maps = self.backbone(image)
        scores = at_size_of(image, self.head(maps))
        if self.auxiliary is None or not self.training:
            return scores
        return {"scores": scores, "auxiliary": at_size_of(image, self.auxiliary(maps))}

    def fold(self) -> Segmenter:
        """A copy for inference: the same scores to rounding, faster."""
        folded = fold_norms(self)
        own: Callable[[], nn.Module] | None = getattr(self.backbone, "fold", None)
        folded.backbone = folded.backbone if own is None else own()
        return folded

    def no_weight_decay(self) -> set[str]:
        """Names of parameters to leave without weight decay beside the one-dimensional ones."""
        own: set[str] = getattr(self.backbone, "no_weight_decay", set)()
        return {f"backbone.{name}" for name in own}


def at_size_of(target: Tensor, x: Tensor) -> Tensor:
    """x (B, C, h, w) at the height and width of the target (..., H, W), bilinear between the centres of pixels."""
    return F.interpolate(x, size=target.shape[-2:], mode="bilinear", align_corners=False)
