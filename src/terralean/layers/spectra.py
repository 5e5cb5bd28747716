"""From any number of bands to a few components, which spectral networks take for the depth of a volume."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terralean.errors import BandMismatch, ConfigError

Reduction = Literal["learned", "pca", "none"]
NOTHING = 1e-6  # share of the largest variance up to which a direction counts as not seen at all


class SpectralReduction(nn.Module):
    """(B, bands, H, W) -> (B, components, H, W), pixel by pixel: a projection that is learned, or kept at principal components.

    With "none" bands are the components, as where somebody else has computed these. Both others may start from the principal
    components of training pixels (see `start_from`); before that the projection is a random one. `whitening` says how far
    small components are brought up to the largest, see `principal_components`.
    """

    def __init__(self, kind: Reduction, *, bands: int, components: int, whitening: float = 1.0) -> None:
        super().__init__()
        if components < 1:
            raise ConfigError(f"components must be 1 or more, got {components}")
        if not 0 <= whitening <= 1:
            raise ConfigError(f"whitening must be 0 (components as large as they are) to 1 (all as large), got {whitening}")
        self.bands = bands
        self.whitening = whitening
        self.components = bands if kind == "none" else components
        self.project = None if kind == "none" else nn.Conv2d(bands, components, 1)
        if self.project is not None and kind == "pca":
            self.project.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """The components of every pixel."""
        if image.shape[1] != self.bands:
            raise BandMismatch(f"the image has {image.shape[1]} bands, the network was built for {self.bands}; give it those")
        return image if self.project is None else self.project(image)

    def start_from(self, pixels: Tensor) -> None:
        """Take the principal components of pixels (n, bands), as the network sees them, for the projection."""
        if self.project is None:
            return
        mean, weight = principal_components(pixels, count=self.components, whitening=self.whitening)
        with torch.no_grad():
            self.project.weight.copy_(weight[..., None, None])
            assert self.project.bias is not None
            self.project.bias.copy_(-weight @ mean)


def filled_up(patch: Tensor, *, least_px: int) -> Tensor:
    """(B, C, h, w) with zeros around it where a side is shorter than that, as beyond the edges of a scene."""
    missing = [max(0, least_px - side) for side in patch.shape[:-3:-1]]  # of columns, then of rows
    if not any(missing):
        return patch
    return F.pad(patch, [part for more in missing for part in (more // 2, more - more // 2)])


def principal_components(pixels: Tensor, *, count: int, whitening: float = 1.0) -> tuple[Tensor, Tensor]:
    """pixels (n, bands) -> their mean (bands,) and a projection (count, bands) to components, largest first.

    The first has deviation 1. The others have it, too, with `whitening` 1, and keep what they have beside the first with 0; in
    between, that to the power of 1 - whitening. Of each component the band that weighs most weighs positively. Components of
    which the pixels show nothing are 0.
    """
    wide = pixels.double()
    mean = wide.mean(dim=0)
    _, spread, axes = torch.linalg.svd(wide - mean, full_matrices=False)
    deviation = spread / max(len(wide) - 1, 1) ** 0.5
    seen = deviation.square() > NOTHING * deviation[:1].square()
    sign = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()
    tiny = torch.finfo(torch.float64).tiny
    size = (deviation.clamp(min=tiny) / deviation[:1].clamp(min=tiny)) ** (1 - whitening)
    weight = torch.where(seen[:, None], size[:, None] * sign * axes / deviation.clamp(min=tiny)[:, None], 0)
    padded = F.pad(weight[:count], (0, 0, 0, max(0, count - len(weight))))
    return mean.to(pixels.dtype), padded.to(pixels.dtype)
