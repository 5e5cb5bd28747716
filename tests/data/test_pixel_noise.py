"""Noise in single pixels: how much, where, and on what it hangs."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from terralean.data.pixel_noise import CELL_PX, Noise, NoiseConfig, NoisyScene, data_range, draw_noise, with_noise
from terralean.errors import ConfigError
from terralean.raster.grid import Window
from terralean.spec import Normalisation

BYTES = ((0.0, 255.0),) * 3
NOISE = Noise(name="a/1.tif", height=700, width=600, pixels=1000, mode="uniform", seed=0, range=BYTES, whole=True)
WHOLE = Window(row=0, col=0, height=700, width=600)
UNTOUCHED = -1  # no noise has this value


def noisy(noise: Noise, window: Window = WHOLE) -> np.ndarray:
    return with_noise(np.full((3, window.height, window.width), UNTOUCHED, np.int16), window=window, noise=noise)


@pytest.mark.parametrize("mode", ["uniform", "saltpepper"])
@pytest.mark.parametrize("pixels", [0, 1, 100, 1000])
def test_so_many_pixels_of_each_square_change_in_all_bands(pixels, mode):
    found = noisy(replace(NOISE, pixels=pixels, mode=mode)) != UNTOUCHED
    assert (found == found[0]).all()
    rows, cols = (0, CELL_PX, 700), (0, CELL_PX, 600)
    for top, bottom in pairwise(rows):
        for left, right in pairwise(cols):
            area = (bottom - top) * (right - left)
            assert found[0, top:bottom, left:right].sum() == int(pixels * area / CELL_PX**2 + 0.5)
    assert found[0, :CELL_PX, :CELL_PX].sum() == pixels


def test_all_pixels_can_be_noise():
    assert (noisy(replace(NOISE, pixels=CELL_PX**2)) != UNTOUCHED).all()


def test_noise_is_the_same_again_and_other_for_another_image_seed_or_amount():
    first = noisy(NOISE)
    np.testing.assert_array_equal(first, noisy(NOISE))
    for other in ({"name": "b/1.tif"}, {"seed": 1}, {"pixels": 1001}, {"mode": "saltpepper"}):
        assert ((first != UNTOUCHED) & (noisy(replace(NOISE, **other)) != UNTOUCHED))[0].sum() < 100


def test_noise_does_not_depend_on_the_windows_nor_on_their_order():
    whole = noisy(NOISE)
    out = np.full((3, 700, 600), -2, np.int16)
    rng = np.random.default_rng(0)
    for row, col in rng.permutation([(row, col) for row in range(-40, 700, 90) for col in range(-40, 600, 90)]).tolist():
        window = Window(row=row, col=col, height=128, width=128)
        values = noisy(NOISE, window)
        inside = window.cut(WHOLE)
        out[:, *inside.slices()] = values[:, *inside.slices(origin=window)]
        values[:, *inside.slices(origin=window)] = UNTOUCHED
        assert (values == UNTOUCHED).all()  # nothing is written beside the image
    np.testing.assert_array_equal(out, whole)


def test_uniform_values_fill_the_range_of_bytes_and_bands_are_drawn_by_themselves():
    values = draw_noise(replace(NOISE, pixels=100_000), row=0, col=0).values
    assert values.shape == (3, 100_000)
    counts = np.stack([np.bincount(band.astype(int), minlength=256) for band in values])
    assert counts.shape == (3, 256)
    assert counts.min() > 300  # 391 of each value on average, with a deviation of 20
    assert counts.max() < 490
    assert abs(np.corrcoef(values) - np.eye(3)).max() < 0.02


def test_salt_and_pepper_are_the_ends_of_the_range_in_all_bands_at_once():
    values = draw_noise(replace(NOISE, pixels=10_000, mode="saltpepper"), row=0, col=0).values
    assert set(np.unique(values)) == {0, 255}
    assert (values == values[0]).all()
    assert 0.48 < (values[0] == 255).mean() < 0.52


def test_noise_touches_as_many_patches_as_single_pixels_at_random_do():
    """1000 pixels touch 62 % of the 1024 patches of 16 px of a square, 100 touch 9 %: 1 - (1 - 1/1024)^k."""
    for pixels in (100, 1000):
        shares = []
        for seed in range(20):
            drawn = draw_noise(replace(NOISE, pixels=pixels, seed=seed), row=0, col=0)
            shares.append(len(set(zip(drawn.rows // 16, drawn.cols // 16, strict=True))) / 1024)
        assert np.mean(shares) == pytest.approx(1 - (1 - 1 / 1024) ** pixels, abs=0.01)


def test_the_range_is_that_of_bytes_or_of_the_training_pixels():
    normalisation = Normalisation(mean=(1000.0, 300.0), std=(200.0, 150.5))
    assert data_range(normalisation, dtype="uint8") == ((0, 255), (0, 255))
    assert data_range(normalisation, dtype="uint16") == ((400, 1600), (0, 751))
    assert data_range(normalisation, dtype="int16") == ((400, 1600), (-151, 751))
    assert data_range(normalisation, dtype="float32") == ((400, 1600), (300 - 451.5, 300 + 451.5))


def test_values_of_floats_are_no_whole_numbers_and_lie_in_the_range_of_their_band():
    noise = replace(NOISE, range=((0.0, 0.5), (2.0, 3.0)), whole=False)
    values = draw_noise(noise, row=0, col=0).values
    assert 0 <= values[0].min() < values[0].max() <= 0.5
    assert 2 <= values[1].min() < values[1].max() <= 3
    assert (values != np.rint(values)).all()


class Still:
    """A part of a scene in which everything is 7, and one pixel holds no data."""

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        valid = np.ones((window.height, window.width), bool)
        valid[3, 4] = False
        return np.full((3, window.height, window.width), 7, np.uint8), valid


def test_a_part_of_an_image_has_the_noise_of_that_part_and_its_own_valid_pixels():
    part = Window(row=300, col=200, height=100, width=90)
    noise = replace(NOISE, pixels=CELL_PX**2 // 2)
    window = Window(row=10, col=20, height=64, width=64)
    values, valid = NoisyScene(scene=Still(), part=part, noise=noise).read(window)
    expected = noisy(noise)[:, 310:374, 220:284]
    np.testing.assert_array_equal(values, np.where(expected == UNTOUCHED, 7, expected))
    assert values.dtype == np.uint8
    np.testing.assert_array_equal(valid, Still().read(window)[1])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pixels": (0, -5)}, r"whole numbers of pixels in 512 x 512, 0 to 262144, got \[0, -5\]; e\.g\. 0,100,1000"),
        ({"pixels": (262145,)}, r"0 to 262144, got \[262145\]"),
        ({"pixels": (100, 100)}, r"different whole numbers"),
        ({"pixels": ()}, r"got \[\]"),
        ({"pixels": (1,), "seed": -1}, "seed of noise is 0 or more, got -1"),
    ],
)
def test_noise_that_cannot_be_drawn(values, message):
    with pytest.raises(ConfigError, match=message):
        NoiseConfig(**values)
