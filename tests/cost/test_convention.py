import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terralean.cost.convention import count_operations, count_operations_at, count_work
from terralean.cost.macs import count_macs


class Everything(nn.Module):
    """One of each kind, on a map of 8 channels and 6 x 10."""

    def __init__(self) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.tokens = nn.LayerNorm(8)

    def forward(self, image: Tensor) -> Tensor:
        x = F.gelu(self.norm(self.convolve(image)))
        pooled = F.adaptive_avg_pool2d(x, 1)
        x = self.tokens((x + pooled).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return F.interpolate(x.softmax(dim=1).mean(dim=1, keepdim=True), scale_factor=2, mode="nearest")


def test_each_kind_by_hand():
    pixels = 6 * 10
    layers = 3 * 8 * 9 * pixels
    beside = 2 * 8 * pixels + 8 * pixels + 5 * 8 * pixels + 4 * 8 * 4 * pixels + 16 * pixels
    model = Everything()
    assert count_macs(model, torch.zeros(1, 3, 6, 10)).total == layers
    assert count_operations(model, torch.randn(1, 3, 6, 10)) == layers + beside
    assert count_operations_at(model, (1, 3, 6, 10)) == layers + beside
    assert count_operations(model, torch.randn(2, 3, 6, 10)) == 2 * (layers + beside)


@pytest.mark.parametrize("training", [True, False])
def test_counting_leaves_the_model_as_it_was(training):
    model = Everything().train(training)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    count_operations(model, torch.randn(1, 3, 6, 10))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training is model.norm.training is training


def test_multiply_adds_are_told_beside_operations():
    model, image = Everything(), torch.randn(1, 3, 6, 10)
    work = count_work(model, image)
    assert (work.operations, work.macs) == (count_operations(model, image), count_macs(model, image))
    assert work.operations > work.macs.total > 0
