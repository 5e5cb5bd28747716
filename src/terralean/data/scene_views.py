"""What is judged of an image: its centre, or a grid of squares that covers it coarsely and finely."""

from __future__ import annotations

import math

import numpy as np
import torch

from terralean.data.sample import Sample
from terralean.data.scene_augment import resized, shown
from terralean.data.scene_config import SceneDataConfig
from terralean.data.scene_picture import Picture
from terralean.raster.grid import Window

STRIDE = 0.75  # of the side of a square: neighbours share a quarter
FINER = 1.5  # times; squares that are less than that much smaller than the coarse ones show nothing new
GROWTH = 2**0.125  # by which squares that are too many grow until they are few enough
MARGIN = 4  # times as many pixels as are judged are read of a large image, so that reading it reduced changes nothing to see
LONGEST = 3  # times the shorter side: of the longer one no more is looked at for the centre


def views(picture: Picture, config: SceneDataConfig) -> Sample:
    """image (V, C, S, S) in the units of the picture and valid (V, S, S)."""
    if config.views == "centre":
        parts = [centre(picture, config)]
    else:
        how = config.augment.interpolation
        squares = covering(*picture.valid.shape, config=config)
        parts = [shown(picture, square, size_px=config.size_px, interpolation=how) for square in squares]
    return {"image": torch.stack([part["image"] for part in parts]), "valid": torch.stack([part["valid"] for part in parts])}


def keep_px(config: SceneDataConfig) -> int:
    """Along the shorter side of an image, that views are cut from."""
    fine = 0 if config.views == "centre" else math.isqrt(config.most_views) * config.size_px
    return max(MARGIN * config.resize_px, fine)


def centre(picture: Picture, config: SceneDataConfig) -> Sample:
    """The shorter side resized to `resize_px`, and of that the central square of `size_px`, as torchvision cuts it."""
    rows, cols = (_middle(length, min(picture.valid.shape)) for length in picture.valid.shape)
    height, width = (part.stop - part.start for part in (rows, cols))
    shorter = min(height, width)
    sample = resized(
        np.array(picture.values[:, rows, cols], order="K"),
        picture.valid[rows, cols],
        height=height * config.resize_px // shorter,
        width=width * config.resize_px // shorter,
        interpolation=config.augment.interpolation,
    )
    row, col = (round((length - config.size_px) / 2) for length in sample["valid"].shape)
    rows, cols = slice(row, row + config.size_px), slice(col, col + config.size_px)
    return {"image": sample["image"][:, rows, cols], "valid": sample["valid"][rows, cols]}


def covering(height: int, width: int, *, config: SceneDataConfig) -> list[Window]:
    """Squares within an image: such as the centre is, so many that they cover it, then smaller ones that cover it as well.

    The small ones have the network's size if the image's pixels allow it, or else as much more as keeps all of them within
    `most_views`. Of a strip that is too long for so many, squares at equal distances are looked at.
    """
    coarse = min(height, width) * config.size_px / config.resize_px
    squares = _grid(height, width, side=coarse, most=config.most_views)
    fine = float(config.size_px)
    room = config.most_views - len(squares)
    while fine * FINER <= coarse and math.prod(_counts(height, width, side=fine)) > room:
        fine *= GROWTH
    return squares + (_grid(height, width, side=fine, most=room) if fine * FINER <= coarse else [])


def _grid(height: int, width: int, *, side: float, most: int) -> list[Window]:
    """At most so many squares, spread evenly from edge to edge."""
    rows, cols = _counts(height, width, side=side)
    rows, cols = (min(rows, max(1, most // cols)), cols) if rows >= cols else (rows, min(cols, max(1, most // rows)))
    px = max(1, round(side))
    return [
        Window(row=row, col=col, height=px, width=px)
        for row in _starts(height, px, count=min(rows, most))
        for col in _starts(width, px, count=min(cols, most))
    ]


def _counts(height: int, width: int, *, side: float) -> tuple[int, int]:
    """Squares along each side that it takes to cover the image."""
    rows, cols = (math.ceil(max(0.0, length - side) / (side * STRIDE)) + 1 for length in (height, width))
    return rows, cols


def _starts(length: int, side: int, *, count: int) -> list[int]:
    if count == 1:
        return [(length - side) // 2]
    return [round(i * (length - side) / (count - 1)) for i in range(count)]


def _middle(length: int, shorter: int) -> slice:
    """Without as much at either end as the centre does not show."""
    cut = max(0, length - LONGEST * shorter) // 2
    return slice(cut, length - cut)
