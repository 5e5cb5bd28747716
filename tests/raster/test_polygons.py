import dataclasses
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
from pyproj import Transformer
from shapely import affinity

from terralean.errors import GridMismatch, LabelError, MissingFile
from terralean.raster.grid import Grid, Window
from terralean.raster.labels import label_values, read_labels
from terralean.raster.polygons import polygons_in_px
from terralean.spec import Classes

GRID = Grid(width=30, height=20, crs="EPSG:32633", transform=(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0))
CLASSES = Classes.named(["water", "wood", "road"])
FORMATS = ["a.gpkg", "a.geojson", "a.fgb", "a.shp"]


def box(row: float, col: float, height: float, width: float) -> shapely.Polygon:
    """A rectangle of pixels of GRID."""
    return shapely.box(500_000 + 10 * col, 5_000_000 - 10 * (row + height), 500_000 + 10 * (col + width), 5_000_000 - 10 * row)


def save(path: Path, shapes: list, columns: dict[str, list], *, crs: str | None = "EPSG:32633", **layer) -> Path:
    """A vector file; GeoJSON gets degrees, as its standard wants."""
    if path.suffix == ".geojson" and crs == "EPSG:32633":
        to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform
        shapes, crs = list(shapely.transform(shapes, to_degrees, interleaved=False)), "EPSG:4326"
    wkb = np.array([None if shape is None else shapely.to_wkb(shape) for shape in shapes], dtype=object)
    kind = "Polygon" if all(shape is None or shape.geom_type == "Polygon" for shape in shapes) else "Unknown"
    data = [
        np.array(values, dtype=object if any(isinstance(v, str | None) for v in values) else None)
        for values in columns.values()
    ]
    pyogrio.raw.write(path, wkb, data, fields=list(columns), crs=crs, geometry_type=kind, **layer)
    return path


def burn(
    path: Path, window: Window = GRID.window, *, field: str | None = None, like: Grid = GRID, classes=CLASSES
) -> np.ndarray:
    return read_labels(path, like=like, window=window, classes=classes, field=field, name="image.tif")


@pytest.mark.parametrize("name", FORMATS)
def test_polygons_become_the_pixels_they_cover(tmp_path, name):
    path = save(tmp_path / name, [box(2, 3, 4, 5), box(10, 20, 6, 7)], {"class": ["wood", "road"]})
    expected = np.full((20, 30), 255, dtype=np.uint8)
    expected[2:6, 3:8] = 1
    expected[10:16, 20:27] = 2
    np.testing.assert_array_equal(burn(path), expected)
    assert label_values(path) == {"road": 1, "wood": 1}


@pytest.mark.parametrize(
    "transform",
    [
        GRID.transform,
        (10.0, 0.0, 500_000.0, 0.0, 10.0, 4_999_800.0),  # south-up
        (8.0, 6.0, 500_000.0, 6.0, -8.0, 4_999_900.0),  # rotated
    ],
)
def test_a_pixel_belongs_to_the_polygon_that_holds_its_centre(tmp_path, transform):
    grid = dataclasses.replace(GRID, transform=transform)
    star = shapely.Point(500_140, 4_999_930).buffer(75, quad_segs=3)
    hole = affinity.scale(star, 0.4, 0.5)
    path = save(tmp_path / "a.gpkg", [star.difference(hole), hole], {"class": [1, 2]})
    a, b, c, d, e, f = transform
    col, row = np.meshgrid(np.arange(30) + 0.5, np.arange(20) + 0.5)
    x, y = a * col + b * row + c, d * col + e * row + f
    expected = np.where(shapely.contains_xy(hole, x, y), 2, np.where(shapely.contains_xy(star, x, y), 1, 255))
    assert set(np.unique(expected)) == {1, 2, 255}
    np.testing.assert_array_equal(burn(path, like=grid), expected)


@pytest.mark.parametrize("name", ["a.gpkg", "a.geojson", "a.fgb"])
def test_a_window_is_the_crop_of_the_whole(tmp_path, name):
    rng = np.random.default_rng(0)
    shapes = [box(*rng.uniform(0, 15, 2), *rng.uniform(1, 12, 2)) for _ in range(40)]  # they overlap: order matters
    path = save(tmp_path / name, shapes, {"class": [int(value) for value in rng.integers(0, 3, 40)]})
    whole = np.pad(burn(path), ((10, 40), (10, 40)), constant_values=255)
    for row, col, height, width in [
        (0, 0, 7, 9),
        (5, 11, 10, 10),
        (-4, 25, 9, 9),
        (19, -3, 4, 8),
        (40, 40, 2, 2),
        (-8, -8, 3, 3),
    ]:
        window = Window(row=row, col=col, height=height, width=width)
        expected = whole[row + 10 : row + 10 + height, col + 10 : col + 10 + width]
        np.testing.assert_array_equal(burn(path, window), expected)


