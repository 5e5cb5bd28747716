"""Labels of ISPRS Potsdam in which every number or colour is listed and yet means something else."""

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from terralean import recipes
from terralean.data.config import DataConfig
from terralean.data.conventions import check_labels
from terralean.data.index import find
from terralean.data.reading import Reader
from terralean.errors import LabelError

SIZE = 40
BOUNDARY = 6
SHARES = (0.27, 0.25, 0.22, 0.14, 0.02, 0.05, 0.05)  # of the six classes and the boundary
COLOURS = np.array(
    [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0), (0, 0, 0)], dtype=np.uint8
)
TILES = ("2_10", "2_13")
SIX = ("impervious surface", "building", "low vegetation", "tree", "car", "clutter")
NUMBERS = {"mmseg": ("[1, 2, 3, 4, 5, 6]", "[0]"), "geoseg": ("[0, 1, 2, 3, 4, 5]", "[6]")}
FIVE = {"mmseg": ("[1, 2, 3, 4, 5]", "[0, 6]"), "geoseg": ("[0, 1, 2, 3, 4]", "[5, 6]")}


def truth(tile: str) -> NDArray[np.int64]:
    """0 to 5 the classes, 6 the boundary; all are there."""
    blocks = np.random.default_rng(int(tile.replace("_", ""))).choice(7, (SIZE // 2, SIZE // 2), p=SHARES)
    blocks[3, 1:8] = range(7)
    return np.kron(blocks, np.ones((2, 2), dtype=int))


@pytest.fixture
def write(tmp_path, write_image):
    """A function that writes two tiles with labels as `store` makes them of the truth."""

    def make(store) -> Path:
        for tile in TILES:
            values = np.random.default_rng(0).integers(1, 255, (3, SIZE, SIZE), dtype=np.uint8)
            write_image(f"2_Ortho_RGB/top_potsdam_{tile}_RGB.tif", values)
            write_image(f"5_Labels_all_noBoundary/top_potsdam_{tile}_label_noBoundary.tif", store(truth(tile)))
        return tmp_path

    return make


def painted(numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(COLOURS[numbers].transpose(2, 0, 1))


def blue_first(numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(painted(numbers)[::-1])


def mmseg(numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
    return ((numbers + 1) % 7).astype(np.uint8)


def geoseg(numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
    return numbers.astype(np.uint8)


def config(*changes: str) -> DataConfig:
    listed = f"data.split.listed={{train: ['{TILES[0]}'], test: ['{TILES[1]}']}}"
    return recipes.read("potsdam6_swin_tiny_upernet", changes=[listed, *changes]).data


def numbered(values: str, ignore: str, *changes: str) -> DataConfig:
    return config(f"data.label_values={values}", f"data.ignore={ignore}", *changes)


def check_read(root: Path, settings: DataConfig, *, classes: int = 6) -> None:
    found = find(root, settings)
    check_labels(found, settings)
    reader = Reader(classes=found.classes, coding=found.coding, config=settings)
    for source in found.sources:
        expected = truth(re.search(r"\d_\d+", Path(source.image).name).group())
        read = reader.labels(source.image, source.label, reader.grid(source.image).window)
        np.testing.assert_array_equal(read, np.where(expected < classes, expected, 255))


def proposed(root: Path, settings: DataConfig) -> list[str]:
    with pytest.raises(LabelError) as error:
        check_labels(find(root, settings), settings)
    assert "if they are right as they are: --set data.trust_labels=true" in str(error.value)
    return re.findall(r'--set "(data\.\w+=.+?)"', str(error.value))


def test_six_classes_with_clutter_are_read_from_colours_and_from_both_numberings(write):
    check_read(write(painted), config())
    for store in (mmseg, geoseg):
        check_read(write(store), numbered(*NUMBERS[store.__name__]))


def test_the_recipes_hold_six_classes_the_split_of_mmsegmentation_and_the_published_training():
    for name in ("potsdam6_swin_tiny_upernet", "potsdam6_vit_base_segvit"):
        six, five = recipes.read(name), recipes.read("potsdam_lemevit_tiny_upernet")
        assert six.data.classes == SIX
        assert six.data.split == five.data.split
        told = {key: getattr(six.training, key) for key in ("steps", "batch", "lr", "weight_decay", "warmup_steps", "schedule")}
        assert told == {
            "steps": 40_000, "batch": 4, "lr": 2e-4, "weight_decay": 0.01, "warmup_steps": 1500, "schedule": "poly"
        }  # fmt: skip
        assert six.data.tile_px == six.tiling.tile_px == 512


def test_files_painted_blue_first_stop_with_what_to_set(write):
    root = write(blue_first)
    changes = proposed(root, config())
    check_read(root, config(*changes))


def test_settings_with_colours_blue_first_stop_with_what_to_set(write):
    root = write(painted)
    wrong = config('data.colours=["#ffffff", "#ff0000", "#ffff00", "#00ff00", "#00ffff", "#0000ff"]')
    changes = proposed(root, wrong)
    assert "data.colours=['#ffffff', '#0000ff', '#00ffff', '#00ff00', '#ffff00', '#ff0000']" in changes
    check_read(root, config(*changes))


def test_colours_blue_first_in_files_and_in_settings_are_read(write):
    check_read(write(blue_first), config('data.colours=["#ffffff", "#ff0000", "#ffff00", "#00ff00", "#00ffff", "#0000ff"]'))


@pytest.mark.parametrize(("stored", "read"), [(mmseg, "geoseg"), (geoseg, "mmseg")])
def test_numbers_of_the_other_converter_stop_with_what_to_set(write, stored, read):
    """Both are 0 to 6: no number is strange, only the shares of the classes are."""
    root = write(stored)
    changes = proposed(root, numbered(*NUMBERS[read]))
    assert changes == [
        f"data.{key}={told}" for key, told in zip(("label_values", "ignore"), NUMBERS[stored.__name__], strict=True)
    ]
    check_read(root, numbered(*NUMBERS[read], *changes))


@pytest.mark.parametrize(("stored", "read"), [(mmseg, "geoseg"), (geoseg, "mmseg")])
def test_without_clutter_too(write, stored, read):
    root, five = write(stored), f"data.classes={list(SIX[:5])}"
    colours = 'data.colours=["#ffffff", "#0000ff", "#00ffff", "#00ff00", "#ffff00"]'
    changes = proposed(root, numbered(*FIVE[read], five, colours))
    check_read(root, numbered(*FIVE[read], five, colours, *changes), classes=5)


def test_labels_that_are_trusted_are_read_as_the_settings_say(write, caplog):
    root = write(geoseg)
    settings = numbered(*NUMBERS["mmseg"], "data.trust_labels=true")
    check_labels(find(root, settings), settings)
    assert "in ISPRS Potsdam it is the rarest" in caplog.text


def test_cars_may_be_common_where_no_other_reading_makes_them_rare(write):
    def parking(numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        out = numbers.copy()
        out[:24] = 4
        return painted(out)

    check_labels(find(write(parking), config()), config())
