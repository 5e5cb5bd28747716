"""Real tiles, which an export is compared on and int8 is calibrated on; noise where there are none."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from torch import Tensor

from terralean.data.config import DataConfig
from terralean.data.oriented.config import DetectionDataConfig
from terralean.data.oriented.crops import ObjectTiles, cut_pictures
from terralean.data.oriented.layouts import find_objects
from terralean.data.oriented.split import read_root, resplit
from terralean.data.reading import Reader
from terralean.data.scene_config import SceneDataConfig
from terralean.data.scene_picture import read_picture
from terralean.data.scene_split import load_scene_split
from terralean.data.scene_views import keep_px, views
from terralean.data.split import SplitName, load_split
from terralean.errors import UnreadableScene
from terralean.raster.grid import Window
from terralean.raster.scene import open_scene
from terralean.spec import check_bands
from terralean.weights.card import Card

ReadData = Callable[[Path], object]  # how the run of a folder read its data
Tile = tuple[NDArray, NDArray[np.bool_]]  # values (C, t, t), valid (t, t)
Place = TypeVar("Place")


class Tiles(NamedTuple):
    """Tiles of one size."""

    image: Tensor  # (n, C, t, t) float32, as stored
    valid: Tensor  # (n, t, t)
    source: str  # in words
    pixel_m: float | None = None  # side of a pixel on the ground, where it is known


class Wanted(NamedTuple):
    """Which tiles."""

    card: Card
    tile_px: int
    number: int
    seed: int


def tiles_of_run(run: Path, wanted: Wanted, *, read: ReadData, splits: Sequence[SplitName]) -> Tiles | None:
    """Of the first of these splits whose images are still there; None where none is, or the run has no such data."""
    if not (run / "split.json").is_file() or not (run / "recipe.yaml").is_file():
        return None
    data = read(run)
    found = (_of_split(run, data, wanted, split) for split in splits)
    return next((tiles for tiles in found if tiles is not None), None)


def _of_split(run: Path, data: object, wanted: Wanted, split: SplitName) -> Tiles | None:
    match data:
        case SceneDataConfig():
            return _views(run, data, wanted, split=split)
        case DetectionDataConfig():
            return _objects(run, data, wanted, split=split)
        case DataConfig():
            return _regions(run, data, wanted, split)
    return None


def tiles_of_scenes(paths: Sequence[str], wanted: Wanted) -> Tiles:
    """Windows with data on a lattice without overlap, of all scenes together. Raises the errors of scenes that do not fit."""
    places: list[tuple[str, Window]] = []
    pixel_m = None
    for path in paths:
        with open_scene(path) as scene:
            check_bands(scene.bands, wanted.card.bands, scene=scene.path)
            places += [(path, window) for window in _lattice(scene.grid.window, wanted.tile_px)]
            pixel_m = pixel_m or _mean(scene.grid.pixel_m())

    def tiles() -> Iterator[Tile]:
        for path, window in _shuffled(places, seed=wanted.seed):
            with open_scene(path) as scene:
                yield scene.read(window)

    found = _together(tiles(), wanted, source=f"tiles of {', '.join(paths)}")
    if found is None:
        raise UnreadableScene(f"{', '.join(paths)}: no window with a valid pixel; name other scenes")
    return found._replace(pixel_m=pixel_m)


def noise(wanted: Wanted) -> Tiles:
    """Normal noise of the training data's mean and spread in every band, rounded and cut to what the bands can hold."""
    card, side = wanted.card, wanted.tile_px
    rng = np.random.default_rng(wanted.seed)
    mean, std = (np.array(part, np.float32)[:, None, None] for part in (card.normalisation.mean, card.normalisation.std))
    image = rng.standard_normal((wanted.number, len(card.bands), side, side), dtype=np.float32) * std + mean
    if np.issubdtype(np.dtype(card.bands.dtype), np.integer):
        limits = np.iinfo(card.bands.dtype)
        image = image.round().clip(limits.min, limits.max)
    valid = torch.ones(wanted.number, side, side, dtype=torch.bool)
    return Tiles(torch.from_numpy(image.astype(np.float32)), valid, "seeded noise, for want of the run's data")


