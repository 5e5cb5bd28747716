import math

import pytest
import torch

from terralean.boxes.form import (
    areas,
    corners,
    from_hull,
    from_obbdetection,
    from_torchvision,
    hull,
    le90,
    to_obbdetection,
    to_polygons,
    to_torchvision,
    wrap,
)


def same_rectangles(boxes, others):
    """Largest distance of a corner from the nearest corner of the other box."""
    return torch.cdist(corners(boxes.double()), corners(others.double())).amin(dim=2).max()


def test_corners_of_the_worked_example():
    box = torch.tensor([10.0, 10.0, 8.0, 2.0, math.radians(30)], dtype=torch.float64)
    expected = torch.tensor([[7.036, 7.134], [13.964, 11.134], [12.964, 12.866], [6.036, 8.866]], dtype=torch.float64)
    torch.testing.assert_close(corners(box), expected, rtol=0, atol=5e-4)
    assert torch.equal(to_polygons(box), corners(box).flatten())


def test_normal_form_is_the_same_rectangle_with_the_long_edge_first(random_boxes):
    boxes = random_boxes(5000, seed=0)
    normal = le90(boxes)
    assert same_rectangles(boxes, normal) < 1e-12
    assert (normal[:, 2] >= normal[:, 3]).all()
    assert ((normal[:, 4] >= -math.pi / 2) & (normal[:, 4] < math.pi / 2)).all()
    assert torch.equal(le90(normal), normal)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_angles_at_the_wrap_stay_in_the_range(dtype):
    quarter = torch.tensor(math.pi / 2, dtype=dtype)
    step = torch.finfo(dtype).eps
    near = torch.stack([quarter * (1 + k * step) for k in range(-4, 5)])
    angles = torch.cat([sign * near + turns * math.pi for sign in (-1, 1) for turns in range(-3, 4)])
    wrapped = wrap(angles)
    assert ((wrapped >= -quarter) & (wrapped < quarter)).all()
    off = (wrapped.double() - angles.double()) / math.pi
    assert (off - off.round()).abs().max() < 8 * step
    assert (
        wrap(quarter) == -quarter
        and wrap(-quarter) == -quarter
        and wrap(torch.tensor(0.3, dtype=dtype)) == angles.new_tensor(0.3)
    )


def test_edges_are_exchanged_across_the_wrap():
    box = torch.tensor([0.0, 0.0, 2.0, 8.0, math.radians(10)], dtype=torch.float64)
    torch.testing.assert_close(le90(box), box.new_tensor([0.0, 0.0, 8.0, 2.0, math.radians(-80)]))
    box = torch.tensor([0.0, 0.0, 2.0, 8.0, math.radians(-10)], dtype=torch.float64)
    torch.testing.assert_close(le90(box), box.new_tensor([0.0, 0.0, 8.0, 2.0, math.radians(80)]))


def test_hull_holds_the_corners_and_touches_them(random_boxes):
    boxes = random_boxes(2000, seed=1)
    points, found = corners(boxes), hull(boxes)
    torch.testing.assert_close(found[:, :2], points.amin(dim=1))
    torch.testing.assert_close(found[:, 2:], points.amax(dim=1))
    assert same_rectangles(from_hull(found), from_hull(hull(from_hull(found)))) < 1e-12


def test_angle_of_torchvision_is_degrees_the_other_way():
    box = torch.tensor([[10.0, 10.0, 8.0, 2.0, math.radians(30)]], dtype=torch.float64)
    torch.testing.assert_close(to_torchvision(box)[0, 4], box.new_tensor(-30.0))
    torch.testing.assert_close(from_torchvision(to_torchvision(box)), box)


def test_torchvision_draws_the_same_corners():
    ops = pytest.importorskip("torchvision.ops")
    box = torch.tensor(
        [[10.0, 10.0, 8.0, 2.0, math.radians(30)], [3.0, 40.0, 9.0, 4.0, math.radians(-75)]], dtype=torch.float64
    )
    theirs = ops.box_convert(to_torchvision(box), "cxcywhr", "xyxyxyxy").unflatten(-1, (4, 2))
    assert torch.cdist(corners(box), theirs).amin(dim=2).max() < 1e-4


def test_angle_of_obbdetection_is_the_opposite_in_the_same_range(random_boxes):
    boxes = le90(random_boxes(1000, seed=2))
    theirs = to_obbdetection(boxes)
    assert ((theirs[:, 4] >= -math.pi / 2) & (theirs[:, 4] < math.pi / 2)).all()
    torch.testing.assert_close(theirs[:, 4], -boxes[:, 4])
    torch.testing.assert_close(from_obbdetection(theirs), boxes)
    edge = torch.tensor([0.0, 0.0, 2.0, 1.0, -math.pi / 2], dtype=torch.float64)
    assert to_obbdetection(edge)[4] == -math.pi / 2


def test_no_boxes_have_no_corners():
    none = torch.zeros(0, 5)
    assert corners(none).shape == (0, 4, 2) and hull(none).shape == (0, 4) and areas(le90(none)).shape == (0,)
