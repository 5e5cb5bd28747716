"""Where ENVI files lie: worked by hand, and as GDAL reads what we write."""

import math

import numpy as np
import pyproj
import pytest
import rasterio
from rasterio.crs import CRS

from terralean.raster.envi_header import Header
from terralean.raster.envi_place import grid_of
from terralean.raster.envi_write import write_cube
from terralean.raster.grid import Grid
from terralean.raster.scene import open_scene
from terralean.spec import Bands

ONE = Bands(names=("a",), dtype="uint8")


def place(info: str | None = None, **fields: str):
    """Grid and remarks of a header."""
    told = {name.replace("_", " "): text for name, text in fields.items()}
    header = Header(path="a.hdr", fields={**({"map info": info} if info else {}), **told})
    return grid_of(header, width=3, height=2)


@pytest.mark.parametrize(
    ("info", "crs"),
    [
        ("UTM, 1, 1, 5e5, 4e6, 30, 30, 33, North, WGS-84, units=Meters", "EPSG:32633"),
        ("UTM, 1, 1, 5e5, 4e6, 30, 30, 33, South, WGS-84, units=Meters", "EPSG:32733"),
        (" UTM , 1 , 1 , 5e5 , 4e6 , 30 , 30 , 11 , North , WGS-84 , units=Meters , rotation=0 ", "EPSG:32611"),
        ("UTM, 1, 1, 5e5, 4e6, 30, 30, 18, North, North America 1983, units=Meters", "EPSG:26918"),
        ("UTM, 1, 1, 5e5, 4e6, 30, 30, 18, North, North America 1927, units=Meters", "EPSG:26718"),
        ("UTM, 1, 1, 5e5, 4e6, 30, 30, 32, North, ETRS-89, units=Meters", "EPSG:25832"),
        ("UTM, 1, 1, 5e5, 4e6, 30, 30, 32, North, European Terrestrial Reference System 1989", "EPSG:25832"),
        ("Geographic Lat/Lon, 1, 1, 13, 52, 0.01, 0.01, WGS-84, units=Degrees", "EPSG:4326"),
        ("Arbitrary, 1, 1, 0, 0, 1, 1", None),
    ],
)
def test_a_crs_by_its_names(info, crs):
    grid, remarks = place(info)
    assert (grid.crs, remarks) == (crs, [])


def test_the_reference_pixel_counts_from_one_at_the_corner():
    assert place("UTM, 1.0, 1.0, 500000, 4000000, 10, 20, 33, North, WGS-84")[0].transform == (10, 0, 500000, 0, -20, 4000000)
    assert place("UTM, 1.5, 1.5, 500000, 4000000, 10, 20, 33, North, WGS-84")[0].transform == (10, 0, 499995, 0, -20, 4000010)


def test_rotation_turns_about_the_reference_pixel():
    """Columns run to the north-west of east by the angle; the reference pixel stays where it is."""
    grid, _ = place("UTM, 3.0, 2.0, 500000, 4000000, 10, 10, 33, North, WGS-84, units=Meters, rotation=30")
    a, b, c, d, e, f = grid.transform
    assert (a, d) == pytest.approx((10 * math.cos(math.pi / 6), 10 * math.sin(math.pi / 6)))
    assert (b, e) == pytest.approx((10 * math.sin(math.pi / 6), -10 * math.cos(math.pi / 6)))
    assert (a * 2 + b * 1 + c, d * 2 + e * 1 + f) == pytest.approx((500000, 4000000))


def test_a_coordinate_system_string_wins():
    wkt = CRS.from_epsg(3035).to_wkt(version="WKT1_ESRI")
    grid, remarks = place("UTM, 1, 1, 5e5, 4e6, 30, 30, 33, North, WGS-84", coordinate_system_string=wkt)
    assert CRS.from_user_input(grid.crs).to_epsg() == 3035 and remarks == []
    assert grid.transform[:3] == (30, 0, 500000)


def test_a_string_that_cannot_be_understood_is_told():
    grid, remarks = place("UTM, 1, 1, 5e5, 4e6, 30, 30, 33, North, WGS-84", coordinate_system_string="nonsense")
    assert grid.crs == "EPSG:32633"
    assert remarks == ["its coordinate system string cannot be understood; map info is taken instead"]


