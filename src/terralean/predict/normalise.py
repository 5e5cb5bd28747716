"""Raw values to what a model sees: the same function in training, prediction and export."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from terralean.spec import Normalisation


class Normalise(nn.Module):
    """(v - mean) / std per band; pixels that are not valid become 0, the mean of the training data."""

    mean: Tensor
    std: Tensor

    def __init__(self, normalisation: Normalisation) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(-1, 1, 1), persistent=False)  # units of the scene
        self.register_buffer("std", torch.tensor(normalisation.std).view(-1, 1, 1), persistent=False)

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:
        """image (B, C, H, W) raw, valid (B, H, W) true where a pixel holds data -> (B, C, H, W)."""
        return ((image - self.mean) / self.std).where(valid[:, None], 0.0)
