"""The oriented region proposal network: where objects may lie, of any class, as rotated boxes.

Source: Xie et al. 2021, "Oriented R-CNN for Object Detection", section 3.1, with the settings of OBBDetection's code for DOTA.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terralean.boxes import midpoint
from terralean.boxes.midpoint import MidpointCoding
from terralean.boxes.two_looks import best_proposals
from terralean.errors import ConfigError
from terralean.models.oriented_assign import SampleConfig, assign_anchors, draw

OFFSETS = 6  # dx, dy, dw, dh, da, db


@dataclass(frozen=True, kw_only=True, slots=True)
class ProposalConfig:
    """Anchors, coding and how many proposals there are."""

    scale: float = 8.0  # side of an anchor in cells of its map
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height over width
    coding: MidpointCoding = field(default_factory=MidpointCoding)
    sample: SampleConfig = field(
        default_factory=lambda: SampleConfig(positive=0.7, negative=0.3, count=256, positive_share=0.5)
    )
    beta: float = 1 / 9  # where the loss of offsets turns from square to straight
    of_level: int = 2000  # the best of each map go on
    hull_iou: float = 0.8  # of proposals of one map, one goes whose upright hull overlaps a better one's by more
    most: int = 2000  # of an image

    def __post_init__(self) -> None:
        if self.scale <= 0 or not self.ratios or min(self.ratios) <= 0:
            raise ConfigError(f"anchors need a scale and ratios above 0, got {self.scale} and {list(self.ratios)}")
        if self.of_level < 1 or self.most < 1:
            raise ConfigError(f"there must be at least 1 proposal, got of_level {self.of_level} and most {self.most}")


class Said(NamedTuple):
    """What the network says of each anchor of an image batch, all maps one after the other."""

    scores: Tensor  # (B, A) logits, float32
    offsets: Tensor  # (B, A, 6) float32
    anchors: Tensor  # (A, 4) px
    lengths: tuple[int, ...]  # anchors of each map


class Candidates(NamedTuple):
    """The best of each map, before any is suppressed: P of each image."""

    boxes: Tensor  # (B, P, 5) px
    scores: Tensor  # (B, P) logits
    level: Tensor  # (P,) the map that each is from


class ProposalNetwork(nn.Module):
    """Maps (B, C, h_l, w_l) of one width -> logits and offsets of the anchors of every place."""

    def __init__(self, width: int, *, strides: Sequence[int], config: ProposalConfig) -> None:
        super().__init__()
        self.strides, self.config = tuple(strides), config
        self.convolve = nn.Conv2d(width, width, 3, padding=1)
        self.score = nn.Conv2d(width, len(config.ratios), 1)
        self.offset = nn.Conv2d(width, len(config.ratios) * OFFSETS, 1)
        for layer in (self.convolve, self.score, self.offset):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[Tensor]) -> Said:
        """What is said of each anchor."""
        scores, offsets, anchors = [], [], []
        for x, stride in zip(maps, self.strides, strict=True):
            hidden = F.relu(self.convolve(x))
            scores.append(self.score(hidden).float().permute(0, 2, 3, 1).flatten(1))
            offsets.append(self.offset(hidden).float().permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, OFFSETS)))
            anchors.append(grid_anchors(x, stride=stride, config=self.config))
        lengths = tuple(len(some) for some in anchors)
        return Said(torch.cat(scores, dim=1), torch.cat(offsets, dim=1), torch.cat(anchors), lengths)

    def candidates(self, said: Said) -> Candidates:
        """The best anchors of each map as boxes. Shapes depend on those of the maps alone."""
        boxes, scores, level = [], [], []
        parts = zip(*(some.split(said.lengths, dim=1) for some in (said.scores, said.offsets)), strict=True)
        for number, ((score, offset), anchors) in enumerate(zip(parts, said.anchors.split(said.lengths), strict=True)):
            best, place = score.topk(min(self.config.of_level, score.shape[1]), dim=1)
            chosen = offset.gather(1, place[..., None].expand(-1, -1, OFFSETS))
            boxes.append(midpoint.decode(chosen, anchors[place], self.config.coding))
            scores.append(best)
            level.append(torch.full((best.shape[1],), number, device=best.device))
        return Candidates(torch.cat(boxes, dim=1), torch.cat(scores, dim=1), torch.cat(level))

    def losses(self, said: Said, objects: Sequence[Tensor], *, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Of logits and of offsets, means over the anchors looked at; objects (m, 5) of each image."""
        score_sum, offset_sum, count = said.scores.sum() * 0, said.offsets.sum() * 0, 0
        for score, offset, some in zip(said.scores, said.offsets, objects, strict=True):
            number = assign_anchors(said.anchors, some, self.config.sample)
            positive, negative = draw(number, self.config.sample, generator=generator)
            looked = torch.cat([positive, negative])
            target = (number[looked] >= 0).float()
            score_sum = score_sum + F.binary_cross_entropy_with_logits(score[looked], target, reduction="sum")
            if len(positive):
                wanted = midpoint.encode(some[number[positive]], said.anchors[positive], self.config.coding)
                offset_sum = offset_sum + F.smooth_l1_loss(offset[positive], wanted, beta=self.config.beta, reduction="sum")
            count += len(looked)
        return score_sum / max(count, 1), offset_sum / max(count, 1)


def grid_anchors(x: Tensor, *, stride: int, config: ProposalConfig) -> Tensor:
    """Upright boxes (h * w * ratios, 4) round the middle of each cell of a map (B, C, h, w), px, row by row. float32."""
    height, width = x.shape[-2:]
    rows, cols = ((torch.arange(length, device=x.device) + 0.5) * stride for length in (height, width))
    y, x_ = torch.meshgrid(rows, cols, indexing="ij")
    half = torch.tensor(
        [[config.scale * stride / math.sqrt(r) / 2, config.scale * stride * math.sqrt(r) / 2] for r in config.ratios],
        device=x.device,
    )
    middle = torch.stack([x_, y], dim=-1)[:, :, None]
    return torch.cat([middle - half, middle + half], dim=-1).flatten(0, 2)


def proposals(found: Candidates, config: ProposalConfig) -> list[Tensor]:
    """The boxes (n, 5) of each image that go on, best first; by upright hulls, map by map."""
    return [
        best_proposals(boxes, scores, found.level, hull_iou=config.hull_iou, most=config.most)
        for boxes, scores in zip(found.boxes.detach(), found.scores.detach(), strict=True)
    ]
