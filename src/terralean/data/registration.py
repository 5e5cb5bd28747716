"""By how much one date lies off another: phase correlation of their edges.

Kuglin and Hines, "The Phase Correlation Image Alignment Method", 1975, on gradient magnitudes, which seasons and light change
less than they change values.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

SMOOTH_PX = 1.0  # scale of the edges that are compared
SURE = 8.0  # height of a peak, in standard deviations: that of unrelated images of 512 px is below 6
NEAR_PX = 5  # around a peak, that is the same peak
CLEAR = 0.6  # of its height that another peak has at most; rows of like houses have several
LEAST_PX = 32  # side of a window below which nothing is said


@dataclass(frozen=True, kw_only=True, slots=True)
class Shift:
    """Where the later date has what the earlier has at 0, in px, and how far the peak stands out."""

    down: float
    across: float
    height: float
    second: float  # height of the next peak, as a share

    @property
    def px(self) -> float:
        """Length."""
        return hypot(self.down, self.across)

    @property
    def sure(self) -> bool:
        """Whether the dates show enough in common to tell."""
        return self.height > SURE and self.second < CLEAR


def find_shift(before: NDArray, after: NDArray, valid: NDArray[np.bool_]) -> Shift | None:
    """Of dates (C, h, w) with valid (h, w); None where they are too small, or hardly hold data."""
    if min(valid.shape) < LEAST_PX or valid.mean() < 0.5:  # noqa: PLR2004 - the edge of the data would be what is compared
        return None
    first, second = (fft.rfft2(_edges(date, valid)) for date in (before, after))
    product = np.conj(first) * second
    with np.errstate(divide="ignore", invalid="ignore"):
        peaks = fft.irfft2(np.nan_to_num(product / np.abs(product)), s=valid.shape)
    row, col = np.unravel_index(int(peaks.argmax()), peaks.shape)
    height = float((peaks[row, col] - peaks.mean()) / max(peaks.std(), np.finfo(float).tiny))
    down = _signed(int(row), peaks.shape[0]) + _between(peaks[:, col], int(row))
    across = _signed(int(col), peaks.shape[1]) + _between(peaks[row], int(col))
    rest = np.roll(peaks, (NEAR_PX - row, NEAR_PX - col), axis=(0, 1))
    rest[: 2 * NEAR_PX + 1, : 2 * NEAR_PX + 1] = 0
    return Shift(down=down, across=across, height=height, second=float(rest.max() / peaks[row, col]))


def _edges(date: NDArray, valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Gradient magnitudes, fading out towards the border and where nothing is valid."""
    grey = np.where(valid, date.astype(np.float64), date[:, valid].mean(axis=1)[:, None, None]).mean(axis=0)
    edges = ndimage.gaussian_gradient_magnitude(grey, SMOOTH_PX)
    known = ndimage.binary_erosion(valid, iterations=3, border_value=1)
    window = np.hanning(valid.shape[0])[:, None] * np.hanning(valid.shape[1])[None, :] * known
    return (edges - edges[known].mean() if known.any() else edges) * window


def _signed(place: int, length: int) -> int:
    return place - length if place > length // 2 else place


def _between(line: NDArray[np.float64], place: int) -> float:
    """Where between pixels the peak of a line lies: between the highest and its higher neighbour, by their shares."""
    left, middle, right = (max(float(line[(place + step) % len(line)]), 0.0) for step in (-1, 0, 1))
    if middle <= 0:
        return 0.0
    return right / (right + middle) if right > left else -left / (left + middle)
