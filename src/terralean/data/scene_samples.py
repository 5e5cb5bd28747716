"""Any dataset that yields torchgeo's dictionaries with an image and a label, such as its EuroSAT, UCMerced or RESISC45."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from terralean.data.samples import Indexed, entry, queries_of
from terralean.data.scene_picture import Picture
from terralean.data.words import listed
from terralean.errors import BandMismatch, DatasetError, LabelError
from terralean.spec import Bands, Classes

ROWS_AND_COLUMNS = 2


class SceneSamples:
    """Samples of another dataset as images with a class each, checked when they are read. Nothing of them is kept."""

    def __init__(self, dataset: Indexed, *, bands: Bands, classes: Classes, queries: Sequence[Any]) -> None:
        self.dataset, self.bands, self.classes, self.queries = dataset, bands, classes, queries
        self._labels: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def labels(self) -> tuple[int, ...]:
        """The class of each. The first time all samples are read and checked."""
        if self._labels is None:
            self._labels = tuple(self._checked(index)[1] for index in range(len(self)))
        return self._labels

    def read(self, index: int, *, keep_px: int | None = None) -> Picture:
        """As `Pictures` says; of all its pixels."""
        return self._checked(index)[0]

    def _checked(self, index: int) -> tuple[Picture, int]:
        name = f"sample {self.queries[index]!r} of {type(self.dataset).__name__}"
        sample = self.dataset[self.queries[index]]
        return _picture(sample, self.bands, name), _label(sample, self.classes, name)


def from_scene_samples(
    dataset: Indexed, *, bands: Bands, classes: Classes | None = None, queries: Sequence[Any] | None = None
) -> SceneSamples:
    """Accept a dataset that yields dictionaries with `image` and `label`. All of it is read once, and checked.

    Classes are the dataset's own, its attribute `classes`, where they are not given.
    """
    found = queries_of(dataset, queries)
    if classes is None:
        names = getattr(dataset, "classes", None)
        if not names:
            raise DatasetError(f"{type(dataset).__name__} does not name its classes; give them, in the order of its labels")
        classes = Classes.named([str(name) for name in names])
    samples = SceneSamples(dataset, bands=bands, classes=classes, queries=found)
    used = set(samples.labels)
    if len(used) == 1:
        raise DatasetError(
            f"{type(dataset).__name__} has one class only, {classes.names[used.pop()]}; expected images of two or more"
        )
    return samples


def _picture(sample: Mapping[str, Any], bands: Bands, name: str) -> Picture:
    """Valid as `valid` says; without it, where all bands are finite. Raises BandMismatch where values are not as declared."""
    image = torch.as_tensor(entry(sample, "image", name, needed="image and label"))
    if image.ndim == ROWS_AND_COLUMNS:
        image = image[None]
    if image.ndim != ROWS_AND_COLUMNS + 1 or len(image) != len(bands):
        raise BandMismatch(
            f"{name}: image is {tuple(image.shape)}, expected (bands, height, width) with {len(bands)} bands "
            f"({', '.join(bands.names)}); name the bands that the dataset yields, in its order"
        )
    finite = torch.isfinite(image).all(dim=0)
    valid = finite & torch.as_tensor(sample["valid"]).bool().reshape(finite.shape) if "valid" in sample else finite
    values = torch.where(valid, image, 0).numpy()
    with np.errstate(invalid="ignore"):  # compared below
        stored = values.astype(bands.dtype)
    if not np.array_equal(stored, values):
        raise BandMismatch(
            f"{name}: image holds {values.min():g} to {values.max():g} in {values.dtype}, which is not {bands.dtype}, as its "
            f'bands are said to be; give Bands(..., dtype="{values.dtype}"), or have the dataset yield what its files store'
        )
    return Picture(values=stored, valid=valid.numpy(), bands=bands)


def _label(sample: Mapping[str, Any], classes: Classes, name: str) -> int:
    label = torch.as_tensor(entry(sample, "label", name, needed="image and label"))
    if label.numel() != 1:
        raise LabelError(
            f"{name}: label has {label.numel()} values, expected one: the class of the image; several at once cannot be learnt"
        )
    number = label.item()
    if number != int(number) or not 0 <= number < len(classes):
        raise LabelError(
            f"{name}: label is {number:g}, expected 0 to {len(classes) - 1} ({listed(classes.names)}); give all classes, in "
            "the order of the labels"
        )
    return int(number)
