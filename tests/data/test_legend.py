"""Classes and their coding follow from recipe, table and labels, and what contradicts itself is refused."""

import re

import numpy as np
import pytest
import rasterio
from PIL import Image

from terralean.data.config import DataConfig
from terralean.data.index import find
from terralean.data.legend import Legend, rgb
from terralean.data.reading import Reader
from terralean.errors import ConfigError, LabelError
from terralean.raster.coding import PLAIN, Coding
from terralean.raster.grid import Window
from terralean.spec import Classes

IMAGE = np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8)
NUMBERS = np.arange(64).reshape(8, 8) % 4
COLOURS = np.array([(255, 0, 0), (0, 200, 0), (0, 0, 255), (9, 9, 9)], dtype=np.uint8)
WINDOW = Window(row=0, col=0, height=8, width=8)


@pytest.fixture
def folder(write_image, tmp_path):
    """Two images and what is given of their labels."""

    def make(labels: np.ndarray, other: np.ndarray | None = None):
        for name, values in (("a", labels), ("b", labels if other is None else other)):
            write_image(f"images/{name}.tif", IMAGE)
            write_image(f"labels/{name}.tif", values)
        return tmp_path

    return make


def painted(numbers: np.ndarray = NUMBERS) -> np.ndarray:
    return np.moveaxis(COLOURS[numbers], -1, 0)


def read(root, config: DataConfig, legend: Legend | None = None) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the classes, and the first image's labels."""
    found = find(root, config, legend=legend)
    reader = Reader(classes=found.classes, coding=found.coding, config=config)
    return found.classes.names, reader.labels(found.sources[0].image, found.sources[0].label, WINDOW)


NAMES = ("w", "x", "y", "z")
HEX = ("#ff0000", "#00c800", "#0000ff", "#090909")


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("colours", [False, True])
def test_an_ignored_class_leaves_and_the_others_close_up(folder, table, colours):
    root = folder(painted() if colours else NUMBERS.astype(np.uint8))
    config = DataConfig(ignore=("x",)) if table else DataConfig(classes=NAMES, colours=HEX, ignore=("x",))
    if table:
        rows = [f"{i},{name},{colour}" for i, (name, colour) in enumerate(zip(NAMES, HEX, strict=True))]
        (root / "classes.csv").write_text("value,name,colour\n" + "\n".join(rows))
    names, labels = read(root, config)
    assert names == ("w", "y", "z")
    np.testing.assert_array_equal(labels, np.array([0, 255, 1, 2])[NUMBERS])
    assert find(root, config).classes.colours == (rgb("#ff0000"), rgb("#0000ff"), rgb("#090909"))


def test_stored_numbers_come_from_recipe_or_table(folder):
    root = folder(np.array([0, 10, 20, 30])[NUMBERS].astype(np.uint8))
    expected = np.array([255, 2, 0, 1])[NUMBERS]
    config = DataConfig(classes=("a", "b", "c"), label_values=(20, 30, 10), ignore=(0,))
    names, labels = read(root, config)
    assert names == ("a", "b", "c")
    np.testing.assert_array_equal(labels, expected)
    (root / "classes.csv").write_text("value,name\n30,b\n10,c\n20,a\n")
    names, labels = read(root, DataConfig(ignore=(0,)))
    assert names == ("c", "a", "b")
    np.testing.assert_array_equal(labels, np.array([255, 0, 1, 2])[NUMBERS])
    assert read(root, DataConfig(label_values=(10, 20, 30), ignore=(0,)))[0] == ("c", "a", "b")


def test_unnamed_classes_are_the_numbers_that_are_not_ignored(folder):
    root = folder((NUMBERS + 1).astype(np.uint8), other=NUMBERS.astype(np.uint8))
    names, labels = read(root, DataConfig(ignore=(0,)))
    assert names == ("class 1", "class 2", "class 3", "class 4")
    np.testing.assert_array_equal(labels, NUMBERS)


