import math

import numpy as np
import pytest

from terralean.explain.numbers import Tally, alike, cosines, coverage, distinct, entropy_bits, normalised, percent


def random_weights(heads: int = 3, tokens: int = 4, side: int = 8, *, seed: int = 0) -> np.ndarray:
    """Weights that sum to one over the places."""
    found = np.random.default_rng(seed).gamma(0.5, size=(heads, tokens, side, side))
    return found / found.sum(axis=(-2, -1), keepdims=True)


def whole(side: int = 8) -> np.ndarray:
    return np.ones((side, side), bool)


def test_even_maps_have_all_the_entropy_there_is_and_half_the_image_holds_half():
    even = np.full((2, 4096), 1 / 4096)
    assert entropy_bits(even) == pytest.approx([12, 12])
    assert coverage(even, weight=0.5) == pytest.approx([0.5, 0.5])
    assert coverage(even, weight=0.9) == pytest.approx([0.9, 0.9], abs=1 / 4096)


def test_a_map_of_one_place_has_no_entropy_and_covers_one_place():
    one = np.zeros((1, 64))
    one[0, 17] = 1
    assert entropy_bits(one).tolist() == [0.0]
    assert coverage(one, weight=0.5).tolist() == coverage(one, weight=0.9).tolist() == [1 / 64]


def test_exact_small_maps():
    maps = np.array([[0.5, 0.25, 0.125, 0.125], [0.1, 0.2, 0.3, 0.4]])
    assert entropy_bits(maps)[0] == pytest.approx(1.75)
    assert coverage(maps, weight=0.5).tolist() == [0.25, 0.5]
    assert coverage(maps, weight=0.9).tolist() == [1.0, 0.75]
    assert coverage(maps, weight=1.0).tolist() == [1.0, 1.0]


def test_coverage_is_the_smallest_set_found_by_trying_all():
    maps = random_weights(1, 5, 3, seed=3)[0].reshape(5, 9)
    for found, weights in zip(coverage(maps, weight=0.6), maps, strict=True):
        sets = [[w for place, w in enumerate(weights) if chosen >> place & 1] for chosen in range(2**9)]
        assert found == min(len(s) for s in sets if sum(s) >= 0.6) / 9


def test_entropy_does_not_depend_on_the_order_of_places():
    maps = random_weights()[0].reshape(4, 64)
    shuffled = maps[:, np.random.default_rng(1).permutation(64)]
    assert entropy_bits(maps) == pytest.approx(entropy_bits(shuffled))
    assert (entropy_bits(maps) < 6).all()


def test_cosines_are_one_for_like_maps_and_zero_for_maps_that_do_not_meet():
    maps = np.array([[0.5, 0.5, 0, 0], [0, 0, 1, 0], [5, 5, 0, 0], [3, 0, 4, 0.0]])
    expected = [
        [1, 0, 1, 0.6 / math.sqrt(2)],
        [0, 1, 0, 0.8],
        [1, 0, 1, 0.6 / math.sqrt(2)],
        [0.6 / math.sqrt(2), 0.8, 0.6 / math.sqrt(2), 1],
    ]
    np.testing.assert_allclose(cosines(maps), expected, atol=1e-12)


def test_distinct_counts_groups_of_like_maps():
    assert distinct(np.ones((16, 16))) == 1
    assert distinct(np.eye(16)) == 16
    assert distinct(np.kron(np.eye(4), np.ones((4, 4)))) == 4


def test_alike_puts_each_token_with_the_first_it_is_like():
    cosine = np.array([[1, 0.2, 0.999, 0.99], [0.2, 1, 0.2, 0.2], [0.999, 0.2, 1, 0.9], [0.99, 0.2, 0.9, 1]])
    assert alike(cosine, least=0.995) == [[0, 2], [1], [3]]
    assert alike(cosine, least=0.98) == [[0, 2, 3], [1]]
    assert alike(cosine, least=0) == [[0, 1, 2, 3]]


def test_weights_without_any_become_even():
    assert normalised(np.array([[2.0, 6.0], [0.0, 0.0]])).tolist() == [[0.25, 0.75], [0.5, 0.5]]


