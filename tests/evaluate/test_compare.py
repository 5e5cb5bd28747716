import json

import numpy as np
import pytest

from terralean.evaluate.compare import compare, document, verdict
from terralean.evaluate.intervals import Interval, join, mean_bootstrap
from terralean.evaluate.metrics import PER_MAP


def blocks(seed: int = 0, *, n: int = 12, classes: int = 3, wrong: int = 6) -> np.ndarray:
    """One training's counts (1, n, K, K + 1): many right pixels, some wrong, some without a class."""
    generator = np.random.default_rng(seed)
    confusions = generator.integers(0, wrong, (n, classes, classes)) + np.eye(classes, dtype=int) * generator.integers(
        5, 40, (n, classes, classes)
    )
    return join(confusions, generator.integers(0, 3, (n, classes)))[None]


def relabelled(counts: np.ndarray, *, share: float, seed: int = 1) -> np.ndarray:
    """The same reference with some of the right pixels given to the next class."""
    out = counts.copy()
    generator = np.random.default_rng(seed)
    classes = counts.shape[2]
    for s, n, k in np.ndindex(counts.shape[:3]):
        moved = generator.binomial(out[s, n, k, k], share)
        out[s, n, k, k] -= moved
        out[s, n, k, (k + 1) % classes] += moved
    return out


def compared(mine, theirs, **options):
    return compare(mine, theirs, generator=np.random.default_rng(0), resamples=1000, **options)


def plain_miou(counts) -> float:
    """Of one matrix (K, K + 1), with loops and nothing from the package."""
    found = []
    classes = len(counts)
    for k in range(classes):
        truth = sum(counts[k])
        mapped = sum(counts[i][k] for i in range(classes))
        if truth + mapped:
            found.append(counts[k][k] / (truth + mapped - counts[k][k]))
    return sum(found) / len(found)


def plain_quantile(values, share: float) -> float:
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def test_paired_differences_are_those_of_an_implementation_with_loops():
    mine, theirs = blocks(), relabelled(blocks(), share=0.2)
    found = compared(mine, theirs).miou
    generator, draws = np.random.default_rng(0), []
    times = generator.multinomial(12, [1 / 12] * 12, size=1000)
    for draw in times:
        one, other = (
            [[sum(draw[b] * counts[0, b, i, j] for b in range(12)) for j in range(4)] for i in range(3)]
            for counts in (mine, theirs)
        )
        draws.append(plain_miou(one) - plain_miou(other))
    assert found.value == pytest.approx(plain_miou(mine[0].sum(axis=0)) - plain_miou(theirs[0].sum(axis=0)), rel=1e-12)
    assert found.interval.low == pytest.approx(plain_quantile(draws, 0.025), rel=1e-9)
    assert found.interval.high == pytest.approx(plain_quantile(draws, 0.975), rel=1e-9)


def test_ends_are_the_quantiles_of_the_binomial_where_one_map_is_right_and_the_other_half_the_time():
    # of 20 blocks of one pixel, as many favour this map as a draw holds of ten: Binomial(20, 1/2), 2.5 % at 6, 97.5 % at 14
    mine, theirs = np.zeros((1, 20, 2, 3), int), np.zeros((1, 20, 2, 3), int)
    mine[0, :, 0, 0] = 1
    theirs[0, :10, 0, 0] = theirs[0, 10:, 0, 1] = 1
    found = compare(mine, theirs, generator=np.random.default_rng(0), resamples=5000).overall["oa"]
    assert (found.value, found.interval.low, found.interval.high) == pytest.approx((0.5, 6 / 20, 14 / 20))


@pytest.mark.parametrize("trainings", [1, 3])
def test_identical_maps_differ_by_exactly_nothing(trainings):
    counts = np.concatenate([blocks(seed) for seed in range(trainings)])
    found = compared(counts, counts.copy())
    for difference in (*found.overall.values(), *found.iou):
        assert (difference.value, difference.interval) == (0.0, Interval(low=0.0, high=0.0))
    assert verdict(found, other="b") == "No different from b: both have the same mIoU on every draw of the test blocks."


def test_above_nothing_means_that_this_map_is_better_and_swapping_turns_the_sign():
    better, worse = blocks(), relabelled(blocks(), share=0.3)
    ahead, behind = compared(better, worse), compared(worse, better)
    for name in PER_MAP:
        one, other = ahead.overall[name], behind.overall[name]
        assert one.value > 0
        assert one.interval.low > 0
        assert other.value == -one.value
        assert (other.interval.low, other.interval.high) == pytest.approx((-one.interval.high, -one.interval.low))


