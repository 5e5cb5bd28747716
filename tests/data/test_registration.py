import numpy as np
import pytest
from scipy import ndimage

from terralean.data.registration import find_shift


def ground(seed: int, *, size: int = 160) -> np.ndarray:
    """Three bands of patches with edges."""
    rng = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(rng.standard_normal((3, size, size)), (0, 4, 4))
    return (blobs > 0) * 80.0 + rng.normal(0, 4, (3, size, size))


@pytest.mark.parametrize(("down", "across"), [(0, 0), (3, -2), (-11, 6), (0.5, 0), (0, -1.5)])
def test_a_shift_is_found_through_another_season(down, across):
    before = ground(0)
    after = ndimage.shift(before, (0, down, across), order=1, mode="wrap") * 0.7 + 20
    after[:, 100:120, 90:110] = 200
    found = find_shift(before[:, 16:-16, 16:-16], after[:, 16:-16, 16:-16], np.ones((128, 128), bool))
    assert found.sure
    assert (found.down, found.across) == pytest.approx((down, across), abs=0.35)


def test_unrelated_dates_say_nothing():
    found = find_shift(ground(0)[:, :128, :128], ground(1)[:, :128, :128], np.ones((128, 128), bool))
    assert not found.sure


def test_nodata_is_not_what_is_compared():
    before, valid = ground(0), np.ones((160, 160), bool)
    valid[:, :40] = False
    after = np.roll(before, (0, 4, 0), axis=(0, 1, 2))
    before[:, ~valid] = after[:, ~valid] = 0
    found = find_shift(before, after, valid)
    assert (found.down, found.across) == pytest.approx((4, 0), abs=0.3)


def test_too_little_to_compare_is_nothing():
    assert find_shift(ground(0)[:, :20], ground(0)[:, :20], np.ones((20, 160), bool)) is None
    assert find_shift(ground(0), ground(0), np.zeros((160, 160), bool)) is None
