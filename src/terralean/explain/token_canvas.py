"""What the figure of a part of a scene needs of the strips, in bounded memory: large parts keep every so many places."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from terralean.explain.part import FIGURE_PX
from terralean.explain.token_strips import Strip
from terralean.raster.grid import Window


class Canvas:
    """Codes, sizes and data of a window of places, filled by strips in any order."""

    def __init__(self, places: Window, *, points: int) -> None:
        self._rows = _sampled(places.row, places.height)
        self._cols = _sampled(places.col, places.width)
        shape = (points, len(self._rows), len(self._cols))
        self.codes = np.zeros(shape, np.int64)
        self.sizes = np.zeros(shape, np.uint16)
        self.data = np.zeros(shape[1:], np.bool_)

    def add(self, strip: Strip) -> None:
        """Take over what lies in the window."""
        window = strip.window
        inside = (self._rows >= window.row) & (self._rows < window.row + window.height)
        if not inside.any() or not len(strip.codes):
            return
        source = np.ix_(np.arange(len(self.codes)), self._rows[inside] - window.row, self._cols)
        self.codes[:, inside] = strip.codes[source]
        self.sizes[:, inside] = strip.sizes[source]
        self.data[inside] = strip.data[source[1][0], source[2][0]]


def _sampled(first: int, count: int) -> NDArray[np.int64]:
    """Numbers of the places that are kept of so many: evenly spread, at most as many as the figure has pixels."""
    kept = min(count, FIGURE_PX)
    return first + ((np.arange(kept) + 0.5) * count / kept).astype(np.int64)
