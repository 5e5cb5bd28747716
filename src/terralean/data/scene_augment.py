"""Parts of images on the network's square of pixels, and how training ones vary.

RandAugment (Cubuk et al. 2020) and random erasing (Zhong et al. 2020) are timm's, the crop is torchvision's; all of them draw
from global generators, which `drawn` seeds and puts back.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import str_to_pil_interp
from torch import Tensor
from torchvision.transforms import RandomResizedCrop

from terralean.data.augment import flip, nearest, rotate90
from terralean.data.sample import Sample
from terralean.data.scene_config import Interpolation, SceneAugmentConfig
from terralean.data.scene_picture import Picture
from terralean.errors import ConfigError
from terralean.raster.grid import Window
from terralean.spec import Bands, Normalisation

COLOURS = 3  # bands, of 8 bits, that RandAugment is made for
SHIFT = 0.45  # of the side, the farthest that RandAugment moves an image; timm's
TRIES = 4  # draws of a crop before one without a valid pixel is taken


@contextmanager
def drawn(seed: NDArray[np.unsignedinteger]) -> Iterator[None]:
    """Global generators of Python, numpy and torch (CPU) begin at the seed (n,), and are as they were afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    number = int.from_bytes(seed.tobytes(), "little")
    random.seed(number)
    np.random.seed(seed)
    torch.default_generator.manual_seed(number % (1 << 63))  # torch.manual_seed would reach for the GPU's, too
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def shown(picture: Picture, window: Window, *, size_px: int, interpolation: Interpolation) -> Sample:
    """A window of a picture as image (C, S, S) and valid (S, S), antialiased. What is not valid is 0.

    Values of 8 bits stay whole numbers, as Pillow has it. Where pixels are missing the others are averaged, bilinear.
    """
    rows, cols = window.slices()
    return resized(
        np.array(picture.values[:, rows, cols], order="K"),  # as it lies: of bands side by side each resize is quicker
        picture.valid[rows, cols],
        height=size_px,
        width=size_px,
        interpolation=interpolation,
    )


def resized(values: NDArray, valid: NDArray[np.bool_], *, height: int, width: int, interpolation: Interpolation) -> Sample:
    """values (C, h, w), valid (h, w) -> image (C, height, width), valid (height, width)."""
    image, there = torch.from_numpy(values)[None], torch.from_numpy(np.array(valid))
    size = (height, width)
    if bool(there.all()):
        image = image if image.dtype == torch.uint8 else image.float()
        if values.shape[1:] != size:
            image = F.interpolate(image, size, mode=interpolation, antialias=True)
        return {"image": image[0].float(), "valid": torch.ones(size, dtype=torch.bool)}
    to = nearest(there, height=height, width=width)
    # A pixel whose nearest source is valid has some of its weight there: nothing is divided by 0.
    weight = F.interpolate(there.float()[None, None], size, mode="bilinear", antialias=True)
    known = F.interpolate(torch.where(there, image.float(), 0.0), size, mode="bilinear", antialias=True)
    return {"image": torch.where(to, known / weight.clamp_min(1e-6), 0.0)[0], "valid": to}


class Variation:
    """Draws a training crop of a picture and varies it. Randomness is global, see `drawn`."""

    def __init__(self, config: SceneAugmentConfig, *, size_px: int, bands: Bands, normalisation: Normalisation) -> None:
        self.config, self.size_px = config, size_px
        self.mean, self.std = (torch.tensor(each)[:, None, None] for each in (normalisation.mean, normalisation.std))
        self.recolour = _rand_augment(config, size_px, bands, normalisation)
        self.erase = RandomErasing(config.erasing, mode="pixel", device="cpu")

    @property
    def keep_px(self) -> int:
        """Along the shorter side of an image: with so many pixels its smallest crop still has one for each of the network's."""
        narrowest = min(self.config.crop_ratio[0], 1 / self.config.crop_ratio[1])
        return math.ceil(self.size_px / math.sqrt(self.config.crop_scale[0] * min(narrowest, 1)))

    def __call__(self, picture: Picture) -> Sample:
        """image (C, S, S) in the units of the picture and valid (S, S)."""
        window = self._window(picture)
        sample = shown(picture, window, size_px=self.size_px, interpolation=self.config.interpolation)
        if self.config.flips != "none":
            sample = flip(sample, horizontal=_coin(), vertical=self.config.flips == "both" and _coin())
        if self.config.rotate90:
            sample = rotate90(sample, turns=int(torch.randint(4, ())))
        if self.recolour is not None:
            sample = _recoloured(sample, by=self.recolour, fill=self.mean)
        return self._erased(sample) if self.config.erasing else sample

    def _window(self, picture: Picture) -> Window:
        """A crop with a valid pixel, if some draws have one."""
        whole = torch.empty(1).expand(1, *picture.valid.shape)  # only its size is asked for
        for _ in range(TRIES):
            row, col, height, width = RandomResizedCrop.get_params(
                whole, scale=list(self.config.crop_scale), ratio=list(self.config.crop_ratio)
            )
            window = Window(row=row, col=col, height=height, width=width)
            if picture.valid[window.slices()].any():
                break
        return window

    def _erased(self, sample: Sample) -> Sample:
        """With a rectangle of noise, whose values are standard normal once they are normalised."""
        noise = self.erase(torch.full_like(sample["image"], torch.nan))
        hit = ~noise.isnan() & sample["valid"]
        return {"image": torch.where(hit, self.mean + self.std * noise, sample["image"]), "valid": sample["valid"]}


Recolour = Callable[[Image.Image], Image.Image]


def _rand_augment(config: SceneAugmentConfig, size_px: int, bands: Bands, normalisation: Normalisation) -> Recolour | None:
    if config.rand_augment is None:
        return None
    if len(bands) != COLOURS or bands.dtype != "uint8":
        raise ConfigError(
            f"data.augment.rand_augment {config.rand_augment} works on {COLOURS} bands of 8 bits, the images have {len(bands)} "
            f"of {bands.dtype}; do without: --set data.augment.rand_augment=null"
        )
    settings = {
        "translate_const": int(size_px * SHIFT),
        "img_mean": tuple(min(255, max(0, round(mean))) for mean in normalisation.mean),
        "interpolation": str_to_pil_interp(config.interpolation),
    }
    transform = rand_augment_transform(config.rand_augment, settings)
    for operation in transform.ops:
        if operation.name.startswith("Posterize"):
            operation.level_fn = partial(_bits, operation.level_fn)
    return transform


def _bits(level_fn: Callable[[float, dict], tuple[int]], level: float, settings: dict) -> tuple[int]:
    """Of each band that posterizing keeps, one at least: timm asks for none now and then, which new Pillows refuse."""
    return (max(1, level_fn(level, settings)[0]),)


def _recoloured(sample: Sample, *, by: Recolour, fill: Tensor) -> Sample:
    """By RandAugment, which moves pixels too and fills with the mean: what is not valid becomes that, as networks see it."""
    image = torch.where(sample["valid"], sample["image"], fill).round().clamp(0, 255).byte()
    varied = np.array(by(Image.fromarray(image.permute(1, 2, 0).numpy())))
    return {"image": torch.from_numpy(varied).permute(2, 0, 1).float(), "valid": torch.ones_like(sample["valid"])}


def _coin() -> bool:
    return bool(torch.randint(2, ()))
