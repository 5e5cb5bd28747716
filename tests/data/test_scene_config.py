"""Settings that cannot be obeyed are refused where they are made."""

import pytest

from terralean.data.scene_config import SceneAugmentConfig, SceneDataConfig, SceneSplitConfig
from terralean.errors import ConfigError


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SceneSplitConfig(test=1.0), "data.split.test is a share, 0 up to below 1, got 1"),
        (lambda: SceneSplitConfig(validation=0.5, test=0.5), "leave nothing to train on"),
        (lambda: SceneSplitConfig(seed=-1), "data.split.seed is 0 or more, got -1"),
        (lambda: SceneAugmentConfig(crop_scale=(0.0, 1.0)), "crop_scale is a least and a largest share.*got 0 and 1"),
        (lambda: SceneAugmentConfig(crop_scale=(0.5, 1.2)), "got 0.5 and 1.2"),
        (lambda: SceneAugmentConfig(crop_ratio=(2.0, 1.0)), "crop_ratio.*got 2 and 1"),
        (lambda: SceneAugmentConfig(erasing=1.5), "erasing is a chance, 0 to 1, got 1.5"),
        (lambda: SceneAugmentConfig(rand_augment="randm9"), "'randm9' is not in timm's notation, such as rand-m9-mstd0.5-inc1"),
        (lambda: SceneAugmentConfig(rand_augment="rand-q9"), "'rand-q9' is not in timm's notation"),
        (lambda: SceneAugmentConfig(rand_augment="rand-m9.5"), "'rand-m9.5' is not in timm's notation"),
        (lambda: SceneAugmentConfig(rand_augment="rand-tmine"), "'rand-tmine' is not in timm's notation"),
        (lambda: SceneDataConfig(bands=(0, 1)), r"data.bands are different positions from 1, got \[0, 1\]"),
        (
            lambda: SceneDataConfig(resize_px=200),
            "resize_px 200 is less than data.size_px 224.*make it 224 or more, usual is 256",
        ),
        (lambda: SceneDataConfig(classes=("a", "a")), "data.classes must differ, got a, a"),
        (lambda: SceneDataConfig(group="tile("), "is not a regular expression"),
        (lambda: SceneDataConfig(least_px=0), "data.least_px must be above 0, got 0"),
        (lambda: SceneDataConfig(most_views=0), "data.most_views must be above 0, got 0"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("notation", ["rand-m9-mstd0.5-inc1", "rand-m5-n3", "rand-m7-tweights", "rand"])
def test_notations_of_timm_are_accepted(notation):
    assert SceneAugmentConfig(rand_augment=notation).rand_augment == notation
