"""Batch norms folded into the convolutions before them, for any model.

Which norm follows which convolution is not read from the model's code: the model runs once without storage while every
operation is watched. A norm is folded where its input is the very tensor that a convolution gave, nothing else reads that
tensor, and both own their weights alone. So a network with any control flow is folded as far as that is right.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CONVOLUTION = torch.ops.aten.convolution.default
NORMS = (torch.ops.aten.native_batch_norm.default, torch.ops.aten._native_batch_norm_legit_no_training.default)
FOLDABLE = (nn.BatchNorm2d, BatchNormAct2d)  # others may do more than normalise


class Folded(NamedTuple):
    """A model with its norms folded."""

    model: nn.Module
    folded: int  # norms that are gone
    left: int  # norms that stay, since no convolution alone feeds them


def fold(model: nn.Module, shape: tuple[int, ...]) -> Folded:
    """The model, which must be in eval mode, folded in place; where it has its own `fold()`, the copy that this gives.

    `shape` (B, bands, H, W) is one that it takes.
    """
    before = _norms(model)
    own: Callable[[], nn.Module] | None = getattr(model, "fold", None)
    if own is not None:
        model = own()
    else:
        for convolution, norm in list(_pairs(model, shape)):
            _fold_pair(model, convolution, norm)
    return Folded(model, folded=before - _norms(model), left=_norms(model))


def _norms(model: nn.Module) -> int:
    return sum(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules())


def _pairs(model: nn.Module, shape: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    """Names of convolutions and of the norms that alone read them."""
    shell = copy.deepcopy(model).to("meta")
    with torch.no_grad(), _Watch() as watch:
        shell(torch.empty(shape, device="meta"))
    convolutions = {id(m.weight): name for name, m in shell.named_modules() if isinstance(m, nn.Conv2d)}
    norms = {id(m.weight): name for name, m in shell.named_modules() if type(m) in FOLDABLE and m.weight is not None}
    reads = Counter(id(tensor) for call in watch.calls for tensor in call.reads)
    made_by = {id(call.result): call for call in watch.calls if call.operator == CONVOLUTION}
    for call in watch.calls:
        source = made_by.get(id(call.reads[0])) if call.operator in NORMS else None
        if source is None:
            continue
        convolution, norm = (one.reads[1] for one in (source, call))
        alone = reads[id(source.result)] == reads[id(convolution)] == reads[id(norm)] == 1
        if alone and id(convolution) in convolutions and id(norm) in norms:
            yield convolutions[id(convolution)], norms[id(norm)]


class _Call(NamedTuple):
    operator: Any
    reads: list[Tensor]  # held, so that no later tensor gets the identity of one that is gone
    result: object


class _Watch(TorchDispatchMode):
    """Every operation with the tensors that it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        reads = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        self.calls.append(_Call(func, reads, result))
        return result


def _fold_pair(model: nn.Module, convolution: str, norm: str) -> None:
    conv = cast(nn.Conv2d, model.get_submodule(convolution))
    bn = cast(nn.BatchNorm2d, model.get_submodule(norm))
    if bn.running_mean is None or bn.running_var is None:
        return
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
    )
    rest = nn.Sequential(bn.drop, bn.act) if isinstance(bn, BatchNormAct2d) else nn.Identity()
    model.set_submodule(norm, rest)
