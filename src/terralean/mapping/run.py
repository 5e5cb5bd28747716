"""One scene to one map."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

import terralean
from terralean.errors import ConfigError, OutputFailed, TerraleanError, UnreadableScene
from terralean.mapping.cells import CellPlan, recognised
from terralean.mapping.outputs import Answer, Polygons, Targets, outputs
from terralean.mapping.plan import Plan
from terralean.mapping.strips import strips
from terralean.predict import Predictor
from terralean.raster import outlines
from terralean.raster.grid import Grid
from terralean.raster.scene import Scene, open_scene
from terralean.spec import check_band_values, check_bands, check_mappable
from terralean.tasks import segmentation
from terralean.weights.card import Card

log = logging.getLogger(__name__)

WINDOWS_AT_ONCE = 4
VIEWS_AT_ONCE = 16  # smaller, and a network works through 16 of 64 px a fourth quicker than through 4 at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class MapConfig:
    """How a scene is cut, None: as the model was trained; and what is written of it beside the classes."""

    tile_px: int | None = None
    overlap_px: int | None = None
    batch: int | None = None  # windows predicted at once; None: 4, or 16 views of a scene classifier
    bands: tuple[int, ...] | None = None  # positions from 1 of the model's bands in the scene; None: the scene's own order
    confidence: bool = False  # a raster of the probability of each pixel's class
    polygons: Polygons | None = None  # of regions of one class, in this format
    table: bool = False  # a line for each cell; of a model that recognises scenes
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.batch is not None and self.batch < 1:
            raise ConfigError(f"batch must be at least 1 window, got {self.batch}")
        if self.polygons is not None and self.polygons not in get_args(Polygons):
            raise ConfigError(f"polygons must be one of {', '.join(get_args(Polygons))}, got {self.polygons!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class MapResult:
    """What was written, and what it took."""

    scene: str
    path: str
    width_px: int  # of the map
    height_px: int
    cell_px: int  # px of the scene along a side of a pixel of the map
    valid_share: float
    area_km2: float | None  # of valid pixels; None without a CRS
    class_share: dict[str, float] = field(default_factory=dict)  # of valid pixels
    confidence: str | None = None  # files that were asked for
    polygons: str | None = None
    table: str | None = None
    seconds: float


def map_scene(
    predictor: Predictor,
    path: str | Path,
    *,
    out: Path,
    config: MapConfig,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> MapResult:
    """Write the class map of a scene as `out/<scene>_map.tif`, with its style and attribute table beside it.

    A model of scene recognition gives a map of cells, see `terralean.mapping.cells`. On request there are
    `<scene>_confidence.tif` (percent, 255 where there is no data), `<scene>_polygons.gpkg` and, of cells, `<scene>_cells.csv`.

    `progress` is told finished and all rows. Raises BandMismatch before anything is predicted, UnreadableScene where the
    scene holds no valid pixel, OutputFailed where the map cannot be written; no file then keeps its final name.
    """
    began = time.monotonic()
    card = predictor.card
    make, targets = _maker(card, config), _targets(path, out=out, config=config)
    with open_scene(path, bands=config.bands) as scene:
        check_contract(scene, card, chosen=config.bands is not None)
        work = make(predictor, scene, config)
        log.info(
            "%s: %d x %d px, about %d MB of memory beside the model",
            path,
            scene.grid.width,
            scene.grid.height,
            (work.need + (outlines.bytes_needed(work.grid) if config.polygons else 0)) // 2**20 + 1,
        )
        counts = _write(predictor, scene, work, targets=targets, overwrite=config.overwrite, progress=progress)
    valid = int(counts.sum())
    return MapResult(
        scene=str(path),
        path=str(targets.map),
        width_px=work.grid.width,
        height_px=work.grid.height,
        cell_px=work.cell_px,
        valid_share=valid / work.grid.window.pixels,
        area_km2=_area_km2(work.grid, valid=valid),
        class_share=dict(zip(card.classes.names, (counts / valid).round(6).tolist(), strict=True)),
        confidence=_said(targets.confidence),
        polygons=_said(targets.polygons),
        table=_said(targets.table),
        seconds=round(time.monotonic() - began, 1),
    )


def map_scenes(
    predictor: Predictor,
    paths: Sequence[str | Path],
    *,
    out: Path,
    config: MapConfig,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[MapResult], dict[str, str]]:
    """Map each scene; results of those that were mapped, and by path what was wrong with the others.

    A single scene's mistake is raised. `progress` is told finished and all scenes, in thousandths.
    """
    check_targets(paths, out=out)
    results: list[MapResult] = []
    failed: dict[str, str] = {}
    for index, path in enumerate(paths):

        def tell(row: int, rows: int, before: int = index) -> None:
            progress(1000 * before + 1000 * row // rows, 1000 * len(paths))

        try:
            results.append(map_scene(predictor, path, out=out, config=config, progress=tell))
        except TerraleanError as error:
            if len(paths) == 1:
                raise
            failed[str(path)] = str(error)
    return results, failed


def make_plan(card: Card, grid: Grid, *, config: MapConfig) -> Plan:
    """The plan of a grid with what the configuration leaves open taken from the card."""
    tile = config.tile_px if config.tile_px is not None else card.tile_px
    overlap = config.overlap_px if config.overlap_px is not None else min(card.overlap_px, tile // 2)
    return Plan(grid=grid, tile_px=tile, overlap_px=overlap)


def make_cell_plan(card: Card, grid: Grid, *, config: MapConfig) -> CellPlan:
    """The views of a grid; where only their side is given, cells keep their share of it."""
    view = config.tile_px if config.tile_px is not None else card.tile_px
    overlap = config.overlap_px if config.overlap_px is not None else round(card.overlap_px * view / card.tile_px)
    return CellPlan(scene=grid, view_px=view, overlap_px=overlap)


def map_path(path: str | Path, *, out: Path) -> Path:
    """Where the map of a scene goes."""
    return out / f"{Path(str(path)).stem}_map.tif"


def check_targets(paths: Sequence[str | Path], *, out: Path) -> None:
    """Raise OutputFailed where two scenes would be written to one map."""
    taken: dict[Path, str | Path] = {}
    for path in paths:
        target = map_path(path, out=out)
        if str(taken.get(target)) == str(path):
            raise OutputFailed(f"{path} is given twice; name each scene once")
        if target in taken:
            raise OutputFailed(f"{taken[target]} and {path} would both be written to {target}; map them to different folders")
        taken[target] = path


def check_contract(scene: Scene, card: Card, *, chosen: bool) -> None:
    """The scene's bands against the model's; positions given by the user count for more than names, with a warning."""
    if not chosen:
        check_bands(scene.bands, card.bands, scene=scene.path)
        return
    check_band_values(scene.bands, card.bands, scene=scene.path)
    pairs = zip(scene.bands.names, card.bands.names, strict=True)
    told = ", ".join(f"{theirs} as {ours}" for theirs, ours in pairs if theirs.casefold() != ours.casefold())
    if told and scene.bands.named and card.bands.named:
        log.warning("%s: taking, as --bands says, %s", scene.path, told)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Work:
    """How a task makes a map of a scene."""

    grid: Grid  # of the map
    place: Grid  # the same with coordinates even where the scene has none: px of the scene
    cell_px: int
    need: int  # peak bytes
    answers: Iterator[Answer]


def _pixels(predictor: Predictor, scene: Scene, config: MapConfig) -> _Work:
    """A class for each pixel."""
    card, batch = predictor.card, config.batch or WINDOWS_AT_ONCE
    plan = make_plan(card, scene.grid, config=config)
    answers = (
        Answer(
            window=strip.window,
            classes=segmentation.answer(strip.probabilities, strip.valid),
            confidence=strip.probabilities.max(axis=0),
        )
        for strip in strips(predictor, scene, plan, batch=batch)
    )
    need = plan.bytes_needed(bands=len(card.bands), classes=len(card.classes), batch=batch)
    return _Work(grid=plan.grid, place=plan.grid, cell_px=1, need=need, answers=answers)


def _cells(predictor: Predictor, scene: Scene, config: MapConfig) -> _Work:
    """A class for each cell."""
    card, batch = predictor.card, config.batch or VIEWS_AT_ONCE
    plan = make_cell_plan(card, scene.grid, config=config)
    need = plan.bytes_needed(
        bands=len(card.bands), classes=len(card.classes), batch=batch, seen_px=card.seen_px or plan.view_px
    )
    answers = recognised(predictor, scene, plan, batch=batch)
    return _Work(grid=plan.grid, place=plan.cells, cell_px=plan.cell_px, need=need, answers=answers)


MAKERS = {"segmentation": _pixels, "classification": _cells}


def _maker(card: Card, config: MapConfig) -> Callable[[Predictor, Scene, MapConfig], _Work]:
    """What the card's task does. Raises ConfigError where that cannot be mapped, or not so."""
    if card.task not in MAKERS:
        raise ConfigError(f"{card.model} was trained for {card.task}; maps are made by models for {' and '.join(MAKERS)}")
    if config.table and card.task != "classification":
        raise ConfigError(
            f"a table has a line for each cell, and {card.model} maps single pixels; ask for --polygons or --confidence instead"
        )
    check_mappable(card.classes, where=f"a map by {card.model}")
    return MAKERS[card.task]


