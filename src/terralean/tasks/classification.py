"""Scene recognition: an image as a whole gets one of the classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.data import Mixup
from torch import Tensor

from terralean.errors import ConfigError

TOP1, TOP5 = "top1", "top5"  # keys of the share of images whose class is the likeliest, or among the five likeliest
UNLABELLED = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class MixConfig:
    """Training images blended or pasted into one another, and their labels with them.

    Mixup: Zhang et al., ICLR 2018. CutMix: Yun et al., ICCV 2019.
    """

    mixup: float = 0.0  # alpha of the Beta distribution that the share of the other image is drawn from; 0: never
    cutmix: float = 0.0  # the same for the area of the pasted rectangle
    probability: float = 1.0  # that a batch is mixed at all
    switch: float = 0.5  # that a mixed batch is pasted where both are on

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise ConfigError(f"train.mix.{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("probability", "switch"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"train.mix.{name} must be 0 to 1, got {getattr(self, name)}")

    @property
    def active(self) -> bool:
        """Whether anything is mixed."""
        return self.probability > 0 and (self.mixup > 0 or self.cutmix > 0)


def mixer(config: MixConfig, *, classes: int, label_smoothing: float) -> Mixup | None:
    """What turns images (B, C, H, W) and labels (B,) into mixed images and shares (B, K); B is even. None: nothing is mixed.

    It draws from numpy's global generator, as timm has it.
    """
    if not config.active:
        return None
    return Mixup(
        mixup_alpha=config.mixup,
        cutmix_alpha=config.cutmix,
        prob=config.probability,
        switch_prob=config.switch,
        label_smoothing=label_smoothing,
        num_classes=classes,
    )


def training_loss(logits: Tensor, target: Tensor, *, label_smoothing: float) -> Tensor:
    """Mean cross-entropy of logits (B, K) and labels (B,), or the shares (B, K) that a mixer made, smoothed already."""
    return F.cross_entropy(logits.float(), target, label_smoothing=0.0 if target.ndim > 1 else label_smoothing)


def mean_view(logits: Tensor, *, views: int) -> Tensor:
    """logits (B * V, K) of V views of each image -> probabilities (B, K), their mean over the views."""
    return logits.float().softmax(dim=1).unflatten(0, (-1, views)).mean(dim=1)


def tally(probabilities: Tensor, label: Tensor) -> Tensor:
    """probabilities (B, K), label (B,), -1 left out -> images by class and by rank of the true class (K, K), rank 0 first.

    Top-1 accuracy is the share in column 0, top-5 that in columns 0 to 4; a row's sum is the class' number of images.
    """
    known = label != UNLABELLED
    probabilities, label = probabilities[known], label[known]
    classes = probabilities.shape[1]
    own = probabilities.gather(1, label[:, None])
    # Of equal probabilities the first class counts as the likelier, as argmax has it.
    earlier = torch.arange(classes, device=label.device) < label[:, None]
    rank = ((probabilities > own) | ((probabilities == own) & earlier)).sum(dim=1)
    return torch.bincount(label * classes + rank, minlength=classes**2).view(classes, classes)


def shares(ranks: Tensor) -> dict[str, float]:
    """Of a tally (K, K): the shares of all images by TOP1 and TOP5. With five classes or fewer the latter is 1."""
    total = ranks.sum().double()
    return {TOP1: (ranks[:, 0].sum() / total).item(), TOP5: (ranks[:, :5].sum() / total).item()}
