"""Polygons of a class map: exact small cases, and laws that hold for any map."""

import subprocess
import sys

import numpy as np
import pyogrio
import pytest
import shapely
from pyarrow import parquet
from scipy import ndimage

from terralean.errors import ConfigError
from terralean.raster import regions
from terralean.raster.area import row_area_m2
from terralean.raster.grid import Grid
from terralean.raster.outlines import PolygonWriter
from terralean.raster.polygons import burn_polygons
from terralean.spec import Classes

CLASSES = Classes.named(("field", "forest", "water <&>"))
TRANSFORM = (10.0, 0.0, 5e5, 0.0, -10.0, 5e6)


def grid_of(labels, *, crs="EPSG:32633", transform=TRANSFORM):
    return Grid(width=labels.shape[1], height=labels.shape[0], crs=crs, transform=transform)


def write(path, labels, confidence=None, *, rows=1, grid=None, min_area_m2=None):
    """Rows by so many at once, or one part after the other of so many each."""
    labels = np.asarray(labels, np.uint8)
    confidence = np.ones(labels.shape, np.float32) if confidence is None else confidence
    with PolygonWriter(path, grid=grid or grid_of(labels), classes=CLASSES, min_area_m2=min_area_m2) as writer:
        row = 0
        for many in [rows] * len(labels) if isinstance(rows, int) else rows:
            writer.write(labels[row : row + many], confidence[row : row + many])
            row += many
    return read(path)


def read(path):
    """Polygons and columns, in an order that does not depend on how they were made."""
    if path.suffix == ".parquet":
        table = parquet.read_table(path)
        meta, wkb = {}, table["geometry"].to_pylist()
        fields = {name: table[name].to_numpy() for name in table.column_names if name not in ("geometry", "bbox")}
    else:
        meta, _, wkb, columns = pyogrio.raw.read(path)
        fields = dict(zip(meta["fields"].tolist(), columns, strict=True))
    polygons = np.asarray(shapely.from_wkb(wkb), dtype=object)
    order = np.argsort([in_order(polygon) for polygon in polygons])
    return meta, polygons[order], {name: column[order] for name, column in fields.items()}


def in_order(polygon):
    return shapely.to_wkt(shapely.normalize(polygon), rounding_precision=3)


def by_hand(labels, confidence, grid, *, min_area_m2=0.0):
    """Each region as the union of its pixels: (polygon, value, pixels, area, confidence), in the same order."""
    a, b, c, d, e, f = grid.transform
    areas = row_area_m2(grid)
    areas = np.broadcast_to((np.full(grid.height, np.nan) if areas is None else areas)[:, None], labels.shape)
    found = []
    for value in np.unique(labels[labels != 255]):
        ids, count = ndimage.label(labels == value)
        for region in range(1, count + 1):
            here = ids == region
            squares = [shapely.box(col, row, col + 1, row + 1) for row, col in np.argwhere(here)]
            whole = shapely.simplify(shapely.union_all(squares), 0)
            area, closed = areas[here].sum(), []
            if area < min_area_m2:
                continue
            for hole in whole.interiors:
                rows = shapely.get_coordinates(shapely.centroid(inside(hole, labels.shape)))[:, 1].astype(int)
                if min_area_m2 and areas[rows, 0].sum() < min_area_m2:
                    closed.append(hole)
                    area += areas[rows, 0].sum()
            whole = shapely.Polygon(whole.exterior, [hole for hole in whole.interiors if hole not in closed])
            ground = shapely.transform(whole, lambda p: p @ [[a, d], [b, e]] + [c, f])
            found.append((ground, value, here.sum(), area, confidence[here].mean()))
    return sorted(found, key=lambda one: in_order(one[0]))


def inside(hole, shape):
    """The pixels that a ring has inside."""
    pixels = np.array([shapely.box(col, row, col + 1, row + 1) for row, col in np.ndindex(shape)])
    return pixels[shapely.contains(shapely.Polygon(hole), pixels)]


def agree(polygons, columns, expected):
    assert len(polygons) == len(expected)
    for i, (polygon, value, pixels, area, confidence) in enumerate(expected):
        assert shapely.equals_exact(shapely.normalize(polygons[i]), shapely.normalize(polygon), tolerance=1e-6)
        assert (columns["value"][i], columns["pixels"][i]) == (value, pixels)
        assert columns["class"][i] == CLASSES.names[value]
        assert columns["area_m2"][i] == pytest.approx(area, nan_ok=True)
        assert columns["confidence"][i] == pytest.approx(confidence, abs=6e-5)
    assert shapely.is_valid(polygons).all()
    assert shapely.is_ccw(shapely.get_exterior_ring(polygons)).all()
    assert not any(shapely.is_ccw(hole) for polygon in polygons for hole in polygon.interiors)


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
    monkeypatch.setattr(regions, "BLOCK_PX", 1)
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


