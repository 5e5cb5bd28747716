"""What windows leave of boxes."""

from __future__ import annotations

import torch
from torch import Tensor

from terralean.boxes.form import corners, le90
from terralean.boxes.polygons import polygon_areas
from terralean.boxes.rectangle import smallest_rectangle

SIDES = ((0, 0, 1.0), (1, 1, 1.0), (0, 2, -1.0), (1, 3, -1.0))  # axis, place in a window, sign of what is inside


def clip(boxes: Tensor, windows: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (..., 5) and windows (..., 4) -> the smallest boxes round what lies inside (..., 5), and its share (...), 0..1.

    A box that lies inside comes back as it is, in normal form, with share 1; one outside has no size and share 0. Windows are
    left, top, right, bottom in px.
    """
    points = corners(boxes.double())
    inside = clip_polygons(points, windows)
    size = polygon_areas(points)
    share = (polygon_areas(inside) / size.where(size > 0, 1.0)).clamp(max=1)
    low, high = windows[..., None, :2].double(), windows[..., None, 2:].double()
    whole = ((points >= low) & (points <= high)).flatten(-2).all(dim=-1)
    kept = torch.where(whole[..., None], le90(boxes), smallest_rectangle(inside).to(boxes.dtype))
    return kept, torch.where(whole, 1.0, share).to(boxes.dtype)


def clip_polygons(points: Tensor, windows: Tensor) -> Tensor:
    """Convex polygons (..., V, 2) cut to windows (..., 4): (..., V + 4, 2), float64, the last point repeated to fill it.

    All points are one where nothing is left. One side cuts after the other (Sutherland and Hodgman 1974).
    """
    windows, clipped = windows.double(), points.double()
    for axis, place, sign in SIDES:
        clipped = _cut(clipped, sign * (clipped[..., axis] - windows[..., None, place]))
    return clipped


def _cut(points: Tensor, inside: Tensor) -> Tensor:
    """Points (..., V, 2) whose distances (..., V) from a line are 0 or more, and where edges cross it: (..., V + 1, 2)."""
    after, inside_after = points.roll(-1, dims=-2), inside.roll(-1, dims=-1)
    crosses = (inside >= 0) != (inside_after >= 0)
    step = inside - inside_after
    share = (inside / step.where(crosses, 1.0)).clamp(0, 1)[..., None]
    candidates = torch.stack([points, points + share * (after - points)], dim=-2).flatten(-3, -2)
    there = torch.stack([inside >= 0, crosses], dim=-1).flatten(-2)
    order = (~there).to(torch.uint8).argsort(dim=-1, stable=True)[..., : points.shape[-2] + 1]
    last = (there.sum(dim=-1, keepdim=True) - 1).clamp(min=0)
    slot = torch.arange(order.shape[-1], device=points.device).expand_as(order)
    order = order.gather(-1, torch.minimum(slot, last))
    return candidates.gather(-2, order[..., None].expand(*order.shape, 2))
