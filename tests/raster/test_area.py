import numpy as np
import pytest
from pyproj import Geod

from terralean.raster.area import row_area_m2
from terralean.raster.grid import Grid


def degrees(*, north: float, step: float, height: int, width: int = 3) -> Grid:
    return Grid(width=width, height=height, crs="EPSG:4326", transform=(step, 0.0, 10.0, 0.0, -step, north))


def cell_m2(north: float, step: float) -> float:
    """A pixel as a polygon on the ellipsoid, its parallels drawn with many points."""
    lon = np.linspace(10, 10 + step, 200)
    ring = np.concatenate([lon, lon[::-1]]), np.concatenate([np.full(200, north), np.full(200, north - step)])
    return abs(Geod(ellps="WGS84").polygon_area_perimeter(*ring)[0])


@pytest.mark.parametrize("north", [60.0, 0.5, -45.0])
def test_pixels_in_degrees_have_the_area_of_the_ellipsoid(north):
    area = row_area_m2(degrees(north=north, step=0.1, height=5))
    assert area == pytest.approx([cell_m2(north - 0.1 * row, 0.1) for row in range(5)], rel=1e-6)


def test_a_grid_of_the_world_has_the_area_of_the_earth():
    grid = Grid(width=720, height=360, crs="EPSG:4326", transform=(0.5, 0.0, -180.0, 0.0, -0.5, 90.0))
    assert row_area_m2(grid).sum() * 720 == pytest.approx(5.10065621724e14, rel=2e-5)


def test_pixels_in_metres_and_feet_have_the_area_of_the_plane():
    utm = Grid(width=9, height=4, crs="EPSG:32633", transform=(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0))
    assert row_area_m2(utm).tolist() == [100.0] * 4
    rotated = Grid(width=9, height=4, crs="EPSG:32633", transform=(8.0, 6.0, 500_000.0, 6.0, -8.0, 5_000_000.0))
    assert row_area_m2(rotated) == pytest.approx([100.0] * 4)
    feet = Grid(width=9, height=4, crs="EPSG:2263", transform=(10.0, 0.0, 980_000.0, 0.0, -10.0, 200_000.0))
    assert row_area_m2(feet) == pytest.approx([9.2903412] * 4, rel=1e-6)


def test_web_mercator_is_not_taken_at_its_word():
    north = 8_399_737.89  # 60 degrees
    grid = Grid(width=2, height=2, crs="EPSG:3857", transform=(10.0, 0.0, 1_000_000.0, 0.0, -10.0, north))
    assert row_area_m2(grid) == pytest.approx([25.0, 25.0], rel=0.01)
    assert row_area_m2(grid)[0] < 30


def test_no_place_no_area():
    assert row_area_m2(Grid(width=2, height=2, crs=None)) is None
