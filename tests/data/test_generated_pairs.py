import numpy as np
import pytest

from terralean.data.change_config import PairConfig
from terralean.data.change_index import find_pairs
from terralean.data.config import DataConfig
from terralean.data.generated_pairs import PairsConfig, draw_pair, generate_pairs
from terralean.data.registration import find_shift
from terralean.errors import ConfigError


@pytest.fixture(scope="module")
def pair():
    return draw_pair(seed=3)


def test_the_same_seed_gives_the_same_pair(pair):
    again, other = draw_pair(seed=3), draw_pair(seed=3, number=1)
    for name in ("before", "after", "mask"):
        assert np.array_equal(getattr(again, name), getattr(pair, name))
    assert not np.array_equal(other.before, pair.before)


def test_only_what_the_mask_says_changed_differs_much(pair):
    assert {*np.unique(pair.mask)} == {0, 255}
    changed = pair.mask == 255
    assert 0.002 < changed.mean() < 0.3
    difference = np.abs(np.log(pair.after.astype(float)) - np.log(pair.before.astype(float))).mean(axis=0)
    assert difference[changed].mean() > 1.5 * difference[~changed].mean()


def test_without_change_nothing_is_marked():
    still = draw_pair(seed=3, config=PairsConfig(appear=0, vanish=0, shift_px=0))
    assert not still.mask.any()


def test_the_later_date_lies_off_by_what_is_told():
    shifted = draw_pair(seed=5, config=PairsConfig(shift_px=4))
    found = find_shift(shifted.before, shifted.after, np.ones(shifted.mask.shape, bool))
    assert (found.down, found.across) == pytest.approx(shifted.shift_px, abs=0.5)


def test_pairs_on_disk_are_a_dataset(tmp_path):
    drawn = generate_pairs(tmp_path, count=2, seed=1)
    dataset = find_pairs(tmp_path, DataConfig(), PairConfig())
    assert len(dataset.sources) == 2
    assert dataset.bands.names == tuple(f"{n} {d}" for d in ("before", "after") for n in ("blue", "green", "red", "nir"))
    assert drawn[0].grid != drawn[1].grid


def test_shares_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="appear and vanish at most 1 together"):
        PairsConfig(appear=0.8, vanish=0.4)
