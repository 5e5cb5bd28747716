"""One scene to one map."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import terralean
from terralean.cost.memory import give_back_freed
from terralean.errors import ConfigError, UnreadableScene
from terralean.mapping.already import Made, find_made
from terralean.mapping.boxes_run import BoxesConfig, find_boxes
from terralean.mapping.cells import CellPlan, CellWork
from terralean.mapping.contract import check_contract
from terralean.mapping.crew import Crew, default_workers, torch_threads
from terralean.mapping.estimate import Limits, enough_memory, prepared
from terralean.mapping.facts import facts_of
from terralean.mapping.item import origin_of
from terralean.mapping.job import Job, Order, open_job
from terralean.mapping.outputs import Legend, Polygons, Targets, check_absent, make_files
from terralean.mapping.pixels import PixelWork
from terralean.mapping.plan import Plan
from terralean.mapping.progress import Meter, Progress
from terralean.mapping.scenes import SceneSource, as_source
from terralean.mapping.stages import Stages
from terralean.mapping.work import Work
from terralean.predict import Predictor
from terralean.raster.clip import read_clip
from terralean.raster.cog import bounded_cache
from terralean.raster.grid import Grid
from terralean.raster.outlines import bytes_needed as outlines_bytes
from terralean.raster.outlines import check_polygons
from terralean.raster.pair import find_pair
from terralean.raster.scene import Scene
from terralean.raster.write import count_classes
from terralean.spec import check_mappable
from terralean.weights.card import Card

log = logging.getLogger(__name__)

WINDOWS_AT_ONCE = 4
VIEWS_AT_ONCE = 16  # smaller, and a network works through 16 of 64 px a fourth quicker than through 4 at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class MapConfig:
    """How a scene is cut, None: as the model was trained; what is written of it beside the classes; who works on it."""

    tile_px: int | None = None
    overlap_px: int | None = None
    batch: int | None = None  # windows predicted at once; None: 4, or 16 views of a scene classifier
    bands: tuple[int, ...] | None = None  # positions from 1 of the model's bands in the scene; None: the scene's own order
    aoi: str | None = None  # a vector file: only what lies in its polygons is mapped
    confidence: bool = False  # a raster of the probability of each pixel's class
    scores: bool = False  # a raster of the probabilities of all classes
    compute: bool = False  # a raster of the share of tokens that the model kept; of a model that reduces them
    polygons: Polygons | None = None  # of regions of one class, in this format
    min_area_m2: float | None = None  # smaller polygons are left out, and smaller holes in them closed
    min_score: float | None = None  # of oriented boxes, 0..1; of a model that finds them
    table: bool = False  # a line for each cell; of a model that recognises scenes
    stac: bool = False  # a STAC item of the map and its files
    envi: bool = False  # the classes once more as an ENVI Classification; of a model that maps pixels
    workers: int | None = None  # batches predicted side by side; None: one for each processor, or one on a GPU
    threads: int = 1  # of a worker's arithmetic on a CPU
    memory_bytes: int | None = None  # that the whole process may take; None: as it comes
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name, what in (("batch", "window"), ("workers", "worker"), ("threads", "thread")):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1 {what}, got {value}")
        if self.polygons is not None and self.polygons not in get_args(Polygons):
            raise ConfigError(f"polygons must be one of {', '.join(get_args(Polygons))}, got {self.polygons!r}")
        if self.min_area_m2 is not None and self.polygons is None:
            raise ConfigError("a smallest area is that of polygons; ask for --polygons, too, or leave --min-area out")
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise ConfigError(f"min_score is a probability, 0 to 1, got {self.min_score:g}")


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
    scores: str | None = None
    compute: str | None = None
    polygons: str | None = None
    table: str | None = None
    stac: str | None = None
    envi: str | None = None
    objects: dict[str, int] = field(default_factory=dict)  # by class, of a model that finds oriented boxes
    dota: str | None = None  # folder of DOTA's result files of these
    windows: int  # that held something to map, and were predicted
    compute_share: float | None = None  # of what these cost without token reduction; None where it was not asked for
    resumed_share: float = 0.0  # of the rows, from a run that was stopped
    seconds: float


def map_scene(
    predictor: Predictor,
    scene: SceneSource | str | Path,
    *,
    out: Path,
    config: MapConfig,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> MapResult:
    """Write the class map of a scene as `out/<scene>_map.tif`, with its style and attribute table beside it.

    A model of scene recognition gives a map of cells, see `terralean.mapping.cells`. On request there are
    `<scene>_confidence.tif` (percent, 255 where there is no data), `<scene>_scores.tif` (the same, a band for each class),
    `<scene>_compute.tif` (percent of tokens kept), `<scene>_polygons.gpkg`, of cells `<scene>_cells.csv`, and the STAC item
    `<scene>_map.json`. An item of a STAC file gives files called by its id.

    A run that was stopped, in whatever way, goes on when it is started again, to the same bytes; see `terralean.mapping.job`.
    Raises BandMismatch before anything is predicted, UnreadableScene where the scene holds no valid pixel or breaks off,
    OutputFailed where the map cannot be written, JobError where another run is at it or was begun otherwise; no file then keeps
    its final name.
    """
    began = time.monotonic()
    source = as_source(scene)
    if predictor.card.task == "detection":
        return _boxes(predictor, source, out=out, config=config, progress=progress)
    _check_dates(predictor.card, source)
    check_task(predictor.card, config)
    targets = targets_of(source, out=out, config=config)
    with source.open(predictor.card.bands, bands=config.bands) as opened, bounded_cache(), torch_threads(config.threads):
        work = work_of(predictor, opened, config, targets)
        told = _map(work, source, config=config, targets=targets, progress=progress)
    return replace(told, seconds=round(time.monotonic() - began, 1))


def _map(
    work: Work, source: SceneSource, *, config: MapConfig, targets: Targets, progress: Callable[[Progress], None]
) -> MapResult:
    """Make the map of an open scene, or go on with it."""
    if targets.polygons is not None:
        check_polygons(targets.polygons, grid=work.place, min_area_m2=config.min_area_m2)
    predictor, card = work.predictor, work.predictor.card
    facts = facts_of(predictor, work, files=[file.name for file in targets.paths], min_area_m2=config.min_area_m2)
    order = Order(facts=facts, contents=work.contents, width=work.grid.width, heights=work.heights)
    with open_job(targets.map.with_suffix(".part"), order, overwrite=config.overwrite, target=targets.map) as job:
        if not (config.overwrite or job.named):
            if (made := find_made(targets.paths, facts, grid=work.grid, classes=card.classes)) is not None:
                log.info("%s is there already, made of this scene in this way", targets.map)
                job.forget()
                return _result(made, work, targets, source)
            check_absent(targets.paths)
        _tell_of_others(targets, every_target(source, out=targets.map.parent))
        _predict(job, work, config, targets, progress)
        work.scene.close()  # its blocks, and what predicting took, are not held while files are made
        give_back_freed()
        totals = count_classes(job.rows["classes"], grid=work.grid, classes=card.classes)
        if not any(totals.pixels):
            job.forget()
            raise UnreadableScene(_nothing(work.scene, config))
        made = Made.of(job, totals)
        tags = _tags(predictor, work.scene) | made.tags(facts)
        legend = Legend(grid=work.grid, place=work.place, classes=card.classes, tags=tags, min_area_m2=config.min_area_m2)
        make_files(job, targets, legend, totals, origin_of(source, work.scene, predictor))
    return _result(made, work, targets, source)


def _check_dates(card: Card, source: SceneSource) -> None:
    """Raise ConfigError where a model of change is given one image, or another model a pair."""
    pair = source.item is None and find_pair(source.path) is not None
    if pair and card.task != "change":
        raise ConfigError(
            f"{source.name} is a pair of dates, and {card.model} maps single scenes ({card.task}); give one image"
        )
    if card.task == "change" and not pair:
        raise ConfigError(f"{source.name} is one image, and {card.model} compares two dates; give BEFORE:AFTER, or --pairs CSV")


def _boxes(
    predictor: Predictor, source: SceneSource, *, out: Path, config: MapConfig, progress: Callable[[Progress], None]
) -> MapResult:
    """The scene's oriented boxes in place of a map."""
    flags = {name: f"--{name}" for name in ("confidence", "scores", "compute", "table", "stac", "envi")}
    flags |= {"min_area_m2": "--min-area", "memory_bytes": "--memory"}
    if wrong := [flag for name, flag in flags.items() if getattr(config, name)]:
        has = "has" if len(wrong) == 1 else "have"
        raise ConfigError(
            f"{predictor.card.model} finds oriented boxes, for which {', '.join(wrong)} {has} no meaning; leave it out"
        )
    found = find_boxes(predictor, source, out=out, config=_boxes_config(config, predictor), progress=progress)
    return MapResult(
        scene=source.name,
        path=found.path,
        width_px=found.width_px,
        height_px=found.height_px,
        cell_px=1,
        valid_share=1.0,
        area_km2=None,
        objects=found.objects,
        dota=found.dota,
        windows=found.windows,
        resumed_share=found.resumed_share,
        seconds=found.seconds,
    )


