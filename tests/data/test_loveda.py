"""LoveDA as it is published and as mmsegmentation merges it, in miniature: made here, with the true folders and numbers."""

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from terralean import recipes
from terralean.data.config import DataConfig, ListedSplit, SplitConfig
from terralean.data.conventions import check_labels
from terralean.data.index import Dataset, find
from terralean.data.leakage import check_leakage
from terralean.data.reading import Reader
from terralean.data.split import make_split
from terralean.errors import ConfigError, DatasetError, LabelError
from terralean.inspect.dataset import describe_dataset

SIZE = 32
IMAGES = {"Train": {"Urban": (0, 1), "Rural": (2, 3)}, "Val": {"Urban": (4,), "Rural": (5, 6)}, "Test": {"Rural": (7, 8)}}
NAMES = ("background", "building", "road", "water", "barren", "forest", "agricultural")
SHARES = (0.05, 0.4, 0.09, 0.06, 0.11, 0.04, 0.11, 0.14)  # of 0 (no data) and 1 to 7


def stored(number: int) -> NDArray[np.uint8]:
    """The published mask of an image, 0 to 7 in blocks of 2 px; every number is there."""
    rng = np.random.default_rng(number)
    blocks = rng.choice(8, (SIZE // 2, SIZE // 2), p=SHARES)
    blocks[5, 4:12] = range(8)
    return np.kron(blocks, np.ones((2, 2), dtype=int)).astype(np.uint8)


def picture(number: int) -> NDArray[np.uint8]:
    return np.random.default_rng(100 + number).integers(1, 255, (3, SIZE, SIZE), dtype=np.uint8)


def reduced(masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """As mmsegmentation's reduce_zero_label leaves them: 0 to 6, and 255 for no data."""
    return masks - np.uint8(1)


@pytest.fixture
def published(tmp_path, write_image):
    """A function that writes the publisher's folders; `numbers` may change the masks of a split."""

    def write(numbers=lambda masks, split: masks) -> Path:
        for split, scenes in IMAGES.items():
            for scene, names in scenes.items():
                for name in names:
                    write_image(f"LoveDA/{split}/{scene}/images_png/{name}.png", picture(name))
                    if split != "Test":
                        write_image(f"LoveDA/{split}/{scene}/masks_png/{name}.png", numbers(stored(name), split))
        return tmp_path / "LoveDA"

    return write


@pytest.fixture
def merged(tmp_path, write_image) -> Path:
    """The folders of mmsegmentation's converter."""
    for split, scenes in IMAGES.items():
        for name in (name for names in scenes.values() for name in names):
            write_image(f"mmseg/img_dir/{split.lower()}/{name}.png", picture(name))
            if split != "Test":
                write_image(f"mmseg/ann_dir/{split.lower()}/{name}.png", stored(name))
    return tmp_path / "mmseg"


def config(*changes: str) -> DataConfig:
    return recipes.read("loveda_swin_tiny_upernet", changes=changes).data


def labels(found: Dataset, settings: DataConfig) -> dict[str, NDArray[np.uint8]]:
    """Labels by the stem of their image, as training sees them."""
    reader = Reader(classes=found.classes, coding=found.coding, config=settings)
    return {
        Path(source.image).stem: reader.labels(source.image, source.label, reader.grid(source.image).window)
        for source in found.sources
    }


def proposed(message: str) -> list[str]:
    """The settings that an error says to make."""
    return re.findall(r'--set "(data\.\w+=.+?)"', message)


def refused(root: Path, settings: DataConfig) -> str:
    with pytest.raises(LabelError) as error:
        check_labels(find(root, settings), settings)
    return str(error.value)


def expected(name: int) -> NDArray[np.uint8]:
    return np.where(stored(name) == 0, 255, stored(name) - 1).astype(np.uint8)


def test_published_and_merged_folders_hold_the_same_seven_classes(published, merged):
    for root in (published(), merged):
        found = find(root, config())
        check_labels(found, config())
        assert found.classes.names == NAMES
        read = labels(found, config())
        assert sorted(read) == [str(name) for name in range(7)]
        for name, values in read.items():
            np.testing.assert_array_equal(values, expected(int(name)))


def test_what_publishers_score_themselves_is_left_out_and_told(published, merged):
    for root in (published(), merged):
        found = find(root, config())
        assert found.layout.endswith("7 pairs, split given: 4 train, 3 validation; 2 test images without labels left out")


def test_the_validation_images_are_scored_and_nothing_is_chosen_on_them(published):
    root = published()
    split = make_split(find(root, config()), config(), seed=0)
    assert {region.split: region.group for region in split.regions} == {"train": None, "test": None}
    assert sorted(Path(region.image).stem for region in split.of("test")) == ["4", "5", "6"]
    assert sorted(Path(region.image).stem for region in split.of("train")) == ["0", "1", "2", "3"]
    assert split.rule == "split given by the dataset, its validation as test"
    assert not check_leakage(split).leaks


def test_validation_may_be_taken_from_the_training_images(published):
    settings = config("data.split.validation=0.25")
    split = make_split(find(published(), settings), settings, seed=0)
    assert sorted(Path(region.image).stem for region in split.of("test")) == ["4", "5", "6"]
    assert len(split.of("validation")) == 1
    assert len(split.of("train")) == 3


def test_without_a_recipe_inspect_tells_whose_numbers_they_are(published):
    root = published()
    report = describe_dataset(root, DataConfig())
    (note,) = [finding for finding in report.findings if "LoveDA (0 no data, 1 to 7 the classes)" in finding.message]
    assert proposed(note.fix) == ["data.label_values=[1, 2, 3, 4, 5, 6, 7]", "data.ignore=[0]"]


def test_published_masks_read_from_zero_stop_with_what_to_set(published):
    root = published()
    message = refused(root, config("data.label_values=[0, 1, 2, 3, 4, 5, 6]", "data.ignore=[]"))
    assert "holds 7 (" in message
    assert message.endswith("as for LoveDA (0 no data, 1 to 7 the classes)")
    changes = proposed(message)
    assert changes == ["data.label_values=[1, 2, 3, 4, 5, 6, 7]", "data.ignore=[0]"]
    read = labels(find(root, config(*changes)), config(*changes))
    np.testing.assert_array_equal(read["5"], expected(5))


def test_masks_that_were_reduced_before_stop_with_what_to_set(published):
    root = published(lambda masks, split: reduced(masks))
    message = refused(root, config())
    assert "no label holds 7, while 0 to 6 are there" in message
    changes = proposed(message)
    assert changes == ["data.label_values=[0, 1, 2, 3, 4, 5, 6]", "data.ignore=[]"]
    read = labels(find(root, config(*changes)), config(*changes))
    np.testing.assert_array_equal(read["5"], expected(5))


def test_masks_of_which_a_split_was_reduced_stop(published):
    root = published(lambda masks, split: reduced(masks) if split == "Val" else masks)
    message = refused(root, config())
    assert "the labels of the test split look as if they were counted one lower than those that train" in message


def test_training_masks_that_are_gone_are_an_error(published):
    root = published()
    for path in (root / "Train/Rural/masks_png").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match=r"do not pair: images_png/2\.png has no mask, images_png/3\.png has no mask"):
        find(root, config())


@pytest.mark.parametrize(
    ("split", "found"), [("Test", "3 test and 3 validation images"), (None, "0 test and 0 validation images")]
)
def test_scoring_validation_needs_it_and_no_test_labels(published, write_image, split, found):
    root = published()
    if split:
        write_image("LoveDA/Test/Urban/images_png/9.png", picture(9))
        for scene, name in (("Urban", 9), ("Rural", 7), ("Rural", 8)):
            write_image(f"LoveDA/Test/{scene}/masks_png/{name}.png", stored(name))
    else:
        (root / "Val").rename(root / "kept")
    with pytest.raises(DatasetError, match=rf"the data give {found} with labels;.*--set data\.split\.test_from=test"):
        make_split(find(root, config()), config(), seed=0)


@pytest.mark.parametrize("other", [{"rule": "groups"}, {"listed": ListedSplit(train=("a",))}])
def test_only_a_given_split_has_a_validation_part_to_score(other):
    with pytest.raises(ConfigError, match=r"data\.split\.test_from validation is for a split that folders or an index give"):
        SplitConfig(test_from="validation", **other)
