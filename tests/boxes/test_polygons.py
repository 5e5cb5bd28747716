import pytest
import shapely
import torch

from terralean.boxes import near
from terralean.boxes.form import to_polygons
from terralean.boxes.overlap import iou
from terralean.boxes.polygons import best_matches, points_of, polygon_areas, polygon_iou, share_in_windows


@pytest.fixture(scope="module")
def quadrilaterals():
    """Simple ones, convex or not, turning either way."""
    points = torch.rand(4000, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 20
    shapes = shapely.polygons(points.numpy())
    good = shapely.is_valid(shapes) & (shapely.area(shapes) > 0.1)
    return points[torch.from_numpy(good)].flatten(1), shapes[good]


def test_iou_as_shapely_has_it(quadrilaterals):
    polygons, shapes = (some[:70] for some in quadrilaterals)
    shared = shapely.area(shapely.intersection(shapes[:, None], shapes[None]))
    size = shapely.area(shapes)
    expected = torch.from_numpy(shared / (size[:, None] + size[None] - shared))
    torch.testing.assert_close(polygon_iou(polygons, polygons), expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(polygon_areas(points_of(polygons)), torch.from_numpy(size))


def test_boxes_are_polygons_too(random_boxes):
    boxes, others = random_boxes(80, seed=0), random_boxes(90, seed=1)
    torch.testing.assert_close(polygon_iou(to_polygons(boxes), to_polygons(others)), iou(boxes, others), rtol=0, atol=1e-12)


def test_polygons_of_other_numbers_of_corners():
    triangle = torch.tensor([[0.0, 0.0, 4.0, 0.0, 0.0, 4.0]])
    hexagon = torch.tensor([[0.0, 0.0, 1.0, -1.0, 2.0, 0.0, 2.0, 2.0, 1.0, 3.0, 0.0, 2.0]])
    # Of the hexagon (area 6), the triangle x, y >= 0, x + y <= 4 lacks the piece above y = 0 only: area 1 is below.
    assert polygon_iou(hexagon, triangle).item() == pytest.approx(5 / (6 + 8 - 5))


def test_share_in_windows_as_shapely_has_it(quadrilaterals):
    polygons, shapes = (some[:400] for some in quadrilaterals)
    windows = torch.tensor([[3.0, 4.0, 13.0, 15.0], [-5.0, -5.0, 25.0, 25.0], [30.0, 30.0, 40.0, 40.0]])
    rectangles = shapely.box(*windows.T.numpy())
    expected = shapely.area(shapely.intersection(shapes[:, None], rectangles[None])) / shapely.area(shapes)[:, None]
    found = share_in_windows(polygons, windows)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-11)
    assert (found[:, 1] == 1).all() and (found[:, 2] == 0).all()


def test_a_line_or_a_point_is_in_a_window_or_not():
    line = torch.tensor([[1.0, 187.0, 1.0, 187.0, 1.0, 219.0, 1.0, 219.0]])
    windows = torch.tensor([[0.0, 0.0, 300.0, 300.0], [0.0, 200.0, 300.0, 300.0]])
    assert share_in_windows(line, windows).tolist() == [[1.0, 0.0]]


def test_no_polygons():
    none, some = torch.zeros(0, 8), torch.rand(2, 8)
    assert polygon_iou(none, some).shape == (0, 2) and share_in_windows(none, torch.rand(3, 4)).shape == (0, 3)


@pytest.mark.parametrize("pairs", [70, near.PAIRS])
def test_best_matches_are_those_of_the_table(monkeypatch, random_boxes, pairs):
    monkeypatch.setattr(near, "PAIRS", pairs)
    polygons, others = to_polygons(random_boxes(60, seed=2)), to_polygons(random_boxes(50, seed=3, span=30.0))
    others[40:] = others[:10]  # of equal ones the first
    generator = torch.Generator().manual_seed(0)
    labels, other_labels = torch.randint(2, (60,), generator=generator), torch.randint(2, (50,), generator=generator)
    other_labels[40:] = other_labels[:10]
    table = polygon_iou(polygons, others) * (labels[:, None] == other_labels[None])
    best, which = best_matches(polygons, others, labels, other_labels)
    torch.testing.assert_close(best, table.amax(dim=1), rtol=0, atol=1e-12)
    there = best > 0
    assert 20 < there.sum() < 60 and (which[~there] == -1).all()
    assert (which < 40).all()
    torch.testing.assert_close(table[there, which[there]], best[there], rtol=0, atol=1e-12)


def test_nothing_matches_nothing():
    none, some = torch.zeros(0, 8), torch.rand(2, 8)
    labels = torch.zeros(2, dtype=torch.int64)
    assert best_matches(some, none, labels, labels[:0])[1].tolist() == [-1, -1]
    assert best_matches(none, some, labels[:0], labels)[0].shape == (0,)
