import numpy as np
import pytest

from terralean.data.generated_image import SKY_LIGHT, Day, cast_shadow, draw_day, light


def day_with(sun, rise) -> Day:
    return Day(dryness=0.5, wetness=0.5, silt=0.5, sun=sun, rise=rise, haze=0.0, gain=np.ones(4, np.float32), slope=(0.0, 0.0))


def test_a_wall_casts_a_shadow_away_from_the_sun_as_long_as_the_sun_is_low():
    height = np.zeros((21, 21), np.float32)
    height[10, 10] = 4.0
    shadow = cast_shadow(height, day_with((1.0, 0.0), rise=0.5))
    dark = np.argwhere(shadow > 0)
    assert {int(row) for row, _ in dark} == {10}
    assert [int(col) for _, col in dark] == [3, 4, 5, 6, 7, 8, 9]  # 4 px high at 1 in 2, and nothing at its very tip


def test_open_flat_ground_has_all_the_light_and_shadow_has_that_of_the_sky():
    height = np.zeros((21, 21), np.float32)
    height[10, 10:12] = 8.0
    lit = light(height, day_with((1.0, 0.0), rise=0.5))
    np.testing.assert_allclose(lit[:, 0, 0], 1.0, rtol=1e-6)
    np.testing.assert_allclose(lit[:, 10, 6], SKY_LIGHT, rtol=1e-6)


def test_slopes_towards_the_sun_are_brighter_than_those_away():
    ridge = 10 - np.abs(np.arange(21, dtype=np.float32) - 10)[None, :].repeat(21, axis=0) * 0.3
    lit = light(ridge, day_with((1.0, 0.0), rise=1.0))
    assert (lit[:, 10, 15] > 1).all()
    assert (lit[:, 10, 5] < 1).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_sun_is_in_the_south(seed):
    day = draw_day(np.random.default_rng(seed))
    assert day.sun[1] > 0  # rows grow southwards
    assert np.hypot(*day.sun) == pytest.approx(1)


def test_every_seed_has_its_own_day():
    days = [draw_day(np.random.default_rng(seed)) for seed in range(20)]
    for name in ("dryness", "wetness", "silt", "sun", "rise", "haze", "slope"):
        assert len({getattr(day, name) for day in days}) == 20
