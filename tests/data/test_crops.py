"""Crops are a function of seed, epoch and index, and show nothing outside their regions."""

import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from terralean.data.config import AugmentConfig, DataConfig
from terralean.data.crops import Crops, Tiles
from terralean.data.split import Region
from terralean.data.statistics import measure
from terralean.errors import EmptySplit
from terralean.raster.coding import PLAIN
from terralean.raster.grid import Window
from terralean.spec import IGNORE, Bands, Classes

CLASSES = Classes.named(["a", "b", "rare"])
BANDS = Bands(names=("band_1", "band_2", "band_3"))
STILL = AugmentConfig(flips=False, rotate90=False, zoom=(1.0, 1.0), brightness=0, contrast=0)


@pytest.fixture
def pair(write_image):
    """Band 1 holds the row, band 2 the column, band 3 the class, all plus 1; one spot in 10,000 px is of the rare class."""
    rows, cols = np.mgrid[:100, :120].astype(np.uint16)
    labels = ((rows // 10 + cols // 10) % 2).astype(np.uint8)
    labels[40:43, 70:73] = 2
    labels[:20, :20] = IGNORE
    values = np.stack([rows + 1, cols + 1, labels + np.uint16(1)])
    return write_image("a.tif", values), write_image("a_labels.tif", labels), values, labels


def config(**changes) -> DataConfig:
    return DataConfig(**{"tile_px": 32, "augment": STILL, **changes})


def crops(pair, *windows: Window, length: int = 40, seed: int = 0, **changes) -> Crops:
    windows = windows or (Window(row=0, col=0, height=100, width=120),)
    regions = [Region(image=pair[0], label=pair[1], window=window, split="train") for window in windows]
    settings = config(**changes)
    statistics = measure(regions, classes=CLASSES, coding=PLAIN, bands=BANDS, config=settings, seed=0)
    return Crops(regions, statistics=statistics, classes=CLASSES, coding=PLAIN, config=settings, length=length, seed=seed)


def same(one, other) -> bool:
    return all(torch.equal(one[key], other[key]) for key in ("image", "mask", "valid"))


def test_a_crop_depends_on_seed_epoch_and_index_alone(pair):
    data, again, other = crops(pair, augment=AugmentConfig()), crops(pair, augment=AugmentConfig()), crops(pair, seed=1)
    forward = [data[i] for i in range(10)]
    backward = [again[i] for i in reversed(range(10))][::-1]
    assert all(same(a, b) for a, b in zip(forward, backward, strict=True))
    assert not any(same(data[i], other[i]) for i in range(10))
    data.set_epoch(1)
    assert not any(same(data[i], forward[i]) for i in range(10))
    data.set_epoch(0)
    assert same(data[3], forward[3])


@pytest.mark.parametrize("workers", [0, 2])
def test_worker_processes_give_the_same_crops_and_see_the_epoch(pair, workers):
    data = crops(pair, length=8)
    loader = DataLoader(data, batch_size=4, num_workers=workers, persistent_workers=workers > 0)
    for epoch in range(2):
        data.set_epoch(epoch)
        batches = torch.cat([batch["image"] for batch in loader])
        assert torch.equal(batches, torch.stack([data[i]["image"] for i in range(8)]))


def test_pickled_crops_are_the_same(pair):
    data = crops(pair)
    assert same(pickle.loads(pickle.dumps(data))[5], data[5])


def test_values_are_the_stored_ones_in_place(pair):
    _, _, values, labels = pair
    sample = crops(pair)[0]
    row, col = int(sample["image"][0, 0, 0]) - 1, int(sample["image"][1, 0, 0]) - 1
    where = slice(row, row + 32), slice(col, col + 32)
    assert np.array_equal(sample["image"].numpy(), values[:, *where].astype(np.float32))
    assert np.array_equal(sample["mask"].numpy(), labels[where])
    assert sample["image"].dtype == torch.float32
    assert sample["mask"].dtype == torch.int64


@pytest.mark.parametrize("seed", range(3))
def test_augmented_crops_keep_mask_and_image_together(pair, seed):
    augment = AugmentConfig(zoom=(1.0, 1.0), brightness=0, contrast=0)
    for sample in (crops(pair, augment=augment, seed=seed)[i] for i in range(20)):
        known = sample["mask"] != IGNORE
        assert torch.equal(sample["image"][2][known].long() - 1, sample["mask"][known])


def test_zoomed_crops_have_the_tile_size_and_show_more_or_less_ground(pair):
    spans = []
    for zoom in (0.5, 2.0):
        sample = crops(pair, augment=AugmentConfig(flips=False, rotate90=False, zoom=(zoom, zoom), brightness=0, contrast=0))[1]
        assert sample["image"].shape == (3, 32, 32)
        rows = sample["image"][0][sample["valid"]]
        spans.append(float(rows.max() - rows.min()))
    assert spans == pytest.approx([62, 15], abs=1)


def test_nothing_outside_the_regions_is_shown(pair):
    left, top = Window(row=0, col=0, height=100, width=50), Window(row=0, col=50, height=30, width=70)
    data = crops(pair, left, top, augment=AugmentConfig(brightness=0, contrast=0, zoom=(0.5, 1.0)), length=60)
    crossed = 0
    for i in range(60):
        sample = data[i]
        rows, cols = sample["image"][0][sample["valid"]] - 1, sample["image"][1][sample["valid"]] - 1
        assert ((cols < 50) | (rows < 30)).all()
        assert (sample["image"][:, ~sample["valid"]] == 0).all()
        assert (sample["mask"][~sample["valid"]] == IGNORE).all()
        crossed += bool((cols < 49).any() and (cols > 50).any())
    assert crossed > 0  # regions that touch are seen together


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0.35), (1.0, 0.75, 1.0)])
def test_rare_classes_are_favoured_by_the_share_asked_for(pair, share, least, most):
    data = crops(pair, rare_share=share, length=200)
    with_rare = sum(bool((data[i]["mask"] == 2).any()) for i in range(200)) / 200
    assert least <= with_rare <= most


