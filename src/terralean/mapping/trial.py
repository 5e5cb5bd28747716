"""What a map of a scene will take: some places of it mapped as the map will be, files included, and what holds data."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from terralean.cost.device import device_name
from terralean.errors import ConfigError
from terralean.mapping.budget import Budget, Calibration, Extent
from terralean.mapping.crew import torch_threads
from terralean.mapping.item import origin_of
from terralean.mapping.job import Order, open_job
from terralean.mapping.outputs import Legend, make_files
from terralean.mapping.pixels import PixelWork
from terralean.mapping.plan import Plan
from terralean.mapping.run import MapConfig, check_task, targets_of, work_of
from terralean.mapping.scenes import SceneSource
from terralean.mapping.stages import Stages
from terralean.mapping.work import Finished
from terralean.predict import Predictor
from terralean.raster.area import row_area_m2
from terralean.raster.clip import Clip
from terralean.raster.cog import bounded_cache
from terralean.raster.grid import Window
from terralean.raster.scene import Scene, read_preview
from terralean.raster.write import count_classes

PREVIEW_PX = 1024  # longer side of the look at what holds data
GOLDEN = (5**0.5 - 1) / 2
ROUNDS = 2  # batches that each worker predicts in a place
FILES_PX = (64, 2048)  # sides of maps whose files are made: what any takes, and what grows with the pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialConfig:
    """How long is tried."""

    seconds: float = 10.0  # after which no further place is begun
    share: float = 0.1  # of the budget, after which neither
    places: int = 9  # at most

    def __post_init__(self) -> None:
        if not self.seconds > 0 or not self.share > 0 or self.places < 1:
            raise ConfigError(
                f"a trial takes more than 0 s in 1 place or more, got {self.seconds} s, {self.share} of the budget, in "
                f"{self.places} places"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What was found."""

    calibration: Calibration
    extent: Extent


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Took:
    """What one place took, and its map."""

    windows: int
    seconds: float
    rows: dict[str, NDArray[Any]]  # (C, h, w) each


def try_out(
    predictor: Predictor, source: SceneSource, *, budget: Budget, config: MapConfig, trial: TrialConfig
) -> Trial | None:
    """Map some places that are spread over a scene into a folder that is then gone; None where no place holds data.

    It takes a share of the budget at most, and one place at least, on top of it. Raises what mapping the scene raises before
    anything is predicted.
    """
    card = predictor.card
    with source.open(card.bands, bands=config.bands) as scene, bounded_cache(), torch_threads(config.threads):
        work = _pixel_work(predictor, scene, source=source, config=config)
        held = _Held(scene, work)
        if not held.windows.any():
            return None
        _warm_up(predictor)
        seconds = min(trial.seconds, trial.share * budget.of(area_km2=held.area_km2))
        found = list(_places(work, held, source=source, config=config, seconds=seconds, most=trial.places))
        if not any(one.windows for one in found):
            return None
        calibration = _calibration(work, held, found, source=source, config=config)
    return Trial(calibration=calibration, extent=_extent(work, held))


def _pixel_work(predictor: Predictor, scene: Scene, *, source: SceneSource, config: MapConfig) -> PixelWork:
    """Of the whole scene. ConfigError for a model that maps no pixels."""
    card = predictor.card
    check_task(card, config)
    work = work_of(predictor, scene, config, targets_of(source, out=Path(), config=config))
    if not isinstance(work, PixelWork):
        raise ConfigError(f"{card.model} was trained for {card.task}: a budget is for maps of pixels, whose windows overlap")
    return work


def _calibration(
    work: PixelWork, held: _Held, found: Sequence[_Took], *, source: SceneSource, config: MapConfig
) -> Calibration:
    """What places took, for the scene as a whole; its files are made of the place with most in it, repeated."""
    rows = max(found, key=lambda one: one.windows).rows
    once, large = (_files_s(work, rows, side_px=side_px, source=source, config=config) for side_px in FILES_PX)
    per_px = max(0.0, large - once) / (FILES_PX[1] ** 2 - FILES_PX[0] ** 2)
    window_s = sum(one.seconds for one in found) / sum(one.windows for one in found)
    return Calibration(
        seconds_per_mpx=window_s * int(held.windows.sum()) / (held.pixels / 1e6),
        fixed_s=once + per_px * work.grid.window.pixels,
        device=device_name(work.predictor.device),
    )


def _extent(work: PixelWork, held: _Held) -> Extent:
    mapped = work.lattice.mapped
    return Extent(
        height_px=mapped.height,
        width_px=mapped.width,
        mapped_px=held.pixels,
        area_km2=held.area_km2,
        tile_px=work.lattice.tile_px,
    )


