"""Means of a map over a coarse grid, in a form that programs written for any size of map can have."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def grid_means(x: Tensor, *, side: int) -> Tensor:
    """x (B, C, h, w) -> (B, C, side, side): means over the cells of a grid, which share pixels where its lines cut these."""
    # An exported program would keep the cells of the size that it was traced with.
    return means_by_products(x, side=side) if torch.compiler.is_exporting() else F.adaptive_avg_pool2d(x, side)


def means_by_products(x: Tensor, *, side: int) -> Tensor:
    """The same by two products."""
    rows, columns = (_cells(x, axis=axis, side=side) for axis in (2, 3))
    return between(rows, x, columns)


def between(rows: Tensor, x: Tensor, columns: Tensor) -> Tensor:
    """rows (r, h), x (B, C, h, w), columns (c, w) -> rows @ x @ columns.mT, (B, C, r, c)."""
    maps = x.flatten(0, 1)
    # Not by matmul: whether that folds axes depends on sizes, which a program for every size cannot ask.
    left = torch.bmm(rows.expand(maps.shape[0], -1, -1), maps)
    return torch.bmm(left, columns.mT.expand(maps.shape[0], -1, -1)).unflatten(0, x.shape[:2])


def _cells(x: Tensor, *, axis: int, side: int) -> Tensor:
    """(side, length of the axis): the share of each pixel in each cell, from floor(i L / side) to ceil((i + 1) L / side)."""
    length = torch.full((), x.shape[axis], device=x.device)
    pixel = torch.arange(x.shape[axis], device=x.device)
    cell = torch.arange(side, device=x.device)[:, None]
    inside = ((cell * length < (pixel + 1) * side) & (pixel * side < (cell + 1) * length)).to(x.dtype)
    return inside / inside.sum(dim=1, keepdim=True)
