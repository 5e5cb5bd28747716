"""Numbers of another convention are refused with the settings that fit, and what is as it should be passes."""

import logging
import re
from dataclasses import replace

import numpy as np
import pytest
import yaml

from terralean.data.config import DataConfig
from terralean.data.conventions import _Expected, _files, _unlike_splits, check_labels, doubts
from terralean.data.index import find
from terralean.errors import LabelError
from terralean.raster.coding import Coding

IMAGE = np.random.default_rng(0).integers(1, 255, (3, 40, 40), dtype=np.uint8)
SHARES = (0.3, 0.25, 0.22, 0.15, 0.03, 0.05)  # of six classes, the last two as rare as cars and clutter
NAMES = ("surface", "building", "low", "tree", "car")
OFFICIAL = DataConfig(classes=NAMES, ignore=(5,))
MMSEG = DataConfig(classes=NAMES, label_values=(1, 2, 3, 4, 5), ignore=(0, 6))
ALL = tuple(range(6))


def official(seed: int, present=ALL) -> np.ndarray:
    """Numbers 0 to 5 in blocks of 2 px, of those present."""
    shares = np.array([SHARES[i] if i in present else 0 for i in ALL])
    return np.kron(np.random.default_rng(seed).choice(6, (20, 20), p=shares / shares.sum()), np.ones((2, 2), int))


def mmseg(seed: int, present=ALL, *, boundary: bool = True) -> np.ndarray:
    """The same one higher, and 0 along some rows."""
    values = official(seed, present) + 1
    if boundary:
        values[::20] = 0
    return values


@pytest.fixture
def dataset(tmp_path, write_image):
    """A function that writes labels by split and name, and finds the dataset."""

    def make(labels: dict[str, np.ndarray], config: DataConfig):
        for name, values in labels.items():
            write_image(f"images/{name}.tif", IMAGE)
            write_image(f"labels/{name}.tif", values.astype(np.uint8))
        return find(tmp_path, config)

    return make


def several(make, *seeds: int, folder: str = "train", **more) -> dict[str, np.ndarray]:
    return {f"{folder}/{make.__name__}{seed}": make(seed, **more) for seed in seeds}


def refused(found, config: DataConfig) -> str:
    with pytest.raises(LabelError) as error:
        check_labels(found, config)
    return str(error.value)


def proposed(message: str, config: DataConfig) -> DataConfig:
    """The config with the settings that an error proposes."""
    changes = dict(re.findall(r'--set "data\.(\w+)=(.+?)"', message))
    values = {key: tuple(yaml.safe_load(text)) for key, text in changes.items() if key != "trust_labels"}
    return DataConfig(**{"classes": config.classes, "colours": config.colours, **values})


@pytest.mark.parametrize(
    ("make", "config"), [(official, OFFICIAL), (mmseg, MMSEG), (official, DataConfig()), (mmseg, DataConfig())]
)
def test_labels_of_the_recipes_convention_pass(dataset, make, config, caplog):
    check_labels(dataset(several(make, 0, 1) | several(make, 2, folder="val"), config), config)
    assert not [record for record in caplog.records if record.name == "terralean.data.conventions"]


# All labels of another convention.


def test_mmseg_labels_for_an_official_recipe_stop_with_the_settings_that_fit(dataset):
    labels = several(mmseg, 0, 1, 2) | several(mmseg, 3, folder="val")
    found = dataset(labels, OFFICIAL)
    message = refused(found, OFFICIAL)
    path, pixels = found.sources[0].label, int((labels["train/mmseg0"] == 6).sum())
    assert message.startswith(
        f"{path} holds 6 ({pixels} px); the classes are 0 surface, 1 building, 2 low, 3 tree, 4 car; ignored: 5, 255\n"
    )
    assert "there are 4 such files: " in message
    assert message.endswith(
        'counted one higher all 4 label files fit; if they are: --set "data.label_values=[1, 2, 3, 4, 5]" --set '
        '"data.ignore=[0, 6]", as for ISPRS Potsdam as mmseg\'s converter writes it (0 boundary, 1 to 5 the classes, 6 clutter)'
    )
    assert proposed(message, OFFICIAL) == MMSEG
    check_labels(dataset({}, MMSEG), MMSEG)


def test_official_labels_for_an_mmseg_recipe_stop_though_every_number_is_listed(dataset, caplog):
    message = refused(dataset(several(official, 0, 1, 2), MMSEG), MMSEG)
    assert message == (
        "no label holds 6, while 0 to 5 are there; read are 1 surface, 2 building, 3 low, 4 tree, 5 car, 0 ignored, 6 ignored; "
        'counted one lower they fit exactly; if they are: --set "data.label_values=[0, 1, 2, 3, 4]" --set "data.ignore=[5]", '
        "as for ISPRS Potsdam as most papers number it (0 to 4 the classes, 5 clutter); if they are right as they are: "
        "--set data.trust_labels=true"
    )
    fitting = proposed(message, MMSEG)
    check_labels(dataset({}, fitting), fitting)
    trusting = DataConfig(classes=NAMES, label_values=(1, 2, 3, 4, 5), ignore=(0, 6), trust_labels=True)
    check_labels(dataset({}, trusting), trusting)
    assert "no label holds 6, while 0 to 5 are there" in caplog.text


