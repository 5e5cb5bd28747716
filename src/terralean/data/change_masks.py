"""What the masks of change hold, and what of it is change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terralean.data.change_config import PairConfig
from terralean.errors import LabelError
from terralean.raster.coding import Coding
from terralean.raster.grid import Window
from terralean.raster.scene import Scene, describe
from terralean.spec import IGNORE

LOSSY = (".jpg", ".jpeg")
FULL = 255
BYTES = 256
STRIP_PX = 1 << 24
SHOWN = 6


def mask_coding(masks: Sequence[str], config: PairConfig) -> Coding:
    """How masks write change. Raises LabelError where they hold other values than two, and nothing says what these mean."""
    if config.mask == "truncation":
        return Coding(above=FULL)
    exact = {mask: mask_values(mask) for mask in masks if Path(mask).suffix.lower() not in LOSSY}
    found = set().union(*(values.keys() for values in exact.values()))
    if config.mask == "threshold" or found <= {0, FULL}:
        return Coding(above=config.mask_threshold)
    if found - {0, 1, FULL}:
        raise LabelError(_other_values(exact, config))
    if len(exact) < len(masks):
        lossy = next(mask for mask in masks if mask not in exact)
        raise LabelError(
            f"{lossy} is JPEG, in which 1 cannot be told from 0, and other masks write change as 1; write it as 255"
        )
    _check_one_way(exact)
    return Coding(values=(0, 1)) if FULL in found else Coding(above=1)


def mask_values(path: str) -> dict[int, int]:
    """Valid pixels of each value that a mask holds. Raises LabelError for one that is no raster of bytes."""
    counts = np.zeros(BYTES, dtype=np.int64)
    with describe(path, expected="a mask of change: a raster of 0 and 255, or 0 and 1") as scene:
        if scene.bands.dtype != "uint8" or len(scene.bands) not in (1, 3):
            raise LabelError(
                f"{path} has {len(scene.bands)} bands of {scene.bands.dtype}; a mask of change is one band of bytes, 0 where "
                "nothing changed and 255 (or 1) where something did"
            )
        for row in range(0, scene.grid.height, rows := max(1, STRIP_PX // scene.grid.width)):
            window = Window(row=row, col=0, height=rows, width=scene.grid.width).cut(scene.grid.window)
            counts += np.bincount(_one_band(scene, window), minlength=BYTES)
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def _one_band(scene: Scene, window: Window) -> NDArray[np.uint8]:
    values, valid = scene.read(window)
    if (values != values[0]).any():
        raise LabelError(f"{scene.path} is a picture in colours; a mask of change is one band of 0 and 255")
    known = valid | (values[0] == 0)  # many programs say that 0, unchanged, is nodata
    return values[0][known]


def _check_one_way(masks: Mapping[str, Mapping[int, int]]) -> None:
    """Raise LabelError where some masks write change as 1 and others as 255."""
    ones = next((mask for mask, values in masks.items() if 1 in values and FULL not in values), None)
    fulls = next((mask for mask, values in masks.items() if FULL in values and 1 not in values), None)
    if ones and fulls and not any({1, FULL} <= values.keys() for values in masks.values()):
        raise LabelError(
            f"{ones} writes change as 1 and {fulls} as {IGNORE}: write all masks in one way, or say that both are change, "
            "--set pairs.mask=threshold --set pairs.mask_threshold=1"
        )


def _other_values(masks: Mapping[str, Mapping[int, int]], config: PairConfig) -> str:
    path = next(mask for mask, values in masks.items() if values.keys() - {0, 1, FULL})
    other = {value: pixels for value, pixels in masks[path].items() if value not in (0, 1, FULL)}
    shown = ", ".join(f"{value} ({pixels} px)" for value, pixels in list(other.items())[:SHOWN])
    more = f" and {len(other) - SHOWN} more" if len(other) > SHOWN else ""
    return (
        f"{path} holds {shown}{more}; a mask of change has two values, 0 and 255 (or 0 and 1); if what is "
        f"{config.mask_threshold} or more means change: --set pairs.mask=threshold"
    )
