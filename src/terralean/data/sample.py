"""What a dataset yields: a dictionary of tensors with torchgeo's keys."""

from __future__ import annotations

from typing import TypedDict

from torch import Tensor


class Sample(TypedDict, total=False):
    """One image and what is known about it. Change pairs carry a leading 2: image (2, C, H, W)."""

    image: Tensor  # float32 (C, H, W), the stored units; 0 where not valid
    mask: Tensor  # int64 (H, W), class values; 255 is neither trained on nor scored
    valid: Tensor  # bool (H, W), True where the image has data
    label: Tensor  # int64 (), the class of the whole image
    bbox: Tensor  # float32 (n, 8), corners x1 y1 .. x4 y4 of oriented objects in px from the image's outer corner
    labels: Tensor  # int64 (n,), the class of each object
    difficult: Tensor  # bool (n,), True for objects that are not scored