def test_a_first_class_that_is_nowhere_is_taken_for_a_shift(dataset):
    labels = several(mmseg, 0, 1, 2, present=(0, 1, 2, 3, 4), boundary=False)
    message = refused(dataset(labels, OFFICIAL), OFFICIAL)
    assert message.startswith("no label holds 0, while 1 to 5 are there")
    assert proposed(message, OFFICIAL) == MMSEG


def test_labels_counted_from_one_are_told(dataset):
    config = DataConfig(classes=(*NAMES, "clutter"))
    message = refused(dataset(several(mmseg, 0, 1, boundary=False), config), config)
    assert 'if they are: --set "data.label_values=[1, 2, 3, 4, 5, 6]" --set "data.ignore=[0]"' in message
    assert message.endswith("as for ISPRS Potsdam as mmseg's converter writes it (0 boundary, 1 to 6 the classes with clutter)")


def test_a_class_ignored_by_its_name_leaves_settings_that_fit_too(dataset):
    config = DataConfig(classes=(*NAMES, "clutter"), ignore=("clutter",))
    message = refused(dataset(several(mmseg, 0, 1), config), config)
    fitting = proposed(message, config)
    assert (fitting.classes, fitting.label_values, fitting.ignore) == (NAMES, (1, 2, 3, 4, 5), (0, 6))
    check_labels(dataset({}, fitting), fitting)


def test_numbers_that_no_shift_explains_are_listed_by_file(dataset):
    labels = several(official, 0, 1, 2)
    labels["train/official1"][0, :3] = 9
    labels["train/official2"][0, :2] = 77
    message = refused(dataset(labels, OFFICIAL), OFFICIAL)
    assert re.search(r"train/official1\.tif holds 9 \(3 px\); the classes are 0 surface", message)
    assert re.search(r"there are 2 such files: \S+official1\.tif, \S+official2\.tif$", message)


# Two conventions in one dataset.


@pytest.mark.parametrize("boundary", [False, True])
@pytest.mark.parametrize("folder", ["train", "val"])
def test_files_of_two_conventions_are_named_by_kind(dataset, boundary, folder):
    labels = several(official, 0, 1, 2) | several(mmseg, 3, 4, folder=folder, boundary=boundary)
    message = refused(dataset(labels, OFFICIAL), OFFICIAL)
    one, other = message.split("; ")[:2]
    assert one.startswith("the labels are numbered in two ways: 0 to 5 in ")
    assert other.startswith(f"{'0' if boundary else '1'} to 6 in ")
    assert [name in one for name in ("official0", "official1", "official2", "mmseg3", "mmseg4")] == [True] * 3 + [False] * 2
    assert [name in other for name in ("official0", "official1", "official2", "mmseg3", "mmseg4")] == [False] * 3 + [True] * 2
    assert ("(validation)" in other) == (folder == "val")
    assert "--set" not in message
    assert message.endswith("write all of them by one converter, so that a number means the same in each")


@pytest.mark.parametrize("config", [MMSEG, DataConfig()], ids=["mmseg", "unnamed"])
def test_two_conventions_are_found_where_every_number_is_listed(dataset, config):
    labels = several(official, 0, 1) | several(mmseg, 3, 4, boundary=False)
    message = refused(dataset(labels, config), config)
    assert re.search(r"^the labels are numbered in two ways: 0 to 5 in \S+official0.*; 1 to 6 in \S+mmseg3", message)
    assert ("if there are 7 classes name them in data.classes" in message) == (config is not MMSEG)
    named = DataConfig(classes=(*NAMES, "clutter", "other"))
    check_labels(dataset({}, named), named)


def test_a_file_with_both_ends_means_one_convention(dataset):
    labels = several(official, 0) | several(mmseg, 3, boundary=False) | several(mmseg, 4)
    assert doubts(dataset(labels, MMSEG), MMSEG) == []


def few(*numbers: int) -> np.ndarray:
    return np.kron(np.random.default_rng(0).choice(numbers, (20, 20)), np.ones((2, 2), int))


def test_few_classes_are_numbered_in_two_ways_where_whole_splits_are(dataset):
    labels = {"train/a": few(0, 1, 2), "train/b": few(0, 1, 2), "val/c": few(1, 2, 3), "test/d": few(1, 2, 3)}
    message = refused(dataset(labels, DataConfig()), DataConfig())
    assert re.search(
        r"^the labels are numbered in two ways: 0 to 2 in \S+a\.tif \(train\).*; 1 to 3 in \S+d\.tif \(test\)", message
    )
    assert "if there are 4 classes name them in data.classes" in message


