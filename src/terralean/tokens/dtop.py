"""DToP: tokens that a head on the way is sure of are finished, but for a few of each class that stay as context.

Liu et al., "Dynamic Token Pruning in Plain Vision Transformers for Semantic Segmentation", ICCV 2023. What the heads said of
finished tokens is kept on a canvas and is their final answer; the decoder reads the others alone. The published layers are 6
and 8 of 12, the published threshold 0.9 (0.95 for ViT-L at 640 px), five tokens of each class stay.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from terralean.errors import ConfigError
from terralean.tokens.matp import AuxiliaryConfig, check_after


@dataclass(frozen=True, kw_only=True, slots=True)
class DToPConfig:
    """Settings of DToP."""

    method: Literal["dtop"] = "dtop"
    after: tuple[int, ...] = (6, 8)  # layers
    confidence: float = 0.9  # above which a token is finished
    context: int = 5  # tokens of each predicted class that stay, the surest of those that would go
    aux: AuxiliaryConfig = field(
        default_factory=lambda: AuxiliaryConfig(kind="full", width=384, heads=6, layers=3, stop_gradient=False)
    )

    def __post_init__(self) -> None:
        check_after(self.after)
        if not 0 <= self.confidence <= 1:
            raise ConfigError(f"reduce.confidence must be 0 to 1, got {self.confidence}")
        if self.context < 0:
            raise ConfigError(f"reduce.context must be 0 or more, got {self.context}")


def sure(found: Tensor, there: Tensor | None, *, confidence: float) -> Tensor:
    """Class map (B, K, n) in 0..1 -> (B, n), true for tokens whose surest class is above the confidence."""
    above = found.amax(dim=1) > confidence
    return above if there is None else above & there


def finished(found: Tensor, above: Tensor, *, context: int) -> Tensor:
    """Class map (B, K, n), sure tokens (B, n) -> those of them that go (B, n): all but the surest `context` of each class."""
    best, label = found.max(dim=1)
    order = best.masked_fill(~above, -1).argsort(dim=1, descending=True, stable=True)
    sorted_label, sorted_above = label.gather(1, order), above.gather(1, order)
    member = torch.nn.functional.one_hot(sorted_label, found.shape[1]) * sorted_above[..., None]
    place = (member.cumsum(dim=1) * member).sum(dim=2)  # from 1 among those of its class; 0: it does not go anyway
    return torch.zeros_like(above).scatter(1, order, place > context)
