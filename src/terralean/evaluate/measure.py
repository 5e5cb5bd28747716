"""Map every test region exactly as `terralean map` would, and count pixels by reference and map, block by block."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from terralean.cost.device import device_words
from terralean.cost.memory import peak_since, restart_peak
from terralean.data.config import DataConfig
from terralean.data.reading import Reader
from terralean.data.split import Region
from terralean.errors import LabelError
from terralean.evaluate import metrics
from terralean.evaluate.intervals import join
from terralean.evaluate.reliability import MapReliability, Reliability
from terralean.evaluate.token_cost import TokenCost
from terralean.mapping.plan import Plan
from terralean.mapping.strips import Readable, Strip, strips
from terralean.predict import Predictor
from terralean.raster.coding import Coding
from terralean.raster.grid import Window
from terralean.raster.scene import Scene, open_scene
from terralean.spec import IGNORE
from terralean.tasks import segmentation

BLOCKS = 100  # into about so many is the test area cut for the intervals
FIGURE_PX = 1024  # side of the piece of the test area that the report shows
BATCH = 4

See = Callable[[Scene, Region], Readable]  # how the part of a scene that a region covers is read


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The piece of the test area that the report draws."""

    region: int  # which of the test regions it is of
    window: Window  # in the region's image
    reference: NDArray[np.uint8]
    map: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Counts of the test area, and what predicting it took."""

    places: NDArray[np.int64]  # (n, 3) region, row and column of each block, in order
    blocks: NDArray[np.int64]  # (n, K, K) confusion of each block
    blocks_unmapped: NDArray[np.int64]  # (n, K)
    block_px: int
    shown: Shown
    windows: int
    seconds: float
    device: str  # that predicted, in words
    peak_bytes: int | None  # the most memory held at once, by tensors on a GPU, else by the process; None where unknown
    reliability: Reliability  # of the map's probabilities, of the very blocks
    tokens: TokenCost | None = None  # of a run that takes tokens out or merges them; counted afterwards

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Of the whole test area (K, K)."""
        return self.blocks.sum(axis=0)

    @property
    def unmapped(self) -> NDArray[np.int64]:
        """Of the whole test area (K,)."""
        return self.blocks_unmapped.sum(axis=0)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Of each block, what is without a class as a last column (n, K, K + 1)."""
        return join(self.blocks, self.blocks_unmapped)

    @property
    def windows_per_s(self) -> float:
        """Windows predicted in a second."""
        return self.windows / self.seconds


def as_it_is(scene: Scene, region: Region) -> Readable:
    """The part of a scene, unchanged."""
    return scene.crop(region.window)


def measure(
    predictor: Predictor,
    regions: Sequence[Region],
    *,
    coding: Coding,
    config: DataConfig,
    progress: Callable[[int, int], None],
    see: See = as_it_is,
) -> Measured:
    """Map every region as `terralean map` would and count; `see` may change the values that are mapped, not which are valid."""
    card = predictor.card
    reader = Reader(classes=card.classes, coding=coding, config=config)
    total = sum(region.window.pixels for region in regions)
    tally = Tally(classes=len(card.classes), side=block_side(total))
    probabilities = MapReliability(classes=len(card.classes), side=tally.side, temperature=card.temperature)
    picture = _Picture(regions)
    told = restart_peak(predictor.device)
    took, done = Took(), 0
    for index, region in enumerate(regions):
        for judged in judge(
            predictor, region, reader=reader, overlap_px=card.shared_px(tile_px=card.tile_px), took=took, see=see
        ):
            strip = judged.strip
            tally.add(judged.reference, judged.map, region=index, window=strip.window)
            probabilities.add(strip.probabilities, judged.reference, region=index, window=strip.window)
            picture.add(index, judged)
            done += strip.window.pixels
            progress(done, total)
    if not tally.counts:
        raise LabelError(f"none of the {len(regions)} test regions holds a labelled valid pixel; label some of the test area")
    places, blocks, unmapped = tally.arrays()
    return Measured(
        places=places,
        blocks=blocks,
        blocks_unmapped=unmapped,
        block_px=tally.side,
        shown=picture.shown(),
        windows=took.windows,
        seconds=took.seconds,
        device=device_words(predictor.device),
        peak_bytes=peak_since(predictor.device) if told else None,
        reliability=probabilities.reliability(),
    )


@dataclass(kw_only=True)
class Took:
    """What predicting takes, as it goes on."""

    windows: int = 0
    seconds: float = 0.0  # without what judging takes


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Judged:
    """Full-width rows of a region's map beside their labels."""

    strip: Strip
    map: NDArray[np.uint8]  # (h, w)
    reference: NDArray[np.uint8]  # (h, w), 255 where there is no label or the image has no data


