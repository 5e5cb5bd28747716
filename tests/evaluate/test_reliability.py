"""Sums of probabilities and truths against small cases by hand, torchmetrics and scikit-learn."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from terralean.evaluate.calibration import adaptive_error, calibrated, document, error, measure, remark, sentence
from terralean.evaluate.calibration_page import section
from terralean.evaluate.measure import Tally
from terralean.evaluate.page import SPACE
from terralean.evaluate.reliability import (
    BINS,
    COUNT,
    SAID,
    TRUE,
    MapReliability,
    Reliability,
    Sums,
    joined,
    of_images,
    sums,
    without,
)
from terralean.raster.grid import Window


def two(confidence, right) -> Sums:
    """Pixels of two classes with these confidences (n,), each in a block of its own."""
    confidence = np.asarray(confidence, float)
    labels = np.where(right, 0, 1)
    return sums(np.stack([confidence, 1 - confidence]), labels, np.arange(len(labels)), count=len(labels))


def measured(*several: Sums, **options):
    return measure(several, generator=np.random.default_rng(0), **options)


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of five classes (5, 4000) and labels (4000,) that follow from them."""
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(5, 0.4), 4000).T
    labels = (probabilities.cumsum(axis=0) < rng.random(4000)).sum(axis=0)
    return probabilities, labels


def test_four_pixels_by_hand():
    found = measured(two([0.55, 0.65, 0.95, 0.91], [True, False, True, False]))
    # Ranges of a fifteenth: 0.55 in the ninth (from 8/15), 0.65 in the tenth, 0.91 in the fourteenth, 0.95 in the last.
    assert found.ece == pytest.approx((0.45 + 0.65 + 0.05 + 0.91) / 4)
    assert [(one.count, round(15 * one.low)) for one in found.ranges] == [(1, 8), (1, 9), (1, 13), (1, 14)]
    assert (found.confidence, found.accuracy, found.gap) == pytest.approx((0.765, 0.5, 0.265))
    assert found.brier == pytest.approx(2 * (0.45**2 + 0.65**2 + 0.05**2 + 0.91**2) / 4)
    assert found.nll == pytest.approx(-np.log([0.55, 0.35, 0.95, 0.09]).mean())


def test_each_pixel_is_in_one_range_certainty_included():
    found = two([0.5, 1.0, 1.0, 2 / 3, 0.6], np.ones(5, bool))
    assert found.bins[..., COUNT].sum() == 5
    assert found.bins[1:3, -1, COUNT].tolist() == [1, 1]
    assert found.cells[:, COUNT].sum() == 5
    assert found.classes[..., COUNT].sum(axis=1).tolist() == [5, 5]


def test_numbers_are_those_of_torchmetrics_and_scikit_learn(drawn):
    probabilities, labels = drawn
    found = measured(sums(probabilities, labels, np.zeros(len(labels), np.int64), count=1))
    given = torch.from_numpy(probabilities.T.copy()), torch.from_numpy(labels)
    theirs = multiclass_calibration_error(*given, num_classes=5, n_bins=BINS, norm="l1").item()
    assert found.ece == pytest.approx(theirs, abs=1e-6)
    assert found.nll == pytest.approx(log_loss(labels, probabilities.T, labels=range(5)), rel=1e-5)
    assert found.brier == pytest.approx(((probabilities - np.eye(5)[labels].T) ** 2).sum(axis=0).mean())
    each = [_binary_error(probabilities[k], labels == k) for k in range(5)]
    assert found.classwise == pytest.approx(np.mean(each))


def _binary_error(said: np.ndarray, true: np.ndarray) -> float:
    """By a loop over the ranges."""
    edges, total = np.arange(BINS + 1) / BINS, 0.0
    for low, high in pairwise(edges):
        held = (said >= low) & (said < high)
        total += abs(said[held].sum() - true[held].sum())
    return total / len(said)


def test_the_adaptive_error_is_that_of_sorted_pixels_in_equal_lots(drawn):
    probabilities, labels = drawn
    found = sums(probabilities, labels, np.zeros(len(labels), np.int64), count=1)
    confidence, right = probabilities.max(axis=0), probabilities.argmax(axis=0) == labels
    order = np.argsort(confidence)
    lots = np.array_split(order, BINS)
    exact = sum(abs(confidence[lot].sum() - right[lot].sum()) for lot in lots) / len(labels)
    assert adaptive_error(found.cells) == pytest.approx(exact, abs=0.003)  # a cell is never cut


def test_the_lowest_range_of_a_class_is_what_the_others_leave(drawn):
    probabilities, labels = drawn
    found = sums(probabilities, labels, np.zeros(len(labels), np.int64), count=1).classes
    for k in range(5):
        low = probabilities[k] < 1 / BINS
        expected = (low.sum(), probabilities[k][low].sum(), (labels[low] == k).sum())
        assert tuple(found[k, 0]) == pytest.approx(expected, abs=1e-8)