GRIDS = {
    "north up": ("EPSG:32633", TRANSFORM),
    "south up": ("EPSG:32633", (10.0, 0.0, 5e5, 0.0, 10.0, 5e6)),
    "rotated": ("EPSG:32633", (8.0, 6.0, 5e5, 6.0, -8.0, 5e6)),
    "degrees": ("EPSG:4326", (0.01, 0.0, 10.0, 0.0, -0.01, 60.0)),
    "pixels": (None, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)),
}


@pytest.mark.parametrize("where", GRIDS)
@pytest.mark.parametrize("block", [1, 64, 10**6])
@pytest.mark.parametrize("ending", ["gpkg", "fgb", "parquet"])
def test_polygons_are_the_unions_of_pixels_however_the_map_is_cut(tmp_path, monkeypatch, where, block, ending):
    rng = np.random.default_rng([len(where), block])
    crs, transform = GRIDS[where]
    for seed in range(3):
        labels = random_labels(seed, height=13, width=17)
        confidence = rng.random(labels.shape).astype(np.float32)
        grid = grid_of(labels, crs=crs, transform=transform)
        monkeypatch.setattr(regions, "BLOCK_PX", block)
        strips = np.diff([0, *np.sort(rng.choice(np.arange(1, 13), 4, replace=False)), 13]).tolist()
        _, polygons, columns = write(tmp_path / f"map.{ending}", labels, confidence, rows=strips, grid=grid)
        agree(polygons, columns, by_hand(labels, confidence, grid))


@pytest.mark.parametrize("where", ["north up", "rotated", "degrees"])
def test_small_regions_are_left_out_and_small_holes_closed(tmp_path, monkeypatch, where):
    monkeypatch.setattr(regions, "BLOCK_PX", 40)
    crs, transform = GRIDS[where]
    for seed in range(6):
        labels = random_labels(seed, height=13, width=17)
        confidence = np.random.default_rng(seed).random(labels.shape).astype(np.float32)
        grid = grid_of(labels, crs=crs, transform=transform)
        least = 3.5 * row_area_m2(grid)[6]
        _, polygons, columns = write(tmp_path / "map.gpkg", labels, confidence, grid=grid, min_area_m2=least)
        expected = by_hand(labels, confidence, grid, min_area_m2=least)
        agree(polygons, columns, expected)
        assert len(expected) < len(by_hand(labels, confidence, grid))


def test_a_closed_hole_is_part_of_the_area_but_not_of_the_pixels(tmp_path):
    labels = np.zeros((4, 5), np.uint8)
    labels[1, 1], labels[1:3, 3] = 255, 1
    percent = np.where(labels == 0, 80, 20).astype(np.uint8)
    _, (field,), columns = write(tmp_path / "map.gpkg", labels, percent, min_area_m2=200.1)
    assert (columns["pixels"][0], columns["area_m2"][0], columns["confidence"][0]) == (17, 2000, 0.8)
    assert not field.interiors
    *_, columns = write(tmp_path / "map.gpkg", labels, percent, min_area_m2=200)
    assert sorted(columns["area_m2"].tolist()) == [200, 1800]  # what has just the area stays, hole and region


def test_an_area_of_whole_pixels_is_not_lost_to_rounding(tmp_path):
    labels = np.zeros((10, 10), np.uint8)
    grid = grid_of(labels, transform=(0.3, 0.0, 5e5, 0.0, -0.3, 5e6))
    assert sum([0.09] * 100) < 9
    _, polygons, _ = write(tmp_path / "map.gpkg", labels, grid=grid, min_area_m2=9)
    assert len(polygons) == 1


def test_a_smallest_area_needs_a_ground_to_lie_on(tmp_path):
    grid = Grid(width=2, height=1, crs=None)
    with pytest.raises(ConfigError, match=r"map\.gpkg: a smallest area of 20 m2 was asked for and the scene has no CRS"):
        PolygonWriter(tmp_path / "map.gpkg", grid=grid, classes=CLASSES, min_area_m2=20)
    for wrong in (0, -5, float("nan")):
        with pytest.raises(ConfigError, match=f"must be above 0 m2, got {wrong}"):
            PolygonWriter(tmp_path / "map.gpkg", grid=grid_of(np.zeros((1, 1))), classes=CLASSES, min_area_m2=wrong)


def comb(height, width=40):
    """A region that never ends, with a hole in every other pixel of every other row, and islands in it."""
    labels = np.zeros((height, width), np.uint8)
    labels[1::2, 1::2] = 1
    return labels


