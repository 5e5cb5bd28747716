import json

import numpy as np
import pytest

from terralean.errors import ConfigError
from terralean.evaluate.detection_intervals import (
    bootstrap_detections,
    compare_detections,
    comparison_document,
    detection_document,
    mean_scores,
    same_units,
    spread_scores,
    verdict,
)
from terralean.tasks.detection_scores import PER_CLASS, PER_SET, Outcomes, measures, score


def world(rng, *, images=60, classes=2, quality=None):
    """Outcomes of images that differ: in each, detections are right with a chance of its own."""
    unit, label, right, value, objects = [], [], [], [], np.zeros((images, classes), dtype=np.int64)
    for image in range(images):
        chance = rng.beta(4, 2) if quality is None else quality[image]
        for kind in range(classes):
            objects[image, kind] = rng.integers(1, 9)
            hits = rng.random(objects[image, kind]) < chance
            wrong = rng.integers(0, 3)
            right += [True] * int(hits.sum()) + [False] * int(wrong)
            value += [*(0.4 + 0.6 * rng.random(int(hits.sum()))), *(0.8 * rng.random(int(wrong)))]
            unit += [image] * int(hits.sum() + wrong)
            label += [kind] * int(hits.sum() + wrong)
    hit = np.array(right)[:, None]
    return Outcomes(
        score=np.array(value),
        label=np.array(label),
        unit=np.array(unit),
        right=hit,
        counted=np.ones_like(hit),
        objects=objects,
        difficult=np.zeros(classes, dtype=np.int64),
        thresholds=(0.5,),
    )


def test_intervals_hold_the_score_and_narrow_with_more_images():
    rng = np.random.default_rng(0)
    widths = []
    for images in (20, 180):
        one = world(rng, images=images)
        found = bootstrap_detections([one], unit="images", generator=np.random.default_rng(1), resamples=1000)
        values = score(one)
        for name in PER_SET:
            interval = found.intervals.overall[name]
            assert interval.low < getattr(values, name) < interval.high
        widths.append(found.intervals.overall["map50_area"].high - found.intervals.overall["map50_area"].low)
    assert 2 < widths[0] / widths[1] < 4.5  # nine times the images, a third of the width
    assert f"1000 draws of the {images} test images" in found.note


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(2)
    truth = score(world(rng, images=1500)).map50_area
    held = 0
    for _ in range(24):
        found = bootstrap_detections([world(rng, images=40)], unit="images", generator=rng, resamples=1000)
        interval = found.intervals.overall["map50_area"]
        held += interval.low <= truth <= interval.high
    assert held >= 20


def test_they_are_the_quantiles_of_the_draws():
    one = world(np.random.default_rng(3), images=12)
    found = bootstrap_detections([one], unit="images", generator=np.random.default_rng(4), resamples=1000)
    times = np.random.default_rng(4).multinomial(12, np.full(12, 1 / 12), size=1000).astype(np.float64)
    draws = measures(one, times)
    low, high = np.quantile(draws["map50_voc07"], [0.025, 0.975])
    interval = found.intervals.overall["map50_voc07"]
    assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))
    low, high = np.quantile(draws["ap50_area"][:, 1], [0.025, 0.975])
    interval = found.intervals.classes["ap50_area"][1]
    assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))


def test_several_trainings_are_less_sure_where_they_differ():
    rng = np.random.default_rng(5)
    quality = rng.beta(4, 2, 40)
    alike = [world(np.random.default_rng(9), images=40, quality=quality)] * 3
    differing = [world(np.random.default_rng(9), images=40, quality=np.clip(quality + d, 0, 1)) for d in (-0.2, 0.0, 0.2)]
    widths = []
    for several in (alike, differing):
        found = bootstrap_detections(several, unit="images", generator=np.random.default_rng(0), resamples=1000)
        interval = found.intervals.overall["map50_area"]
        widths.append(interval.high - interval.low)
    assert widths[1] > 1.5 * widths[0]
    assert "mean over 3 trainings" in found.note


def test_few_units_have_no_intervals_and_a_class_in_few_has_none():
    one = world(np.random.default_rng(6), images=4)
    found = bootstrap_detections([one], unit="blocks", generator=np.random.default_rng(0), resamples=1000)
    assert found.intervals is None and "has 4 blocks with objects or detections, and at least 5" in found.note
    some = world(np.random.default_rng(7), images=9)
    some.objects[4:, 1] = 0
    found = bootstrap_detections([some], unit="images", generator=np.random.default_rng(0), resamples=1000)
    often, seldom = found.intervals.classes["ap50_area"][:2]
    assert seldom is None
    assert 0 <= often.low < often.high <= 1
    assert "too narrow" in found.note


def test_empty_units_are_not_drawn():
    one = world(np.random.default_rng(8), images=30)
    more = Outcomes(
        score=one.score,
        label=one.label,
        unit=one.unit * 3,
        right=one.right,
        counted=one.counted,
        objects=np.repeat(one.objects, 3, axis=0) * (np.arange(90) % 3 == 0)[:, None],
        difficult=one.difficult,
        thresholds=one.thresholds,
    )
    first, second = (
        bootstrap_detections([some], unit="images", generator=np.random.default_rng(0), resamples=1000) for some in (one, more)
    )
    assert first.intervals == second.intervals and "30 test images" in second.note


