"""Midpoint-offset coding: a rotated box from an upright anchor.

Source: Xie et al. 2021, "Oriented R-CNN for Object Detection", section 3.1. A box is its upright hull and two offsets: how far
its topmost corner lies right of the middle of the hull's top, in widths, and how far its rightmost corner lies below the middle
of the hull's right side, in heights. The other two corners mirror these. What a network says is a parallelogram; it becomes a
rectangle by stretching its shorter diagonal to the longer one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from terralean.boxes.coding import LARGEST_LOG, SMALLEST_PX
from terralean.boxes.form import corners, le90
from terralean.errors import ConfigError

LARGEST_OFFSET = 0.5  # of a side of the hull: the corner is then at its end


@dataclass(frozen=True, kw_only=True, slots=True)
class MidpointCoding:
    """Deltas are divided by these, so that all of them vary alike."""

    stds: tuple[float, float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 0.5, 0.5)  # dx, dy, dw, dh, da, db
    level_px: float = 0.1  # a box with two corners this near to its hull's top, and two to its right side, counts as upright

    def __post_init__(self) -> None:
        if not all(std > 0 for std in self.stds):
            raise ConfigError(f"stds of midpoint offsets must be above 0, got {list(self.stds)}")
        if self.level_px < 0:
            raise ConfigError(f"level_px must be 0 or more, got {self.level_px}")


def encode(boxes: Tensor, anchors: Tensor, coding: MidpointCoding) -> Tensor:
    """Boxes (..., 5) and upright anchors (..., 4), left, top, right, bottom -> deltas (..., 6).

    Offsets of an upright box are both 0.5, and `level_px` says what is upright, so that they do not jump with the noise of
    labels. Such a box comes back from `decode` within that distance, any other exactly. (The authors' code levels each of the
    two sides by itself, by which a thin box that leans a little becomes a line.)
    """
    points = corners(boxes)
    low, high = points.amin(dim=-2), points.amax(dim=-2)
    below, left = points[..., 1] - low[..., None, 1], high[..., None, 0] - points[..., 0]
    upright = ((below <= coding.level_px).sum(dim=-1) > 1) & ((left <= coding.level_px).sum(dim=-1) > 1)
    near = torch.where(upright, coding.level_px, 0.0)[..., None]
    top = points[..., 0].where(below <= near, -torch.inf).amax(dim=-1)
    right = points[..., 1].where(left <= near, -torch.inf).amax(dim=-1)
    corner = torch.stack([top, right], dim=-1)
    centre, size = (low + high) / 2, (high - low).clamp(min=SMALLEST_PX)
    anchor_centre, anchor_size = _centre_and_size(anchors)
    deltas = [(centre - anchor_centre) / anchor_size, (size / anchor_size).log(), (corner - centre) / size]
    return torch.cat(deltas, dim=-1) / _stds(coding, like=boxes)


def decode(deltas: Tensor, anchors: Tensor, coding: MidpointCoding) -> Tensor:
    """The inverse of `encode`, in normal form: deltas (..., 6), anchors (..., 4) -> boxes (..., 5). Offsets end at a half."""
    shift, growth, offset = (deltas * _stds(coding, like=deltas)).split(2, dim=-1)
    anchor_centre, anchor_size = _centre_and_size(anchors)
    size = anchor_size * growth.clamp(-LARGEST_LOG, LARGEST_LOG).exp()
    across, down = (offset.clamp(-LARGEST_OFFSET, LARGEST_OFFSET) * size).unbind(-1)
    half_width, half_height = (size / 2).unbind(-1)
    top, right = torch.stack([across, -half_height], dim=-1), torch.stack([half_width, down], dim=-1)
    return rectified(anchor_centre + shift * anchor_size, top, right)


def rectified(centre: Tensor, corner: Tensor, following: Tensor) -> Tensor:
    """The parallelogram round a centre (..., 2), with one corner and the following one clockwise as offsets (..., 2) from it,
    as a box (..., 5): its shorter diagonal is stretched to the longer one.
    """
    length, other = corner.norm(dim=-1, keepdim=True), following.norm(dim=-1, keepdim=True)
    longest = torch.maximum(length, other)
    corner = corner * (longest / length.clamp(min=SMALLEST_PX / 2))
    following = following * (longest / other.clamp(min=SMALLEST_PX / 2))
    along, across = following - corner, following + corner
    size = torch.stack([along.norm(dim=-1), across.norm(dim=-1)], dim=-1)
    angle = torch.atan2(along[..., 1], along[..., 0])
    return le90(torch.cat([centre, size, angle[..., None]], dim=-1))


def _centre_and_size(anchors: Tensor) -> tuple[Tensor, Tensor]:
    low, high = anchors.split(2, dim=-1)
    return (low + high) / 2, (high - low).clamp(min=SMALLEST_PX)


def _stds(coding: MidpointCoding, *, like: Tensor) -> Tensor:
    return torch.tensor(coding.stds, dtype=like.dtype, device=like.device)
