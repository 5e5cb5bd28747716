import math

import pytest
import shapely
import torch

from terralean.boxes.form import areas, corners, le90, to_polygons
from terralean.boxes.overlap import paired_iou
from terralean.boxes.rectangle import from_polygons, smallest_rectangle


@pytest.mark.parametrize("points", [3, 4, 5, 8])
def test_is_as_small_as_the_one_of_shapely_and_holds_the_points(points):
    generator = torch.Generator().manual_seed(points)
    cloud = torch.rand(1000, points, 2, generator=generator, dtype=torch.float64) * 100
    found = smallest_rectangle(cloud)
    theirs = shapely.area(shapely.minimum_rotated_rectangle(shapely.multipoints(cloud.numpy())))
    torch.testing.assert_close(areas(found), torch.from_numpy(theirs), rtol=1e-8, atol=1e-8)
    outside = shapely.distance(shapely.polygons(corners(found).numpy())[:, None], shapely.points(cloud.numpy()))
    assert outside.max() < 1e-9


def test_a_box_comes_back_from_its_corners_in_any_order(random_boxes):
    boxes = random_boxes(1000, seed=0)
    order = torch.stack([torch.randperm(4, generator=torch.Generator().manual_seed(i)) for i in range(len(boxes))])
    shuffled = to_polygons(boxes).unflatten(1, (4, 2)).gather(1, order[..., None].expand(-1, -1, 2)).flatten(1)
    assert paired_iou(from_polygons(shuffled), boxes).min() > 1 - 1e-11
    torch.testing.assert_close(from_polygons(to_polygons(boxes))[:, :4], le90(boxes)[:, :4])


def test_far_from_the_origin_it_is_as_good():
    box = torch.tensor([[5e5, 4e6, 12.0, 5.0, 0.4]], dtype=torch.float64)
    torch.testing.assert_close(from_polygons(to_polygons(box)), box, rtol=0, atol=1e-8)


def test_points_on_a_line_make_a_box_without_height():
    line = torch.tensor([[0.0, 0.0], [3.0, 3.0], [1.0, 1.0], [3.0, 3.0]])
    torch.testing.assert_close(smallest_rectangle(line), torch.tensor([1.5, 1.5, math.sqrt(18), 0.0, math.pi / 4]))
    upright = torch.tensor([[2.0, 1.0], [2.0, 1.0], [2.0, 5.0], [2.0, 5.0]])
    assert smallest_rectangle(upright).tolist() == pytest.approx([2.0, 3.0, 4.0, 0.0, -math.pi / 2])


def test_equal_points_make_a_box_without_size():
    assert smallest_rectangle(torch.full((4, 2), 7.0)).tolist() == [7.0, 7.0, 0.0, 0.0, 0.0]


def test_rounding_does_not_choose_the_angle_of_a_square():
    square = torch.tensor([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]], dtype=torch.float64)
    for offset in range(20):
        moved = smallest_rectangle(square + offset / 7)
        assert moved[4] == 0.0
