"""MATP: tokens whose class is settled and that others do not attend to are taken out, by thresholds that adapt to the image.

Zhang & Yao, "Multi-Faceted Adaptive Token Pruning", Remote Sensing 2025, 17(14), 2508. Published: the two scores, that both
must be low, the layers 3, 6 and 8, the factors 1.2 and 2.0, a retention gate of 0.2 in training, the gradient stop. Not
published, and chosen here as settings: which factor belongs to which score and that a threshold is mean + factor x deviation
(both follow from the published costs), the formulas of the scores, what the gate does, the layers of the auxiliary heads, the
floor.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from terralean.errors import ConfigError
from terralean.tokens.scores import EntropySource

log = logging.getLogger(__name__)
_told: set[tuple[int, int]] = set()  # layers and floors of which has been warned

GateMode = Literal["bernoulli", "warmup_fraction", "linear"]
ThresholdMode = Literal["mean_std", "scaled_mean"]
RelationSource = Literal["self_attn", "aux_cross_attn"]
Rule = Literal["and", "entropy", "relation"]
Form = Literal["light", "slim", "full"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AuxiliaryConfig:
    """The heads that grade tokens on the way. Their layers are not published; chosen here."""

    kind: Form = "light"
    width: int = 192
    heads: int = 3
    layers: int = 3  # of a full head
    stop_gradient: bool = True  # a head's loss trains the head alone (Zhang & Yao 2025, "gradient stop")

    def __post_init__(self) -> None:
        for name in ("width", "heads", "layers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"reduce.aux.{name} must be above 0, got {getattr(self, name)}")
        if self.width % self.heads:
            raise ConfigError(f"reduce.aux.width must be a multiple of reduce.aux.heads, got {self.width} and {self.heads}")


@dataclass(frozen=True, kw_only=True, slots=True)
class GateConfig:
    """In training a token that is to go stays with some probability. Three readings of what is published; see `keep_prob`."""

    mode: GateMode = "bernoulli"
    p: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ConfigError(f"reduce.gate.p must be 0 to 1, got {self.p}")


@dataclass(frozen=True, kw_only=True, slots=True)
class MATPConfig:
    """Settings of MATP. A token goes where entropy is below mean + alpha x deviation and relation below that with beta."""

    method: Literal["matp"] = "matp"
    after: tuple[int, ...] = (6, 8)  # layers; (3, 6, 8) is published for the largest saving
    alpha: float = 1.2
    beta: float = 2.0
    threshold: ThresholdMode = "mean_std"  # or factor x mean
    rule: Rule = "and"  # the others look at one score alone, as the publication's ablation does
    entropy_source: EntropySource = "sigmoid_norm"
    relation_source: RelationSource = "self_attn"
    exclude_self: bool = False  # of the attention that a token gets, what it gives itself
    n_min: int = 1  # tokens that an image keeps at least, those of the highest entropy (of relation, where that is the rule)
    gate: GateConfig = field(default_factory=GateConfig)
    aux: AuxiliaryConfig = field(default_factory=AuxiliaryConfig)

    def __post_init__(self) -> None:
        check_after(self.after)
        if self.n_min < 0:
            raise ConfigError(f"reduce.n_min must be 0 or more, got {self.n_min}")


def check_after(after: tuple[int, ...]) -> None:
    """Raise ConfigError unless the layers rise and there is one."""
    if not after or any(layer < 1 for layer in after) or list(after) != sorted(set(after)):
        raise ConfigError(f"reduce.after must be layers in rising order, counted from 1, e.g. [6,8], got {list(after)}")


def threshold(score: Tensor, there: Tensor | None, *, factor: float, mode: ThresholdMode) -> Tensor:
    """score (B, n), there (B, n) -> (B, 1): mean + factor x population deviation over an image's tokens, or factor x mean."""
    there = torch.ones_like(score, dtype=torch.bool) if there is None else there
    count = there.sum(dim=1, keepdim=True).clamp(min=1)
    mean = score.where(there, 0).sum(dim=1, keepdim=True) / count
    if mode == "scaled_mean":
        return factor * mean
    deviation = ((score - mean).where(there, 0).square().sum(dim=1, keepdim=True) / count).sqrt()
    return mean + factor * deviation


def candidates(entropy: Tensor, relation: Tensor, there: Tensor | None, config: MATPConfig) -> Tensor:
    """entropy, relation (B, n) -> (B, n), true for tokens that may go: strictly below, so that equal scores go nowhere."""
    settled = entropy < threshold(entropy, there, factor=config.alpha, mode=config.threshold)
    alone = relation < threshold(relation, there, factor=config.beta, mode=config.threshold)
    gone = {"and": settled & alone, "entropy": settled, "relation": alone}[config.rule]
    return gone if there is None else gone & there


def with_floor(gone: Tensor, score: Tensor, there: Tensor | None, *, least: int) -> tuple[Tensor, Tensor]:
    """Candidates (B, n) of which the highest scores stay where too few tokens would, and which images that was (B,).

    An image that holds no more than `least` tokens loses none.
    """
    alive = torch.ones_like(gone) if there is None else there
    missing = (least - (alive & ~gone).sum(dim=1)).clamp(min=0)
    falling = score.masked_fill(~gone, -torch.inf).argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True)
    saved = gone & (falling < missing[:, None])
    return gone & ~saved, saved.any(dim=1)


def keep_prob(done: float | None, *, gate: GateConfig) -> float:
    """Probability that a token which is to go stays, where this share of the training's steps is done.

    bernoulli: p, always. warmup_fraction: 1 for the first share p of the steps, then 0. linear: falls from 1 to 0 over that
    share. At p = 0 every token goes that is to go; at p = 1 none does, but that linear lets them go ever more often.
    """
    if gate.mode == "bernoulli":
        return gate.p
    if done is None:
        raise ConfigError(
            f"reduce.gate.mode {gate.mode} needs to know how much of the training is done: call model(image, done=step / "
            "steps), or use reduce.gate.mode=bernoulli"
        )
    if done >= gate.p:
        return 0.0 if gate.p < 1 or gate.mode == "linear" else 1.0
    return 1.0 if gate.mode == "warmup_fraction" else 1 - done / gate.p


def gated(gone: Tensor, draws: Tensor, *, probability: float) -> Tensor:
    """Candidates (B, n) that go in spite of the gate; draws (B, n), uniform in 0..1."""
    return gone & (draws >= probability)


def warn_of_floor(hit: Tensor, *, least: int, layer: int) -> None:
    """Tell which images of a batch (B,) would have lost more tokens than they may."""
    images = hit.nonzero().flatten().tolist()
    if images and (layer, least) not in _told:  # a map has thousands of batches
        _told.add((layer, least))
        which = ", ".join(map(str, images))
        log.warning(
            "after layer %d the thresholds leave fewer than n_min = %d tokens in %d of %d images (number %s of the batch, from "
            "0); those of the highest score stay (said once for a layer)",
            layer,
            least,
            len(images),
            len(hit),
            which,
        )
