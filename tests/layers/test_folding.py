import copy

import pytest
import torch
from torch import Tensor, nn

from terralean.layers.folding import fold_norms, sharing
from terralean.layers.segmenter import Segmenter


def settled(model: nn.Module) -> nn.Module:
    """Norms with statistics and weights as after training, so that folding them wrongly would be seen."""
    generator = torch.Generator().manual_seed(0)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.weight, part.bias, part.running_mean, part.running_var):
                if tensor is not None:
                    tensor.data = 0.5 + torch.rand(tensor.shape, generator=generator)
    return model.eval()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(5, affine=False)
    inner = nn.Sequential(nn.Conv2d(4, 5, 1), norm, nn.GELU(), nn.BatchNorm2d(5))
    return settled(nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True), inner))


def test_norms_behind_convolutions_go_and_the_outputs_stay():
    model, x = network(), torch.randn(2, 3, 11, 12)
    folded = fold_norms(model)
    with torch.inference_mode():
        torch.testing.assert_close(folded(x), model(x), rtol=1e-5, atol=1e-6)
    assert [isinstance(part, nn.BatchNorm2d) for part in folded] == [False] * 4
    assert isinstance(folded[3][3], nn.BatchNorm2d)  # behind a GELU


def test_the_model_itself_is_not_changed():
    model, x = network().train(), torch.randn(2, 3, 11, 12)
    before = copy.deepcopy(model.state_dict())
    folded = fold_norms(model)
    folded(x)
    assert model.training
    assert not folded.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in folded.parameters())


def test_what_stays_is_shared():
    model = network()
    folded = fold_norms(model)
    assert folded[3][3].running_mean.data_ptr() == model[3][3].running_mean.data_ptr()
    assert all(a.data_ptr() == b.data_ptr() for a, b in zip(sharing(model).parameters(), model.parameters(), strict=True))


def test_a_convolution_that_stands_elsewhere_too_keeps_its_weights_there():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 3, 1)
    model, x = settled(nn.Sequential(conv, nn.BatchNorm2d(3), nn.Sequential(conv))), torch.randn(1, 3, 4, 4)
    with torch.inference_mode():
        torch.testing.assert_close(fold_norms(model)(x), model(x))


@pytest.mark.parametrize(
    "kept",
    [
        nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)),
        nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)),
        nn.Sequential(nn.ConvTranspose2d(3, 3, 1), nn.BatchNorm2d(3)),
    ],
)
def test_other_pairs_stay(kept):
    model, x = settled(kept), torch.randn(2, 3, 4, 4)
    folded = fold_norms(model)
    assert [type(part) for part in folded] == [type(part) for part in model]
    assert torch.equal(folded(x), model(x))


def test_folding_in_bfloat16_rounds_once():
    exact = network()
    rough, x = fold_norms(copy.deepcopy(exact).bfloat16()), torch.randn(2, 3, 11, 12).bfloat16()
    assert {p.dtype for p in rough.parameters()} == {torch.bfloat16}
    conv, norm = exact[0].bfloat16(), exact[1].bfloat16()
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    assert torch.equal(rough[0].weight, (conv.weight.double() * scale[:, None, None, None]).bfloat16())
    assert rough(x).isfinite().all()


class Backbone(nn.Module):
    """One map; it has a way of folding of its own."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, image: Tensor) -> list[Tensor]:
        return [self.gain * image[..., ::2, ::2]]

    def fold(self) -> nn.Module:
        return Backbone(2 * self.gain)


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.body(maps[0])


def test_a_segmenter_folds_its_head_and_has_its_backbone_fold_itself():
    torch.manual_seed(0)
    model, x = settled(Segmenter(Backbone(1.0), Head(), classes=2)), torch.randn(2, 3, 8, 8)
    folded = model.fold()
    with torch.inference_mode():
        torch.testing.assert_close(folded(x), model(2 * x))
    assert not [part for part in folded.modules() if isinstance(part, nn.BatchNorm2d)]
