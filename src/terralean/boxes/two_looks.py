"""What a detector that looks twice does outside its network: which proposals it looks at again, and what it has found."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torchvision.ops import batched_nms

from terralean.boxes.detected import Detected
from terralean.boxes.form import hull
from terralean.boxes.suppress import nms

SMALLEST_PX = 1e-3  # side of a proposal, of which nothing is left to look at


@dataclass(frozen=True, kw_only=True, slots=True)
class Suppression:
    """Both suppressions of a detector, in numbers."""

    hull_iou: float  # of proposals of one map, one goes whose upright hull overlaps a better one's by more
    proposals: int  # of an image, at most
    score: float  # probability that a detection has at least
    iou: float  # of detections of a class, one goes that overlaps a better one by more
    detections: int  # of an image, at most


def best_proposals(boxes: Tensor, scores: Tensor, level: Tensor, *, hull_iou: float, most: int) -> Tensor:
    """Of candidates (P, 5) of one image, with logits (P,) and the map (P,) of each, the boxes (n, 5) to look at, best first.

    One is suppressed by those of its own map alone, by upright hulls.
    """
    sound = ((boxes[:, 2:4] > SMALLEST_PX).all(dim=1) & boxes.isfinite().all(dim=1)).nonzero().squeeze(1)
    kept = batched_nms(hull(boxes[sound]), scores[sound], level[sound], hull_iou)
    return boxes[sound[kept[:most]]]


def sure_detections(probabilities: Tensor, boxes: Tensor, *, score: float, iou: float, most: int) -> Detected:
    """Probabilities (R, K) and boxes (R, 5) of one image -> what is found: a box counts for each class that it reaches."""
    which, labels = (probabilities > score).nonzero(as_tuple=True)
    scores, chosen = probabilities[which, labels], boxes[which]
    kept = nms(chosen, scores, iou_threshold=iou, labels=labels, most=most)
    return Detected(chosen[kept], scores[kept], labels[kept])
