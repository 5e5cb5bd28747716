"""Networks of every family, small, with weights large enough for tokens to differ."""

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn

from terralean.models import create
from terralean.models.lemevit import LeMeViT, LeMeViTConfig, LeMeViTPyramid
from weights import image

TOY = LeMeViTConfig(depths=(1, 2, 2, 1, 1), dims=(32, 32, 64, 96, 128), classes=5)


class LastMap(nn.Module):
    """A pyramid with a head on its map of S2, whose last block leaves half of a projection unused."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = LeMeViTPyramid(TOY, out_indices=(1,))
        self.head = nn.Conv2d(TOY.dims[2], 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x)[0])


def _vit() -> nn.Module:
    sizes = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32, "patch_size": 8}
    return timm.create_model("vit_tiny_patch16_224", num_classes=5, **sizes)


def _swin() -> nn.Module:
    sizes = {"embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "img_size": 32, "window_size": 4, "drop_path_rate": 0.0}
    return timm.create_model("swin_tiny_patch4_window7_224", num_classes=5, **sizes)


def _lola() -> nn.Module:
    return create("lola_specvit", bands=3, classes=5, components=3, dim=16, heads=2, drop_path=0.0, dropout=0.0)


BUILDS: dict[str, tuple[Callable[[], nn.Module], int]] = {  # and the side of its images
    "lemevit": (lambda: LeMeViT(TOY), 64),
    "lemevit, dense": (LastMap, 64),
    "vit": (_vit, 32),
    "swin": (_swin, 32),
    "lola": (_lola, 15),
}


@pytest.fixture(params=BUILDS)
def network(request) -> tuple[nn.Module, Tensor]:
    """A network and a batch of images for it."""
    build, side = BUILDS[request.param]
    torch.manual_seed(0)
    model = build()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape), alpha=0.05)
    return model.eval(), torch.from_numpy(image(0, (2, 3, side, side)))
