import math

import pytest
import torch

from terralean.boxes import coding, midpoint
from terralean.boxes.coding import DeltaCoding
from terralean.boxes.form import corners, hull, le90
from terralean.boxes.midpoint import MidpointCoding, rectified
from terralean.boxes.move import move_boxes, turned
from terralean.boxes.overlap import paired_iou
from terralean.errors import ConfigError


def corner_distance(boxes, others):
    return torch.cdist(corners(boxes), corners(others)).amin(dim=2).amax(dim=1)


# Deltas of rotated boxes.


def test_decoding_undoes_encoding(random_boxes):
    boxes, proposals = random_boxes(5000, seed=0), random_boxes(5000, seed=1)
    proposals[:1000] = boxes[:1000]
    boxes[1000:1400, 4] = torch.tensor([-math.pi / 2, 0.0, math.pi / 2, math.pi / 4]).repeat(100)
    back = coding.decode(coding.encode(boxes, proposals, DeltaCoding()), proposals, DeltaCoding())
    assert corner_distance(boxes, back).max() < 1e-10
    assert torch.equal(back, le90(back))


def test_deltas_of_a_hand_made_case():
    proposal = torch.tensor([10.0, 20.0, 8.0, 4.0, math.pi / 2], dtype=torch.float64)  # its width runs down the image
    box = torch.tensor([12.0, 24.0, 16.0, 2.0, math.pi / 2 + 0.1], dtype=torch.float64)
    deltas = coding.encode(box, proposal, DeltaCoding(stds=(1.0, 1.0, 1.0, 1.0, 1.0)))
    expected = [4 / 8, -2 / 4, math.log(2), math.log(0.5), 0.1]
    torch.testing.assert_close(deltas, torch.tensor(expected, dtype=torch.float64))
    scaled = coding.encode(box, proposal, DeltaCoding())
    torch.testing.assert_close(scaled, deltas / deltas.new_tensor([0.1, 0.1, 0.2, 0.2, 0.1]))


def test_of_two_names_of_a_box_the_one_turned_less_is_taken():
    proposal = torch.tensor([0.0, 0.0, 8.0, 4.0, 0.0], dtype=torch.float64)
    box = torch.tensor([0.0, 0.0, 9.0, 5.0, math.radians(-80)], dtype=torch.float64)
    deltas = coding.encode(box, proposal, DeltaCoding(stds=(1.0,) * 5))
    torch.testing.assert_close(deltas[2:], deltas.new_tensor([math.log(5 / 8), math.log(9 / 4), math.radians(10)]))


def test_deltas_do_not_depend_on_how_the_picture_lies(random_boxes):
    boxes, proposals = random_boxes(300, seed=2), random_boxes(300, seed=3)
    boxes[:, 4] = proposals[:, 4] + torch.linspace(-0.7, 0.7, 300)
    turn = turned(1.1, about=(30.0, 20.0))
    boxes, proposals = le90(boxes), le90(proposals)
    before = coding.encode(boxes, proposals, DeltaCoding())
    after = coding.encode(move_boxes(boxes, turn), move_boxes(proposals, turn), DeltaCoding())
    # Half a turn of the frame, which changes no box, exchanges the signs of the shifts.
    torch.testing.assert_close(before[:, 2:], after[:, 2:])
    torch.testing.assert_close(before[:, :2].abs(), after[:, :2].abs())


def test_sides_grow_by_a_bounded_factor():
    proposal = torch.tensor([0.0, 0.0, 8.0, 4.0, 0.0])
    found = coding.decode(torch.tensor([0.0, 0.0, 1e6, -1e6, 0.0]), proposal, DeltaCoding())
    torch.testing.assert_close(found[2:4], torch.tensor([8.0 * 62.5, 4.0 / 62.5]))


def test_boxes_without_size_have_finite_numbers():
    flat = torch.tensor([[1.0, 1.0, 4.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0, 0.0]])
    assert coding.encode(flat, flat.flip(0), DeltaCoding()).isfinite().all()
    assert midpoint.encode(flat, hull(flat.flip(0)), MidpointCoding()).isfinite().all()


# Midpoint offsets.


@pytest.mark.parametrize("level_px", [0.0, 0.1])
def test_decoding_undoes_encoding_by_midpoints(random_boxes, level_px):
    boxes, anchors = random_boxes(5000, seed=4), hull(random_boxes(5000, seed=5))
    boxes[:400, 4] = torch.tensor([-math.pi / 2, 0.0, math.pi / 2, math.pi / 4]).repeat(100)
    how = MidpointCoding(level_px=level_px)
    back = midpoint.decode(midpoint.encode(boxes, anchors, how), anchors, how)
    distance = corner_distance(boxes, back)
    assert distance.max() < level_px + 1e-9
    assert (distance < 1e-9).float().mean() > 0.9


