"""Tokens go where a score is under a fixed threshold, the same for every image (Zhang & Yao 2025, table of criteria)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from terralean.errors import ConfigError
from terralean.tokens.matp import AuxiliaryConfig, GateConfig, RelationSource, Rule, check_after
from terralean.tokens.scores import EntropySource


@dataclass(frozen=True, kw_only=True, slots=True)
class ThresholdConfig:
    """Settings of fixed thresholds. Their values are not published; chosen here."""

    method: Literal["threshold"] = "threshold"
    after: tuple[int, ...] = (6, 8)  # layers
    entropy: float = 0.7  # share of the largest possible entropy, that of all classes alike
    relation: float = 1.5  # times the mean over the image's tokens, which is one over their number
    rule: Rule = "entropy"
    entropy_source: EntropySource = "sigmoid_norm"
    relation_source: RelationSource = "self_attn"
    exclude_self: bool = False
    n_min: int = 1  # tokens that an image keeps at least
    aux: AuxiliaryConfig = field(default_factory=AuxiliaryConfig)
    gate: GateConfig = field(default_factory=GateConfig)

    def __post_init__(self) -> None:
        check_after(self.after)
        if not 0 <= self.entropy <= 1:
            raise ConfigError(f"reduce.entropy of threshold is a share of the largest entropy, 0 to 1, got {self.entropy}")
        if self.n_min < 0:
            raise ConfigError(f"reduce.n_min must be 0 or more, got {self.n_min}")


def candidates(entropy: Tensor, relation: Tensor, there: Tensor | None, config: ThresholdConfig, *, classes: int) -> Tensor:
    """entropy in nats and relation (B, n) -> (B, n), true for tokens that may go."""
    tokens = relation.shape[1] if there is None else there.sum(dim=1, keepdim=True)
    settled = entropy < config.entropy * math.log(classes)
    alone = relation * tokens < config.relation
    gone = {"and": settled & alone, "entropy": settled, "relation": alone}[config.rule]
    return gone if there is None else gone & there
