"""Operations as segmentation papers count them, fvcore's way: what `macs` counts, and norms and resizing beside it.

One multiply-add is one operation. A layer norm counts 5 for each element, a batch norm 2, bilinear resizing 4 for each
element that comes out, nearest 1, a mean over a map 1 for each that goes in; softmax, activations, additions and sigmoids
count nothing. That is the convention of Zhang & Yao 2025 (Remote Sensing 17(14), 2508): by it a ViT-B/16 with an
attention-to-mask head takes 108.267 G with 6 classes at 512 px.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from terralean.cost.macs import Macs, count_macs

MAP = 4  # dimensions of a map: batch, channels, height, width
OF_OUTPUT = {"native_layer_norm": 5, "batch_norm": 2, "upsample_bilinear": 4, "upsample_nearest": 1}


class Beside(TorchDispatchMode):
    """Operations that are no multiply-adds of layers or attention."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result, name = func(*args, **(kwargs or {})), str(func)
        first = result[0] if isinstance(result, tuple) else result
        for part, each in OF_OUTPUT.items():
            if part in name and "backward" not in name:
                self.operations += each * first.numel()
        if name.startswith("aten.mean.dim") and args[0].ndim == MAP and {dim % MAP for dim in args[1]} == {2, 3}:
            self.operations += args[0].numel()
        return result


class Work(NamedTuple):
    """What one forward pass over a whole batch takes."""

    operations: int  # as segmentation papers count
    macs: Macs  # of these, multiply-adds


def count_work(module: nn.Module, *inputs: Tensor) -> Work:
    """Operations and multiply-adds of `module(*inputs)` in evaluation, as it really runs on these inputs, once."""
    beside = Beside()
    macs = count_macs(module, *inputs, beside=beside)
    return Work(operations=macs.total + beside.operations, macs=macs)


def count_operations(module: nn.Module, *inputs: Tensor) -> int:
    """Operations of `module(*inputs)` in evaluation, as it really runs on these inputs."""
    return count_work(module, *inputs).operations


def count_operations_at(module: nn.Module, shape: Sequence[int]) -> int:
    """Operations for an input (B, bands, H, W) of this shape, without computing."""
    shell = copy.deepcopy(module).to("meta")
    return count_operations(shell, torch.empty(tuple(shape), device="meta"))