def test_uniform_crops_spread_over_regions_by_area(pair):
    small, large = Window(row=0, col=0, height=40, width=40), Window(row=0, col=40, height=100, width=80)
    data = crops(pair, small, large, rare_share=0.0, length=300)
    in_small = sum(bool(data[i]["image"][1].max() <= 40) for i in range(300)) / 300
    assert in_small == pytest.approx(1600 / 9600, abs=0.08)


def test_a_crop_has_a_labelled_pixel_even_where_labels_are_rare(write_image):
    labels = np.full((400, 400), IGNORE, np.uint8)
    labels[390, 7] = 1
    labels[5, 5] = 0
    values = np.random.default_rng(0).integers(1, 99, (3, 400, 400), dtype=np.uint8)
    pair = write_image("a.tif", values), write_image("b.tif", labels)
    data = crops(pair, Window(row=0, col=0, height=400, width=400), length=30, rare_share=0.0)
    assert all(bool((data[i]["mask"] != IGNORE).any()) for i in range(30))


@pytest.mark.parametrize("size", [(10, 12), (32, 32), (100, 9)])
def test_images_smaller_than_a_tile_lie_in_an_unknown_surround(write_image, size):
    rng = np.random.default_rng(0)
    values, labels = rng.integers(1, 99, (3, *size), dtype=np.uint8), np.zeros(size, np.uint8)
    pair = write_image("a.tif", values), write_image("b.tif", labels)
    data = crops(pair, Window(row=0, col=0, height=size[0], width=size[1]))
    for i in range(10):
        sample = data[i]
        assert sample["image"].shape == (3, 32, 32)
        assert int(sample["valid"].sum()) == min(size[0], 32) * min(size[1], 32)
        assert (sample["mask"][~sample["valid"]] == IGNORE).all()


def test_regions_without_labels_are_an_error(write_image):
    values = np.random.default_rng(0).integers(1, 99, (3, 16, 16), dtype=np.uint8)
    pair = write_image("a.tif", values), write_image("b.tif", np.full((16, 16), IGNORE, np.uint8))
    with pytest.raises(EmptySplit, match="crops need regions with a labelled valid pixel, got none"):
        crops(pair, Window(row=0, col=0, height=16, width=16))


def test_an_index_outside_is_refused(pair):
    with pytest.raises(IndexError, match="crop 40 of 40"):
        crops(pair)[40]


@pytest.mark.parametrize("margin_px", [0, 5])
def test_tiles_hold_each_labelled_pixel_once(pair, margin_px):
    windows = [Window(row=0, col=0, height=70, width=50), Window(row=0, col=50, height=100, width=70)]
    regions = [Region(image=pair[0], label=pair[1], window=window, split="validation") for window in windows]
    tiles = Tiles(regions, classes=CLASSES, coding=PLAIN, config=config(), margin_px=margin_px)
    seen = Counter()
    for i in range(len(tiles)):
        sample = tiles[i]
        known = sample["mask"] != IGNORE
        rows, cols = sample["image"][0][known].long() - 1, sample["image"][1][known].long() - 1
        seen.update(zip(rows.tolist(), cols.tolist(), strict=True))
        assert torch.equal(sample["image"][2][known].long() - 1, sample["mask"][known])
    expected = {(r, c) for r in range(100) for c in range(120) if (c >= 50 or r < 70) and pair[3][r, c] != IGNORE}
    assert set(seen) == expected
    assert set(seen.values()) == {1}


def test_a_margin_shows_what_surrounds_a_tile_but_nothing_outside_the_regions(pair):
    windows = [Window(row=0, col=0, height=70, width=50), Window(row=0, col=50, height=100, width=70)]
    regions = [Region(image=pair[0], label=pair[1], window=window, split="train") for window in windows]
    sample = Tiles(regions, classes=CLASSES, coding=PLAIN, config=config(), margin_px=7)[3]  # rows 32 to 63, columns 32 to 49
    expected = pair[2][:, 25:71, 25:71].astype(np.float32)
    expected[:, 45:, :25] = 0  # below the first region, left of the second
    assert np.array_equal(sample["image"].numpy(), expected)
    assert np.array_equal(sample["valid"].numpy(), expected[0] > 0)
    rows, cols = np.nonzero(sample["mask"].numpy() != IGNORE)
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (7, 38, 7, 24)
