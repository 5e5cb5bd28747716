"""Non-maximum suppression by exact rotated IoU."""

from __future__ import annotations

import torch
from torch import Tensor

from terralean.boxes.form import areas, hull
from terralean.boxes.near import apart, near
from terralean.boxes.overlap import paired_iou, sane

BLOCK = 2048  # boxes settled together: what overlaps among them is held at once
ROUNDING = 1e-12


def nms(
    boxes: Tensor, scores: Tensor, *, iou_threshold: float, labels: Tensor | None = None, most: int | None = None
) -> Tensor:
    """Index (k,) of the boxes (n, 5) that stay, by falling score (n,): no two have an IoU above the threshold.

    A box suppresses only boxes of its label (n,), or any without labels; one that is suppressed suppresses none. Of equal
    scores the first is the better one; NaN is the worst. `most` ends the search after so many. Memory does not grow with n^2.
    """
    order = scores.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)
    ranked = sane(boxes.detach())[order]
    hulls = apart(hull(ranked), None if labels is None else labels[order])
    alive = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    kept: list[Tensor] = []
    for start in range(0, len(order), BLOCK):
        block = start + alive[start : start + BLOCK].nonzero().squeeze(1)
        block = block[_survivors(*_overlapping(ranked, hulls, block, iou_threshold), count=len(block))]
        kept.append(block)
        if most is not None and sum(map(len, kept)) >= most:
            break
        _suppress(alive, ranked, hulls, by=block, start=start + BLOCK, iou_threshold=iou_threshold)
    return order[torch.cat(kept)][:most] if kept else order


def _overlapping(ranked: Tensor, hulls: Tensor, block: Tensor, iou_threshold: float) -> tuple[Tensor, Tensor]:
    """Pairs (i, j) of places in a block, i the better one, whose IoU is above the threshold."""
    pairs = [(block.new_zeros(0), block.new_zeros(0))]
    for i, j in near(hulls[block], hulls[block]):
        better, worse = i[i < j], j[i < j]
        above = _above(ranked, hulls, block[better], block[worse], iou_threshold)
        pairs.append((better[above], worse[above]))
    better, worse = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return better, worse


def _survivors(better: Tensor, worse: Tensor, *, count: int) -> Tensor:
    """True (count,) for what greedy suppression keeps, given which pairs overlap.

    Whoever has no undecided better neighbour stays, and its neighbours go, until all is decided: the greedy result, in as many
    rounds as the longest chain of decisions, not in as many steps as there are boxes.
    """
    undecided = torch.ones(count, dtype=torch.bool, device=better.device)
    stay = torch.zeros_like(undecided)
    while len(better):
        blocked = torch.zeros_like(undecided).index_fill(0, worse, value=True)
        new = undecided & ~blocked
        stay |= new
        undecided &= ~new
        undecided[worse[new[better]]] = False
        open_pairs = undecided[better] & undecided[worse]
        better, worse = better[open_pairs], worse[open_pairs]
    return stay | undecided


def _suppress(alive: Tensor, ranked: Tensor, hulls: Tensor, *, by: Tensor, start: int, iou_threshold: float) -> None:
    """Mark what boxes `by` suppress among those from `start` on as not alive, in place."""
    rest = start + alive[start:].nonzero().squeeze(1)
    for i, j in near(hulls[by], hulls[rest]):
        alive[rest[j[_above(ranked, hulls, by[i], rest[j], iou_threshold)]]] = False


def _above(ranked: Tensor, hulls: Tensor, i: Tensor, j: Tensor, iou_threshold: float) -> Tensor:
    """Index (q,) of the pairs (p,) whose IoU is above the threshold. Most are settled by an upper bound of it."""
    low, high = torch.maximum(hulls[i, :2], hulls[j, :2]), torch.minimum(hulls[i, 2:], hulls[j, 2:])
    size, other = areas(ranked[i]), areas(ranked[j])
    most = torch.minimum((high - low).prod(dim=1), torch.minimum(size, other))  # no more can be shared
    open_pairs = (most > iou_threshold * (1 - ROUNDING) * (size + other - most)).nonzero().squeeze(1)
    exact = paired_iou(ranked[i[open_pairs]], ranked[j[open_pairs]])
    return open_pairs[exact > iou_threshold]
