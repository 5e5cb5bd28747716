"""The room's settings refuse what they cannot obey."""

import re

import pytest

from terralean.data.config import AugmentConfig, DataConfig, ListedSplit, SplitConfig
from terralean.errors import ConfigError


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: SplitConfig(validation=0.5, test=0.5), "leave nothing to train on"),
        (lambda: SplitConfig(test=1.5), "data.split.test is a share, 0 up to below 1, got 1.5"),
        (lambda: SplitConfig(block_px=0), "data.split.block_px must be above 0, got 0"),
        (lambda: SplitConfig(gap_m=-1), "data.split.gap_m is a distance, 0 or more, got -1"),
        (lambda: AugmentConfig(zoom=(2.0, 0.5)), "got 2 and 0.5"),
        (lambda: AugmentConfig(noise=-0.1), "data.augment.noise is 0 or more, got -0.1"),
        (lambda: DataConfig(bands=(0, 1)), "different positions from 1, got [0, 1]"),
        (lambda: DataConfig(bands=(2, 2)), "different positions from 1, got [2, 2]"),
        (lambda: DataConfig(group="tile("), "'tile(' is not a regular expression"),
        (lambda: DataConfig(rare_share=1.1), "data.rare_share is a share, 0 to 1, got 1.1"),
        (lambda: DataConfig(label_values=(1, 1)), "data.label_values are different whole numbers, -32768 to 65535, got [1, 1]"),
        (lambda: DataConfig(label_values=(255,)), "-32768 to 65535 but not 255, got [255]"),
        (lambda: DataConfig(ignore=(70_000, "water")), "data.ignore are different whole numbers, -32768 to 65535, got [70000]"),
        (lambda: DataConfig(ignore=("#ff00",)), "a colour is #rrggbb, got '#ff00'"),
        (lambda: DataConfig(colours=("red",)), "a colour is #rrggbb, got 'red'"),
        (lambda: DataConfig(colour_tolerance=65), "data.colour_tolerance is 0 to 64, got 65"),
        (lambda: ListedSplit(train=()), "data.split.listed.train is empty; list the groups that train"),
        (lambda: ListedSplit(train=("a", "b"), unused=("b",)), "data.split.listed names b more than once"),
        (lambda: SplitConfig(rule="blocks", listed=ListedSplit(train=("a",))), "so data.split.rule blocks has no effect"),
        (lambda: DataConfig(tile_px=0), "data.tile_px must be above 0, got 0"),
    ],
)
def test_a_setting_that_cannot_be_obeyed_is_an_error(make, text):
    with pytest.raises(ConfigError, match=re.escape(text)):
        make()


def test_defaults_are_valid_and_nested():
    config = DataConfig()
    assert config.split == SplitConfig()
    assert config.augment == AugmentConfig()
