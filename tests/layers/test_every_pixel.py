import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terralean.cost.macs import count_macs
from terralean.layers.every_pixel import EveryPixel
from terralean.models import PIXEL_CLASSIFIERS, create
from weights import image

NETS = {
    "lola_specvit": {"dim": 16, "heads": 2, "window_px": 11},
    "with edges": {"dim": 16, "heads": 2, "window_px": 7, "edges": "zeros"},
    "each patch normalised": {"dim": 16, "heads": 2, "window_px": 11, "patch_norm": True},
    "the pixel itself": {"dim": 16, "heads": 2, "window_px": 9, "centre": True},
    "ssftt": {"window_px": 7, "components": 5},
    "hybridsn": {"window_px": 11, "components": 14},
}


def net(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = create(name if name in PIXEL_CLASSIFIERS else "lola_specvit", bands=6, classes=3, **NETS[name])
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape), alpha=0.1)
    return model.eval()


def one_by_one(model: nn.Module, picture: Tensor) -> Tensor:
    """Each pixel's patch cut out and classified by itself."""
    side = model.window_px
    around = F.pad(picture, (side // 2,) * 4)
    rows = [
        torch.stack([model(around[:, :, row : row + side, col : col + side]) for col in range(picture.shape[3])], dim=-1)
        for row in range(picture.shape[2])
    ]
    return torch.stack(rows, dim=-2)


@pytest.mark.parametrize("name", NETS)
@torch.inference_mode()
def test_it_says_of_each_pixel_what_the_network_says_of_its_patch(name):
    model, picture = net(name), torch.from_numpy(image(0, (2, 6, 5, 4)))
    expected = one_by_one(model, picture)
    assert expected.std(dim=(2, 3)).min() > 1e-3
    for rows, windows in ((64, 4096), (2, 3)):
        torch.testing.assert_close(EveryPixel(model, rows=rows, windows=windows)(picture), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["lola_specvit", "ssftt", "hybridsn"])
def test_what_neighbours_share_is_computed_once(name):
    with torch.device("meta"):
        model = net(name)
        side, size = model.window_px, 12
        dense = count_macs(EveryPixel(model), torch.empty(1, 6, size, size)).total
        single = count_macs(model, torch.empty(1, 6, side, side)).total
        shared = count_macs(_Part(model.shared), torch.empty(1, 6, size + side - 1, size + side - 1)).total
        one = count_macs(_Part(model.shared), torch.empty(1, 6, side, side)).total
    assert dense == shared + size**2 * (single - one)
    assert dense < 0.7 * size**2 * single


class _Part(nn.Module):
    def __init__(self, call) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x)
