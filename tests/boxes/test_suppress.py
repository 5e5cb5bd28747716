import pytest
import torch

from terralean.boxes import suppress
from terralean.boxes.overlap import iou
from terralean.boxes.suppress import nms


def one_by_one(boxes, scores, *, iou_threshold, labels=None):
    """Greedy suppression as its definition reads."""
    order = sorted(range(len(boxes)), key=lambda i: (-float(scores[i]), i))
    table, kept = iou(boxes, boxes).tolist(), []
    kinds = [0] * len(boxes) if labels is None else labels.tolist()
    for i in order:
        if not any(kinds[i] == kinds[j] and table[i][j] > iou_threshold for j in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("block", [16, suppress.BLOCK])
@pytest.mark.parametrize("iou_threshold", [0.0, 0.1, 0.5, 0.9])
def test_is_the_greedy_result_with_ties_and_labels(monkeypatch, random_boxes, block, iou_threshold):
    monkeypatch.setattr(suppress, "BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    boxes = random_boxes(400, seed=0, span=40.0)
    scores = (torch.rand(400, generator=generator) * 20).round() / 20  # many are equal
    labels = torch.randint(3, (400,), generator=generator)
    assert nms(boxes, scores, iou_threshold=iou_threshold).tolist() == one_by_one(boxes, scores, iou_threshold=iou_threshold)
    expected = one_by_one(boxes, scores, iou_threshold=iou_threshold, labels=labels)
    assert nms(boxes, scores, iou_threshold=iou_threshold, labels=labels).tolist() == expected
    assert nms(boxes, scores, iou_threshold=iou_threshold, labels=labels, most=9).tolist() == expected[:9]


def test_one_that_is_suppressed_suppresses_none():
    """A row of squares, each overlapping the next by 0.6: every other one stays."""
    row = torch.tensor([[2.5 * i, 0.0, 10.0, 10.0, 0.0] for i in range(7)])
    assert nms(row, torch.linspace(1, 0.1, 7), iou_threshold=0.5).tolist() == [0, 2, 4, 6]


def test_of_equal_boxes_and_scores_the_first_stays():
    boxes = torch.tensor([[5.0, 5.0, 4.0, 2.0, 0.3]]).repeat(5, 1)
    assert nms(boxes, torch.full((5,), 0.7), iou_threshold=0.5).tolist() == [0]
    assert nms(boxes, torch.full((5,), 0.7), iou_threshold=0.5, labels=torch.tensor([1, 0, 1, 2, 0])).tolist() == [0, 1, 3]


def test_an_overlap_of_just_the_threshold_does_not_suppress():
    boxes = torch.tensor([[0.0, 0.0, 2.0, 1.0, 0.0], [1.0, 0.0, 2.0, 1.0, 0.0]])  # a third
    scores = torch.tensor([0.9, 0.8])
    exact = iou(boxes, boxes)[0, 1].item()
    assert len(nms(boxes, scores, iou_threshold=exact)) == 2
    assert len(nms(boxes, scores, iou_threshold=exact - 1e-6)) == 1


def test_a_score_that_is_no_number_is_the_worst():
    boxes = torch.tensor([[5.0, 5.0, 4.0, 2.0, 0.3]]).repeat(2, 1)
    assert nms(boxes, torch.tensor([torch.nan, 0.1]), iou_threshold=0.5).tolist() == [1]


def test_nothing_in_nothing_out():
    assert nms(torch.zeros(0, 5), torch.zeros(0), iou_threshold=0.5, labels=torch.zeros(0, dtype=torch.int64)).tolist() == []


def test_five_thousand_objects_of_one_window_stay(random_boxes):
    grid = torch.cartesian_prod(torch.arange(71.0), torch.arange(71.0)) * 14
    boxes = torch.cat([grid, torch.full((len(grid), 1), 12.0), torch.full((len(grid), 1), 6.0)], dim=1)
    boxes = torch.cat([boxes, torch.rand(len(grid), 1, generator=torch.Generator().manual_seed(0)) * 0.2], dim=1)
    twice = boxes.repeat(2, 1)
    scores = torch.cat([torch.full((len(grid),), 0.9), torch.full((len(grid),), 0.8)])
    assert nms(twice, scores, iou_threshold=0.1).tolist() == list(range(len(grid)))


@pytest.mark.gpu
def test_is_the_same_on_a_gpu(random_boxes):
    boxes, scores = random_boxes(3000, seed=1).float(), torch.rand(3000, generator=torch.Generator().manual_seed(1))
    there = nms(boxes.cuda(), scores.cuda(), iou_threshold=0.3)
    assert there.is_cuda and torch.equal(there.cpu(), nms(boxes, scores, iou_threshold=0.3))
