"""Label maps for cubes: what their classes are, and which number is no label."""

import numpy as np
import pytest
import rasterio
import scipy.io

from terralean.errors import GridMismatch, LabelError
from terralean.raster.coding import Coding
from terralean.raster.envi_write import write_classification
from terralean.raster.grid import Grid, Window
from terralean.raster.label_map import find_labels
from terralean.raster.labels import read_labels
from terralean.spec import Classes

LABELS = np.array([[0, 1, 1, 3], [0, 0, 3, 3], [2, 2, 2, 0]], dtype=np.uint8)
GRID = Grid(width=4, height=3, crs="EPSG:32633", transform=(10.0, 0.0, 5e5, 0.0, -10.0, 5e6))
CODED = np.array([[255, 0, 0, 2], [255, 255, 2, 2], [1, 1, 1, 255]], dtype=np.uint8)  # 0 is no label
PLAIN = LABELS  # 0 is a class


def write_tiff(path, values=LABELS):
    place = {"crs": GRID.crs, "transform": rasterio.Affine(*GRID.transform)}
    with rasterio.open(path, "w", driver="GTiff", count=1, height=3, width=4, dtype=values.dtype, **place) as file:
        file.write(values[None])
    return path


def write_envi(path, names=("unlabelled", "a", "b", "c"), colours=(0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)):
    path.with_suffix(".img").write_bytes(LABELS.tobytes())
    path.write_text(
        "ENVI\nsamples = 4\nlines = 3\nbands = 1\nheader offset = 0\nfile type = ENVI Classification\ndata type = 1\n"
        f"interleave = bsq\nbyte order = 0\nclasses = {len(names)}\nclass names = {{{', '.join(names)}}}\n"
        f"class lookup = {{{', '.join(map(str, colours))}}}\n"
    )
    return path


WRITERS = {
    "mat": lambda folder: scipy.io.savemat(folder / "a.mat", {"gt": LABELS}) or folder / "a.mat",
    "mat_float": lambda folder: scipy.io.savemat(folder / "a.mat", {"gt": LABELS.astype(float)}) or folder / "a.mat",
    "npy": lambda folder: np.save(folder / "a.npy", LABELS.astype("int64")) or folder / "a.npy",
    "tif": lambda folder: write_tiff(folder / "a.tif"),
    "envi": lambda folder: write_envi(folder / "a.hdr"),
}


def read(path, found, window=GRID.window):
    return read_labels(path, like=GRID, window=window, classes=found.classes, coding=found.coding, name="cube")


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("unlabelled", ["zero", "none"])
def test_what_zero_means_can_be_said(tmp_path, kind, unlabelled):
    path = WRITERS[kind](tmp_path)
    found = find_labels(path, unlabelled=unlabelled)
    np.testing.assert_array_equal(read(path, found), CODED if unlabelled == "zero" else PLAIN)
    assert found.counts == ((2, 3, 3) if unlabelled == "zero" else (4, 2, 3, 3))
    assert found.note == f"0 is {'no label' if unlabelled == 'zero' else 'a class'}, as was said"


@pytest.mark.parametrize(("kind", "expected"), [("mat", CODED), ("npy", CODED), ("envi", CODED), ("tif", PLAIN)])
def test_by_itself_zero_is_what_is_usual_in_such_a_file(tmp_path, kind, expected):
    path = WRITERS[kind](tmp_path)
    np.testing.assert_array_equal(read(path, find_labels(path)), expected)


@pytest.mark.parametrize(("none", "dtype"), [(-1, "int16"), (255, "uint8"), (np.nan, "float32"), (-9999, "int32")])
def test_zero_of_an_array_is_a_class_where_other_pixels_have_no_label(tmp_path, none, dtype):
    values = LABELS.astype(dtype)
    values[0, :2] = none
    np.save(tmp_path / "a.npy", values)
    found = find_labels(tmp_path / "a.npy")
    expected = PLAIN.copy()
    expected[0, :2] = 255
    np.testing.assert_array_equal(read(tmp_path / "a.npy", found), expected)
    assert found.classes.names == ("class 0", "class 1", "class 2", "class 3")
    assert found.note.startswith("0 is a class, as other pixels have no label")
    said = find_labels(tmp_path / "a.npy", unlabelled="zero")
    np.testing.assert_array_equal(read(tmp_path / "a.npy", said), np.where(expected == 255, 255, CODED))


@pytest.mark.parametrize("unlabelled", ["auto", "zero", "none"])
def test_numbers_below_zero_are_no_classes(tmp_path, unlabelled):
    path = write_tiff(tmp_path / "a.tif", np.where(LABELS == 0, np.int16(-2), LABELS))
    found = find_labels(path, unlabelled=unlabelled)
    np.testing.assert_array_equal(read(path, found), CODED)
    assert found.classes.names == ("class 1", "class 2", "class 3") and found.note.endswith("-2: no label, as they are below 0")


