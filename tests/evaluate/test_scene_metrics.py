import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_cohen_kappa

from terralean.evaluate.scene_metrics import PER_RUN, Units, answers, confusion, count, joined, mean, measures, score, spread
from terralean.tasks.classification import shares, tally

CLASSES = 8


def guesses(seed: int = 0, *, images: int = 200, classes: int = CLASSES):
    """Probabilities that lean towards the true class, and the classes."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, images)
    logits = rng.normal(size=(images, classes)) + 1.5 * np.eye(classes)[label]
    return (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32), label


def test_scores_are_those_of_scikit_learn():
    probabilities, label = guesses()
    found = score(answers(probabilities, label), classes=CLASSES)
    said = probabilities.argmax(axis=1)
    assert found.oa == pytest.approx(accuracy_score(label, said))
    assert found.top5 == pytest.approx(top_k_accuracy_score(label, probabilities, k=5))
    assert found.aa == pytest.approx(balanced_accuracy_score(label, said))
    assert found.kappa == pytest.approx(cohen_kappa_score(label, said))
    assert found.mf1 == pytest.approx(f1_score(label, said, average="macro"))
    precision, recall, f1, support = precision_recall_fscore_support(label, said)
    for ours, theirs in ((found.precision, precision), (found.recall, recall), (found.f1, f1), (found.support, support)):
        assert ours == pytest.approx(theirs)
    np.testing.assert_array_equal(confusion(answers(probabilities, label), classes=CLASSES), confusion_matrix(label, said))


def test_scores_are_those_of_torchmetrics():
    probabilities, label = guesses(1)
    found = score(answers(probabilities, label), classes=CLASSES)
    given = torch.from_numpy(probabilities), torch.from_numpy(label)
    assert found.oa == pytest.approx(multiclass_accuracy(*given, num_classes=CLASSES, average="micro").item())
    assert found.top5 == pytest.approx(multiclass_accuracy(*given, num_classes=CLASSES, average="micro", top_k=5).item())
    assert found.aa == pytest.approx(multiclass_accuracy(*given, num_classes=CLASSES, average="macro").item())
    assert found.kappa == pytest.approx(multiclass_cohen_kappa(*given, num_classes=CLASSES).item(), abs=1e-6)


def test_ranks_are_those_of_validation_ties_included():
    probabilities = np.round(guesses(2)[0] * 4) / 4  # many are equal
    label = guesses(2)[1]
    found = answers(probabilities, label)
    ranks = tally(torch.from_numpy(probabilities), torch.from_numpy(label))
    table = np.zeros((CLASSES, CLASSES), int)
    np.add.at(table, (label, found.rank), 1)
    np.testing.assert_array_equal(table, ranks.numpy())
    scores = score(found, classes=CLASSES)
    assert {"top1": scores.oa, "top5": scores.top5} == pytest.approx(shares(ranks))
    np.testing.assert_array_equal(found.answer, probabilities.argmax(axis=1))


def test_the_five_likeliest_stand_in_order_with_their_probabilities():
    found = answers(np.array([[0.1, 0.4, 0.05, 0.3, 0.02, 0.13], [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]]), np.array([4, 0]))
    assert found.likeliest.tolist() == [[1, 3, 5, 0, 2], [0, 1, 2, 3, 4]]
    assert found.probability[0].tolist() == [0.4, 0.3, 0.13, 0.1, 0.05]
    assert found.rank.tolist() == [5, 0]
    assert found.right.tolist() == [False, True]
    assert answers(np.array([[0.25, 0.75]]), np.array([0])).likeliest.tolist() == [[1, 0]]


def test_three_images_by_hand():
    # classes a, b, c: a taken for a, a for b, b for b; of c there is none, and none is the answer
    found = score(answers(np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.3, 0.7, 0]]), np.array([0, 0, 1])), classes=3)
    assert found.oa == pytest.approx(2 / 3)
    assert found.recall[:2] == (0.5, 1.0)
    assert found.precision[:2] == (1.0, 0.5)
    assert found.f1[:2] == pytest.approx((2 / 3, 2 / 3))
    assert np.isnan([found.recall[2], found.precision[2], found.f1[2]]).all()
    assert (found.aa, found.mf1) == pytest.approx((0.75, 2 / 3))
    assert found.kappa == pytest.approx((2 / 3 - 4 / 9) / (1 - 4 / 9))
    assert found.top5 == 1.0
    assert found.support == (2, 1, 0)


def test_units_that_count_once_give_the_scores_and_those_that_count_twice_the_scores_of_two():
    given = answers(*guesses(3))
    units = Units(name="groups", number=np.random.default_rng(0).integers(0, 30, 200), count=30)
    counts = count(given, units, classes=CLASSES)
    once = measures(counts, np.ones((1, 30)))
    whole = score(given, classes=CLASSES)
    for name in PER_RUN:
        assert once[name][0] == pytest.approx(getattr(whole, name))
    times = np.ones((1, 30))
    times[0, 4] = 2
    twice = joined([given, given.of(units.number == 4)])
    found, expected = measures(counts, times), score(twice, classes=CLASSES)
    for name in PER_RUN:
        assert found[name][0] == pytest.approx(getattr(expected, name))
    np.testing.assert_allclose(found["f1"][0], expected.f1)


def test_parts_joined_are_the_whole():
    probabilities, label = guesses(4)
    parts = [answers(probabilities[part], label[part]) for part in (slice(0, 70), slice(70, 200))]
    whole = answers(probabilities, label)
    for name in ("label", "likeliest", "probability", "rank"):
        np.testing.assert_array_equal(getattr(joined(parts), name), getattr(whole, name))


def test_mean_and_spread_over_trainings():
    each = [score(answers(*guesses(seed)), classes=CLASSES) for seed in range(3)]
    assert mean(each).oa == pytest.approx(np.mean([one.oa for one in each]))
    assert spread(each).oa == pytest.approx(np.std([one.oa for one in each], ddof=1))
    assert mean(each).f1[2] == pytest.approx(np.mean([one.f1[2] for one in each]))
    assert np.isnan(spread(each[:1]).oa)
