"""Areas of interest: which pixels lie in them."""

import numpy as np
import pyogrio
import pytest
import shapely
from pyproj import Transformer

from terralean.errors import GridMismatch, LabelError, MissingFile
from terralean.raster.clip import read_clip
from terralean.raster.grid import Grid, Window

NORTH_UP = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)
TURNED = (8.7, 5.1, 500_000.3, 5.1, -8.7, 5_000_000.7)
SOUTH_UP = (10.0, 0.0, 500_000.0, 0.0, 10.0, 5_000_000.0)


def grid(transform=NORTH_UP, crs="EPSG:32633"):
    return Grid(width=60, height=40, crs=crs, transform=transform)


def on_ground(shape, like):
    """A shape in columns and rows of the scene -> x and y."""
    a, b, c, d, e, f = like.transform
    return shapely.transform(shape, lambda p: np.stack([a * p[:, 0] + b * p[:, 1] + c, d * p[:, 0] + e * p[:, 1] + f], axis=1))


def save(path, shapes, *, like, crs="EPSG:32633"):
    shapes = np.array([on_ground(shape, like) for shape in shapes])
    if crs != "EPSG:32633":
        shapes = shapely.transform(shapes, Transformer.from_crs("EPSG:32633", crs, always_xy=True).transform, interleaved=False)
    kind = shapes[0].geom_type
    pyogrio.raw.write(path, shapely.to_wkb(shapes), [], fields=[], crs=crs, geometry_type=kind, driver=None)
    return str(path)


def centres_within(shape, like):
    """Independent of rasterising: each pixel's centre asked for."""
    cols, rows = np.meshgrid(np.arange(like.width) + 0.5, np.arange(like.height) + 0.5)
    return shapely.contains_xy(shape, cols, rows)


RING = shapely.Point(20.3, 18.2).buffer(13.37).difference(shapely.Point(22.1, 20.4).buffer(4.21))
FAR = shapely.box(50.2, 30.1, 55.7, 33.4)


@pytest.mark.parametrize("transform", [NORTH_UP, TURNED, SOUTH_UP])
@pytest.mark.parametrize(("name", "crs"), [("a.gpkg", "EPSG:32633"), ("a.geojson", "EPSG:4326"), ("a.shp", "EPSG:3857")])
def test_pixels_whose_centres_lie_in_the_polygons(tmp_path, transform, name, crs):
    like = grid(transform)
    clip = read_clip(save(tmp_path / name, [RING, FAR], like=like, crs=crs), like=like, name="scene.tif")
    expected = centres_within(RING, like) | centres_within(FAR, like)
    found = clip.inside(like.window)
    assert (found != expected).sum() <= (0 if crs == "EPSG:32633" else 4)  # edges are straight in another CRS
    rows, cols = np.flatnonzero(expected.any(axis=1)), np.flatnonzero(expected.any(axis=0))
    assert clip.window == Window(row=rows[0], col=cols[0], height=rows[-1] - rows[0] + 1, width=cols[-1] - cols[0] + 1)


def test_a_window_shows_its_part(tmp_path):
    like = grid()
    clip = read_clip(save(tmp_path / "a.gpkg", [RING, FAR], like=like), like=like, name="scene.tif")
    whole = clip.inside(like.window)
    for row, col in np.ndindex(4, 6):
        window = Window(row=10 * row, col=10 * col, height=10, width=10)
        np.testing.assert_array_equal(clip.inside(window), whole[window.slices()])
        assert clip.reaches(window) or not whole[window.slices()].any()
    assert not clip.reaches(Window(row=35, col=0, height=5, width=20))
    past = clip.inside(Window(row=-5, col=-5, height=50, width=70))
    np.testing.assert_array_equal(past[5:45, 5:65], whole)


def test_what_lies_beside_the_scene_is_cut_off(tmp_path):
    like = grid()
    clip = read_clip(save(tmp_path / "a.gpkg", [shapely.box(50, -20, 90, 7)], like=like), like=like, name="scene.tif")
    assert clip.window == Window(row=0, col=50, height=7, width=10)


def test_other_polygons_have_another_digest(tmp_path):
    like = grid()
    found = [
        read_clip(save(tmp_path / name, [shape], like=like), like=like, name="scene.tif").digest
        for name, shape in (("a.gpkg", RING), ("b.fgb", RING), ("c.gpkg", FAR))
    ]
    assert found[0] == found[1] != found[2]


def test_areas_that_cannot_be_used_are_named(tmp_path):
    like = grid()
    path = save(tmp_path / "a.gpkg", [shapely.box(100, 0, 120, 20)], like=like)
    with pytest.raises(GridMismatch, match=r"no pixel of scene\.tif lies in the polygons of .*a\.gpkg; give an area that"):
        read_clip(path, like=like, name="scene.tif")
    tiny = save(tmp_path / "tiny.gpkg", [shapely.box(3.1, 3.1, 3.2, 3.2)], like=like)
    with pytest.raises(GridMismatch, match="no pixel"):
        read_clip(tiny, like=like, name="scene.tif")
    with pytest.raises(GridMismatch, match=r"a\.gpkg cannot be laid on scene\.tif, which has no CRS"):
        read_clip(path, like=grid(crs=None), name="scene.tif")
    points = save(tmp_path / "points.gpkg", [shapely.Point(3, 3)], like=like)
    with pytest.raises(LabelError, match=r"points\.gpkg: 1 of 1 features are no polygons but Point"):
        read_clip(points, like=like, name="scene.tif")
    with pytest.raises(MissingFile, match=r"none\.gpkg"):
        read_clip(str(tmp_path / "none.gpkg"), like=like, name="scene.tif")
