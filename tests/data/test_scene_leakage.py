"""The very same pixels, or the same group, on two sides of a split are called a leak."""

import pytest

from terralean.data.scene_check import check_images
from terralean.data.scene_config import SceneDataConfig, SceneSplitConfig
from terralean.data.scene_index import find_scenes
from terralean.data.scene_leakage import scene_leakage
from terralean.data.scene_split import deal_scenes


@pytest.fixture
def verdict(class_folders, paint):
    """Of four images that train, two that test and one that validates; the first ones as painted with these seeds."""

    def words(*, test: int = 1, validation: int = 2, group: str | None = None) -> str:
        class_folders({"field": 1, "water": 1}, within="train")
        paint("train/field/x.png", seed=10)
        paint("train/water/y.png", seed=11)
        paint("test/field/t.png")
        paint("test/water/u.bmp", seed=test)
        root = paint("val/field/v.png", seed=validation).parents[2]
        config = SceneDataConfig(group=group, split=SceneSplitConfig(rule="given"))
        checked = check_images(find_scenes(root, config), config)
        return scene_leakage(deal_scenes(checked.dataset, config, seed=0), seen=checked.seen)

    return words


def test_nothing_in_common(verdict):
    assert verdict() == (
        "no leak found: none of 2 test and 1 validation images has the very same pixels as one of 4 training images; which are "
        "neighbours on the ground is not known, data.group can say"
    )


def test_the_same_pixels_in_training_and_test(verdict):
    assert verdict(test=10) == "LEAKS: 1 of 2 test images hold the same pixels as a training image (u.bmp = x.png)"


def test_the_same_pixels_in_training_and_validation(verdict):
    assert verdict(test=11, validation=10) == (
        "LEAKS: 1 of 2 test images hold the same pixels as a training image (u.bmp = y.png); "
        "1 of 1 validation images hold the same pixels as a training image (v.png = x.png)"
    )


def test_the_same_group_on_two_sides(verdict):
    assert verdict(group="png|bmp") == (
        "LEAKS: 1 of 2 test images share a group with training (1 group, png for one); "
        "1 of 1 validation images share a group with training (1 group, png for one)"
    )


def test_groups_that_are_apart(verdict):
    assert verdict(group="^.") == (
        "no leak found: none of 2 test and 1 validation images has the very same pixels as one of 4 training images or shares "
        "its group"
    )


def test_nothing_to_compare(class_folders):
    root = class_folders({"field": 3, "water": 3}, within="train")
    config = SceneDataConfig(split=SceneSplitConfig(validation=0.0))
    checked = check_images(find_scenes(root, config), config)
    split = deal_scenes(checked.dataset, config, seed=0)
    assert scene_leakage(split, seen=checked.seen).startswith("no leak found: there is nothing to compare")


def test_real_sets(shared):
    """None of these has an image twice."""
    for name in ("eurosat_rgb", "aid_150", "rsscn7"):
        config = SceneDataConfig()
        checked = check_images(find_scenes(shared / "data" / "rgb" / "cls" / name, config), config)
        assert len({seen.digest for seen in checked.seen.values()}) == len(checked.dataset.images)
        assert scene_leakage(deal_scenes(checked.dataset, config, seed=0), seen=checked.seen).startswith("no leak found")
