import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from terralean.tasks.change import F1, F1_CLASSES, IOU, OA, PRECISION, RECALL, change_scores


def test_scores_are_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    reference, answer = (torch.randint(2, (500,), generator=generator) for _ in range(2))
    confusion = torch.bincount(2 * reference + answer, minlength=4).view(2, 2)
    found = change_scores(confusion)
    assert found[F1] == pytest.approx(f1_score(reference, answer))
    assert found[PRECISION] == pytest.approx(precision_score(reference, answer))
    assert found[RECALL] == pytest.approx(recall_score(reference, answer))
    assert found[IOU] == pytest.approx(jaccard_score(reference, answer))
    assert found[F1_CLASSES] == pytest.approx(f1_score(reference, answer, average="macro"))
    assert found[OA] == pytest.approx(float((reference == answer).double().mean()))


def test_a_small_case_by_hand():
    found = change_scores(torch.tensor([[90, 2], [4, 4]]))
    assert found[PRECISION] == pytest.approx(4 / 6)
    assert found[RECALL] == pytest.approx(0.5)
    assert found[F1] == pytest.approx(8 / 14)
    assert found[IOU] == pytest.approx(0.4)


def test_nothing_changed_and_nothing_found_is_0_as_published_scripts_have_it():
    found = change_scores(torch.tensor([[9, 0], [0, 0]]))
    assert (found[F1], found[PRECISION], found[RECALL], found[OA]) == (0, 0, 0, 1)
