import numpy as np
import pytest
import shapely
from pyproj import Geod
from shapely.geometry import shape

from terralean.raster.footprint import Extent, footprint, whole
from terralean.raster.grid import Grid

UTM = Grid(width=40, height=20, crs="EPSG:32633", transform=(100.0, 0.0, 5e5, 0.0, -100.0, 5.2e6))


def test_the_extent_is_the_hull_of_the_pixels_with_data_however_the_rows_come():
    labels = np.full((20, 40), 255, np.uint8)
    labels[3, 5:9], labels[11, 30], labels[7, 2] = 0, 1, 2
    pixels = shapely.union_all([shapely.box(col, row, col + 1, row + 1) for row, col in np.argwhere(labels != 255)])
    for rows in (1, 6, 20):
        extent = Extent()
        for row in range(0, 20, rows):
            extent.write(labels[row : row + rows])
        assert shapely.equals(extent.hull, pixels.convex_hull)


def test_a_grid_in_utm_lies_where_it_lies():
    found = footprint(whole(UTM), UTM)
    place = shape(found.geometry)
    assert place.is_valid
    assert shapely.is_ccw(place.exterior)
    west, south, east, north = found.bbox
    assert place.bounds == pytest.approx(found.bbox)
    assert west == 15  # the zone's middle meridian
    geod = Geod(ellps="WGS84")
    assert geod.inv(west, north, west, south)[2] == pytest.approx(2000 / 0.9996, rel=1e-3)
    assert geod.inv(west, north, east, north)[2] == pytest.approx(4000 / 0.9996, rel=1e-3)


def test_without_a_crs_or_data_there_is_no_place():
    nowhere = Grid(width=4, height=4, crs=None)
    assert footprint(whole(nowhere), nowhere).geometry is None
    assert footprint(Extent().hull, UTM).bbox is None


def test_a_crs_that_is_not_of_the_earth_has_no_place():
    local = 'LOCAL_CS["mine",UNIT["metre",1]]'
    grid = Grid(width=4, height=4, crs=local)
    assert footprint(whole(grid), grid) == footprint(Extent().hull, UTM)


def test_across_180_degrees_there_are_two_parts_and_west_is_above_east():
    grid = Grid(width=40, height=20, crs="EPSG:4326", transform=(0.1, 0.0, 178.0, 0.0, -0.1, -16.0))
    found = footprint(whole(grid), grid)
    assert found.bbox == (178.0, -18.0, -178.0, -16.0)
    parts = shape(found.geometry)
    assert sorted(part.bounds for part in parts.geoms) == [(-180, -18, -178, -16), (178, -18, 180, -16)]
    assert parts.is_valid
    projected = Grid(width=40, height=40, crs="EPSG:3832", transform=(1e4, 0.0, 3.2e6, 0.0, -1e4, 2e5))  # around 150 E
    west, _, east, _ = footprint(whole(projected), projected).bbox
    assert west > 178
    assert east < -177


@pytest.mark.parametrize(("crs", "latitudes"), [("EPSG:3413", (86, 90)), ("EPSG:3031", (-90, -86))])
def test_around_a_pole_all_longitudes_are_in(crs, latitudes):
    grid = Grid(width=50, height=50, crs=crs, transform=(1e4, 0.0, -2.5e5, 0.0, -1e4, 2.5e5))
    west, south, east, north = footprint(whole(grid), grid).bbox
    assert (west, east) == (-180, 180)
    assert (south, north) == pytest.approx(latitudes, abs=1)
