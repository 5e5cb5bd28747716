"""Dictionaries of torchgeo's kind with oriented objects, checked and made into samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from terralean.data.augment import cut
from terralean.data.oriented.record import CORNERS, Record
from terralean.data.sample import Sample
from terralean.data.samples import Indexed, entry, queries_of
from terralean.errors import BandMismatch, DatasetError, LabelError
from terralean.spec import Bands, Classes

NEEDED = "image, bbox and labels"
IMAGE_DIMS = 3


class ObjectSamples(Dataset[Sample]):
    """Samples of another dataset as they are: checked, typed, with `valid` and `difficult`.

    With `side_px` all are squares of that side, filled up where they are smaller; larger ones raise DatasetError.
    """

    def __init__(
        self, dataset: Indexed, *, bands: Bands, classes: Classes, queries: Sequence[Any], side_px: int | None = None
    ) -> None:
        self.dataset, self.bands, self.classes, self.queries, self.side_px = dataset, bands, classes, queries, side_px

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, index: int) -> Sample:
        name = f"sample {self.queries[index]!r} of {type(self.dataset).__name__}"
        sample = check_objects(self.dataset[self.queries[index]], bands=self.bands, classes=self.classes, name=name)
        if self.side_px is None:
            return sample
        height, width = sample["image"].shape[-2:]
        if max(height, width) > self.side_px:
            raise DatasetError(
                f"{name} is {width} x {height} px, data.tile_px is {self.side_px}; raise it, or let the dataset yield tiles"
            )
        return cut(sample, row=0, col=0, height=self.side_px, width=self.side_px)

    def of_side(self, side_px: int) -> ObjectSamples:
        """The same in squares of this side."""
        return ObjectSamples(self.dataset, bands=self.bands, classes=self.classes, queries=self.queries, side_px=side_px)


def from_object_samples(
    dataset: Indexed, *, bands: Bands, classes: Classes, queries: Sequence[Any] | None = None
) -> ObjectSamples:
    """Accept a dataset that yields dictionaries with `image`, `bbox` (n, 8) px and `labels`, such as torchgeo's DOTA.

    A dataset with a length is asked for 0 .. length - 1. One that is asked for places needs `queries`: list(sampler).
    """
    return ObjectSamples(dataset, bands=bands, classes=classes, queries=queries_of(dataset, queries))


def check_objects(sample: Mapping[str, Any], *, bands: Bands, classes: Classes, name: str) -> Sample:
    """A sample with the types that training needs, of a dictionary with `image` (C, H, W), `bbox` (n, 8) px, `labels` (n,).

    torchgeo's DOTA yields these. A pixel is valid where `valid` says so; without it, where all bands are finite. Raises
    DatasetError, BandMismatch and LabelError with the name, what was found and what is needed.
    """
    image = torch.as_tensor(entry(sample, "image", name, needed=NEEDED)).float()
    if image.ndim != IMAGE_DIMS or len(image) != len(bands):
        raise BandMismatch(
            f"{name}: image is {tuple(image.shape)}; expected ({len(bands)}, height, width), bands {', '.join(bands.names)}; "
            "name the bands that the dataset yields, in its order"
        )
    finite = torch.isfinite(image).all(dim=0)
    valid = finite & torch.as_tensor(sample["valid"]).bool() if "valid" in sample else finite
    corners = _corners(sample, name)
    labels = torch.as_tensor(entry(sample, "labels", name, needed=NEEDED)).long().reshape(-1)
    if len(labels) != len(corners):
        raise DatasetError(f"{name}: {len(corners)} boxes and {len(labels)} labels; each object has one of both")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        raise LabelError(
            f"{name}: labels are {int(labels.min())} to {int(labels.max())}; the classes are 0 to {len(classes) - 1} "
            f"({', '.join(classes.names)}); map others with a transform"
        )
    difficult = torch.as_tensor(sample.get("difficult", torch.zeros(len(labels)))).bool().reshape(-1)
    image = torch.where(valid, image, 0.0)
    return {"image": image, "valid": valid, "bbox": corners, "labels": labels, "difficult": difficult}


def objects_of(record: Record) -> Sample:
    """The part of a sample that says which objects are in it."""
    return {
        "bbox": torch.from_numpy(record.polygons).float(),
        "labels": torch.from_numpy(record.labels),
        "difficult": torch.from_numpy(np.asarray(record.difficult > 0)),
    }


def _corners(sample: Mapping[str, Any], name: str) -> Tensor:
    corners = torch.as_tensor(entry(sample, "bbox", name, needed=NEEDED)).float()
    if not corners.numel():
        return corners.reshape(0, 2 * CORNERS)
    corners = corners.flatten(1) if corners.ndim == 3 else corners  # noqa: PLR2004 - (n, 4, 2) is about, too
    if corners.ndim != 2 or corners.shape[1] != 2 * CORNERS:  # noqa: PLR2004 - objects and numbers
        raise DatasetError(
            f"{name}: bbox is {tuple(corners.shape)}; expected (n, {2 * CORNERS}), x1 y1 .. x4 y4 of each object in px"
        )
    if not corners.isfinite().all():
        raise LabelError(f"{name}: bbox has numbers that are not finite; expected corners in px")
    return corners
