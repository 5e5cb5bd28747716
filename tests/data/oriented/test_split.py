"""Images with objects dealt to train, validate and test."""

import json

import numpy as np
import pytest

from terralean.data.oriented.config import DetectionDataConfig, ObjectsSplitConfig
from terralean.data.oriented.dota import write_labels
from terralean.data.oriented.layouts import ObjectsConfig, find_objects
from terralean.data.oriented.split import deal_objects, leakage, load_objects_split, read_root, resplit, save_objects_split
from terralean.errors import ConfigError, DatasetError, EmptySplit, LabelError

NAMES = ("boat", "car")


@pytest.fixture
def folder(scene, tmp_path):
    """Images PLACE_NUMBER under DOTA's folders, each with a boat and a car."""

    def make(names: list[str], *, split: str = "", apart: bool = True):
        root = tmp_path / "set"
        for number, name in enumerate(names):
            scene(f"set/{split}/images/{name}.tif", left_m=5e5 + (1000 * number if apart else 0))
            corners = np.array([[10.0, 10, 30, 10, 30, 20, 10, 20], [40, 10, 50, 10, 50, 30, 40, 30]])
            write_labels(root / split / "labelTxt" / f"{name}.txt", corners, NAMES, np.zeros(2, np.uint8))
        return root

    return make


def config(group: str | None = None, **split) -> DetectionDataConfig:
    return DetectionDataConfig(group=group, split=ObjectsSplitConfig(**split))


def splits(dealt) -> dict[str, str]:
    return {one.record.image.rsplit("/", 1)[1].removesuffix(".tif"): one.split for one in dealt.pictures.pictures}


def test_images_of_a_group_stay_together(folder):
    found = find_objects(folder([f"{place}_{number}" for place in "abcdef" for number in range(3)]), ObjectsConfig())
    dealt = deal_objects(found, config(group="^[a-f]", validation=0.2, test=0.2), seed=0)
    by_place = {place: {split for name, split in splits(dealt).items() if name[0] == place} for place in "abcdef"}
    assert all(len(some) == 1 for some in by_place.values())
    assert {*splits(dealt).values()} == {"train", "validation", "test"}
    assert leakage(dealt).startswith("no leak found")
    again = deal_objects(found, config(group="^[a-f]", validation=0.2, test=0.2), seed=0)
    assert splits(again) == splits(dealt)


def test_folders_say_the_split_and_a_share_of_training_validates(folder):
    folder(["e"], split="test")
    root = folder(["a", "b", "c", "d"], split="train")
    dealt = deal_objects(find_objects(root, ObjectsConfig()), config(validation=0.25), seed=0)
    found = [*splits(dealt).values()]
    assert (found.count("train"), found.count("validation"), splits(dealt)["e"]) == (3, 1, "test")
    assert "25% of training validates" in dealt.rule


def test_merged_validation_images_train(folder):
    folder(["b"], split="val")
    root = folder(["a"], split="train")
    dealt = deal_objects(find_objects(root, ObjectsConfig()), config(merge=True), seed=0)
    assert splits(dealt) == {"a": "train", "b": "train"}
    assert dealt.rule == "as the data give it, validation images train, too: train 2 images"


def test_images_that_share_ground_leak(folder):
    found = find_objects(folder(["a", "b", "c"], apart=False), ObjectsConfig())
    told = leakage(deal_objects(found, config(validation=0.3, test=0.3), seed=0))
    assert told.startswith("LEAKS: ") and "shares ground with" in told


def test_a_split_on_disk_comes_back(folder, tmp_path):
    root = folder(["a", "b", "c", "d"])
    found = find_objects(root, ObjectsConfig())
    dealt = deal_objects(found, config(), seed=3)
    path = tmp_path / "split.json"
    save_objects_split(dealt, path)
    assert read_root(path) == root.resolve()
    assert sum(len(load_objects_split(path).of(name)) for name in ("train", "validation", "test")) == 4
    again = resplit(found, path)
    assert splits(again) == splits(dealt) and (again.rule, again.seed) == (dealt.rule, 3)
    assert json.loads(path.read_text())["classes"] == list(NAMES)
    (root / "images" / "d.tif").unlink()
    (root / "labelTxt" / "d.txt").unlink()
    with pytest.raises(DatasetError, match=r"d.tif is not there; restore the data"):
        resplit(find_objects(root, ObjectsConfig()), path)


def test_a_split_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "split.json"
    path.write_text('{"format": 1}')
    with pytest.raises(DatasetError, match="holds regions of scenes in format 1; expected images with oriented objects"):
        read_root(path)


def test_too_few_images_are_told(folder):
    found = find_objects(folder(["a"]), ObjectsConfig())
    with pytest.raises(EmptySplit, match=r"of 1 image none is left for validation.*data.split.validation=0"):
        deal_objects(found, config(), seed=0)
    alone = deal_objects(found, config(validation=0, test=0), seed=0)
    assert splits(alone) == {"a": "train"}


def test_a_class_that_no_training_image_has_is_told(folder):
    found = find_objects(folder(["a", "b"]), ObjectsConfig(classes=(*NAMES, "plane")))
    with pytest.raises(LabelError, match="no training image has an object of plane"):
        deal_objects(found, config(validation=0, test=0.5), seed=0)


def test_a_rule_that_the_data_do_not_give_is_refused(folder):
    found = find_objects(folder(["a", "b"]), ObjectsConfig())
    with pytest.raises(DatasetError, match=r"give no split; leave data.split.rule out"):
        deal_objects(found, config(rule="given"), seed=0)
    with pytest.raises(DatasetError, match=r"data.group 'x\(.\)' is not found in a.tif"):
        deal_objects(found, config(group="x(.)"), seed=0)


@pytest.mark.parametrize(("values", "told"), [({"validation": 1.0}, "is a share"), ({"validation": 0.5, "test": 0.5}, "leave")])
def test_shares_out_of_range_are_refused(values, told):
    with pytest.raises(ConfigError, match=told):
        ObjectsSplitConfig(**values)
