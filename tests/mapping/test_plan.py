import numpy as np
import pytest

from terralean.errors import ConfigError
from terralean.mapping.plan import Plan, starts, taper
from terralean.raster.grid import Grid


@pytest.mark.parametrize("overlap", [0, 1, 5, 16, 32])
@pytest.mark.parametrize("length", [1, 33, 63, 64, 65, 100, 128, 500])
def test_shares_of_every_pixel_sum_to_one(length, overlap):
    offsets = starts(length, tile=64, overlap=overlap)
    total = np.zeros(offsets[-1] + 64)
    for start in offsets:
        total[start : start + 64] += taper(start, offsets, tile=64, overlap=overlap)
    np.testing.assert_allclose(total[:length], 1, atol=1e-6)


@pytest.mark.parametrize(
    ("length", "tile", "overlap", "expected"),
    [(100, 64, 16, [0, 48]), (112, 64, 16, [0, 48]), (113, 64, 16, [0, 48, 96]), (10, 64, 16, [0]), (64, 64, 0, [0])],
)
def test_starts_worked(length, tile, overlap, expected):
    assert starts(length, tile=tile, overlap=overlap) == expected


def test_taper_worked():
    assert taper(2, [0, 2, 4], tile=4, overlap=2).tolist() == [0.25, 0.75, 0.75, 0.25]
    assert taper(0, [0, 2, 4], tile=4, overlap=2).tolist() == [1, 1, 0.75, 0.25]
    assert taper(0, [0], tile=4, overlap=2).tolist() == [1, 1, 1, 1]


def test_windows_of_a_crop_are_windows_of_the_scene():
    whole = Plan(grid=Grid(width=500, height=400, crs=None), tile_px=64, overlap_px=16)
    part = Plan(grid=Grid(width=300, height=200, crs=None), tile_px=64, overlap_px=16)
    assert {row + 2 * 48 for row in part.rows} <= set(whole.rows)


@pytest.mark.parametrize(("tile", "overlap", "message"), [(16, 0, "at least 32 px, got 16"), (64, 33, "half the tile")])
def test_impossible_plans(tile, overlap, message):
    with pytest.raises(ConfigError, match=message):
        Plan(grid=Grid(width=9, height=9, crs=None), tile_px=tile, overlap_px=overlap)