def test_a_region_that_never_ends_is_cut_along_rows(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    labels = comb(61)
    _, whole, _ = write(tmp_path / "whole.gpkg", labels)
    monkeypatch.setattr(regions, "BLOCK_PX", 80)
    monkeypatch.setattr(regions, "MOST_CORNERS", 400)
    _, parts, columns = write(tmp_path / "parts.gpkg", labels)
    assert "were cut along rows" in caplog.text
    field = parts[columns["value"] == 0]
    assert len(field) > 5
    assert shapely.get_num_coordinates(parts).max() < 800  # what waits, and a block
    assert shapely.is_valid(parts).all()
    assert shapely.area(field).sum() == shapely.area(shapely.union_all(field))  # they do not overlap
    assert shapely.equals(shapely.union_all(field), max(whole, key=shapely.area))
    assert columns["pixels"].sum() == labels.size
    np.testing.assert_allclose(columns["area_m2"], shapely.area(parts))


def test_what_hangs_on_a_cut_region_is_kept_however_small(tmp_path, monkeypatch):
    monkeypatch.setattr(regions, "BLOCK_PX", 40)
    monkeypatch.setattr(regions, "MOST_CORNERS", 200)
    labels = np.full((60, 40), 255, np.uint8)
    labels[:45] = comb(45)
    labels[45:, 7] = 0  # a thread below, less than the smallest area between two cuts
    labels[50, 20] = 0  # on its own
    _, parts, columns = write(tmp_path / "map.gpkg", labels, min_area_m2=5000)
    assert set(columns["value"]) == {0}
    thread = shapely.box(5e5 + 70, 5e6 - 600, 5e5 + 80, 5e6 - 450)
    alone = shapely.box(5e5 + 200, 5e6 - 510, 5e5 + 210, 5e6 - 500)
    together = shapely.union_all(parts)
    assert shapely.contains(together, thread)
    assert not shapely.intersects(together, shapely.buffer(alone, -1))


@pytest.mark.parametrize("ending", ["gpkg", "fgb", "parquet"])
def test_the_same_bytes_again_and_by_other_strips(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(regions, "BLOCK_PX", 100)
    labels = random_labels(5)
    for name, rows in (("one", 1), ("two", 7), ("three", 23)):
        write(tmp_path / f"{name}.{ending}", labels, rows=rows)
    one, two, three = ((tmp_path / f"{name}.{ending}").read_bytes() for name in ("one", "two", "three"))
    assert one == two == three


@pytest.mark.parametrize("ending", ["gpkg", "fgb", "parquet"])
def test_a_map_without_a_region_makes_a_file_without_a_polygon(tmp_path, ending):
    _, polygons, columns = write(tmp_path / f"map.{ending}", np.full((3, 4), 255))
    assert len(polygons) == 0
    assert set(columns) == {"class", "value", "pixels", "area_m2", "confidence"}


def test_burning_the_polygons_gives_the_map_back(tmp_path):
    labels = random_labels(7)
    grid = grid_of(labels)
    write(tmp_path / "map.gpkg", labels, rows=5, grid=grid)
    burnt = burn_polygons(
        str(tmp_path / "map.gpkg"), like=grid, window=grid.window, classes=CLASSES, field=None, name="scene.tif"
    )
    assert (burnt == labels).all()


def test_files_stand_alone_and_name_their_crs(tmp_path):
    labels = random_labels(3)
    meta, *_ = write(tmp_path / "map.gpkg", labels)
    theirs, *_ = write(tmp_path / "map.fgb", labels)
    assert theirs["crs"] == meta["crs"] == "EPSG:32633"
    assert {path.name for path in tmp_path.iterdir()} == {"map.gpkg", "map.fgb"}
    assert pyogrio.read_info(tmp_path / "map.fgb")["driver"] == "FlatGeobuf"
    assert pyogrio.list_layers(tmp_path / "map.gpkg").tolist() == [["classes", "Polygon"]]


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


@pytest.mark.parametrize("ending", ["gpkg", "fgb", "parquet"])
def test_an_error_leaves_nothing(tmp_path, ending):
    def stopped():
        with PolygonWriter(tmp_path / f"map.{ending}", grid=Grid(width=2, height=2, crs=None), classes=CLASSES) as writer:
            writer.write(np.zeros((1, 2), np.uint8), np.ones((1, 2), np.float32))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("ending", ["gpkg", "parquet"])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, ending):
    code = f"""
import resource, signal
import numpy as np
from terralean.errors import OutputFailed
from terralean.raster.grid import Grid
from terralean.raster.outlines import PolygonWriter
from terralean.spec import Classes
grid = Grid(width=256, height=256, crs=None)
labels = np.random.default_rng(0).integers(0, 2, (256, 256)).astype(np.uint8)
try:
    with PolygonWriter({str(tmp_path / f"map.{ending}")!r}, grid=grid, classes=Classes.named("ab")) as writer:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        writer.write(labels, np.ones((256, 256), np.float32))
except OutputFailed as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, check=False)
    assert f"map.{ending} could not be written" in done.stdout, done.stderr
    assert not [*tmp_path.iterdir()]
