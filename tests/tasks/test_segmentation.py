import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from terralean.errors import ConfigError
from terralean.tasks.segmentation import LossConfig, SegmentationLoss, answer, class_weights


def test_answer_is_the_likeliest_class_and_255_without_data():
    probabilities = np.array([[[0.6, 0.1, 0.6]], [[0.4, 0.9, 0.4]]], np.float32)
    assert answer(probabilities, np.array([[True, True, False]])).tolist() == [[0, 1, 255]]


@pytest.mark.parametrize(("rule", "expected"), [("none", [1, 1, 0]), ("inverse", [5 / 9, 5, 0]), ("root", [0.8333333, 2.5, 0])])
def test_class_weights_worked(rule, expected):
    found = class_weights([90, 10, 0], rule=rule)
    if rule != "none":
        assert float((found[:2] * torch.tensor([0.9, 0.1])).sum()) == pytest.approx(1)
    assert found.tolist() == pytest.approx(expected)


def test_cross_entropy_alone_is_torchs_weighted_mean():
    torch.manual_seed(0)
    scores, mask = torch.randn(2, 3, 5, 7), torch.randint(0, 3, (2, 5, 7))
    mask[0, :2] = 255
    loss = SegmentationLoss(LossConfig(dice=0, class_weights="inverse"), class_pixels=[5, 20, 75])
    expected = F.cross_entropy(scores, mask, loss.weights, ignore_index=255)
    torch.testing.assert_close(loss(scores, mask), expected)


def test_dice_on_a_worked_case():
    scores = torch.zeros(1, 2, 1, 2)  # both classes one half everywhere
    mask = torch.tensor([[[0, 255]]])
    loss = SegmentationLoss(LossConfig(dice=1, class_weights="none"), class_pixels=[1, 1])
    dice = (2 * 0.5 + 1) / (0.5 + 1 + 1)  # one labelled pixel of class 0; class 1 is absent and does not count
    assert float(loss(scores, mask)) == pytest.approx(math.log(2) + 1 - dice)


def test_a_perfect_answer_costs_nothing():
    mask = torch.randint(0, 3, (2, 8, 8))
    scores = 100 * F.one_hot(mask, 3).permute(0, 3, 1, 2).float()
    assert float(SegmentationLoss(LossConfig(), class_pixels=[1, 1, 1])(scores, mask)) == pytest.approx(0, abs=1e-6)


def test_scores_of_ignored_pixels_change_nothing():
    mask = torch.randint(0, 3, (1, 8, 8))
    mask[:, 4:] = 255
    scores = torch.randn(1, 3, 8, 8)
    other = scores.clone()
    other[:, :, 4:] = 50 * torch.randn(1, 3, 4, 8)
    loss = SegmentationLoss(LossConfig(), class_pixels=[1, 2, 3])
    torch.testing.assert_close(loss(scores, mask), loss(other, mask))


def test_nothing_labelled_gives_a_loss_and_gradient_of_zero():
    scores = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = SegmentationLoss(LossConfig(), class_pixels=[1, 2, 3])(scores, torch.full((1, 4, 4), 255))
    loss.backward()
    assert float(loss.detach()) == 0
    assert float(scores.grad.abs().sum()) == 0


def test_auxiliary_scores_add_their_share_of_the_same_loss():
    scores, auxiliary = torch.zeros(1, 2, 1, 2), torch.zeros(1, 2, 1, 2)
    auxiliary[:, 1] = math.log(3)  # class 1 three times as likely as class 0
    mask = torch.tensor([[[0, 255]]])
    loss = SegmentationLoss(LossConfig(dice=0, class_weights="none", auxiliary=0.25), class_pixels=[1, 1])
    assert float(loss({"scores": scores, "auxiliary": auxiliary}, mask)) == pytest.approx(math.log(2) + 0.25 * math.log(4))
    assert float(loss({"scores": scores}, mask)) == float(loss(scores, mask)) == pytest.approx(math.log(2))


def test_dice_counts_for_auxiliary_scores_too():
    torch.manual_seed(0)
    scores, auxiliary, mask = torch.randn(1, 3, 6, 6), torch.randn(1, 3, 6, 6), torch.randint(0, 3, (1, 6, 6))
    loss = SegmentationLoss(LossConfig(), class_pixels=[1, 2, 3])
    expected = loss(scores, mask) + 0.4 * loss(auxiliary, mask)
    torch.testing.assert_close(loss({"scores": scores, "auxiliary": auxiliary}, mask), expected)


def test_a_negative_weight_is_refused():
    with pytest.raises(ConfigError, match=r"train\.loss\.auxiliary must be 0 or more, got -0\.4"):
        LossConfig(auxiliary=-0.4)


@pytest.mark.parametrize("change", [{"class_weights": "none"}, {"dice": 0.0}, {"label_smoothing": 0.1}])
def test_every_setting_changes_the_loss(change):
    torch.manual_seed(0)
    scores, mask = torch.randn(1, 3, 6, 6), torch.randint(0, 3, (1, 6, 6))
    one, two = (SegmentationLoss(LossConfig(**c), class_pixels=[80, 15, 5])(scores, mask) for c in ({}, change))
    assert abs(float(one - two)) > 1e-3
