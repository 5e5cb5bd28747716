import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from terralean.errors import GridMismatch, LabelError, MissingFile, UnreadableScene
from terralean.raster.coding import PLAIN, Coding
from terralean.raster.grid import Grid, Window
from terralean.raster.labels import count_stored, is_coloured, label_values, palette, read_labels
from terralean.spec import Classes

GRID = Grid(width=6, height=5, crs="EPSG:32633", transform=(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0))
CLASSES = Classes.named(["water", "wood", "road"])
VALUES = np.arange(30).reshape(5, 6) % 3


def write(path: Path, values: np.ndarray, *, nodata: float | None = None, grid: Grid = GRID) -> Path:
    profile = {"width": values.shape[-1], "height": values.shape[-2], "count": 1 if values.ndim == 2 else len(values)}
    profile |= {"crs": grid.crs, "transform": rasterio.Affine(*grid.transform), "dtype": values.dtype, "nodata": nodata}
    with rasterio.open(path, "w", driver="GTiff", **profile) as file:
        file.write(values if values.ndim == 3 else values[None])
    return path


def read(
    path: Path, window: Window = GRID.window, *, classes: Classes | None = CLASSES, coding: Coding = PLAIN, like: Grid = GRID
) -> np.ndarray:
    return read_labels(path, like=like, window=window, classes=classes, coding=coding, name="image.tif")


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "float32", "float64"])
def test_class_numbers_of_any_type_come_as_bytes(tmp_path, dtype):
    labels = read(write(tmp_path / "a.tif", VALUES.astype(dtype)))
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, VALUES)


def test_a_window_past_the_edges_has_no_labels_there(tmp_path):
    path = write(tmp_path / "a.tif", VALUES.astype("uint8"))
    labels = read(path, Window(row=-1, col=4, height=4, width=4))
    np.testing.assert_array_equal(labels, np.pad(VALUES[:3, 4:], ((1, 0), (0, 2)), constant_values=255))


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("int16", -1), ("uint8", 7), ("float32", math.nan), ("uint8", 255), ("int16", 255)]
)
def test_nodata_is_ignored(tmp_path, dtype, nodata):
    values = VALUES.astype(dtype)
    values[1, 2] = nodata
    labels = read(write(tmp_path / "a.tif", values, nodata=nodata))
    assert labels[1, 2] == 255
    assert np.count_nonzero(labels == 255) == 1


def test_nodata_zero_is_class_zero_and_a_hidden_pixel_is_not(tmp_path):
    path = write(tmp_path / "a.tif", VALUES.astype("uint8"), nodata=0)
    np.testing.assert_array_equal(read(path), VALUES)
    assert read(path, Window(row=-1, col=0, height=1, width=2)).tolist() == [[255, 255]]


def test_255_is_ignored_without_being_declared(tmp_path):
    values = VALUES.astype("uint8")
    values[0, 0] = 255
    assert read(write(tmp_path / "a.tif", values))[0, 0] == 255
    assert label_values(tmp_path / "a.tif") == {0: 9, 1: 10, 2: 10}


def test_a_palette_image_gives_its_indices(tmp_path):
    image = Image.fromarray(VALUES.astype("uint8"), mode="P")
    image.putpalette([10, 20, 30, 200, 210, 220, 90, 91, 92])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png"), VALUES)


def test_a_transparent_pixel_of_a_png_has_no_label(tmp_path):
    pixels = np.stack([VALUES, np.full((5, 6), 255)], axis=-1).astype("uint8")
    pixels[2, 3, 1] = 0
    Image.fromarray(pixels, mode="LA").save(tmp_path / "a.png")
    labels = read(tmp_path / "a.png")
    assert np.argwhere(labels == 255).tolist() == [[2, 3]]


def test_a_value_that_is_no_class_names_file_value_count_and_fix(tmp_path):
    values = VALUES.astype("int16")
    values[0, :3] = -1
    path = write(tmp_path / "a.tif", values)
    with pytest.raises(LabelError) as error:
        read(path)
    assert str(error.value) == (
        f"{path} holds -1 (3 px); the classes are 0 water, 1 wood, 2 road; ignored: 255; name the missing classes, or say with "
        'data.label_values which numbers the classes have; if -1 means no label: --set "data.ignore=[-1]"'
    )
    assert read(path, Window(row=1, col=0, height=4, width=6)).max() == 2, "only the window counts"


def test_many_wrong_values_are_listed_briefly(tmp_path):
    values = np.arange(100, 130, dtype="uint8").reshape(5, 6)
    with pytest.raises(LabelError, match=r"holds 100 \(1 px\), 101 \(1 px\), .*109 \(1 px\) and 20 more;"):
        read(write(tmp_path / "a.tif", values))