def test_the_temperature_is_taken_out_of_a_softmax_exactly_and_leaves_the_classes():
    scores = np.random.default_rng(1).normal(0, 3, (6, 500))
    tempered = torch.from_numpy(scores / 1.7).softmax(dim=0).numpy()
    plain = torch.from_numpy(scores).softmax(dim=0).numpy()
    found = without(tempered, temperature=1.7)
    np.testing.assert_allclose(found, plain, rtol=1e-9)
    assert (found.argmax(axis=0) == tempered.argmax(axis=0)).all()


def test_probabilities_that_are_no_numbers_are_noticed():
    odd = np.array([[0.5, np.nan], [0.5, np.nan]])
    found = sums(odd, np.array([0, 1]), np.array([0, 0]), count=1)
    assert not Reliability(now=found, before=None).finite
    assert Reliability(now=two([0.5], [True]), before=None).finite


@pytest.mark.parametrize("temperature", [1.0, 1.3])
def test_a_map_in_strips_gives_the_sums_of_the_whole_by_the_blocks_of_the_confusion_matrices(drawn, temperature):
    probabilities = drawn[0].reshape(5, 50, 80).astype(np.float32)
    reference = drawn[1].reshape(50, 80).astype(np.uint8)
    reference[:, 30:47] = 255
    reference[32:, 64:] = 255  # a block without a label
    whole, parts = (MapReliability(classes=5, side=32, temperature=temperature) for _ in range(2))
    tally = Tally(classes=5, side=32)
    for region in (0, 3):
        whole.add(probabilities, reference, region=region, window=Window(row=0, col=0, height=50, width=80))
        for row, height in ((0, 20), (20, 25), (45, 5)):
            window = Window(row=row, col=0, height=height, width=80)
            rows = slice(row, row + height)
            parts.add(probabilities[:, rows], reference[rows], region=region, window=window)
            tally.add(reference[rows], probabilities[:, rows].argmax(axis=0).astype(np.uint8), region=region, window=window)
    one, other = whole.reliability(), parts.reliability()
    for name in ("bins", "losses", "classes", "cells"):
        np.testing.assert_allclose(getattr(one.now, name), getattr(other.now, name), rtol=1e-12, atol=1e-9)
    places, blocks, _ = tally.arrays()
    assert len(one.now.bins) == len(places) == 10
    assert one.now.bins[..., COUNT].sum(axis=1).tolist() == blocks.sum(axis=(1, 2)).tolist()
    assert one.now.bins[..., TRUE].sum(axis=1).tolist() == blocks.trace(axis1=1, axis2=2).tolist()
    assert (one.before is None) == (temperature == 1)
    if one.before is not None:
        assert one.before.bins[..., TRUE].sum() == one.now.bins[..., TRUE].sum()
        assert one.before.bins[..., SAID].sum() > one.now.bins[..., SAID].sum()  # a temperature above 1 makes less sure


def test_rows_are_worked_on_in_turn_where_a_strip_is_large(drawn, monkeypatch):
    probabilities, reference = drawn[0].reshape(5, 50, 80), drawn[1].reshape(50, 80).astype(np.uint8)
    window = Window(row=3, col=5, height=50, width=80)
    found = []
    for chunk in (1, 1 << 22):
        monkeypatch.setattr("terralean.evaluate.reliability.CHUNK", chunk)
        one = MapReliability(classes=5, side=32, temperature=1.0)
        one.add(probabilities, reference, region=0, window=window)
        found.append(one.reliability().now)
    np.testing.assert_allclose(found[0].bins, found[1].bins, rtol=1e-12)
    np.testing.assert_allclose(found[0].classes, found[1].classes, rtol=1e-12, atol=1e-9)


def test_images_are_blocks_and_groups_of_them_add_up(drawn):
    probabilities, labels = drawn[0].T[:12], drawn[1][:12]
    parts = joined([of_images(probabilities[part], labels[part], temperature=2.0) for part in (slice(0, 5), slice(5, 12))])
    assert parts.now.bins[..., COUNT].sum(axis=1).tolist() == [1] * 12
    number = np.array([0, 1, 1, 2] * 3)
    grouped = parts.grouped(number, count=3)
    assert grouped.now.bins[..., COUNT].sum(axis=1).tolist() == [3, 6, 3]
    assert grouped.before.losses[1] == pytest.approx(parts.before.losses[number == 1].sum(axis=0))


# Intervals and words.


