"""Training crops and the fixed tiles of a split: windows of scenes as samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from terralean.data.augment import augment, draw_zoom, resize
from terralean.data.config import DataConfig
from terralean.data.reading import Reader
from terralean.data.sample import Sample
from terralean.data.split import Region
from terralean.data.statistics import Statistics
from terralean.errors import EmptySplit
from terralean.raster.coding import Coding
from terralean.raster.grid import Window
from terralean.spec import IGNORE, Classes

TRIES = 4  # draws of a window before a labelled pixel is asked for


class Crops(Dataset[Sample]):
    """Random crops of training regions, augmented: the same for the same seed, epoch and index, in any process.

    A crop shows what training regions of its image cover; all else in it is 255, 0 and not valid. A share of the crops is
    centred on a pixel of a class, drawn with a chance that falls with the root of its frequency; the others are spread evenly
    over the regions' area. A crop has a labelled pixel.
    """

    def __init__(
        self,
        regions: Sequence[Region],
        *,
        statistics: Statistics,
        classes: Classes,
        coding: Coding,
        config: DataConfig,
        length: int,
        seed: int,
    ) -> None:
        if not regions or not statistics.index.counts.any():
            raise EmptySplit(
                "crops need regions with a labelled valid pixel, got none; label some, or split the data otherwise"
            )
        self.regions = tuple(regions)
        self.statistics = statistics
        self.config = config
        self.length = length
        self.seed = seed
        self._scenes = _Scenes(self.regions, Reader(classes=classes, coding=coding, config=config))
        self._odds = _Odds.of(self.regions, statistics)
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers that outlive an epoch see it change

    def set_epoch(self, epoch: int) -> None:
        """Another epoch has other crops."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.length:
            raise IndexError(f"crop {index} of {self.length}")
        seeds = np.random.SeedSequence([self.seed, int(self._epoch), index])
        rng = np.random.default_rng(seeds)
        generator = torch.Generator().manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> 1))
        side = max(1, round(self.config.tile_px / draw_zoom(self.config.augment, generator=generator)))
        sample = self._read(rng, side)
        sample = resize(sample, height=self.config.tile_px, width=self.config.tile_px)
        return augment(sample, self.config.augment, normalisation=self.statistics.normalisation, generator=generator)

    def _read(self, rng: np.random.Generator, side: int) -> Sample:
        """The first window drawn that has a labelled pixel; in the end one is asked for."""
        rare = rng.random() < self.config.rare_share
        for attempt in range(TRIES + 1):
            if rare or attempt == TRIES:
                region, window = self._centred(rng, side)
            else:
                region, window = self._anywhere(rng, side)
            sample = self._scenes.sample(region, window)
            if bool((sample["mask"] != IGNORE).any()):
                break
        return sample

    def _anywhere(self, rng: np.random.Generator, side: int) -> tuple[Region, Window]:
        region = self.regions[rng.choice(len(self.regions), p=self._odds.area)]
        inner = region.window
        row = _start(rng, inner.row, inner.height, side)
        col = _start(rng, inner.col, inner.width, side)
        return region, self._scenes.inside(region, Window(row=row, col=col, height=side, width=side))

    def _centred(self, rng: np.random.Generator, side: int) -> tuple[Region, Window]:
        cls = rng.choice(len(self._odds.of_class), p=self._odds.of_class)
        number = rng.choice(len(self.regions), p=self._odds.of_region[cls])
        positions = self.statistics.index.positions[number][cls]
        row, col = positions[rng.integers(len(positions))]
        window = Window(row=int(row) - side // 2, col=int(col) - side // 2, height=side, width=side)
        return self.regions[number], self._scenes.inside(self.regions[number], window)


class Tiles(Dataset[Sample]):
    """The fixed tiles of some regions, for a loss over a whole split: each labelled pixel is in exactly one of them.

    `margin_px` more on every side of a tile show what surrounds it, without labels.
    """

    def __init__(
        self, regions: Sequence[Region], *, classes: Classes, coding: Coding, config: DataConfig, margin_px: int = 0
    ) -> None:
        self.regions = tuple(regions)
        self.margin_px = margin_px
        self._scenes = _Scenes(self.regions, Reader(classes=classes, coding=coding, config=config))
        self._tiles = [(region, window) for region in self.regions for window in _lattice(region.window, config.tile_px)]

    def __len__(self) -> int:
        return len(self._tiles)

    def __getitem__(self, index: int) -> Sample:
        region, window = self._tiles[index]
        return self._scenes.sample(region, _wider(window, by=self.margin_px), labelled=window.cut(region.window))


class _Scenes:
    """Samples of windows, showing nothing outside the regions."""

    def __init__(self, regions: Sequence[Region], reader: Reader) -> None:
        self.reader = reader
        self.shown: dict[str, list[Window]] = defaultdict(list)
        for region in regions:
            self.shown[region.image].append(region.window)

    def sample(self, region: Region, window: Window, *, labelled: Window | None = None) -> Sample:
        """The window as stored; labels only within `labelled`, if it is given."""
        values, valid = self.reader.values(region.image, window)
        labels = self.reader.labels(region.image, region.label, window)
        valid = valid & _covered(self.shown[region.image], window)
        known = valid if labelled is None else valid & _covered([labelled], window)
        image = np.where(valid, values, 0).astype(np.float32)
        return {
            "image": torch.from_numpy(image),
            "mask": torch.from_numpy(np.where(known, labels, IGNORE).astype(np.int64)),
            "valid": torch.from_numpy(valid),
        }

    def inside(self, region: Region, window: Window) -> Window:
        """The window moved into the image, or where it is the larger, over it."""
        grid = self.reader.grid(region.image)
        return Window(
            row=_moved(window.row, window.height, grid.height),
            col=_moved(window.col, window.width, grid.width),
            height=window.height,
            width=window.width,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Odds:
    """Chances of drawing."""

    area: NDArray[np.float64]  # (R,) a region, by its pixels
    of_class: NDArray[np.float64]  # (K,) a class
    of_region: NDArray[np.float64]  # (K, R) a region, given the class

    @classmethod
    def of(cls, regions: Sequence[Region], statistics: Statistics) -> _Odds:
        counts = statistics.index.counts
        # A region without a labelled pixel has nothing to teach, however large it is.
        area = np.array([region.window.pixels for region in regions]) * (counts.sum(axis=1) > 0)
        pixels = counts.sum(axis=0)
        favour = np.where(pixels > 0, 1 / np.sqrt(np.maximum(pixels, 1)), 0)
        return cls(area=area / area.sum(), of_class=favour / favour.sum(), of_region=(counts / np.maximum(pixels, 1)).T)


def _covered(shown: Sequence[Window], window: Window) -> NDArray[np.bool_]:
    """(h, w) of the window: True where one of the others covers it."""
    out = np.zeros((window.height, window.width), dtype=bool)
    for other in shown:
        part = window.cut(other)
        if part.pixels:
            out[part.slices(origin=window)] = True
    return out


def _wider(window: Window, *, by: int) -> Window:
    return Window(row=window.row - by, col=window.col - by, height=window.height + 2 * by, width=window.width + 2 * by)


def _lattice(region: Window, side: int) -> list[Window]:
    rows = range(region.row, region.row + region.height, side)
    cols = range(region.col, region.col + region.width, side)
    return [Window(row=row, col=col, height=side, width=side) for row in rows for col in cols]


def _start(rng: np.random.Generator, start: int, length: int, side: int) -> int:
    """Where a window of `side` begins that lies in the extent, or, where it is the larger, covers it."""
    spare = length - side
    return int(start + rng.integers(min(0, spare), max(0, spare) + 1))


def _moved(start: int, side: int, length: int) -> int:
    return min(max(start, 0), length - side) if side <= length else min(max(start, length - side), 0)
