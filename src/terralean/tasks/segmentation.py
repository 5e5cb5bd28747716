"""Semantic segmentation: every pixel gets one of the classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from terralean.errors import ConfigError
from terralean.spec import IGNORE
from terralean.tasks.atm_loss import ATMLossConfig, atm_sums, atm_value
from terralean.tasks.together import sum_over_processes


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """How scores are compared with labels."""

    class_weights: Literal["none", "root", "inverse"] = "root"  # of frequency; the mean weight over labelled pixels is 1
    dice: float = 0.5  # weight of the soft Dice term beside cross-entropy; it follows the IoU more closely
    label_smoothing: float = 0.0
    auxiliary: float = 0.4  # weight of the same loss on a model's auxiliary scores, where it has them
    foreground: float = 1.0  # weight of the cross-entropy of foreground and background, where a model tells them apart
    hardest: float = 1.0  # share of labelled pixels, those with the highest cross-entropy, that count in it
    # of an attention-to-mask head: the loss of its scores, of its masks, or both; "ce_raw": of shares, 0 to 1, taken for
    # logits, as published code does, which keeps the loss from falling below log(1 + (K - 1) / e)
    main: Literal["ce", "ce_raw", "atm", "ce+atm"] = "ce"
    on_the_way: float = 1.0  # weight of the attention-to-mask loss of each auxiliary head that grades tokens
    atm: ATMLossConfig = field(default_factory=ATMLossConfig)

    def __post_init__(self) -> None:
        for name in ("dice", "auxiliary", "foreground", "on_the_way"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"train.loss.{name} must be 0 or more, got {getattr(self, name)}")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"train.loss.label_smoothing must be 0 up to below 1, got {self.label_smoothing}")
        if not 0 < self.hardest <= 1:
            raise ConfigError(f"train.loss.hardest must be above 0 up to 1, got {self.hardest}")


class SegmentationLoss(nn.Module):
    """Weighted cross-entropy and soft Dice over labelled pixels, 255 left out."""

    weights: Tensor

    def __init__(self, config: LossConfig, *, class_pixels: Sequence[int], background: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.background = background  # the class that is no foreground, of a model that tells them apart
        self.register_buffer("weights", class_weights(class_pixels, rule=config.class_weights), persistent=False)

    def forward(self, output: Tensor | dict[str, Tensor], mask: Tensor) -> Tensor:
        """Scores (B, K, H, W) or a dict, and mask (B, H, W) -> the loss.

        A dict holds "scores", and may hold "auxiliary" scores of that shape and the logit "foreground" (B, 1, H, W). Of
        attention-to-mask heads it holds their "shares" (B, K, H, W), the logits "masks" (A, B, K, h, w) and "objects" (A, B, K,
        2 or K + 1), and those of heads on the way as "auxiliary_masks" and "auxiliary_objects".

        It is 0 with a gradient where nothing is labelled. In training it is that of the batches of all processes together.
        """
        if isinstance(output, Tensor):
            return self._main({"scores": output}, mask) if self.training else self._compare(output, mask)
        loss = self._main(output, mask)
        if "auxiliary_masks" in output:
            on_the_way = self._attention_to_mask(output["auxiliary_masks"], output["auxiliary_objects"], mask)
            loss = loss + self.config.on_the_way * on_the_way
        if "auxiliary" in output:
            loss = loss + self.config.auxiliary * self._compare(output["auxiliary"], mask)
        if "foreground" in output:
            loss = loss + self.config.foreground * self._tell_apart(output["foreground"], mask)
        return loss

    def _main(self, output: dict[str, Tensor], mask: Tensor) -> Tensor:
        if self.config.main == "ce":
            return self._compare(output["scores"], mask)
        if "masks" not in output:
            raise ConfigError(
                f"train.loss.main={self.config.main} compares masks, which the model does not have; set train.loss.main=ce, or "
                "use a model with an attention-to-mask head, e.g. vit_base_segvit"
            )
        if self.config.main == "ce_raw":
            return self._compare(output["shares"], mask)
        loss = self._attention_to_mask(output["masks"], output["objects"], mask)
        return loss if self.config.main == "atm" else loss + self._compare(output["scores"], mask)

    def _attention_to_mask(self, masks: Tensor, objects: Tensor, labels: Tensor) -> Tensor:
        """Summed over the heads."""
        sums = torch.stack([atm_sums(m, o, labels, self.config.atm) for m, o in zip(masks, objects, strict=True)])
        sums = sum_over_processes(sums) if self.training else sums
        return torch.stack([atm_value(own, self.config.atm) for own in sums]).sum()

    def _compare(self, scores: Tensor, mask: Tensor) -> Tensor:
        sums = self.sums(scores, mask)
        return self.value(sum_over_processes(sums) if self.training else sums)

    def _tell_apart(self, foreground: Tensor, mask: Tensor) -> Tensor:
        """Mean binary cross-entropy of labelled pixels."""
        assert self.background is not None, "a model with a foreground branch names its background class"
        labelled = mask != IGNORE
        truth = (mask != self.background)[labelled].float()
        entropy = F.binary_cross_entropy_with_logits(foreground.squeeze(1)[labelled].float(), truth, reduction="sum")
        sums = torch.stack([entropy, labelled.sum().float()])
        sums = sum_over_processes(sums) if self.training else sums
        return sums[0] / sums[1].clamp(min=1)

    def sums(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Scores (B, K, H, W), mask (B, H, W) -> what the loss is made of (2 + 3 K,); those of two batches may be added.

        The weighted cross-entropy and the weight of the labels that count; with Dice, three more of each class.
        """
        labelled = mask != IGNORE
        choose = self.training and self.config.hardest < 1  # by batch and process: validation must not depend on these
        counted = hardest(scores, mask, share=self.config.hardest) if choose else labelled
        target = mask.where(counted, -100)
        entropy = F.cross_entropy(
            scores.float(), target, self.weights, reduction="sum", label_smoothing=self.config.label_smoothing
        )
        weight = self.weights[mask.clamp(max=len(self.weights) - 1)][counted].sum()
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


def hardest(scores: Tensor, mask: Tensor, *, share: float) -> Tensor:
    """True for this share of the labelled pixels, those whose class has the lowest probability: (B, H, W).

    Of a fraction of a pixel the whole pixel counts. scores (B, K, H, W), mask (B, H, W).
    """
    labelled = mask != IGNORE
    certainty = scores.detach().float().log_softmax(dim=1).gather(1, mask.where(labelled, 0)[:, None]).squeeze(1)
    count = math.ceil(share * int(labelled.sum()))
    chosen = certainty.masked_fill(~labelled, torch.inf).flatten().topk(count, largest=False).indices
    return torch.zeros_like(labelled).flatten().index_fill(0, chosen, value=True).view_as(labelled)


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
