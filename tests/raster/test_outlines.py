"""Polygons of a class map: exact small cases, and laws that hold for any map."""

import subprocess
import sys

import numpy as np
import pyogrio
import pytest
import shapely
from rasterio.features import shapes

from terralean.raster import outlines
from terralean.raster.area import row_area_m2
from terralean.raster.grid import Grid
from terralean.raster.outlines import PolygonWriter, components
from terralean.raster.polygons import burn_polygons
from terralean.spec import Classes

CLASSES = Classes.named(("field", "forest", "water <&>"))
TRANSFORM = (10.0, 0.0, 5e5, 0.0, -10.0, 5e6)


def grid_of(labels, *, crs="EPSG:32633", transform=TRANSFORM):
    return Grid(width=labels.shape[1], height=labels.shape[0], crs=crs, transform=transform)


def write(path, labels, confidence=None, *, rows=1, grid=None):
    """Rows by so many at once."""
    labels = np.asarray(labels, np.uint8)
    confidence = np.ones(labels.shape, np.float32) if confidence is None else confidence
    with PolygonWriter(path, grid=grid or grid_of(labels), classes=CLASSES) as writer:
        for row in range(0, len(labels), rows):
            writer.write(labels[row : row + rows], confidence[row : row + rows])
    return read(path)


def read(path):
    """Polygons and columns, in an order that does not depend on how they were made."""
    meta, _, wkb, columns = pyogrio.raw.read(path)
    fields = dict(zip(meta["fields"].tolist(), columns, strict=True))
    polygons = shapely.normalize(shapely.from_wkb(wkb))
    order = np.argsort(shapely.to_wkt(polygons, rounding_precision=3))
    return meta, polygons[order], {name: column[order] for name, column in fields.items()}


