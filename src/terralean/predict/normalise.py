"""Raw values to what a model sees, and its scores back to the scene's pixels: the same in training and prediction."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terralean.spec import Normalisation


class Normalise(nn.Module):
    """(v - mean) / std per band; pixels that are not valid become 0, the mean of the training data.

    With `shrink` above 1 the model sees means over squares of so many pixels, of those that are valid.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, normalisation: Normalisation, *, shrink: int = 1) -> None:
        super().__init__()
        self.shrink = shrink
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(-1, 1, 1), persistent=False)  # units of the scene
        self.register_buffer("std", torch.tensor(normalisation.std).view(-1, 1, 1), persistent=False)

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:
        """image (B, C, H, W) raw, valid (B, H, W) true where a pixel holds data -> (B, C, h, w), h = ceil(H / shrink)."""
        seen = ((image - self.mean) / self.std).where(valid[:, None], 0.0)
        return seen if self.shrink == 1 else _means(seen, valid, side=self.shrink)


def enlarge(scores: Tensor, *, shrink: int, height: int, width: int) -> Tensor:
    """scores (B, K, ceil(H / shrink), ceil(W / shrink)) -> (B, K, H, W), bilinear between the centres of the squares."""
    if shrink == 1:
        return scores
    return F.interpolate(scores, scale_factor=shrink, mode="bilinear", align_corners=False)[..., :height, :width]


def resized(seen: Tensor, *, side_px: int) -> Tensor:
    """seen (B, C, H, W) -> (B, C, S, S), bicubic, with antialiasing where it gets smaller."""
    if seen.shape[-2:] == (side_px, side_px):
        return seen
    return F.interpolate(seen, size=(side_px, side_px), mode="bicubic", antialias=True, align_corners=False)


def shrunk_mask(mask: Tensor, *, shrink: int) -> Tensor:
    """mask (B, H, W) -> (B, H / shrink, W / shrink): the class in the middle of each square.

    Where that is half a pixel off, the flips and turns of training crops even it out.
    """
    return mask[:, shrink // 2 :: shrink, shrink // 2 :: shrink]


def _means(seen: Tensor, valid: Tensor, *, side: int) -> Tensor:
    """Means over the valid pixels of squares, 0 where there are none; squares at the far edges may be cut."""
    # Filled up to whole squares: runtimes do not agree on what pooling does with a part of one.
    beyond = (0, -seen.shape[3] % side, 0, -seen.shape[2] % side)
    sums = F.avg_pool2d(F.pad(seen, beyond), side)
    shares = F.avg_pool2d(F.pad(valid[:, None].to(seen.dtype), beyond), side)
    return sums / shares.clamp(min=1 / side**2)