def test_the_later_of_two_polygons_is_on_top(tmp_path):
    labels = burn(save(tmp_path / "a.gpkg", [box(0, 0, 10, 10), box(5, 5, 10, 10)], {"class": [0, 2]}))
    assert (labels[4, 4], labels[6, 6], labels[12, 12]) == (0, 2, 2)


def test_polygons_of_another_crs_are_reprojected(tmp_path):
    to_mercator = Transformer.from_crs("EPSG:32633", "EPSG:3857", always_xy=True).transform
    shape = shapely.transform(box(2, 3, 4, 5), to_mercator, interleaved=False)
    labels = burn(save(tmp_path / "a.gpkg", [shape], {"class": ["wood"]}, crs="EPSG:3857"))
    expected = np.full((20, 30), 255)
    expected[2:6, 3:8] = 1
    np.testing.assert_array_equal(labels, expected)


def test_a_polygon_that_reaches_round_the_world_covers_the_image(tmp_path):
    path = save(tmp_path / "ocean.gpkg", [shapely.box(-180, -90, 180, 90)], {"class": ["water"]}, crs="EPSG:4326")
    assert (burn(path) == 0).all()
    assert (burn(path, Window(row=3, col=4, height=5, width=6)) == 0).all()
    world = Grid(width=36, height=18, crs="EPSG:3857", transform=(1e6, 0.0, -18e6, 0.0, -1e6, 9e6))
    assert (burn(path, world.window, like=world) == 0).all()  # Mercator has no poles


def test_classes_are_told_by_name_by_number_or_by_number_in_text(tmp_path):
    for values in (["water", "road"], [0, 2], ["0", "2"], [0.0, 2.0]):
        path = save(
            tmp_path / f"{type(values[0]).__name__}{values[0]}.gpkg", [box(0, 0, 2, 2), box(5, 5, 2, 2)], {"class": values}
        )
        labels = burn(path)
        assert (labels[0, 0], labels[6, 6]) == (0, 2)


def test_a_polygon_of_255_is_ignored_ground(tmp_path):
    labels = burn(save(tmp_path / "a.gpkg", [box(0, 0, 9, 9), box(2, 2, 3, 3)], {"class": [1, 255]}))
    assert (labels[0, 0], labels[3, 3]) == (1, 255)


def test_the_class_attribute_is_found(tmp_path):
    shape = [box(0, 0, 2, 2)]
    for columns in (
        {"id": [7], "Class": ["wood"]},
        {"id": [7], "name": ["wood"]},
        {"note": ["x"], "label": ["wood"]},
        {"kind": ["wood"]},
    ):
        assert burn(save(tmp_path / f"{'-'.join(columns)}.gpkg", shape, columns))[0, 0] == 1
    path = save(tmp_path / "area.gpkg", shape, {"area": [3.5], "kind": ["wood"]})
    assert burn(path)[0, 0] == 1
    path = save(tmp_path / "two.gpkg", shape, {"kind": ["wood"], "owner": ["road"]})
    assert burn(path, field="owner")[0, 0] == 2
    with pytest.raises(LabelError, match=r"two\.gpkg does not say which attribute .* it has kind, owner; .*label_field=kind"):
        burn(path)
    with pytest.raises(LabelError, match=r"two\.gpkg has no attribute 'knd'; nearest: kind; it has kind, owner"):
        burn(path, field="knd")


def test_an_unknown_class_names_the_nearest(tmp_path):
    path = save(tmp_path / "a.gpkg", [box(0, 0, 2, 2), box(5, 5, 1, 1)], {"class": ["wodd", "7"]})
    with pytest.raises(LabelError) as error:
        burn(path)
    assert str(error.value) == (
        f"{path}: 'class' holds '7', 'wodd' (nearest: wood); the classes are water, wood, road, or their numbers 0 to 2; "
        "correct the attribute, add the class, or list what is no class in data.ignore"
    )
    assert burn(path, Window(row=15, col=15, height=2, width=2)).min() == 255, "only polygons near the window are read"


def test_names_need_classes_and_numbers_do_not(tmp_path):
    path = save(tmp_path / "a.gpkg", [box(0, 0, 2, 2)], {"class": ["wood"]})
    with pytest.raises(LabelError, match=r"'class' holds 'wood', which are no class numbers 0 to 254; name the classes"):
        burn(path, classes=None)
    path = save(tmp_path / "b.gpkg", [box(0, 0, 2, 2)], {"class": [200]})
    assert burn(path, classes=None)[0, 0] == 200
    assert label_values(path) == {200: 1}


def test_polygons_without_a_class_are_refused(tmp_path):
    path = save(tmp_path / "a.gpkg", [box(0, 0, 2, 2), box(4, 4, 2, 2)], {"class": ["wood", None]})
    with pytest.raises(LabelError, match=r"a\.gpkg: 1 of 2 polygons have no 'class'"):
        burn(path)


def test_points_are_refused(tmp_path):
    path = save(tmp_path / "a.gpkg", [box(0, 0, 2, 2), shapely.Point(500_050, 4_999_950)], {"class": ["wood", "road"]})
    with pytest.raises(LabelError, match=r"1 of 2 features are no polygons but Point; buffer them"):
        burn(path)


