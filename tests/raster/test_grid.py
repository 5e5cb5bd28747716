import dataclasses

import pytest

from terralean.errors import GridMismatch
from terralean.raster.grid import Grid, Window, check_same_grid, offset_px

UTM = Grid(width=40, height=30, crs="EPSG:32633", transform=(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0))


def moved(grid: Grid, *, east: float) -> Grid:
    a, b, c, d, e, f = grid.transform
    return dataclasses.replace(grid, transform=(a, b, c + east, d, e, f))


def test_cut_keeps_what_both_cover():
    one = Window(row=-2, col=3, height=10, width=10)
    assert one.cut(UTM.window) == Window(row=0, col=3, height=8, width=10)
    assert one.cut(Window(row=50, col=0, height=4, width=4)).pixels == 0


def test_slices_are_relative_to_the_origin():
    outer = Window(row=5, col=7, height=20, width=20)
    assert Window(row=6, col=9, height=3, width=4).slices(origin=outer) == (slice(1, 4), slice(2, 6))


@pytest.mark.parametrize(
    "transform",
    [
        (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0),
        (10.0, 0.0, 500_000.0, 0.0, 10.0, 5_000_000.0),
        (8.0, 6.0, 100.0, 6.0, -8.0, 200.0),
    ],
)
def test_a_crop_has_its_corner_where_the_window_has(transform):
    grid = Grid(width=40, height=30, crs="EPSG:32633", transform=transform)
    crop = grid.crop(Window(row=4, col=6, height=5, width=7))
    a, b, c, d, e, f = transform
    assert crop.corners()[0] == (a * 6 + b * 4 + c, d * 6 + e * 4 + f)
    assert crop.corners()[2] == (a * 13 + b * 9 + c, d * 13 + e * 9 + f)


def test_pixel_size_is_in_metres_in_any_unit():
    assert UTM.pixel_m() == (10.0, 10.0)
    feet = Grid(width=4, height=4, crs="EPSG:2263", transform=(1.0, 0.0, 980_000.0, 0.0, -1.0, 200_000.0))
    assert feet.pixel_m() == pytest.approx((0.3048006, 0.3048006), rel=1e-6)
    degrees = Grid(width=2, height=2, crs="EPSG:4326", transform=(1e-3, 0.0, 15.0, 0.0, -1e-3, 60.001))
    assert degrees.pixel_m() == pytest.approx((55.80, 111.41), abs=0.01)
    assert Grid(width=2, height=2, crs=None).pixel_m() is None


def test_grids_a_hundredth_of_a_pixel_apart_are_one():
    check_same_grid(UTM, moved(UTM, east=0.09), image_name="a.tif", mask_name="b.tif")
    assert offset_px(UTM, moved(UTM, east=30)) == 3
    with pytest.raises(GridMismatch, match=r"b\.tif lies 0\.50 px off its image a\.tif"):
        check_same_grid(UTM, moved(UTM, east=5), image_name="a.tif", mask_name="b.tif")


def test_a_transposed_array_is_told_with_the_fix():
    image = Grid(width=40, height=30, crs=None)
    fix = r"one of them is transposed: write the mask .*, or tell the axes of an array behind its path, e\.g\. #axes=crb"
    with pytest.raises(GridMismatch, match=fix):
        check_same_grid(image, Grid(width=30, height=40, crs=None), image_name="a.mat", mask_name="b.mat")


def test_another_size_or_crs_is_another_grid():
    with pytest.raises(GridMismatch, match=r"b\.tif is 41 x 30 px, its image a\.tif is 40 x 30 px"):
        check_same_grid(UTM, dataclasses.replace(UTM, width=41), image_name="a.tif", mask_name="b.tif")
    with pytest.raises(GridMismatch, match=r"b\.tif is in EPSG:32634, its image a\.tif in EPSG:32633"):
        check_same_grid(UTM, dataclasses.replace(UTM, crs="EPSG:32634"), image_name="a.tif", mask_name="b.tif")
    check_same_grid(UTM, dataclasses.replace(UTM, crs=None), image_name="a.tif", mask_name="b.png")
