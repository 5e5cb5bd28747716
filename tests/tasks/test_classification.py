import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchmetrics.functional.classification import multiclass_accuracy

from terralean.errors import ConfigError
from terralean.tasks.classification import MixConfig, mean_view, mixer, shares, tally, training_loss

CLASSES = 7


@pytest.fixture
def answers():
    generator = torch.Generator().manual_seed(3)
    probabilities = torch.rand(200, CLASSES, generator=generator).softmax(dim=1)
    return probabilities, torch.randint(CLASSES, (200,), generator=generator)


def test_tally_holds_each_image_by_class_and_rank_of_the_true_class():
    probabilities = torch.tensor([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.2, 0.1, 0.7]])
    counts = tally(probabilities, torch.tensor([0, 1, 0, -1]))
    assert counts.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize(("k", "key"), [(1, "top1"), (5, "top5")])
def test_shares_are_those_of_torchmetrics(answers, k, key):
    probabilities, label = answers
    theirs = multiclass_accuracy(probabilities, label, num_classes=CLASSES, top_k=k, average="micro")
    assert shares(tally(probabilities, label))[key] == pytest.approx(theirs.item(), abs=1e-6)


def test_tallies_of_parts_add_up(answers):
    probabilities, label = answers
    parts = tally(probabilities[:77], label[:77]) + tally(probabilities[77:], label[77:])
    assert torch.equal(parts, tally(probabilities, label))


def test_of_equal_probabilities_the_first_class_counts_as_the_likelier():
    even = torch.full((3, 3), 1 / 3)
    assert tally(even, torch.arange(3)).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert even.argmax(dim=1).tolist() == [0, 0, 0]


def test_with_five_classes_top_five_is_one():
    assert shares(tally(torch.rand(9, 5), torch.arange(9) % 5))["top5"] == 1


def test_an_image_is_judged_by_the_mean_of_its_views():
    logits = torch.tensor([[4.0, 0.0], [0.0, 1.0], [0.0, 3.0], [0.0, 3.0]])
    one, two = logits[:2].softmax(dim=1).mean(dim=0), logits[2].softmax(dim=0)
    torch.testing.assert_close(mean_view(logits, views=2), torch.stack([one, two]))


def test_loss_of_labels_is_smoothed_and_that_of_mixed_shares_is_not():
    logits = torch.tensor([[2.0, -1.0, 0.5]])
    logs = logits.log_softmax(dim=1)[0]
    label = torch.tensor([2])
    assert training_loss(logits, label, label_smoothing=0.3).item() == pytest.approx((-0.7 * logs[2] - 0.1 * logs.sum()).item())
    shares_of = torch.tensor([[0.25, 0.0, 0.75]])
    expected = (-0.25 * logs[0] - 0.75 * logs[2]).item()
    assert training_loss(logits, shares_of, label_smoothing=0.3).item() == pytest.approx(expected)


@pytest.mark.parametrize("config", [MixConfig(mixup=0.8), MixConfig(cutmix=1.0), MixConfig(mixup=0.8, cutmix=1.0)])
def test_mixed_targets_are_as_much_of_each_label_as_of_each_image(config):
    np.random.seed(5)
    mix = mixer(config, classes=4, label_smoothing=0.0)
    for _ in range(8):
        image = torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 1, 32, 32).clone()
        mixed, target = mix(image, torch.tensor([0, 3]))
        torch.testing.assert_close(target.sum(dim=1), torch.ones(2))
        torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), target[:, 3], atol=1e-6, rtol=0)


def test_mixed_targets_are_smoothed():
    np.random.seed(5)
    mix = mixer(MixConfig(mixup=1.0), classes=4, label_smoothing=0.2)
    _, target = mix(torch.zeros(2, 1, 8, 8), torch.tensor([1, 1]))
    torch.testing.assert_close(target, torch.tensor([[0.05, 0.85, 0.05, 0.05]] * 2))


@pytest.mark.parametrize("config", [MixConfig(), MixConfig(mixup=1.0, cutmix=1.0, probability=0.0)])
def test_nothing_is_mixed_unless_asked_for(config):
    assert mixer(config, classes=4, label_smoothing=0.1) is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mixup": -1.0}, r"train\.mix\.mixup must be 0 or more, got -1"),
        ({"cutmix": -0.5}, r"train\.mix\.cutmix must be 0 or more, got -0\.5"),
        ({"probability": 1.5}, r"train\.mix\.probability must be 0 to 1, got 1\.5"),
        ({"switch": -0.1}, r"train\.mix\.switch must be 0 to 1, got -0\.1"),
    ],
)
def test_a_mix_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        MixConfig(**wrong)


def test_validation_loss_is_the_cross_entropy_of_the_mean_view():
    logits, label = torch.randn(3, CLASSES, generator=torch.Generator().manual_seed(1)), torch.tensor([1, 0, 6])
    one = F.nll_loss(mean_view(logits, views=1).log(), label)
    torch.testing.assert_close(one, F.cross_entropy(logits, label))
