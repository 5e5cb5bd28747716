"""Which anchor or proposal stands for which object in training, and which of them a loss looks at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

from terralean.boxes.form import hull
from terralean.boxes.overlap import iou
from terralean.errors import ConfigError

NOTHING, BETWEEN = -1, -2  # in place of the number of an object: no object, and neither the one nor the other
TOGETHER = 64  # objects compared with all anchors at once: there are a quarter of a million anchors in 1024 x 1024 px


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleConfig:
    """From which overlap on an object is meant, and how many a loss looks at."""

    positive: float  # IoU with an object from which on it is meant
    negative: float  # IoU with every object below which none is meant
    count: int  # of an image
    positive_share: float  # at most

    def __post_init__(self) -> None:
        if not 0 < self.negative <= self.positive < 1:
            raise ConfigError(f"0 < negative <= positive < 1 is needed, got {self.negative} and {self.positive}")
        if self.count < 1 or not 0 < self.positive_share <= 1:
            raise ConfigError(f"count of 1 or more and a share up to 1 are needed, got {self.count}, {self.positive_share}")


def assign_anchors(anchors: Tensor, objects: Tensor, config: SampleConfig) -> Tensor:
    """Number (A,) of the object (m, 5) that each upright anchor (A, 4) stands for, by the IoU with the object's hull.

    An object that no anchor overlaps that much has those that overlap it most, if these reach the lower bound.
    """
    best = anchors.new_zeros(len(anchors))
    number = torch.full((len(anchors),), NOTHING, device=anchors.device)
    forced = number.clone()
    for start in range(0, len(objects), TOGETHER):
        table = box_iou(hull(objects[start : start + TOGETHER]), anchors)
        value, which = table.max(dim=0)
        number = torch.where(value > best, which + start, number)
        best = torch.maximum(best, value)
        most = table.amax(dim=1, keepdim=True)
        chosen = (table == most) & (most >= config.negative)
        place = torch.arange(start, start + len(table), device=anchors.device)[:, None]
        forced = torch.maximum(forced, place.where(chosen, NOTHING).amax(dim=0))
    number = _banded(number, best, config)
    return torch.where(forced >= 0, forced, number)


def assign_boxes(boxes: Tensor, objects: Tensor, config: SampleConfig) -> Tensor:
    """Number (n,) of the object (m, 5) that each box (n, 5) stands for, by exact rotated IoU."""
    if not len(objects):
        return torch.full((len(boxes),), NOTHING, device=boxes.device)
    best, number = iou(boxes, objects).max(dim=1)
    return _banded(number, best, config)


def draw(number: Tensor, config: SampleConfig, *, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Index of the positive ones (p,) and of the negative ones (q,) that the loss looks at, drawn where there are more."""
    positive = _some((number >= 0).nonzero().squeeze(1), int(config.count * config.positive_share), generator)
    negative = _some((number == NOTHING).nonzero().squeeze(1), config.count - len(positive), generator)
    return positive, negative


def _banded(number: Tensor, best: Tensor, config: SampleConfig) -> Tensor:
    found = torch.where(best >= config.positive, number, BETWEEN)
    return torch.where(best < config.negative, NOTHING, found)


def _some(index: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    if len(index) <= count:
        return index
    return index[torch.randperm(len(index), generator=generator)[:count].to(index.device)]
