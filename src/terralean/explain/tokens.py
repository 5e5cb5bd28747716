"""What a method of token reduction does with a window: which tokens go on, or which are merged, at each of its layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terralean.errors import ConfigError
from terralean.layers.hooks import Point
from terralean.models.vit import ViTEncoder
from terralean.predict import Predictor
from terralean.tokens import Reduction


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Kept:
    """The tokens of one window at one layer."""

    layer: int  # as the method counts them, from 1
    left: int  # rows that the network goes on with, over the whole window
    codes: NDArray[np.int64]  # (h, w): 1 for a token that goes on and 0 for one that does not; or the number of its group

    @property
    def side(self) -> int:
        """Tokens along the window, at the start of the stage that the layer is in."""
        return len(self.codes)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Decisions:
    """What a method did in one window."""

    merges: bool  # tokens are put together; otherwise they are taken out
    points: tuple[Kept, ...]

    @property
    def side(self) -> int:
        """Of the finest grid of tokens."""
        return max(point.side for point in self.points)


class Tracer:
    """A predictor that can be asked what becomes of the tokens. Raises ConfigError where there is no method."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.reduce = _reduction(predictor)

    def __call__(self, image: Tensor, valid: Tensor) -> Decisions:
        """image (C, H, W) as the scene stores it, valid (H, W) -> the decisions that predicting this window takes."""
        record = self.predictor.trace(image[None], valid[None])
        if not record:
            raise ConfigError(_nothing(self.reduce))
        merges = record[0].alive is None
        return Decisions(merges=merges, points=_complete([_kept(point) for point in record], self.reduce, merges=merges))

    def stays_out(self, decisions: Decisions) -> bool:
        """Whether what is taken out at one layer is out at all later ones.

        A network with stages begins each with all tokens, and SparseViT's windows lie elsewhere in every other block.
        """
        return self.reduce.method != "sparsevit" and len({point.side for point in decisions.points}) == 1

    def side_seen(self, tile_px: int) -> int:
        """Side of what the model sees of a square window of the scene, in px."""
        return -(-tile_px // self.predictor.card.shrink)

    def token_px(self, *, seen_px: int, side: int) -> int:
        """Side of a token in px of what the model sees, where so many cover a window, the last one perhaps in part."""
        encoder = next((part for part in self.predictor.model.modules() if isinstance(part, ViTEncoder)), None)
        if encoder is not None:
            return encoder.patch_px[0]
        px = 1
        while -(-seen_px // px) > side:  # each stage of a pyramid halves the one before
            px *= 2
        return px


def _reduction(predictor: Predictor) -> Reduction:
    reduce = predictor.card.reduce
    if reduce is None:
        raise ConfigError(
            f"this run of {predictor.card.model} takes no tokens out and merges none; if its network is a LeMeViT, a Swin or a "
            "plain vision transformer, look at it with a method that needs no training, e.g. --set reduce.method=tome, or "
            "train with --set reduce.method=matp"
        )
    return reduce


def _nothing(reduce: Reduction) -> str:
    if reduce.method == "tome":
        return (
            "reduce.method=tome leaves no token merged as it is set: by sublayer all are copied back behind each one, and "
            "r = 0 merges none; look at --set reduce.method=tome --set reduce.mode=progressive"
        )
    return f"reduce.method={reduce.method} as it is set takes no token out and merges none; set its layers or shares otherwise"


def _kept(point: Point) -> Kept:
    codes = point.group if point.alive is None else point.alive
    assert codes is not None, "a point says which tokens go on, or which are together"
    grid = codes[0].to("cpu", torch.int64).numpy()
    assert grid.shape[0] == grid.shape[1], "a square window of square tokens"
    return Kept(layer=point.layer, left=int(point.left[0]), codes=grid)


def _complete(points: list[Kept], reduce: Reduction, *, merges: bool) -> tuple[Kept, ...]:
    """Layers that a network without tokens did not come to, too: there none goes on."""
    after: tuple[int, ...] = getattr(reduce, "after", ())
    missing = () if merges else sorted({*after} - {point.layer for point in points})
    nothing = np.zeros_like(points[-1].codes)
    return (*points, *(Kept(layer=layer, left=0, codes=nothing) for layer in missing))
