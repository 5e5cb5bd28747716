"""What the page says of tokens that are taken out or merged: what is left of them, and what that saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from terralean.evaluate.page import NOTHING, number, percent
from terralean.evaluate.token_cost import Left, Spread, TokenCost, spread
from terralean.tokens import Reduction

BINS = 40  # of a drawing of shares, from 0 to 1; the style sheet has their width
SAME = 5e-4  # shares that are told alike


@dataclass(frozen=True, kw_only=True, slots=True)
class Costed:
    """A run with what its windows cost."""

    name: str
    method: str  # in words
    cost: TokenCost | None  # None of a run that keeps all tokens
    windows_per_s: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenSection:
    """A part of the page."""

    runs: tuple[Mapping[str, str], ...]  # name, method, operations, range, dense, share, left, after, speed
    shares: tuple[Mapping[str, object], ...]  # of the first run that has a method: name, value, range, bars, mean
    of: str  # whose shares these are
    counted: str  # on which windows, one sentence


def section(runs: Sequence[Costed]) -> TokenSection | None:
    """What runs cost; None where none of them takes tokens out or merges them."""
    reduced = [(run, run.cost) for run in runs if run.cost is not None]
    if not reduced:
        return None
    first, cost = reduced[0]
    return TokenSection(
        runs=tuple(_row(run) for run in runs), shares=tuple(_shares(cost)), of=first.name, counted=counted_words(cost)
    )


def sentence(cost: TokenCost | None, *, reduce: Reduction | None) -> str:
    """What a method takes of the operations that the network takes without it; nothing where there is none."""
    if cost is None or reduce is None:
        return ""
    found = spread(_of_dense(cost))
    most = "" if _constant(found) else f" (90 % of windows: {number(found.p5)} to {percent(found.p95)})"
    return f"With {reduce.method} a window takes {percent(found.mean)} of the operations of the same network without it{most}."


def cells(cost: TokenCost | None) -> dict[str, str]:
    """Operations, and tokens left after the last layer that the method acts at, in a row of a table."""
    if cost is None:
        return {"operations": NOTHING, "share": NOTHING, "left": NOTHING, "after": ""}
    last = cost.left[-1] if cost.left else None
    return {
        "operations": f"{np.mean(cost.operations) / 1e9:.4g}",
        "share": number(cost.share),
        "left": NOTHING if last is None else number(spread(last.shares).mean),
        "after": "" if last is None else f"after layer {last.layer}",
    }


def counted_words(cost: TokenCost) -> str:
    """Which windows were counted."""
    count = len(cost.operations)
    which = "all of them that hold data" if cost.complete else "spread evenly over the test area"
    return f"Counted on {count} window{'' if count == 1 else 's'}, {which}, each alone."


def _row(run: Costed) -> dict[str, str]:
    found = None if run.cost is None else spread([one / 1e9 for one in run.cost.operations])
    ends = "" if found is None or found.p5 == found.p95 else f"{found.p5:.4g} to {found.p95:.4g}"
    return cells(run.cost) | {
        "name": run.name,
        "method": run.method,
        "range": ends,
        "dense": NOTHING if run.cost is None else f"{run.cost.dense_operations / 1e9:.4g}",
        "speed": NOTHING if run.windows_per_s is None else f"{run.windows_per_s:.3g}",
    }


def _shares(cost: TokenCost) -> list[dict[str, object]]:
    """Tokens left after each layer, and operations, with how windows differ."""
    named = [(f"Tokens left after layer {left.layer}", left) for left in cost.left]
    return [_share(name, left.shares) for name, left in _told(named)] + [_share("Operations", _of_dense(cost))]


def _told(named: list[tuple[str, Left]]) -> list[tuple[str, Left]]:
    """Layers but those that leave every window the same share as the layer before."""
    return named[:1] + [one for before, one in pairwise(named) if before[1].shares != one[1].shares]


def _share(name: str, shares: Sequence[float]) -> dict[str, object]:
    found = spread(shares)
    counts = np.histogram(np.minimum(shares, 1), bins=BINS, range=(0, 1))[0]
    return {
        "name": name,
        "value": percent(found.mean),
        "range": "in every window" if _constant(found) else f"{number(found.p5)} to {percent(found.p95)}",
        "bars": [(100 * i / BINS, round(float(100 * count / counts.max()), 1)) for i, count in enumerate(counts) if count],
        "mean": round(100 * min(found.mean, 1), 2),
    }


def _constant(found: Spread) -> bool:
    return found.p95 - found.p5 < SAME


def _of_dense(cost: TokenCost) -> list[float]:
    return [one / cost.dense_operations for one in cost.operations]
