"""Five-Billion-Pixels as it is published, in miniature: made here, with the true folders, names, numbers and colours."""

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from terralean import recipes
from terralean.data.config import DataConfig
from terralean.data.conventions import check_labels
from terralean.data.familiar import FIVE_BILLION
from terralean.data.index import Dataset, find
from terralean.data.leakage import check_leakage
from terralean.data.reading import Reader
from terralean.data.split import make_split
from terralean.errors import ConfigError, DatasetError, LabelError
from terralean.inspect.dataset import describe_dataset
from terralean.raster.coding import as_hex

HEIGHT, WIDTH = 40, 48
SCENES = tuple(f"GF2_PMS{1 + i % 2}__L1A00001{89089 + 7 * i}-MSS{1 + i % 2}" for i in range(10))
COLOURS = np.array([(0, 0, 0), *FIVE_BILLION.classes], dtype=np.uint8)  # by number, 0 first


def stored(scene: str) -> NDArray[np.uint8]:
    """The published numbers, 0 to 24 in blocks of 4 px; every number is there."""
    rng = np.random.default_rng(SCENES.index(scene))
    blocks = np.concatenate([np.arange(25), rng.integers(0, 25, 95)])
    return np.kron(rng.permutation(blocks).reshape(10, 12), np.ones((4, 4), dtype=int)).astype(np.uint8)


def near_infrared_first(scene: str) -> NDArray[np.uint8]:
    return np.random.default_rng(100 + SCENES.index(scene)).integers(1, 255, (4, HEIGHT, WIDTH), dtype=np.uint8)


def painted(scene: str) -> NDArray[np.uint8]:
    return np.ascontiguousarray(COLOURS[stored(scene)].transpose(2, 0, 1))


@pytest.fixture
def delivery(tmp_path, write_image) -> Path:
    """Ten scenes in the publisher's folders."""
    for scene in SCENES:
        nir, red, green, blue = near_infrared_first(scene)
        write_image(f"FBP/Image__8bit_NirRGB/{scene}.tif", np.stack([nir, red, green, blue]), photometric="minisblack")
        write_image(f"FBP/Image_16bit_BGRNir/{scene}.tif", np.stack([blue, green, red, nir]).astype(np.uint16) * 4)
        write_image(f"FBP/Annotation__index/{scene}_24label.png", stored(scene))
        write_image(f"FBP/Annotation__color/{scene}_24label.tif", painted(scene))
    (tmp_path / "FBP/Coordinate_files").mkdir()
    return tmp_path / "FBP"


@pytest.fixture
def clips(tmp_path, write_image) -> Path:
    """Clips of 24 px in mmsegmentation's folders, the left ones to train, the right ones to validate."""
    for scene in SCENES[:5]:
        for split, col in (("train", 0), ("val", 24)):
            name = f"{scene}_{col}_0_{col + 24}_24"
            part = (slice(0, 24), slice(col, col + 24))
            values = near_infrared_first(scene)[:, *part]
            write_image(f"clips/img_dir/{split}/{name}.tif", values, photometric="minisblack")  # else the fourth is alpha
            write_image(f"clips/ann_dir/{split}/{name}.png", stored(scene)[part])
    return tmp_path / "clips"


CLIPS = ("data.images=img_dir", "data.labels=ann_dir")


def config(*changes: str) -> DataConfig:
    return recipes.read("fbp_swin_tiny_upernet", changes=changes).data


def labels(found: Dataset, settings: DataConfig) -> dict[str, NDArray[np.uint8]]:
    reader = Reader(classes=found.classes, coding=found.coding, config=settings)
    return {
        Path(source.image).stem: reader.labels(source.image, source.label, reader.grid(source.image).window)
        for source in found.sources
    }


def proposed(message: str) -> list[str]:
    return re.findall(r'--set "(data\.\w+=.+?)"', message)


def refused(root: Path, settings: DataConfig) -> str:
    with pytest.raises(LabelError) as error:
        check_labels(find(root, settings), settings)
    return str(error.value)


def check_read(root: Path, settings: DataConfig) -> None:
    """The labels are the published ones less 1, with 0 ignored."""
    found = find(root, settings)
    check_labels(found, settings)
    read = labels(found, settings)
    assert sorted(read) == sorted(SCENES)
    for scene, values in read.items():
        np.testing.assert_array_equal(values, stored(scene) - np.uint8(1))  # 0 - 1 is 255


# Encodings.


@pytest.mark.parametrize("folder", ["Annotation__index", "Annotation__color"])
def test_numbers_and_colours_become_24_classes_without_what_is_unlabelled(delivery, folder):
    settings = config(f"data.labels={folder}")
    check_read(delivery, settings)
    found = find(delivery, settings)
    assert found.classes.names == tuple(FIVE_BILLION.classes.values())
    assert found.classes.colours == tuple(FIVE_BILLION.classes)
    assert found.classes.names[0] == "industrial area"
    assert found.classes.names[20] == "road"
    assert found.classes.names[23] == "airport"


@pytest.mark.parametrize(
    ("changes", "scale"),
    [((), 1), (("data.images=Image_16bit_BGRNir", "data.bands=[3, 2, 1]"), 4)],
)
def test_three_bands_are_red_green_and_blue(delivery, changes, scale):
    settings = config(*changes)
    found = find(delivery, settings)
    reader = Reader(classes=found.classes, coding=found.coding, config=settings)
    source = found.sources[3]
    values, valid = reader.values(source.image, reader.grid(source.image).window)
    np.testing.assert_array_equal(values, near_infrared_first(Path(source.image).stem)[1:].astype(int) * scale)
    assert valid.all()