def _boxes_config(config: MapConfig, predictor: Predictor) -> BoxesConfig:
    given: dict[str, Any] = {"bands": config.bands, "aoi": config.aoi, "min_score": config.min_score}
    given |= {"tile_px": config.tile_px, "overlap_px": config.overlap_px}
    given |= {} if config.batch is None else {"batch": config.batch}
    given |= {} if config.polygons is None else {"format": config.polygons}
    workers = config.workers if config.workers is not None else default_workers(predictor.device)
    return BoxesConfig(workers=workers, threads=config.threads, overwrite=config.overwrite, **given)


def make_plan(card: Card, grid: Grid, *, config: MapConfig) -> Plan:
    """The plan of a grid with what the configuration leaves open taken from the card."""
    tile = config.tile_px if config.tile_px is not None else card.tile_px
    overlap = config.overlap_px if config.overlap_px is not None else card.shared_px(tile_px=tile)
    if card.task != "spectral":
        return Plan(grid=grid, tile_px=tile, overlap_px=overlap)
    if overlap < card.overlap_px:
        raise ConfigError(
            f"{card.model} sees {card.overlap_px + 1} px around each pixel, so windows share {card.overlap_px} px at least, "
            f"got a window of {tile} px that shares {overlap}; raise --overlap, or --tile to {2 * card.overlap_px} or more"
        )
    return Plan(grid=grid, tile_px=tile, overlap_px=overlap, margin_px=overlap // 2)


def make_cell_plan(card: Card, grid: Grid, *, config: MapConfig) -> CellPlan:
    """The views of a grid; where only their side is given, cells keep their share of it."""
    view = config.tile_px if config.tile_px is not None else card.tile_px
    overlap = config.overlap_px if config.overlap_px is not None else round(card.overlap_px * view / card.tile_px)
    return CellPlan(grid=grid, view_px=view, overlap_px=overlap)


def map_path(source: SceneSource, *, out: Path) -> Path:
    """Where the map of a scene goes."""
    return out / f"{source.stem}_map.tif"


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """How models of a task make a map."""

    plan: Callable[..., Plan | CellPlan]
    work: Callable[..., Work]
    batch: int  # windows predicted at once unless something else is asked for


PIXELS = Way(plan=make_plan, work=PixelWork, batch=WINDOWS_AT_ONCE)
CELLS = Way(plan=make_cell_plan, work=CellWork, batch=VIEWS_AT_ONCE)
WAYS: Mapping[str, Way] = {"segmentation": PIXELS, "change": PIXELS, "spectral": PIXELS, "classification": CELLS}


def work_of(predictor: Predictor, scene: Scene, config: MapConfig, targets: Targets) -> Work:
    """What is to be done with an open scene. Raises BandMismatch, ConfigError and GridMismatch where that is not possible."""
    card = predictor.card
    way = WAYS[card.task]
    check_contract(scene, card, chosen=config.bands is not None)
    lattice = way.plan(card, scene.grid, config=config)
    clip = None if config.aoi is None else read_clip(config.aoi, like=scene.grid, name=scene.path)
    workers = config.workers if config.workers is not None else default_workers(predictor.device)
    return way.work(
        predictor=predictor,
        scene=scene,
        lattice=lattice if clip is None else replace(lattice, part=clip.window),
        clip=clip,
        crew=Crew(batch=config.batch or way.batch, workers=workers, threads=config.threads),
        contents=targets.contents(card.classes),
    )


def check_task(card: Card, config: MapConfig) -> None:
    """Raise ConfigError where the card's task makes no map, or not what is asked for."""
    if card.task not in WAYS:
        raise ConfigError(f"{card.model} was trained for {card.task}; maps are made by models for {' and '.join(WAYS)}")
    if config.table and card.task != "classification":
        raise ConfigError(
            f"a table has a line for each cell, and {card.model} maps single pixels; ask for --polygons or --confidence instead"
        )
    if config.min_score is not None:
        raise ConfigError(f"--min-score is for oriented boxes, and {card.model} finds none; leave it out")
    if config.compute and (card.reduce is None or card.task != "segmentation"):
        raise ConfigError(
            f"--compute draws what share of its tokens a model keeps, and this run of {card.model} keeps all; train with a "
            "method of token reduction, or take one that needs no training, e.g. --set reduce.method=tome"
        )
    check_mappable(card.classes, where=f"a map by {card.model}")


def targets_of(source: SceneSource, *, out: Path, config: MapConfig) -> Targets:
    """Where the map and all that is asked for beside it go."""
    stem = source.stem
    return Targets(
        map=map_path(source, out=out),
        confidence=out / f"{stem}_confidence.tif" if config.confidence else None,
        scores=out / f"{stem}_scores.tif" if config.scores else None,
        compute=out / f"{stem}_compute.tif" if config.compute else None,
        polygons=out / f"{stem}_polygons.{config.polygons}" if config.polygons else None,
        table=out / f"{stem}_cells.csv" if config.table else None,
        stac=out / f"{stem}_map.json" if config.stac else None,
        envi=out / f"{stem}_classes.hdr" if config.envi else None,
    )


def every_target(source: SceneSource, *, out: Path) -> set[Path]:
    """All files that maps of a scene may have."""
    all_of = partial(MapConfig, confidence=True, scores=True, compute=True, table=True, stac=True, envi=True)
    return {path for form in get_args(Polygons) for path in targets_of(source, out=out, config=all_of(polygons=form)).paths}


def _tell_of_others(targets: Targets, every: set[Path]) -> None:
    """Warn of files that would lie beside the map and tell of another one."""
    others = sorted(path.name for path in every - set(targets.paths) if path.exists())
    if others:
        log.warning(
            "%s: %s of an earlier map stay as they are; delete them, or ask for them, too", targets.map, ", ".join(others)
        )


def _predict(job: Job, work: Work, config: MapConfig, targets: Targets, progress: Callable[[Progress], None]) -> None:
    """Make the rows that are not there yet."""
    meter = Meter(work.place, scene=work.scene.path, resumed_rows=job.rows_done)
    progress(meter.at(job.rows_done))
    if job.complete:
        return
    outlining = outlines_bytes(work.grid) if targets.polygons is not None else 0
    limits = Limits(memory_bytes=config.memory_bytes, workers_given=config.workers is not None, outlining_bytes=outlining)
    with enough_memory(work), Stages() as stages:
        work = prepared(work, job, limits, target=targets.map)
        for piece in work.finished(stages, done=job.done):
            job.keep(piece)
            progress(meter.at(job.rows_done))


def _result(made: Made, work: Work, targets: Targets, source: SceneSource) -> MapResult:
    """But for the seconds."""
    totals, names = made.totals, work.predictor.card.classes.names
    valid = sum(totals.pixels)
    return MapResult(
        scene=source.name,
        path=str(targets.map),
        width_px=work.grid.width,
        height_px=work.grid.height,
        cell_px=work.cell_px,
        valid_share=valid / work.grid.window.pixels,
        area_km2=None if totals.area_m2 is None else round(sum(totals.area_m2) / 1e6, 12),
        class_share={name: round(count / valid, 6) for name, count in zip(names, totals.pixels, strict=True)},
        confidence=_said(targets.confidence),
        scores=_said(targets.scores),
        compute=_said(targets.compute),
        polygons=_said(targets.polygons),
        table=_said(targets.table),
        stac=_said(targets.stac),
        envi=_said(targets.envi),
        windows=made.windows,
        compute_share=made.compute_share,
        resumed_share=made.resumed_share,
        seconds=0.0,
    )


def _said(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _nothing(scene: Scene, config: MapConfig) -> str:
    where = "" if config.aoi is None else f" within the polygons of {config.aoi}"
    return (
        f"{scene.path} holds no valid pixel in these bands{where}: every one is nodata, masked or NaN; map another "
        f"{'scene' if config.aoi is None else 'area'}"
    )


def _tags(predictor: Predictor, scene: Scene) -> dict[str, str]:
    card = predictor.card
    return {
        "TERRALEAN_VERSION": terralean.__version__,
        "TERRALEAN_MODEL": card.model,
        "TERRALEAN_DATA": card.training.data,
        "TERRALEAN_SCENE": Path(scene.path).name,
        "TERRALEAN_PRECISION": predictor.precision,
        **_wavelengths(card),
    }


def _wavelengths(card: Card) -> dict[str, str]:
    """Of the bands that a class of a spectrum was told by."""
    nm = card.bands.wavelength_nm
    if nm is None or card.task != "spectral":
        return {}
    return {"TERRALEAN_WAVELENGTHS_NM": ", ".join(f"{w:g}" for w in nm if w is not None)}