def believable(*, more: float, blocks: int = 60, seed: int = 0, spread: float = 0.0) -> Sums:
    """Blocks of 200 pixels that are right as often as they say less `more`, which differs between blocks by `spread`."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.7, 0.95, 200 * blocks)
    less = more + np.repeat(rng.normal(0, spread, blocks), 200)
    right = rng.random(len(confidence)) < confidence - less
    number = np.repeat(np.arange(blocks), 200)
    return sums(np.stack([confidence, 1 - confidence]), np.where(right, 0, 1), number, count=blocks)


def test_an_interval_is_as_wide_as_blocks_differ():
    narrow, wide = (measured(believable(more=0.1, spread=spread)).intervals["gap"] for spread in (0.0, 0.05))
    for found in (narrow, wide):
        assert found.low < 0.1 < found.high
    assert 2 * 1.96 * 0.05 / 60**0.5 < wide.high - wide.low < 1.5 * 2 * 1.96 * 0.06 / 60**0.5
    assert narrow.high - narrow.low < (wide.high - wide.low) / 1.5


def test_of_few_blocks_there_is_no_interval():
    assert measured(believable(more=0.1, blocks=4)).intervals == {}
    assert set(measured(believable(more=0.1, blocks=5)).intervals) == {"ece", "gap", "brier", "nll"}


def test_several_runs_give_means_whose_intervals_hold_how_runs_differ():
    runs = [believable(more=more, seed=i) for i, more in enumerate((0.05, 0.1, 0.15))]
    alone, together = [measured(one) for one in runs], measured(*runs)
    assert together.ece == pytest.approx(np.mean([one.ece for one in alone]))
    assert together.adaptive == pytest.approx(np.mean([one.adaptive for one in alone]))
    assert sum(one.count for one in together.ranges) == 3 * 60 * 200
    width = together.intervals["gap"].high - together.intervals["gap"].low
    assert width > 2 * max(one.intervals["gap"].high - one.intervals["gap"].low for one in alone)


def found_of(now: Sums, before: Sums | None = None, *, temperature: float = 1.0, why: str = ""):
    return calibrated([Reliability(now=now, before=before)], temperatures=[temperature], not_calibrated=why)


def test_words_say_which_way_confidence_is_off():
    over = found_of(believable(more=0.1), why="there was no validation split")
    assert sentence(over).startswith(f"It is too sure of itself: it says 82.5{SPACE}% on average and is right for 72.")
    assert sentence(over).endswith(" No temperature was fitted to it: there was no validation split.")
    assert sentence(found_of(believable(more=-0.05))).startswith("It is more often right than it is sure: it says")
    both = two(np.repeat([0.6, 0.9], 200), np.concatenate([np.arange(200) < 180, np.arange(200) < 120]))
    assert sentence(found_of(both)).startswith("Its confidence is off, too high for some pixels and too low for others: it")
    right = two(np.repeat([0.6, 0.9], 200), np.concatenate([np.arange(200) < 120, np.arange(200) < 180]))
    assert sentence(found_of(right)).startswith("Its confidence can be believed: it says 75.0")


def test_words_say_what_the_temperature_did():
    found = found_of(believable(more=0.01), believable(more=0.1), temperature=1.5)
    known = found.now.intervals["ece"]
    assert remark(found) == (
        f"The expected calibration error is {100 * found.now.ece:.1f}{SPACE}% (95 % interval {100 * known.low:.1f} to "
        f"{100 * known.high:.1f} %); without its temperature of 1.5 it would be {100 * found.before.ece:.1f}{SPACE}%."
    )
    told = document(found)
    assert (told["temperature"], told["not_calibrated"]) == (1.5, None)
    assert told["ECE"] == {"value": found.now.ece, "low": known.low, "high": known.high}
    assert told["before"]["ECE"]["value"] == found.before.ece
    assert sum(one["count"] for one in told["bins"]) == 60 * 200


def test_without_a_temperature_there_is_no_before():
    assert found_of(believable(more=0.1)).before is None
    assert document(found_of(believable(more=0.1)))["before"] is None


def test_the_page_has_a_place_for_each_range_and_a_row_for_each_number():
    found = found_of(believable(more=0.0), believable(more=0.1), temperature=1.5)
    shown = section(found, what="pixels", sentence="s", note="n")
    assert len(shown.bins) == len(found.now.ranges) == len(shown.before)
    for row, one in zip(shown.bins, found.now.ranges, strict=True):
        assert (row["said"], row["height"]) == pytest.approx((100 * one.confidence, 100 * one.accuracy), abs=0.01)
    rows = {row["name"]: row for row in shown.numbers}
    assert rows["Brier score"]["now"] == f"{found.now.brier:.3f}"
    assert rows["Brier score"]["before"] == f"{found.before.brier:.3f}"
    assert rows["Too sure by"]["before"].startswith("+10.")
    assert error(believable(more=0.0).classes).shape == (2,)
