import math

import pytest
import torch

from terralean.boxes.form import areas, corners, le90, to_polygons, to_torchvision
from terralean.boxes.near import PAIRS
from terralean.boxes.overlap import area_within, intersection, iof, iou, paired_iof, paired_iou
from terralean.boxes.polygons import best_matches


def adversarial(boxes):
    """Pairs that are hard for polygon clipping: identical, nearly so, concentric, parallel, touching, contained."""
    along = torch.stack([boxes[:, 4].cos(), boxes[:, 4].sin()], dim=1)
    angle = boxes[:, 4:]

    def changed(centre=None, size=None, turn=0.0):
        centre = boxes[:, :2] if centre is None else centre
        size = boxes[:, 2:4] if size is None else size
        return torch.cat([centre, size, angle + turn], dim=1)

    side_by_side = boxes[:, :2] + along * boxes[:, 2:3]
    return {
        "identical": boxes,
        "the other name": torch.cat([boxes[:, :2], boxes[:, 2:4].flip(1), angle + math.pi / 2], dim=1),
        "half a turn": changed(turn=math.pi),
        "turned by a hair": changed(turn=1e-9),
        "turned by a little": changed(turn=1e-5),
        "concentric cross": changed(turn=math.pi / 4),
        "touching along an edge": changed(centre=side_by_side),
        "touching, one smaller": changed(centre=side_by_side, size=boxes[:, 2:4] * torch.tensor([1.0, 0.3])),
        "half on": changed(centre=boxes[:, :2] + along * boxes[:, 2:3] / 2),
        "contained": changed(size=boxes[:, 2:4] / 3),
        "contained, edge shared": changed(centre=boxes[:, :2] + along * boxes[:, 2:3] / 4, size=boxes[:, 2:4] / 2),
        "a speck": changed(size=boxes[:, 2:4] * 1e-4),
        "a needle": changed(size=boxes[:, 2:4] * torch.tensor([40.0, 1e-3]), turn=0.7),
        "a world": changed(size=boxes[:, 2:4] * 1e5, turn=0.2),
    }


def test_random_pairs_as_shapely_has_them(random_boxes):
    boxes, others = random_boxes(6000, seed=0, span=15.0), random_boxes(6000, seed=1, span=15.0)
    shared = random_boxes.shared(boxes, others)
    union = areas(boxes) + areas(others) - shared
    assert (shared > 0).double().mean() > 0.3  # the test says something
    torch.testing.assert_close(paired_iou(boxes, others), shared / union, rtol=0, atol=1e-12)
    torch.testing.assert_close(paired_iof(boxes, others), shared / areas(boxes), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", adversarial(torch.zeros(0, 5)))
def test_hard_pairs_as_shapely_has_them(random_boxes, name):
    """Of these boxes: for one in some thousand nearly identical pairs GEOS 3.14 finds points instead of their common area."""
    boxes = random_boxes(150, seed=2)
    others = adversarial(boxes)[name]
    shared = random_boxes.shared(boxes, others)
    smaller = torch.minimum(areas(boxes), areas(others))
    torch.testing.assert_close(intersection(boxes, others) / smaller, shared / smaller, rtol=0, atol=1e-8)
    torch.testing.assert_close(intersection(others, boxes) / smaller, shared / smaller, rtol=0, atol=1e-8)


def test_a_box_and_itself_is_exactly_one(random_boxes):
    boxes = random_boxes(500, seed=3)
    assert (paired_iou(boxes, boxes) == 1).all()
    assert (paired_iou(boxes.float(), boxes.float()) == 1).all()
    assert (paired_iou(boxes, le90(boxes)) > 1 - 1e-12).all()


@pytest.mark.parametrize("offset", [0.0, 3e4])
def test_float32_boxes_are_as_exact_as_their_numbers(random_boxes, offset):
    boxes, others = random_boxes(2000, seed=4).float(), random_boxes(2000, seed=5).float()
    boxes[:, :2] += offset
    others[:, :2] += offset
    found = paired_iou(boxes, others)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), paired_iou(boxes.double(), others.double()), rtol=0, atol=1e-7)


def test_a_hand_made_case():
    """Two squares of side 2 share an octagon when one is turned by 45 degrees: its area is 8 (sqrt 2 - 1)."""
    one = torch.tensor([[5.0, 5.0, 2.0, 2.0, 0.0]], dtype=torch.float64)
    other = torch.tensor([[5.0, 5.0, 2.0, 2.0, math.pi / 4]], dtype=torch.float64)
    octagon = 8 * (math.sqrt(2) - 1)
    torch.testing.assert_close(iou(one, other), one.new_tensor([[octagon / (8 - octagon)]]))


