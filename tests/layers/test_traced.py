"""What tokens cost in a pass, by pixel."""

import torch

from terralean.layers.hooks import Point, Traced


def test_layers_that_worked_on_a_token_by_hand():
    """Twelve layers, tokens of 2 px on 5 x 4 px; after layer 3 a token goes, after 8 another one."""
    first = torch.tensor([[[True, True], [False, True], [True, True]]])
    second = first & torch.tensor([[[True, False], [True, True], [True, True]]])
    record = (
        Point(3, torch.tensor([5]), alive=first, layers=5, token_px=(2, 2)),
        Point(8, torch.tensor([4]), alive=second, layers=4, token_px=(2, 2)),
    )
    traced = Traced(torch.zeros(1, 3, 5, 4), record, 12)
    whole, early, late = 1, 3 / 12, 8 / 12
    expected = torch.tensor([[whole, late], [early, whole], [whole, whole]]).repeat_interleave(2, 0).repeat_interleave(2, 1)
    torch.testing.assert_close(traced.work(height=5, width=4)[0], expected[:5])


def test_merged_tokens_share_the_cost_of_one():
    group = torch.tensor([[[3, 3], [1, 3]], [[0, 1], [2, 3]]])
    point = Point(1, torch.tensor([2, 4]), group=group, layers=3, token_px=(1, 1))
    torch.testing.assert_close(point.work, torch.tensor([[[1 / 3, 1 / 3], [1, 1 / 3]], [[1.0, 1], [1, 1]]]))
    work = Traced(torch.zeros(2, 1, 2, 2), (point,), 4).work(height=2, width=2)
    torch.testing.assert_close(work[0], torch.tensor([[0.5, 0.5], [1, 0.5]]))
    torch.testing.assert_close(work[1], torch.ones(2, 2))


def test_stages_with_tokens_of_different_sizes_are_added_up():
    fine = Point(1, torch.tensor([0]), alive=torch.zeros(1, 2, 2, dtype=torch.bool), layers=2, token_px=(1, 1))
    coarse = Point(4, torch.tensor([1]), alive=torch.ones(1, 1, 1, dtype=torch.bool), layers=2, token_px=(2, 2))
    work = Traced(torch.zeros(1, 1, 2, 2), (fine, coarse), 6).work(height=2, width=2)
    torch.testing.assert_close(work, torch.full((1, 2, 2), 4 / 6))
