"""Single pixels of an image replaced by noise, to see what a model makes of them (Zhang & Yao 2025, noise robustness).

What is drawn hangs on nothing but a seed, the image's name and the number of pixels: not on the order of images, not on the
windows in which they are read, and not on how many of these make a batch. Labels, and which pixels hold data, stay as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from terralean.errors import ConfigError
from terralean.raster.grid import Window
from terralean.spec import Normalisation

CELL_PX = 512  # side of the squares, from the image's first pixel, in each of which so many pixels are replaced
BYTES = "uint8"
REACH = 3  # standard deviations to either side of the mean that stand for the range of data that are not bytes

NoiseMode = Literal["uniform", "saltpepper"]
Range = tuple[tuple[float, float], ...]  # least and largest value of each band


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseConfig:
    """How many pixels of 512 x 512 are replaced, and by what."""

    pixels: tuple[int, ...]  # one number for each test; 0 is the image as it is
    mode: NoiseMode = "uniform"  # every band evenly over its range by itself, or all bands at one end of it
    seed: int = 0

    def __post_init__(self) -> None:
        most = CELL_PX**2
        if not self.pixels or len(set(self.pixels)) < len(self.pixels) or not all(0 <= k <= most for k in self.pixels):
            raise ConfigError(
                f"noise is different whole numbers of pixels in {CELL_PX} x {CELL_PX}, 0 to {most}, got {list(self.pixels)}; "
                "e.g. 0,100,1000"
            )
        if self.seed < 0:
            raise ConfigError(f"the seed of noise is 0 or more, got {self.seed}")


class Drawn(NamedTuple):
    """The pixels of a square that are replaced."""

    rows: NDArray[np.int64]  # (k,) in the square, as are the columns
    cols: NDArray[np.int64]
    values: NDArray[np.float64]  # (C, k)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The noise of one image."""

    name: str  # of the image
    height: int
    width: int
    pixels: int  # in CELL_PX x CELL_PX
    mode: NoiseMode
    seed: int
    range: Range
    whole: bool  # whether its values are whole numbers


def data_range(normalisation: Normalisation, *, dtype: str) -> Range:
    """Least and largest value of each band: 0 to 255 of bytes, of other types three standard deviations about the mean.

    Mean and deviation are those of the training pixels; whole numbers stay within what their type holds.
    """
    if dtype == BYTES:
        return ((0.0, 255.0),) * len(normalisation.mean)
    pairs = zip(normalisation.mean, normalisation.std, strict=True)
    ends = [(mean - REACH * std, mean + REACH * std) for mean, std in pairs]
    if np.dtype(dtype).kind == "f":
        return tuple(ends)
    info = np.iinfo(dtype)
    return tuple((float(max(np.ceil(low), info.min)), float(min(np.floor(high), info.max))) for low, high in ends)


def draw_noise(noise: Noise, *, row: int, col: int) -> Drawn:
    """What replaces pixels of the square in this row and column of squares: distinct positions, and a value for each band.

    Squares that the image's edge cuts have their share of the pixels, rounded.
    """
    high, wide = min(CELL_PX, noise.height - row * CELL_PX), min(CELL_PX, noise.width - col * CELL_PX)
    count = int(noise.pixels * high * wide / CELL_PX**2 + 0.5)
    rng = _generator(f"{noise.seed}/{noise.pixels}/{noise.mode}/{row}/{col}/{noise.name}")
    place = rng.choice(high * wide, size=count, replace=False)
    low, top = (np.array(ends)[:, None] for ends in zip(*noise.range, strict=True))
    if noise.mode == "saltpepper":
        values = np.where(rng.random(count) < 0.5, low, top)  # noqa: PLR2004 - a fair coin for each pixel
    elif noise.whole:
        values = rng.integers(low.astype(int), top.astype(int), size=(len(low), count), endpoint=True).astype(np.float64)
    else:
        values = rng.uniform(low, top, size=(len(low), count))
    return Drawn(rows=place // wide, cols=place % wide, values=values)


def with_noise(values: NDArray[Any], *, window: Window, noise: Noise) -> NDArray[Any]:
    """Values (C, h, w) of a window of the image, with its noisy pixels replaced. The window may reach past the edges."""
    out = values.copy()
    inside = window.cut(Window(row=0, col=0, height=noise.height, width=noise.width))
    for row in _cells(inside.row, inside.height):
        for col in _cells(inside.col, inside.width):
            drawn = draw_noise(noise, row=row, col=col)
            rows, cols = drawn.rows + row * CELL_PX - window.row, drawn.cols + col * CELL_PX - window.col
            here = (rows >= 0) & (rows < window.height) & (cols >= 0) & (cols < window.width)
            out[:, rows[here], cols[here]] = drawn.values[:, here]
    return out


@dataclass(frozen=True, kw_only=True)
class NoisyScene:
    """A part of an image that is read with noise."""

    scene: Any  # what reads windows of the part: values (C, h, w) and valid (h, w)
    part: Window  # in the image
    noise: Noise

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Values (C, h, w) and valid (h, w), which noise does not change; outside, 0 and not valid."""
        values, valid = self.scene.read(window)
        place = replace(window, row=window.row + self.part.row, col=window.col + self.part.col)
        return with_noise(values, window=place, noise=self.noise), valid


def _cells(start: int, length: int) -> Sequence[int]:
    return range(start // CELL_PX, -(-(start + length) // CELL_PX) if length > 0 else 0)


def _generator(words: str) -> np.random.Generator:
    """The same numbers for the same words, on any machine."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(words.encode()).digest(), "big"))
