import math

import pytest
import shapely
import torch

from terralean.boxes.form import areas, corners, le90, to_polygons
from terralean.boxes.move import after, flipped, move_boxes, move_points, move_polygons, scaled, shifted, turned


def corner_distance(boxes, points):
    return torch.cdist(corners(boxes), points).amin(dim=2).max()


@pytest.mark.parametrize(
    "matrix",
    [
        shifted(x=3.0, y=-4.0),
        flipped(width=100.0),
        flipped(height=70.0),
        flipped(width=100.0, height=70.0),
        turned(0.7, about=(3.0, 4.0)),
        turned(math.pi / 2, about=(20.0, 20.0)),
        scaled(x=2.5, y=2.5),
        after(turned(0.7, about=(3.0, 4.0)), flipped(width=50.0)),
    ],
)
def test_boxes_move_as_their_corners_do(random_boxes, matrix):
    boxes = random_boxes(1000, seed=0)
    moved = move_boxes(boxes, matrix)
    assert corner_distance(moved, move_points(corners(boxes), matrix)) < 1e-11
    assert torch.equal(moved, le90(moved))
    torch.testing.assert_close(move_polygons(to_polygons(boxes), matrix), move_points(corners(boxes), matrix).flatten(1))


def test_a_quarter_turn_is_clockwise_on_screen():
    """The right of the image goes to its bottom."""
    torch.testing.assert_close(
        move_points(torch.tensor([10.0, 5.0]), turned(math.pi / 2, about=(5.0, 5.0))), torch.tensor([5.0, 10.0])
    )


def test_a_flip_undoes_itself_and_turns_the_angle(random_boxes):
    boxes = le90(random_boxes(200, seed=1))
    once = move_boxes(boxes, flipped(width=64.0))
    torch.testing.assert_close(once[:, 0], 64 - boxes[:, 0])
    torch.testing.assert_close(once[:, 4], -boxes[:, 4])
    torch.testing.assert_close(move_boxes(once, flipped(width=64.0)), boxes)


def test_flips_follow_the_pixels():
    image = torch.zeros(6, 9)
    image[1:3, 2:6] = 1
    box = torch.tensor([4.0, 2.0, 4.0, 2.0, 0.0])  # columns 2..6, rows 1..3
    there = image.flip(1).nonzero()
    left, right = there[:, 1].min(), there[:, 1].max() + 1
    assert move_boxes(box, flipped(width=9.0))[0] == (left + right) / 2
    there = image.flip(0).nonzero()
    assert move_boxes(box, flipped(height=6.0))[1] == (there[:, 0].min() + there[:, 0].max() + 1) / 2


def test_what_is_no_rectangle_any_more_becomes_the_smallest_round_it(random_boxes):
    boxes = random_boxes(500, seed=2)
    matrix = scaled(x=2.0, y=0.5)
    upright = torch.tensor([[5.0, 5.0, 4.0, 2.0, 0.0], [5.0, 5.0, 4.0, 2.0, math.pi / 2]], dtype=torch.float64)
    found = move_boxes(torch.cat([boxes, upright]), matrix)
    points = move_points(corners(boxes), matrix)
    expected = shapely.area(shapely.minimum_rotated_rectangle(shapely.polygons(points.numpy())))
    torch.testing.assert_close(areas(found[:500]), torch.from_numpy(expected), rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(found[500:, :4], upright.new_tensor([[10.0, 2.5, 8.0, 1.0], [10.0, 2.5, 4.0, 2.0]]))


def test_one_move_after_another_is_both(random_boxes):
    boxes = random_boxes(100, seed=3)
    first, second = turned(0.4, about=(10.0, 0.0)), scaled(x=3.0, y=3.0)
    torch.testing.assert_close(move_boxes(boxes, after(first, second)), move_boxes(move_boxes(boxes, first), second))