def test_without_classes_any_byte_below_255_passes(tmp_path):
    values = np.array([[0, 254, 255]], dtype="int16")
    grid = dataclasses.replace(GRID, width=3, height=1)
    path = write(tmp_path / "a.tif", values)
    assert read(path, grid.window, classes=None, like=grid).tolist() == [[0, 254, 255]]
    path = write(tmp_path / "a.tif", values + 1)
    with pytest.raises(LabelError, match=r"holds 256 \(1 px\); class numbers are 0 to 254, 255 is ignored"):
        read(path, grid.window, classes=None, like=grid)


def test_interpolated_labels_are_refused(tmp_path):
    values = VALUES.astype("float32")
    values[4, 4] = 1.5
    with pytest.raises(LabelError, match=r"a\.tif holds 1 px that are no whole numbers, 1\.5 for example; .*gdalwarp -r near"):
        read(write(tmp_path / "a.tif", values))
    with pytest.raises(LabelError, match=r"1\.5 for example"):
        label_values(tmp_path / "a.tif")


@pytest.mark.parametrize(("bands", "dtype"), [(2, "uint8"), (3, "uint16"), (5, "uint8")])
def test_rasters_that_are_neither_numbers_nor_colours_are_refused(tmp_path, bands, dtype):
    with pytest.raises(LabelError, match=rf"a\.tif has {bands} bands of {dtype}; labels are one band of class numbers .* or"):
        read(write(tmp_path / "a.tif", np.stack([VALUES] * bands).astype(dtype)))


def test_labels_that_lie_elsewhere_are_refused(tmp_path):
    with pytest.raises(GridMismatch, match=r"a\.tif is 4 x 5 px, its image image\.tif is 6 x 5 px"):
        read(write(tmp_path / "a.tif", VALUES[:, :4].astype("uint8")))
    a, b, c, d, e, f = GRID.transform
    shifted = dataclasses.replace(GRID, transform=(a, b, c + 5, d, e, f))
    with pytest.raises(GridMismatch, match=r"b\.tif lies 0\.50 px off its image image\.tif"):
        read(write(tmp_path / "b.tif", VALUES.astype("uint8"), grid=shifted))


def test_labels_that_are_missing_or_no_image(tmp_path):
    with pytest.raises(MissingFile, match="expected a raster of class numbers or colours, or a vector file"):
        read(tmp_path / "none.tif")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG no")
    with pytest.raises(UnreadableScene, match=r"bad\.png is not an image"):
        read(tmp_path / "bad.png")


def test_label_values_are_counted_over_all_strips(tmp_path, monkeypatch):
    monkeypatch.setattr("terralean.raster.labels.STRIP_PIXELS", 12)
    values = VALUES.astype("int16")
    values[4, 5] = -9
    assert label_values(write(tmp_path / "a.tif", values, nodata=-9)) == {0: 10, 1: 10, 2: 9}


def test_a_mask_of_0_and_255_is_pointed_out(tmp_path, caplog):
    assert label_values(write(tmp_path / "a.tif", (VALUES == 1).astype("uint8") * np.uint8(255))) == {0: 20}
    assert "a.tif holds 0 and 255 only, and 255 means ignored: if it is a class, write it as 1" in caplog.text


# Other numbers than 0 to K-1.

OTHERS = Coding(values=(7, -3, 900), ignored=(0, 4))


@pytest.mark.parametrize("dtype", ["int16", "int32", "int64", "float32"])
def test_stored_numbers_become_classes_in_the_order_listed(tmp_path, dtype):
    stored = np.array([7, -3, 900, 0, 4])[np.arange(30).reshape(5, 6) % 5].astype(dtype)
    labels = read(write(tmp_path / "a.tif", stored), coding=OTHERS)
    expected = np.array([0, 1, 2, 255, 255])[np.arange(30).reshape(5, 6) % 5]
    np.testing.assert_array_equal(labels, expected)


def write_palette(path: Path, values: np.ndarray, colours) -> Path:
    """A PNG of numbers with a palette."""
    image = Image.fromarray(values.astype("uint8"), mode="P")
    image.putpalette([channel for colour in colours for channel in colour])
    image.save(path)
    return path


def test_a_palette_is_read_as_colours_where_the_classes_have_colours(tmp_path):
    turned = (PAINT[2], (0, 0, 0), PAINT[0], PAINT[1])
    path = write_palette(tmp_path / "a.png", np.arange(30).reshape(5, 6) % 4, turned)
    expected = np.array([2, 255, 0, 1])[np.arange(30).reshape(5, 6) % 4]
    np.testing.assert_array_equal(read(path, coding=PAINTED), expected)
    assert count_stored(path, coding=PAINTED) == {(0, 0, 0): 8, (0, 0, 255): 7, (0, 255, 0): 7, (250, 128, 114): 8}
    assert palette(path)[3] == (0, 255, 0)
    assert count_stored(path, coding=PLAIN) == {0: 8, 1: 8, 2: 7, 3: 7}
    with pytest.raises(LabelError, match=r"#000001 \(8 px, nearest: ignored #000000, 1 off\)"):
        read(write_palette(path, np.arange(30).reshape(5, 6) % 4, (PAINT[2], (0, 0, 1), *PAINT[:2])), coding=PAINTED)