def test_both_sides_need_a_crs(tmp_path):
    path = save(tmp_path / "a.gpkg", [box(0, 0, 2, 2)], {"class": ["wood"]})
    with pytest.raises(GridMismatch, match=r"a\.gpkg cannot be laid on image\.tif, which has no CRS"):
        burn(path, like=dataclasses.replace(GRID, crs=None))
    with pytest.warns(UserWarning, match="crs"):
        path = save(tmp_path / "b.shp", [box(0, 0, 2, 2)], {"class": ["wood"]}, crs=None)
    with pytest.raises(LabelError, match=r"b\.shp has no CRS, so its polygons have no place; set it, e\.g\. ogr2ogr"):
        burn(path)


def test_the_layer_of_polygons_is_found(tmp_path):
    path = save(tmp_path / "a.gpkg", [box(0, 0, 2, 2)], {"class": ["wood"]}, layer="fields")
    pyogrio.raw.write(path, None, [np.array(["red"], dtype=object)], fields=["style"], layer="layer_styles")
    points = [shapely.to_wkb(shapely.Point(0, 0))]
    pyogrio.raw.write(
        path,
        np.array(points, dtype=object),
        [np.array([1])],
        fields=["id"],
        crs="EPSG:32633",
        geometry_type="Point",
        layer="sites",
    )
    assert burn(path)[0, 0] == 1


def test_two_layers_of_polygons_are_ambiguous(tmp_path):
    path = save(tmp_path / "a.gpkg", [box(0, 0, 2, 2)], {"class": ["wood"]}, layer="one")
    save(path, [box(0, 0, 2, 2)], {"class": ["road"]}, layer="two")
    with pytest.raises(LabelError, match=r"a\.gpkg has 2 layers \(one, two\); expected one of polygons"):
        burn(path)


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(MissingFile, match=r"none\.gpkg is not there; expected a vector file of polygons"):
        burn(tmp_path / "none.gpkg")
    (tmp_path / "bad.geojson").write_text('{"type": "nothing"')
    with pytest.raises(LabelError, match=r"bad\.geojson is not a vector file that GDAL can open"):
        burn(tmp_path / "bad.geojson")


def test_a_file_that_changed_is_read_anew(tmp_path):
    path = save(tmp_path / "a.gpkg", [box(0, 0, 2, 2)], {"class": ["wood"]})
    assert burn(path)[0, 0] == 1
    path.unlink()
    save(path, [box(0, 0, 2, 2)], {"kind": ["road"]})
    assert burn(path)[0, 0] == 2


@pytest.mark.parametrize("limit", [0, 2**20])
def test_a_file_without_an_index_gives_the_same_held_in_memory_or_not(tmp_path, monkeypatch, limit):
    monkeypatch.setattr("terralean.raster.polygons.IN_MEMORY_BYTES", limit)
    path = save(tmp_path / "a.geojson", [box(0, 0, 10, 10), box(5, 5, 10, 10), box(16, 16, 2, 2)], {"class": [0, 2, 9]})
    window = Window(row=3, col=3, height=8, width=8)
    expected = np.zeros((8, 8))
    expected[2:, 2:] = 2
    expected[:2, 7] = expected[7, :2] = 255
    np.testing.assert_array_equal(burn(path, window), expected)
    with pytest.raises(LabelError, match="'class' holds '9'"):
        burn(path)


@pytest.mark.parametrize("name", FORMATS)
def test_polygons_in_px_are_whole_and_in_the_order_of_the_file(tmp_path, name):
    path = save(tmp_path / name, [box(2, 3, 4, 5), box(10, 20, 6, 7), box(0, 28, 3, 9)], {"class": ["wood", "road", "water"]})
    shapes, names = polygons_in_px(str(path), like=GRID, window=GRID.window, field=None, name="image.tif")
    by_name = dict(zip(names, shapely.bounds(shapes).round(6).tolist(), strict=True))
    assert by_name == {"wood": [3, 2, 8, 6], "road": [20, 10, 27, 16], "water": [28, 0, 37, 3]}  # FlatGeobuf reorders
    window = Window(row=0, col=0, height=5, width=10)
    shapes, names = polygons_in_px(str(path), like=GRID, window=window, field=None, name="image.tif")
    assert names == ["wood"] and shapely.bounds(shapes).round(6).tolist() == [[3, 2, 8, 6]]
    outside = Window(row=100, col=0, height=5, width=10)
    assert polygons_in_px(str(path), like=GRID, window=outside, field=None, name="image.tif")[1] == []


def test_polygons_in_px_need_an_image_with_a_place(tmp_path):
    path = save(tmp_path / "a.gpkg", [box(2, 3, 4, 5)], {"class": ["wood"]})
    with pytest.raises(GridMismatch, match=r"image\.png, which has no CRS.*DOTA's text files"):
        polygons_in_px(str(path), like=Grid(width=30, height=20, crs=None), window=GRID.window, field=None, name="image.png")