def test_a_pair_is_surer_than_two_maps_apart():
    mine, theirs = blocks(n=40), relabelled(blocks(n=40), share=0.1)
    paired = compared(mine, theirs).miou.interval
    alone = [mean_bootstrap(counts, generator=np.random.default_rng(0), resamples=1000).intervals for counts in (mine, theirs)]
    widths = [found.miou.high - found.miou.low for found in alone]
    assert paired.high - paired.low < 0.5 * np.hypot(*widths)


def test_the_order_of_the_blocks_does_not_matter_as_long_as_both_have_it():
    mine, theirs = blocks(n=60), relabelled(blocks(n=60), share=0.1)
    order = np.random.default_rng(3).permutation(60)
    one = compare(mine, theirs, generator=np.random.default_rng(0), resamples=20_000).miou
    other = compare(mine[:, order], theirs[:, order], generator=np.random.default_rng(0), resamples=20_000).miou
    assert one.value == pytest.approx(other.value, rel=1e-12)
    assert one.interval.low == pytest.approx(other.interval.low, abs=0.03 * one.value)


def test_seeds_are_paired_in_order_and_their_spread_widens_the_interval():
    base = blocks(n=60)
    mine = np.repeat(base, 3, axis=0)
    alike = np.concatenate([relabelled(base, share=0.10, seed=5)] * 3)
    unlike = np.concatenate([relabelled(base, share=share, seed=5) for share in (0.02, 0.10, 0.18)])
    found = [compared(mine, theirs).miou for theirs in (alike, unlike)]
    assert [round(difference.value, 2) for difference in found] == [round(found[0].value, 2)] * 2
    widths = [difference.interval.high - difference.interval.low for difference in found]
    assert widths[1] > 3 * widths[0]
    assert compared(unlike, unlike.copy()).miou.interval == Interval(low=0.0, high=0.0)
    assert compared(unlike, unlike[::-1]).miou.interval.high > 0.05  # other pairs are not alike


def test_a_map_without_seeds_is_paired_with_each():
    mine, theirs = np.concatenate([blocks(0), blocks(1)]), relabelled(blocks(), share=0.2)
    assert compared(mine, theirs) == compared(mine, np.concatenate([theirs, theirs]))


def test_few_blocks_give_a_difference_without_an_interval():
    mine, theirs = blocks(n=4), relabelled(blocks(n=4), share=0.2)
    found = compared(mine, theirs)
    assert found.miou.value > 0
    assert found.miou.interval is None
    assert "4 test blocks are too few to say how sure that is." in verdict(found, other="b")


def test_a_class_in_fewer_than_five_blocks_has_a_difference_without_an_interval():
    mine = blocks(n=10)
    mine[0, 4:, 2] = 0
    found = compared(mine, relabelled(mine, share=0.2))
    assert found.iou[2].value != 0
    assert found.iou[2].interval is None
    interval = found.iou[1].interval
    assert interval is not None
    assert interval.low < found.iou[1].value < interval.high


def test_blocks_without_a_label_change_nothing():
    mine, theirs = blocks(), relabelled(blocks(), share=0.2)
    empty = np.zeros((1, 5, 3, 4), int)
    assert compared(np.concatenate([mine, empty], axis=1), np.concatenate([theirs, empty], axis=1)) == compared(mine, theirs)


@pytest.mark.parametrize(
    ("value", "low", "high", "words"),
    [
        (0.031, 0.012, 0.049, "Ahead of b by 3.1 points of mIoU (95 % interval 1.2 to 4.9)."),
        (-0.031, -0.049, -0.012, "Behind b by 3.1 points of mIoU (95 % interval 1.2 to 4.9)."),
        (
            -0.004,
            -0.02,
            0.012,
            "Not distinguishable from b: mIoU differs by \N{MINUS SIGN}0.4 points (95 % interval \N{MINUS SIGN}2.0 to 1.2).",
        ),
        (0.0012, 0.0002, 0.0021, "Ahead of b by 0.12 points of mIoU (95 % interval 0.02 to 0.21)."),
    ],
)
def test_the_verdict_claims_no_more_than_the_interval_shows(value, low, high, words):
    found = compared(blocks(), blocks())
    difference = type(found.miou)(value=value, interval=Interval(low=low, high=high))
    told = type(found)(overall={**found.overall, "miou": difference}, iou=found.iou, blocks=12, trainings=1)
    assert verdict(told, other="b") == words


def test_the_document_is_plain_json_with_null_for_what_has_no_meaning():
    mine = blocks()
    mine[0, :, 2] = 0
    mine[0, :, :, 2] = 0
    page = json.loads(json.dumps(document(compared(mine, relabelled(mine, share=0)), names=("a", "b", "c")), allow_nan=False))
    assert list(page) == ["OA", "AA", "kappa", "mIoU", "mF1", "classes"]
    assert page["classes"][2] == {"name": "c", "IoU": {"value": None}}
    assert page["mIoU"] == {"value": 0.0, "low": 0.0, "high": 0.0}
