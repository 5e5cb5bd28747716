"""A fixed number of tokens stays, those with the highest rank: the form of token pruning that has static shapes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from terralean.errors import ConfigError
from terralean.tokens.matp import AuxiliaryConfig, RelationSource, check_after
from terralean.tokens.scores import EntropySource, ranks

By = Literal["relation", "entropy", "both"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TopKConfig:
    """How many tokens stay, and by what. One of `shares` and `counts` is given.

    By relation alone it needs no parameters, so that any trained network can be used with it; by entropy or both it has MATP's
    auxiliary heads and can be given the weights of a network trained with MATP.
    """

    method: Literal["topk"] = "topk"
    after: tuple[int, ...] = (6, 8)  # layers
    shares: tuple[float, ...] = ()  # of the tokens that reach a point, how many stay, one share a point
    counts: tuple[int, ...] = ()  # tokens left after each point
    by: By = "relation"
    entropy_source: EntropySource = "sigmoid_norm"
    relation_source: RelationSource = "self_attn"
    exclude_self: bool = False
    aux: AuxiliaryConfig = field(default_factory=AuxiliaryConfig)

    def __post_init__(self) -> None:
        check_after(self.after)
        if bool(self.shares) == bool(self.counts):
            raise ConfigError("reduce of topk takes either shares or counts, one for each point; give one of the two")
        given = self.shares or self.counts
        if len(given) != len(self.after):
            raise ConfigError(f"reduce of topk: {list(given)} must have a number for each of the layers {list(self.after)}")
        if not all(0 < share <= 1 for share in self.shares):
            raise ConfigError(f"reduce.shares of topk must be above 0 up to 1, got {list(self.shares)}")
        if any(count < 1 for count in self.counts) or list(self.counts) != sorted(self.counts, reverse=True):
            raise ConfigError(f"reduce.counts of topk must be above 0 and not rise, got {list(self.counts)}")


def how_many(config: TopKConfig, *, tokens: int) -> list[int]:
    """Tokens that stay after each point, of an image with so many: at least one, at most all that reach it."""
    left = []
    for given in config.counts or config.shares:
        wanted = given if config.counts else round(given * tokens)
        tokens = min(max(1, int(wanted)), tokens)
        left.append(tokens)
    return left


def combined_rank(entropy: Tensor | None, relation: Tensor | None, there: Tensor | None) -> Tensor:
    """The better of a token's two ranks, (B, n): as with MATP's rule, one high score is enough to stay.

    Of equal ones that with the better other rank is before. Not published; chosen here.
    """
    found = [ranks(score, there) for score in (entropy, relation) if score is not None]
    if len(found) == 1:
        return found[0]
    return torch.maximum(*found) * found[0].shape[1] + torch.minimum(*found)


def keep_best(rank: Tensor, there: Tensor | None, *, most: int) -> Tensor:
    """(B, n), true for the `most` tokens of the highest rank; equal ranks by position, the first ones stay."""
    rank = rank if there is None else rank.masked_fill(~there, -1)
    order = rank.argsort(dim=1, descending=True, stable=True)
    chosen = torch.zeros_like(rank, dtype=torch.bool).scatter(1, order[:, :most], value=True)
    return chosen if there is None else chosen & there
