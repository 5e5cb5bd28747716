"""Formulas against the same networks laid out as plain layers, and against what is published."""

import pytest
import torch
from torch import Tensor, nn

from terralean.benchmark import heads
from terralean.cost.macs import count_macs_at, parameters

CHANNELS = (64, 128, 192, 320)


class OrientedRCNN(nn.Module):
    """Every layer of the detector, fed with maps of the right size."""

    def __init__(self) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, 256, 1) for c in CHANNELS)
        self.smooth = nn.ModuleList(nn.Conv2d(256, 256, 3, padding=1) for _ in CHANNELS)
        self.rpn, self.score, self.code = nn.Conv2d(256, 256, 3, padding=1), nn.Conv2d(256, 3, 1), nn.Conv2d(256, 18, 1)
        self.regions = nn.Sequential(nn.Linear(256 * 49, 1024), nn.Linear(1024, 1024))
        self.classify, self.box = nn.Linear(1024, 16), nn.Linear(1024, 5)

    def forward(self, image: Tensor) -> None:
        sides = [image.shape[-1] // r for r in (4, 8, 16, 32)]
        maps = [
            smooth(lateral(image.new_empty(1, c, side, side)))
            for lateral, smooth, c, side in zip(self.lateral, self.smooth, CHANNELS, sides, strict=True)
        ]
        for level in [*maps, maps[-1][..., ::2, ::2]]:
            seen = self.rpn(level)
            self.score(seen), self.code(seen)
        regions = self.regions(image.new_empty(1000, 256 * 49))
        self.classify(regions), self.box(regions)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
        self.q, self.k, self.v = (nn.Linear(32, 512, bias=False) for _ in range(3))
        self.out, self.mlp = nn.Linear(512, 32), nn.Sequential(nn.Linear(32, 64), nn.Linear(64, 32))

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        q, _, _ = self.q(x), self.k(memory), self.v(memory)
        return self.mlp(self.out(q))


class Bit(nn.Module):
    """Every layer of the change network without its attention products."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.tokens = nn.Conv2d(CHANNELS[2], 32, 3, padding=1), nn.Conv2d(32, 4, 1, bias=False)
        self.position = nn.Parameter(torch.empty(1, 8, 32))
        self.encoder, self.decoder = Attention(), nn.ModuleList(Attention() for _ in range(8))
        self.last = nn.Sequential(
            nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.Conv2d(32, 2, 3, padding=1)
        )

    def forward(self, image: Tensor) -> None:
        tokens = image.new_empty(1, 8, 32)
        self.encoder(tokens, tokens)
        for date in range(2):
            seen = self.narrow(image.new_empty(1, CHANNELS[2], 32, 32))
            self.tokens(seen)
            x = seen.flatten(2).mT
            for block in self.decoder:
                x = block(x, tokens[:, 4 * date : 4 * date + 4])
        self.last(image.new_empty(1, 32, 256, 256))


@pytest.mark.parametrize(
    ("build", "size_px", "cost"),
    [(OrientedRCNN, 1024, heads.oriented_rcnn(CHANNELS)), (Bit, 256, heads.bit(CHANNELS[2]))],
)
def test_formula_is_the_sum_over_the_layers(build, size_px, cost):
    with torch.device("meta"):
        model = build()
    assert parameters(model) == cost.parameters
    assert count_macs_at(model, (1, 3, size_px, size_px)).layers == cost.macs


def test_shares_of_the_detector_are_those_known():
    """53.2, 52.0 and 13.9 GMACs for pyramid, proposals and regions of LeMeViT-tiny."""
    assert heads.oriented_rcnn(CHANNELS).macs / 1e9 == pytest.approx(53.2 + 52.0 + 13.9, abs=0.05)


@pytest.mark.parametrize(("width", "millions"), [(192, 0.69), (320, 0.73), (384, 0.75)])
def test_change_heads_have_the_parameters_known(width, millions):
    assert heads.bit(width).parameters / 1e6 == pytest.approx(millions, abs=0.005)
