import copy

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from terralean.layers.watched_folding import fold
from terralean.models import create


def settled(model: nn.Module) -> nn.Module:
    """In eval mode, with norms that do something."""
    torch.manual_seed(0)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.running_mean, part.bias):
                nn.init.normal_(tensor)
            for tensor in (part.running_var, part.weight):
                nn.init.uniform_(tensor, 0.5, 2.0)
    return model.eval()


class Net(nn.Module):
    """Layers whose wiring is given."""

    def __init__(self, wiring, **layers: nn.Module) -> None:
        super().__init__()
        self.wiring = wiring
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.wiring(self, x)


def conv(**options) -> nn.Conv2d:
    return nn.Conv2d(4, 4, 3, padding=1, **options)


@pytest.mark.parametrize("bias", [False, True])
def test_norm_behind_a_convolution_is_folded_and_nothing_changes(bias):
    net = settled(nn.Sequential(nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d(4), nn.ReLU(), conv(groups=2), nn.BatchNorm2d(4)))
    x = torch.randn(2, 3, 9, 7)
    expected = net(x)
    found = fold(net, (1, 3, 8, 8))
    assert (found.folded, found.left) == (2, 0)
    assert not [part for part in found.model.modules() if isinstance(part, nn.BatchNorm2d)]
    torch.testing.assert_close(found.model(x), expected)


def test_activation_within_a_norm_stays():
    net = settled(nn.Sequential(conv(), BatchNormAct2d(4, act_layer=nn.SiLU)))
    x = torch.randn(2, 4, 6, 6)
    expected = net(x)
    found = fold(net, (1, 4, 6, 6))
    assert found.folded == 1
    torch.testing.assert_close(found.model(x), expected)


STAYS = {
    "someone else reads the convolution": Net(lambda n, x: n.bn(y := n.conv(x)) + y, conv=conv(), bn=nn.BatchNorm2d(4)),
    "something stands between": Net(lambda n, x: n.bn(n.conv(x).relu()), conv=conv(), bn=nn.BatchNorm2d(4)),
    "the norm comes first": Net(lambda n, x: n.conv(n.bn(x)), conv=conv(), bn=nn.BatchNorm2d(4)),
    "the convolution is used twice": Net(lambda n, x: n.conv(n.bn(n.conv(x))), conv=conv(), bn=nn.BatchNorm2d(4)),
    "the norm is used twice": Net(lambda n, x: n.bn(n.b(n.bn(n.a(x)))), a=conv(), b=conv(), bn=nn.BatchNorm2d(4)),
    "a layer norm is none": Net(lambda n, x: n.ln(n.conv(x)), conv=conv(), ln=nn.GroupNorm(1, 4)),
}


@pytest.mark.parametrize("why", STAYS)
def test_norm_stays_where(why):
    net = settled(copy.deepcopy(STAYS[why]))
    x = torch.randn(2, 4, 6, 6)
    expected, norms = net(x), sum(isinstance(part, nn.BatchNorm2d) for part in net.modules())
    found = fold(net, (1, 4, 6, 6))
    assert (found.folded, found.left) == (0, norms)
    assert torch.equal(found.model(x), expected)


def test_wiring_that_no_tracer_follows_is_folded():
    def wiring(net: Net, x: Tensor) -> Tensor:
        return net.bn(net.conv(x)) if x.shape[-1] > 3 and len(x) else x

    net = settled(Net(wiring, conv=conv(), bn=nn.BatchNorm2d(4)))
    assert fold(net, (1, 4, 6, 6)).folded == 1


def test_own_fold_of_a_model_comes_first():
    class Own(nn.Sequential):
        def fold(self) -> nn.Module:
            return nn.Identity()

    found = fold(Own(conv(), nn.BatchNorm2d(4)).eval(), (1, 4, 6, 6))
    assert isinstance(found.model, nn.Identity)
    assert (found.folded, found.left) == (1, 0)


@pytest.mark.parametrize(
    ("name", "folded", "left"),
    [("test_resnet", 15, 0), ("test_efficientnet", 13, 0), ("test_vit", 0, 0), ("mobilevitv2_050", 25, 0)],
)
def test_networks_of_timm_answer_the_same_at_other_sizes(name, folded, left):
    net = settled(timm.create_model(name, num_classes=5, **({"img_size": 96} if name == "test_vit" else {})))
    x = torch.randn(2, 3, 96, 96)
    expected = net(x)
    found = fold(net, (1, 3, 96, 96))
    assert (found.folded, found.left) == (folded, left)
    torch.testing.assert_close(found.model(x), expected, rtol=1e-3, atol=1e-4)


def test_segmenter_of_ours_is_folded_but_for_what_no_convolution_feeds():
    net = settled(create("lemevit_tiny_light", bands=4, classes=5))
    x = torch.randn(2, 4, 64, 64)
    expected, before = net(x), sum(isinstance(part, nn.BatchNorm2d) for part in net.modules())
    found = fold(net, (1, 4, 64, 64))
    assert found.folded + found.left == before
    assert found.folded > 3
    torch.testing.assert_close(found.model(x), expected, rtol=1e-3, atol=1e-4)
