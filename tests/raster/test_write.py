import ctypes
import os
from pathlib import Path
from xml.etree import ElementTree as Xml

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rio_cogeo import cog_validate

from terralean.errors import LabelError, OutputFailed
from terralean.raster.grid import Grid
from terralean.raster.scene import open_scene
from terralean.raster.write import count_classes, map_content, write_map, write_scene
from terralean.spec import Bands, Classes

UTM = Grid(width=1300, height=1100, crs="EPSG:32633", transform=(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0))
CLASSES = Classes(names=("open water", "bois & forêt", "<road>"), colours=((0, 0, 200), (0, 120, 0), (90, 90, 90)))
LAEA = CRS.from_string("+proj=laea +lat_0=47 +lon_0=12 +datum=WGS84 +units=m").to_wkt()
ROTATED_POLE = CRS.from_string(
    "+proj=ob_tran +o_proj=longlat +o_lon_p=-162 +o_lat_p=39.25 +lon_0=180 +to_meter=0.01745329"
).to_wkt()


def labels(grid: Grid = UTM) -> np.ndarray:
    """Patches of three classes, with holes."""
    rng = np.random.default_rng(0)
    coarse = rng.choice(np.array([0, 1, 2, 255], dtype=np.uint8), size=(-(-grid.height // 7), -(-grid.width // 7)))
    return coarse.repeat(7, axis=0).repeat(7, axis=1)[: grid.height, : grid.width].copy()


def save(path: Path, values: np.ndarray, *, grid: Grid = UTM, rows: int = 256, classes: Classes = CLASSES) -> Path:
    path.parent.mkdir(exist_ok=True)
    plain = map_content(classes).rows(path.with_name("rows"), width=grid.width)
    for row in range(0, grid.height, rows):
        plain.append(values[None, row : row + rows])
    totals = count_classes(plain, grid=grid, classes=classes)
    tags = {"TERRALEAN_MODEL": "lemevit_tiny", "note": "a=b & c"}
    write_map(path, plain, totals=totals, grid=grid, classes=classes, tags=tags)
    for file in ("rows", "rows.vrt"):
        path.with_name(file).unlink()
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("map") / "town.v1.tif", labels())


def test_a_map_is_a_valid_cog_with_its_labels_exactly(written):
    assert cog_validate(written, strict=True) == (True, [], [])
    with rasterio.open(written) as file:
        np.testing.assert_array_equal(file.read(1), labels())
        assert (file.crs, tuple(file.transform)[:6]) == (CRS.from_epsg(32633), UTM.transform)
        assert (file.nodata, file.dtypes, file.count) == (255, ("uint8",), 1)
        assert (file.block_shapes, file.compression.name) == ([(512, 512)], "zstd")


def test_a_map_carries_names_colours_and_tags(written):
    with rasterio.open(written) as file:
        assert file.descriptions == ("class",)
        assert file.tags(1) == {"class_0": "open water", "class_1": "bois & forêt", "class_2": "<road>"}
        assert file.tags()["TERRALEAN_MODEL"] == "lemevit_tiny" and file.tags()["note"] == "a=b & c"
        colours = file.colormap(1)
    assert [colours[value] for value in (0, 1, 2, 255)] == [(0, 0, 200, 255), (0, 120, 0, 255), (90, 90, 90, 255), (0, 0, 0, 0)]


def test_overviews_hold_no_class_that_is_not_below_them(tmp_path):
    greys = Classes(names=("black", "grey", "white"), colours=((0, 0, 0), (100, 100, 100), (200, 200, 200)))
    values = np.zeros((1100, 1300), dtype=np.uint8)
    values[:, ::2] = 2  # black and white side by side: their mean would be grey
    values[:20] = 255
    path = save(tmp_path / "a.tif", values, classes=greys)
    with rasterio.open(path) as file:
        levels = file.overviews(1)
    assert levels == [2, 4]
    for level in range(len(levels)):
        with rasterio.open(path, overview_level=level) as file:
            assert set(np.unique(file.read(1))) <= {0, 2, 255}


def test_the_attribute_table_counts_pixels_and_ground(written):
    rows = [[cell.text for cell in row] for row in Xml.parse(f"{written}.aux.xml").iter("Row")]
    counts = [int((labels() == value).sum()) for value in range(3)]
    assert [(row[0], row[1], int(row[5]), float(row[6])) for row in rows] == [
        (str(value), CLASSES.names[value], counts[value], counts[value] * 100.0) for value in range(3)
    ]


def test_ground_in_degrees_is_summed_row_by_row(tmp_path):
    grid = Grid(width=4, height=180, crs="EPSG:4326", transform=(1.0, 0.0, 0.0, 0.0, -1.0, 90.0))
    values = np.zeros((180, 4), dtype=np.uint8)
    values[:90] = 1
    path = save(tmp_path / "a.tif", values, grid=grid, rows=50)
    south, north, none = (float(row[6].text) for row in Xml.parse(f"{path}.aux.xml").iter("Row"))
    assert south == pytest.approx(north) == pytest.approx(5.10065621724e14 / 2 * 4 / 360, rel=1e-4)
    assert none == 0


def test_gdal_itself_reads_names_and_table(written):
    found = next(iter(Path(rasterio.__file__).parents[1].glob("rasterio.libs/libgdal*")), None)
    if found is None:
        pytest.skip("rasterio is not a wheel with its own GDAL")
    gdal = ctypes.CDLL(str(found))
    for name, result in (
        ("GDALOpen", ctypes.c_void_p),
        ("GDALGetRasterBand", ctypes.c_void_p),
        ("GDALGetRasterCategoryNames", ctypes.POINTER(ctypes.c_char_p)),
        ("GDALGetDefaultRAT", ctypes.c_void_p),
        ("GDALRATGetValueAsString", ctypes.c_char_p),
        ("GDALRATGetValueAsDouble", ctypes.c_double),
    ):
        getattr(gdal, name).restype = result
    dataset = ctypes.c_void_p(gdal.GDALOpen(os.fsencode(written), 0))
    band = ctypes.c_void_p(gdal.GDALGetRasterBand(dataset, 1))
    table = ctypes.c_void_p(gdal.GDALGetDefaultRAT(band))
    names = gdal.GDALGetRasterCategoryNames(band)  # GDAL 3.10 looks at the .aux.xml only when first asked for the table
    shape = gdal.GDALRATGetRowCount(table), gdal.GDALRATGetColumnCount(table), gdal.GDALRATGetTableType(table)
    usages = [gdal.GDALRATGetUsageOfCol(table, column) for column in range(7)]
    second = gdal.GDALRATGetValueAsString(table, 1, 1).decode(), gdal.GDALRATGetValueAsDouble(table, 1, 5)
    listed = [names[i].decode() for i in range(3)]
    gdal.GDALClose(dataset)
    assert listed == list(CLASSES.names)
    assert shape == (3, 7, 0)  # 0: thematic
    assert usages == [5, 2, 6, 7, 8, 1, 0]  # value, name, red, green, blue, count, generic
    assert second == ("bois & forêt", float((labels() == 1).sum()))


def test_the_style_lies_beside_the_map(written):
    assert sorted(path.name for path in written.parent.iterdir()) == ["town.v1.qml", "town.v1.tif", "town.v1.tif.aux.xml"]
    entries = list(Xml.parse(written.with_suffix(".qml")).iter("paletteEntry"))
    assert [entry.get("label") for entry in entries] == list(CLASSES.names)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:4326", (0.1 / 3, 0.0, 10.123456789, 0.0, -0.1 / 3, 50.987654321)),
        ("EPSG:32633", (10.0, 0.0, 500_000.0, 0.0, 10.0, 5_000_000.0)),
        ("EPSG:32633", (8.7, 5.1, 500_000.3, 5.1, -8.7, 5_000_000.7)),
        (None, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)),
        (None, (17.3, 5.0, 100.0, 10.0, -8.7, 200.0)),
        (LAEA, (20.0, 0.0, -400.0, 0.0, -20.0, 300.0)),
        (ROTATED_POLE, (0.1, 0.0, 3.0, 0.0, -0.1, 4.0)),
        ("EPSG:2180", (1.0, 0.0, 700_000.0, 0.0, -1.0, 500_000.0)),
    ],
)
def test_the_place_of_a_map_is_that_of_its_scene_exactly(tmp_path, recwarn, crs, transform):
    grid = Grid(width=30, height=20, crs=crs, transform=transform)
    bands = Bands(names=("band_1",), dtype="uint8")
    write_scene(tmp_path / "scene.tif", labels(grid)[None], grid=grid, bands=bands)
    source = open_scene(tmp_path / "scene.tif").grid
    path = save(tmp_path / "map.tif", labels(grid), grid=source)
    mapped = open_scene(path).grid
    assert (mapped.transform, mapped.width, mapped.height) == (transform, 30, 20)
    if crs is None:
        assert mapped.crs is None
    else:
        assert CRS.from_user_input(mapped.crs) == CRS.from_user_input(crs) == CRS.from_user_input(source.crs)
    assert not [warning for warning in recwarn if "eoreferenc" in str(warning.message)]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2000), (513, 3)])