def test_few_classes_in_two_kinds_of_files_are_only_warned_of(dataset, caplog):
    found = dataset({"train/a": few(0, 1, 2), "train/b": few(1, 2, 3), "val/c": few(0, 1, 2)}, DataConfig())
    check_labels(found, DataConfig())
    assert "the labels are numbered in two ways: 0 to 2 in" in caplog.text


def test_tiles_with_two_of_three_classes_are_nothing_odd(dataset):
    found = dataset({"train/a": few(0, 1), "train/b": few(1, 2), "val/c": few(0, 1)}, DataConfig())
    assert doubts(found, DataConfig()) == []


# By shares alone.


def test_a_validation_split_of_another_convention_stops_where_its_numbers_fit_that_exactly(dataset):
    labels = several(mmseg, 0, 1) | several(official, 2, 3, folder="val")
    message = refused(dataset(labels, MMSEG), MMSEG)
    assert re.match(r"the labels of the validation split look as if they were counted one lower than those that train", message)
    assert re.search(r"shares 0: \d+%, 1: .* against 0: \d+%, 1: .*, \d+ times closer if so; files: \S+official2", message)


def test_a_validation_split_that_may_be_shifted_is_warned_of(dataset, caplog):
    """Without clutter the numbers of both conventions are 0 to 5: only how often each is there tells them apart."""
    present = (0, 1, 2, 3, 4)
    labels = several(official, 0, 1, present=present) | several(mmseg, 2, 3, folder="val", present=present)
    found = dataset(labels, OFFICIAL)
    check_labels(found, OFFICIAL)
    assert "the labels of the validation split look as if they were counted one higher than those that train" in caplog.text
    assert [doubt.kind for doubt in doubts(found, OFFICIAL)] == ["hint"]


def test_a_shift_is_found_in_real_shares_and_none_where_there_is_none(shared):
    """Classes of Dubai's training and test images, as they are and with the test numbers one higher."""
    folder = shared / "data" / "rgb" / "seg" / "dubai"
    found = find(folder, DataConfig())
    assert doubts(found, DataConfig()) == []
    files = _files(found, DataConfig())
    higher = [replace(f, counts={n + (f.split == "test"): px for n, px in f.counts.items()}) for f in files]
    expected = _Expected(coding=Coding(ignored=(5,)), classes=found.classes)
    assert _unlike_splits(files, expected) == []
    (doubt,) = _unlike_splits(higher, expected)
    assert "the labels of the test split look as if they were counted one higher" in doubt.message


def test_other_scenery_is_no_shift(dataset):
    """Splits with other shares, and few classes whose shares are exchanged."""
    town, wood = (0.4, 0.4, 0.1, 0.05, 0.05), (0.05, 0.1, 0.35, 0.45, 0.05)
    rng = np.random.default_rng(0)
    labels = {f"train/{i}": rng.choice(5, (40, 40), p=town) for i in range(3)}
    labels |= {f"val/{i}": rng.choice(5, (40, 40), p=wood) for i in range(3, 6)}
    config = DataConfig(classes=NAMES)
    assert doubts(dataset(labels, config), config) == []


def test_two_classes_may_change_places(dataset):
    rng = np.random.default_rng(0)
    labels = {"train/a": rng.random((40, 40)) < 0.1, "test/b": rng.random((40, 40)) < 0.9}
    assert doubts(dataset(labels, DataConfig()), DataConfig()) == []


# Colours.


def test_colours_that_are_not_listed_are_counted_over_all_files(dataset, tmp_path, write_image):
    colours = np.array([(255, 0, 0), (0, 0, 255)], dtype=np.uint8)
    config = DataConfig(classes=("a", "b"), colours=("#ff0000", "#0000ff"))
    for i in range(3):
        values = np.moveaxis(colours[np.arange(1600).reshape(40, 40) % 2], -1, 0)
        values[:, 0, :i] = np.array([[0], [3], [252]])
        write_image(f"images/{i}.tif", IMAGE)
        write_image(f"labels/{i}.tif", values)
    message = refused(find(tmp_path, config), config)
    assert "1.tif holds colours that are no class: #0003fc (1 px, nearest: b #0000ff, 3 off)" in message
    assert message.endswith(
        f"--set data.colour_tolerance=3\nthere are 2 such files: {tmp_path}/labels/1.tif, {tmp_path}/labels/2.tif"
    )


def test_tolerated_pixels_are_counted(tmp_path, write_image, caplog):
    values = np.zeros((3, 40, 40), dtype=np.uint8)
    values[2, :20], values[0, 20:] = 255, 255
    values[2, 0, :5] = 252
    write_image("images/a.tif", IMAGE)
    write_image("labels/a.tif", values)
    config = DataConfig(classes=("a", "b"), colours=("#ff0000", "#0000ff"), colour_tolerance=3)
    with caplog.at_level(logging.INFO, logger="terralean.data"):
        check_labels(find(tmp_path, config), config)
    assert "5 label pixels are of no listed colour, but at most 3 off one, and read as it" in caplog.text