@pytest.mark.parametrize(
    ("folder", "bands", "right"),
    [("Image_16bit_BGRNir", [2, 3, 4], [3, 2, 1]), ("Image__8bit_NirRGB", [3, 2, 1], [2, 3, 4])],
)
def test_bands_of_the_other_folder_stop_with_what_to_set(delivery, folder, bands, right):
    settings = config(f"data.images={folder}", f"data.bands={bands}")
    with pytest.raises(ConfigError, match=re.escape(f"here: --set data.bands={right}")):
        find(delivery, settings)


def test_a_delivery_says_which_folders_there_are_to_choose_from(delivery):
    with pytest.raises(DatasetError, match=r"say which is meant, --set data\.images=Image_16bit_BGRNir"):
        find(delivery, DataConfig())


# What is mistaken.


FOLDERS = ("data.images=Image__8bit_NirRGB", "data.labels=Annotation__index")


def test_numbers_read_from_zero_stop_with_what_to_set(delivery):
    message = refused(delivery, config("data.label_values=null", 'data.ignore=["#000000"]'))
    assert "holds 24 (" in message
    changes = proposed(message)
    assert changes[0] == f"data.label_values={list(range(1, 25))}"
    check_read(delivery, config(*changes))


def test_what_is_unlabelled_and_not_ignored_stops_with_what_to_set(delivery):
    message = refused(delivery, config("data.ignore=[]"))
    assert "holds 0 (" in message
    assert proposed(message) == ["data.ignore=[0]"]
    check_read(delivery, config("data.ignore=[0]"))


def test_25_classes_found_in_the_index_are_24(delivery):
    """Without a recipe every number would be a class, what has no label first."""
    settings = recipes.data_config(FOLDERS)
    message = refused(delivery, settings)
    assert "25 classes are read from labels such as" in message
    fixed = recipes.data_config([*FOLDERS, *proposed(message)])
    found = find(delivery, fixed)
    check_labels(found, fixed)
    assert len(found.classes) == 24
    trusted = recipes.data_config([*FOLDERS, "data.trust_labels=true"])
    check_labels(find(delivery, trusted), trusted)


def test_a_class_named_unlabelled_stops_with_what_to_set(delivery):
    names = ["unlabelled", *FIVE_BILLION.classes.values()]
    settings = recipes.data_config([*FOLDERS, f"data.classes={names}"])
    message = refused(delivery, settings)
    assert "unlabelled is a class that is trained and scored" in message
    assert proposed(message) == ["data.ignore=[unlabelled]"]
    fixed = recipes.data_config([*FOLDERS, f"data.classes={names}", *proposed(message)])
    check_read(delivery, fixed)


def test_colours_as_blue_green_red_in_the_settings_stop_with_what_to_set(delivery):
    exchanged = [as_hex((blue, green, red)) for red, green, blue in FIVE_BILLION.classes]
    changes = ("data.labels=Annotation__color", f"data.colours={exchanged}")
    message = refused(delivery, config(*changes))
    assert "with red and blue exchanged" in message
    fixed = config(*changes, *proposed(message))
    assert fixed.colours == tuple(as_hex(colour) for colour in FIVE_BILLION.classes)
    check_read(delivery, fixed)


def test_colours_as_blue_green_red_in_the_files_stop_with_what_to_set(delivery, write_image):
    for scene in SCENES:
        write_image(f"FBP/Annotation__color/{scene}_24label.tif", np.ascontiguousarray(painted(scene)[::-1]))
    message = refused(delivery, config("data.labels=Annotation__color"))
    check_read(delivery, config("data.labels=Annotation__color", *proposed(message)))


def test_colours_without_settings_are_told_apart(delivery):
    with pytest.raises(LabelError, match="they are those of Five-Billion-Pixels") as error:
        find(delivery, recipes.data_config(["data.images=Image__8bit_NirRGB", "data.labels=Annotation__color"]))
    changes = proposed(str(error.value))
    check_read(delivery, recipes.data_config(["data.images=Image__8bit_NirRGB", "data.labels=Annotation__color", *changes]))


def test_inspect_tells_whose_numbers_they_are(delivery):
    report = describe_dataset(delivery, recipes.data_config(FOLDERS))
    assert any("Five-Billion-Pixels (0 unlabelled, 1 to 24 the classes)" in finding.message for finding in report.findings)


# Splits.


def test_whole_scenes_are_dealt_by_the_seed(delivery):
    splits = {seed: make_split(find(delivery, config()), config(f"data.split.seed={seed}"), seed=9) for seed in (0, 1, 2, 3)}
    for split in splits.values():
        sides = [{region.group for region in split.of(name)} for name in ("train", "test")]
        assert not sides[0] & sides[1]
        assert sorted(sides[0] | sides[1]) == sorted(SCENES)
        assert len(sides[1]) == 2
        assert split.of("validation") == ()
    again = make_split(find(delivery, config()), config(), seed=7)
    assert again.regions == splits[0].regions  # the run's seed changes nothing
    assert len({split.of("test") for split in splits.values()}) > 1
    assert not check_leakage(splits[0]).leaks


def test_clips_of_one_scene_stay_together_whatever_their_folders_say(clips):
    settings = config(*CLIPS)
    split = make_split(find(clips, settings), settings, seed=0)
    sides = [{region.group for region in split.of(name)} for name in ("train", "test")]
    assert not sides[0] & sides[1]
    assert len(split.regions) == 10
    assert split.rule.startswith("whole groups: 4 train, 1 test")
    assert not check_leakage(split).leaks


def test_clips_of_one_scene_on_both_sides_are_told(clips):
    settings = config(*CLIPS, "data.split={rule: given, validation: 0, test_from: validation}")
    leakage = check_leakage(make_split(find(clips, settings), settings, seed=0))
    assert leakage.leaks
    assert "group" in leakage.verdict