def test_numbers_that_are_no_classes_are_an_error(tmp_path):
    np.save(tmp_path / "a.npy", LABELS.astype("int64") * 100_000)
    with pytest.raises(
        LabelError, match=r"a\.npy holds the numbers 100000, 200000, 300000; classes are numbers up to 65535 \(and"
    ):
        find_labels(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.arange(600).reshape(20, 30))
    with pytest.raises(LabelError, match=r"b\.npy holds 599 different numbers; expected a label map of 254 classes at most"):
        find_labels(tmp_path / "b.npy")


def test_an_envi_class_zero_with_a_name_of_its_own_is_a_class(tmp_path):
    found = find_labels(write_envi(tmp_path / "a.hdr", names=("field", "a", "b", "c")))
    assert found.classes.names == ("field", "a", "b", "c") and found.note == "0 is a class, by its name 'field'"


def test_names_and_colours_of_an_envi_classification_are_kept(tmp_path):
    found = find_labels(write_envi(tmp_path / "a.hdr"))
    assert found.classes == Classes(names=("a", "b", "c"), colours=((1, 2, 3), (4, 5, 6), (7, 8, 9)))


def test_our_own_classification_reads_back_as_the_map_it_was(tmp_path):
    classes = Classes.named(("x", "y", "z"))
    write_classification(tmp_path / "a.hdr", CODED, grid=GRID, classes=classes)
    found = find_labels(tmp_path / "a.hdr")
    assert found.classes == classes
    np.testing.assert_array_equal(read(tmp_path / "a.hdr", found), CODED)


def test_classes_get_the_names_that_are_given(tmp_path):
    path = WRITERS["mat"](tmp_path)
    assert find_labels(path, names=("x", "y", "z")).classes.names == ("x", "y", "z")
    with pytest.raises(LabelError, match=r"a\.mat has 3 classes, numbers 1, 2, 3; 2 names were given"):
        find_labels(path, names=("x", "y"))


def test_numbers_with_gaps_become_classes_without(tmp_path):
    np.save(tmp_path / "a.npy", np.where(LABELS == 3, 14, LABELS * 5))
    found = find_labels(tmp_path / "a.npy")
    assert found.coding == Coding(values=(5, 10, 14), ignored=(0,)) and found.classes.names == (
        "class 5",
        "class 10",
        "class 14",
    )
    np.testing.assert_array_equal(read(tmp_path / "a.npy", found), CODED)


def test_nothing_labelled_is_an_error(tmp_path):
    np.save(tmp_path / "a.npy", LABELS * 0)
    with pytest.raises(LabelError, match=r"a\.npy has no labelled pixel: all are 0, which is no label"):
        find_labels(tmp_path / "a.npy")


def test_labels_of_another_size_than_the_cube(tmp_path):
    np.save(tmp_path / "a.npy", LABELS[:, :3])
    with pytest.raises(GridMismatch, match=r"a\.npy is 3 x 3 px, its image cube is 4 x 3 px"):
        read(tmp_path / "a.npy", find_labels(tmp_path / "a.npy"))


def test_labels_that_are_no_whole_numbers(tmp_path):
    np.save(tmp_path / "a.npy", LABELS + 0.5)
    with pytest.raises(LabelError, match=r"a\.npy holds 12 px that are no whole numbers, 0\.5 for example"):
        find_labels(tmp_path / "a.npy")


def test_the_label_map_in_the_file_of_the_cube_is_found(tmp_path):
    cube = np.ones((3, 4, 6))
    scipy.io.savemat(tmp_path / "a.mat", {"X": cube, "gt": LABELS, "other": LABELS[:2]})
    with pytest.raises(Exception, match=r"holds 2 arrays that can be meant.*#key="):
        find_labels(tmp_path / "a.mat")
    found = find_labels(f"{tmp_path / 'a.mat'}#gt")
    np.testing.assert_array_equal(read(f"{tmp_path / 'a.mat'}#gt", found), CODED)
    np.testing.assert_array_equal(read(tmp_path / "a.mat", found), CODED)  # of two the one of the cube's size


def test_a_window_past_the_edges_has_no_labels_there(tmp_path):
    path = WRITERS["mat"](tmp_path)
    values = read(path, find_labels(path), window=Window(row=-1, col=2, height=3, width=4))
    np.testing.assert_array_equal(values, np.pad(CODED[:2, 2:], ((1, 0), (0, 2)), constant_values=255))


def test_a_file_that_changes_is_read_anew(tmp_path):
    path = f"{WRITERS['mat'](tmp_path)}#gt"
    assert find_labels(path).counts == (2, 3, 3)
    scipy.io.savemat(tmp_path / "a.mat", {"gt": np.concatenate([LABELS, LABELS])})
    assert find_labels(path).counts == (4, 6, 6)


