"""Large images cut into tiles with the objects that lie in them, as DOTA is trained on.

Tiles overlap; the last of a row or column is shifted inward, so that all lie within the image, and an image smaller than a tile
is one tile of its own size. A tile has each object of which it holds the share that is asked for (IoF: intersection over the
object's area), with all its corners, also those outside. As in the split of Oriented R-CNN for DOTA: 1024 px, 200 px, 0.7.
"""

from __future__ import annotations

import csv
import logging
import os
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from terralean.boxes.form import to_polygons
from terralean.boxes.merge import MergeConfig, merge
from terralean.boxes.polygons import shares_in_windows
from terralean.boxes.rectangle import from_polygons
from terralean.data.oriented.dota import write_labels
from terralean.data.oriented.layouts import Picture, Pictures
from terralean.data.oriented.record import Detections, Record
from terralean.data.words import counted, listed
from terralean.errors import ConfigError, DatasetError, OutputFailed
from terralean.raster.cog import failed
from terralean.raster.grid import Grid, Window
from terralean.raster.scene import Scene, describe, valid_pixels
from terralean.raster.write import write_scene

log = logging.getLogger(__name__)

CUT = 2  # difficulty of an object that the edge of a tile cuts, as DOTA's own tools write it
NAME = re.compile(r"(.+)__([\d.]+)__(\d+)___(\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class TilesConfig:
    """How images are cut."""

    size_px: int = 1024
    overlap_px: int = 200
    iof: float = 0.7  # share of an object's area from which on a tile has it
    cut: Literal["drop", "difficult"] = "drop"  # an object of which a tile holds less is left out, or marked difficult
    empty: bool = False  # tiles without an object are kept; to search an image, not to train

    def __post_init__(self) -> None:
        if not 0 <= self.overlap_px < self.size_px:
            raise ConfigError(f"overlap_px must be 0 or more and below size_px {self.size_px}, got {self.overlap_px}")
        if not 0 < self.iof <= 1:
            raise ConfigError(f"iof must be above 0 up to 1, got {self.iof}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Tile:
    """A window of an image with its objects, whose polygons are in px of the tile."""

    window: Window
    objects: Record


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """The tiles of an image, row by row."""

    tiles: tuple[Tile, ...]
    lost: tuple[int, ...]  # numbers of the objects of which no tile holds enough


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What was written."""

    tiles: int
    objects: int  # in all tiles; one in the overlap of two counts twice
    lost: int  # objects of the images that are in no tile


# The plan.


def tile_windows(*, width: int, height: int, config: TilesConfig) -> list[Window]:
    """The windows of an image of this size, row by row."""
    rows, cols = (_starts(length, config) for length in (height, width))
    size = {"height": min(config.size_px, height), "width": min(config.size_px, width)}
    return [Window(row=row, col=col, **size) for row, col in product(rows, cols)]


def plan_tiles(record: Record, *, width: int, height: int, config: TilesConfig) -> Plan:
    """Which tiles an image of this size is cut into, and which objects each has."""
    windows = tile_windows(width=width, height=height, config=config)
    sides = torch.tensor([(w.col, w.row, w.col + w.width, w.row + w.height) for w in windows], dtype=torch.float64)
    number, tile, share = (some.numpy() for some in shares_in_windows(torch.from_numpy(record.polygons), sides))
    enough = share >= config.iof
    lost = np.setdiff1d(np.arange(len(record)), number[enough])
    if config.cut == "drop":
        number, tile, enough = number[enough], tile[enough], enough[enough]
    order = np.lexsort((number, tile))
    ends = np.searchsorted(tile[order], np.arange(len(windows) + 1))
    tiles = []
    for place, window in enumerate(windows):
        some = order[ends[place] : ends[place + 1]]
        objects = _moved(record.of(number[some]), window, cut=~enough[some])
        if config.empty or len(objects):
            tiles.append(Tile(window=window, objects=objects))
    return Plan(tiles=tuple(tiles), lost=tuple(lost.tolist()))


def _starts(length: int, config: TilesConfig) -> list[int]:
    """Offsets of tiles that cover a length, the last one shifted so that it ends there."""
    if length <= config.size_px:
        return [0]
    starts = list(range(0, length - config.size_px, config.size_px - config.overlap_px))
    return [*starts, length - config.size_px]


def _moved(objects: Record, window: Window, *, cut: NDArray[np.bool_]) -> Record:
    """Objects in px of a window; those that are cut are difficult."""
    offset = np.tile([window.col, window.row], 4)
    difficult = np.where(cut, np.maximum(objects.difficult, CUT), objects.difficult).astype(np.uint8)
    return replace(objects, polygons=objects.polygons - offset, difficult=difficult)


# Tiles on disk.


def write_tiles(pictures: Pictures, out: str | Path, config: TilesConfig) -> Written:
    """Write a dataset's tiles: `images/` GeoTIFFs on the ground as their image is, `labelTxt/`, `classes.txt`, `index.csv`.

    A tile is called STEM__1__LEFT___TOP, as DOTA's tools call it, and its group is the image, so that no split parts two tiles
    of one. One tile is in memory at a time. The folder appears whole or not at all; raises DatasetError where it holds
    something, or where two images share a name, and OutputFailed.
    """
    out = Path(out)
    _check_free(out)
    stems = [Path(picture.record.image).stem for picture in pictures.pictures]
    if twice := [stem for stem, count in Counter(stems).items() if count > 1]:
        raise DatasetError(f"several images are called {listed(twice)}; tiles are named after them, so rename all but one")
    part = out.with_name(f"{out.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)  # a killed run's
        part.mkdir(parents=True)
        written = _write_all(pictures, part, config)
        if out.is_dir():
            out.rmdir()
        os.replace(part, out)
    except OSError as error:
        raise failed(out, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return written


def _check_free(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DatasetError(f"{out} is there and not empty; tiles need a folder of their own, name another or delete it")


def _write_all(pictures: Pictures, part: Path, config: TilesConfig) -> Written:
    rows: list[tuple[str, str, str, str]] = []
    objects, lost = 0, 0
    for picture in pictures.pictures:
        plan = plan_tiles(picture.record, width=picture.grid.width, height=picture.grid.height, config=config)
        lost += len(plan.lost)
        with describe(picture.record.image, expected="an image") as scene:
            for tile in plan.tiles:
                name = tile_name(Path(picture.record.image).stem, tile.window)
                if _write_image(scene, tile.window, part / "images" / f"{name}.tif"):
                    names = [pictures.classes.names[label] for label in tile.objects.labels]
                    write_labels(
                        part / "labelTxt" / f"{name}.txt",
                        tile.objects.polygons,
                        names,
                        tile.objects.difficult,
                        facts=picture.facts,
                    )
                    rows.append(_row(name, picture))
                    objects += len(tile.objects)
    if not rows:
        raise DatasetError(f"no tile of {pictures.root} has an object; keep those without with empty=true")
    _write_index(part, rows, pictures)
    if lost:
        log.warning(
            "%s in no tile: none holds %g of their area; a larger overlap_px than %d keeps them",
            counted(lost, "object") + (" is" if lost == 1 else " are"),
            config.iof,
            config.overlap_px,
        )
    return Written(tiles=len(rows), objects=objects, lost=lost)


def _row(name: str, picture: Picture) -> tuple[str, str, str, str]:
    group = picture.group or Path(picture.record.image).stem
    return f"images/{name}.tif", f"labelTxt/{name}.txt", picture.split or "", group


def _write_index(part: Path, rows: Sequence[tuple[str, str, str, str]], pictures: Pictures) -> None:
    with (part / "index.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("path", "label", "split", "group"))
        table.writerows(rows)
    names = ("-".join(name.split()) for name in pictures.classes.names)
    (part / "classes.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def _write_image(scene: Scene, window: Window, path: Path) -> bool:
    """Write a window of a scene with its place; False where no pixel of it has data."""
    values, valid = scene.read(window)
    if not valid.any():
        return False
    nodata = _nodata(values, valid, declared=scene.nodata, path=path)
    if nodata is not None:
        values = np.where(valid, values, np.array(nodata, dtype=values.dtype))
    write_scene(path, values, grid=scene.grid.crop(window), bands=scene.bands, nodata=nodata)
    return True


def _nodata(values: NDArray[Any], valid: NDArray[np.bool_], *, declared: float | None, path: Path) -> float | None:
    """A value that marks just the pixels that are not valid: the declared one where it does."""
    limits = np.finfo(values.dtype) if values.dtype.kind == "f" else np.iinfo(values.dtype)
    for candidate in (declared, None, 0.0, float(limits.max), float(limits.min)):
        filled = values if candidate is None else np.where(valid, values, np.array(candidate, dtype=values.dtype))
        if np.array_equal(valid_pixels(filled, nodata=[candidate] * len(values)), valid):
            return candidate
    raise OutputFailed(f"{path}: its pixels hold every value that could mark missing data; set nodata in the image")


# Tiles and their image again.


def tile_name(stem: str, window: Window) -> str:
    """What the tile of an image is called."""
    return f"{stem}__1__{window.col}___{window.row}"


def place_of(name: str) -> tuple[str, int, int]:
    """Stem of the image, left and top in its px, by the name of a tile. Raises DatasetError for another name."""
    found = NAME.fullmatch(name)
    if found is None or float(found[2]) != 1:
        raise DatasetError(f"{name!r} is no name of a tile; expected STEM__1__LEFT___TOP, tiles at the image's own scale")
    return found[1], int(found[3]), int(found[4])


def merge_tiles(
    found: Sequence[Detections], grids: Mapping[str, Grid], *, tiles: TilesConfig, config: MergeConfig
) -> list[Detections]:
    """Detections in tiles, whose images are called as tiles are, as detections in their images, by stem; see `boxes.merge`.

    `grids` has the size of each image by its stem. Polygons become the smallest rectangles round them.
    """
    of_image: dict[str, list[tuple[Detections, int, int]]] = defaultdict(list)
    for one in found:
        stem, left, top = place_of(Path(one.image).stem)
        if stem not in grids:
            raise DatasetError(f"{one.image} is a tile of {stem}, which is none of the {len(grids)} images; give its size")
        of_image[stem].append((one, left, top))
    return [_merged(stem, some, grids[stem], tiles, config) for stem, some in sorted(of_image.items())]


def _merged(
    stem: str, some: Sequence[tuple[Detections, int, int]], grid: Grid, tiles: TilesConfig, config: MergeConfig
) -> Detections:
    polygons = np.concatenate([one.polygons + np.tile([left, top], 4) for one, left, top in some])
    windows = np.concatenate(
        [
            np.tile([left, top, min(left + tiles.size_px, grid.width), min(top + tiles.size_px, grid.height)], (len(one), 1))
            for one, left, top in some
        ]
    )
    merged = merge(
        from_polygons(torch.from_numpy(polygons)),
        torch.from_numpy(np.concatenate([one.scores for one, _, _ in some])),
        torch.from_numpy(np.concatenate([one.labels for one, _, _ in some])),
        torch.from_numpy(windows),
        width=grid.width,
        height=grid.height,
        config=config,
    )
    return Detections(
        image=stem,
        polygons=to_polygons(merged.boxes).numpy(),
        scores=merged.scores.numpy(),
        labels=merged.labels.numpy(),
    )
