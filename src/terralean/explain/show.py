"""What `explain` shows of a run: its tokens, or where its meta tokens look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from terralean.errors import ConfigError
from terralean.explain.attention import has_meta_tokens
from terralean.predict import Predictor
from terralean.tokens import OrOwn

Show = Literal["tokens", "attention"]


def what_to_show(predictor: Predictor, *, show: Show | None, asked: Sequence[str], reduce: OrOwn) -> Show:
    """The wish, or where there is none: tokens if the model takes some out or merges them, else attention.

    `asked` are options that were given of attention alone; `reduce` is the method that was given for the tokens. Raises
    ConfigError where these do not go together, and where the run has neither.
    """
    method = None if reduce is None or reduce == "own" else reduce.method
    if asked and show == "tokens":
        raise ConfigError(f"{_and(asked)}: only meta tokens have that; leave it out, or say --show attention")
    if asked and method is not None and show is None:
        raise ConfigError(f"{_and(asked)} is of meta tokens, reduce.method={method} of those of the image; give one of them")
    if show == "attention" and method is not None:
        raise ConfigError(f"reduce.method={method} does not change where meta tokens look; leave it out, or say --show tokens")
    if show is not None or asked:
        return show or "attention"
    if predictor.card.reduce is not None:
        return "tokens"
    if not has_meta_tokens(predictor.model):
        raise ConfigError(_neither(predictor.card.model))
    return "attention"


def _neither(model: str) -> str:
    return (
        f"{model} has nothing that can be shown: it takes no tokens out and merges none, and it has no meta tokens whose "
        "attention could be seen. A plain vision transformer, Swin or LeMeViT shows its tokens with --set reduce.method=tome, "
        "or as it was trained with reduce.method=matp; a LeMeViT, for instance lemevit_tiny_light, shows its attention"
    )


def _and(options: Sequence[str]) -> str:
    return " and ".join(options)