def random_labels(seed, height=23, width=31):
    """Blobs of some pixels and single ones, some of them nodata."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.integers(0, 3, (height // 4 + 1, width // 4 + 1)), np.ones((4, 4), np.int64))[:height, :width]
    return np.where(rng.random((height, width)) < 0.2, rng.choice([0, 1, 2, 255], (height, width)), coarse).astype(np.uint8)


def test_a_small_map_by_hand(tmp_path):
    labels = [[0, 0, 1], [0, 255, 1], [1, 1, 1]]
    confidence = np.array([[0.5, 0.7, 1.0], [0.9, 0.0, 1.0], [1.0, 0.5, 0.75]], np.float32)
    meta, polygons, columns = write(tmp_path / "map.gpkg", labels, confidence)
    assert meta["crs"] == "EPSG:32633"
    found = {name: (polygon, i) for i, (polygon, name) in enumerate(zip(polygons, columns["class"], strict=True))}
    assert set(found) == {"field", "forest"}
    field, i = found["field"]
    assert field.equals(
        shapely.Polygon(
            [(5e5, 5e6), (5e5 + 20, 5e6), (5e5 + 20, 5e6 - 10), (5e5 + 10, 5e6 - 10), (5e5 + 10, 5e6 - 20), (5e5, 5e6 - 20)]
        )
    )
    assert len(field.exterior.coords) == 7
    assert (columns["value"][i], columns["pixels"][i]) == (0, 3)
    assert columns["area_m2"][i] == pytest.approx(300)
    assert columns["confidence"][i] == pytest.approx(0.7)
    _, i = found["forest"]
    assert (columns["value"][i], columns["pixels"][i], columns["confidence"][i]) == (1, 5, 0.85)


def test_corners_do_not_join(tmp_path):
    _, polygons, columns = write(tmp_path / "map.gpkg", [[0, 1], [1, 0]])
    assert sorted(columns["class"]) == ["field", "field", "forest", "forest"]
    assert (shapely.area(polygons) == 100).all()


def test_arms_that_meet_below_are_one_polygon_with_its_hole(tmp_path, monkeypatch):
    monkeypatch.setattr(outlines, "BLOCK_PX", 1)
    labels = np.array([[0, 1, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 0]])
    _, polygons, columns = write(tmp_path / "map.gpkg", labels)
    assert sorted(zip(columns["class"].tolist(), columns["pixels"].tolist(), strict=True)) == [
        ("field", 12),
        ("forest", 1),
        ("forest", 2),
    ]
    field = polygons[columns["class"].tolist().index("field")]
    assert [shapely.bounds(hole).tolist() for hole in field.interiors] == [[5e5 + 30, 5e6 - 20, 5e5 + 40, 5e6 - 10]]
    assert len(field.exterior.coords) == 9  # no corner is left where rows were joined


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("block", [1, 64, 10**6])
def test_polygons_do_not_depend_on_blocks_and_cover_the_map_once(tmp_path, monkeypatch, seed, block):
    labels = random_labels(seed)
    confidence = np.random.default_rng(seed).random(labels.shape).astype(np.float32)
    monkeypatch.setattr(outlines, "BLOCK_PX", block)
    _, polygons, columns = write(tmp_path / "map.gpkg", labels, confidence, rows=3)
    # What GDAL makes of the whole map at once.
    expected = [
        (shapely.geometry.shape(outline), int(value))
        for outline, value in shapes(labels, mask=labels != 255, connectivity=4, transform=(10, 0, 5e5, 0, -10, 5e6))
    ]
    theirs = {(value, shapely.normalize(shapely.simplify(polygon, 0)).wkt) for polygon, value in expected}
    ours = {
        (int(value), shapely.normalize(shapely.simplify(polygon, 0)).wkt)
        for polygon, value in zip(polygons, columns["value"], strict=True)
    }
    assert ours == theirs
    assert len(polygons) == len(expected)
    assert shapely.is_valid(polygons).all()
    np.testing.assert_allclose(shapely.area(polygons), columns["pixels"] * 100)
    assert columns["pixels"].sum() == (labels != 255).sum()
    np.testing.assert_allclose((columns["confidence"] * columns["pixels"]).sum(), confidence[labels != 255].sum(), rtol=1e-3)


def test_burning_the_polygons_gives_the_map_back(tmp_path):
    labels = random_labels(7)
    grid = grid_of(labels)
    write(tmp_path / "map.gpkg", labels, rows=5, grid=grid)
    burnt = burn_polygons(
        str(tmp_path / "map.gpkg"), like=grid, window=grid.window, classes=CLASSES, field=None, name="scene.tif"
    )
    assert (burnt == labels).all()


def test_flatgeobuf_holds_the_same(tmp_path):
    labels = random_labels(3)
    meta, polygons, columns = write(tmp_path / "map.gpkg", labels)
    theirs, others, other_columns = write(tmp_path / "map.fgb", labels)
    assert theirs["crs"] == meta["crs"]
    assert shapely.equals_exact(polygons, others, tolerance=0).all()
    assert all((columns[name] == other_columns[name]).all() for name in columns)
    assert {path.name for path in tmp_path.iterdir()} == {"map.gpkg", "map.fgb"}
    assert pyogrio.read_info(tmp_path / "map.fgb")["driver"] == "FlatGeobuf"


def test_areas_in_degrees_are_those_of_the_rows(tmp_path):
    labels = np.array([[0, 0], [0, 1], [1, 1]], np.uint8)
    grid = grid_of(labels, crs="EPSG:4326", transform=(0.01, 0.0, 10.0, 0.0, -0.01, 60.0))
    _, _, columns = write(tmp_path / "map.gpkg", labels, grid=grid)
    rows = row_area_m2(grid)
    areas = dict(zip(columns["class"].tolist(), columns["area_m2"].tolist(), strict=True))
    assert areas["field"] == pytest.approx(2 * rows[0] + rows[1])
    assert areas["forest"] == pytest.approx(rows[1] + 2 * rows[2])


def test_without_a_place_corners_are_pixels_and_areas_unknown(tmp_path):
    grid = Grid(width=2, height=1, crs=None)
    meta, polygons, columns = write(tmp_path / "map.gpkg", [[0, 1]], grid=grid)
    assert meta["crs"] is None
    assert [shapely.bounds(polygon).tolist() for polygon in polygons] == [[0, 0, 1, 1], [1, 0, 2, 1]]
    assert np.isnan(columns["area_m2"]).all()


def test_numbers_of_regions():
    ids, values = components(np.array([[2, 2, 255], [0, 2, 0], [0, 0, 0]], np.uint8))
    assert values == [0, 2]
    assert ids.tolist() == [[2, 2, 0], [1, 2, 1], [1, 1, 1]]


def test_an_error_leaves_nothing(tmp_path):
    def stopped():
        with PolygonWriter(tmp_path / "map.gpkg", grid=Grid(width=2, height=2, crs=None), classes=CLASSES) as writer:
            writer.write(np.zeros((1, 2), np.uint8), np.ones((1, 2), np.float32))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not [*tmp_path.iterdir()]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    code = f"""
import resource, signal
import numpy as np
from terralean.errors import OutputFailed
from terralean.raster.grid import Grid
from terralean.raster.outlines import PolygonWriter
from terralean.spec import Classes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
labels = (np.indices((64, 64)).sum(axis=0) % 2).astype(np.uint8)
try:
    grid = Grid(width=64, height=64, crs=None)
    with PolygonWriter({str(tmp_path / "map.gpkg")!r}, grid=grid, classes=Classes.named("ab")) as writer:
        writer.write(labels, np.ones((64, 64), np.float32))
except OutputFailed as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "map.gpkg could not be written" in done.stdout, done.stderr
    assert not [*tmp_path.iterdir()]
