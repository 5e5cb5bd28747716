"""How many tokens are left at each layer, window by window and over the scene.

Shares are of the tokens that hold data: at a scene's edge windows reach past it, and what a method does with emptiness says
nothing of the scene. A group of merged tokens counts if one of its members holds data. Over a scene every token with data
counts once in its window, so that a window that is nearly empty has little to say.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terralean.explain.tokens import Decisions, Kept

ROUNDING = 1e-9  # of a share of counts


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowNumbers:
    """One layer in one window."""

    row: int  # of the window's first pixel in the scene
    col: int
    layer: int
    tokens: int  # that the window has
    left: int  # of them, or groups of them, that the network goes on with
    tokens_with_data: int
    left_with_data: int
    share: float  # of the two that hold data


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerNumbers:
    """One layer over all windows."""

    layer: int
    grid: int  # tokens along a side of a window
    left: float  # tokens that the network goes on with, mean over windows
    share: float  # of tokens with data that are left, mean
    p5: float  # of the shares of windows
    p95: float


class TokenTally:
    """Numbers of all windows. What is held grows with the number of different shares, not with that of windows."""

    def __init__(self) -> None:
        self._layers: tuple[tuple[int, int], ...] = ()  # layer and grid
        self._shares: list[Counter[float]] = []
        self._left: list[int] = []
        self.windows = 0
        self.in_part = 0  # windows that hold places without data

    def add(self, decisions: Decisions, data: NDArray[np.bool_], *, row: int, col: int) -> list[WindowNumbers]:
        """Count a window, data (side, side) of its finest tokens; its numbers by layer."""
        if not self.windows:
            self._layers = tuple((point.layer, point.side) for point in decisions.points)
            self._shares = [Counter() for _ in self._layers]
            self._left = [0] * len(self._layers)
        self.windows += 1
        self.in_part += not data.all()
        found = [_numbers(point, data, merges=decisions.merges, row=row, col=col) for point in decisions.points]
        for place, one in enumerate(found):
            self._shares[place][one.share] += one.tokens_with_data
            self._left[place] += one.left
        return found

    def layers(self) -> tuple[LayerNumbers, ...]:
        """Over all windows so far."""
        return tuple(
            LayerNumbers(
                layer=layer,
                grid=grid,
                left=round(self._left[place] / self.windows, 2),
                share=round(_mean(self._shares[place]), 6),
                p5=quantile(self._shares[place], 0.05),
                p95=quantile(self._shares[place], 0.95),
            )
            for place, (layer, grid) in enumerate(self._layers)
        )


def quantile(shares: Counter[float], q: float) -> float:
    """The smallest share that at least q of all counts have or are below."""
    below = 0.0
    for share in sorted(shares):
        below += shares[share]
        if below >= q * shares.total() - ROUNDING:
            return share
    return max(shares)


def _mean(shares: Counter[float]) -> float:
    return sum(share * count for share, count in shares.items()) / shares.total()


def _numbers(point: Kept, data: NDArray[np.bool_], *, merges: bool, row: int, col: int) -> WindowNumbers:
    times = len(data) // point.side
    known = data.reshape(point.side, times, point.side, times).any(axis=(1, 3))
    # Groups that no token stands in (clusters that are nearest to none) are left all the same.
    without = len(np.setdiff1d(point.codes[~known], point.codes[known]))
    left = point.left - without if merges else int(point.codes[known].sum())
    return WindowNumbers(
        row=row,
        col=col,
        layer=point.layer,
        tokens=point.side**2,
        left=point.left,
        tokens_with_data=int(known.sum()),
        left_with_data=left,
        share=round(left / int(known.sum()), 6),
    )
