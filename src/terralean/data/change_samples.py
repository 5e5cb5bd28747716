"""Training pairs: crops with dates exchanged at random, and datasets that yield torchgeo's dictionaries of two dates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from terralean.data.change_config import CHANGED
from terralean.data.crops import Crops
from terralean.data.sample import Sample
from terralean.data.samples import Indexed, SampleCrops, Samples, from_samples, queries_of
from terralean.errors import DatasetError
from terralean.spec import Bands, Normalisation

DATES = 2
TWO_IMAGES = (("image1", "image2"), ("image_a", "image_b"))  # keys of datasets that do not stack the dates


class PairCrops(Dataset[Sample]):
    """Crops of pairs, every other one with its dates exchanged: the same for the same seed, epoch and index.

    Geometry is drawn for both dates together, brightness and contrast for each band of each date, by the crops themselves.
    """

    def __init__(self, crops: Crops | SampleCrops, *, swap: bool) -> None:
        self.crops, self.swap = crops, swap
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers that outlive an epoch see it change

    def set_epoch(self, epoch: int) -> None:
        """Another epoch has other crops."""
        self._epoch.fill_(epoch)
        self.crops.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: int) -> Sample:
        sample = self.crops[index]
        if not self.swap:
            return sample
        draw = np.random.default_rng([self.crops.seed, int(self._epoch), index, DATES]).random()
        return exchanged(sample) if draw < 1 / DATES else sample


def exchanged(sample: Sample) -> Sample:
    """The later date first. Its own inverse."""
    out = sample.copy()
    out["image"] = torch.cat(sample["image"].chunk(DATES)[::-1])
    return out


class Stacked:
    """A dataset of pairs as one of images with the bands of both dates.

    Takes `image` (2, C, H, W), as torchgeo stacks dates, or two images under `image1` and `image2`.
    """

    def __init__(self, dataset: Indexed) -> None:
        self.dataset = dataset

    def __getitem__(self, query: Any) -> dict[str, Any]:
        sample = self.dataset[query]
        return {**sample, "image": _stacked(sample, name=f"sample {query!r} of {type(self.dataset).__name__}")}


def from_pair_samples(dataset: Indexed, *, bands: Bands, queries: Sequence[Any] | None = None) -> Samples:
    """Accept a dataset that yields pairs and a `mask` of 0 and 1; `bands` are those of one date."""
    names = tuple(f"{name} {when}" for when in ("before", "after") for name in bands.names)
    both = Bands(names=names, units=bands.units, scale=bands.scale, dtype=bands.dtype)
    return from_samples(Stacked(dataset), bands=both, classes=CHANGED, queries=queries_of(dataset, queries))


def shared(normalisation: Normalisation) -> Normalisation:
    """One mean and spread of each band for both dates: those of their pixels together, which are equally many."""
    means, stds = (np.array(values).reshape(DATES, -1) for values in (normalisation.mean, normalisation.std))
    mean = means.mean(axis=0)
    std = np.sqrt((stds**2 + (means - mean) ** 2).mean(axis=0))
    return Normalisation(mean=tuple(mean.tolist()) * DATES, std=tuple(std.tolist()) * DATES)


def _stacked(sample: Mapping[str, Any], *, name: str) -> Tensor:
    for before, after in TWO_IMAGES:
        if before in sample and after in sample:
            dates = [torch.as_tensor(sample[before]), torch.as_tensor(sample[after])]
            if dates[0].shape != dates[1].shape:
                raise DatasetError(
                    f"{name}: its dates are {tuple(dates[0].shape)} and {tuple(dates[1].shape)} (bands, height, width); they "
                    "must be alike"
                )
            return torch.cat(dates)
    image = torch.as_tensor(sample["image"]) if "image" in sample else torch.empty(0)
    if image.ndim != 4 or len(image) != DATES:  # noqa: PLR2004 - dates, bands, height, width
        raise DatasetError(
            f"{name} has no pair: expected image (2, bands, height, width) or image1 and image2, got "
            f"{tuple(image.shape) if 'image' in sample else ', '.join(sorted(sample))}"
        )
    return image.flatten(0, 1)
