import numpy as np
import pytest

from terralean.raster.display import HATCH_RGB, display_bands, stretch
from terralean.spec import Bands


def is_hatched(rgb: np.ndarray) -> bool:
    """Whether all pixels are of the two greys of the hatching, and both occur."""
    found = {tuple(p) for p in rgb.reshape(-1, 3).tolist()}
    return found == set(HATCH_RGB)


@pytest.mark.parametrize(
    ("bands", "shown"),
    [
        (Bands(names=("blue", "green", "red", "nir")), (2, 1, 0)),
        (Bands(names=("nir", "Red", "Green", "Blue")), (1, 2, 3)),
        (Bands(names=("band_1", "band_2", "band_3", "band_4")), (0, 1, 2)),
        (Bands(names=("nir", "red", "green")), (0, 1, 2)),
        (Bands(names=("vv", "vh")), (0,)),
        (Bands(names=("a", "b", "c", "d"), wavelength_nm=(440, 550, 650, 850)), (2, 1, 0)),
        (Bands(names=("a", "b", "c"), wavelength_nm=(1600, 2200, None)), (0, 1, 2)),
        (Bands(names=tuple(f"band_{i + 1}" for i in range(204))), (102, 51, 25)),
    ],
)
def test_shown_bands_are_chosen_by_name_then_wavelength_then_place(bands, shown):
    assert display_bands(bands) == shown


def test_stretch_reaches_black_and_white_at_the_percentiles_of_valid_pixels():
    values = np.arange(101 * 4, dtype=np.float64).reshape(4, 101)[None] % 101 * 10
    valid = np.ones((4, 101), bool)
    valid[:, :1] = False
    values[:, ~valid] = np.nan
    seen = stretch(values, valid, bands=Bands(names=("pan",)))
    known = values[0][valid]
    low, high = np.percentile(known, [2, 98])
    expected = np.clip((known - low) / (high - low), 0, 1) * 255
    assert np.array_equal(seen[valid], np.repeat(expected.astype(np.uint8)[:, None], 3, axis=1))
    assert (seen[valid].min(), seen[valid].max()) == (0, 255)
    assert {tuple(p) for p in seen[~valid].tolist()} <= set(HATCH_RGB)


def test_a_constant_band_is_mid_grey_and_an_empty_image_is_hatched():
    flat = np.full((1, 8, 8), 700)
    assert (stretch(flat, np.ones((8, 8), bool), bands=Bands(names=("pan",))) == 128).all()
    assert is_hatched(stretch(flat, np.zeros((8, 8), bool), bands=Bands(names=("pan",))))
