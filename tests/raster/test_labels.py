import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from terralean.errors import GridMismatch, LabelError, MissingFile, UnreadableScene
from terralean.raster.grid import Grid, Window
from terralean.raster.labels import label_values, read_labels
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


def read(path: Path, window: Window = GRID.window, *, classes: Classes | None = CLASSES, like: Grid = GRID) -> np.ndarray:
    return read_labels(path, like=like, window=window, classes=classes, name="image.tif")


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
        f"{path} holds -1 (3 px); the classes are 0 water, 1 wood, 2 road; 255 is ignored; number the classes from 0, name the "
        "missing ones, or if -1 means no label, declare it: gdal_edit.py -a_nodata -1"
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


def test_colour_coded_labels_are_refused(tmp_path):
    with pytest.raises(LabelError, match=r"a\.tif has 3 bands; labels are one band of class numbers"):
        read(write(tmp_path / "a.tif", np.stack([VALUES] * 3).astype("uint8")))


def test_labels_that_lie_elsewhere_are_refused(tmp_path):
    with pytest.raises(GridMismatch, match=r"a\.tif is 4 x 5 px, its image image\.tif is 6 x 5 px"):
        read(write(tmp_path / "a.tif", VALUES[:, :4].astype("uint8")))
    a, b, c, d, e, f = GRID.transform
    shifted = dataclasses.replace(GRID, transform=(a, b, c + 5, d, e, f))
    with pytest.raises(GridMismatch, match=r"b\.tif lies 0\.50 px off its image image\.tif"):
        read(write(tmp_path / "b.tif", VALUES.astype("uint8"), grid=shifted))


def test_labels_that_are_missing_or_no_image(tmp_path):
    with pytest.raises(MissingFile, match="expected a raster of class numbers or a vector file"):
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


def test_real_labels_are_counted(shared):
    seg = shared / "data/rgb/seg"
    assert set(label_values(seg / "dubai/labels/tile1_part001.png")) <= {0, 1, 2, 3, 4}
    flood = seg / "sen1floods11/Spain_7370579_LabelHand.tif"
    assert set(label_values(flood)) == {-1, 0, 1}
    with rasterio.open(flood) as file:
        grid = Grid(width=512, height=512, crs="EPSG:4326", transform=tuple(file.transform)[:6])
    with pytest.raises(LabelError, match=r"holds -1 \(\d+ px\).*declare it: gdal_edit\.py -a_nodata -1"):
        read(flood, grid.window, like=grid, classes=Classes.named(["land", "water"]))
