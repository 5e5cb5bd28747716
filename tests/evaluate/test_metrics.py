import math

import numpy as np
import pytest
import sklearn.metrics
import torch
import torchmetrics.functional.classification as torchmetrics

from terralean.errors import GridMismatch, LabelError
from terralean.evaluate.metrics import confusion, mean, measures, score, spread, unmapped

NOBODY = np.zeros(3, np.int64)


def labels(classes: int = 5, seed: int = 0, shape: tuple[int, ...] = (40, 50)) -> tuple[np.ndarray, np.ndarray]:
    """A reference with unlabelled pixels and a map that is right about 60 % of the time."""
    generator = np.random.default_rng(seed)
    reference = generator.integers(0, classes, shape).astype(np.uint8)
    mapped = np.where(generator.random(shape) < 0.6, reference, generator.integers(0, classes, shape)).astype(np.uint8)
    reference[:5] = 255
    return reference, mapped


def scored(reference, mapped, classes):
    return score(confusion(reference, mapped, classes=classes), unmapped=unmapped(reference, mapped, classes=classes))


def test_rows_are_the_reference_and_columns_the_map():
    reference = np.array([[0, 0, 0], [1, 2, 255]], np.uint8)
    mapped = np.array([[0, 1, 1], [2, 2, 0]], np.uint8)
    assert confusion(reference, mapped, classes=3).tolist() == [[1, 2, 0], [0, 0, 1], [0, 0, 1]]
    assert confusion(reference, mapped, classes=3).dtype == np.int64


def test_the_confusion_matrix_is_that_of_scikit_learn():
    reference, mapped = labels()
    known = reference != 255
    theirs = sklearn.metrics.confusion_matrix(reference[known], mapped[known], labels=range(5))
    assert confusion(reference, mapped, classes=5).tolist() == theirs.tolist()


def test_large_arrays_are_counted_in_chunks_to_the_same_matrix(monkeypatch):
    reference, mapped = labels()
    whole = confusion(reference, mapped, classes=5)
    monkeypatch.setattr("terralean.evaluate.metrics.CHUNK_PX", 7)
    assert np.array_equal(confusion(reference, mapped, classes=5), whole)


def test_labels_may_be_wider_integers():
    reference, mapped = labels()
    wide = confusion(reference.astype(np.int64), mapped.astype(np.int32), classes=5)
    assert np.array_equal(wide, confusion(reference, mapped, classes=5))


def test_scores_worked_by_hand():
    found = score(np.array([[6, 2, 0], [1, 3, 0], [0, 1, 7]]), unmapped=NOBODY)
    assert found.oa == pytest.approx(16 / 20)
    assert found.recall == pytest.approx((6 / 8, 3 / 4, 7 / 8))
    assert found.precision == pytest.approx((6 / 7, 3 / 6, 7 / 7))
    assert found.iou == pytest.approx((6 / 9, 3 / 7, 7 / 8))
    assert found.f1 == pytest.approx((12 / 15, 6 / 10, 14 / 15))
    assert found.aa == pytest.approx((6 / 8 + 3 / 4 + 7 / 8) / 3)
    assert found.kappa == pytest.approx((0.8 - (8 * 7 + 4 * 6 + 8 * 7) / 400) / (1 - (8 * 7 + 4 * 6 + 8 * 7) / 400))
    assert found.support == (8, 4, 8)


def test_scores_are_those_of_scikit_learn():
    reference, mapped = labels()
    known = reference != 255
    true, guess = reference[known], mapped[known]
    found = scored(reference, mapped, 5)
    assert found.oa == pytest.approx(sklearn.metrics.accuracy_score(true, guess))
    assert found.aa == pytest.approx(sklearn.metrics.balanced_accuracy_score(true, guess))
    assert found.kappa == pytest.approx(sklearn.metrics.cohen_kappa_score(true, guess))
    assert found.iou == pytest.approx(sklearn.metrics.jaccard_score(true, guess, average=None))
    assert found.f1 == pytest.approx(sklearn.metrics.f1_score(true, guess, average=None))
    assert found.precision == pytest.approx(sklearn.metrics.precision_score(true, guess, average=None))
    assert found.recall == pytest.approx(sklearn.metrics.recall_score(true, guess, average=None))


