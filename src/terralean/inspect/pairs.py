"""What a folder of pairs of dates is, and what is wrong with it beside what may be wrong with any dataset."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from terralean.data.change_config import PairConfig
from terralean.data.change_index import files_of, find_pairs
from terralean.data.config import DataConfig
from terralean.data.registration import Shift, find_shift
from terralean.data.words import listed
from terralean.errors import TerraleanError
from terralean.inspect.dataset import DatasetReport, describe_dataset
from terralean.inspect.finding import Finding, worst_first
from terralean.inspect.scene import SceneReport, describe_scene
from terralean.raster.grid import Window
from terralean.raster.scene import open_scene

LOOKED_AT = 40  # pairs of a folder, spread evenly
WINDOW_PX = 512  # side of what is compared in the middle of a pair
YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")
MOST_PX = 1.0  # that dates may lie apart


def describe_pairs(path: Path, config: DataConfig, *, seed: int = 0) -> DatasetReport:
    """Read every mask and a view of every pair; what is wrong is a finding."""
    pairs = PairConfig()
    report = describe_dataset(path, config, seed=seed, read=lambda root, settings: find_pairs(root, settings, pairs))
    if report.layout == "not understood" or report.unreadable:
        return report
    images = [source.image for source in find_pairs(path, config, pairs).sources]
    return replace(report, findings=worst_first([*report.findings, *_registration(images, config.bands), *_order(images)]))


def describe_pair(path: str, *, bands: Sequence[int] | None) -> SceneReport:
    """One pair, as a scene of the bands of both dates."""
    report = describe_scene(path, bands=bands)
    return replace(report, findings=worst_first([*report.findings, *_registration([path], bands), *_order([path])]))


def _registration(images: Sequence[str], bands: Sequence[int] | None) -> Iterable[Finding]:
    step = max(1, len(images) // LOOKED_AT)
    found = [(image, shift) for image in images[::step] if (shift := _shift(image, bands)) is not None and shift.sure]
    off = [(image, shift) for image, shift in found if shift.px > MOST_PX]
    if off:
        told = [
            f"{Path(files_of(image)[0]).name} by {shift.px:.1f} px ({shift.down:+.1f} down, {shift.across:+.1f} across)"
            for image, shift in sorted(off, key=lambda one: -one[1].px)
        ]
        message = f"the later date lies more than a pixel off the earlier in {len(off)} of {len(found)} pairs: {listed(told)}"
        fix = "register the dates first: every edge that is displaced looks like change"
        yield Finding(severity="warning", message=message, fix=fix)


def _shift(image: str, bands: Sequence[int] | None) -> Shift | None:
    """Of the middle of a pair; None where it cannot be read, which is a finding of its own."""
    try:
        with open_scene(image, bands=bands) as scene:
            grid, side = scene.grid, WINDOW_PX
            middle = Window(row=(grid.height - side) // 2, col=(grid.width - side) // 2, height=side, width=side)
            values, valid = scene.read(middle.cut(grid.window))
    except TerraleanError:
        return None
    before, after = np.split(values, 2)
    return find_shift(before, after, valid)


def _order(images: Sequence[str]) -> Iterable[Finding]:
    """Pairs whose names say that the later date comes first; what files say for certain is refused when they are opened."""
    swapped = []
    for image in images:
        years = [YEAR.findall(Path(file).name) for file in files_of(image)]
        if all(len(found) == 1 for found in years) and years[0] > years[1]:
            swapped.append(" before ".join(Path(file).name for file in files_of(image)))
    if swapped:
        message = f"the names of {len(swapped)} pairs have the later year first: {listed(swapped)}"
        yield Finding(severity="warning", message=message, fix="if the dates are swapped, exchange them: A is the earlier one")
