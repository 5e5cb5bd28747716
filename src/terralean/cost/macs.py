"""Parameters and multiply-accumulates (MACs) of a module, counted while it runs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

PRODUCTS = ("bmm", "baddbmm", "scaled_dot_product", "flash_attention", "efficient_attention", "cudnn_attention")


@dataclass(frozen=True, kw_only=True, slots=True)
class Macs:
    """Multiply-accumulates of one forward pass over a whole batch."""

    layers: int  # convolutions and linear layers, what LeMeViT's tables call MACs
    attention: int  # products of queries with keys, and of weights with values, which those tables leave out

    @property
    def total(self) -> int:
        """Everything counted; norms, activations and additions are not."""
        return self.layers + self.attention


def parameters(module: nn.Module, *, trainable: bool = False) -> int:
    """Number of parameters; of trainable ones if asked."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


def count_macs(module: nn.Module, *inputs: Tensor, beside: AbstractContextManager[object] | None = None) -> Macs:
    """MACs of `module(*inputs)` as it really runs, on the inputs' device, which must be the module's.

    `beside` is another counter of the same pass: a dispatch mode that sees each operation as the module calls it.
    """
    training = {part: part.training for part in module.modules()}
    module.eval()
    # The counter hooks gradients of whatever requires them, and fails on views of parameters: give it plain tensors.
    plain = {name: tensor.detach() for name, tensor in [*module.named_parameters(), *module.named_buffers()]}
    # The counter takes some operations apart, so that what is entered before it would not see them whole.
    with FlopCounterMode(display=False) as counter, beside or nullcontext(), torch.no_grad():
        functional_call(module, plain, inputs)
    for part, was_training in training.items():
        part.training = was_training
    attention = layers = 0
    for operator, flops in counter.get_flop_counts().get("Global", {}).items():
        if any(name in str(operator) for name in PRODUCTS):
            attention += flops // 2
        else:
            layers += flops // 2
    return Macs(layers=layers, attention=attention)


def count_macs_at(module: nn.Module, shape: Sequence[int]) -> Macs:
    """MACs for an input (B, bands, H, W) of this shape, without computing: on a copy without storage."""
    shell = copy.deepcopy(module).to("meta")
    return count_macs(shell, torch.empty(tuple(shape), device="meta"))
