"""A network made ready to predict: batch norms become part of the convolutions before them."""

from __future__ import annotations

import copy
from itertools import chain, pairwise
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

Network = TypeVar("Network", bound=nn.Module)


def fold_norms(model: Network) -> Network:
    """A copy for inference in which no batch norm follows a convolution directly; nothing else of it changes.

    The outputs are the same to rounding. Tensors that stay as they are are shared with the model, not copied. Only norms that
    stand behind a convolution in an `nn.Sequential` are found, for there nothing else can read what the convolution gives.
    """
    folded = sharing(model).eval()
    for part in folded.modules():
        if isinstance(part, nn.Sequential):
            for before, after in pairwise(list(part.named_children())):
                _fold_pair(part, before, after)
    return folded


def sharing(model: Network) -> Network:
    """A copy whose tensors are those of the model, without gradients."""
    memo: dict[int, Any] = {}
    for tensor in chain(model.parameters(), model.buffers()):
        plain = tensor.detach()
        memo[id(tensor)] = nn.Parameter(plain, requires_grad=False) if isinstance(tensor, nn.Parameter) else plain
    return copy.deepcopy(model, memo)


def _fold_pair(part: nn.Sequential, before: tuple[str, nn.Module], after: tuple[str, nn.Module]) -> None:
    (place, conv), (behind, norm) = before, after
    if type(conv) is not nn.Conv2d or type(norm) is not nn.BatchNorm2d or norm.running_mean is None or norm.running_var is None:
        return
    # In full precision: the product of two rounded numbers is rounded once more.
    fused = fuse_conv_bn_weights(
        conv.weight.float(),
        None if conv.bias is None else conv.bias.float(),
        norm.running_mean.float(),
        norm.running_var.float(),
        norm.eps,
        norm.weight,
        norm.bias,
    )
    weight, bias = (t.to(conv.weight.dtype) for t in fused)
    setattr(part, place, with_weights(conv, weight=weight, bias=bias))
    setattr(part, behind, nn.Identity())


def with_weights(conv: nn.Conv2d, *, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """Another convolution like this one."""
    other = copy.copy(conv)
    other._parameters = dict(conv._parameters)
    other.weight = nn.Parameter(weight, requires_grad=False)
    other.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return other