def test_numbers_of_one_window_are_those_of_the_mean_of_its_heads():
    weights, tally = random_weights(), Tally()
    tally.add(weights, whole(), of_places=True)
    found = tally.numbers(stage=1, block=3, by="token", maps=(0, 2, 5, 9))
    maps = weights.mean(axis=0).reshape(4, 64)
    assert (found.stage, found.block, found.by, found.averaged, found.grid) == (1, 3, "token", 3, 8)
    assert [one.number for one in found.maps] == [0, 2, 5, 9]
    assert [one.entropy_bits for one in found.maps] == pytest.approx(entropy_bits(maps), abs=1e-6)
    assert [one.entropy_share for one in found.maps] == pytest.approx(entropy_bits(maps) / 6, abs=1e-6)
    assert [one.half for one in found.maps] == pytest.approx(coverage(maps, weight=0.5), abs=1e-6)
    assert [one.ninety for one in found.maps] == pytest.approx(coverage(maps, weight=0.9), abs=1e-6)
    np.testing.assert_allclose(found.cosine, cosines(maps), atol=1e-6)
    assert found.distinct == pytest.approx(distinct(cosines(maps)), abs=1e-5)
    assert found.distinct_averaged == pytest.approx(distinct(cosines(weights.reshape(3, -1))), abs=1e-5)
    assert found.without_data == 0
    assert all(one.read is None for one in found.maps)
    others = cosines(maps) - 2 * np.eye(4)
    assert [one.closest for one in found.maps] == [(0, 2, 5, 9)[i] for i in others.argmax(axis=1)]
    assert [one.cosine for one in found.maps] == pytest.approx(others.max(axis=1), abs=1e-6)


def test_windows_count_by_their_places_with_data():
    part = whole()
    part[:, 2:] = False
    one, other = random_weights(seed=1), random_weights(seed=2)
    alone = []
    for weights, valid in ((one, whole()), (other, part)):
        tally = Tally()
        tally.add(weights, valid, of_places=True)
        alone.append(tally.numbers(stage=0, block=0, by="token", maps=range(4)))
    tally = Tally()
    tally.add(one, whole(), of_places=True)
    tally.add(other, part, of_places=True)
    both = tally.numbers(stage=0, block=0, by="token", maps=range(4))
    for token in range(4):
        bits = [found.maps[token].entropy_bits for found in alone]
        assert both.maps[token].entropy_bits == pytest.approx((64 * bits[0] + 16 * bits[1]) / 80, abs=1e-5)
    assert alone[1].maps[0].entropy_bits == pytest.approx(entropy_bits(normalised(other.mean(axis=0)[:, part]))[0], abs=1e-6)
    assert alone[1].without_data == pytest.approx(1 - other[:, :, part].sum() / 12, abs=1e-6)


def test_even_attention_over_a_part_with_data_is_even():
    weights, part = np.full((2, 3, 8, 8), 1 / 64), whole()
    part[5:] = False
    tally = Tally()
    tally.add(weights, part, of_places=True)
    found = tally.numbers(stage=0, block=0, by="token", maps=range(3))
    assert [one.entropy_share for one in found.maps] == [1, 1, 1]
    assert [one.entropy_bits for one in found.maps] == pytest.approx([math.log2(40)] * 3, abs=1e-6)
    assert [one.half for one in found.maps] == [0.5] * 3
    assert found.without_data == pytest.approx(24 / 64)
    assert (found.distinct, found.distinct_averaged) == (1, 1)


def test_a_window_with_one_place_is_even():
    tally, one = Tally(), np.zeros((8, 8), bool)
    one[3, 3] = True
    tally.add(random_weights(1, 1), one, of_places=True)
    found = tally.numbers(stage=0, block=0, by="token", maps=(4,))
    assert (found.maps[0].entropy_bits, found.maps[0].entropy_share, found.maps[0].half) == (0, 1, 1)
    assert (found.maps[0].closest, found.maps[0].cosine, found.distinct_averaged) == (None, None, None)


def test_shares_of_what_is_read_sum_to_one_over_all_tokens():
    weights = np.random.default_rng(0).gamma(1.0, size=(2, 4, 8, 8))
    weights /= weights.sum(axis=1, keepdims=True)
    part = whole()
    part[:, :3] = False
    tally = Tally()
    tally.add(weights, part, of_places=False)
    found = tally.numbers(stage=1, block=0, by="token", maps=range(4))
    assert sum(one.read for one in found.maps) == pytest.approx(1, abs=1e-5)
    assert found.maps[2].read == pytest.approx(weights[:, 2][:, part].mean(), abs=1e-6)
    assert found.without_data is None


@pytest.mark.parametrize(("share", "text"), [(0.896, "90%"), (0.1, "10%"), (0.0954, "9.5%"), (0.0004, "0.0%"), (1, "100%")])
def test_shares_have_two_figures(share, text):
    assert percent(share) == text
