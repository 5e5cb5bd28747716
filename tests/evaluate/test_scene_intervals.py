import numpy as np
import pytest

from terralean.evaluate.intervals import Interval
from terralean.evaluate.scene_intervals import bootstrap, compare_scenes, verdict
from terralean.evaluate.scene_metrics import PER_CLASS, PER_RUN, Answers, Units, answers, score


def by_right(label, right, *, classes: int = 2) -> Answers:
    """Answers that are right, or one class further."""
    said = np.where(right, label, (np.asarray(label) + 1) % classes)
    return answers(np.eye(classes)[said], np.asarray(label))


def images(count: int) -> Units:
    return Units(name="images", number=np.arange(count), count=count)


def drawn(several, *, units, classes: int = 2, resamples: int = 1000):
    return bootstrap(several, units=units, classes=classes, generator=np.random.default_rng(0), resamples=resamples)


def compared(mine, theirs, *, units, classes: int = 2, resamples: int = 1000):
    return compare_scenes(mine, theirs, units=units, classes=classes, generator=np.random.default_rng(0), resamples=resamples)


def random_answers(seed: int = 0, *, count: int = 120, share: float = 0.7, classes: int = 6) -> Answers:
    rng = np.random.default_rng(seed)
    label = np.arange(count) % classes
    return by_right(label, rng.random(count) < share, classes=classes)


def test_ends_are_the_quantiles_of_the_binomial():
    # half of 20 images right: as many are in a draw as Binomial(20, 1/2) says, 2.5 % at 6, 97.5 % at 14
    found = drawn([by_right([0, 1] * 10, np.arange(20) < 10)], units=images(20), resamples=5000).intervals
    assert (found.oa.low, found.oa.high) == pytest.approx((6 / 20, 14 / 20))


def test_where_all_are_right_the_interval_is_the_exact_one_of_a_share():
    found = drawn([by_right([0, 1] * 10, np.ones(20, bool))], units=images(20)).intervals
    assert found.oa == Interval(low=pytest.approx(0.025 ** (1 / 20)), high=1.0)
    assert found.recall[0] == Interval(low=pytest.approx(0.025 ** (1 / 10)), high=1.0)
    assert found.precision[1] == Interval(low=pytest.approx(0.025 ** (1 / 10)), high=1.0)
    assert found.kappa is None
    assert found.mf1 is None
    wrong = drawn([by_right([0, 1] * 10, np.zeros(20, bool))], units=images(20)).intervals
    assert wrong.oa == Interval(low=0.0, high=pytest.approx(1 - 0.025 ** (1 / 20)))


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng, held = np.random.default_rng(0), 0
    for _ in range(200):
        one = by_right(np.arange(150) % 2, rng.random(150) < 0.8)
        known = drawn([one], units=images(150)).intervals.oa
        held += known.low <= 0.8 <= known.high
    assert 180 <= held <= 198


def test_copies_of_an_image_in_one_group_are_worth_one_image():
    alone = random_answers(count=60)
    copies = alone.of(np.repeat(np.arange(60), 5))
    groups = Units(name="groups", number=np.repeat(np.arange(60), 5), count=60)
    one, many = drawn([alone], units=images(60), classes=6), drawn([copies], units=groups, classes=6)
    for name in PER_RUN:
        assert getattr(one.intervals, name).low == pytest.approx(getattr(many.intervals, name).low)
        assert getattr(one.intervals, name).high == pytest.approx(getattr(many.intervals, name).high)
    as_images = drawn([copies], units=images(300), classes=6).intervals.oa
    known = many.intervals.oa
    assert as_images.high - as_images.low < 0.6 * (known.high - known.low)
    assert "draws of the 60 test groups. Whole groups are drawn" in many.note
    assert "groups" not in one.note


def test_every_score_lies_in_its_interval():
    one = random_answers()
    found, scores = drawn([one], units=images(120), classes=6).intervals, score(one, classes=6)
    for name in PER_RUN:
        known = getattr(found, name)
        assert known.low <= getattr(scores, name) <= known.high
    for name in PER_CLASS:
        for known, value in zip(getattr(found, name), getattr(scores, name), strict=True):
            assert known.low <= value <= known.high


def test_more_images_give_narrower_intervals():
    few, many = (drawn([random_answers(count=n)], units=images(n), classes=6).intervals.oa for n in (60, 1500))
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(5, rel=0.25)  # root of 25


def test_draws_do_not_depend_on_how_many_are_scored_at_once(monkeypatch):
    one = random_answers()
    whole = drawn([one], units=images(120), classes=6)
    monkeypatch.setattr("terralean.evaluate.scene_intervals.CHUNK_BYTES", 16 * 126 * 64)
    assert drawn([one], units=images(120), classes=6) == whole


