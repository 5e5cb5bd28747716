"""What windows of the test area cost a run that takes tokens out or merges them.

With such a method the cost depends on what a window shows: operations, multiply-adds and tokens left are told as mean, 5th and
95th percentile over windows, beside what the same network takes without it, which is the same for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

LOW, HIGH = 5, 95  # percentiles
DIGITS = 6  # of shares in a file


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """Tokens that a layer leaves."""

    layer: int  # from 1
    shares: tuple[float, ...]  # of all tokens of each window, those of places without data included


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenCost:
    """What windows cost, each counted alone; several windows of one or more runs."""

    operations: tuple[int, ...]  # of each window, as segmentation papers count: `terralean.cost.convention`
    macs: tuple[int, ...]  # of these, multiply-adds
    left: tuple[Left, ...]  # in order of layers
    dense_operations: int  # of a window in the same network without the method
    dense_macs: int
    complete: bool  # whether these are all windows that hold data

    @property
    def share(self) -> float:
        """Operations, of those without the method: mean over windows."""
        return float(np.mean(self.operations)) / self.dense_operations


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """How much windows differ."""

    mean: float
    p5: float
    p95: float


def spread(values: Sequence[float]) -> Spread:
    """Mean and percentiles of some values."""
    low, high = np.percentile(values, (LOW, HIGH))
    return Spread(mean=float(np.mean(values)), p5=float(low), p95=float(high))


def pooled(costs: Iterable[TokenCost | None]) -> TokenCost | None:
    """The windows of runs with several seeds together; None where they take no tokens out."""
    known = [cost for cost in costs if cost is not None]
    if not known:
        return None
    return replace(
        known[0],
        operations=tuple(chain.from_iterable(cost.operations for cost in known)),
        macs=tuple(chain.from_iterable(cost.macs for cost in known)),
        left=tuple(
            Left(layer=same[0].layer, shares=tuple(chain.from_iterable(left.shares for left in same)))
            for same in zip(*(cost.left for cost in known), strict=True)
        ),
        complete=all(cost.complete for cost in known),
    )


def document(cost: TokenCost) -> dict[str, Any]:
    """For a JSON file.

    `windows` were counted, all that hold data where `all_windows` is true, else some that are spread evenly over them.
    `operations` (as segmentation papers count, norms and resizing included) and `macs` (multiply-adds alone) are of one window,
    `dense` being those of the network without the method; `left` are the tokens after each layer that the method acts at, as
    shares of all tokens of a window.
    """
    return {
        "windows": len(cost.operations),
        "all_windows": cost.complete,
        "operations": {**_whole(cost.operations), "dense": cost.dense_operations},
        "macs": {**_whole(cost.macs), "dense": cost.dense_macs},
        "left": [{"layer": left.layer, **_shares(left.shares)} for left in cost.left],
    }


def key(cost: TokenCost | None) -> dict[str, Any]:
    """`document` under its name in a larger one; nothing where no tokens are taken out."""
    return {} if cost is None else {"reduction": document(cost)}


def _whole(values: Sequence[int]) -> dict[str, int]:
    found = spread(values)
    return {"mean": round(found.mean), "p5": round(found.p5), "p95": round(found.p95)}


def _shares(values: Sequence[float]) -> dict[str, float]:
    found = spread(values)
    return {"mean": round(found.mean, DIGITS), "p5": round(found.p5, DIGITS), "p95": round(found.p95, DIGITS)}