@pytest.mark.parametrize("odd", [5, 32767, -32768, 2**31 - 1, -(2**31)])
def test_a_number_that_is_not_listed_is_an_error(tmp_path, odd):
    stored = np.full((5, 6), 7, dtype="int32")
    stored[1, 1:3] = odd
    with pytest.raises(LabelError) as error:
        read(write(tmp_path / "a.tif", stored), coding=OTHERS)
    assert str(error.value).endswith(
        f"a.tif holds {odd} (2 px); the classes are 7 water, -3 wood, 900 road; ignored: 0, 4, 255; name the missing classes, "
        f"or say with data.label_values which numbers the classes have; if {odd} means no label: add it to data.ignore"
    )


def test_nodata_zero_is_ignored_where_no_class_is_stored_as_zero(tmp_path):
    path = write(tmp_path / "a.tif", VALUES.astype("uint8"), nodata=0)
    labels = read(path, coding=Coding(values=(1, 2)), classes=Classes.named(["wood", "road"]))
    np.testing.assert_array_equal(labels, np.where(VALUES == 0, 255, VALUES - 1))
    assert count_stored(path, coding=Coding(values=(1, 2))) == {1: 10, 2: 10}
    assert count_stored(path, coding=PLAIN) == {0: 10, 1: 10, 2: 10}


