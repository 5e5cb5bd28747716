"""Any dataset that yields torchgeo's dictionaries, checked and made into training samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from terralean.data.augment import augment, cut, draw_zoom, zoom
from terralean.data.config import DataConfig
from terralean.data.sample import Sample
from terralean.data.statistics import Moments, moments_of, no_moments, normalise
from terralean.errors import BandMismatch, DatasetError, GridMismatch, LabelError
from terralean.spec import IGNORE, Bands, Classes, Normalisation, check_mappable

IMAGE_DIMS = (3, 4)  # (C, H, W), or (T, C, H, W) for change


class Indexed(Protocol):
    """What is asked of a dataset: a dictionary with `image` and `mask` for each query."""

    def __getitem__(self, query: Any, /) -> Mapping[str, Any]:
        """The sample of an index, or of a place and time."""


class Samples(Dataset[Sample]):
    """Samples of another dataset as they are: checked, typed, with `valid`."""

    def __init__(self, dataset: Indexed, *, bands: Bands, classes: Classes, queries: Sequence[Any]) -> None:
        self.dataset, self.bands, self.classes, self.queries = dataset, bands, classes, queries

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, index: int) -> Sample:
        name = f"sample {self.queries[index]!r} of {type(self.dataset).__name__}"
        return check_sample(self.dataset[self.queries[index]], bands=self.bands, classes=self.classes, name=name)


class SampleCrops(Dataset[Sample]):
    """Augmented crops of samples in turn, as many as asked for: the same for the same seed, epoch and index.

    Each turn through the samples is in another order, and goes on over the end of an epoch.
    """

    def __init__(self, samples: Samples, *, normalisation: Normalisation, config: DataConfig, length: int, seed: int) -> None:
        self.samples, self.normalisation, self.config, self.seed, self.length = samples, normalisation, config, seed, length
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Another epoch has other crops."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.length:
            raise IndexError(f"crop {index} of {self.length}")
        turn, place = divmod(int(self._epoch) * self.length + index, len(self.samples))
        order = np.random.default_rng([self.seed, turn]).permutation(len(self.samples))
        state = np.random.SeedSequence([self.seed, int(self._epoch), index]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0] >> 1))
        factor = draw_zoom(self.config.augment, generator=generator)
        sample = zoom(self.samples[int(order[place])], factor=factor, generator=generator)
        sample = _square(sample, self.config.tile_px, generator)
        return augment(sample, self.config.augment, normalisation=self.normalisation, generator=generator)


def from_samples(dataset: Indexed, *, bands: Bands, classes: Classes, queries: Sequence[Any] | None = None) -> Samples:
    """Accept a dataset that yields dictionaries with `image` and `mask`, such as torchgeo's.

    A dataset with a length is asked for 0 .. length - 1. One that is asked for places needs `queries`: list(sampler).
    """
    check_mappable(classes, where=type(dataset).__name__)
    return Samples(dataset, bands=bands, classes=classes, queries=queries_of(dataset, queries))


def queries_of(dataset: Indexed, queries: Sequence[Any] | None) -> Sequence[Any]:
    """What a dataset is asked for: the queries given, else 0 .. length - 1. Raises DatasetError where that is nothing."""
    if queries is None:
        if not hasattr(dataset, "__len__"):
            raise DatasetError(f"{type(dataset).__name__} has no length; give queries, such as the list of its sampler")
        queries = range(len(cast("Sized", dataset)))
    if len(queries) == 0:
        raise DatasetError(f"{type(dataset).__name__} is empty; it must yield at least one sample")
    return queries


def measure_samples(samples: Samples) -> tuple[Normalisation, tuple[int, ...]]:
    """Normalisation of the valid pixels, and the pixels of each class. Raises LabelError where a class has none."""
    moments: Moments = no_moments(len(samples.bands))
    counts = torch.zeros(IGNORE + 1, dtype=torch.int64)
    for i in range(len(samples)):
        sample = samples[i]
        for image in sample["image"].reshape(-1, *sample["image"].shape[-3:]):
            moments = moments.merge(moments_of(image.numpy(), sample["valid"].numpy()))
        counts += torch.bincount(sample["mask"].flatten(), minlength=IGNORE + 1)
    where = f"the {len(samples)} samples of {type(samples.dataset).__name__}"
    if lacking := [name for name, pixels in zip(samples.classes.names, counts.tolist(), strict=False) if not pixels]:
        raise LabelError(
            f"{where} hold no pixel of {', '.join(lacking)}: the model cannot learn it; give samples that do, or leave the "
            "class out of the classes"
        )
    return normalise(moments, bands=samples.bands, where=where), tuple(counts[: len(samples.classes)].tolist())


def check_sample(sample: Mapping[str, Any], *, bands: Bands, classes: Classes, name: str) -> Sample:
    """A sample with the types that training needs. Raises with the name, what was found and what is needed.

    A pixel is valid where `valid` says so; without it, where all bands are finite. What is not valid is 0 and masked 255.
    """
    image, mask = _image(sample, bands, name), _mask(sample, classes, name)
    if image.shape[-2:] != mask.shape:
        raise GridMismatch(
            f"{name}: mask is {tuple(mask.shape)}, its image {tuple(image.shape[-2:])} (height, width); "
            "a transform must move image and mask alike"
        )
    finite = torch.isfinite(image).flatten(0, -3).all(dim=0)
    valid = finite & torch.as_tensor(sample["valid"]).bool().reshape(mask.shape) if "valid" in sample else finite
    return {"image": torch.where(valid, image, 0.0), "mask": torch.where(valid, mask, IGNORE), "valid": valid}


def _image(sample: Mapping[str, Any], bands: Bands, name: str) -> Tensor:
    image = torch.as_tensor(entry(sample, "image", name, needed="image and mask"))
    if image.ndim not in IMAGE_DIMS:
        raise DatasetError(f"{name}: image must be (bands, height, width), got {tuple(image.shape)}")
    if image.shape[-3] != len(bands):
        raise BandMismatch(
            f"{name}: image has {image.shape[-3]} bands, expected {len(bands)} ({', '.join(bands.names)}); "
            "name the bands that the dataset yields, in its order"
        )
    return image.float()


def _mask(sample: Mapping[str, Any], classes: Classes, name: str) -> Tensor:
    mask = torch.as_tensor(entry(sample, "mask", name, needed="image and mask"))
    mask = mask[0] if mask.ndim == 3 and len(mask) == 1 else mask  # noqa: PLR2004 - (1, H, W) is usual too
    if mask.ndim != 2:  # noqa: PLR2004 - rows and columns
        raise DatasetError(f"{name}: mask must be (height, width) or (1, height, width), got {tuple(mask.shape)}")
    if mask.is_floating_point() and not torch.equal(mask, mask.round()):
        raise LabelError(f"{name}: mask holds fractions; expected class values, so resample masks by nearest neighbour")
    mask = mask.long()
    wrong = mask[(mask < 0) | ((mask >= len(classes)) & (mask != IGNORE))].unique()[:5].tolist()
    if wrong:
        raise LabelError(
            f"{name}: mask holds {', '.join(map(str, wrong))}; expected 0 to {len(classes) - 1} ({', '.join(classes.names)}), "
            f"or {IGNORE} for no class; map other values with a transform"
        )
    return mask


def entry(sample: Mapping[str, Any], key: str, name: str, *, needed: str) -> Any:
    """An entry of a sample. Raises DatasetError saying what there is and what is `needed`."""
    if not isinstance(sample, Mapping) or key not in sample:
        found = ", ".join(map(str, sample)) if isinstance(sample, Mapping) else type(sample).__name__
        raise DatasetError(f"{name} has no {key!r}, it holds {found or 'nothing'}; expected a dictionary with {needed}")
    return sample[key]


def _square(sample: Sample, side: int, generator: torch.Generator) -> Sample:
    """A random window of `side` px; a smaller sample lies somewhere in it."""
    spare = [size - side for size in sample["image"].shape[-2:]]
    row, col = (min(0, s) + int(torch.randint(abs(s) + 1, (), generator=generator)) for s in spare)
    return cut(sample, row=row, col=col, height=side, width=side)
