import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from terralean.evaluate.page import SPACE
from terralean.evaluate.scene_calibration import calibrate, sentence
from terralean.evaluate.scene_metrics import Answers, answers


def sure(confidence, right) -> Answers:
    """Answers of two classes with these confidences (n,), above a half."""
    confidence = np.asarray(confidence, float)
    return answers(np.stack([confidence, 1 - confidence], axis=1), np.where(right, 0, 1))


def found(given: Answers, **options):
    return calibrate(given, generator=np.random.default_rng(0), **options)


def believable(count: int, *, seed: int = 0, more: float = 0.0) -> Answers:
    """Answers that are right as often as they say, less `more`."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.7, 0.99, count)
    return sure(confidence, rng.random(count) < confidence - more)


def test_the_error_is_that_of_torchmetrics():
    rng = np.random.default_rng(0)
    probabilities, label = rng.dirichlet(np.full(6, 0.3), 400), rng.integers(0, 6, 400)
    theirs = multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(label), num_classes=6, n_bins=15, norm="l1"
    )
    assert found(answers(probabilities, label)).ece == pytest.approx(theirs.item(), abs=1e-6)


def test_four_images_by_hand():
    known = found(sure([0.55, 0.65, 0.95, 0.91], [True, False, True, False]), bins=2)
    assert known.ece == pytest.approx(abs((0.55 + 0.65 + 0.95 + 0.91) - 2) / 4)
    (first, last) = known.bins
    assert (first.images, last.images, last.low, last.high) == (0, 4, 0.5, 1.0)
    assert (last.confidence, last.accuracy) == pytest.approx((0.765, 0.5))
    assert np.isnan(first.accuracy)


def test_bins_hold_every_image_once_certainty_included():
    known = found(sure([0.5, 1.0, 1.0, 2 / 3, 0.6], np.ones(5, bool)))
    assert sum(one.images for one in known.bins) == 5
    assert known.bins[-1].images == 2
    assert [one.high for one in known.bins[:-1]] == [one.low for one in known.bins[1:]]


def test_confidence_that_is_right_stays_below_chance_in_95_of_100_samples():
    beyond = sum(found(believable(300, seed=seed)).shown for seed in range(100))
    assert 0 <= beyond <= 12


def test_the_error_of_perfect_confidence_shrinks_with_the_images_as_chance_says():
    few, many = found(believable(100)), found(believable(10_000))
    assert few.by_chance / many.by_chance == pytest.approx(10, rel=0.3)
    assert many.ece < few.ece


def test_too_much_and_too_little_confidence_are_told():
    over = found(believable(500, more=0.3))
    assert over.shown
    assert sentence(over).startswith("The model is too sure of itself: it says 8")
    assert f"{SPACE}% on average and is right for 5" in sentence(over)
    under = found(sure(np.full(500, 0.6), np.ones(500, bool)))
    assert sentence(under) == (
        f"The model is more often right than it is sure: it says 60.0{SPACE}% on average and is right for 100.0{SPACE}%."
    )
    assert sentence(found(believable(500))).startswith(
        "Its confidence can be believed as far as these images can tell: it says 8"
    )


def test_errors_both_ways_do_not_cancel():
    confidence = np.repeat([0.6, 0.9], 200)
    known = found(sure(confidence, np.concatenate([np.arange(200) < 180, np.arange(200) < 120])))
    assert known.ece == pytest.approx(0.3)
    assert known.confidence == pytest.approx(known.accuracy)
    assert sentence(known) == (
        f"Its confidence is off by 30.0{SPACE}% on average, too high for some answers and too low for others."
    )
