from collections import Counter

import numpy as np
import pytest

from terralean.explain.token_numbers import TokenTally, quantile
from terralean.explain.tokens import Decisions, Kept


def pruned(*layers: list[list[int]]) -> Decisions:
    points = (Kept(layer=3 * (i + 1), left=int(np.sum(codes)), codes=np.array(codes)) for i, codes in enumerate(layers))
    return Decisions(merges=False, points=tuple(points))


def merged(codes: list[list[int]], *, left: int) -> Decisions:
    return Decisions(merges=True, points=(Kept(layer=5, left=left, codes=np.array(codes)),))


ALL = np.ones((2, 2), bool)


def test_a_window_counts_the_tokens_that_hold_data():
    data = np.array([[True, True], [True, False]])
    found = TokenTally().add(pruned([[1, 0], [1, 1]], [[0, 0], [0, 1]]), data, row=64, col=32)
    told = [(one.row, one.col, one.layer, one.tokens, one.left, one.tokens_with_data, one.left_with_data) for one in found]
    assert told == [(64, 32, 3, 4, 3, 3, 2), (64, 32, 6, 4, 1, 3, 0)]
    assert [one.share for one in found] == [0.666667, 0.0]


def test_a_group_counts_where_a_member_holds_data_and_a_cluster_that_nobody_is_nearest_to_always():
    data = np.array([[True, False], [True, False]])
    (one,) = TokenTally().add(merged([[0, 0], [1, 2]], left=3), data, row=0, col=0)
    assert (one.left, one.left_with_data, one.share) == (3, 2, 1.0)
    (one,) = TokenTally().add(merged([[0, 0], [1, 2]], left=4), np.ones((2, 2), bool), row=0, col=0)
    assert (one.left_with_data, one.share) == (4, 1.0)


def test_a_scene_is_the_mean_of_its_tokens_and_the_spread_of_its_windows():
    tally = TokenTally()
    tally.add(pruned([[1, 1], [1, 1]]), ALL, row=0, col=0)
    tally.add(pruned([[1, 0], [0, 0]]), ALL, row=0, col=2)
    tally.add(pruned([[0, 0], [1, 1]]), np.array([[True, False], [False, False]]), row=2, col=0)
    (one,) = tally.layers()
    assert (one.layer, one.grid) == (3, 2)
    assert one.left == pytest.approx((4 + 1 + 2) / 3, abs=0.01)
    assert one.share == pytest.approx((4 + 1 + 0) / 9, abs=1e-6)
    assert (one.p5, one.p95) == (0.0, 1.0)
    assert (tally.windows, tally.in_part) == (3, 1)


def test_coarse_tokens_hold_data_where_one_of_their_places_does():
    data = np.zeros((4, 4), bool)
    data[0, 1] = data[3, 3] = True
    both = Decisions(
        merges=False,
        points=(
            Kept(layer=1, left=16, codes=np.ones((4, 4), np.int64)),
            Kept(layer=2, left=1, codes=np.array([[1, 0], [0, 0]])),
        ),
    )
    tally = TokenTally()
    fine, coarse = tally.add(both, data, row=0, col=0)
    assert (fine.tokens_with_data, coarse.tokens_with_data, coarse.left_with_data) == (2, 2, 1)


@pytest.mark.parametrize(("q", "share"), [(0.0, 0.1), (0.05, 0.1), (0.06, 0.2), (0.95, 0.2), (0.951, 0.7), (1.0, 0.7)])
def test_quantiles_are_shares_that_so_many_tokens_windows_do_not_exceed(q, share):
    assert quantile(Counter({0.2: 90, 0.1: 5, 0.7: 5}), q) == share