def test_other_projections_are_read_as_gdal_reads_them():
    albers = "9, 6378137.0, 6356752.3, 23.0, -96.0, 0.0, 0.0, 29.5, 45.5, WGS-84, Albers Conical Equal Area, units=Meters"
    grid, remarks = place("Albers Conical Equal Area, 1, 1, 5e5, 4e6, 30, 30, WGS-84", projection_info=albers)
    assert CRS.from_user_input(grid.crs).to_dict()["proj"] == "aea" and remarks == []
    state, _ = place("State Plane (NAD 83), 1, 1, 5e5, 4e6, 30, 30, 405, units=Feet")
    assert "California zone 5" in state.crs


def test_a_projection_that_nobody_knows_is_told():
    grid, remarks = place("My Own, 1, 1, 5e5, 4e6, 30, 30")
    assert grid.crs is None and grid.transform[2] == 500000
    assert remarks == ["its projection 'My Own' cannot be understood; add a coordinate system string (WKT) to the header"]


def test_a_string_without_map_info_places_nothing():
    grid, remarks = place(coordinate_system_string=CRS.from_epsg(32633).to_wkt())
    assert grid == Grid(width=3, height=2, crs=None)
    assert remarks == ["it has a coordinate system, but no map info: its pixels have no place"]


LAEA = CRS.from_string("+proj=laea +lat_0=47 +lon_0=12 +datum=WGS84 +units=m").to_wkt(version="WKT2_2019")


@pytest.mark.parametrize(
    "crs", ["EPSG:32633", "EPSG:32755", "EPSG:26918", "EPSG:25832", "EPSG:4326", "EPSG:3035", "EPSG:2056", LAEA]
)
@pytest.mark.parametrize("turned", [0.0, 34.0, -120.0])
def test_what_is_written_reads_back_and_means_the_same_to_gdal(tmp_path, crs, turned):
    cos, sin = math.cos(math.radians(turned)), math.sin(math.radians(turned))
    grid = Grid(width=3, height=2, crs=crs, transform=(2.5 * cos, 2.5 * sin, 10.25, 2.5 * sin, -2.5 * cos, 50.5))
    write_cube(tmp_path / "a.hdr", np.ones((1, 2, 3), "uint8"), grid=grid, bands=ONE)
    found = open_scene(tmp_path / "a.hdr").grid
    assert found.transform == pytest.approx(grid.transform, abs=1e-9)
    assert _alike(CRS.from_user_input(found.crs), CRS.from_user_input(crs))
    with rasterio.open(tmp_path / "a.img") as theirs:
        assert tuple(theirs.transform)[:6] == pytest.approx(grid.transform, abs=1e-9)
        assert _alike(theirs.crs, CRS.from_user_input(crs))


def test_a_grid_from_south_to_north_is_kept(tmp_path):
    grid = Grid(width=3, height=2, crs="EPSG:32633", transform=(10.0, 0.0, 5e5, 0.0, 10.0, 4e6))
    write_cube(tmp_path / "a.hdr", np.ones((1, 2, 3), "uint8"), grid=grid, bands=ONE)
    assert open_scene(tmp_path / "a.hdr").grid == grid
    with rasterio.open(tmp_path / "a.img") as theirs:
        assert tuple(theirs.transform)[:6] == grid.transform


def test_a_grid_without_a_crs_keeps_its_numbers(tmp_path):
    grid = Grid(width=3, height=2, crs=None, transform=(0.5, 0.0, 7.0, 0.0, -0.5, 9.0))
    write_cube(tmp_path / "a.hdr", np.ones((1, 2, 3), "uint8"), grid=grid, bands=ONE)
    assert open_scene(tmp_path / "a.hdr").grid == grid
    nowhere = Grid(width=3, height=2, crs=None)
    write_cube(tmp_path / "b.hdr", np.ones((1, 2, 3), "uint8"), grid=nowhere, bands=ONE)
    assert "map info" not in (tmp_path / "b.hdr").read_text() and open_scene(tmp_path / "b.hdr").grid == nowhere


def _alike(one: CRS, other: CRS) -> bool:
    """Same code, or the same but for names and the order of axes, or the same parameters."""
    if one.to_epsg() == other.to_epsg() is not None:
        return True
    if pyproj.CRS.from_wkt(one.to_wkt()).equals(pyproj.CRS.from_wkt(other.to_wkt()), ignore_axis_order=True):
        return True
    keys = ("proj", "lat_0", "lon_0", "units", "datum")
    return [one.to_dict().get(key) for key in keys] == [other.to_dict().get(key) for key in keys]
