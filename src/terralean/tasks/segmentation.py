"""Semantic segmentation: every pixel gets one of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from terralean.errors import ConfigError
from terralean.spec import IGNORE
from terralean.tasks.together import sum_over_processes


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """How scores are compared with labels."""

    class_weights: Literal["none", "root", "inverse"] = "root"  # of frequency; the mean weight over labelled pixels is 1
    dice: float = 0.5  # weight of the soft Dice term beside cross-entropy; it follows the IoU more closely
    label_smoothing: float = 0.0
    auxiliary: float = 0.4  # weight of the same loss on a model's auxiliary scores, where it has them

    def __post_init__(self) -> None:
        if self.auxiliary < 0:
            raise ConfigError(f"train.loss.auxiliary must be 0 or more, got {self.auxiliary}")


class SegmentationLoss(nn.Module):
    """Weighted cross-entropy and soft Dice over labelled pixels, 255 left out."""

    weights: Tensor

    def __init__(self, config: LossConfig, *, class_pixels: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("weights", class_weights(class_pixels, rule=config.class_weights), persistent=False)

    def forward(self, output: Tensor | dict[str, Tensor], mask: Tensor) -> Tensor:
        """Scores (B, K, H, W), or a dict of "scores" and "auxiliary" scores, and mask (B, H, W) -> the loss.

        It is 0 with a gradient where nothing is labelled. In training it is that of the batches of all processes together.
        """
        if isinstance(output, Tensor):
            return self._compare(output, mask)
        loss = self._compare(output["scores"], mask)
        if "auxiliary" in output:
            loss = loss + self.config.auxiliary * self._compare(output["auxiliary"], mask)
        return loss

    def _compare(self, scores: Tensor, mask: Tensor) -> Tensor:
        sums = self.sums(scores, mask)
        return self.value(sum_over_processes(sums) if self.training else sums)

    def sums(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Scores (B, K, H, W), mask (B, H, W) -> what the loss is made of (2 + 3 K,); those of two batches may be added.

        The weighted cross-entropy and the weight of the labels; with Dice, three more of each class.
        """
        labelled = mask != IGNORE
        target = mask.where(labelled, -100)
        entropy = F.cross_entropy(
            scores.float(), target, self.weights, reduction="sum", label_smoothing=self.config.label_smoothing
        )
        weight = self.weights[mask.clamp(max=len(self.weights) - 1)][labelled].sum()
        overlap = [_overlap(scores.float(), mask, labelled)] if self.config.dice else []
        return torch.cat([torch.stack([entropy, weight]), *overlap])

    def value(self, sums: Tensor) -> Tensor:
        """Sums over some batches -> their loss, by the weight of the labels: a batch with few of them counts no less."""
        entropy = sums[0] / sums[1].clamp(min=1e-6)
        return entropy + self.config.dice * _dice(sums[2:]) if self.config.dice else entropy


def class_weights(class_pixels: Sequence[int], *, rule: Literal["none", "root", "inverse"]) -> Tensor:
    """Weight of each class (K,), mean 1 over labelled pixels; 0 for a class that has none."""
    count = torch.tensor(class_pixels, dtype=torch.float64)
    power = {"none": 0.0, "root": 0.5, "inverse": 1.0}[rule]
    weight = torch.where(count > 0, count.clamp(min=1) ** -power, 0.0)
    return (weight * count.sum() / (weight * count).sum()).float()


def answer(probabilities: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """probabilities (K, H, W), valid (H, W) -> classes (H, W), 255 where there is no data."""
    return np.where(valid, probabilities.argmax(axis=0), IGNORE).astype(np.uint8)


def _overlap(scores: Tensor, mask: Tensor, labelled: Tensor) -> Tensor:
    """(3 K,): of each class the probability on its own pixels, that and its pixels together, its pixels."""
    probability = scores.softmax(dim=1) * labelled[:, None]
    truth = F.one_hot(mask.where(labelled, 0), scores.shape[1]).permute(0, 3, 1, 2) * labelled[:, None]
    pixels = truth.sum(dim=(0, 2, 3))
    both = (probability * truth).sum(dim=(0, 2, 3))
    return torch.cat([both, probability.sum(dim=(0, 2, 3)) + pixels, pixels])


def _dice(overlap: Tensor) -> Tensor:
    """One minus the mean soft Dice of the classes that are present."""
    both, size, pixels = overlap.view(3, -1)
    dice = (2 * both + 1) / (size + 1)
    present = pixels > 0
    return 1 - dice[present].mean() if present.any() else both.sum() * 0
