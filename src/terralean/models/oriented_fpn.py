"""Feature pyramid network (Lin et al. 2017): maps of a backbone as maps of one width, each with what the coarser ones know."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class FeaturePyramid(nn.Module):
    """Maps (B, C_l, h_l, w_l) of a backbone, finest first -> as many of one width and a coarser one, every second place of it.

    Without norms and activations, nearest resizing, as in mmdetection and OBBDetection.
    """

    def __init__(self, channels: Sequence[int], *, width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(before, width, 1) for before in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        for convolve in (*self.lateral, *self.smooth):
            nn.init.xavier_uniform_(convolve.weight)
            nn.init.zeros_(convolve.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The maps, finest first."""
        levels = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for number in range(len(levels) - 1, 0, -1):
            finer = levels[number - 1]
            levels[number - 1] = finer + F.interpolate(levels[number], size=finer.shape[-2:], mode="nearest")
        out = [smooth(x) for smooth, x in zip(self.smooth, levels, strict=True)]
        return [*out, F.max_pool2d(out[-1], 1, stride=2)]