def test_midpoint_offsets_of_a_hand_made_case():
    """The diamond on a hull of 8 x 6: topmost corner 2 right of the middle, rightmost 1.5 above it, worked on a rectangle.

    Corners (2, -3), (4, y), (-2, 3), (-4, -y) round the centre are a rectangle where the diagonals are equal: y^2 = 13 - 16 < 0
    for this hull, so a hull of 6 x 6 is taken: corners (a, -3), (3, b) with a^2 + 9 = 9 + b^2, here a = 1 and b = -1.
    """
    points = torch.tensor([[1.0, -3.0], [3.0, -1.0], [-1.0, 3.0], [-3.0, 1.0]], dtype=torch.float64) + 10
    box = torch.tensor([10.0, 10.0, math.hypot(4, 4), math.hypot(2, 2), -math.pi / 4], dtype=torch.float64)
    assert torch.cdist(corners(box), points).amin(dim=1).max() < 1e-12
    anchor = torch.tensor([4.0, 5.0, 16.0, 17.0], dtype=torch.float64)  # 12 x 12 round (10, 11)
    deltas = midpoint.encode(box, anchor, MidpointCoding(stds=(1.0,) * 6))
    expected = [0.0, -1 / 12, math.log(0.5), math.log(0.5), 1 / 6, -1 / 6]
    torch.testing.assert_close(deltas, torch.tensor(expected, dtype=torch.float64))
    scaled = midpoint.encode(box, anchor, MidpointCoding())
    torch.testing.assert_close(scaled[4:], deltas[4:] / 0.5)


def test_upright_boxes_have_offsets_of_a_half_whichever_way_they_lean():
    anchor = torch.tensor([0.0, 0.0, 20.0, 20.0], dtype=torch.float64)
    for angle in (-1e-4, 0.0, 1e-4, math.pi / 2 - 1e-4, -math.pi / 2):
        box = torch.tensor([10.0, 10.0, 12.0, 5.0, angle], dtype=torch.float64)
        offsets = midpoint.encode(box, anchor, MidpointCoding(stds=(1.0,) * 6))[4:]
        torch.testing.assert_close(offsets, offsets.new_tensor([0.5, 0.5]), rtol=0, atol=1e-3)
    leaning = torch.tensor([10.0, 10.0, 12.0, 5.0, 1e-4], dtype=torch.float64)
    exact = midpoint.encode(leaning, anchor, MidpointCoding(stds=(1.0,) * 6, level_px=0.0))[4:]
    torch.testing.assert_close(exact, exact.new_tensor([-0.5, -0.5]), rtol=0, atol=1e-3)


def test_a_thin_box_that_leans_a_little_is_no_line():
    """Its right corners lie within 0.1 px of its hull's right side, those at the top do not."""
    anchor = torch.tensor([0.0, 0.0, 40.0, 20.0], dtype=torch.float64)
    thin = torch.tensor([20.0, 10.0, 30.0, 2.0, 0.04], dtype=torch.float64)
    back = midpoint.decode(midpoint.encode(thin, anchor, MidpointCoding()), anchor, MidpointCoding())
    torch.testing.assert_close(back, thin)


def test_a_parallelogram_is_stretched_along_its_shorter_diagonal():
    centre, corner, following = torch.zeros(2), torch.tensor([0.0, -5.0]), torch.tensor([3.0, 0.0])
    found = rectified(centre, corner, following)  # diagonals 10 and 6: both become 10, a square on its tip
    torch.testing.assert_close(found[:4], torch.tensor([0.0, 0.0, math.sqrt(50), math.sqrt(50)]))
    assert found[4].abs().item() == pytest.approx(math.pi / 4)


def test_offsets_are_cut_at_a_half():
    anchor = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    wild = midpoint.decode(torch.tensor([[0.0, 0, 0, 0, 9.0, 9.0]]), anchor, MidpointCoding())
    edge = midpoint.decode(torch.tensor([[0.0, 0, 0, 0, 1.0, 1.0]]), anchor, MidpointCoding())
    assert paired_iou(wild, edge) == 1 and torch.equal(wild, edge)


def test_gradients_reach_the_deltas(random_boxes):
    proposals = random_boxes(20, seed=6)
    deltas = (torch.rand(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5).requires_grad_()
    coding.decode(deltas, proposals, DeltaCoding()).square().sum().backward()
    assert (deltas.grad != 0).all()
    six = (torch.rand(20, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.5).requires_grad_()
    midpoint.decode(six, hull(proposals), MidpointCoding()).square().sum().backward()
    assert six.grad.isfinite().all() and (six.grad[:, :4] != 0).all()


@pytest.mark.parametrize(
    "make", [lambda: DeltaCoding(stds=(0.0, 1, 1, 1, 1)), lambda: MidpointCoding(stds=(1, 1, 1, 1, 1, -1))]
)
def test_deviations_must_be_above_0(make):
    with pytest.raises(ConfigError, match="must be above 0"):
        make()


def test_a_negative_level_is_refused():
    with pytest.raises(ConfigError, match="level_px must be 0 or more, got -1"):
        MidpointCoding(level_px=-1)
