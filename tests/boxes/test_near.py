import pytest
import torch

from terralean.boxes import near as room
from terralean.boxes.near import near


def meeting(hulls, others):
    meet = (hulls[:, None, :2] <= others[None, :, 2:]).all(-1) & (hulls[:, None, 2:] >= others[None, :, :2]).all(-1)
    return {tuple(pair) for pair in meet.nonzero().tolist()}


def rectangles(count, seed, stretch=(1.0, 1.0)):
    draws = torch.rand(count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    low = draws[:, :2] * torch.tensor(stretch) * 40
    return torch.cat([low, low + draws[:, 2:] * 5], dim=1)


@pytest.mark.parametrize("stretch", [(1.0, 1.0), (1.0, 30.0), (30.0, 1.0)])
@pytest.mark.parametrize("pairs", [7, room.PAIRS])
def test_every_pair_that_meets_comes_once_however_many_are_looked_at_together(monkeypatch, stretch, pairs):
    monkeypatch.setattr(room, "PAIRS", pairs)
    hulls, others = rectangles(70, 0, stretch), rectangles(50, 1, stretch)
    found = [pair for i, j in near(hulls, others) for pair in zip(i.tolist(), j.tolist(), strict=True)]
    assert len(found) == len(set(found))
    assert set(found) == meeting(hulls, others)


def test_rectangles_that_only_touch_meet():
    one = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    touching = torch.tensor([[2.0, 2.0, 3.0, 3.0], [2.1, 0.0, 3.0, 1.0]])
    assert [(i.tolist(), j.tolist()) for i, j in near(one, touching)] == [([0], [0])]


def test_nothing_meets_nothing():
    none, some = torch.zeros(0, 4), torch.ones(2, 4)
    assert not list(near(none, some)) and not list(near(some, none))
