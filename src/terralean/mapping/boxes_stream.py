"""Boxes of rows of windows, one row after the other, merged as soon as no later window can have a say in them.

The result is that of `boxes.merge` of all at once: boxes of one class whose hulls meet, over any number of steps, are settled
together, and only when no later window can find one that meets them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from terralean.boxes.form import hull
from terralean.boxes.merge import MergeConfig, Merged, merge, reaches_border
from terralean.boxes.near import apart, near
from terralean.raster.grid import Grid


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """Boxes in px of a scene, and the windows that they were found in."""

    boxes: NDArray[np.float64]  # (n, 5)
    scores: NDArray[np.float64]  # (n,)
    labels: NDArray[np.int64]  # (n,)
    windows: NDArray[np.float64]  # (n, 4) left, top, right, bottom

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, which: NDArray[np.bool_]) -> Found:
        """Some of them."""
        return Found(**{field.name: getattr(self, field.name)[which] for field in fields(self)})

    @classmethod
    def joined(cls, *parts: Found) -> Found:
        """All of several."""
        return cls(**{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)})


NOTHING = Found(boxes=np.zeros((0, 5)), scores=np.zeros(0), labels=np.zeros(0, dtype=np.int64), windows=np.zeros((0, 4)))


class Stream:
    """Boxes that wait until they are settled."""

    def __init__(self, grid: Grid, *, config: MergeConfig, reach_px: float) -> None:
        """`reach_px`: no box reaches further out of its window, as `within_reach` makes sure."""
        self.grid, self.config, self.reach_px = grid, config, reach_px
        self._waiting = NOTHING

    def add(self, found: Found) -> None:
        """Those of another row of windows."""
        self._waiting = Found.joined(self._waiting, found)

    def settled(self, *, next_row: int | None) -> Merged | None:
        """What no window that begins in this row of the scene or below can change, None for all that is left; merged."""
        if not len(self._waiting):
            return None
        done = np.ones(len(self._waiting), dtype=bool)
        if next_row is not None:
            done = self._bottoms() < next_row - self.reach_px
        ready, self._waiting = self._waiting.of(done), self._waiting.of(~done)
        if not len(ready):
            return None
        boxes, scores, labels, windows = (
            torch.from_numpy(some) for some in (ready.boxes, ready.scores, ready.labels, ready.windows)
        )
        size = {"width": self.grid.width, "height": self.grid.height}
        return merge(boxes, scores, labels, windows, **size, config=self.config)

    def _bottoms(self) -> NDArray[np.float64]:
        """How far down (n,) all that is merged together with each box may reach."""
        found = self._waiting
        boxes, labels = torch.from_numpy(found.boxes), torch.from_numpy(found.labels)
        windows, border = torch.from_numpy(found.windows), self.config.border_px
        part = reaches_border(boxes, windows, width=self.grid.width, height=self.grid.height, border_px=border)
        hulls = _around(hull(boxes), _meeting(hull(boxes), labels), part.numpy())
        group = _meeting(hulls, labels)
        bottom = np.full(group.max() + 1, -np.inf)
        np.maximum.at(bottom, group, hulls[:, 3].numpy())
        return bottom[group]


def within_reach(found: Found, *, reach_px: float) -> Found:
    """Those that reach no further than so far out of the window that they were found in: further ones are no objects seen."""
    low, high = hull(torch.from_numpy(found.boxes)).split(2, dim=1)
    windows = torch.from_numpy(found.windows)
    inside = (low >= windows[:, :2] - reach_px) & (high <= windows[:, 2:] + reach_px)
    return found.of(inside.all(dim=1).numpy())


def _meeting(hulls: Tensor, labels: Tensor) -> NDArray[np.int64]:
    """Number (n,) of the group of hulls (n, 4) of one label that meet, over any number of steps."""
    by_label = apart(hulls, labels)
    pairs = [(i.numpy(), j.numpy()) for i, j in near(by_label, by_label)]
    rows, cols = (np.concatenate([pair[side] for pair in pairs] or [np.zeros(0, int)]) for side in (0, 1))
    graph = coo_array((np.ones(len(rows), dtype=bool), (rows, cols)), shape=(len(hulls), len(hulls)))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def _around(hulls: Tensor, group: NDArray[np.int64], part: NDArray[np.bool_]) -> Tensor:
    """Hulls (n, 4); of a group with a part of an object, all that a rectangle round the group can reach.

    No side of the smallest rectangle round points is longer than they lie apart, and each side has a point on it.
    """
    count = int(group.max()) + 1
    low, high = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
    np.minimum.at(low, group, hulls[:, :2].numpy())
    np.maximum.at(high, group, hulls[:, 2:].numpy())
    has_part = np.zeros(count, dtype=bool)
    has_part[group[part]] = True
    more = np.linalg.norm(high - low, axis=1, keepdims=True)
    larger = torch.from_numpy(np.concatenate([low - more, high + more], axis=1)[group])
    return torch.where(torch.from_numpy(has_part[group])[:, None], larger, hulls)
