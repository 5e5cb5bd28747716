"""SSFTT: two convolutions, a few tokens that each gather what belongs together, and one transformer layer, for a pixel's class.

Sun et al. 2022, "Spectral-Spatial Feature Tokenization Transformer for Hyperspectral Image Classification" (IEEE TGRS 60): 30
principal components, windows of 13 px, four tokens of width 64 beside the class token. It is of that size and design; the
authors draw some start values otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from terralean.errors import ConfigError
from terralean.layers.spectra import Reduction, SpectralReduction, filled_up

VOLUMES, WIDTH = 8, 64
TOKENS, HEADS, HIDDEN = 4, 4, 8
DROPOUT = 0.1
LEAST_PX = 5  # that two convolutions of 3 px leave something of


@dataclass(frozen=True, kw_only=True, slots=True)
class SSFTTConfig:
    """What its sizes hang on."""

    bands: int
    classes: int
    window_px: int  # side of the patch around a pixel
    spectral: Reduction
    components: int

    def __post_init__(self) -> None:
        if self.window_px < LEAST_PX or self.window_px % 2 == 0:
            raise ConfigError(f"window_px must be an odd number from {LEAST_PX}, got {self.window_px}")


class SSFTT(nn.Module):
    """The class of the pixel in the middle of a patch: (B, bands, h, w) -> logits (B, classes), for any h and w."""

    margin_px = 2  # how much less than its image `shared` covers, on each side

    def __init__(self, config: SSFTTConfig) -> None:
        super().__init__()
        self.config, self.window_px, self.num_classes = config, config.window_px, config.classes
        self.spectral = SpectralReduction(config.spectral, bands=config.bands, components=config.components)
        if self.spectral.components < 3:  # noqa: PLR2004 - the kernel's depth
            raise ConfigError(f"SSFTT needs 3 components at least, got {self.spectral.components}")
        self.volume = nn.Sequential(nn.Conv3d(1, VOLUMES, 3), nn.BatchNorm3d(VOLUMES), nn.ReLU())
        maps = nn.Conv2d(VOLUMES * (self.spectral.components - 2), WIDTH, 3)
        self.maps = nn.Sequential(maps, nn.BatchNorm2d(WIDTH), nn.ReLU())
        self.gather = nn.Linear(WIDTH, TOKENS, bias=False)
        self.value = nn.Linear(WIDTH, WIDTH, bias=False)
        self.class_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.empty(1, TOKENS + 1, WIDTH))
        self.dropout = nn.Dropout(DROPOUT)
        self.block = Block(WIDTH, HEADS, mlp_ratio=HIDDEN / WIDTH, qkv_bias=True, proj_drop=DROPOUT)
        self.head = nn.Linear(WIDTH, config.classes)
        nn.init.normal_(self.positions, std=0.02)
        nn.init.xavier_normal_(self.gather.weight)
        nn.init.xavier_normal_(self.value.weight)

    def forward(self, patch: Tensor) -> Tensor:
        """Logits (B, classes)."""
        return self.answer(self.shared(filled_up(patch, least_px=LEAST_PX)))

    def shared(self, image: Tensor) -> Tensor:
        """image (B, bands, H, W) -> what patches of it have in common, `margin_px` smaller on each side: the convolutions."""
        return self.maps(self.volume(self.spectral(image)[:, None]).flatten(1, 2))

    def answer(self, windows: Tensor) -> Tensor:
        """windows (B, C, h, w) of what `shared` gives -> logits (B, classes)."""
        pixels = windows.flatten(2).transpose(1, 2)
        weights = self.gather(pixels).softmax(dim=1)  # of each token over the pixels
        tokens = torch.cat([self.class_token.expand(len(pixels), -1, -1), weights.mT @ self.value(pixels)], dim=1)
        return self.head(self.block(self.dropout(tokens + self.positions))[:, 0])

    def start_from(self, pixels: Tensor) -> None:
        """Begin with the principal components of pixels (n, bands), normalised as the network sees them."""
        self.spectral.start_from(pixels)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head

    def no_weight_decay(self) -> set[str]:
        """Names of parameters to leave without weight decay beside the one-dimensional ones."""
        return {"class_token", "positions"}


def ssftt(*, bands: int, classes: int, window_px: int = 13, spectral: Reduction = "pca", components: int = 30) -> SSFTT:
    """0.15 M parameters."""
    return SSFTT(SSFTTConfig(bands=bands, classes=classes, window_px=window_px, spectral=spectral, components=components))
