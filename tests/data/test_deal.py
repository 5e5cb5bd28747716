"""Units are dealt so that every class has its share, and training all of them."""

import numpy as np
import pytest

from terralean.data.deal import deal

SHARES = (0.65, 0.15, 0.2)


def shares_of(dealt, counts):
    totals = counts.sum(axis=0)
    return np.stack([counts[dealt == split].sum(axis=0) / totals for split in range(3)])


@pytest.mark.parametrize("seed", range(5))
def test_every_class_is_near_its_share(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 1000, (60, 4)) * (rng.random((60, 4)) < 0.6)
    dealt = deal(counts, shares=SHARES, rng=rng)
    assert np.abs(shares_of(dealt, counts) - np.array(SHARES)[:, None]).max() < 0.08


@pytest.mark.parametrize("seed", range(20))
def test_a_class_of_one_unit_goes_to_training(seed):
    counts = np.full((12, 2), 0)
    counts[:, 0] = 100
    counts[seed % 12, 1] = 5
    dealt = deal(counts, shares=SHARES, rng=np.random.default_rng(seed))
    assert dealt[seed % 12] == 0


@pytest.mark.parametrize("units", [3, 4, 7])
def test_no_split_with_a_share_stays_empty(units):
    dealt = deal(np.full((units, 1), 10), shares=SHARES, rng=np.random.default_rng(0))
    assert set(dealt) == {0, 1, 2}


def test_a_split_without_a_share_gets_nothing():
    dealt = deal(np.full((30, 1), 10), shares=(0.8, 0.0, 0.2), rng=np.random.default_rng(0))
    assert 1 not in dealt


def test_the_seed_decides():
    counts = np.full((40, 2), 10)
    deals = [deal(counts, shares=SHARES, rng=np.random.default_rng(seed)).tolist() for seed in (0, 0, 1)]
    assert deals[0] == deals[1]
    assert deals[0] != deals[2]