class _Held:
    """What of a scene is to be mapped, by a look at it in coarse pixels."""

    def __init__(self, scene: Scene, work: PixelWork) -> None:
        wanted, plan = _wanted(scene, work.lattice.mapped, work.clip), work.lattice
        above = np.pad(wanted.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
        top, bottom = _coarse(plan.rows, side_px=plan.tile_px, length=scene.grid.height, count=wanted.shape[0])
        left, right = _coarse(plan.cols, side_px=plan.tile_px, length=scene.grid.width, count=wanted.shape[1])
        rows = above[bottom] - above[top]
        self.windows = rows[:, right] - rows[:, left] > 0  # (rows, columns) which windows reach some of it
        self.pixels = max(1, round(wanted.mean() * scene.grid.window.pixels))
        area_m2, held = row_area_m2(scene.grid), wanted.mean(axis=1) * scene.grid.width
        which = ((np.arange(scene.grid.height) + 0.5) * len(held) / scene.grid.height).astype(np.intp)
        self.area_km2 = None if area_m2 is None else float((area_m2 * held[which]).sum() / 1e6)


def _coarse(starts: list[int], *, side_px: int, length: int, count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Along one axis the coarse pixels that windows reach, each at least one: from and to (n,)."""
    first = np.array(starts)
    low = (first * count // length).astype(np.intp)
    high = -(-(first + side_px) * count // length)
    return low, np.maximum(high, low + 1).clip(max=count).astype(np.intp)


def _wanted(scene: Scene, mapped: Window, clip: Clip | None) -> NDArray[np.bool_]:
    """Coarse pixels (h, w) of the whole scene whose middles are to be mapped."""
    wanted = read_preview(scene, PREVIEW_PX)[1].copy()
    rows, cols = (
        ((np.arange(count) + 0.5) * length / count).astype(np.intp)
        for count, length in zip(wanted.shape, (scene.grid.height, scene.grid.width), strict=True)
    )
    wanted &= ((rows >= mapped.row) & (rows < mapped.row + mapped.height))[:, None]
    wanted &= (cols >= mapped.col) & (cols < mapped.col + mapped.width)
    if clip is not None:
        for i in np.flatnonzero(wanted.any(axis=1)).tolist():
            line = Window(row=int(rows[i]), col=0, height=1, width=scene.grid.width)
            wanted[i] &= clip.inside(line)[0][cols]
    return wanted


def _warm_up(predictor: Predictor) -> None:
    """What the first window takes longer than others is not the scene's."""
    card = predictor.card
    image = torch.zeros(1, len(card.bands), card.tile_px, card.tile_px)
    predictor(image, torch.ones(1, card.tile_px, card.tile_px, dtype=torch.bool))


def _places(
    work: PixelWork, held: _Held, *, source: SceneSource, config: MapConfig, seconds: float, most: int
) -> Iterator[_Took]:
    """Of windows that hold data some that are spread evenly, each with its neighbours, until there is no more time."""
    began, numbers = time.perf_counter(), np.flatnonzero(held.windows.ravel())
    for i in range(min(most, len(numbers))):
        if i and time.perf_counter() - began > seconds:
            return
        number = int(numbers[int((i + 0.5) * GOLDEN % 1 * len(numbers))])
        part = _part(work.lattice, number, least=ROUNDS * work.crew.workers * work.crew.batch)
        yield _take(replace(work, lattice=replace(work.lattice, part=part)), source=source, config=config)


def _part(plan: Plan, number: int, *, least: int) -> Window:
    """What windows around one of them map alone: a block of at least so many of them, where there are as many."""
    rows, cols = plan.rows, plan.cols
    across = min(len(cols), max(2, math.isqrt(least)))
    down = min(len(rows), max(2, -(-least // across)))
    across = min(len(cols), max(across, -(-least // down)))
    tops = _span(rows, number // len(cols), count=down, plan=plan, first=plan.mapped.row, length=plan.mapped.height)
    lefts = _span(cols, number % len(cols), count=across, plan=plan, first=plan.mapped.col, length=plan.mapped.width)
    return Window(row=tops[0], col=lefts[0], height=tops[1] - tops[0], width=lefts[1] - lefts[0])


def _span(starts: list[int], at: int, *, count: int, plan: Plan, first: int, length: int) -> tuple[int, int]:
    """Along one axis from where to where `count` windows about the one at `at` reach that no other one does."""
    low = min(max(0, at - count // 2), len(starts) - count)
    begin = first if low == 0 else starts[low] + plan.overlap_px
    end = first + length if low + count == len(starts) else starts[low + count]
    return max(begin, first), min(end, first + length)


def _take(work: PixelWork, *, source: SceneSource, config: MapConfig) -> _Took:
    """Map a place, rows on the disk included."""
    with TemporaryDirectory(prefix="terralean-") as folder:
        target = targets_of(source, out=Path(folder), config=config).map
        order = Order(facts={}, contents=work.contents, width=work.grid.width, heights=work.heights)
        with open_job(target.with_suffix(".part"), order, overwrite=False, target=target) as job:
            began = time.perf_counter()
            with Stages() as stages:
                for piece in work.finished(stages, done=0):
                    job.keep(piece)
            seconds = time.perf_counter() - began
            rows = {name: file.read(0, work.grid.height) for name, file in job.rows.items()}
            return _Took(windows=job.windows, seconds=seconds, rows=rows)


def _files_s(work: PixelWork, rows: dict[str, NDArray[Any]], *, side_px: int, source: SceneSource, config: MapConfig) -> float:
    """Seconds for all files of a square map that repeats these rows."""
    grid = replace(work.grid, width=side_px, height=side_px)
    place = replace(work.place, width=side_px, height=side_px)
    classes = work.predictor.card.classes
    with TemporaryDirectory(prefix="terralean-") as folder:
        targets = targets_of(source, out=Path(folder), config=config)
        order = Order(facts={}, contents=work.contents, width=side_px, heights=[side_px])
        with open_job(targets.map.with_suffix(".part"), order, overwrite=False, target=targets.map) as job:
            job.keep(Finished(rows={name: _repeated(values, side_px) for name, values in rows.items()}, windows=0))
            legend = Legend(grid=grid, place=place, classes=classes, tags={}, min_area_m2=config.min_area_m2)
            began = time.perf_counter()
            totals = count_classes(job.rows["classes"], grid=grid, classes=classes)
            make_files(job, targets, legend, totals, origin_of(source, work.scene, work.predictor))
            return time.perf_counter() - began


def _repeated(values: NDArray[Any], side_px: int) -> NDArray[Any]:
    """(C, h, w) -> (C, side, side)."""
    _, height, width = values.shape
    return np.tile(values, (1, -(-side_px // height), -(-side_px // width)))[:, :side_px, :side_px]
