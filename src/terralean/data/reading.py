"""Windows of images and of their labels, with a bounded memory of what was decoded last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terralean.data.config import DataConfig
from terralean.data.recent import Recent
from terralean.raster.coding import Coding
from terralean.raster.grid import Grid, Window
from terralean.raster.labels import read_labels
from terralean.raster.scene import Scene, open_scene
from terralean.spec import IGNORE, Classes

STRIP_PX = 1 << 22  # pixels that a pass over a scene holds at once
OPEN_SCENES = 32  # file handles kept
SHARE = 4  # an image is kept decoded if it fills at most a quarter of the cache; larger ones are read by window


class Reader:
    """Reads windows by the path of an image. Compressed images are decoded once and kept, up to `cache_mb` of them."""

    def __init__(self, *, classes: Classes, coding: Coding, config: DataConfig) -> None:
        self.classes = classes
        self.coding = coding
        self.config = config
        self.recent = Recent(config.cache_mb * 1_000_000)
        self._forget()

    def grid(self, image: str) -> Grid:
        """Size and place of the image."""
        if image not in self._grids:
            self._grids[image] = self._scene(image).grid
        return self._grids[image]

    def values(self, image: str, window: Window) -> tuple[NDArray, NDArray[np.bool_]]:
        """Values (C, h, w) as stored and valid (h, w); outside the image 0 and not valid."""
        whole = self.grid(image).window
        if (kept := self.recent.get(("image", image))) is None:
            scene = self._scene(image)
            size = whole.pixels * (len(scene.bands) * np.dtype(scene.bands.dtype).itemsize + 1)
            if size * SHARE > self.recent.limit_bytes:
                return scene.read(window)
            kept = self.recent.put(("image", image), scene.read(whole))
        values, valid = kept
        return part(values, window, fill=0), part(valid, window, fill=False)

    def labels(self, image: str, label: str, window: Window) -> NDArray[np.uint8]:
        """Class values (h, w); 255 where there is no label and outside the image."""
        grid = self.grid(image)
        if (kept := self.recent.get(("label", label, image))) is None:
            if grid.window.pixels * SHARE > self.recent.limit_bytes:
                inside = window.cut(grid.window)
                return _into(window, inside, self._read_labels(image, label, inside) if inside.pixels else None)
            kept = self.recent.put(("label", label, image), (self._read_labels(image, label, grid.window),))
        return part(kept[0], window, fill=IGNORE)

    def strips(self, image: str, window: Window) -> Iterator[Window]:
        """The window in full-width pieces of some million pixels, from the top."""
        rows = max(1, STRIP_PX // max(1, window.width))
        for row in range(window.row, window.row + window.height, rows):
            yield Window(row=row, col=window.col, height=min(rows, window.row + window.height - row), width=window.width)

    def _read_labels(self, image: str, label: str, window: Window) -> NDArray[np.uint8]:
        grid, field = self.grid(image), self.config.label_field
        return read_labels(label, like=grid, window=window, classes=self.classes, coding=self.coding, field=field, name=image)

    def _scene(self, image: str) -> Scene:
        scene = self._scenes.pop(image, None) or open_scene(image, bands=self.config.bands)
        self._scenes[image] = scene
        if len(self._scenes) > OPEN_SCENES:
            self._scenes.popitem(last=False)[1].close()
        return scene

    def _forget(self) -> None:
        self._grids: dict[str, Grid] = {}
        self._scenes: OrderedDict[str, Scene] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        kept = ("classes", "coding", "config", "recent")
        return {name: self.__dict__[name] for name in kept}  # each process decodes for itself

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()


def part(array: NDArray, window: Window, *, fill: float) -> NDArray:
    """The window of an array (..., H, W); `fill` where it reaches outside."""
    inside = window.cut(Window(row=0, col=0, height=array.shape[-2], width=array.shape[-1]))
    if inside == window:
        return array[..., *window.slices()]
    return _into(window, inside, array[..., *inside.slices()] if inside.pixels else None, like=array, fill=fill)


def _into(
    window: Window, inside: Window, found: NDArray | None, *, like: NDArray | None = None, fill: float = IGNORE
) -> NDArray:
    lead, kind = ((), np.uint8) if like is None else (like.shape[:-2], like.dtype)
    out = np.full((*lead, window.height, window.width), fill, dtype=kind)
    if found is not None:
        out[..., *inside.slices(origin=window)] = found
    return out
