"""The first layer of a trained network, for other bands than those it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from terralean.spec import Bands, half_step_nm, is_spectral

RGB = ("red", "green", "blue")
MOST_LOST = 0.5  # of a network's bands: without more of them its kernels say nothing

Kinship = Literal["same", "wavelengths", "names", "unknown"]


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


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How the bands of a network come of those of a scene."""

    shares: Tensor  # (old, new): of the new bands in each old one; they sum to 1, or to 0 where nothing is known of it
    beyond: tuple[int, ...]  # new bands outside the range of the old, which count for nothing
    lost: tuple[int, ...]  # old bands outside the range of the new, which count as their mean

    def kernels(self, weight: Tensor) -> Tensor:
        """weight (O, old, h, w) -> (O, new, h, w), which gives of a scene what `weight` gives of the resampled scene."""
        return torch.einsum("oihw,ij->ojhw", weight.double(), self.shares).to(weight.dtype)


def resampling(old: Bands, new: Bands) -> Resampling | None:
    """By wavelength; None where these are not known, or the new bands cover too little of what the old ones see.

    An old band is the mean of the new ones around it, weighted by their distance to it and its neighbours, so that each new one
    takes part in the two old ones beside it; where there are fewer new ones, it lies between two of these.
    """
    if old.known_nm is None or new.known_nm is None:
        return None
    theirs, ours = (torch.tensor(nm, dtype=torch.float64) for nm in (old.known_nm, new.known_nm))
    reach = max(half_step_nm(old.known_nm), half_step_nm(new.known_nm))
    inside = _within(ours, theirs, reach=reach)
    if not inside.any() or (lost := ~_within(theirs, ours[inside], reach=reach)).double().mean() > MOST_LOST:
        return None
    parts = torch.zeros(len(old), len(new), dtype=torch.float64)
    parts[:, inside] = _between(ours[inside], theirs).T
    many = parts.sum(dim=1, keepdim=True)
    shares = torch.zeros_like(parts)
    shares[:, inside] = _between(theirs, ours[inside])
    shares = torch.where(many >= 1, parts / many.clamp(min=1), shares)
    shares[lost] = 0
    beyond, gone = ((~inside).nonzero()[:, 0].tolist(), lost.nonzero()[:, 0].tolist())
    return Resampling(shares=shares, beyond=tuple(beyond), lost=tuple(gone))


def kinship(old: Bands, new: Bands) -> Kinship:
    """By what bands of a scene are known as those of a network, "same" where they stand at its positions.

    From ten bands on wavelengths say more than names, and of fewer where no name is shared.
    """
    by_name = same_bands(old.names, new.names) if new.named and old.named else (None,) * len(new)
    many = is_spectral(old) or is_spectral(new) or not any(place is not None for place in by_name)
    if old.known_nm is not None and new.known_nm is not None and many:
        if _equal(old.known_nm, new.known_nm):
            return "same"
        return "unknown" if resampling(old, new) is None else "wavelengths"
    if len(old) == len(new):
        return "same"
    return "unknown" if None in by_name else "names"


def first_layer(model: nn.Module, *, bands: int) -> str | None:
    """Name of the weight of the first convolution, if it is one over the bands of an image, (O, bands, h, w)."""
    for name, part in model.named_modules():
        if isinstance(part, _ConvNd):
            over_bands = isinstance(part, nn.Conv2d) and part.in_channels == bands and part.groups == 1
            return f"{name}.weight" if over_bands else None
    return None


def _equal(old: Sequence[float], new: Sequence[float]) -> bool:
    """Whether bands are the same in number and order, each to half the usual step."""
    step = half_step_nm(old)
    return len(old) == len(new) and all(abs(one - other) <= step for one, other in zip(old, new, strict=True))


def _within(nm: Tensor, other: Tensor, *, reach: float) -> Tensor:
    return (nm >= other.min() - reach) & (nm <= other.max() + reach)


def _between(at: Tensor, nodes: Tensor) -> Tensor:
    """(len(at), len(nodes)): shares of the two nodes beside each place, all of the last one beyond the ends."""
    shares = torch.zeros(len(at), len(nodes), dtype=at.dtype)
    if len(nodes) == 1:
        return shares + 1
    order = nodes.argsort()
    ordered = nodes[order]
    right = torch.searchsorted(ordered, at).clamp(1, len(nodes) - 1)
    low, high = ordered[right - 1], ordered[right]
    part = ((at - low) / (high - low)).clamp(0, 1)
    rows = torch.arange(len(at))
    shares[rows, order[right - 1]] = 1 - part
    shares[rows, order[right]] = part
    return shares
