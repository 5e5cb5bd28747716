"""Rings of corners: exact small cases, and validity of whatever a map may hold."""

import numpy as np
import pytest
import shapely

from terralean.raster import regions
from terralean.raster.regions import RegionFinder
from terralean.raster.rings import Corners, corners, polygons, rings

PIXELS = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def outlined(numbers):
    numbers = np.asarray(numbers)
    edge = np.full((1, numbers.shape[1]), -1)
    found = corners(np.concatenate([edge, numbers, edge]), first_line=0)
    return rings(found, stride=numbers.shape[1] + 1, lines=len(numbers) + 1)


def drawn(found):
    return polygons(found, kept=np.ones(len(found.region), bool), transform=PIXELS)


def test_a_pixel_has_four_corners_clockwise_where_rows_go_down():
    found = outlined([[-1, 0]])
    assert [*zip(found.col.tolist(), found.row.tolist(), strict=True)] == [(1, 0), (2, 0), (2, 1), (1, 1)]
    assert found.start.tolist() == [0, 4]
    assert drawn(found)[0].equals(shapely.box(1, 0, 2, 1))


def test_an_outer_ring_comes_before_those_of_its_holes_and_encloses_them():
    found = outlined([[0, 0, 0, 0], [0, -1, 0, 1], [0, 0, 0, 1]])
    assert (found.region.tolist(), found.outer.tolist()) == ([0, 0, 1], [True, False, True])
    assert found.enclosed(np.arange(4.0)).tolist() == [10, 1, 2]
    assert found.enclosed(np.array([0.0, 5.0, 7.0, 8.0])).tolist() == [4 * 5 + 3 * 2 + 3 * 1, 2, 2 + 1]


def test_pixels_that_share_a_corner_make_rings_that_touch_there():
    found = outlined([[0, 0, 0], [0, -1, 0], [0, 0, -1]])
    (polygon,) = drawn(found)
    assert polygon.is_valid
    assert [shapely.bounds(hole).tolist() for hole in polygon.interiors] == [[1, 1, 2, 2]]
    assert len(polygon.exterior.coords) == 7


@pytest.mark.parametrize("block", [1, 12, 10**6])
def test_polygons_of_any_map_are_valid_and_cover_it_once(monkeypatch, block):
    monkeypatch.setattr(regions, "BLOCK_PX", block)
    rng = np.random.default_rng(block)
    for _ in range(150):
        height, width = rng.integers(1, 9, 2).tolist()
        labels = rng.choice([0, 1, 255], (height, width), p=[0.45, 0.45, 0.1]).astype(np.uint8)
        finder = RegionFinder(width=width, row_area_m2=None, min_area_m2=None)
        found = [*finder.take(labels, np.ones(labels.shape)), *finder.finish()]
        lines = [rings(part.corners, stride=width + 1, lines=height + 1) for part in found]
        shapes = np.concatenate([drawn(part) for part in lines])
        assert shapely.is_valid(shapes).all()
        pixels = np.concatenate([part.regions.pixels for part in found])
        assert shapely.area(shapes).tolist() == pixels.tolist()
        assert pixels.sum() == (labels != 255).sum()
        assert shapely.union_all(shapes).area == pixels.sum()


def test_no_region_has_no_ring():
    found = rings(Corners.joined([]), stride=3, lines=3)
    assert len(found.region) == 0
    assert len(drawn(found)) == 0
    assert found.enclosed(np.arange(3.0)).shape == (0,)
