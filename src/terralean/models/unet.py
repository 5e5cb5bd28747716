"""U-Net with a ResNet-18 encoder, as `segmentation_models_pytorch` builds it (Ronneberger et al. 2015; Iakubovskii 2019)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from terralean.errors import ConfigError

STRIDE = 32  # of the encoder; the library's decoder takes multiples of it alone


class AnySize(nn.Module):
    """A network for multiples of STRIDE made to take any size: zeros are added below and right, and cut off the scores."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """(B, bands, H, W) -> scores (B, classes, H, W)."""
        height, width = image.shape[-2:]
        return self.network(F.pad(image, (0, -width % STRIDE, 0, -height % STRIDE)))[..., :height, :width]


def unet_resnet18(*, bands: int, classes: int) -> AnySize:
    """U-Net on ResNet-18, 14.33 M parameters; needs the extra `rivals`."""
    try:
        import segmentation_models_pytorch as smp  # noqa: PLC0415 - an extra that only this model needs
    except ImportError as error:
        raise ConfigError(
            "unet_resnet18 is built by segmentation_models_pytorch, which is not installed; pip install 'terralean[rivals]'"
        ) from error
    return AnySize(smp.Unet("resnet18", encoder_weights=None, in_channels=bands, classes=classes))
