"""Which of many boxes lie near each other, without a table of all pairs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

PAIRS = 1 << 16  # looked at together: a few MiB for each tensor of four numbers a pair


def near(hulls: Tensor, others: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs (i, j), index tensors (p,) each, of upright rectangles (n, 4) and (m, 4) that meet. Each pair comes once.

    Memory is bounded: at most `PAIRS` are looked at together. Rectangles are left, top, right, bottom.
    """
    axis = min((0, 1), key=lambda axis: int(_spans(hulls, others, axis)[1].sum()))
    first, count, order = _spans(hulls, others, axis)
    ends = count.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, PAIRS):
        place = torch.arange(start, min(start + PAIRS, total), device=hulls.device)
        i = torch.searchsorted(ends, place, right=True)
        j = order[first[i] + place - (ends[i] - count[i])]
        meet = (hulls[i, :2] <= others[j, 2:]).all(dim=1) & (hulls[i, 2:] >= others[j, :2]).all(dim=1)
        yield i[meet], j[meet]


def apart(hulls: Tensor, labels: Tensor | None) -> Tensor:
    """Upright rectangles (n, 4), float64, moved along x so that those of different labels (n,) never meet."""
    if labels is None or not len(hulls):
        return hulls
    span = hulls[:, 2].amax() - hulls[:, 0].amin() + 1
    shift = labels.to(hulls.dtype)[:, None] * span
    return hulls + torch.cat([shift, torch.zeros_like(shift)], dim=1).repeat(1, 2)


def _spans(hulls: Tensor, others: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `hulls` the run of `others`, sorted along an axis, that may meet it: first (n,), count (n,), order (m,)."""
    low, order = others[:, axis].sort()
    widest = (others[:, axis + 2] - others[:, axis]).amax().clamp(min=0) if len(others) else 0.0
    first = torch.searchsorted(low, (hulls[:, axis] - widest).contiguous())
    last = torch.searchsorted(low, hulls[:, axis + 2].contiguous(), right=True)
    return first, (last - first).clamp(min=0), order
