"""The loss of attention-to-mask heads: query c answers for class c, there is nothing to be matched.

Zhang et al., "SegViT", NeurIPS 2022, section 3.3, as their code has it: cross-entropy says which classes are in a crop, focal
loss (Lin et al. 2017) and Dice compare the masks of those that are. The sums of several batches may be added, so that the loss
of a batch that processes share is one number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from terralean.errors import ConfigError
from terralean.spec import IGNORE

TWO_WAY = 2  # logits of object and no object; else of all classes and none


@dataclass(frozen=True, kw_only=True, slots=True)
class ATMLossConfig:
    """Weights of the parts of the loss. All values are those of the authors' code."""

    objects: float = 1.0  # of the cross-entropy of which classes are there
    focal: float = 20.0
    dice: float = 1.0
    no_object: float = 0.1  # of a class that is not there, in that cross-entropy
    alpha: float = 0.25  # of pixels of the class in the focal loss; 1 - alpha of all others
    gamma: float = 2.0  # how much less a pixel counts that is right already
    ignored: Literal["left_out", "other"] = "left_out"  # pixels without label; "other", as published: of none of the classes

    def __post_init__(self) -> None:
        for name in ("objects", "focal", "dice", "no_object", "gamma"):
            if getattr(self, name) < 0:
                raise ConfigError(f"train.loss.atm.{name} must be 0 or more, got {getattr(self, name)}")
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"train.loss.atm.alpha must be 0 to 1, got {self.alpha}")


def atm_sums(masks: Tensor, objects: Tensor, labels: Tensor, config: ATMLossConfig) -> Tensor:
    """Mask logits (B, K, h, w), class logits (B, K, 2 or K + 1) and labels (B, H, W) -> what the loss is made of, (5,).

    The weighted cross-entropy, its weights, the focal loss and Dice of the masks, and the number of masks. A crop without a
    labelled pixel has no mask: its classes are all not there.
    """
    classes = masks.shape[1]
    present = F.one_hot(labels.where(labels != IGNORE, classes).flatten(1), classes + 1).any(dim=1)[:, :classes]
    image, which = present.nonzero(as_tuple=True)
    found = F.interpolate(
        masks[image, which][:, None].float(), size=labels.shape[-2:], mode="bilinear", align_corners=False
    ).squeeze(1)
    truth = (labels[image] == which[:, None, None]).float()
    counted = (labels[image] != IGNORE).float() if config.ignored == "left_out" else torch.ones_like(truth)
    parts = [*_object_sums(objects, present, weight=config.no_object)]
    parts += [_focal(found, truth, counted, config).sum(), _dice(found, truth, counted).sum(), found.new_tensor(len(image))]
    return torch.stack([part.float() for part in parts])


def atm_value(sums: Tensor, config: ATMLossConfig) -> Tensor:
    """Sums of some batches -> their loss."""
    cross_entropy, weight, focal, dice, count = sums
    masks = config.focal * focal + config.dice * dice
    return config.objects * cross_entropy / weight.clamp(min=1e-6) + masks / count.clamp(min=1)


def _object_sums(objects: Tensor, present: Tensor, *, weight: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy of objects (B, K, M) with present (B, K), and its weights, both summed; the last logit means none."""
    none = objects.shape[-1] - 1
    own = torch.zeros_like(present, dtype=torch.int64) if none + 1 == TWO_WAY else torch.arange(none, device=present.device)
    target = torch.where(present, own, none)
    weights = objects.new_ones(none + 1, dtype=torch.float32)
    weights[none] = weight
    entropy = F.cross_entropy(objects.float().flatten(0, 1), target.flatten(), weights, reduction="sum")
    return entropy, weights[target].sum()


def _focal(logits: Tensor, truth: Tensor, counted: Tensor, config: ATMLossConfig) -> Tensor:
    """logits, truth, counted (M, H, W) -> mean focal loss over the pixels of each mask that count, (M,)."""
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    probability = logits.sigmoid()
    wrong = torch.where(truth > 0, 1 - probability, probability)
    side = torch.where(truth > 0, config.alpha, 1 - config.alpha)
    loss = side * wrong**config.gamma * entropy * counted
    return loss.sum(dim=(1, 2)) / counted.sum(dim=(1, 2)).clamp(min=1)


def _dice(logits: Tensor, truth: Tensor, counted: Tensor) -> Tensor:
    """logits, truth, counted (M, H, W) -> one minus the soft Dice of each mask, (M,)."""
    probability = logits.sigmoid() * counted
    both = (probability * truth).sum(dim=(1, 2))
    return 1 - (2 * both + 1) / (probability.sum(dim=(1, 2)) + truth.sum(dim=(1, 2)) + 1)
