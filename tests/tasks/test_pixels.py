"""Pixels mixed with one another."""

import pytest
import torch

from terralean.tasks.pixels import loss, mix, mixed_loss
from weights import image


def test_a_mixture_is_made_of_two_patches_by_their_share():
    torch.manual_seed(0)
    x, label = torch.from_numpy(image(0, (6, 4, 3, 3))), torch.arange(6)
    mixed = mix(x, label, alpha=0.4)
    share = float(mixed.share)
    assert 0 < share < 1
    assert sorted(mixed.other.tolist()) == label.tolist()
    assert mixed.other.tolist() != label.tolist()
    torch.testing.assert_close(mixed.image, share * x + (1 - share) * x[mixed.other])


@pytest.mark.parametrize("alpha", [0.2, 0.4, 2.0])
def test_shares_are_those_of_the_distribution(alpha):
    torch.manual_seed(0)
    x, label = torch.zeros(2, 1, 1, 1), torch.tensor([0, 1])
    drawn = torch.stack([mix(x, label, alpha=alpha).share for _ in range(2000)])
    assert drawn.mean() == pytest.approx(0.5, abs=0.03)
    assert drawn.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)  # of Beta(alpha, alpha)


def test_the_loss_of_a_mixture_is_that_of_its_soft_label():
    torch.manual_seed(0)
    x, label, scores = torch.zeros(5, 1, 1, 1), torch.tensor([0, 2, 1, 1, 0]), torch.randn(5, 3)
    mixed = mix(x, label, alpha=0.4)
    one_hot = torch.eye(3)
    soft = mixed.share * one_hot[label] + (1 - mixed.share) * one_hot[mixed.other]
    expected = torch.nn.functional.cross_entropy(scores, soft, label_smoothing=0.1)
    torch.testing.assert_close(mixed_loss(scores, label, mixed, label_smoothing=0.1), expected)
    assert not torch.allclose(expected, loss(scores, label, label_smoothing=0.1))
