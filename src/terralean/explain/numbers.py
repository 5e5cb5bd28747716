"""What a few numbers say of attention maps: how even they are, how much of the image they cover, how alike they are.

A map is a distribution: its weights over the n places of a window sum to one. Numbers of a scene are means over its windows,
each counted by its places with data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROUNDING = 1e-9  # of a sum of weights


@dataclass(frozen=True, kw_only=True, slots=True)
class MapNumbers:
    """One map: that of a meta token, the mean of the heads, or that of a head, the mean of the tokens."""

    number: int  # of the token or head
    entropy_bits: float
    entropy_share: float  # of the highest there can be, log2 n: 1 where the map is the same everywhere
    half: float  # smallest share of the image that holds half of the weight
    ninety: float  # the same for nine tenths
    read: float | None  # mean share of what the image reads that is from this token; None where meta tokens read the image
    closest: int | None  # number of the most similar map; None where there is no other
    cosine: float | None  # of the two maps: 1 where they are alike, 0 where they do not overlap


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockNumbers:
    """The maps of one block."""

    stage: int
    block: int
    by: str  # what has a map: token or head
    grid: int  # places along a side of a window
    distinct: float  # 1 where all maps are alike, their number where none overlap; see `distinct`
    averaged: int  # how many heads, or tokens, each map is the mean of
    distinct_averaged: float | None  # how many different maps these have, over all tokens or heads; None where it is one
    without_data: float | None  # share of the weight that lies on places without data; None where the image reads
    maps: tuple[MapNumbers, ...]
    cosine: tuple[tuple[float, ...], ...]  # of every two maps


def entropy_bits(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """maps (..., n) -> entropy in bits, from 0 for a single place to log2 n for even weights."""
    logs = np.log2(maps, out=np.zeros_like(maps), where=maps > 0)
    return -(maps * logs).sum(axis=-1) + 0.0  # not -0


def coverage(maps: NDArray[np.float64], *, weight: float) -> NDArray[np.float64]:
    """maps (..., n) -> the smallest share of the n places that holds so much of the weight."""
    held = np.cumsum(-np.sort(-maps, axis=-1), axis=-1)
    places = (held < weight - ROUNDING).sum(axis=-1) + 1
    return np.minimum(places, maps.shape[-1]) / maps.shape[-1]


def cosines(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """maps (K, n) -> (K, K)."""
    unit = maps / np.linalg.norm(maps, axis=1, keepdims=True)
    return np.minimum(unit @ unit.T, 1.0)


def distinct(cosine: NDArray[np.float64]) -> float:
    """How many different maps there are: K^2 over the sum of squared cosines (K, K), 1 to K."""
    return float(len(cosine) ** 2 / (cosine**2).sum())


class Tally:
    """Means over windows of the numbers of one block."""

    def __init__(self) -> None:
        self._places = 0
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._averaged, self._grid = 0, 0

    def add(self, weights: NDArray[np.float64], valid: NDArray[np.bool_], *, of_places: bool) -> None:
        """weights (averaged, maps, h, w) of one window, valid (h, w) with at least one place.

        `of_places`: they sum to one over all places (meta tokens read the image); otherwise those of a place do over all
        tokens, chosen or not (it reads them). Places without data are left out of the maps.
        """
        known = weights[:, :, valid]
        averaged, count, places = known.shape
        maps = normalised(known.mean(axis=0))
        found = {
            "bits": entropy_bits(maps),
            "share": entropy_bits(maps) / np.log2(places) if places > 1 else np.ones(count),
            "half": coverage(maps, weight=0.5),
            "ninety": coverage(maps, weight=0.9),
            "cosine": cosines(maps),
            "averaged": cosines(known.reshape(averaged, -1)),
            "read": np.full(count, np.nan) if of_places else known.mean(axis=(0, 2)),
            "outside": np.array(weights[:, :, ~valid].sum() / weights.sum() if of_places else np.nan),
        }
        self._sums = {name: self._sums.get(name, 0.0) + places * value for name, value in found.items()}
        self._places += places
        self._averaged, self._grid = averaged, valid.shape[0]

    def numbers(self, *, stage: int, block: int, by: str, maps: Sequence[int]) -> BlockNumbers:
        """The means; `maps` are the numbers of the tokens or heads."""
        mean = {name: total / self._places for name, total in self._sums.items()}
        return BlockNumbers(
            stage=stage,
            block=block,
            by=by,
            grid=self._grid,
            distinct=_short(distinct(mean["cosine"])),
            averaged=self._averaged,
            distinct_averaged=_short(distinct(mean["averaged"])) if self._averaged > 1 else None,
            without_data=_known(mean["outside"]),
            maps=tuple(_map(place, mean, maps) for place in range(len(maps))),
            cosine=tuple(tuple(_short(value) for value in row) for row in mean["cosine"]),
        )


def normalised(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (..., n) as shares of their sum; even shares where there is none."""
    total = weights.sum(axis=-1, keepdims=True)
    return np.divide(weights, total, out=np.full(weights.shape, 1 / weights.shape[-1]), where=total > 0)


def alike(cosine: NDArray[np.float64], *, least: float) -> list[list[int]]:
    """Positions in groups: each joins the first group whose first member is at least so similar, else begins one."""
    groups: list[list[int]] = []
    for place in range(len(cosine)):
        group = next((group for group in groups if cosine[group[0], place] >= least), None)
        if group is None:
            groups.append([place])
        else:
            group.append(place)
    return groups


def percent(share: float) -> str:
    """A share with two figures."""
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"  # noqa: PLR2004 - below, a decimal


def _map(place: int, mean: dict[str, NDArray[np.float64]], maps: Sequence[int]) -> MapNumbers:
    others = mean["cosine"][place].copy()
    others[place] = -1
    nearest = int(others.argmax()) if len(maps) > 1 else None
    return MapNumbers(
        number=maps[place],
        entropy_bits=_short(mean["bits"][place]),
        entropy_share=_short(mean["share"][place]),
        half=_short(mean["half"][place]),
        ninety=_short(mean["ninety"][place]),
        read=_known(mean["read"][place]),
        closest=None if nearest is None else maps[nearest],
        cosine=None if nearest is None else _short(others[nearest]),
    )


def _known(value: NDArray[np.float64] | np.floating) -> float | None:
    return None if np.isnan(value) else _short(value)


def _short(value: float | NDArray[np.float64] | np.floating) -> float:
    return round(float(value), 6)
