"""How much polygons overlap, exactly: four-sided ground truth is no rectangle, and what a window leaves of a box is none.

A polygon is the sum, with signs, of what lies below its edges; two polygons share, edge by edge, what lies below the lower of
two edges, an integral with a closed form. That needs neither convexity nor an order of turning, only that no polygon crosses
itself. float64 inside; errors as in `overlap`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from terralean.boxes.near import apart, near
from terralean.boxes.overlap import area_within, share_between


def polygon_iou(polygons: Tensor, others: Tensor) -> Tensor:
    """Intersection over union (n, m), float64, of polygons (n, 2 V) with others (m, 2 U); 0 where both have no area."""
    mine, theirs = points_of(polygons), points_of(others)
    table = torch.zeros(len(mine), len(theirs), dtype=torch.float64, device=mine.device)
    size, other_size = polygon_areas(mine), polygon_areas(theirs)
    for i, j in near(points_hull(mine), points_hull(theirs)):
        shared = polygon_intersection(mine[i], theirs[j])
        union = size[i] + other_size[j] - shared
        table[i, j] = torch.where(union > 0, shared / union.where(union > 0, 1.0), 0.0).clamp(0, 1)
    return table


def best_matches(polygons: Tensor, others: Tensor, labels: Tensor, other_labels: Tensor) -> tuple[Tensor, Tensor]:
    """For each polygon (n, 2 V) the other (m, 2 U) of its label with the highest IoU: that IoU (n,), float64, its index (n,).

    Of equal ones the first; 0 and -1 where none overlaps. Memory grows with the pairs that overlap, not with n m.
    """
    mine, theirs = points_of(polygons), points_of(others)
    size, other_size = polygon_areas(mine), polygon_areas(theirs)
    best, which = size.new_zeros(len(mine)), torch.full((len(mine),), -1, device=mine.device)
    hulls = apart(torch.cat([points_hull(mine), points_hull(theirs)]), torch.cat([labels, other_labels]))
    for i, j in near(hulls[: len(mine)], hulls[len(mine) :]):
        shared = polygon_intersection(mine[i], theirs[j])
        union = size[i] + other_size[j] - shared
        iou = torch.where(union > 0, shared / union.where(union > 0, 1.0), 0.0).clamp(0, 1)
        higher = best.scatter_reduce(0, i, iou, reduce="amax")
        top = (iou == higher[i]) & (iou > 0)
        first = torch.full_like(which, len(theirs)).scatter_reduce(0, i[top], j[top], reduce="amin")
        first = torch.where((higher == best) & (which >= 0), torch.minimum(first, which), first)
        which = torch.where((higher > 0) & (first < len(theirs)), first, which)
        best = higher
    return best, which


def share_in_windows(polygons: Tensor, windows: Tensor) -> Tensor:
    """The share (n, m), float64, of each polygon (n, 2 V) that lies in each window (m, 4), as `shares_in_windows`."""
    i, j, share = shares_in_windows(polygons, windows)
    table = torch.zeros(len(polygons), len(windows), dtype=torch.float64, device=polygons.device)
    table[i, j] = share
    return table


def shares_in_windows(polygons: Tensor, windows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each polygon (n, 2 V) that meets a window (m, 4): both indices, and which share of it lies there (p,), float64.

    Windows are left, top, right, bottom. Of a polygon without area (a line, a point) the share is 1 where all of its corners
    lie in the window, else 0. Pairs with share 0 are left out.
    """
    points, windows = points_of(polygons), windows.double()
    size = polygon_areas(points)
    found = [(size.new_zeros(0, dtype=torch.int64), size.new_zeros(0, dtype=torch.int64), size.new_zeros(0))]
    for i, j in near(points_hull(points), windows):
        centre, half = (windows[j, :2] + windows[j, 2:]) / 2, (windows[j, 2:] - windows[j, :2]) / 2
        whole = ((points[i] >= windows[j, None, :2]) & (points[i] <= windows[j, None, 2:])).flatten(1).all(dim=1)
        part = (area_within(points[i] - centre[:, None], half=half) / size[i].where(size[i] > 0, 1.0)).clamp(max=1)
        share = torch.where(whole, 1.0, part.where(size[i] > 0, 0.0))
        there = share > 0
        found.append((i[there], j[there], share[there]))
    first, second, share = (torch.cat(parts) for parts in zip(*found, strict=True))
    return first, second, share


def polygon_areas(points: Tensor) -> Tensor:
    """Areas (...) of polygons (..., V, 2)."""
    centred = points - points[..., :1, :]
    after = centred.roll(-1, dims=-2)
    return (centred[..., 0] * after[..., 1] - centred[..., 1] * after[..., 0]).sum(dim=-1).abs() / 2


def polygon_intersection(points: Tensor, others: Tensor) -> Tensor:
    """Area (...) that polygons (..., V, 2) and others (..., U, 2) share, pair by pair."""
    origin = others.mean(dim=-2, keepdim=True)
    (a0, b0), (a1, b1) = _edges(points - origin)
    (c0, d0), (c1, d1) = (tuple(t[..., None, :] for t in end) for end in _edges(others - origin))
    a0, b0, a1, b1 = (t[..., :, None] for t in (a0, b0, a1, b1))
    left = torch.maximum(torch.minimum(a0, a1), torch.minimum(c0, c1))
    right = torch.minimum(torch.maximum(a0, a1), torch.maximum(c0, c1))
    ends = []
    for x in (left, right):
        mine = b0 + share_between(x, a0, a1) * (b1 - b0)
        ends.append((mine, d0 + share_between(x, c0, c1) * (d1 - d0)))
    below = (right - left).clamp(min=0) * _mean_lower(*ends)
    return (torch.sign(a1 - a0) * torch.sign(c1 - c0) * below).sum(dim=(-2, -1)).abs()


def points_of(polygons: Tensor) -> Tensor:
    """x1 y1 x2 y2 ... (..., 2 V) -> points (..., V, 2), float64."""
    return polygons.double().unflatten(-1, (-1, 2))


def points_hull(points: Tensor) -> Tensor:
    """The smallest upright rectangles round points (..., V, 2): left, top, right, bottom (..., 4)."""
    return torch.cat([points.amin(dim=-2), points.amax(dim=-2)], dim=-1)


def _edges(points: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """x, y of the first and of the last point of each edge, (..., V) each."""
    (x0, y0), (x1, y1) = points.unbind(-1), points.roll(-1, dims=-2).unbind(-1)
    return (x0, y0), (x1, y1)


def _mean_lower(first: tuple[Tensor, Tensor], last: tuple[Tensor, Tensor]) -> Tensor:
    """Mean of the lower of two numbers that run evenly from their `first` to their `last`."""
    apart, after = first[0] - first[1], last[0] - last[1]
    low, high = torch.minimum(apart, after), torch.maximum(apart, after)
    span = high - low
    crossing = (low < 0) & (high > 0)
    part = torch.where(crossing, -(low**2) / (2 * span.where(crossing, 1.0)), (low.clamp(max=0) + high.clamp(max=0)) / 2)
    return (first[1] + last[1]) / 2 + part
