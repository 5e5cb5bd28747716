"""Photographs of a report on oriented boxes: where images hold most objects, what is found there, missed, and found wrongly."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from terralean.data.oriented.layouts import Picture
from terralean.data.oriented.record import CORNERS, Detections
from terralean.data.oriented.tiles import TilesConfig, tile_windows
from terralean.data.scene_picture import Picture as Decoded
from terralean.evaluate.figures import ERROR_RGB, RIGHT_RGB, WRONG_RGB, Photo
from terralean.evaluate.scene_figures import QUALITY, colours
from terralean.raster.grid import Window
from terralean.raster.scene import open_scene
from terralean.tasks.detection_scores import judge

SHOWN = 6  # images
SIDE_PX = 512  # of what is shown of each
ENLARGED_PX = 384  # smaller images are enlarged in whole steps to so many px or more
SURE = 0.3  # score of the boxes that are drawn
IOU = 0.5
LINE_PX = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlay:
    """A part of an image with boxes over it, and how many of each kind there are."""

    name: str
    photo: Photo
    right: int
    missed: int
    wrong: int


def overlays(pictures: Sequence[Picture], found: Sequence[Detections], *, bands: tuple[int, ...] | None) -> list[Overlay]:
    """Of the images with most objects, the first first; each where it is fullest."""
    order = np.argsort([-len(picture.record) for picture in pictures], kind="stable")[:SHOWN]
    return [_overlay(pictures[i], found[i], bands=bands) for i in order]


def _overlay(picture: Picture, found: Detections, *, bands: tuple[int, ...] | None) -> Overlay:
    sure = found.scores >= SURE
    found = Detections(image=found.image, polygons=found.polygons[sure], scores=found.scores[sure], labels=found.labels[sure])
    truth, window = picture.record, _fullest(picture)
    judged = judge(found, truth, iou=IOU)
    seen, there = _within(found.polygons, window), _within(truth.polygons, window)
    with open_scene(truth.image, bands=bands) as scene:
        values, valid = scene.read(window)
        image = Image.fromarray(colours(Decoded(values=values, valid=valid, bands=scene.bands)))
    outlines = [
        (truth.polygons[judged.missed & there], ERROR_RGB),
        (found.polygons[~judged.right & ~judged.ignored & seen], WRONG_RGB),
        (found.polygons[judged.right & seen], RIGHT_RGB),
    ]
    missed, wrong, right = (len(polygons) for polygons, _ in outlines)
    photo = _photo(image, [(polygons - np.tile([window.col, window.row], CORNERS), colour) for polygons, colour in outlines])
    return Overlay(name=Path(truth.image).name, photo=photo, right=right, missed=missed, wrong=wrong)


def _fullest(picture: Picture) -> Window:
    """The window with the middles of most objects."""
    config = TilesConfig(size_px=SIDE_PX, overlap_px=SIDE_PX // 2)
    windows = tile_windows(width=picture.grid.width, height=picture.grid.height, config=config)
    return max(windows, key=lambda window: _within(picture.record.polygons, window).sum())


def _within(polygons: NDArray[np.float64], window: Window) -> NDArray[np.bool_]:
    """Whose middle (n,) lies in a window."""
    x, y = polygons.reshape(-1, CORNERS, 2).mean(axis=1).T
    across = (x >= window.col) & (x < window.col + window.width)
    return across & (y >= window.row) & (y < window.row + window.height)


def _photo(image: Image.Image, outlines: Sequence[tuple[NDArray[np.float64], tuple[int, int, int]]]) -> Photo:
    times = max(1, -(-ENLARGED_PX // max(image.size)))
    image = image.resize((times * image.width, times * image.height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for polygons, colour in outlines:
        for corners in (times * polygons).reshape(-1, CORNERS, 2).tolist():
            points = [(x, y) for x, y in corners]
            pen.line([*points, points[0]], fill="white", width=LINE_PX + 2)
            pen.line([*points, points[0]], fill=colour, width=LINE_PX)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY, subsampling=0)
    return Photo(jpeg=out.getvalue())
