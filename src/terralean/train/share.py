"""What one of several processes validates on."""

from __future__ import annotations

import math

import torch
from torch.utils.data import Dataset

from terralean.data.crops import Tiles
from terralean.data.oriented.crops import ObjectTiles
from terralean.data.oriented.samples import ObjectSamples
from terralean.data.sample import Sample
from terralean.data.samples import Samples
from terralean.data.scene_crops import SceneViews
from terralean.data.spectral.patches import PixelPatches
from terralean.spec import IGNORE
from terralean.tasks.classification import UNLABELLED

Judges = Tiles | Samples | SceneViews | PixelPatches | ObjectTiles | ObjectSamples


class Share(Dataset[Sample]):
    """Every `count`-th sample of a dataset from number `rank` on: together, the shares hold each label once.

    All are of one length, as processes that validate must take as many steps; what that adds to some has no labels.
    """

    def __init__(self, samples: Judges, *, rank: int, count: int) -> None:
        self.samples, self.rank, self.count = samples, rank, count

    def __len__(self) -> int:
        return math.ceil(len(self.samples) / self.count)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        place = index * self.count + self.rank
        last = len(self.samples) - 1
        sample = self.samples[min(place, last)]
        return sample if place <= last else _unlabelled(sample)


def _unlabelled(sample: Sample) -> Sample:
    if "label" in sample:
        return {**sample, "label": torch.full_like(sample["label"], UNLABELLED)}
    if "bbox" in sample:
        return {
            **sample,
            "bbox": sample["bbox"][:0],
            "labels": sample["labels"][:0],
            "difficult": sample["difficult"][:0],
            "valid": torch.zeros_like(sample["valid"]),
        }
    return {**sample, "mask": torch.full_like(sample["mask"], IGNORE)}