# Points.


POINTS = "row,col,class\n0,1,field\n0,2,field\n2,0,forest\n1,3,water\n"


def burn(path, classes=None, coding=Coding(), **how):  # noqa: B008 - frozen
    window = how.pop("window", GRID.window)
    return read_labels(path, like=how.pop("like", GRID), window=window, classes=classes, coding=coding, name="cube", **how)


def table(folder, text):
    (folder / "a.csv").write_text(text)
    return folder / "a.csv"


def test_points_by_row_and_column(tmp_path):
    path = table(tmp_path, POINTS)
    found = find_labels(path)
    assert (found.classes.names, found.counts) == (("field", "forest", "water"), (2, 1, 1))
    expected = np.full((3, 4), 255)
    expected[0, 1:3], expected[2, 0], expected[1, 3] = 0, 1, 2
    np.testing.assert_array_equal(burn(path, found.classes), expected)
    window = Window(row=1, col=-1, height=4, width=3)
    np.testing.assert_array_equal(
        burn(path, found.classes, window=window), np.pad(expected[1:, :2], ((0, 2), (1, 0)), constant_values=255)
    )


def test_points_by_coordinates_of_the_image_and_of_the_globe(tmp_path):
    by_map = table(tmp_path, "x;y;label\n500015;4999995;7\n500039.9;4999970.1;9\n")
    found = find_labels(by_map)
    expected = np.full((3, 4), 255)
    expected[0, 1], expected[2, 3] = 0, 1
    assert found.coding.values == (7, 9)
    np.testing.assert_array_equal(burn(by_map, found.classes, found.coding), expected)
    degrees = rasterio.warp.transform(GRID.crs, "EPSG:4326", [500015, 500039.9], [4999995, 4999970.1])
    lines = "".join(f"{lon:.12f}\t{lat:.12f}\t{label}\n" for lon, lat, label in zip(*degrees, (7, 9), strict=True))
    by_globe = table(tmp_path, "Lon\tLat\tClass\n" + lines)
    np.testing.assert_array_equal(burn(by_globe, found.classes, found.coding), expected)


def test_the_column_of_the_class_can_be_named(tmp_path):
    path = table(tmp_path, "row,col,surface,crop\n0,0,dry,wheat\n1,1,wet,maize\n")
    with pytest.raises(LabelError, match=r"a\.csv does not say which attribute holds the class; it has surface, crop"):
        find_labels(path)
    classes = Classes.named(("maize", "wheat"))
    assert burn(path, classes, field="crop")[0, 0] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("east,north,class\n1,2,a\n", r"a\.csv has the columns east, north, class; expected row,col,class, x,y,class"),
        ("row,col,class\n", r"a\.csv has no line below its header"),
        ("row,col,class\n0,zero,a\n", r"a\.csv, line 2: col is 'zero'; expected a number"),
        ("row,col,class\n0,nan,a\n", r"a\.csv, line 2: col is 'nan'; expected a number"),
        ("row,col,class\n0,1e30,a\n", r"1 of 1 points lie outside cube"),
        ("row,col,class\n0,0,a\n1,1,\n", r"a\.csv, line 3: class is empty"),
        ("row,col,class\n0,0,1\n0,0,2\n", r"lines 2 and 3 lie in one pixel \(row 0, column 0\) and are of class 1 and 2"),
        (
            "row,col,class\n3,4,1\n1,1,1\n",
            r"1 of 2 points lie outside cube \(4 x 3 px\), line 2 \(4, 3\); rows and columns count from 0",
        ),
    ],
)
def test_tables_that_cannot_be_laid_on_the_image(tmp_path, text, message):
    with pytest.raises(LabelError, match=message):
        burn(table(tmp_path, text))


def test_a_table_that_is_not_in_utf_8(tmp_path):
    (tmp_path / "a.csv").write_bytes("row,col,class\n0,0,B\xfcsche\n".encode("latin-1"))
    with pytest.raises(LabelError, match=r"a\.csv is not in UTF-8 \(byte 19\); save the table as CSV in UTF-8"):
        find_labels(tmp_path / "a.csv")


def test_spaces_and_quotes_around_names_of_columns(tmp_path):
    assert burn(table(tmp_path, 'row , "col" , class\n2, 1, 3\n'))[2, 1] == 3


def test_two_points_of_one_class_in_a_pixel_are_one(tmp_path):
    assert (burn(table(tmp_path, "row,col,class\n0,0,3\n0.9,0.2,3\n")) == 3).sum() == 1


def test_degrees_need_an_image_with_a_crs(tmp_path):
    with pytest.raises(GridMismatch, match=r"a\.csv has longitudes and latitudes, but cube has no CRS"):
        burn(table(tmp_path, "lon,lat,class\n1,2,3\n"), like=Grid(width=4, height=3, crs=None))