def with_a_hole(tiles: Tiles) -> Tiles:
    """The same and the first one once more, a quarter of it without data: so the mask is compared, too."""
    image, valid = tiles.image[:1].clone(), tiles.valid[:1].clone()
    height, width = valid.shape[1] // 2, valid.shape[2] // 2
    valid[:, :height, :width] = False
    image[:, :, :height, :width] = torch.nan
    return tiles._replace(image=torch.cat([tiles.image, image]), valid=torch.cat([tiles.valid, valid]))


def cut(tiles: Tiles, *, height: int, width: int, count: int) -> Tiles:
    """The upper left part of some of them, the last ones."""
    return tiles._replace(image=tiles.image[-count:, :, :height, :width], valid=tiles.valid[-count:, :height, :width])


def _regions(run: Path, data: DataConfig, wanted: Wanted, split: SplitName) -> Tiles | None:
    kept = load_split(run / "split.json")
    regions = [region for region in kept.of(split) if Path(region.image).is_file()]
    places = [(region.image, window) for region in regions for window in _lattice(region.window, wanted.tile_px)]
    if not places:
        return None
    reader = Reader(classes=wanted.card.classes, coding=kept.coding, config=data)
    tiles = (reader.values(image, window) for image, window in _shuffled(places, seed=wanted.seed))
    found = _together(tiles, wanted, source=f"tiles of the run's own {split} split")
    return found and found._replace(pixel_m=_mean(reader.grid(places[0][0]).pixel_m()))


def _views(run: Path, data: SceneDataConfig, wanted: Wanted, *, split: SplitName) -> Tiles | None:
    paths = [image.path for image in load_scene_split(run / "split.json").of(split) if Path(image.path).is_file()]

    def tiles() -> Iterator[Tile]:
        for path in _shuffled(paths, seed=wanted.seed):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                sample = views(read_picture(path, config=data, keep_px=keep_px(data)), data)
            yield sample["image"][0].numpy(), sample["valid"][0].numpy()

    return _together(tiles(), wanted, source=f"views of the run's own {split} split")


def _objects(run: Path, data: DetectionDataConfig, wanted: Wanted, *, split: SplitName) -> Tiles | None:
    """Tiles with objects."""
    root = read_root(run / "split.json")
    if not root.is_dir():
        return None
    data = replace(data, classes=wanted.card.classes.names, tile_px=wanted.tile_px, overlap_px=0, empty_share=0.0)
    pictures = resplit(find_objects(root, data), run / "split.json").of(split)
    tiles = ObjectTiles(cut_pictures(pictures, data, judge=False), classes=wanted.card.classes, config=data)

    def read() -> Iterator[Tile]:
        for place in _shuffled(range(len(tiles)), seed=wanted.seed):
            sample = tiles[place]
            yield sample["image"].numpy(), sample["valid"].numpy()

    return _together(read(), wanted, source=f"tiles of the run's own {split} split")


def _together(tiles: Iterator[Tile], wanted: Wanted, *, source: str) -> Tiles | None:
    """The first ones that hold data."""
    found: list[Tile] = []
    for values, valid in tiles:
        if valid.any():
            found.append((values.astype(np.float32), valid))
        if len(found) == wanted.number:
            break
    if not found:
        return None
    values, masks = zip(*found, strict=True)
    return Tiles(torch.from_numpy(np.stack(values)), torch.from_numpy(np.stack(masks)), f"{len(found)} {source}")


def _lattice(outer: Window, tile_px: int) -> Iterator[Window]:
    rows = range(outer.row, outer.row + outer.height, tile_px)
    cols = range(outer.col, outer.col + outer.width, tile_px)
    for row, col in product(rows, cols):
        yield Window(row=row, col=col, height=tile_px, width=tile_px)


def _shuffled(places: Sequence[Place], *, seed: int) -> Iterator[Place]:
    for index in np.random.default_rng(seed).permutation(len(places)):
        yield places[index]


def _mean(pixel_m: tuple[float, float] | None) -> float | None:
    return None if pixel_m is None else sum(pixel_m) / 2
