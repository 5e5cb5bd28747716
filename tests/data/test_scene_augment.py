"""Crops are what Pillow, torchvision and timm make of them, in the units of the files, and drawn from a seed alone."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from terralean.data.scene_augment import Variation, drawn, shown
from terralean.data.scene_config import SceneAugmentConfig
from terralean.data.scene_picture import RGB, Picture
from terralean.errors import ConfigError
from terralean.raster.grid import Window
from terralean.spec import Bands, Normalisation

NORMALISATION = Normalisation(mean=(120.4, 90.0, 60.0), std=(40.0, 30.0, 20.0))
STILL = {"flips": "none", "rotate90": False}
WHOLE = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}


def photograph(height: int = 90, width: int = 70, seed: int = 0) -> Picture:
    values = np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8)
    return Picture(values=values, valid=np.ones((height, width), bool), bands=RGB)


def places(height: int, width: int) -> Picture:
    """Values are rows and columns."""
    values = np.stack([*np.mgrid[:height, :width], np.ones((height, width))]).astype(np.float32)
    return Picture(
        values=values, valid=np.ones((height, width), bool), bands=Bands(names=("row", "col", "one"), dtype="float32")
    )


def vary(picture: Picture, seed: int, *, size_px: int = 32, **settings):
    config = SceneAugmentConfig(**settings)
    variation = Variation(config, size_px=size_px, bands=picture.bands, normalisation=NORMALISATION)
    with drawn(np.array([seed, 1], dtype=np.uint32)):
        return variation(picture)


@pytest.mark.parametrize(("name", "filter_"), [("bicubic", Image.Resampling.BICUBIC), ("bilinear", Image.Resampling.BILINEAR)])
@pytest.mark.parametrize("window", [Window(row=10, col=20, height=20, width=25), Window(row=0, col=0, height=90, width=70)])
def test_eight_bits_are_resized_as_pillow_does(name, filter_, window):
    picture = photograph()
    rows, cols = window.slices()
    theirs = Image.fromarray(np.moveaxis(picture.values, 0, -1)[rows, cols]).resize((48, 48), filter_)
    ours = shown(picture, window, size_px=48, interpolation=name)
    assert np.abs(ours["image"].numpy() - np.moveaxis(np.asarray(theirs, np.float32), -1, 0)).max() <= 1
    assert torch.equal(ours["image"], ours["image"].round())
    assert ours["valid"].all()


def test_other_types_keep_their_range(write_image):
    picture = photograph()
    deep = Picture(values=picture.values.astype(np.uint16) * 200, valid=picture.valid, bands=picture.bands)
    window = Window(row=3, col=4, height=60, width=60)
    eight, sixteen = (shown(p, window, size_px=20, interpolation="bilinear")["image"] for p in (picture, deep))
    torch.testing.assert_close(sixteen, eight * 200, rtol=0, atol=200)


def test_what_is_already_of_the_size_is_not_touched():
    picture = photograph(32, 32)
    sample = shown(picture, Window(row=0, col=0, height=32, width=32), size_px=32, interpolation="bicubic")
    assert np.array_equal(sample["image"].numpy(), picture.values)


@pytest.mark.parametrize("size_px", [10, 40, 133])
def test_pixels_that_are_not_valid_do_not_colour_their_neighbours(size_px):
    valid = np.random.default_rng(0).random((40, 40)) < 0.5
    values = np.where(valid, 100, 250).astype(np.uint8)[None].repeat(3, axis=0)
    sample = shown(
        Picture(values=values, valid=valid, bands=RGB),
        Window(row=0, col=0, height=40, width=40),
        size_px=size_px,
        interpolation="bicubic",
    )
    assert sample["valid"].any()
    assert not sample["valid"].all()
    torch.testing.assert_close(sample["image"][:, sample["valid"]], torch.full((3, int(sample["valid"].sum())), 100.0))
    assert (sample["image"][:, ~sample["valid"]] == 0).all()


def test_crops_have_the_areas_and_ratios_of_the_settings():
    picture = places(200, 200)
    settings = {"crop_scale": (0.1, 0.5), "crop_ratio": (0.5, 2.0), "interpolation": "bilinear", **STILL}
    areas, ratios = [], []
    for seed in range(120):
        image = vary(picture, seed, size_px=64, **settings)["image"]
        # The outermost values lie half an output pixel within the crop.
        height, width = ((image[i].max() - image[i].min()).item() * 64 / 63 for i in (0, 1))
        areas.append(height * width / 200**2)
        ratios.append(width / height)
    assert 0.09 < min(areas) < 0.13
    assert 0.44 < max(areas) < 0.51
    assert 0.48 < min(ratios) < 0.6
    assert 1.7 < max(ratios) < 2.1


@pytest.mark.parametrize(
    ("flips", "rotate90", "count"),
    [("none", False, 1), ("horizontal", False, 2), ("both", False, 4), ("none", True, 4), ("both", True, 8)],
)
def test_orientations(flips, rotate90, count):
    picture = places(32, 32)
    seen = {vary(picture, seed, flips=flips, rotate90=rotate90, **WHOLE)["image"].numpy().tobytes() for seed in range(80)}
    assert len(seen) == count
    assert picture.values.tobytes() in seen


def test_the_smallest_crop_of_an_image_that_was_read_reduced_still_fills_the_network():
    config = SceneAugmentConfig(crop_scale=(0.08, 1.0), crop_ratio=(3 / 4, 4 / 3))
    keep_px = Variation(config, size_px=224, bands=RGB, normalisation=NORMALISATION).keep_px
    assert keep_px == 915
    assert 0.08 * keep_px**2 >= 224 * 224 * 4 / 3
    whole = SceneAugmentConfig(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))
    assert Variation(whole, size_px=224, bands=RGB, normalisation=NORMALISATION).keep_px == 224


def test_a_crop_shows_something_where_most_is_not_valid():
    valid = np.zeros((100, 100), bool)
    valid[:30] = True
    picture = Picture(values=np.full((3, 100, 100), 9, np.uint8), valid=valid, bands=RGB)
    shows = [bool(vary(picture, seed, crop_scale=(0.05, 0.1))["valid"].any()) for seed in range(60)]
    assert np.mean(shows) > 0.75  # of single draws fewer than half do


def test_rand_augment_changes_colours_and_keeps_eight_bits():
    picture = photograph(32, 32)
    plain = vary(picture, 0, **STILL, **WHOLE)["image"]
    varied = [vary(picture, seed, rand_augment="rand-m9-mstd0.5-inc1", **STILL, **WHOLE)["image"] for seed in range(40)]
    assert sum(not torch.equal(image, plain) for image in varied) > 20  # two of three crops: half a chance for each of two
    assert all(torch.equal(image, image.round().clamp(0, 255)) for image in varied)
    assert torch.equal(varied[3], vary(picture, 3, rand_augment="rand-m9-mstd0.5-inc1", **STILL, **WHOLE)["image"])


def test_the_magnitude_of_rand_augment_counts():
    picture = photograph(32, 32)
    plain = vary(picture, 0, **STILL, **WHOLE)["image"]
    weak, strong = (
        np.mean(
            [
                (vary(picture, s, rand_augment=f"rand-m{m}-inc1", **STILL, **WHOLE)["image"] - plain).abs().mean()
                for s in range(40)
            ]
        )
        for m in (1, 10)
    )
    assert strong > 1.5 * weak


@pytest.mark.parametrize("notation", ["rand-m10-n8-p1-inc1", "rand-m0-n8-p1"])
def test_the_strongest_operations_do_not_fail(notation):
    """Posterizing to no bit at all is what timm then asks for, and Pillow refuses."""
    for seed in range(60):
        image = vary(photograph(32, 32), seed, rand_augment=notation)["image"]
        assert torch.isfinite(image).all()


def test_rand_augment_fills_with_the_mean():
    picture = Picture(values=np.full((3, 32, 32), 255, np.uint8), valid=np.ones((32, 32), bool), bands=RGB)
    picture.values[:, ::2] = 254
    fills = set()
    for seed in range(60):
        image = vary(picture, seed, rand_augment="rand-m9-n1-p1", interpolation="bilinear", **STILL, **WHOLE)["image"]
        fills |= {tuple(pixel) for pixel in image.flatten(1).T.tolist() if pixel[0] != pixel[1]}
    assert (120.0, 90.0, 60.0) in fills


def test_with_rand_augment_what_is_not_valid_becomes_the_mean():
    picture = photograph(32, 32)
    picture.valid[5:9] = False
    sample = vary(picture, 0, rand_augment="rand-m9-p0", **STILL, **WHOLE)
    assert sample["valid"].all()
    assert (sample["image"][:, 5:9] == torch.tensor([120.0, 90.0, 60.0])[:, None, None]).all()


@pytest.mark.parametrize(
    ("bands", "told"),
    [(Bands(names=("a", "b", "c", "d")), "4 of uint8"), (Bands(names=("a", "b", "c"), dtype="uint16"), "3 of uint16")],
)
def test_rand_augment_of_other_bands_is_refused(bands, told):
    config = SceneAugmentConfig(rand_augment="rand-m9")
    with pytest.raises(ConfigError) as error:
        Variation(config, size_px=32, bands=bands, normalisation=NORMALISATION)
    assert str(error.value) == (
        f"data.augment.rand_augment rand-m9 works on 3 bands of 8 bits, the images have {told}; "
        "do without: --set data.augment.rand_augment=null"
    )


def test_erasing_puts_noise_of_the_bands_own_spread_into_a_rectangle():
    picture = photograph(96, 96)
    picture.valid[:, :7] = False
    settings = {**STILL, **WHOLE, "size_px": 96}
    plain = vary(picture, 0, **settings)["image"]
    erased = [vary(picture, seed, erasing=1.0, **settings)["image"] for seed in range(40)]
    noise = []
    for image in erased:
        rows, cols = (image != plain).any(dim=0).nonzero().T
        assert (image[:, :, :7] == 0).all()
        box = (rows.max() - rows.min() + 1) * (cols.max() - cols.min() + 1)
        assert len(rows) == box <= 96 * 96 / 3
        noise.append(image[:, rows, cols])
    mean, std = torch.tensor(NORMALISATION.mean)[:, None], torch.tensor(NORMALISATION.std)[:, None]
    normalised = (torch.cat(noise, dim=1) - mean) / std
    assert normalised.mean(dim=1).abs().max() < 0.02
    assert (normalised.std(dim=1) - 1).abs().max() < 0.02


def test_erasing_has_its_chance():
    picture = photograph(32, 32)
    plain = vary(picture, 0, **STILL, **WHOLE)["image"]
    changed = [not torch.equal(vary(picture, seed, erasing=0.25, **STILL, **WHOLE)["image"], plain) for seed in range(200)]
    assert 0.17 < np.mean(changed) < 0.33


def test_drawing_from_a_seed_leaves_the_global_generators_as_they_were():
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = random.random(), np.random.rand(), float(torch.rand(()))
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    with drawn(np.array([5, 6], dtype=np.uint32)):
        first = random.random(), np.random.rand(), float(torch.rand(()))
    assert (random.random(), np.random.rand(), float(torch.rand(()))) == expected
    with drawn(np.array([5, 6], dtype=np.uint32)):
        assert (random.random(), np.random.rand(), float(torch.rand(()))) == first
    with pytest.raises(KeyError), drawn(np.array([5, 7], dtype=np.uint32)):
        raise KeyError
    assert first != expected
