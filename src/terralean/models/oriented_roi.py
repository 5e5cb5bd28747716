"""The second look of Oriented R-CNN: what a proposal shows, upright, says its class and where exactly the object lies.

Source: Xie et al. 2021, "Oriented R-CNN for Object Detection", section 3.2, with the settings of OBBDetection's code for DOTA.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terralean.boxes import coding
from terralean.boxes.coding import DeltaCoding
from terralean.boxes.detected import Detected
from terralean.boxes.two_looks import sure_detections
from terralean.errors import ConfigError
from terralean.layers.rotated_align import AlignConfig, align_pyramid
from terralean.models.oriented_assign import SampleConfig, assign_boxes, draw

NUMBERS = 5  # of a box


@dataclass(frozen=True, kw_only=True, slots=True)
class RoIConfig:
    """How proposals are read, judged and suppressed."""

    align: AlignConfig = field(default_factory=AlignConfig)
    hidden: int = 1024  # width of the two linear layers
    coding: DeltaCoding = field(default_factory=DeltaCoding)
    sample: SampleConfig = field(
        default_factory=lambda: SampleConfig(positive=0.5, negative=0.5, count=512, positive_share=0.25)
    )
    score: float = 0.05  # probability that a detection has at least
    iou: float = 0.1  # of detections of a class, one goes that overlaps a better one by more
    most: int = 2000  # detections of an image

    def __post_init__(self) -> None:
        if not 0 <= self.score < 1 or not 0 < self.iou < 1:
            raise ConfigError(f"score must be 0 up to below 1 and iou between 0 and 1, got {self.score} and {self.iou}")
        if self.hidden < 1 or self.most < 1:
            raise ConfigError(f"hidden and most must be above 0, got {self.hidden} and {self.most}")


class RoIHead(nn.Module):
    """Maps and proposals -> for each the logits of classes and of none, and how the box differs from it."""

    def __init__(self, width: int, *, classes: int, strides: Sequence[int], config: RoIConfig) -> None:
        super().__init__()
        self.classes, self.strides, self.config = classes, tuple(strides), config
        self.first = nn.Linear(width * config.align.bins**2, config.hidden)
        self.second = nn.Linear(config.hidden, config.hidden)
        self.classify = nn.Linear(config.hidden, classes + 1)  # the last is none of them
        self.regress = nn.Linear(config.hidden, NUMBERS)
        for layer in (self.first, self.second):
            nn.init.xavier_uniform_(layer.weight)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.normal_(self.regress.weight, std=0.001)
        for layer in (self.first, self.second, self.classify, self.regress):
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[Tensor], boxes: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Proposals (R, 5) px and the image (R,) of each -> logits (R, K + 1) and deltas (R, 5), float32."""
        read = align_pyramid(maps[: len(self.strides)], boxes, image, strides=self.strides, config=self.config.align)
        hidden = F.relu(self.second(F.relu(self.first(read.flatten(1)))))
        return self.classify(hidden).float(), self.regress(hidden).float()

    def losses(
        self,
        maps: Sequence[Tensor],
        proposals: Sequence[Tensor],
        objects: Sequence[Tensor],
        labels: Sequence[Tensor],
        *,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """Of classes and of deltas, means over the proposals looked at, among which the objects (m, 5) themselves are."""
        drawn = [
            self._drawn(torch.cat([some, found]), some, its, generator=generator)
            for found, some, its in zip(proposals, objects, labels, strict=True)
        ]
        boxes, targets, wanted = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        image = torch.cat([torch.full((len(one[0]),), i, device=boxes.device) for i, one in enumerate(drawn)])
        logits, deltas = self(maps, boxes, image)
        positive = targets < self.classes
        apart = F.smooth_l1_loss(deltas[positive], wanted[positive], reduction="sum")
        return F.cross_entropy(logits, targets), apart / len(targets)

    def judged(self, logits: Tensor, deltas: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (R, K) of classes and the boxes (R, 5) meant."""
        return logits.softmax(dim=1)[:, :-1], coding.decode(deltas, boxes, self.config.coding)

    def _drawn(
        self, boxes: Tensor, objects: Tensor, labels: Tensor, *, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The boxes (r, 5) of an image that the loss looks at, their classes (r,) and deltas (r, 5), 0 for those of none."""
        number = assign_boxes(boxes, objects, self.config.sample)
        positive, negative = draw(number, self.config.sample, generator=generator)
        looked = torch.cat([positive, negative])
        targets = torch.full((len(looked),), self.classes, device=boxes.device)
        wanted = boxes.new_zeros(len(looked), NUMBERS)
        if len(positive):
            targets[: len(positive)] = labels[number[positive]]
            wanted[: len(positive)] = coding.encode(objects[number[positive]], boxes[positive], self.config.coding)
        return boxes[looked], targets, wanted


def detections(probabilities: Tensor, boxes: Tensor, config: RoIConfig) -> Detected:
    """Probabilities (R, K) and boxes (R, 5) of one image -> what is found."""
    return sure_detections(probabilities, boxes, score=config.score, iou=config.iou, most=config.most)
