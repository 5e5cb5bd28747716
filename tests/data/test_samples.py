"""Other libraries' datasets are accepted as they are, or refused with the reason."""

import re

import numpy as np
import pytest
import torch

from terralean.data.config import DataConfig
from terralean.data.samples import SampleCrops, from_samples, measure_samples
from terralean.errors import BandMismatch, DatasetError, GridMismatch, LabelError
from terralean.spec import IGNORE, Bands, Classes, Normalisation

BANDS = Bands(names=("red", "green", "blue", "nir"))
CLASSES = Classes.named(["land", "water"])


class Field:
    """As torchgeo's non-geographic datasets: integers in, dictionaries out."""

    def __init__(self, count: int = 4, size: int = 24, **entries) -> None:
        self.count, self.size, self.entries = count, size, entries

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < self.count:
            raise IndexError(index)
        image = torch.arange(4 * self.size**2, dtype=torch.float32).reshape(4, self.size, self.size) + 1000 * index
        mask = (torch.arange(self.size**2).reshape(1, self.size, self.size) // 7 + index) % 2
        return {"image": image, "mask": mask, "crs": "EPSG:4326"} | self.entries


def accept(dataset, queries=None):
    return from_samples(dataset, bands=BANDS, classes=CLASSES, queries=queries)


def test_a_mask_with_a_leading_one_and_no_valid_is_completed():
    sample = accept(Field())[2]
    assert sample["mask"].shape == (24, 24)
    assert sample["mask"].dtype == torch.int64
    assert sample["valid"].all()
    assert set(sample) == {"image", "mask", "valid"}


def test_a_class_without_a_pixel_is_an_error():
    samples = from_samples(Field(), bands=BANDS, classes=Classes.named(["land", "water", "ice", "rock"]))
    with pytest.raises(LabelError) as error:
        measure_samples(samples)
    assert str(error.value) == (
        "the 4 samples of Field hold no pixel of ice, rock: the model cannot learn it; give samples that do, or leave the "
        "class out of the classes"
    )


def test_what_is_not_finite_is_not_valid():
    image = torch.ones(4, 24, 24)
    image[2, 3, 4] = torch.nan
    image[0, 5, 6] = torch.inf
    sample = accept(Field(image=image))[0]
    assert (~sample["valid"]).nonzero().tolist() == [[3, 4], [5, 6]]
    assert (sample["image"][:, 3, 4] == 0).all()
    assert sample["mask"][3, 4] == IGNORE


def test_a_given_valid_is_kept():
    valid = torch.zeros(24, 24, dtype=torch.bool)
    valid[0] = True
    assert int(accept(Field(valid=valid))[0]["valid"].sum()) == 24


def test_a_dataset_of_places_is_asked_for_its_queries():
    class Places(Field):
        __len__ = None

        def __getitem__(self, query):
            return super().__getitem__({"north": 1, "south": 2}[query])

    assert len(accept(Places(), queries=["south", "north"])) == 2
    assert accept(Places(), queries=["south"])[0]["image"][0, 0, 0] == 2000


@pytest.mark.parametrize(
    ("entries", "error", "text"),
    [
        ({"image": torch.zeros(3, 24, 24)}, BandMismatch, "image has 3 bands, expected 4 (red, green, blue, nir)"),
        ({"image": torch.zeros(24, 24)}, DatasetError, "image must be (bands, height, width), got (24, 24)"),
        ({"mask": torch.zeros(2, 24, 24)}, DatasetError, "mask must be (height, width) or (1, height, width), got (2, 24, 24)"),
        ({"mask": torch.zeros(20, 24)}, GridMismatch, "mask is (20, 24), its image (24, 24)"),
        ({"mask": torch.full((24, 24), 7)}, LabelError, "mask holds 7; expected 0 to 1 (land, water), or 255"),
        ({"mask": torch.full((24, 24), -1)}, LabelError, "mask holds -1"),
        ({"mask": torch.full((24, 24), 0.5)}, LabelError, "mask holds fractions"),
    ],
)
def test_a_sample_that_does_not_fit_is_named_with_what_is_needed(entries, error, text):
    with pytest.raises(error, match=re.escape(f"sample 1 of Field: {text}")):
        accept(Field(**entries))[1]


def test_what_is_no_dictionary_of_image_and_mask_is_refused():
    with pytest.raises(DatasetError, match=re.escape("sample 0 of list has no 'image', it holds tuple")):
        accept([(1, 2)])[0]
    with pytest.raises(DatasetError, match=re.escape("has no 'mask', it holds image, label")):
        accept([{"image": torch.zeros(4, 8, 8), "label": 1}])[0]
    with pytest.raises(DatasetError, match="list is empty"):
        accept([])


def test_statistics_are_those_of_all_valid_pixels():
    samples = accept(Field())
    normalisation, pixels = measure_samples(samples)
    values = torch.stack([samples[i]["image"] for i in range(4)]).numpy().astype(np.float64)
    assert normalisation.mean == pytest.approx(values.mean(axis=(0, 2, 3)))
    assert normalisation.std == pytest.approx(values.std(axis=(0, 2, 3)))
    assert sum(pixels) == 4 * 24 * 24


@pytest.mark.parametrize("size", [16, 24, 40])
def test_crops_of_samples_have_the_tile_size_and_follow_the_seed(size):
    unit = Normalisation(mean=(0.0,) * 4, std=(1.0,) * 4)
    data, again = (
        SampleCrops(accept(Field(size=size)), normalisation=unit, config=DataConfig(tile_px=24), length=9, seed=0)
        for _ in range(2)
    )
    for i in range(4):
        assert data[i]["image"].shape == (4, 24, 24)
        assert torch.equal(data[i]["image"], again[i]["image"])
    first = data[0]["image"]
    data.set_epoch(1)
    assert not torch.equal(data[0]["image"], first)
