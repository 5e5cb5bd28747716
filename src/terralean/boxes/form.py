"""What a box is: its normal form, its corners, its hull, and how other programs write the same five numbers.

Boxes are (..., 5): centre x, centre y, width, height in px, angle in radians; see the room's own page for the sign.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

HALF_TURN = math.pi
QUARTER_TURN = math.pi / 2


def le90(boxes: Tensor) -> Tensor:
    """The same boxes (..., 5), long edge first and angle in [-pi/2, pi/2).

    What has this form already comes back bit for bit. A square keeps its edges: of its two names in the range either is right.
    """
    centre, size, angle = boxes[..., :2], boxes[..., 2:4], boxes[..., 4]
    tall = size[..., 0] < size[..., 1]
    size = torch.where(tall[..., None], size.flip(-1), size)
    angle = wrap(torch.where(tall, angle + QUARTER_TURN, angle))
    return torch.cat([centre, size, angle[..., None]], dim=-1)


def wrap(angle: Tensor) -> Tensor:
    """Angles (...) up to half turns, which change no box: in [-pi/2, pi/2), as the dtype rounds these ends."""
    turned = torch.remainder(angle + QUARTER_TURN, HALF_TURN) - QUARTER_TURN
    turned = torch.where(turned >= QUARTER_TURN, turned - HALF_TURN, turned)  # just below the range rounds up to its end
    return torch.where((angle >= -QUARTER_TURN) & (angle < QUARTER_TURN), angle, turned)


def corners(boxes: Tensor) -> Tensor:
    """Corner points (..., 4, 2) of boxes (..., 5), clockwise on screen, from the one that is top left at angle 0."""
    width, height, angle = boxes[..., 2], boxes[..., 3], boxes[..., 4]
    cos, sin = angle.cos(), angle.sin()
    along = torch.stack([cos, sin], dim=-1) * (width / 2)[..., None]
    across = torch.stack([-sin, cos], dim=-1) * (height / 2)[..., None]
    centre = boxes[..., :2]
    points = [centre - along - across, centre + along - across, centre + along + across, centre - along + across]
    return torch.stack(points, dim=-2)


def to_polygons(boxes: Tensor) -> Tensor:
    """Boxes (..., 5) -> their corners as eight numbers x1 y1 .. x4 y4 (..., 8)."""
    return corners(boxes).flatten(-2)


def areas(boxes: Tensor) -> Tensor:
    """Width times height (...), px^2."""
    return boxes[..., 2] * boxes[..., 3]


def hull(boxes: Tensor) -> Tensor:
    """The smallest upright rectangles round boxes (..., 5): left, top, right, bottom (..., 4)."""
    width, height, angle = boxes[..., 2], boxes[..., 3], boxes[..., 4]
    cos, sin = angle.cos().abs(), angle.sin().abs()
    half = torch.stack([width * cos + height * sin, width * sin + height * cos], dim=-1) / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], dim=-1)


def from_hull(hulls: Tensor) -> Tensor:
    """Upright rectangles left, top, right, bottom (..., 4) -> boxes (..., 5) in normal form."""
    size = hulls[..., 2:] - hulls[..., :2]
    upright = torch.cat([hulls[..., :2] + size / 2, size, torch.zeros_like(size[..., :1])], dim=-1)
    return le90(upright)


# As others write them.


def to_torchvision(boxes: Tensor) -> Tensor:
    """Boxes (..., 5) -> torchvision's "cxcywhr": the angle in degrees, counter-clockwise on screen."""
    return torch.cat([boxes[..., :4], -torch.rad2deg(boxes[..., 4:])], dim=-1)


def from_torchvision(boxes: Tensor) -> Tensor:
    """torchvision's "cxcywhr" (..., 5), degrees -> boxes in normal form."""
    return le90(torch.cat([boxes[..., :4], -torch.deg2rad(boxes[..., 4:])], dim=-1))


def to_obbdetection(boxes: Tensor) -> Tensor:
    """Boxes (..., 5) -> those of OBBDetection and BboxToolkit: same range, angle positive counter-clockwise on screen."""
    return _mirrored(boxes)


def from_obbdetection(boxes: Tensor) -> Tensor:
    """Boxes of OBBDetection and BboxToolkit (..., 5) -> ours, in normal form."""
    return _mirrored(boxes)


def _mirrored(boxes: Tensor) -> Tensor:
    return le90(torch.cat([boxes[..., :4], -boxes[..., 4:]], dim=-1))
