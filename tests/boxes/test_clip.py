import shapely
import torch

from terralean.boxes.clip import clip, clip_polygons
from terralean.boxes.form import areas, corners, le90
from terralean.boxes.polygons import polygon_areas

WINDOW = torch.tensor([10.0, 12.0, 40.0, 45.0])


def test_what_a_window_leaves_is_what_shapely_leaves(random_boxes):
    boxes = random_boxes(2000, seed=0)
    theirs = shapely.intersection(random_boxes.shapes(boxes), shapely.box(*WINDOW.tolist()))
    assert ((shapely.area(theirs) > 0) & (shapely.area(theirs) < areas(boxes).numpy() * 0.999)).mean() > 0.2
    inside = clip_polygons(corners(boxes), WINDOW)
    torch.testing.assert_close(polygon_areas(inside), torch.from_numpy(shapely.area(theirs)), rtol=0, atol=1e-10)
    found, share = clip(boxes, WINDOW)
    rectangle = torch.from_numpy(shapely.area(shapely.minimum_rotated_rectangle(theirs)))
    torch.testing.assert_close(areas(found), rectangle, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(share, torch.from_numpy(shapely.area(theirs)) / areas(boxes), rtol=0, atol=1e-11)


def test_a_box_inside_comes_back_as_it_is_and_one_outside_has_no_size(random_boxes):
    inside = random_boxes(50, seed=1, span=8.0, high=6.0) + torch.tensor([20.0, 22.0, 0.0, 0.0, 0.0])
    found, share = clip(inside, WINDOW)
    assert torch.equal(found, le90(inside)) and (share == 1).all()
    found, share = clip(inside + torch.tensor([500.0, 0, 0, 0, 0]), WINDOW)
    assert not areas(found).any() and not share.any()


def test_each_box_may_have_its_own_window():
    boxes = torch.tensor([[5.0, 5.0, 8.0, 2.0, 0.0], [5.0, 5.0, 8.0, 2.0, 0.0]])
    windows = torch.tensor([[0.0, 0.0, 5.0, 9.0], [4.0, 0.0, 20.0, 5.0]])
    found, share = clip(boxes, windows)
    torch.testing.assert_close(found, torch.tensor([[3.0, 5.0, 4.0, 2.0, 0.0], [6.5, 4.5, 5.0, 1.0, 0.0]]))
    torch.testing.assert_close(share, torch.tensor([0.5, 5 / 16]))


def test_a_box_without_area_has_no_share_unless_it_is_inside():
    flat = torch.tensor([[20.0, 20.0, 4.0, 0.0, 0.0], [10.0, 20.0, 4.0, 0.0, 0.0]])
    assert clip(flat, WINDOW)[1].tolist() == [1.0, 0.0]
