import torch
from torch import Tensor, nn

from terralean.layers.segmenter import Segmenter


class Halves(nn.Module):
    """Two maps, at a half and at a quarter."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 2, stride=2)
        self.second = nn.Conv2d(4, 8, 2, stride=2)

    def forward(self, image: Tensor) -> list[Tensor]:
        half = self.first(image)
        return [half, self.second(half)]

    def no_weight_decay(self) -> set[str]:
        return {"first.bias"}


class Reads(nn.Module):
    def __init__(self, channels: int, level: int) -> None:
        super().__init__()
        self.level = level
        self.classify = nn.Conv2d(channels, 5, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.classify(maps[self.level])


def segmenter(*, auxiliary: bool) -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(Halves(), Reads(4, 0), classes=2, auxiliary=Reads(8, 1) if auxiliary else None)


def test_scores_do_not_depend_on_the_auxiliary_head():
    with_it, without, x = segmenter(auxiliary=True), segmenter(auxiliary=False), torch.randn(2, 3, 13, 18)
    without.load_state_dict({k: v for k, v in with_it.state_dict().items() if not k.startswith("auxiliary.")})
    expected = without.train()(x)
    assert expected.shape == (2, 5, 13, 18)
    assert torch.equal(with_it.eval()(x), expected)
    assert torch.equal(without.eval()(x), expected)
    assert torch.equal(with_it.train()(x)["scores"], expected)


def test_auxiliary_scores_come_in_training_only_and_at_the_size_of_the_image():
    model, x = segmenter(auxiliary=True), torch.randn(2, 3, 13, 18)
    answer = model.train()(x)
    assert answer.keys() == {"scores", "auxiliary"}
    coarse = model.auxiliary(model.backbone(x))
    expected = nn.functional.interpolate(coarse, size=(13, 18), mode="bilinear", align_corners=False)
    assert torch.equal(answer["auxiliary"], expected)
    assert isinstance(model.eval()(x), Tensor)


def test_both_scores_reach_the_backbone_and_their_own_head():
    model = segmenter(auxiliary=True).train()
    model(torch.randn(1, 3, 8, 8))["auxiliary"].square().mean().backward()
    assert model.head.classify.weight.grad is None
    assert model.auxiliary.classify.weight.grad.abs().sum() > 0
    assert model.backbone.first.weight.grad.abs().sum() > 0


def test_names_that_are_not_decayed_are_those_of_the_backbone():
    model = segmenter(auxiliary=True)
    assert model.no_weight_decay() == {"backbone.first.bias"}
    assert model.no_weight_decay() <= dict(model.named_parameters()).keys()
