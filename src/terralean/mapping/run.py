"""One scene to one map."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import terralean
from terralean.errors import ConfigError, OutputFailed, TerraleanError, UnreadableScene
from terralean.mapping.plan import Plan
from terralean.mapping.strips import strips
from terralean.predict import Predictor
from terralean.raster.grid import Grid
from terralean.raster.scene import Scene, open_scene
from terralean.raster.write import MapWriter
from terralean.spec import check_band_values, check_bands
from terralean.tasks import segmentation
from terralean.weights.card import Card

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class MapConfig:
    """How a scene is cut; None: as the model was trained."""

    tile_px: int | None = None
    overlap_px: int | None = None
    batch: int = 4  # windows predicted at once
    bands: tuple[int, ...] | None = None  # positions from 1 of the model's bands in the scene; None: the scene's own order
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ConfigError(f"batch must be at least 1 window, got {self.batch}")


@dataclass(frozen=True, kw_only=True, slots=True)
class MapResult:
    """What was written, and what it took."""

    scene: str
    path: str
    width_px: int
    height_px: int
    valid_share: float
    area_km2: float | None  # of valid pixels; None without a CRS
    class_share: dict[str, float] = field(default_factory=dict)  # of valid pixels
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

    `progress` is told finished and all rows. Raises BandMismatch before anything is predicted, UnreadableScene where the
    scene holds no valid pixel, OutputFailed where the map cannot be written; no file then keeps its final name.
    """
    began = time.monotonic()
    card = predictor.card
    target = map_path(path, out=out)
    if target.exists() and not config.overwrite:
        raise OutputFailed(f"{target} exists; delete it, choose another folder, or say --overwrite")
    with open_scene(path, bands=config.bands) as scene:
        check_contract(scene, card, chosen=config.bands is not None)
        plan = make_plan(card, scene.grid, config=config)
        need = plan.bytes_needed(bands=len(card.bands), classes=len(card.classes), batch=config.batch)
        log.info(
            "%s: %d x %d px, about %d MB of memory beside the model",
            path,
            scene.grid.width,
            scene.grid.height,
            need // 2**20 + 1,
        )
        counts = _write(predictor, scene, plan, target=target, batch=config.batch, progress=progress)
    valid = int(counts.sum())
    return MapResult(
        scene=str(path),
        path=str(target),
        width_px=plan.grid.width,
        height_px=plan.grid.height,
        valid_share=valid / plan.grid.window.pixels,
        area_km2=_area_km2(plan, valid=valid),
        class_share=dict(zip(card.classes.names, (counts / valid).round(6).tolist(), strict=True)),
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


def _write(
    predictor: Predictor,
    scene: Scene,
    plan: Plan,
    *,
    target: Path,
    batch: int,
    progress: Callable[[int, int], None],
) -> NDArray[np.int64]:
    """Write the map strip by strip; the count of pixels of each class."""
    card = predictor.card
    with MapWriter(target, grid=plan.grid, classes=card.classes, tags=_tags(predictor, scene)) as writer:
        for strip in strips(predictor, scene, plan, batch=batch):
            writer.write(strip.window, segmentation.answer(strip.probabilities, strip.valid))
            progress(strip.window.row + strip.window.height, plan.grid.height)
        if not any(writer.counts):  # inside, so that the writer removes what it began
            raise UnreadableScene(
                f"{scene.path} holds no valid pixel in these bands: every one is nodata, masked or NaN; map another scene"
            )
    return np.array(writer.counts)


def _tags(predictor: Predictor, scene: Scene) -> dict[str, str]:
    card = predictor.card
    return {
        "TERRALEAN_VERSION": terralean.__version__,
        "TERRALEAN_MODEL": card.model,
        "TERRALEAN_DATA": card.training.data,
        "TERRALEAN_SCENE": Path(scene.path).name,
        "TERRALEAN_PRECISION": predictor.precision,
    }


def _area_km2(plan: Plan, *, valid: int) -> float | None:
    pixel = plan.grid.pixel_m()
    return None if pixel is None else round(valid * pixel[0] * pixel[1] / 1e6, 6)