def test_means_are_those_of_torchmetrics():
    reference, mapped = labels(seed=1)
    guess, true = torch.from_numpy(mapped).long(), torch.from_numpy(reference).long()
    options = {"num_classes": 5, "ignore_index": 255}
    found = scored(reference, mapped, 5)
    assert found.miou == pytest.approx(torchmetrics.multiclass_jaccard_index(guess, true, **options).item())
    assert found.mf1 == pytest.approx(torchmetrics.multiclass_f1_score(guess, true, **options).item())
    assert found.aa == pytest.approx(torchmetrics.multiclass_recall(guess, true, **options).item())
    assert found.kappa == pytest.approx(torchmetrics.multiclass_cohen_kappa(guess, true, **options).item(), rel=1e-5)


def test_a_perfect_map_scores_one_everywhere():
    reference, _ = labels()
    mapped = np.where(reference == 255, 3, reference)
    found = scored(reference, mapped, 5)
    assert (found.oa, found.aa, found.kappa, found.miou, found.mf1) == (1, 1, 1, 1, 1)
    assert found.iou == found.f1 == found.precision == found.recall == (1,) * 5


def test_permuting_classes_permutes_scores():
    reference, mapped = labels()
    order = np.array([3, 0, 4, 1, 2])  # class i becomes order[i]
    rename = np.r_[order, np.full(251, 255)].astype(np.uint8)
    before, after = scored(reference, mapped, 5), scored(rename[reference], rename[mapped], 5)
    assert [after.iou[order[i]] for i in range(5)] == list(before.iou)
    assert [after.recall[order[i]] for i in range(5)] == list(before.recall)
    assert [after.support[order[i]] for i in range(5)] == list(before.support)
    assert (after.oa, after.miou, after.kappa) == pytest.approx((before.oa, before.miou, before.kappa))


def test_swapping_map_and_reference_swaps_precision_and_recall():
    matrix = np.array([[6, 2, 0], [1, 3, 0], [0, 1, 7]])
    one, other = score(matrix, unmapped=NOBODY), score(matrix.T, unmapped=NOBODY)
    assert (one.precision, one.recall, one.iou) == (other.recall, other.precision, other.iou)


def test_a_labelled_pixel_without_a_class_in_the_map_is_an_error_of_omission():
    reference = np.array([0, 0, 0, 1, 255], np.uint8)
    mapped = np.array([0, 0, 255, 1, 255], np.uint8)
    assert unmapped(reference, mapped, classes=2).tolist() == [1, 0]
    found = scored(reference, mapped, 2)
    assert (found.oa, found.support, found.unmapped) == (3 / 4, (3, 1), (1, 0))
    assert (found.recall, found.precision, found.iou) == ((2 / 3, 1.0), (1.0, 1.0), (2 / 3, 1.0))
    assert found.f1[0] == pytest.approx(4 / 5)


def test_an_unmapped_pixel_costs_as_much_accuracy_as_a_wrong_one():
    reference, mapped = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0])
    hole = np.array([0, 0, 1, 255])
    assert scored(reference, hole, 2).oa == scored(reference, mapped, 2).oa
    assert scored(reference, hole, 2).recall == scored(reference, mapped, 2).recall


def test_a_class_that_nobody_holds_is_nan_and_left_out_of_the_means():
    found = score(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), unmapped=NOBODY)
    assert all(math.isnan(values[2]) for values in (found.iou, found.f1, found.precision, found.recall))
    assert found.miou == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert found.aa == pytest.approx((3 / 4 + 1) / 2)


def test_a_class_that_only_the_map_holds_has_iou_zero_and_no_recall():
    found = score(np.array([[3, 0, 1], [0, 4, 0], [0, 0, 0]]), unmapped=NOBODY)
    assert (found.iou[2], found.f1[2], found.precision[2]) == (0, 0, 0)
    assert math.isnan(found.recall[2])
    assert found.miou == pytest.approx((3 / 4 + 1 + 0) / 3)
    assert found.aa == pytest.approx((3 / 4 + 1) / 2)


