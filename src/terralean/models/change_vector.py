"""Change vector analysis: a pixel has changed where its values have moved far, the threshold being Otsu's.

Malila, "Change Vector Analysis: An Approach for Detecting Forest Changes with Landsat", 1980; Otsu, "A Threshold Selection
Method from Gray-Level Histograms", IEEE Trans. SMC 1979. Nothing is learned from labels.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from terralean.errors import ConfigError
from terralean.models.bit import DATES, bands_of_date, by_date


class ChangeVector(nn.Module):
    """A pair (B, 2, C, H, W) or (B, 2 C, H, W), normalised -> scores (B, 2, H, W), class 1 = changed.

    The difference of the scores is `slope` times what a pixel's change vector is longer than the threshold. Has no parameters:
    it is fitted, not trained by gradients.
    """

    threshold: Tensor  # (), of the length of a change vector, standard deviations
    slope: Tensor  # (), of the log odds of change with that length

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("threshold", torch.zeros(()))
        self.register_buffer("slope", torch.ones(()))

    def forward(self, image: Tensor) -> Tensor:
        """Log odds of change, for any H and W."""
        odds = self.slope * (lengths(image) - self.threshold)
        return torch.stack([-odds / 2, odds / 2], dim=1)


def lengths(image: Tensor) -> Tensor:
    """Length (B, H, W) of the change vector of each pixel: the root of the mean square of the differences of its bands."""
    before, after = by_date(image).chunk(DATES)
    return (after - before).square().mean(dim=1).sqrt()


def otsu(counts: NDArray[np.int64]) -> int:
    """The bin of a histogram above which the upper class begins: the largest variance between the two classes.

    Of several bins that are equally good, as between two heaps with nothing between them, the middle one.
    """
    total = counts.sum()
    below = np.cumsum(counts)[:-1].astype(np.float64)
    sums = np.cumsum(counts * np.arange(len(counts)))[:-1].astype(np.float64)
    above, mean = total - below, float((counts * np.arange(len(counts))).sum() / max(total, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = np.nan_to_num((mean * below - sums) ** 2 / (below * above), nan=0.0, posinf=0.0)
    if not between.max() > 0:
        raise ConfigError("all change vectors are of one length: there is nothing to tell change by; check the pairs")
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))
    return int(best[len(best) // 2])


def change_vector(*, bands: int, classes: int) -> ChangeVector:
    """One that has not been fitted yet."""
    bands_of_date(bands)
    if classes != 2:  # noqa: PLR2004 - unchanged and changed
        raise ConfigError(f"change vector analysis tells changed from unchanged, two classes, got {classes}")
    return ChangeVector()