def test_plain_numbers_have_a_plain_coding_whatever_colours_they_are_drawn_in(folder):
    root = folder(NUMBERS.astype(np.uint8))
    assert find(root, DataConfig(classes=NAMES, colours=HEX)).coding == PLAIN


def test_colours_without_meaning_are_listed_by_their_share(folder):
    root = folder(painted(np.minimum(NUMBERS, 2)))
    for config in (DataConfig(), DataConfig(classes=("a", "b", "c"))):
        with pytest.raises(LabelError) as error:
            find(root, config)
        assert str(error.value) == (
            f"{root}/labels/a.tif holds colours: #0000ff (50.0%), #00c800 (25.0%), #ff0000 (25.0%); say which class has which "
            "with data.classes and data.colours, or in classes.csv with the columns value,name,colour, and list those without "
            "a class in data.ignore"
        )


def test_the_colours_of_potsdam_are_recognised(folder):
    paint = np.array([(255, 255, 255), (0, 0, 255), (0, 255, 0), (255, 0, 0)], dtype=np.uint8)
    with pytest.raises(LabelError) as error:
        find(folder(np.moveaxis(paint[NUMBERS], -1, 0)), DataConfig())
    assert str(error.value).endswith(
        'in data.ignore; they are those of ISPRS Potsdam: --set "data.classes=[impervious surface, building, low vegetation, '
        "tree, car]\" --set \"data.colours=['#ffffff', '#0000ff', '#00ffff', '#00ff00', '#ffff00']\" "
        "--set \"data.ignore=['#ff0000', '#000000']\" (clutter and boundary are ignored)"
    )


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"classes": NAMES, "ignore": (0,)},
            "data.ignore holds 0, which is also the stored number of the class w; to leave that class out say data.ignore=[w]; "
            "if the classes are stored as other numbers list them: data.label_values=[1, 2, 3, 4] for example",
        ),
        (
            {"classes": NAMES, "ignore": ("yy",)},
            "data.ignore names yy, but the classes are w, x, y, z; nearest: y; name a class",
        ),
        (
            {"classes": NAMES, "label_values": (0, 1)},
            "data.label_values has 2 entries for the 4 classes w, x, y, z; give each one",
        ),
        ({"classes": NAMES, "colours": HEX[:3]}, "data.colours has 3 entries for the 4 classes w, x, y, z; give each one"),
        ({"classes": ("w",), "ignore": ("w",)}, "1 to 254 classes, got 0 beside those in data.ignore"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(folder, settings, text):
    with pytest.raises((ConfigError, LabelError), match=re.escape(text)):
        find(folder(NUMBERS.astype(np.uint8)), DataConfig(**settings))


@pytest.mark.parametrize(
    ("colours", "more", "text"),
    [
        (
            (*HEX[:3], "#0000ff"),
            {},
            "y and z have the colours #0000ff and #0000ff, which cannot be told apart with data.colour_tolerance 0; give each",
        ),
        (
            (*HEX[:3], "#0a0a0a"),
            {"ignore": ("#090909",), "colour_tolerance": 1},
            "z and data.ignore have the colours #0a0a0a and",
        ),
        ((*HEX[:3], "#00000b"), {"ignore": ("#090909",), "colour_tolerance": 5}, "set data.colour_tolerance below 4.5"),
    ],
)
def test_colours_that_cannot_be_told_apart_are_refused(folder, colours, more, text):
    with pytest.raises(ConfigError, match=re.escape(text)):
        find(folder(painted()), DataConfig(classes=NAMES, colours=colours, **more))


# Palettes.


@pytest.fixture
def palettes(folder):
    """The same ground in both label files, each with a palette in an order of its own."""
    root = folder(NUMBERS.astype(np.uint8))
    for name, order in (("a", [2, 0, 3, 1]), ("b", [1, 3, 2, 0])):
        (root / f"labels/{name}.tif").unlink()
        image = Image.fromarray(np.argsort(order)[NUMBERS].astype(np.uint8), mode="P")
        image.putpalette(COLOURS[order].ravel().tolist())
        image.save(root / f"labels/{name}.png")
    return root


def test_palettes_in_different_orders_are_read_by_their_colours(palettes):
    names, labels = read(palettes, DataConfig(classes=NAMES[:3], colours=HEX[:3], ignore=(HEX[3],)))
    assert names == NAMES[:3]
    np.testing.assert_array_equal(labels, np.array([0, 1, 2, 255])[NUMBERS])


def test_palettes_in_different_orders_are_no_numbers(palettes, caplog):
    with pytest.raises(LabelError) as error:
        find(palettes, DataConfig(classes=NAMES))
    assert str(error.value) == (
        f"0 is #0000ff in the palette of {palettes}/labels/a.png and #00c800 in that of {palettes}/labels/b.png: not the "
        "numbers but the colours stand for classes; say which with data.classes and data.colours, and list the others in "
        "data.ignore; if it is the numbers all the same: --set data.trust_labels=true"
    )
    _, labels = read(palettes, DataConfig(classes=NAMES, trust_labels=True))
    np.testing.assert_array_equal(labels, np.array([1, 3, 0, 2])[NUMBERS])
    assert "0 is #0000ff in the palette of" in caplog.text


def test_a_palette_that_only_draws_leaves_the_numbers_alone(folder):
    root = folder(NUMBERS.astype(np.uint8))
    for name in "ab":
        (root / f"labels/{name}.tif").unlink()
        image = Image.fromarray(NUMBERS.astype(np.uint8), mode="P")
        image.putpalette(list(range(12)))
        image.save(root / f"labels/{name}.png")
    _, labels = read(root, DataConfig(classes=NAMES, colours=HEX))
    np.testing.assert_array_equal(labels, NUMBERS)


# A trained model's legend.


@pytest.mark.parametrize("palette", [False, True])
def test_a_known_legend_reads_labels_of_colours_by_the_colours_of_its_map(folder, palettes, palette):
    legend = Legend(
        classes=Classes(names=NAMES[:3], colours=tuple(map(rgb, HEX[:3]))), coding=Coding(ignored_colours=(rgb(HEX[3]),))
    )
    if not palette:
        for name in "ab":
            (palettes / f"labels/{name}.png").unlink()
    root = palettes if palette else folder(painted())
    if palette:
        for name in "ab":
            assert not (root / f"labels/{name}.tif").exists()
    names, labels = read(root, DataConfig(classes=("never", "read")), legend)
    assert names == NAMES[:3]
    np.testing.assert_array_equal(labels, np.array([0, 1, 2, 255])[NUMBERS])


def test_real_masks_of_colours_and_palettes_become_the_labels_made_of_them(shared):
    folder = shared / "data" / "rgb" / "seg" / "dubai"
    config = DataConfig(
        images="images",
        labels="masks_rgb",
        classes=("building", "land", "road", "vegetation", "water"),
        colours=("#3C1098", "#8429F6", "#6EC1E4", "#FEDD3A", "#E2A929"),
        ignore=("#9B9B9B", "#000000"),
    )
    found = find(folder, config)
    reader = Reader(classes=found.classes, coding=found.coding, config=config)
    assert found.layout == "images/ and masks_rgb/ paired by file name, 48 pairs, no split given"
    for source in found.sources[::9]:
        with rasterio.open(source.label.replace("masks_rgb", "labels")) as file:
            truth = file.read(1)
        labels = reader.labels(source.image, source.label, Window(row=0, col=0, height=truth.shape[0], width=truth.shape[1]))
        np.testing.assert_array_equal(labels, truth)
    with pytest.raises(LabelError, match=r"tile1_part001\.png holds colours: #.*; say which class has which"):
        find(folder, DataConfig(images="images", labels="masks_rgb"))


def test_colours_without_names_are_asked_for_their_names(folder):
    root = folder(painted(np.minimum(NUMBERS, 2)))
    with pytest.raises(LabelError, match=r"data\.colours are given without names: set data\.classes, in the same order$"):
        find(root, DataConfig(colours=HEX))
