"""What a detector says of an image."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Detected(NamedTuple):
    """What was found in one image, best first."""

    boxes: Tensor  # (n, 5) px
    scores: Tensor  # (n,) probability of the class
    labels: Tensor  # (n,)
