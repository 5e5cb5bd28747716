"""How much boxes overlap, exactly: intersection over union, and intersection over the first area.

Areas are integrals along edges, not polygons found by case: the area of a polygon within an upright rectangle is the integral
of its edges' height, clamped to the rectangle, over the rectangle's width. The sum is continuous in every corner, so touching,
identical and nearly identical boxes need no tolerance. All of it is computed in float64; what comes back is float32 or the
dtype that was given. Against exact polygon clipping the error of an IoU is below 1e-12 in float64, and below 1e-6 for float32
boxes whose rounding counts as theirs. Boxes with a number that is not finite, or of negative size, overlap nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from terralean.boxes.form import areas, corners, hull
from terralean.boxes.near import near

Share = Callable[[Tensor, Tensor], Tensor]


def iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union (n, m) of each of boxes (n, 5) with each of others (m, 5); 0 where both have no area."""
    return _table(boxes, others, share=paired_iou)


def iof(boxes: Tensor, others: Tensor) -> Tensor:
    """The share (n, m) of each of boxes (n, 5) that lies in each of others (m, 5); 0 for a box without area."""
    return _table(boxes, others, share=paired_iof)


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union (...) of boxes (..., 5) and others (..., 5), pair by pair. Differentiable."""
    mine, theirs = sane(boxes), sane(others)
    shared = _intersection(mine, theirs)
    return _ratio(shared, areas(mine) + areas(theirs) - shared, like=boxes)


def paired_iof(boxes: Tensor, others: Tensor) -> Tensor:
    """The share (...) of boxes (..., 5) that lies in others (..., 5), pair by pair. Differentiable."""
    mine, theirs = sane(boxes), sane(others)
    return _ratio(_intersection(mine, theirs), areas(mine), like=boxes)


def intersection(boxes: Tensor, others: Tensor) -> Tensor:
    """Area (...) in px^2, float64, that boxes (..., 5) and others (..., 5) share, pair by pair. Differentiable."""
    return _intersection(sane(boxes), sane(others))


def area_within(points: Tensor, *, half: Tensor) -> Tensor:
    """Area (...) of simple polygons (..., V, 2) within upright rectangles round the origin of half size x, y (..., 2)."""
    half_x, half_y = half[..., None, 0], half[..., None, 1]
    (x0, y0), (x1, y1) = points.unbind(-1), points.roll(-1, dims=-2).unbind(-1)
    start, end = _clamped(x0, half_x), _clamped(x1, half_x)
    y_start = y0 + share_between(start, x0, x1) * (y1 - y0)
    y_end = y0 + share_between(end, x0, x1) * (y1 - y0)
    return ((end - start) * _mean_clamped(y_start, y_end, half_y)).sum(dim=-1).abs()


def sane(boxes: Tensor) -> Tensor:
    """Boxes (..., 5) in float64; one with a number that is not finite has no size, and no size is negative."""
    exact = torch.where(boxes.isfinite().all(dim=-1, keepdim=True), boxes, 0.0).double()
    return torch.cat([exact[..., :2], exact[..., 2:4].clamp(min=0), exact[..., 4:]], dim=-1)


def share_between(x: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
    """How far x is on the way from x0 to x1, in 0..1; 0 where these are one."""
    way = x1 - x0
    return ((x - x0) / way.where(way != 0, 1.0)).clamp(0, 1)


def _table(boxes: Tensor, others: Tensor, *, share: Share) -> Tensor:
    """A share of every pair (n, m), computed for those whose hulls meet."""
    table = torch.zeros(len(boxes), len(others), dtype=_result_type(boxes), device=boxes.device)
    for i, j in near(hull(sane(boxes)), hull(sane(others))):
        table[i, j] = share(boxes[i], others[j])
    return table


def _intersection(mine: Tensor, theirs: Tensor) -> Tensor:
    smaller = (areas(mine) < areas(theirs))[..., None]  # rounding is then small beside the smaller one, as IoF needs it
    frame, box = torch.where(smaller, mine, theirs), torch.where(smaller, theirs, mine)
    cos, sin = frame[..., 4].cos(), frame[..., 4].sin()
    x, y = (box[..., :2] - frame[..., :2]).unbind(-1)
    turn = box[..., 4] - frame[..., 4]
    seen = torch.stack([x * cos + y * sin, y * cos - x * sin, box[..., 2], box[..., 3], turn], dim=-1)
    return area_within(corners(seen), half=frame[..., 2:4] / 2)


def _mean_clamped(start: Tensor, end: Tensor, half: Tensor) -> Tensor:
    """Mean of a number that runs evenly from start to end, where it is held within -half..half."""
    low, high = torch.minimum(start, end), torch.maximum(start, end)
    span = high - low
    below = torch.minimum((-half - low).clamp(min=0), span)
    above = torch.minimum((high - half).clamp(min=0), span)
    first, last = _clamped(low, half), _clamped(high, half)
    total = (first + last) / 2 * (span - below - above) + half * (above - below)
    return torch.where(span > 0, total / span.where(span > 0, 1.0), first)


def _clamped(x: Tensor, half: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x, -half), half)


def _ratio(part: Tensor, whole: Tensor, *, like: Tensor) -> Tensor:
    share = torch.where(whole > 0, part / whole.where(whole > 0, 1.0), 0.0)
    return share.clamp(max=1).to(_result_type(like))


def _result_type(boxes: Tensor) -> torch.dtype:
    return torch.promote_types(boxes.dtype, torch.float32)
