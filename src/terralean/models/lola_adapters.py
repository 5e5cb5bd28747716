"""Adapters that are part of LoLA-SpecViT from the start, as its authors have them.

Zidi et al. 2025 (arXiv 2506.17759) and their released network. A trained network is adapted by `terralean.adapt.lora`; what
stands here has a gate and a full matrix beside the low-rank ones, so that it cannot be merged.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor, nn

from terralean.models.lola_blocks import Linear

Adapters = Literal["none", "plain", "gated", "published"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterConfig:
    """How they are made."""

    rank: int
    alpha: float
    gate: bool
    residual: bool
    zero_start: bool  # B begins at 0, so that adapters change nothing at first; the authors draw it like other weights
    frozen: bool  # all else stays as it was drawn: what is learned stands on random features


def adapters_of(kind: Adapters, *, rank: int) -> AdapterConfig | None:
    """The authors' adapters, or of these the low-rank ones alone ("plain") or with their gates, and nothing frozen."""
    if kind == "none":
        return None
    theirs = kind == "published"
    return AdapterConfig(
        rank=rank, alpha=2.0 * rank, gate=kind != "plain", residual=theirs, zero_start=not theirs, frozen=theirs
    )


def layer_of(config: AdapterConfig | None) -> Linear:
    """What makes the network's linear layers."""
    if config is None:
        return nn.Linear
    return partial(AdaptedLinear, rank=config.rank, alpha=config.alpha, gate=config.gate, residual=config.residual)


class AdaptedLinear(nn.Module):
    """W x + b + (alpha / rank) * B A x, the adapter's part times sigmoid(G x) if gated, and + R x with a residual.

    G and R are as large as W: they are no low-rank adapters, and what they do cannot be merged into W.
    """

    def __init__(self, inputs: int, outputs: int, *, rank: int, alpha: float, gate: bool, residual: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.lora_down = nn.Linear(inputs, rank, bias=False)
        self.lora_up = nn.Linear(rank, outputs, bias=False)
        self.lora_gate = nn.Linear(inputs, outputs, bias=False) if gate else None
        self.lora_residual = nn.Linear(inputs, outputs, bias=False) if residual else None
        self.scale = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        """x (..., inputs) -> (..., outputs)."""
        update = self.scale * self.lora_up(self.lora_down(x))
        if self.lora_gate is not None:
            update = self.lora_gate(x).sigmoid() * update
        y = self.linear(x) + update
        return y if self.lora_residual is None else y + self.lora_residual(x)
