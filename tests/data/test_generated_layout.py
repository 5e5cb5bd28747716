import numpy as np
import pytest
import shapely

from terralean.data.generated_layout import BUILDING, LANE_PX, MIN_SHARE, ROAD, TREE, Layout, lay_out, shares


@pytest.fixture(scope="module")
def layout() -> Layout:
    return lay_out(np.random.default_rng(3), size_px=512)


def test_shapes_fill_the_footprint_once(layout):
    assert shares(layout).sum() == pytest.approx(1, abs=1e-5)
    assert shapely.union_all([shape.polygon for shape in layout.shapes]).area == pytest.approx(layout.footprint.area, rel=1e-5)


def test_the_footprint_leaves_out_all_four_corners(layout):
    corners = shapely.points([(0, 0), (512, 0), (512, 512), (0, 512)])
    assert not shapely.intersects(layout.footprint, corners).any()
    assert layout.footprint.within(shapely.box(0, 0, 512, 512))


def test_every_class_has_its_share(layout):
    assert shares(layout).min() >= MIN_SHARE


def test_buildings_stand_clear_of_roads(layout):
    roads = shapely.union_all([shape.polygon for shape in layout.shapes if shape.value == ROAD])
    houses = [shape.polygon for shape in layout.shapes if shape.value == BUILDING]
    assert len(houses) >= 5
    assert shapely.distance(houses, roads).min() > 3.9


def test_a_building_is_the_rectangle_of_its_frame(layout):
    inner = layout.footprint.buffer(-50)
    houses = [shape for shape in layout.shapes if shape.value == BUILDING and shape.polygon.within(inner)]
    for house in houses:
        assert house.polygon.area == pytest.approx(house.length * house.width)
        assert house.polygon.centroid.distance(shapely.Point(house.x, house.y)) < 1e-6
        ahead = shapely.Point(
            house.x + 0.49 * house.length * np.cos(house.angle), house.y + 0.49 * house.length * np.sin(house.angle)
        )
        assert house.polygon.contains(ahead)


def test_some_roads_bend_and_none_is_narrower_than_a_lane(layout):
    widths = [shape.width for shape in layout.shapes if shape.value == ROAD]
    assert min(widths) == LANE_PX >= 8
    ends = [shapely.points([line.coords[0], line.coords[-1]]) for line in layout.centrelines]
    straight = [shapely.distance(*pair) / line.length for pair, line in zip(ends, layout.centrelines, strict=True)]
    assert min(straight) < 0.99  # the way is longer than the distance


def test_every_tree_of_a_wood_is_in_it(layout):
    woods = shapely.union_all([shape.polygon for shape in layout.shapes if shape.value == TREE])
    x, y = layout.crowns[:, 0], layout.crowns[:, 1]
    inside = shapely.contains_xy(layout.footprint, x, y)
    assert shapely.contains_xy(woods, x[inside], y[inside]).mean() > 0.99
