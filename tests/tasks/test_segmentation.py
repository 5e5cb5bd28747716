import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from terralean.errors import ConfigError
from terralean.tasks.segmentation import LossConfig, SegmentationLoss, answer, class_weights, hardest


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"foreground": -1.0}, r"train\.loss\.foreground must be 0 or more, got -1\.0"),
        ({"hardest": 0.0}, r"train\.loss\.hardest must be above 0 up to 1, got 0\.0"),
        ({"hardest": 1.5}, r"train\.loss\.hardest must be above 0 up to 1, got 1\.5"),
    ],
)
def test_a_share_or_weight_out_of_range_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        LossConfig(**change)


def test_hardest_pixels_worked():
    """Five labelled pixels; the true class has probability .9 .2 .6 .4 .7, and an unlabelled one would be the hardest."""
    true_class = torch.tensor([0.9, 0.2, 0.6, 0.4, 0.7, 0.01])
    scores = torch.stack([true_class, 1 - true_class]).log().view(1, 2, 2, 3)
    mask = torch.tensor([[[0, 0, 0], [0, 0, 255]]])
    found = {share: hardest(scores, mask, share=share).flatten().nonzero().flatten().tolist() for share in (0.1, 0.4, 0.5, 1)}
    assert found == {0.1: [1], 0.4: [1, 3], 0.5: [1, 2, 3], 1: [0, 1, 2, 3, 4]}
    loss = SegmentationLoss(LossConfig(dice=0, class_weights="none", hardest=0.4), class_pixels=[1, 1])
    assert float(loss(scores, mask)) == pytest.approx(-(math.log(0.2) + math.log(0.4)) / 2)


def test_hardest_pixels_keep_the_weights_of_their_classes():
    scores = torch.tensor([[0.1, 0.2, 0.9], [0.9, 0.8, 0.1]]).log().view(1, 2, 1, 3)
    mask = torch.tensor([[[0, 1, 1]]])
    loss = SegmentationLoss(LossConfig(dice=0, class_weights="inverse", hardest=0.6), class_pixels=[30, 10])
    light, heavy = loss.weights.tolist()
    expected = -(light * math.log(0.1) + heavy * math.log(0.1)) / (light + heavy)  # the pixel of .8 is the easy one
    assert float(loss(scores, mask)) == pytest.approx(expected)


def test_pixels_that_do_not_count_get_no_gradient():
    torch.manual_seed(0)
    scores, mask = torch.randn(1, 3, 4, 5, requires_grad=True), torch.randint(0, 3, (1, 4, 5))
    SegmentationLoss(LossConfig(dice=0, hardest=0.3), class_pixels=[1, 2, 3])(scores, mask).backward()
    assert torch.equal(scores.grad.abs().sum(dim=1) > 0, hardest(scores, mask, share=0.3))


def test_foreground_is_every_labelled_pixel_that_is_not_background():
    scores, mask = torch.zeros(1, 3, 1, 4), torch.tensor([[[2, 1, 0, 255]]])
    sure = torch.tensor([[[[math.log(4), math.log(4), math.log(1 / 3), 50.0]]]])  # foreground with .8, .8, .25 and 1
    loss = SegmentationLoss(LossConfig(dice=0, class_weights="none", foreground=0.5), class_pixels=[1, 1, 1], background=1)
    expected = -(math.log(0.8) + math.log(1 - 0.8) + math.log(0.25)) / 3
    assert float(loss({"scores": scores, "foreground": sure}, mask)) == pytest.approx(math.log(3) + 0.5 * expected)


def test_foreground_of_nothing_labelled_gives_a_loss_and_gradient_of_zero():
    output = {"scores": torch.zeros(1, 2, 2, 2), "foreground": torch.ones(1, 1, 2, 2, requires_grad=True)}
    loss = SegmentationLoss(LossConfig(hardest=0.5), class_pixels=[1, 1], background=0)(output, torch.full((1, 2, 2), 255))
    loss.backward()
    assert float(loss.detach()) == 0
    assert float(output["foreground"].grad.abs().sum()) == 0


@pytest.mark.parametrize("change", [{"class_weights": "none"}, {"dice": 0.0}, {"label_smoothing": 0.1}, {"hardest": 0.5}])
def test_every_setting_changes_the_loss(change):
    torch.manual_seed(0)
    scores, mask = torch.randn(1, 3, 6, 6), torch.randint(0, 3, (1, 6, 6))
    one, two = (SegmentationLoss(LossConfig(**c), class_pixels=[80, 15, 5])(scores, mask) for c in ({}, change))
    assert abs(float(one - two)) > 1e-3
