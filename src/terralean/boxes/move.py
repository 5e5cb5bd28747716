"""Flips, turns, scales and shifts of boxes and polygons, as matrices (2, 3): x' = m00 x + m01 y + m02, y' likewise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from terralean.boxes.form import corners, le90
from terralean.boxes.rectangle import smallest_rectangle

SQUARE = 1e-9  # cosine of the angle between two edges below which it counts as right


def shifted(*, x: float, y: float) -> Tensor:
    """Matrix that moves by x, y px."""
    return _matrix((1.0, 0.0, x), (0.0, 1.0, y))


def scaled(*, x: float, y: float) -> Tensor:
    """Matrix that stretches by x along columns and by y along rows; the corner of the image stays."""
    return _matrix((x, 0.0, 0.0), (0.0, y, 0.0))


def flipped(*, width: float | None = None, height: float | None = None) -> Tensor:
    """Matrix that exchanges left and right of an image so wide, or top and bottom of one so high, or both."""
    across = (1.0, 0.0, 0.0) if width is None else (-1.0, 0.0, width)
    down = (0.0, 1.0, 0.0) if height is None else (0.0, -1.0, height)
    return _matrix(across, down)


def turned(angle: float, *, about: tuple[float, float]) -> Tensor:
    """Matrix that turns by an angle in radians, positive clockwise on screen, about x, y."""
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = about
    return _matrix((cos, -sin, x - cos * x + sin * y), (sin, cos, y - sin * x - cos * y))


def after(first: Tensor, second: Tensor) -> Tensor:
    """Matrix (2, 3) of one move after another."""
    linear = second[:, :2] @ first[:, :2]
    return torch.cat([linear, second[:, :2] @ first[:, 2:] + second[:, 2:]], dim=1)


def move_points(points: Tensor, matrix: Tensor) -> Tensor:
    """Points (..., 2), moved."""
    x, y = points.double().unbind(-1)
    rows = matrix.double().to(points.device)
    moved = [row[0] * x + row[1] * y + row[2] for row in rows]
    return torch.stack(moved, dim=-1).to(points.dtype)


def move_polygons(polygons: Tensor, matrix: Tensor) -> Tensor:
    """x1 y1 x2 y2 ... (..., 2 V), moved."""
    return move_points(polygons.unflatten(-1, (-1, 2)), matrix).flatten(-2)


def move_boxes(boxes: Tensor, matrix: Tensor) -> Tensor:
    """Boxes (..., 5), moved, in normal form. One that is no rectangle any more becomes the smallest box round what it is."""
    exact, rows = boxes.double(), matrix.double().to(boxes.device)
    cos, sin = exact[..., 4].cos(), exact[..., 4].sin()
    along = torch.stack([row[0] * cos + row[1] * sin for row in rows], dim=-1)
    across = torch.stack([row[1] * cos - row[0] * sin for row in rows], dim=-1)
    stretch, squash = along.norm(dim=-1), across.norm(dim=-1)
    size = torch.stack([exact[..., 2] * stretch, exact[..., 3] * squash], dim=-1)
    angle = torch.atan2(along[..., 1], along[..., 0])[..., None]
    still = le90(torch.cat([move_points(exact[..., :2], matrix), size, angle], dim=-1))
    right_angled = (along * across).sum(dim=-1).abs() <= SQUARE * stretch * squash
    if right_angled.all():
        return still.to(boxes.dtype)
    round_it = smallest_rectangle(move_points(corners(exact), matrix))
    return torch.where(right_angled[..., None], still, round_it).to(boxes.dtype)


def _matrix(across: tuple[float, float, float], down: tuple[float, float, float]) -> Tensor:
    return torch.tensor([across, down], dtype=torch.float64)
