"""HybridSN: three convolutions over volumes, one over maps, and three linear layers, for the class of a pixel.

Roy et al. 2019, "HybridSN: Exploring 3-D-2-D CNN Feature Hierarchy for Hyperspectral Image Classification" (IEEE GRSL 17(2)),
table I: 5,122,176 parameters with 30 components, windows of 25 px and 16 classes. Theirs are principal components.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from terralean.errors import ConfigError, SizeError
from terralean.layers.spectra import Reduction, SpectralReduction

DEPTHS = (7, 5, 3)  # of the kernels along the spectrum; over rows and columns they all have 3 px
WIDTHS = (1, 8, 16, 32)
MAPS = 64  # of the convolution over rows and columns
HIDDEN = (256, 128)
DROPOUT = 0.4
LOST = sum(DEPTHS) - len(DEPTHS)  # components that the volumes lose, as nothing is put around them


@dataclass(frozen=True, kw_only=True, slots=True)
class HybridSNConfig:
    """What its sizes hang on."""

    bands: int
    classes: int
    window_px: int  # side of the patch around a pixel
    spectral: Reduction
    components: int

    def __post_init__(self) -> None:
        if self.window_px < 2 * HybridSN.margin_px + 1 or self.window_px % 2 == 0:
            raise ConfigError(f"window_px must be an odd number from {2 * HybridSN.margin_px + 1}, got {self.window_px}")


class HybridSN(nn.Module):
    """The class of the pixel in the middle of a patch: (B, bands, h, w) -> logits (B, classes), h and w the window's side."""

    margin_px = len(DEPTHS) + 1  # how much less than its image `shared` covers, on each side

    def __init__(self, config: HybridSNConfig) -> None:
        super().__init__()
        self.config, self.window_px, self.num_classes = config, config.window_px, config.classes
        self.spectral = SpectralReduction(config.spectral, bands=config.bands, components=config.components)
        left = self.spectral.components - LOST
        if left < 1:
            raise ConfigError(f"HybridSN needs {LOST + 1} components at least, got {self.spectral.components}")
        volumes = [
            layer
            for depth, (before, after) in zip(DEPTHS, pairwise(WIDTHS), strict=True)
            for layer in (nn.Conv3d(before, after, (depth, 3, 3)), nn.ReLU())
        ]
        self.volumes = nn.Sequential(*volumes)
        self.maps = nn.Sequential(nn.Conv2d(WIDTHS[-1] * left, MAPS, 3), nn.ReLU())
        side = config.window_px - 2 * self.margin_px
        hidden = [
            layer
            for before, after in pairwise((MAPS * side**2, *HIDDEN))
            for layer in (nn.Linear(before, after), nn.ReLU(), nn.Dropout(DROPOUT))
        ]
        self.hidden = nn.Sequential(*hidden)
        self.head = nn.Linear(HIDDEN[-1], config.classes)

    def forward(self, patch: Tensor) -> Tensor:
        """Logits (B, classes). Raises SizeError for patches of another side."""
        if patch.shape[2:] != (self.window_px, self.window_px):
            raise SizeError(
                f"HybridSN of windows of {self.window_px} px got patches of {patch.shape[2]} x {patch.shape[3]} px; its first "
                "linear layer is for one size: cut such patches, or build it with that window_px"
            )
        return self.answer(self.shared(patch))

    def shared(self, image: Tensor) -> Tensor:
        """image (B, bands, H, W) -> what patches of it have in common, `margin_px` smaller on each side: all convolutions."""
        return self.maps(self.volumes(self.spectral(image)[:, None]).flatten(1, 2))

    def answer(self, windows: Tensor) -> Tensor:
        """windows (B, C, h, w) of what `shared` gives -> logits (B, classes)."""
        return self.head(self.hidden(windows.flatten(1)))

    def start_from(self, pixels: Tensor) -> None:
        """Begin with the principal components of pixels (n, bands), normalised as the network sees them."""
        self.spectral.start_from(pixels)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head


def hybridsn(*, bands: int, classes: int, window_px: int = 25, spectral: Reduction = "pca", components: int = 30) -> HybridSN:
    """5.12 M parameters with 16 classes; 1.19 M with windows of 15 px, which see less of a scene."""
    return HybridSN(HybridSNConfig(bands=bands, classes=classes, window_px=window_px, spectral=spectral, components=components))
