"""Other libraries' labelled images are accepted as they are, or refused with the reason."""

import numpy as np
import pytest
import torch

from terralean.data.scene_samples import from_scene_samples
from terralean.data.scene_statistics import measure_scenes
from terralean.errors import BandMismatch, DatasetError, LabelError
from terralean.spec import Bands, Classes

BANDS = Bands(names=("red", "green", "blue"))
CLASSES = Classes.named(["field", "water"])


class Tiles:
    """As torchgeo's EuroSAT: integers in, dictionaries of float images and labels out."""

    classes = ("field", "water")

    def __init__(self, count: int = 4, **entries) -> None:
        self.count, self.entries = count, entries

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < self.count:
            raise IndexError(index)
        image = torch.arange(3 * 16 * 12, dtype=torch.float32).reshape(3, 16, 12) % 250 + index
        return {"image": image, "label": torch.tensor(index % 2)} | self.entries


def test_classes_are_the_datasets_own():
    samples = from_scene_samples(Tiles(), bands=BANDS)
    assert samples.classes == CLASSES
    assert samples.labels == (0, 1, 0, 1)
    picture = samples.read(2)
    assert picture.values.dtype == np.uint8
    assert np.array_equal(picture.values, Tiles()[2]["image"].numpy())
    assert picture.valid.all()
    normalisation, counts = measure_scenes(samples, seed=0)
    assert counts == (2, 2)
    every = torch.stack([Tiles()[i]["image"] for i in range(4)]).double()
    np.testing.assert_allclose(normalisation.mean, every.mean(dim=(0, 2, 3)))


def test_a_label_may_have_a_leading_one():
    """As torchgeo's MillionAID has it."""
    samples = [{"image": torch.ones(3, 4, 4), "label": torch.tensor([i])} for i in (1, 0)]
    assert from_scene_samples(samples, bands=BANDS, classes=CLASSES).labels == (1, 0)


def test_what_is_not_finite_or_not_valid_is_left_out():
    image = torch.ones(3, 16, 12)
    image[1, 2, 3] = torch.nan
    samples = from_scene_samples([{"image": image, "label": i} for i in (0, 1)], bands=BANDS, classes=CLASSES)
    assert np.argwhere(~samples.read(0).valid).tolist() == [[2, 3]]
    valid = torch.ones(16, 12)
    valid[0] = 0
    samples = from_scene_samples([{"image": image, "label": i, "valid": valid} for i in (0, 1)], bands=BANDS, classes=CLASSES)
    assert (~samples.read(0).valid).sum() == 13


@pytest.mark.parametrize(
    ("entries", "kind", "message"),
    [
        ({"image": torch.ones(4, 16, 12)}, BandMismatch, r"sample 0 of Tiles: image is \(4, 16, 12\), expected \(bands"),
        ({"image": torch.rand(3, 16, 12)}, BandMismatch, r'in float32, which is not uint8.*Bands\(..., dtype="float32"\)'),
        ({"image": torch.full((3, 16, 12), 300)}, BandMismatch, "image holds 300 to 300 in int64, which is not uint8"),
        ({"image": torch.full((3, 16, 12), -1.0)}, BandMismatch, "image holds -1 to -1 in float32"),
        ({"label": torch.tensor(2)}, LabelError, r"label is 2, expected 0 to 1 \(field, water\); give all classes"),
        ({"label": torch.tensor(0.5)}, LabelError, "label is 0.5, expected 0 to 1"),
        ({"label": torch.tensor([0, 1])}, LabelError, "label has 2 values, expected one: the class of the image"),
        ({"label": torch.tensor(1)}, DatasetError, "Tiles has one class only, water; expected images of two or more"),
    ],
)
def test_samples_that_cannot_be_used(entries, kind, message):
    with pytest.raises(kind, match=message):
        from_scene_samples(Tiles(**entries), bands=BANDS)


def test_datasets_that_cannot_be_used():
    with pytest.raises(
        DatasetError, match="sample 0 of list has no 'label', it holds image; expected a dictionary with image and"
    ):
        from_scene_samples([{"image": torch.ones(3, 4, 4)}], bands=BANDS, classes=CLASSES)
    with pytest.raises(DatasetError, match="list does not name its classes; give them, in the order of its labels"):
        from_scene_samples([{"image": torch.ones(3, 4, 4), "label": 0}], bands=BANDS)
    with pytest.raises(DatasetError, match="Tiles is empty"):
        from_scene_samples(Tiles(count=0), bands=BANDS)
