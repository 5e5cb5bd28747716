"""Sums over the processes that train together."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Item = TypeVar("Item")


def together() -> bool:
    """Whether more than one process trains."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_processes(x: Tensor) -> Tensor:
    """The sum of what all processes give, the same in each of them; of one process, its own `x`.

    Its gradient is the sum of all processes' gradients. A loss made of such sums is one number that W processes all
    differentiate, so each gets W times its part of the gradient: what the mean of DistributedDataParallel then makes whole.
    """
    return _Sum.apply(x) if together() else x


def gathered(items: list[Item]) -> list[Item]:
    """What all processes hold, process by process, the same in each of them; of one process, its own."""
    if not together():
        return items
    every: list[list[Item]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(every, items)
    return [item for some in every for item in some]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _summed(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _summed(gradients[0])


def _summed(x: Tensor) -> Tensor:
    total = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total
