"""One scene to the oriented boxes in it, in bounded memory.

First every row of windows is searched and what is found there is kept in a file, so that a run that was stopped goes on after
the last whole row, to the same boxes. Then the rows are read again one after the other, merged, and written as they settle.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import shapely
import torch
from numpy.typing import NDArray

import terralean
from terralean.boxes.form import to_polygons
from terralean.boxes.merge import MergeConfig, Merged
from terralean.data.oriented.dota import write_results
from terralean.data.oriented.record import Detections
from terralean.errors import JobError, UnreadableScene
from terralean.mapping.boxes_already import BoxesTargets, MadeBoxes, find_made_boxes, write_record
from terralean.mapping.boxes_files import features_of, open_file
from terralean.mapping.boxes_stream import NOTHING, Found, Stream, within_reach
from terralean.mapping.contract import check_contract
from terralean.mapping.crew import torch_threads
from terralean.mapping.facts import scene_facts
from terralean.mapping.lock import Lock
from terralean.mapping.outputs import check_absent
from terralean.mapping.plan import Plan
from terralean.mapping.progress import Meter, Progress
from terralean.mapping.scenes import SceneSource
from terralean.predict import Predictor
from terralean.raster.clip import Clip, read_clip
from terralean.raster.cog import bounded_cache, failed
from terralean.raster.features import VECTOR_ERRORS
from terralean.raster.geoparquet import import_pyarrow
from terralean.raster.grid import Window
from terralean.raster.scene import Scene
from terralean.spec import Classes

log = logging.getLogger(__name__)

Format = Literal["gpkg", "fgb", "parquet"]
WINDOWS_AT_ONCE = 4
ORDER, NAMED = "order.json", "named"  # NAMED: files have begun to get their names


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxesConfig:
    """How a scene is searched, None: as the model was trained, and what is written."""

    tile_px: int | None = None
    overlap_px: int | None = None
    batch: int = WINDOWS_AT_ONCE  # windows searched at once
    bands: tuple[int, ...] | None = None  # positions from 1 of the model's bands in the scene; None: the scene's own order
    aoi: str | None = None  # a vector file: only boxes whose middle lies in its polygons are kept
    min_score: float | None = None  # of what is written; None: all that the model calls an object
    format: Format = "gpkg"
    workers: int = 1  # batches searched side by side
    threads: int = 1  # of a worker's arithmetic on a CPU
    merge: MergeConfig = field(default_factory=MergeConfig)
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxesResult:
    """What was found and written."""

    path: str  # of the polygons
    dota: str  # folder of DOTA's result files
    width_px: int  # of what was searched
    height_px: int
    objects: dict[str, int]  # by class
    windows: int  # that held something to search
    resumed_share: float
    seconds: float


def find_boxes(
    predictor: Predictor,
    source: SceneSource,
    *,
    out: Path,
    config: BoxesConfig,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> BoxesResult:
    """Write `out/<scene>_boxes.gpkg` and `out/<scene>_dota/Task1_<class>.txt` with the objects of a scene.

    A polygon has `class`, `value`, `score`, and the box in px of the scene: `x_px`, `y_px`, `width_px`, `height_px`,
    `angle_deg`. A scene without objects gives files without any. Files that are there and were made of the same stay as they
    are, which `out/<scene>_boxes.json` tells. Raises BandMismatch before anything is searched, UnreadableScene where the scene
    holds no valid pixel, OutputFailed where other files are there or cannot be written, JobError where another run is at it or
    was begun otherwise.
    """
    began = time.monotonic()
    targets = targets_of(source, out=out, format=config.format)
    if config.format == "parquet":
        import_pyarrow(targets.polygons.name)
    with source.open(predictor.card.bands, bands=config.bands) as scene, bounded_cache(), torch_threads(config.threads):
        check_contract(scene, predictor.card, chosen=config.bands is not None)
        search = _Search.of(predictor, scene, config)
        folder, facts = targets.polygons.with_name(f"{source.stem}_boxes.part"), search.facts()
        with _job(folder, facts, overwrite=config.overwrite) as resumed:
            facts |= {"files": [targets.polygons.name], "min_score": config.min_score, "merge": asdict(config.merge)}
            before = None
            if not (config.overwrite or (folder / NAMED).exists()):
                before = _made_before(targets, facts, classes=predictor.card.classes)
            made = before or _make(search, folder, targets, facts, progress=progress)
            shutil.rmtree(folder, ignore_errors=True)
    return BoxesResult(
        path=str(targets.polygons),
        dota=str(targets.dota),
        width_px=search.plan.mapped.width,
        height_px=search.plan.mapped.height,
        objects=dict(zip(predictor.card.classes.names, made.counts.tolist(), strict=True)),
        windows=made.windows,
        resumed_share=1.0 if before else round(resumed / len(search.plan.rows), 6),
        seconds=round(time.monotonic() - began, 1),
    )


def search_scene(predictor: Predictor, scene: Scene, *, config: BoxesConfig) -> Merged:
    """All boxes of a scene, merged, in memory; best first."""
    search = _Search.of(predictor, scene, config)
    stream = search.stream()
    for row in search.plan.rows:
        stream.add(search.row(row)[0])
    found = stream.settled(next_row=None)
    if found is None:
        return _none()
    return _wanted(found, search)


def targets_of(source: SceneSource, *, out: Path, format: Format) -> BoxesTargets:
    """What is written of a scene."""
    stem = source.stem
    return BoxesTargets(polygons=out / f"{stem}_boxes.{format}", dota=out / f"{stem}_dota", record=out / f"{stem}_boxes.json")


# The search.


class Read(NamedTuple):
    """A window as the scene holds it."""

    window: Window
    values: NDArray[Any]  # (C, h, w)
    valid: NDArray[np.bool_]  # (h, w)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Search:
    """A scene, the windows that it is searched in, and who searches."""

    predictor: Predictor
    scene: Scene
    plan: Plan
    clip: Clip | None
    config: BoxesConfig

    @classmethod
    def of(cls, predictor: Predictor, scene: Scene, config: BoxesConfig) -> _Search:
        card = predictor.card
        tile = card.tile_px if config.tile_px is None else config.tile_px
        overlap = min(card.overlap_px, tile // 2) if config.overlap_px is None else config.overlap_px
        clip = None if config.aoi is None else read_clip(config.aoi, like=scene.grid, name=scene.path)
        part = None if clip is None else clip.window
        plan = Plan(grid=scene.grid, tile_px=tile, overlap_px=overlap, part=part)
        return cls(predictor=predictor, scene=scene, plan=plan, clip=clip, config=config)

    @property
    def reach_px(self) -> float:
        """How far out of its window a box may reach."""
        return self.plan.tile_px / 2

    def stream(self) -> Stream:
        return Stream(self.scene.grid, config=self.config.merge, reach_px=self.reach_px)

    def row(self, row: int) -> tuple[Found, int]:
        """What the windows that begin in a row of the scene show, and how many of them hold data."""
        parts, seen, workers = [NOTHING], 0, self.config.workers
        with ThreadPoolExecutor(workers) as pool:
            batches = self._batches(row)
            while group := list(islice(batches, workers)):
                parts += pool.map(self._found, group)
                seen += sum(map(len, group))
        return within_reach(Found.joined(*parts), reach_px=self.reach_px), seen

    def _batches(self, row: int) -> Iterator[list[Read]]:
        """The windows of a row that hold data, so many at a time; no more are held than are asked for."""
        read = (
            Read(window, *self.scene.read(window))
            for window in self.plan.row_of_windows(row)
            if self.clip is None or self.clip.reaches(window)
        )
        with_data = (one for one in read if one.valid.any())
        while batch := list(islice(with_data, self.config.batch)):
            yield batch

    def _found(self, batch: list[Read]) -> Found:
        images = torch.from_numpy(np.stack([np.where(one.valid, one.values, 0).astype(np.float32) for one in batch]))
        valid, parts = torch.from_numpy(np.stack([one.valid for one in batch])), []
        for (window, _, _), one in zip(batch, self.predictor.detect(images, valid), strict=True):
            sides = [window.col, window.row, window.col + window.width, window.row + window.height]
            boxes = one.boxes.double().numpy() + np.array([window.col, window.row, 0, 0, 0])
            parts.append(
                Found(
                    boxes=boxes,
                    scores=one.scores.double().numpy(),
                    labels=one.labels.numpy(),
                    windows=np.tile(np.array(sides, dtype=np.float64), (len(boxes), 1)),
                )
            )
        return Found.joined(*parts)

    def facts(self) -> dict[str, Any]:
        """All that the boxes found in a row depend on."""
        return {
            "terralean": terralean.__version__,
            "model": self.predictor.fingerprint(),
            "precision": self.predictor.precision,
            "scene": scene_facts(self.scene),
            "windows": [self.plan.tile_px, self.plan.overlap_px, self.config.batch],
            "area": None if self.clip is None else self.clip.digest,
        }


def _made_before(targets: BoxesTargets, facts: dict[str, Any], *, classes: Classes) -> MadeBoxes | None:
    """What is there and is what is asked for; None where nothing is. Raises OutputFailed where something else is."""
    made = find_made_boxes(targets, facts, classes=classes)
    if made is None:
        check_absent(targets.in_the_way())
    else:
        log.info("%s is there already, made of this scene in this way", targets.polygons)
    return made


def _make(
    search: _Search, folder: Path, targets: BoxesTargets, facts: dict[str, Any], *, progress: Callable[[Progress], None]
) -> MadeBoxes:
    """Search what is not searched yet, and write all that was found."""
    windows = _search_rows(search, folder, progress)
    if not windows:
        shutil.rmtree(folder, ignore_errors=True)
        raise UnreadableScene(_nothing(search))
    counts = _write(_merged_rows(search, folder), search, targets, named=folder / NAMED)
    made = MadeBoxes(counts, windows)
    try:
        write_record(targets.record, facts, windows=windows)
    except OSError as error:
        raise failed(targets.record, error, left=f"{targets.polygons} is there") from error
    return made


def _search_rows(search: _Search, folder: Path, progress: Callable[[Progress], None]) -> int:
    """Search the rows whose files are not there yet; how many windows of the scene held data."""
    rows, seen = search.plan.rows, 0
    done = sum(_file(folder, row).is_file() for row in rows)
    grid = search.scene.grid.crop(search.plan.mapped)
    meter = Meter(grid, scene=search.scene.path, resumed_rows=_height(search.plan, done))
    for number, row in enumerate(rows):
        progress(meter.at(_height(search.plan, number)))
        path = _file(folder, row)
        if path.is_file():
            seen += int(_read(path)[1])
            continue
        found, windows = search.row(row)
        seen += windows
        _save(path, found, windows)
    progress(meter.at(grid.height))
    return seen


def _nothing(search: _Search) -> str:
    aoi = search.config.aoi
    where, other = ("", "scene") if aoi is None else (f" within the polygons of {aoi}", "area")
    return (
        f"{search.scene.path} holds no valid pixel in these bands{where}: every one is nodata, masked or NaN; search another "
        f"{other}"
    )


def _height(plan: Plan, rows: int) -> int:
    """Rows of the map that are done when so many rows of windows are."""
    return sum(plan.strip(row).height for row in plan.rows[:rows])


# Files of rows.


def _file(folder: Path, row: int) -> Path:
    return folder / f"row_{row}.npz"


def _save(path: Path, found: Found, windows: int) -> None:
    part = path.with_suffix(".part")
    try:
        with part.open("wb") as file:
            np.savez(
                file, boxes=found.boxes, scores=found.scores, labels=found.labels, windows=found.windows, seen=np.array(windows)
            )
        os.replace(part, path)
    except OSError as error:
        raise failed(path, error, left="what was searched before is kept") from error


def _read(path: Path) -> tuple[Found, int]:
    with np.load(path) as saved:
        found = Found(**{name: saved[name] for name in ("boxes", "scores", "labels", "windows")})
        return found, int(saved["seen"])


@contextmanager
def _job(folder: Path, facts: dict[str, Any], *, overwrite: bool) -> Iterator[int]:
    """The folder of rows, held by this process alone; yields how many rows an earlier run left in it."""
    told = json.dumps(facts, sort_keys=True)
    with ExitStack() as stack:
        try:
            lock = Lock(folder)
        except OSError as error:
            raise failed(folder, error) from error
        stack.callback(lock.release)
        order = folder / ORDER
        if order.is_file() and order.read_text(encoding="utf-8") != told:
            if not overwrite:
                raise JobError(
                    f"{folder} holds a search that was begun with another model, scene or windows; give --overwrite to begin "
                    "anew, or another --out"
                )
            for path in (*folder.glob("row_*"), *folder.glob(NAMED)):
                path.unlink()
        stack.callback(_forget_nothing, folder)
        order.write_text(told, encoding="utf-8")
        yield len(list(folder.glob("row_*.npz")))


def _forget_nothing(folder: Path) -> None:
    """Leave no folder that holds no row."""
    if not any(folder.glob("row_*.npz")):
        shutil.rmtree(folder, ignore_errors=True)


# From rows to files.


def _merged_rows(search: _Search, folder: Path) -> Iterator[Merged]:
    """Boxes of the scene, those of a row at a time as they settle, best first."""
    stream, rows = search.stream(), search.plan.rows
    for number, row in enumerate(rows):
        stream.add(_read(_file(folder, row))[0])
        settled = stream.settled(next_row=rows[number + 1] if number + 1 < len(rows) else None)
        if settled is not None:
            yield _wanted(settled, search)


def _wanted(merged: Merged, search: _Search) -> Merged:
    """Boxes that are sure enough and whose middle lies in the polygons, where these are asked for."""
    # Only now: of a part and the whole object, the part may be surer.
    wanted = merged.scores.numpy() >= (search.config.min_score or 0)
    if search.clip is not None and len(wanted):
        inside = search.clip.tree.query(shapely.points(merged.boxes[:, :2].numpy()), predicate="intersects")[0]
        wanted &= np.isin(np.arange(len(wanted)), inside)
    return Merged(*(some[torch.from_numpy(wanted)] for some in merged))


def _write(merged: Iterator[Merged], search: _Search, targets: BoxesTargets, *, named: Path) -> NDArray[np.int64]:
    """Both kinds of files, whole or not at all; objects of each class (K,). `named` is there once they get their names."""
    classes, grid = search.predictor.card.classes, search.scene.grid
    target, dota = targets.polygons, targets.dota
    counts = np.zeros(len(classes), dtype=np.int64)
    part = target.with_name(f"{target.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        file = open_file(part / target.name, crs=grid.crs)
        every = []
        file.write(features_of(_none(), grid), classes)  # a layer is there even where nothing is found
        for some in merged:
            features = features_of(some, grid)
            file.write(features, classes)
            counts += np.bincount(features.labels, minlength=len(classes))
            every.append(some)
        file.close()
        write_results(part / dota.name, [_detections(every, dota.name.removesuffix("_dota"))], classes=classes)
        named.touch()
        targets.record.unlink(missing_ok=True)
        shutil.rmtree(dota, ignore_errors=True)
        os.replace(part / dota.name, dota)
        os.replace(part / target.name, target)
    except (OSError, *VECTOR_ERRORS) as error:
        raise failed(target, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return counts


def _none() -> Merged:
    return Merged(torch.zeros(0, 5).double(), torch.zeros(0), torch.zeros(0).long(), torch.zeros(0).long())


def _detections(parts: list[Merged], stem: str) -> Detections:
    every = Merged(*(torch.cat(some) for some in zip(_none(), *parts, strict=True)))
    return detections_of(every, image=stem)


def detections_of(merged: Merged, *, image: str) -> Detections:
    """Boxes of a scene as scores and result files take them."""
    return Detections(
        image=image,
        polygons=to_polygons(merged.boxes.double()).numpy().reshape(-1, 8),
        scores=merged.scores.double().numpy(),
        labels=merged.labels.numpy(),
    )