def test_the_table_is_that_of_the_pairs_over_several_chunks(random_boxes):
    boxes, others = random_boxes(400, seed=6), random_boxes(300, seed=7)
    assert len(boxes) * len(others) > PAIRS
    torch.testing.assert_close(iou(boxes, others), paired_iou(boxes[:, None], others[None]), rtol=0, atol=1e-15)
    torch.testing.assert_close(iof(boxes, others), paired_iof(boxes[:, None], others[None]), rtol=0, atol=1e-15)


def test_torchvision_has_the_same_table(random_boxes):
    ops = pytest.importorskip("torchvision.ops")
    boxes, others = random_boxes(60, seed=8), random_boxes(50, seed=9)
    try:
        theirs = ops.box_iou(to_torchvision(boxes), to_torchvision(others), fmt="cxcywhr")
    except TypeError:
        pytest.skip("this torchvision has no rotated IoU")
    torch.testing.assert_close(iou(boxes, others), theirs.double(), rtol=0, atol=1e-5)


def test_boxes_without_area_overlap_nothing():
    flat = torch.tensor([[5.0, 5.0, 4.0, 0.0, 0.3], [5.0, 5.0, 0.0, 0.0, 0.0]])
    full = torch.tensor([[5.0, 5.0, 9.0, 9.0, 0.0]])
    for one, other in ((flat, full), (full, flat), (flat, flat)):
        assert not iou(one, other).any() and not iof(one, other).any()


def test_numbers_that_are_not_finite_and_negative_sizes_overlap_nothing():
    odd = torch.tensor([[5.0, 5, 4, 4, math.nan], [math.inf, 5, 4, 4, 0], [5, 5, math.inf, 4, 0], [5, 5, -4, 4, 0]])
    full = torch.tensor([[5.0, 5.0, 9.0, 9.0, 0.0], [0.0, 0.0, 9.0, 9.0, 0.0]])
    for table in (iou(odd, full), iof(odd, full), iou(full, odd), iof(full, odd)):
        assert not table.any()


def test_no_boxes_make_an_empty_table():
    none, some = torch.zeros(0, 5), torch.ones(3, 5)
    assert iou(none, some).shape == (0, 3) and iou(some, none).shape == (3, 0) and iof(none, none).shape == (0, 0)


def test_gradients_are_those_of_small_steps(random_boxes):
    boxes, others = random_boxes(12, seed=10, span=8.0), random_boxes(12, seed=11, span=8.0)
    assert torch.autograd.gradcheck(paired_iou, (boxes.requires_grad_(), others.requires_grad_()), eps=1e-6, atol=1e-5)
    iou(boxes, others).sum().backward()
    assert boxes.grad.abs().sum() > 0


def test_gradients_of_identical_and_flat_boxes_are_finite():
    boxes = torch.tensor([[5.0, 5.0, 4.0, 2.0, 0.0], [5.0, 5.0, 4.0, 0.0, 0.0]], requires_grad=True)
    paired_iou(boxes, boxes.detach()).sum().backward()
    assert boxes.grad.isfinite().all()


def test_area_within_takes_polygons_of_either_turn_and_any_shape(random_boxes):
    arrow = torch.tensor([[-4.0, -4.0], [0.0, -1.0], [4.0, -4.0], [0.0, 6.0]], dtype=torch.float64)  # concave
    half = torch.tensor([2.0, 3.0], dtype=torch.float64)
    whole = torch.tensor([9.0, 9.0], dtype=torch.float64)
    assert area_within(arrow, half=whole).item() == pytest.approx(28.0)
    # Inside |x| <= 2, |y| <= 3: right half from y = -1 - 0.75 x up to min(3, 6 - 2.5 x), integrated over x in 0..2.
    inside = 2 * (2 * (1 + 0.75) + (1.2 * 3 + (0.8 * (3 + 1.0) / 2)))
    assert area_within(arrow, half=half).item() == pytest.approx(inside)
    assert area_within(arrow.flip(0), half=half).item() == pytest.approx(inside)
    assert corners(random_boxes(1, seed=0)).shape == (1, 4, 2)


@pytest.mark.gpu
def test_is_the_same_on_a_gpu(random_boxes):
    boxes, others = random_boxes(400, seed=12).float(), random_boxes(300, seed=13).float()
    torch.testing.assert_close(iou(boxes.cuda(), others.cuda()).cpu(), iou(boxes, others), rtol=0, atol=1e-7)
    polygons, theirs = to_polygons(boxes), to_polygons(others)
    labels = torch.zeros(400, dtype=torch.int64), torch.zeros(300, dtype=torch.int64)
    here = best_matches(polygons, theirs, *labels)
    there = best_matches(polygons.cuda(), theirs.cuda(), *(some.cuda() for some in labels))
    assert torch.equal(there[1].cpu(), here[1])
