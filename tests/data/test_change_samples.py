import numpy as np
import pytest
import torch

from terralean.data.change_samples import PairCrops, exchanged, from_pair_samples, shared
from terralean.data.config import AugmentConfig, DataConfig
from terralean.data.samples import SampleCrops
from terralean.errors import DatasetError
from terralean.spec import Bands, Normalisation

BANDS = Bands(names=("red", "nir"))
UNIT = Normalisation(mean=(0.0,) * 4, std=(1.0,) * 4)
STILL = AugmentConfig(flips=False, rotate90=False, zoom=(1.0, 1.0), brightness=0, contrast=0)


class Torchgeo:
    """As torchgeo yields pairs."""

    def __init__(self, *, apart: bool = False) -> None:
        self.apart = apart

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> dict:
        image = torch.arange(2 * 2 * 8 * 8.0).reshape(2, 2, 8, 8) + 1000 * index
        mask = (torch.arange(64).reshape(8, 8) % 3 == 0).long()
        dates = {"image1": image[0], "image2": image[1]} if self.apart else {"image": image}
        return {**dates, "mask": mask}


@pytest.mark.parametrize("apart", [False, True])
def test_torchgeos_pairs_become_the_bands_of_both_dates(apart):
    samples = from_pair_samples(Torchgeo(apart=apart), bands=BANDS)
    assert samples.bands.names == ("red before", "nir before", "red after", "nir after")
    sample = samples[1]
    assert torch.equal(sample["image"], torch.arange(256.0).reshape(4, 8, 8) + 1000)
    assert torch.equal(sample["mask"], Torchgeo()[1]["mask"])


def test_what_is_no_pair_is_refused():
    class Single(Torchgeo):
        def __getitem__(self, index: int) -> dict:
            return {"image": torch.zeros(3, 8, 8), "mask": torch.zeros(8, 8).long()}

    with pytest.raises(DatasetError, match=r"sample 0 of Single has no pair: .* got \(3, 8, 8\)"):
        from_pair_samples(Single(), bands=BANDS)[0]


def crops(augment: AugmentConfig = STILL, *, swap: bool) -> PairCrops:
    samples = from_pair_samples(Torchgeo(), bands=BANDS)
    config = DataConfig(tile_px=8, augment=augment)
    return PairCrops(SampleCrops(samples, normalisation=UNIT, config=config, length=40, seed=3), swap=swap)


def test_about_every_other_pair_has_its_dates_exchanged_and_its_mask_as_it_was():
    plain, swapped = crops(swap=False), crops(swap=True)
    other = [i for i in range(40) if not torch.equal(plain[i]["image"], swapped[i]["image"])]
    assert 10 <= len(other) <= 30
    for i in other:
        assert torch.equal(swapped[i]["image"], exchanged(plain[i])["image"])
        assert torch.equal(swapped[i]["mask"], plain[i]["mask"])
    again = crops(swap=True)
    assert all(torch.equal(again[i]["image"], swapped[i]["image"]) for i in range(40))
    again.set_epoch(1)
    first = swapped[0]["image"]
    swapped.set_epoch(1)
    assert torch.equal(again[0]["image"], swapped[0]["image"])
    assert any(not torch.equal(x, y) for x, y in ((first, again[0]["image"]), (plain[1]["image"], again[1]["image"])))


def test_exchanging_twice_changes_nothing():
    sample = from_pair_samples(Torchgeo(), bands=BANDS)[0]
    assert torch.equal(exchanged(exchanged(sample))["image"], sample["image"])
    assert torch.equal(exchanged(sample)["image"][:2], sample["image"][2:])


def test_geometry_is_drawn_for_both_dates_together():
    moved = crops(AugmentConfig(zoom=(1.0, 1.0), brightness=0, contrast=0), swap=False)
    for i in range(12):
        image = moved[i]["image"]
        assert torch.equal(image[2:] - image[:2], torch.full((2, 8, 8), 128.0))
        assert torch.equal(moved[i]["mask"], ((image[0].long() % 1000) % 3 == 0).long())


def test_colours_are_drawn_for_each_date():
    jittered = crops(AugmentConfig(flips=False, rotate90=False, zoom=(1.0, 1.0), brightness=0.5, contrast=0), swap=False)
    image = jittered[0]["image"]
    shifts = (image - crops(swap=False)[0]["image"]).flatten(1).mean(1)
    assert len({round(float(shift), 4) for shift in shifts}) == 4


def test_the_normalisation_of_both_dates_is_that_of_their_pixels_together():
    rng = np.random.default_rng(0)
    dates = rng.normal(size=(2, 3, 500)) * [[[1.0], [2.0], [3.0]], [[2.0], [0.5], [1.0]]] + 5
    each = Normalisation(mean=tuple(dates.mean(2).ravel().tolist()), std=tuple(dates.std(2).ravel().tolist()))
    both = np.concatenate([dates[0], dates[1]], axis=1)
    found = shared(each)
    np.testing.assert_allclose(found.mean, np.tile(both.mean(1), 2), rtol=1e-12)
    np.testing.assert_allclose(found.std, np.tile(both.std(1), 2), rtol=1e-12)
