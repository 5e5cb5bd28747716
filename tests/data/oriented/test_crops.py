"""Tiles with objects as samples to train and to validate on."""

import numpy as np
import pytest
import torch

from terralean.data.oriented.augment import ObjectsAugmentConfig
from terralean.data.oriented.config import DetectionDataConfig, RadiometryConfig
from terralean.data.oriented.crops import (
    ObjectCrops,
    ObjectTiles,
    bands_of,
    collate,
    cut_pictures,
    learnable,
    measure_tiles,
    training_tiles,
)
from terralean.data.oriented.dota import write_labels
from terralean.data.oriented.layouts import ObjectsConfig, find_objects
from terralean.errors import ConfigError, EmptySplit

STILL = {"augment": ObjectsAugmentConfig(flips=False, rotate90=False), "radiometry": RadiometryConfig(brightness=0, contrast=0)}
CORNERS = [[2.0, 2, 12, 2, 12, 8, 2, 8], [44.0, 20, 52, 20, 52, 30, 44, 30], [30.0, 33, 31, 33, 31, 34, 30, 34]]


@pytest.fixture
def pictures(scene, tmp_path):
    """An image of 60 x 40 px whose bands say row and column, with two objects and a tiny one."""
    scene("set/images/one.tif")
    write_labels(tmp_path / "set/labelTxt/one.txt", np.array(CORNERS), ("boat", "car", "car"), np.zeros(3, np.uint8))
    return find_objects(tmp_path / "set", ObjectsConfig())


def config(**values) -> DetectionDataConfig:
    return DetectionDataConfig(**{"tile_px": 32, "overlap_px": 8, **STILL, **values})


def test_tiles_show_their_window_with_the_objects_in_its_pixels(pictures):
    chosen = config()
    tiles = ObjectTiles(cut_pictures(pictures.pictures, chosen, judge=True), classes=pictures.classes, config=chosen)
    assert len(tiles) == 6  # columns 0, 24, 28 and rows 0, 8
    for placed, sample in zip(tiles.tiles, tiles, strict=False):
        window = placed.tile.window
        assert sample["image"][:, 0, 0].tolist() == [window.row + 1, window.col + 1] and sample["valid"].all()
        for corners, label, hard in zip(sample["bbox"], sample["labels"], sample["difficult"], strict=True):
            on_image = (corners.reshape(4, 2) + torch.tensor([window.col, window.row])).reshape(8)
            same = [i for i, known in enumerate(CORNERS) if torch.allclose(on_image, torch.tensor(known))]
            assert len(same) == 1 and int(label) == [0, 1, 1][same[0]]
            inside = (corners >= 0).all() and (corners <= 32).all()
            assert bool(hard) == (not inside) or inside


def test_training_has_tiles_with_objects_and_those_without_apart(pictures):
    chosen = config(tile_px=20, overlap_px=0, empty_share=0.5, iof=0.9)
    some, none = training_tiles(pictures.pictures, classes=pictures.classes, config=chosen)
    assert all(len(one.tile.objects) for one in some.tiles) and all(not len(one.tile.objects) for one in none.tiles)
    assert len(none) > 0
    assert len(training_tiles(pictures.pictures, classes=pictures.classes, config=config())[1]) == 0


def test_objects_too_small_or_outside_are_not_learned(pictures):
    chosen = config(tile_px=64)
    sample = ObjectTiles(cut_pictures(pictures.pictures, chosen, judge=True), classes=pictures.classes, config=chosen)[0]
    kept = learnable(sample, least_px=2.0)
    assert kept["labels"].tolist() == [0, 1] and len(kept["bbox"]) == len(kept["difficult"]) == 2
    assert learnable(sample, least_px=0.0)["labels"].tolist() == [0, 1, 1]
    moved = {**sample, "bbox": sample["bbox"] - 1000}
    assert len(learnable(moved, least_px=0.0)["labels"]) == 0
    with pytest.raises(EmptySplit, match="no training tile of 64 px has an object with a side of 20 px"):
        training_tiles(pictures.pictures, classes=pictures.classes, config=config(tile_px=64, least_px=20.0))


def crops(pictures, chosen, *, seed=0):
    some, none = training_tiles(pictures.pictures, classes=pictures.classes, config=chosen)
    bands = bands_of(pictures.pictures, chosen)
    normalisation = measure_tiles(some, bands=bands, seed=0)
    return ObjectCrops(some, none, normalisation=normalisation, config=chosen, length=len(some), seed=seed)


def test_every_tile_is_there_once_in_a_turn_in_another_order_each(pictures):
    found = crops(pictures, config())
    orders = []
    for epoch in range(4):
        found.set_epoch(epoch)
        orders.append([tuple(one["image"][:, 0, 0].int().tolist()) for one in (found[i] for i in range(len(found)))])
    assert len({frozenset(order) for order in orders}) == 1 and len({*orders[0]}) == len(found)
    assert len({tuple(order) for order in orders}) > 1


def test_crops_are_the_same_for_the_same_seed_and_epoch(pictures):
    chosen = config(augment=ObjectsAugmentConfig(angle_deg=45.0), radiometry=RadiometryConfig())
    one, other = crops(pictures, chosen), crops(pictures, chosen, seed=1)
    first, again, elsewhere = one[0], one[0], other[0]
    assert torch.equal(first["image"], again["image"]) and torch.equal(first["bbox"], again["bbox"])
    assert not torch.equal(first["image"], elsewhere["image"])


def test_a_batch_keeps_objects_as_lists(pictures):
    found = crops(pictures, config())
    batch = collate([found[0], found[1]])
    assert batch["image"].shape == (2, 2, 32, 32) and batch["valid"].shape == (2, 32, 32)
    assert [len(some) for some in batch["bbox"]] == [len(some) for some in batch["labels"]]


def test_normalisation_is_that_of_the_tiles(pictures):
    chosen = config(tile_px=64)
    some, _ = training_tiles(pictures.pictures, classes=pictures.classes, config=chosen)
    found = measure_tiles(some, bands=bands_of(pictures.pictures, chosen), seed=0)
    assert found.mean == pytest.approx((20.5, 30.5))
    assert found.std == pytest.approx((np.arange(40).std(), np.arange(60).std()), rel=1e-2)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"overlap_px": 32}, "data.overlap_px must be 0 or more and below data.tile_px 32"),
        ({"iof": 0.0}, "data.iof"),
        ({"empty_share": 1.0}, "data.empty_share"),
        ({"bands": (0,)}, "data.bands"),
        ({"tile_px": 0}, "data.tile_px"),
        ({"group": "("}, "not a regular expression"),
    ],
)
def test_settings_out_of_range_are_refused(values, told):
    with pytest.raises(ConfigError, match=told):
        config(**values)
