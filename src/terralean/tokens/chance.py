"""Tokens taken out by chance: what any other method has to beat at the same cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from terralean.errors import ConfigError
from terralean.tokens.matp import check_after


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomConfig:
    """How many tokens stay, which ones being chance. One of `shares` and `images` is given.

    In use an image's tokens are drawn from a generator that is seeded by its values, so that they do not depend on the batch;
    in training anew each time.
    """

    method: Literal["random"] = "random"
    after: tuple[int, ...] = (6, 8)  # layers
    shares: tuple[float, ...] = ()  # of the tokens that reach a point, how many stay, one share a point
    # Each line the share of all its tokens that some image had left after each point, as another method left them; a line is
    # drawn for every image. Shares may rise where a network brings tokens back, as Swin does between stages.
    images: tuple[tuple[float, ...], ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        check_after(self.after)
        if bool(self.shares) == bool(self.images):
            raise ConfigError("reduce of random takes either shares (one a point) or images (a line of shares each); give one")
        for line in (self.shares,) if self.shares else self.images:
            if len(line) != len(self.after):
                raise ConfigError(f"reduce of random: {list(line)} must have a share for each of the layers {list(self.after)}")
            if not all(0 <= share <= 1 for share in line):
                raise ConfigError(f"reduce of random: shares must be 0 to 1, got {list(line)}")


def generators(seeds: Sequence[int], *, seed: int) -> list[torch.Generator]:
    """One an image, seeded by its number and that of the method."""
    return [torch.Generator().manual_seed((own * 1_000_003 + seed) % 2**63) for own in seeds]


def counts_of_shares(alive: Tensor, share: float) -> Tensor:
    """Tokens that stay of those that reach a point, (B,) -> (B,), rounded to the nearest."""
    return (alive * share).round().long()


def draw_line(images: Sequence[Sequence[float]], generator: torch.Generator) -> Sequence[float]:
    """One of the lines."""
    return images[int(torch.randint(len(images), (), generator=generator))]


def draw(drawn: Sequence[torch.Generator], *, tokens: int) -> Tensor:
    """A number for each token of each image, (B, tokens), uniform in 0..1."""
    return torch.stack([torch.rand(tokens, generator=g) for g in drawn])


def keep_random(draws: Tensor, there: Tensor | None, counts: Tensor) -> Tensor:
    """draws (B, n), there (B, n), counts (B,) -> (B, n), true for so many tokens, those with the lowest numbers.

    Exactly `counts` of each image, or all it has where these are fewer; every set of that size is as likely.
    """
    if there is not None:
        draws = draws.masked_fill(~there, 2)  # after all others
    order = draws.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    chosen = order < counts[:, None]
    return chosen if there is None else chosen & there
