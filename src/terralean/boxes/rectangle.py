"""The smallest rectangle, of any angle, round some points."""

from __future__ import annotations

import torch
from torch import Tensor

from terralean.boxes.form import le90

TIE = 1e-9  # rectangles whose areas differ by less are equally small; rounding must not choose among them


def from_polygons(polygons: Tensor) -> Tensor:
    """Eight numbers x1 y1 .. x4 y4 (..., 8), in any order of the corners -> the smallest boxes round them (..., 5)."""
    return smallest_rectangle(polygons.unflatten(-1, (4, 2)))


def smallest_rectangle(points: Tensor) -> Tensor:
    """Points (..., V, 2) -> the box of least area that holds them (..., 5), in normal form.

    One of its edges lies on an edge of the points' convex hull (Freeman and Shapira 1975), which rotating calipers visit. Here
    every pair of points is tried instead: those that are no hull edge give larger rectangles, and few points need no search.
    """
    first, second = torch.triu_indices(points.shape[-2], points.shape[-2], offset=1, device=points.device)
    exact = points.double()
    middle = exact.mean(dim=-2, keepdim=True)
    exact = exact - middle
    directions = _directions(exact[..., second, :] - exact[..., first, :])
    across = torch.stack([-directions[..., 1], directions[..., 0]], dim=-1)
    low_u, high_u = _extent(exact, directions)
    low_v, high_v = _extent(exact, across)
    best = _first_smallest((high_u - low_u) * (high_v - low_v))

    def chosen(values: Tensor) -> Tensor:
        return values.gather(-1, best).squeeze(-1)

    cos, sin = chosen(directions[..., 0]), chosen(directions[..., 1])
    u, v = chosen(low_u + high_u) / 2, chosen(low_v + high_v) / 2
    centre = torch.stack([u * cos - v * sin, u * sin + v * cos], dim=-1) + middle.squeeze(-2)
    size = _squared(torch.stack([chosen(high_u - low_u), chosen(high_v - low_v)], dim=-1))
    return le90(torch.cat([centre, size, torch.atan2(sin, cos)[..., None]], dim=-1).to(points.dtype))


def _directions(between: Tensor) -> Tensor:
    """Unit vectors (..., D, 2); along x where two points are one."""
    length = between.norm(dim=-1, keepdim=True)
    along_x = torch.tensor([1.0, 0.0], dtype=between.dtype, device=between.device)
    return torch.where(length > 0, between / length.where(length > 0, 1.0), along_x)


def _extent(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Least and greatest (..., D) of points (..., V, 2) along directions (..., D, 2)."""
    place = (directions[..., :, None, :] * points[..., None, :, :]).sum(dim=-1)
    return place.amin(dim=-1), place.amax(dim=-1)


def _squared(size: Tensor) -> Tensor:
    """Width and height (..., 2), equal where they nearly are: the angle of a square must not jump with rounding either."""
    longer = size.amax(dim=-1, keepdim=True)
    return torch.where(size >= longer * (1 - TIE), longer, size)


def _first_smallest(area: Tensor) -> Tensor:
    """Index (..., 1) of the first area (..., D) that is as small as the smallest."""
    smallest = area.amin(dim=-1, keepdim=True)
    return (area <= smallest * (1 + TIE)).to(torch.uint8).argmax(dim=-1, keepdim=True)