def test_maps_of_any_size(tmp_path, height, width):
    grid = Grid(width=width, height=height, crs="EPSG:32633", transform=UTM.transform)
    path = save(tmp_path / "a.tif", labels(grid), grid=grid)
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), labels(grid))


def test_254_classes_fit(tmp_path):
    grid = Grid(width=255, height=2, crs=None)
    values = np.arange(510, dtype=np.uint8).reshape(2, 255)
    values[values == 254] = 255
    path = save(tmp_path / "a.tif", values, grid=grid, classes=Classes.named([f"class {i}" for i in range(254)]))
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), values)
        assert file.tags(1)["class_253"] == "class 253"


def test_more_classes_than_a_byte_names_are_refused(tmp_path):
    with pytest.raises(LabelError, match=r"a\.tif: 1 to 254 classes, a byte a pixel, got 255"):
        save(tmp_path / "a.tif", labels(), classes=Classes.named([f"class {i}" for i in range(255)]))
    assert not list(tmp_path.glob("a*"))


def test_the_same_map_has_the_same_bytes_whatever_the_strips(tmp_path):
    one, two = save(tmp_path / "a" / "m.tif", labels(), rows=256), save(tmp_path / "b" / "m.tif", labels(), rows=1100)
    for name in ("m.tif", "m.tif.aux.xml", "m.qml"):
        assert (one.parent / name).read_bytes() == (two.parent / name).read_bytes()


def test_a_value_that_is_no_class_is_a_bug_of_ours(tmp_path):
    values = labels()
    values[700, 3] = 3
    with pytest.raises(AssertionError, match=r"values \[3\] are none of 3 classes"):
        save(tmp_path / "a.tif", values)
    assert not list(tmp_path.glob("a*"))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputFailed, match=r"file/b\.tif could not be written: .*choose a folder that you may write to"):
        write_scene(tmp_path / "file" / "b.tif", labels()[None], grid=UTM, bands=Bands(names=("x",)))


def test_four_bands_of_bytes_are_four_bands_of_data(tmp_path):
    bands = Bands(names=("red", "green", "blue", "nir"))
    values = np.arange(48, dtype=np.uint8).reshape(4, 3, 4)
    grid = Grid(width=4, height=3, crs=UTM.crs, transform=UTM.transform)
    write_scene(tmp_path / "a.tif", values, grid=grid, bands=bands)
    scene = open_scene(tmp_path / "a.tif")
    assert scene.bands == bands
    np.testing.assert_array_equal(scene.read(grid.window)[0], values)
    with rasterio.open(tmp_path / "a.tif") as file:
        assert [colour.name for colour in file.colorinterp] == ["red", "green", "blue", "undefined"]