def test_a_file_is_counted_anew_only_when_it_changes(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tif", VALUES.astype("uint8"))
    assert count_stored(path, coding=PLAIN) == {0: 10, 1: 10, 2: 10}
    opened = []
    monkeypatch.setattr("terralean.raster.labels._strips", lambda scene: opened.append(scene.path) or iter(()))
    assert count_stored(path, coding=OTHERS) == {0: 10, 1: 10, 2: 10}
    assert opened == []
    write(path, np.zeros((9, 6), dtype="uint8"), grid=dataclasses.replace(GRID, height=9))
    assert count_stored(path, coding=PLAIN) == {}
    assert opened == [str(path)]


# Colours.

PAINT = ((0, 0, 255), (0, 255, 0), (250, 128, 114))
PAINTED = Coding(colours=PAINT, ignored_colours=((0, 0, 0),))


def paint(values: np.ndarray, colours=(*PAINT, (0, 0, 0))) -> np.ndarray:
    """Numbers (h, w) to colours (3, h, w)."""
    return np.moveaxis(np.array(colours, dtype="uint8")[values], -1, 0)


@pytest.mark.parametrize("nodata", [None, 0, 255])
def test_colours_become_classes_whatever_nodata_says(tmp_path, nodata):
    values = np.arange(30).reshape(5, 6) % 4
    path = write(tmp_path / "a.tif", paint(values), nodata=nodata)
    np.testing.assert_array_equal(read(path, coding=PAINTED), np.where(values == 3, 255, values))
    assert is_coloured(path)
    assert label_values(path) == {(0, 0, 0): 7, (0, 0, 255): 8, (0, 255, 0): 8, (250, 128, 114): 7}


def test_a_transparent_pixel_of_colours_has_no_label(tmp_path):
    pixels = np.moveaxis(np.concatenate([paint(VALUES), np.full((1, 5, 6), 255, dtype="uint8")]), 0, -1).copy()
    pixels[2, 3] = (9, 9, 9, 0)
    Image.fromarray(pixels, mode="RGBA").save(tmp_path / "a.png")
    labels = read(tmp_path / "a.png", coding=PAINTED)
    assert np.argwhere(labels == 255).tolist() == [[2, 3]]
    np.testing.assert_array_equal(labels[:2], VALUES[:2])


def test_a_window_of_colours_past_the_edges(tmp_path):
    labels = read(write(tmp_path / "a.tif", paint(VALUES)), Window(row=-1, col=4, height=4, width=4), coding=PAINTED)
    np.testing.assert_array_equal(labels, np.pad(VALUES[:3, 4:], ((1, 0), (0, 2)), constant_values=255))


def test_a_colour_that_is_no_class_names_count_nearest_and_fix(tmp_path):
    stored = paint(VALUES)
    stored[:, 0, :2] = [[0], [252], [3]]
    stored[:, 4, 4] = (3, 0, 0)
    with pytest.raises(LabelError) as error:
        read(write(tmp_path / "a.tif", stored), coding=PAINTED)
    assert str(error.value).endswith(
        "a.tif holds colours that are no class: #00fc03 (2 px, nearest: wood #00ff00, 3 off), #030000 (1 px, nearest: ignored "
        "#000000, 3 off); the classes are #0000ff water, #00ff00 wood, #fa8072 road, #000000 ignored; give them a class "
        "(data.classes, data.colours), or list those without one in data.ignore; if each is meant as its nearest: "
        "--set data.colour_tolerance=3"
    )


def test_a_tolerance_takes_near_colours_and_no_others(tmp_path):
    stored = paint(VALUES)
    stored[:, 0, 0] = (4, 4, 251)
    path = write(tmp_path / "a.tif", stored)
    near = dataclasses.replace(PAINTED, tolerance=4)
    np.testing.assert_array_equal(read(path, coding=near), VALUES)
    stored[:, 0, 0] = (4, 5, 251)
    with pytest.raises(LabelError, match=r"#0405fb \(1 px, nearest: water #0000ff, 5 off\)"):
        read(write(path, stored), coding=near)


def test_a_far_colour_is_not_proposed_to_be_tolerated(tmp_path):
    stored = paint(VALUES)
    stored[:, 0, 0] = (120, 120, 121)
    with pytest.raises(LabelError, match=r"121 off\).*list those without one in data\.ignore$"):
        read(write(tmp_path / "a.tif", stored), coding=PAINTED)


def test_smeared_colours_have_their_own_message(tmp_path):
    image = np.moveaxis(paint(np.kron(VALUES, np.ones((8, 8), dtype=int))), 0, -1)
    Image.fromarray(np.ascontiguousarray(image)).save(tmp_path / "a.jpg", quality=80)
    grid = Grid(width=48, height=40, crs=None, transform=GRID.transform)
    with pytest.raises(LabelError, match=r"\d+ of them, as lossy compression \(JPEG\) or resampling smears colours; take the"):
        read(tmp_path / "a.jpg", grid.window, coding=PAINTED, like=grid)


def test_a_picture_is_no_label(tmp_path):
    grid = Grid(width=100, height=60, crs=None, transform=GRID.transform)
    values = np.stack([np.arange(6000) // step % 256 for step in (1, 7, 99)]).reshape(3, 60, 100)
    with pytest.raises(LabelError, match="holds more than 4096 different colours: that is a picture"):
        label_values(write(tmp_path / "a.tif", values.astype("uint8"), grid=grid))


def test_numbers_in_three_equal_bands_are_told_from_colours(tmp_path):
    with pytest.raises(LabelError, match=r"its three bands are equal, so they are numbers: keep one, gdal_translate -b 1"):
        read(write(tmp_path / "a.tif", np.stack([VALUES + 1] * 3).astype("uint8")), coding=PAINTED)


def test_colours_that_nobody_has_named(tmp_path):
    with pytest.raises(LabelError, match=r"a\.tif holds colours; say which class has which with data\.classes and data\.col"):
        read(write(tmp_path / "a.tif", paint(VALUES)))


def test_real_labels_are_counted(shared):
    seg = shared / "data/rgb/seg"
    assert set(label_values(seg / "dubai/labels/tile1_part001.png")) <= {0, 1, 2, 3, 4}
    flood = seg / "sen1floods11/Spain_7370579_LabelHand.tif"
    assert set(label_values(flood)) == {-1, 0, 1}
    with rasterio.open(flood) as file:
        grid = Grid(width=512, height=512, crs="EPSG:4326", transform=tuple(file.transform)[:6])
    with pytest.raises(LabelError, match=r"holds -1 \(\d+ px\).*if -1 means no label: --set \"data\.ignore=\[-1\]\""):
        read(flood, grid.window, like=grid, classes=Classes.named(["land", "water"]))


def test_real_masks_of_colours_decode_to_the_labels_made_of_them(shared):
    folder = shared / "data/rgb/seg/dubai"
    colours = tuple(tuple(bytes.fromhex(code)) for code in ("3C1098", "8429F6", "6EC1E4", "FEDD3A", "E2A929"))
    coding = Coding(colours=colours, ignored_colours=((0x9B, 0x9B, 0x9B), (0, 0, 0)))
    classes = Classes.named(["building", "land", "road", "vegetation", "water"])
    names = sorted(path.name for path in (folder / "labels").iterdir())[::4]
    assert {is_coloured(folder / "masks_rgb" / name) for name in names} == {True, False}, "some have palettes, all different"
    for name in names:
        with rasterio.open(folder / "labels" / name) as file:
            truth = file.read(1)
        grid = Grid(width=truth.shape[1], height=truth.shape[0], crs=None, transform=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
        labels = read(folder / "masks_rgb" / name, grid.window, like=grid, classes=classes, coding=coding)
        np.testing.assert_array_equal(labels, truth)
