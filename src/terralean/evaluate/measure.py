"""Map every test region exactly as `terralean map` would, and count pixels by reference and map, block by block."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terralean.data.config import DataConfig
from terralean.data.reading import Reader
from terralean.data.split import Region
from terralean.errors import LabelError
from terralean.evaluate import metrics
from terralean.mapping.plan import Plan
from terralean.mapping.strips import Strip, strips
from terralean.predict import Predictor
from terralean.raster.coding import Coding
from terralean.raster.grid import Window
from terralean.raster.scene import open_scene
from terralean.spec import IGNORE
from terralean.tasks import segmentation

BLOCKS = 100  # into about so many is the test area cut for the intervals
FIGURE_PX = 1024  # side of the piece of the test area that the report shows
BATCH = 4


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The piece of the test area that the report draws."""

    values: NDArray[Any]
    valid: NDArray[np.bool_]
    reference: NDArray[np.uint8]
    map: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Counts of the test area, and what predicting it took."""

    blocks: NDArray[np.int64]  # (n, K, K) confusion of each block
    blocks_unmapped: NDArray[np.int64]  # (n, K)
    block_px: int
    shown: Shown
    windows: int
    seconds: float

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Of the whole test area (K, K)."""
        return self.blocks.sum(axis=0)

    @property
    def unmapped(self) -> NDArray[np.int64]:
        """Of the whole test area (K,)."""
        return self.blocks_unmapped.sum(axis=0)


def measure(
    predictor: Predictor,
    regions: Sequence[Region],
    *,
    coding: Coding,
    config: DataConfig,
    progress: Callable[[int, int], None],
) -> Measured:
    """Map every region as `terralean map` would and count."""
    card = predictor.card
    reader = Reader(classes=card.classes, coding=coding, config=config)
    total = sum(region.window.pixels for region in regions)
    tally = _Tally(classes=len(card.classes), side=_block_side(total))
    picture = _Picture(max(regions, key=lambda region: region.window.pixels))
    done = windows = 0
    seconds = 0.0
    for index, region in enumerate(regions):
        with open_scene(region.image, bands=config.bands) as scene:
            part = scene.crop(region.window)
            plan = Plan(grid=part.grid, tile_px=card.tile_px, overlap_px=card.overlap_px)
            windows += len(plan.rows) * len(plan.cols)
            began = time.perf_counter()
            for strip in strips(predictor, part, plan, batch=BATCH):
                seconds += time.perf_counter() - began
                place = _moved(strip.window, region.window)
                labels = segmentation.answer(strip.probabilities, strip.valid)
                reference = reader.labels(region.image, region.label, place)
                reference[~strip.valid] = IGNORE  # where the image has no data there is nothing to be right about
                tally.add(reference, labels, region=index, window=strip.window)
                picture.add(region, strip, labels, reference)
                done += strip.window.pixels
                progress(done, total)
                began = time.perf_counter()
    if not tally.counts:
        raise LabelError(f"none of the {len(regions)} test regions holds a labelled valid pixel; label some of the test area")
    blocks, unmapped = tally.arrays()
    values, valid = reader.values(picture.region.image, picture.place)
    shown = Shown(values=values, valid=valid, reference=picture.reference, map=picture.map)
    return Measured(blocks=blocks, blocks_unmapped=unmapped, block_px=tally.side, shown=shown, windows=windows, seconds=seconds)


class _Tally:
    """Confusion matrices of square blocks of each region."""

    def __init__(self, *, classes: int, side: int) -> None:
        self.classes, self.side = classes, side
        self.counts: dict[tuple[int, int, int], tuple[NDArray[np.int64], NDArray[np.int64]]] = {}

    def add(self, reference: NDArray[np.uint8], labels: NDArray[np.uint8], *, region: int, window: Window) -> None:
        """Count a strip, cut along the lines between blocks."""
        for row in _steps(window.row, window.row + window.height, self.side):
            for col in _steps(window.col, window.col + window.width, self.side):
                place = row.start - window.row, row.stop - window.row, col.start - window.col, col.stop - window.col
                piece = (slice(place[0], place[1]), slice(place[2], place[3]))
                if (reference[piece] == IGNORE).all():
                    continue
                key = (region, row.start // self.side, col.start // self.side)
                old = self.counts.get(key, (np.zeros((self.classes, self.classes), np.int64), np.zeros(self.classes, np.int64)))
                self.counts[key] = (
                    old[0] + metrics.confusion(reference[piece], labels[piece], classes=self.classes),
                    old[1] + metrics.unmapped(reference[piece], labels[piece], classes=self.classes),
                )

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Confusions (n, K, K) and unmapped (n, K)."""
        return np.stack([c for c, _ in self.counts.values()]), np.stack([u for _, u in self.counts.values()])


class _Picture:
    """Collects reference and map of the middle of one region while strips pass by."""

    def __init__(self, region: Region) -> None:
        window = region.window
        height, width = min(FIGURE_PX, window.height), min(FIGURE_PX, window.width)
        self.region = region
        self.inner = Window(row=(window.height - height) // 2, col=(window.width - width) // 2, height=height, width=width)
        self.place = _moved(self.inner, window)
        self.reference = np.full((height, width), IGNORE, np.uint8)
        self.map = np.full((height, width), IGNORE, np.uint8)

    def add(self, region: Region, strip: Strip, labels: NDArray[np.uint8], reference: NDArray[np.uint8]) -> None:
        """Keep what lies inside."""
        both = self.inner.cut(strip.window)
        if region is not self.region or not both.pixels:
            return
        here, there = both.slices(origin=self.inner), both.slices(origin=strip.window)
        self.reference[here], self.map[here] = reference[there], labels[there]


def _moved(window: Window, outer: Window) -> Window:
    return replace(window, row=window.row + outer.row, col=window.col + outer.col)


def _steps(start: int, stop: int, side: int) -> list[slice]:
    """[start, stop) cut at multiples of `side`."""
    edges = [start, *range((start // side + 1) * side, stop, side), stop]
    return [slice(low, high) for low, high in pairwise(edges)]


def _block_side(pixels: int) -> int:
    return max(32, round(math.sqrt(pixels / BLOCKS)))
