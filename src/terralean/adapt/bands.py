"""The first layer of a trained network, for other bands than those it was trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

RGB = ("red", "green", "blue")


def kernels_for(weight: Tensor, *, source: Sequence[int | None]) -> Tensor:
    """weight (O, C, h, w) -> (O, len(source), h, w): of each new band the kernel of the old band at that position, or of none
    of them (None) the mean of all.

    All are scaled by C / len(source): the sum over the bands, and with it what a grey image gives, stays near what it was.
    """
    mean = weight.mean(dim=1)
    kernels = [mean if place is None else weight[:, place] for place in source]
    return torch.stack(kernels, dim=1) * (weight.shape[1] / len(kernels))


def same_bands(stored: Sequence[str], wanted: Sequence[str]) -> tuple[int | None, ...]:
    """For each wanted name its position among the stored ones, None where it is not there. Case does not count."""
    places = {name.casefold(): place for place, name in enumerate(stored)}
    return tuple(places.get(name.casefold()) for name in wanted)
