"""How a training sample varies: each function takes a sample and returns another, mask and `valid` moved alike.

All of them work on image (..., C, H, W) with any number of bands, in the units that the scene stores.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from terralean.data.config import AugmentConfig
from terralean.data.sample import Sample
from terralean.spec import IGNORE, Normalisation


def augment(sample: Sample, config: AugmentConfig, *, normalisation: Normalisation, generator: torch.Generator) -> Sample:
    """A random variant in orientation and radiometry. Zoom is drawn by `draw_zoom`, before pixels are read."""
    if config.flips:
        sample = flip(sample, horizontal=_coin(generator), vertical=_coin(generator))
    if config.rotate90:
        sample = rotate90(sample, turns=int(torch.randint(4, (), generator=generator)))
    if config.brightness or config.contrast:
        gain, shift = draw_jitter(config, bands=sample["image"].shape[-3], generator=generator)
        sample = jitter(sample, gain=gain, shift=shift, normalisation=normalisation)
    if config.noise:
        sample = add_noise(sample, noise=config.noise, normalisation=normalisation, generator=generator)
    return sample


def draw_zoom(config: AugmentConfig, *, generator: torch.Generator) -> float:
    """A magnification: above 1 shows less ground in the same number of pixels."""
    low, high = (math.log(bound) for bound in config.zoom)
    return math.exp(low + (high - low) * float(torch.rand((), generator=generator)))


def draw_jitter(config: AugmentConfig, *, bands: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Gain (C,) about the band's mean and shift (C,) in the band's std, each band by itself."""
    gain = 1 + config.contrast * (2 * torch.rand(bands, generator=generator) - 1)
    shift = config.brightness * (2 * torch.rand(bands, generator=generator) - 1)
    return gain, shift


def flip(sample: Sample, *, horizontal: bool, vertical: bool) -> Sample:
    """Left and right, top and bottom exchanged. Its own inverse."""
    dims = [dim for dim, wanted in ((-1, horizontal), (-2, vertical)) if wanted]
    return _moved(sample, lambda x: x.flip(dims)) if dims else sample


def rotate90(sample: Sample, *, turns: int) -> Sample:
    """Quarter turns anticlockwise; four of them change nothing."""
    return _moved(sample, lambda x: torch.rot90(x, turns, (-2, -1))) if turns % 4 else sample


def resize(sample: Sample, *, height: int, width: int) -> Sample:
    """The same ground in other pixels: image bilinear over valid pixels only, mask and `valid` nearest."""
    if sample["image"].shape[-2:] == (height, width):
        return sample
    valid = sample["valid"]
    image = _bilinear(sample["image"], height=height, width=width)
    to = nearest(valid, height=height, width=width)
    if not valid.all():
        # A pixel whose nearest source is valid has at least a quarter of its bilinear weight there: nothing is divided by 0.
        weight = _bilinear(valid.float()[None], height=height, width=width)
        image = image / weight.clamp_min(1e-6) * to
    out = sample.copy()
    out["image"], out["valid"] = image, to
    if "mask" in sample:
        out["mask"] = nearest(sample["mask"], height=height, width=width)
    return out


def zoom(sample: Sample, *, factor: float, generator: torch.Generator) -> Sample:
    """Magnified by `factor` in the same number of pixels: a random part of it, or all of it in an invalid surround."""
    height, width = sample["image"].shape[-2:]
    high, wide = max(1, round(height / factor)), max(1, round(width / factor))
    row, col = _place(height, high, generator), _place(width, wide, generator)
    return resize(cut(sample, row=row, col=col, height=high, width=wide), height=height, width=width)


def cut(sample: Sample, *, row: int, col: int, height: int, width: int) -> Sample:
    """A window of the sample; what lies outside it has image 0, mask 255 and is not valid."""
    fill = {"image": 0, "mask": IGNORE, "valid": False}
    bottom, right = row + height - sample["image"].shape[-2], col + width - sample["image"].shape[-1]
    padding = (-col, right, -row, bottom)  # negative numbers crop
    out = sample.copy()
    for key, value in fill.items():
        if key in sample:
            out[key] = F.pad(sample[key].float() if key == "image" else sample[key], padding, value=value)  # type: ignore[literal-required]
    return out


def jitter(sample: Sample, *, gain: Tensor, shift: Tensor, normalisation: Normalisation) -> Sample:
    """Each band stretched about its mean by gain (C,) and moved by shift (C,) standard deviations."""
    mean, std = _columns(normalisation.mean), _columns(normalisation.std)
    image = mean + (sample["image"] - mean) * gain[:, None, None] + shift[:, None, None] * std
    return _with_image(sample, image)


def add_noise(sample: Sample, *, noise: float, normalisation: Normalisation, generator: torch.Generator) -> Sample:
    """White noise of `noise` standard deviations of each band."""
    image = sample["image"]
    return _with_image(sample, image + torch.randn(image.shape, generator=generator) * noise * _columns(normalisation.std))


def _with_image(sample: Sample, image: Tensor) -> Sample:
    out = sample.copy()
    out["image"] = image * sample["valid"]
    return out


def _moved(sample: Sample, move: Callable[[Tensor], Tensor]) -> Sample:
    out = sample.copy()
    for key in ("image", "mask", "valid"):
        if key in sample:
            out[key] = move(sample[key])
    return out


def _bilinear(x: Tensor, *, height: int, width: int) -> Tensor:
    """x (..., H, W) float."""
    flat = x.reshape(1, -1, *x.shape[-2:])
    return F.interpolate(flat, (height, width), mode="bilinear").reshape(*x.shape[:-2], height, width)


def nearest(x: Tensor, *, height: int, width: int) -> Tensor:
    """x (H, W) of any type -> (height, width): each pixel as the one in the middle of what it covers."""
    rows = ((torch.arange(height) + 0.5) * (x.shape[0] / height)).long().clamp_max(x.shape[0] - 1)
    cols = ((torch.arange(width) + 0.5) * (x.shape[1] / width)).long().clamp_max(x.shape[1] - 1)
    return x.index_select(0, rows).index_select(1, cols)


def _columns(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None, None]


def _coin(generator: torch.Generator) -> bool:
    return bool(torch.randint(2, (), generator=generator))


def _place(outer: int, inner: int, generator: torch.Generator) -> int:
    """First of `inner` pixels within `outer`, or around it where `inner` is the larger."""
    low, high = min(0, outer - inner), max(0, outer - inner)
    return low + int(torch.randint(high - low + 1, (), generator=generator))