def judge(
    predictor: Predictor, region: Region, *, reader: Reader, overlap_px: int, took: Took, see: See = as_it_is
) -> Iterator[Judged]:
    """Map a region as `terralean map` would, with windows that share `overlap_px`, and hand out its rows with their labels."""
    with open_scene(region.image, bands=reader.config.bands) as scene:
        part = scene.crop(region.window)
        plan = Plan(grid=part.grid, tile_px=predictor.card.tile_px, overlap_px=overlap_px)
        took.windows += len(plan.rows) * len(plan.cols)
        began = time.perf_counter()
        for strip in strips(predictor, see(scene, region), plan, batch=BATCH):
            took.seconds += time.perf_counter() - began
            reference = reader.labels(region.image, region.label, moved(strip.window, region.window))
            reference[~strip.valid] = IGNORE  # where the image has no data there is nothing to be right about
            yield Judged(strip=strip, map=segmentation.answer(strip.probabilities, strip.valid), reference=reference)
            began = time.perf_counter()


class Tally:
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

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """In order of region, row and column: places (n, 3), confusions (n, K, K) and unmapped (n, K)."""
        places = sorted(self.counts)
        found = [self.counts[place] for place in places]
        return np.array(places, np.int64), np.stack([c for c, _ in found]), np.stack([u for _, u in found])


class _Picture:
    """Collects reference and map of the middle of the largest region while strips pass by."""

    def __init__(self, regions: Sequence[Region]) -> None:
        self.region = max(range(len(regions)), key=lambda index: regions[index].window.pixels)
        window = regions[self.region].window
        height, width = min(FIGURE_PX, window.height), min(FIGURE_PX, window.width)
        self.inner = Window(row=(window.height - height) // 2, col=(window.width - width) // 2, height=height, width=width)
        self.place = moved(self.inner, window)
        self.reference = np.full((height, width), IGNORE, np.uint8)
        self.map = np.full((height, width), IGNORE, np.uint8)

    def add(self, region: int, judged: Judged) -> None:
        """Keep what lies inside."""
        both = self.inner.cut(judged.strip.window)
        if region != self.region or not both.pixels:
            return
        here, there = both.slices(origin=self.inner), both.slices(origin=judged.strip.window)
        self.reference[here], self.map[here] = judged.reference[there], judged.map[there]

    def shown(self) -> Shown:
        """What was collected."""
        return Shown(region=self.region, window=self.place, reference=self.reference, map=self.map)


def moved(window: Window, outer: Window) -> Window:
    """A window counted from the corner of another, counted from the corner of the image."""
    return replace(window, row=window.row + outer.row, col=window.col + outer.col)


def _steps(start: int, stop: int, side: int) -> list[slice]:
    """[start, stop) cut at multiples of `side`."""
    edges = [start, *range((start // side + 1) * side, stop, side), stop]
    return [slice(low, high) for low, high in pairwise(edges)]


def block_side(pixels: int) -> int:
    """Side in px of blocks of which about a hundred make so many pixels."""
    return max(32, round(math.sqrt(pixels / BLOCKS)))