def test_a_class_of_few_images_has_no_interval():
    label = np.array([0] * 4 + [1] * 30)
    found = drawn([by_right(label, np.arange(34) % 3 > 0)], units=images(34)).intervals
    assert found.recall[0] is None
    assert found.f1[0] is None
    assert found.recall[1] is not None
    assert found.precision[0] is not None  # it is the answer for ten others


def test_few_images_have_no_intervals_and_a_reason():
    found = drawn([by_right([0, 1, 0, 1], np.array([True, True, False, True]))], units=images(4))
    assert found.intervals is None
    assert found.note == "No intervals: there are 4 test images, and at least 5 are needed. Label more."
    one = drawn([by_right([0, 1], np.array([True, True]))], units=Units(name="groups", number=np.zeros(2, int), count=1))
    assert "there are 1 test group," in one.note


def test_trainings_that_differ_widen_the_interval_of_their_mean():
    same = drawn([random_answers(0)] * 3, units=images(120), classes=6)
    differ = drawn([random_answers(seed, share=0.5 + 0.2 * seed) for seed in range(3)], units=images(120), classes=6)
    widths = [found.intervals.oa.high - found.intervals.oa.low for found in (same, differ)]
    assert widths[1] > 2 * widths[0]
    assert "of the mean over 3 trainings" in differ.note


def test_paired_ends_are_the_quantiles_of_the_binomial():
    label = [0, 1] * 10
    found = compared(
        [by_right(label, np.ones(20, bool))], [by_right(label, np.arange(20) < 10)], units=images(20), resamples=5000
    )
    known = found.overall["oa"]
    assert (known.value, known.interval.low, known.interval.high) == pytest.approx((0.5, 6 / 20, 14 / 20))
    assert (found.only_mine, found.only_theirs) == (10, 0)


def test_a_run_differs_from_itself_by_exactly_nothing():
    found = compared([random_answers()], [random_answers()], units=images(120), classes=6)
    for name in PER_RUN:
        assert (found.overall[name].value, found.overall[name].interval) == (0, Interval(low=0.0, high=0.0))
    assert (
        verdict(found, other="x")
        == "No different from x: both have the same overall accuracy on every draw of the test images."
    )


def test_exchanged_runs_differ_by_the_opposite():
    mine, theirs = random_answers(0), random_answers(1, share=0.5)
    one, other = (compared([a], [b], units=images(120), classes=6) for a, b in ((mine, theirs), (theirs, mine)))
    for name in PER_RUN:
        a, b = one.overall[name], other.overall[name]
        assert (a.value, a.interval.low, a.interval.high) == pytest.approx((-b.value, -b.interval.high, -b.interval.low))
    assert (one.only_mine, one.only_theirs) == (other.only_theirs, other.only_mine)
    assert one.overall["oa"].value == pytest.approx((one.only_mine - one.only_theirs) / 120)


def test_what_is_hard_for_both_falls_out_of_the_difference():
    mine = random_answers(0)
    few = mine.right.copy()
    few[np.flatnonzero(few)[:4]] = False
    found = compared([mine], [by_right(mine.label, few, classes=6)], units=images(120), classes=6).overall["oa"]
    alone = drawn([mine], units=images(120), classes=6).intervals.oa
    assert found.value == pytest.approx(4 / 120)
    assert found.interval.high - found.interval.low < (alone.high - alone.low) / 2


def test_a_method_without_seeds_is_paired_with_each_training():
    several, one = [random_answers(seed) for seed in range(3)], random_answers(9, share=0.4)
    found = compared(several, [one], units=images(120), classes=6)
    apart = [score(each, classes=6).oa - score(one, classes=6).oa for each in several]
    assert found.overall["oa"].value == pytest.approx(np.mean(apart))
    assert found.only_mine == pytest.approx(np.mean([(each.right & ~one.right).sum() for each in several]))


@pytest.mark.parametrize(
    ("shares", "start"),
    [((0.9, 0.3), "Ahead of x by "), ((0.3, 0.9), "Behind x by "), ((0.7, 0.71), "Not distinguishable from x: ")],
)
def test_the_verdict_goes_by_the_interval_of_the_difference(shares, start):
    found = compared([random_answers(1, share=shares[0])], [random_answers(2, share=shares[1])], units=images(120), classes=6)
    assert verdict(found, other="x").startswith(start)
    assert "of overall accuracy (95 % interval" in verdict(found, other="x") or start.startswith("Not")


def test_the_verdict_admits_that_images_are_too_few():
    found = compared([by_right([0, 1], np.array([True, True]))], [by_right([0, 1], np.array([True, False]))], units=images(2))
    assert verdict(found, other="x") == (
        "Differs from x by +50.0 points of overall accuracy; 2 test images are too few to say how sure that is."
    )
