"""Training crops depend on seed, epoch and index alone; what is judged does not change."""

import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from terralean.data.scene_config import SceneAugmentConfig, SceneDataConfig
from terralean.data.scene_crops import SceneCrops, SceneViews
from terralean.data.scene_index import find_scenes
from terralean.data.scene_reading import SceneFiles
from terralean.data.scene_samples import from_scene_samples
from terralean.errors import EmptySplit
from terralean.spec import Bands, Classes, Normalisation

NORMALISATION = Normalisation(mean=(120.0, 110.0, 100.0), std=(60.0, 61.0, 62.0))
FULL = SceneAugmentConfig(rand_augment="rand-m9-mstd0.5-inc1", erasing=0.25)


def files(root, **settings) -> SceneFiles:
    config = SceneDataConfig(size_px=32, resize_px=36, **settings)
    dataset = find_scenes(root, config)
    return SceneFiles(dataset.images, bands=dataset.bands, classes=dataset.classes, config=config)


@pytest.fixture
def crops(class_folders):
    root = class_folders({"a": 5, "b": 2})

    def make(*, seed: int = 0, length: int = 20, augment: SceneAugmentConfig = FULL) -> SceneCrops:
        pictures = files(root, augment=augment)
        return SceneCrops(pictures, normalisation=NORMALISATION, config=pictures.config, length=length, seed=seed)

    return make


@pytest.fixture
def numbered():
    """Seven samples without texture; the value of a crop is the number of its image."""
    samples = [{"image": torch.full((1, 20, 20), i), "label": torch.tensor(i % 3)} for i in range(7)]
    return from_scene_samples(samples, bands=Bands(names=("one",)), classes=Classes.named(["a", "b", "c"]))


def alike(one, other) -> bool:
    return all(torch.equal(one[key], other[key]) for key in ("image", "valid", "label"))


def test_the_same_seed_epoch_and_index_give_the_same_crop(crops):
    one, again = crops(), crops()
    torch.rand(3)
    for index in (3, 11, 3, 0, 19):
        assert alike(one[index], again[index])
    assert sum(torch.equal(one[i]["image"], crops(seed=1)[i]["image"]) for i in range(20)) == 0
    before = [one[i] for i in range(20)]
    one.set_epoch(1)
    assert sum(torch.equal(one[i]["image"], before[i]["image"]) for i in range(20)) == 0
    one.set_epoch(0)
    assert all(alike(one[i], before[i]) for i in range(20))


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_give_the_same_crops(crops, workers):
    dataset = crops()
    dataset.set_epoch(2)
    expected = [dataset[i] for i in range(20)]
    batches = list(DataLoader(crops_at(crops(), 2), batch_size=4, num_workers=workers))
    for key in ("image", "valid", "label"):
        assert torch.equal(torch.cat([batch[key] for batch in batches]), torch.stack([sample[key] for sample in expected]))


def crops_at(dataset: SceneCrops, epoch: int) -> SceneCrops:
    dataset.set_epoch(epoch)
    return dataset


def test_workers_that_outlive_an_epoch_see_the_next(crops):
    dataset = crops(length=4)
    loader = DataLoader(dataset, batch_size=4, num_workers=1, persistent_workers=True)
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        assert torch.equal(next(iter(loader))["image"], torch.stack([dataset[i]["image"] for i in range(4)]))


def test_a_copy_in_another_process_draws_the_same(crops):
    dataset = crops()
    expected = [dataset[i] for i in range(5)]
    sent = pickle.dumps(dataset)
    assert len(sent) < 40_000
    assert all(alike(pickle.loads(sent)[i], expected[i]) for i in range(5))


def test_each_turn_shows_every_image_once_and_goes_on_over_the_end_of_an_epoch(numbered):
    config = SceneDataConfig(size_px=16, resize_px=16)
    one = Normalisation(mean=(3.0,), std=(2.0,))
    crops = SceneCrops(numbered, normalisation=one, config=config, length=10, seed=0)
    shown = []
    for epoch in range(7):
        crops.set_epoch(epoch)
        for i in range(10):
            sample = crops[i]
            number = int(sample["image"][0, 0, 0])
            assert (sample["image"] == number).all()
            assert int(sample["label"]) == number % 3
            shown.append(number)
    turns = [tuple(shown[start : start + 7]) for start in range(0, 70, 7)]
    assert all(sorted(turn) == list(range(7)) for turn in turns)
    assert len(set(turns)) == 10


def test_types_and_units(crops):
    sample = crops(augment=SceneAugmentConfig())[0]
    assert sample["image"].dtype == torch.float32
    assert sample["image"].shape == (3, 32, 32)
    assert sample["image"].max() > 200
    assert sample["valid"].dtype == torch.bool
    assert sample["label"].dtype == torch.int64
    assert sample["label"].shape == ()


def test_there_is_no_crop_beyond_the_length_and_none_of_nothing(crops, class_folders):
    with pytest.raises(IndexError, match="crop 20 of 20"):
        crops()[20]
    pictures = files(class_folders({"a": 1, "b": 1}))
    nothing = SceneFiles((), bands=pictures.bands, classes=pictures.classes, config=pictures.config)
    with pytest.raises(EmptySplit, match="crops need images to be cut from, got none"):
        SceneCrops(nothing, normalisation=NORMALISATION, config=pictures.config, length=4, seed=0)


def test_decoded_images_are_kept_as_far_as_they_fit(class_folders, paint):
    root = class_folders({"a": 1, "b": 1})
    for i in range(6):
        paint(f"a/large{i}.png", size=(300, 300))
    pictures = files(root, cache_mb=1)
    size = 300 * 300 * 4
    for i in (*range(8), *range(8)):
        first, again = pictures.read(i), pictures.read(i)
        assert np.shares_memory(first.values, again.values)
        assert pictures.recent.used_bytes <= 1_000_000
    assert pictures.recent.used_bytes >= 2 * size


def test_views_have_labels_and_are_fixed(class_folders):
    pictures = files(class_folders({"a": 2, "b": 3}))
    views = SceneViews(pictures, config=pictures.config)
    assert len(views) == 5
    assert [int(views[i]["label"]) for i in range(5)] == [0, 0, 1, 1, 1]
    assert alike(views[3], views[3])
    assert views[3]["image"].shape == (1, 3, 32, 32)
    assert views[3]["valid"].shape == (1, 32, 32)
    assert views.one_size
    with pytest.raises(IndexError, match="image 5 of 5"):
        views[5]


def test_many_views_differ_in_number(class_folders, paint):
    root = class_folders({"a": 1, "b": 1})
    paint("a/wide.png", size=(200, 60))
    pictures = files(root, views="many")
    views = SceneViews(pictures, config=pictures.config)
    assert not views.one_size
    numbers = [len(views[i]["image"]) for i in range(3)]
    assert numbers[0] == numbers[2] < numbers[1] <= pictures.config.most_views


def test_real_images_of_every_class(shared):
    pictures = files(shared / "data" / "rgb" / "cls" / "eurosat_rgb", augment=FULL)
    crops = SceneCrops(pictures, normalisation=NORMALISATION, config=pictures.config, length=2500, seed=0)
    labels = Counter(int(crops[i]["label"]) for i in range(0, 2500, 25))
    assert set(labels) == set(range(10))