def _targets(path: str | Path, *, out: Path, config: MapConfig) -> Targets:
    stem = Path(str(path)).stem
    return Targets(
        map=map_path(path, out=out),
        confidence=out / f"{stem}_confidence.tif" if config.confidence else None,
        polygons=out / f"{stem}_polygons.{config.polygons}" if config.polygons else None,
        table=out / f"{stem}_cells.csv" if config.table else None,
    )


def _said(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _write(
    predictor: Predictor,
    scene: Scene,
    work: _Work,
    *,
    targets: Targets,
    overwrite: bool,
    progress: Callable[[int, int], None],
) -> NDArray[np.int64]:
    """Write the map strip by strip; the count of pixels of each class."""
    classes, tags = predictor.card.classes, _tags(predictor, scene)
    with outputs(targets, grid=work.grid, place=work.place, classes=classes, tags=tags, overwrite=overwrite) as files:
        for answer in work.answers:
            files.write(answer)
            progress(answer.window.row + answer.window.height, work.grid.height)
        if not any(files.map.counts):  # inside, so that nothing is left of what was begun
            raise UnreadableScene(
                f"{scene.path} holds no valid pixel in these bands: every one is nodata, masked or NaN; map another scene"
            )
        return np.array(files.map.counts)


def _tags(predictor: Predictor, scene: Scene) -> dict[str, str]:
    card = predictor.card
    return {
        "TERRALEAN_VERSION": terralean.__version__,
        "TERRALEAN_MODEL": card.model,
        "TERRALEAN_DATA": card.training.data,
        "TERRALEAN_SCENE": Path(scene.path).name,
        "TERRALEAN_PRECISION": predictor.precision,
    }


def _area_km2(grid: Grid, *, valid: int) -> float | None:
    pixel = grid.pixel_m()
    return None if pixel is None else round(valid * pixel[0] * pixel[1] / 1e6, 6)
