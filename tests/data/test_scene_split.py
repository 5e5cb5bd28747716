"""Every image is in one split, classes have the same shares, groups stay whole, and the same seed deals the same."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from terralean.data.scene_config import SceneDataConfig, SceneSplitConfig
from terralean.data.scene_index import SceneDataset, SceneImage
from terralean.data.scene_split import deal_scenes, load_scene_split, save_scene_split
from terralean.errors import ConfigError, DatasetError, EmptySplit, LabelError, MissingFile
from terralean.spec import Bands, Classes

NAMES = ("train", "validation", "test")


def dataset(counts: dict[str, int], *, groups: int = 0, split=None) -> SceneDataset:
    """So many images of each class; of `groups` groups by turns, and in the split that `split(i)` says."""
    classes = Classes.named(list(counts))
    images = [
        SceneImage(
            path=f"/data/{name}/{i}.png",
            label=label,
            group=f"g{i % groups}" if groups else None,
            split=split(i) if split else None,
        )
        for label, (name, count) in enumerate(counts.items())
        for i in range(count)
    ]
    return SceneDataset(root="/data", layout="", images=tuple(images), classes=classes, bands=Bands(names=("band_1",)))


def deal(data: SceneDataset, seed: int = 0, group: str | None = None, **settings):
    return deal_scenes(data, SceneDataConfig(split=SceneSplitConfig(**settings), group=group), seed=seed)


def by_class(split) -> dict[str, list[int]]:
    counts = Counter((image.label, image.split) for image in split.images)
    return {name: [counts[label, each] for each in NAMES] for label, name in enumerate(split.classes)}


def test_at_random_each_class_has_its_shares():
    split = deal(dataset({"a": 100, "b": 40, "c": 3, "d": 2, "e": 1}))
    assert split.method == "random"
    assert by_class(split) == {"a": [65, 15, 20], "b": [26, 6, 8], "c": [1, 1, 1], "d": [2, 0, 0], "e": [1, 0, 0]}
    assert split.rule == "images at random, each class in the same shares: 95 train, 22 validation, 29 test"
    assert [len(split.of(name)) for name in NAMES] == [95, 22, 29]


def test_each_image_is_dealt_once_and_the_same_for_the_same_seed():
    data = dataset({"a": 50, "b": 30})
    one, again, other = deal(data), deal(data), deal(data, seed=1)
    assert [replace(image, split=None) for image in one.images] == list(data.images)
    assert one == again
    assert one.images != other.images


def test_a_seed_of_the_settings_goes_before_the_runs():
    data = dataset({"a": 50, "b": 30})
    assert deal(data, seed=3).images != deal(data, seed=4).images
    fixed = [deal_scenes(data, SceneDataConfig(split=SceneSplitConfig(seed=9)), seed=seed) for seed in (3, 4)]
    assert fixed[0] == fixed[1]
    assert fixed[0].seed == 9


def test_shares_may_be_nothing():
    split = deal(dataset({"a": 10, "b": 10}), validation=0.0, test=0.3)
    assert by_class(split) == {"a": [7, 0, 3], "b": [7, 0, 3]}


def test_groups_stay_whole():
    data = dataset({"a": 60, "b": 60}, groups=12)
    split = deal(data)
    assert split.method == "groups"
    sides = {group: {image.split for image in split.images if image.group == group} for group in {f"g{i}" for i in range(12)}}
    assert all(len(side) == 1 for side in sides.values())
    assert Counter(next(iter(side)) for side in sides.values()) == {"train": 8, "validation": 2, "test": 2}
    assert split.rule == "whole groups: 8 train, 2 validation, 2 test"


def test_an_image_without_a_group_is_one_of_its_own():
    data = dataset({"a": 30, "b": 30}, groups=3)
    data = replace(data, images=tuple(replace(i, group=None if i.label else i.group) for i in data.images))
    split = deal(data)
    assert all(counts[0] > 0 for counts in by_class(split).values())
    assert len({(image.group, image.split) for image in split.images if image.group}) == 3


def test_validation_is_carved_from_training_where_only_tests_are_given():
    data = dataset({"a": 50, "b": 50}, split=lambda i: "test" if i < 10 else "train")
    split = deal(data)
    assert by_class(split) == {"a": [34, 6, 10], "b": [34, 6, 10]}
    assert {image.path for image in split.of("test")} == {image.path for image in data.images if image.split == "test"}
    assert split.rule == (
        "split given by the dataset: 80 train, 20 test, validation taken from its training part: images at random, each class "
        "in the same shares: 68 train, 12 validation"
    )


def test_validation_is_carved_by_groups_where_they_are_known():
    data = dataset({"a": 50, "b": 50}, groups=10, split=lambda i: "test" if i % 10 < 2 else "train")
    split = deal(data)
    assert "validation taken from its training part: whole groups: 7 train, 1 validation" in split.rule
    assert not {i.group for i in split.of("validation")} & {i.group for i in split.of("train")}


def test_a_given_split_is_kept():
    data = dataset({"a": 9, "b": 9}, split=lambda i: NAMES[i % 3])
    assert deal(data).images == data.images
    alone = dataset({"a": 9, "b": 9}, split=lambda i: "train")
    assert deal(alone, validation=0.0).images == alone.images
    assert deal(data, rule="random").images != data.images


@pytest.mark.parametrize(
    ("data", "settings", "kind", "message"),
    [
        (dataset({"a": 9, "b": 9}), {"rule": "given"}, ConfigError, "rule is given, but neither an index.csv nor lists nor"),
        (dataset({"a": 9, "b": 9}), {"rule": "groups"}, ConfigError, "rule is groups, but the images have no groups"),
        (dataset({"a": 9, "b": 9}), {"rule": "random", "group": "x"}, ConfigError, "data.group has no effect with it"),
        (dataset({"a": 2, "b": 2}), {}, EmptySplit, r"/data: the validation split is empty \(images at random.*: 4 train\)"),
        (dataset({"a": 9, "b": 9}, split=lambda i: "test"), {}, EmptySplit, "none of the 18 images is given to train"),
        (dataset({"a": 9, "b": 9}, groups=2), {}, EmptySplit, "too few groups, capture smaller ones by data.group"),
    ],
)
def test_splits_that_cannot_be(data, settings, kind, message):
    with pytest.raises(kind, match=message):
        deal(data, **settings)


def test_a_class_in_test_that_is_not_in_train():
    data = dataset({"a": 9, "b": 4, "c": 9}, split=lambda i: "train")
    images = [
        replace(i, split=("test" if n % 2 else "validation") if i.label == 1 else "train") for n, i in enumerate(data.images)
    ]
    with pytest.raises(LabelError) as error:
        deal(replace(data, images=tuple(images)))
    assert str(error.value) == (
        "/data: no training image of b (2 in test, 2 in validation, /data/b/0.png for one): the model cannot learn it; give "
        "some to train, split the data otherwise (data.split, --seed), or take the class out"
    )


def test_a_split_is_kept_in_a_file(tmp_path):
    split = deal(dataset({"a": 20, 'b "], [" b': 20}, groups=5))
    path = tmp_path / "split.json"
    save_scene_split(split, path)
    assert load_scene_split(path) == split
    assert load_scene_split(path, root=Path("/moved")).images[0].path == "/moved/a/0.png"
    assert json.loads(path.read_text())["images"][0][0] == "a/0.png"
    assert not list(tmp_path.glob("*.part"))


def test_files_that_hold_no_split_of_images(tmp_path):
    with pytest.raises(MissingFile, match="it is written when training starts"):
        load_scene_split(tmp_path / "split.json")
    (tmp_path / "split.json").write_text('{"format": 1, "regions": []}')
    with pytest.raises(DatasetError, match="holds regions of scenes in format 1; expected labelled images in format 1"):
        load_scene_split(tmp_path / "split.json")
