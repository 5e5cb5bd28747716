"""What many processes make of batch norm; what they compute with it together is in test_together.py."""

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d, SyncBatchNormAct
from torch import nn

from terralean.errors import ConfigError
from terralean.models import create
from terralean.train.norm import SharedBatchNorm, synchronise

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(BatchNormAct2d(4, inplace=False)))


@pytest.mark.parametrize(("device", "kinds"), [(CPU, [SharedBatchNorm] * 2), (CUDA, [nn.SyncBatchNorm, SyncBatchNormAct])])
def test_every_batch_norm_is_exchanged_and_keeps_its_state(device, kinds):
    model = network()
    model(torch.randn(5, 3, 8, 8))  # so that the statistics say something
    state, parameters = {k: v.clone() for k, v in model.state_dict().items()}, list(model.parameters())
    image = torch.randn(2, 3, 8, 8)
    want = model.eval()(image)
    shared = synchronise(model, device=device)
    assert [type(shared[1]), type(shared[2][0])] == kinds
    assert [*shared.state_dict()] == [*state]
    assert all(torch.equal(value, state[name]) for name, value in shared.state_dict().items())
    assert [id(parameter) for parameter in shared.parameters()] == [id(parameter) for parameter in parameters]
    assert torch.equal(shared.eval()(image), want)


def test_in_one_process_it_is_torchs_own():
    torch.manual_seed(1)
    image = torch.randn(4, 3, 64, 64)
    plain, shared = create("lemevit_tiny_light", bands=3, classes=2), create("lemevit_tiny_light", bands=3, classes=2)
    shared.load_state_dict(plain.state_dict())
    shared = synchronise(shared, device=CPU)
    torch.testing.assert_close(shared(image), plain(image), rtol=1e-4, atol=1e-5)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(shared.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_it_answers_in_the_precision_it_was_asked_in():
    norm = synchronise(nn.Sequential(nn.BatchNorm2d(3)), device=CPU)
    image = torch.randn(4, 3, 8, 8)
    found = norm(image.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), nn.BatchNorm2d(3)(image), rtol=2e-2, atol=2e-2)


def test_a_batch_norm_of_another_kind_is_refused():
    class Own(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x) * 2

    with pytest.raises(ConfigError, match="Own cannot be shared by processes on a CPU"):
        synchronise(nn.Sequential(Own(3)), device=CPU)


def test_one_value_has_no_deviation():
    norm = synchronise(nn.Sequential(nn.BatchNorm2d(3)), device=CPU)
    with pytest.raises(ConfigError, match=r"one value of each channel; raise train\.batch or data\.tile_px"):
        norm(torch.zeros(1, 3, 1, 1))
    assert torch.equal(norm[0].running_var, torch.ones(3))