def test_a_perfect_score_has_no_interval():
    one = world(np.random.default_rng(9), images=10, quality=np.ones(10))
    perfect = one.right[:, 0]
    sure = Outcomes(
        score=one.score[perfect],
        label=one.label[perfect],
        unit=one.unit[perfect],
        right=one.right[perfect],
        counted=one.counted[perfect],
        objects=one.objects,
        difficult=one.difficult,
        thresholds=one.thresholds,
    )
    found = bootstrap_detections([sure], unit="images", generator=np.random.default_rng(0), resamples=1000)
    assert score(sure).map50_voc07 == 1 and found.intervals.overall["map50_voc07"] is None


def test_too_few_draws_are_refused():
    with pytest.raises(ConfigError, match="100 resamples are too few"):
        bootstrap_detections(
            [world(np.random.default_rng(0))], unit="images", generator=np.random.default_rng(0), resamples=100
        )


def test_the_document_names_both_rules_and_is_json():
    one = world(np.random.default_rng(10), images=12)
    bootstrap = bootstrap_detections([one], unit="images", generator=np.random.default_rng(0), resamples=1000)
    told = json.loads(json.dumps(detection_document(score(one), bootstrap, names=("ship", "plane"))))
    assert {"mAP@0.5 (VOC07)", "mAP@0.5 (area)", "mAP@0.5:0.95 (area)"} <= told.keys()
    assert told["mAP@0.5 (VOC07)"].keys() == {"value", "low", "high"}
    assert [row["name"] for row in told["classes"]] == ["ship", "plane"]
    assert told["classes"][0]["objects"] == score(one).support[0] and "recall@0.5" in told["classes"][0]
    assert len(PER_CLASS) == 5


def in_blocks(hits, *, classes=1):
    """One object in each of blocks (n, 3), found where `hits` says so, and a wrong detection in the last block of all."""
    places = np.array(sorted(hits))
    right = np.array([hits[tuple(place)] for place in places.tolist()])[:, None]
    return Outcomes(
        score=np.linspace(0.9, 0.5, len(places)),
        label=np.zeros(len(places), dtype=np.int64),
        unit=np.arange(len(places)),
        right=right,
        counted=np.ones_like(right),
        objects=np.array([[int(hits[tuple(place)] or place[2] < 90)] for place in places.tolist()]),
        difficult=np.zeros(classes, dtype=np.int64),
        thresholds=(0.5,),
        places=places,
    )


def test_blocks_of_several_runs_are_one_set():
    """Only the second run has a detection, a wrong one, in the last block."""
    one = in_blocks({(0, 0, 0): True, (0, 0, 1): False, (1, 2, 0): True})
    other = in_blocks({(0, 0, 0): False, (0, 0, 1): True, (1, 2, 0): True, (1, 2, 99): False})
    mine, theirs = same_units([one, other])
    assert mine.objects.tolist() == theirs.objects.tolist() == [[1], [1], [1], [0]]
    assert mine.unit.tolist() == [0, 1, 2] and theirs.unit.tolist() == [0, 1, 2, 3]
    for before, after in ((one, mine), (other, theirs)):
        assert score(after).map50_area == score(before).map50_area


def test_a_difference_is_paired_and_has_its_sign():
    rng = np.random.default_rng(5)
    chance = rng.beta(4, 2, 80)
    one = world(np.random.default_rng(6), images=80, quality=np.minimum(chance + 0.1, 1))
    other = world(np.random.default_rng(6), images=80, quality=chance)
    found = compare_detections([one], [other], unit="images", generator=rng, resamples=1000)
    ahead = found.overall["map50_voc07"]
    assert ahead.value == pytest.approx(score(one).map50_voc07 - score(other).map50_voc07) and ahead.value > 0
    alone = bootstrap_detections([one], unit="images", generator=rng, resamples=1000).intervals.overall["map50_voc07"]
    assert ahead.interval.high - ahead.interval.low < 1.5 * (alone.high - alone.low)
    assert "other by" in verdict(found, other="other") or "Not distinguishable from other" in verdict(found, other="other")
    same = compare_detections([one], [one], unit="images", generator=rng, resamples=1000)
    told = "No different from it: both have the same mAP@0.5 (VOC07) on every draw of the test images."
    assert verdict(same, other="it") == told
    told = comparison_document(found, names=("a", "b"))
    assert [entry["name"] for entry in told["classes"]] == ["a", "b"]
    assert told["mAP@0.5 (VOC07)"]["value"] == ahead.value


def test_means_and_spreads_of_several_trainings():
    one, other = (score(world(np.random.default_rng(seed), images=30)) for seed in (7, 8))
    mean, spread = mean_scores([one, other]), spread_scores([one, other])
    assert mean.map50_area == pytest.approx((one.map50_area + other.map50_area) / 2)
    assert mean.ap50_voc07 == pytest.approx([(a + b) / 2 for a, b in zip(one.ap50_voc07, other.ap50_voc07, strict=True)])
    assert spread.map50_area == pytest.approx(abs(one.map50_area - other.map50_area) / np.sqrt(2))
