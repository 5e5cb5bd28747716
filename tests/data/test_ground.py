"""Scenes near each other share a plane with known metres."""

import pytest
from pyproj import Geod

from terralean.data.ground import aligned, frames, outline_m
from terralean.raster.grid import Grid


def grid(crs: str | None, *, x: float = 0, y: float = 0, pixel: float = 10, size: int = 100) -> Grid:
    return Grid(width=size, height=size, crs=crs, transform=(pixel, 0, x, 0, -pixel, y))


def members(found) -> list[tuple[int, ...]]:
    return sorted(frame.members for frame in found)


def test_neighbours_share_a_frame_and_far_scenes_do_not():
    near = [grid("EPSG:32633", x=500_000 + 1000 * i, y=5e6) for i in range(2)]
    far = grid("EPSG:32633", x=600_000, y=5e6)
    found = frames([*near, far], reach_m=100)
    assert members(found) == [(0, 1), (2,)]
    assert all(frame.crs == "EPSG:32633" and frame.metres == (1, 1) for frame in found)


def test_neighbours_in_two_zones_share_a_frame():
    """The edge between UTM zones 32 and 33 at 12 E, 45.1 N."""
    west, east = grid("EPSG:32632", x=735_500, y=5e6), grid("EPSG:32633", x=263_500, y=5e6)
    found = frames([west, east], reach_m=3000)
    assert members(found) == [(0, 1)]
    assert found[0].crs in ("EPSG:32632", "EPSG:32633")


def test_scenes_either_side_of_the_date_line_are_neighbours():
    west, east = (grid("EPSG:4326", x=x, y=0.0, pixel=1e-4) for x in (-180.0, 179.99))
    assert members(frames([west, east], reach_m=100)) == [(0, 1)]


def test_each_image_without_coordinates_is_alone():
    unplaced = Grid(width=5, height=4, crs=None)
    no_transform = Grid(width=5, height=4, crs="EPSG:4326")
    found = frames([unplaced, no_transform], reach_m=100)
    assert members(found) == [(0,), (1,)]
    assert all(frame.crs is None for frame in found)


def test_scenes_off_the_earth_meet_only_their_own_kind():
    moon = "+proj=longlat +R=1737400 +no_defs"
    found = frames([grid(moon, pixel=1e-3), grid("EPSG:4326", pixel=1e-3), grid(moon, pixel=1e-3)], reach_m=100)
    assert members(found) == [(0, 2), (1,)]


def test_feet_are_not_metres():
    found = frames([grid("EPSG:2263", x=1e6, y=2e5)], reach_m=0)
    assert found[0].metres == pytest.approx((0.3048006, 0.3048006))


@pytest.mark.parametrize(
    ("crs", "x", "y", "pixel"), [("EPSG:4326", 10.0, 60.0, 1e-4), ("EPSG:3857", 1_113_195.0, 8_399_737.0, 10)]
)
def test_where_a_unit_is_no_metre_it_is_measured(crs, x, y, pixel):
    scene = grid(crs, x=x, y=y, pixel=pixel)
    frame = frames([scene], reach_m=0)[0]
    outline = outline_m(scene, frame, scene.window)
    wide, high = outline.bounds[2] - outline.bounds[0], outline.bounds[3] - outline.bounds[1]
    assert wide == pytest.approx(scene.pixel_m()[0] * 100 if crs == "EPSG:4326" else 10 * 100 * 0.5, rel=0.01)
    assert high == pytest.approx(Geod(ellps="WGS84").inv(10, 60, 10, 59.99)[2] if crs == "EPSG:4326" else 500, rel=0.01)


def test_a_turned_scene_is_not_aligned():
    turned = Grid(width=10, height=10, crs="EPSG:32633", transform=(8, 6, 5e5, 6, -8, 5e6))
    straight = grid("EPSG:32633", x=5e5, y=5e6)
    frame = frames([turned, straight], reach_m=1000)[0]
    assert [aligned(one, frame) for one in (turned, straight)] == [False, True]
