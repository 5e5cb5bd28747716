"""What a dataset of oriented objects is, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from terralean.data.oriented.config import DetectionDataConfig
from terralean.data.oriented.layouts import DOTA_LABELS, Picture, Pictures, find_objects, is_of_objects
from terralean.data.oriented.tiles import TilesConfig, plan_tiles
from terralean.data.words import counted, listed
from terralean.errors import TerraleanError
from terralean.inspect.finding import Finding, worst_first

FOLDERS = (".", "train", "val", "valid", "validation", "test", "trainval")
MANY = 0.05  # share of objects from which on it is a warning that they cannot be learned


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectsReport:
    """What is known of images with oriented objects."""

    path: str
    layout: str = ""
    images: int = 0
    empty: int = 0  # images without objects
    objects: int = 0
    difficult: int = 0
    classes: tuple[tuple[str, int], ...] = ()  # with the objects of each
    splits: tuple[tuple[str, int], ...] = ()  # images of each, where the data say so
    widths_px: tuple[int, int] = (0, 0)  # least and greatest, of images
    heights_px: tuple[int, int] = (0, 0)
    sides_px: tuple[float, float, float] = (0.0, 0.0, 0.0)  # shorter sides of objects: least, median, greatest
    tiles: int = 0  # that training would cut the images into, those with objects
    findings: tuple[Finding, ...] = ()
    kind: Literal["objects"] = "objects"


def holds_objects(path: str) -> bool:
    """Whether a folder has labels of oriented objects: as DOTA does, beside its images or in a folder for each split, or in
    another layout that is of nothing else.
    """
    root = Path(path)
    as_dota = any((root / folder / labels).is_dir() for folder in FOLDERS for labels in DOTA_LABELS)
    return as_dota or (root.is_dir() and is_of_objects(root))


def describe_objects(root: Path, config: DetectionDataConfig) -> ObjectsReport:
    """Look at all labels of a folder; what stops training is a finding."""
    try:
        found = find_objects(root, config)
    except TerraleanError as error:
        return ObjectsReport(path=str(root), findings=(Finding(severity="error", message=str(error)),))
    pictures = found.pictures
    labels = np.concatenate([one.record.labels for one in pictures])
    sides = _shorter_sides(np.concatenate([one.record.polygons for one in pictures]))
    cut = TilesConfig(size_px=config.tile_px, overlap_px=config.overlap_px, iof=config.iof)
    plans = [plan_tiles(one.record, width=one.grid.width, height=one.grid.height, config=cut) for one in pictures]
    lost = sum(len(plan.lost) for plan in plans)
    widths, heights = ([getattr(one.grid, side) for one in pictures] for side in ("width", "height"))
    counts = np.bincount(labels, minlength=len(found.classes)).tolist()
    return ObjectsReport(
        path=str(root),
        layout=found.layout,
        images=len(pictures),
        empty=sum(not len(one.record) for one in pictures),
        objects=len(labels),
        difficult=sum(int((one.record.difficult > 0).sum()) for one in pictures),
        classes=tuple(zip(found.classes.names, counts, strict=True)),
        splits=tuple(sorted(Counter(one.split for one in pictures if one.split).items())),
        widths_px=(min(widths), max(widths)),
        heights_px=(min(heights), max(heights)),
        sides_px=(float(sides.min()), float(np.median(sides)), float(sides.max())) if len(sides) else (0.0, 0.0, 0.0),
        tiles=sum(len(plan.tiles) for plan in plans),
        findings=worst_first(_findings(found, config, sides=sides, lost=lost, counts=counts)),
    )


def _shorter_sides(polygons: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the mean opposite sides (n,) px."""
    points = polygons.reshape(-1, 4, 2)
    lengths = np.linalg.norm(np.roll(points, -1, axis=1) - points, axis=2)
    return np.minimum(lengths[:, 0] + lengths[:, 2], lengths[:, 1] + lengths[:, 3]) / 2


def _findings(
    found: Pictures, config: DetectionDataConfig, *, sides: NDArray[np.float64], lost: int, counts: Sequence[int]
) -> list[Finding]:
    out = []
    small = int((sides < config.least_px).sum())
    if small:
        out.append(
            Finding(
                severity="warning" if small > MANY * len(sides) else "note",
                message=f"{counted(small, 'object')} with a side below {config.least_px:g} px; training leaves them out",
                fix="use finer images, or lower data.least_px",
            )
        )
    if lost:
        out.append(
            Finding(
                severity="warning" if lost > MANY * len(sides) else "note",
                message=f"{counted(lost, 'object')} of which no tile of {config.tile_px} px holds {config.iof:.0%}",
                fix="raise data.overlap_px or data.tile_px",
            )
        )
    if lacking := [name for name, count in zip(found.classes.names, counts, strict=True) if not count]:
        out.append(
            Finding(
                severity="error",
                message=f"no object of {listed(lacking)}, which cannot be learned",
                fix="leave these classes out of data.classes",
            )
        )
    if flat := _without_area(found.pictures):
        out.append(Finding(severity="warning", message=f"objects without area in {listed(flat)}", fix="delete or redraw them"))
    return out


def _without_area(pictures: Sequence[Picture]) -> list[str]:
    """Images with an object that is a line or a point."""
    return [
        Path(one.record.image).name
        for one in pictures
        if len(one.record) and (shapely.area(shapely.polygons(one.record.polygons.reshape(-1, 4, 2))) == 0).any()
    ]