def test_kappa_of_a_single_class_and_all_scores_of_nothing_are_nan():
    assert math.isnan(score(np.array([[5, 0], [0, 0]]), unmapped=np.zeros(2, np.int64)).kappa)
    nothing = score(np.zeros((2, 2), np.int64), unmapped=np.zeros(2, np.int64))
    assert all(math.isnan(value) for value in (nothing.oa, nothing.aa, nothing.kappa, nothing.miou, nothing.mf1))


def test_a_constant_map_agrees_by_chance_only():
    assert score(np.array([[5, 0], [3, 0]]), unmapped=np.zeros(2, np.int64)).kappa == 0


def test_many_matrices_at_once_score_as_one_by_one():
    stack = np.random.default_rng(2).integers(0, 9, (4, 3, 3))
    lost = np.random.default_rng(3).integers(0, 4, (4, 3))
    together = measures(stack, unmapped=lost)
    for i in range(4):
        alone = score(stack[i], unmapped=lost[i])
        assert together["miou"][i] == alone.miou
        assert tuple(together["recall"][i]) == alone.recall


def test_a_value_without_a_class_names_the_value_and_the_fix():
    good = np.array([0, 1], np.uint8)
    with pytest.raises(LabelError, match=r"the reference holds the values 7, but there are 2 classes \(0\.\.1\).*255"):
        confusion(np.array([0, 7], np.uint8), good, classes=2)
    with pytest.raises(LabelError, match=r"the map holds the values 3, 9, but there are 2 classes"):
        confusion(np.array([0, 1]), np.array([3, 9]), classes=2)


def test_what_the_map_holds_outside_the_labels_does_not_matter():
    assert confusion(np.array([255, 1]), np.array([200, 1]), classes=2).tolist() == [[0, 0], [0, 1]]


def test_arrays_that_do_not_match_are_refused_with_both_sizes():
    with pytest.raises(GridMismatch, match=r"reference \(2, 3\) and map \(3, 2\) differ in size"):
        confusion(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), classes=2)


def test_values_that_are_no_labels_are_refused():
    with pytest.raises(LabelError, match="the map holds float64 values; class values are whole numbers"):
        confusion(np.zeros(2, np.uint8), np.zeros(2), classes=2)
    with pytest.raises(LabelError, match=r"the reference holds values -1\.\.0"):
        confusion(np.array([-1, 0]), np.array([0, 0]), classes=2)


def test_mean_and_spread_of_several_maps_are_those_of_their_scores():
    maps = [labels(seed=0)[1], labels(seed=1)[1], labels(seed=2)[1]]
    maps[2][10:12] = 255
    each = [scored(labels()[0], mapped, 5) for mapped in maps]
    whole, apart = mean(each), spread(each)
    for name in ("oa", "aa", "kappa", "miou", "mf1"):
        values = [getattr(one, name) for one in each]
        assert getattr(whole, name) == pytest.approx(np.mean(values))
        assert getattr(apart, name) == pytest.approx(np.std(values, ddof=1))
    assert whole.iou[3] == pytest.approx(np.mean([one.iou[3] for one in each]))
    assert apart.recall[3] == pytest.approx(np.std([one.recall[3] for one in each], ddof=1))
    assert whole.support == each[0].support
    assert sum(whole.unmapped) == pytest.approx(sum(each[2].unmapped) / 3, abs=3)


def test_a_score_without_meaning_in_one_map_is_left_out_of_the_mean():
    there = score(np.array([[5, 0], [0, 0]]), unmapped=np.zeros(2, np.int64))
    mapped = score(np.array([[4, 1], [0, 0]]), unmapped=np.zeros(2, np.int64))
    assert mean([there, mapped]).iou == (0.9, 0.0)  # of the second class only one map says something
    assert spread([there, mapped]).iou[0] == pytest.approx(0.1 * math.sqrt(2))
    assert math.isnan(spread([there, mapped]).iou[1])
    assert math.isnan(mean([there, there]).iou[1])
