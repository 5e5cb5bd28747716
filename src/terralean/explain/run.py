"""One scene, and where meta tokens look in it: a raster, a figure and the numbers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

import terralean
from terralean.errors import UnreadableScene
from terralean.explain.attention import DIRECTIONS, Look, LookConfig, Watcher
from terralean.explain.figure import Shown, draw
from terralean.explain.numbers import BlockNumbers, MapNumbers, Tally
from terralean.explain.page import named
from terralean.explain.part import FIGURE_PX, box_of, check_part, in_places, part_of, tell_size
from terralean.explain.strips import Lattice, Reading, data_of_places, make_lattice, strips
from terralean.explain.words import suffix, verdict, words
from terralean.mapping.contract import check_contract
from terralean.mapping.run import MapConfig, make_plan
from terralean.predict import Predictor
from terralean.raster.cog import CogWriter, Content
from terralean.raster.display import stretch
from terralean.raster.grid import Window
from terralean.raster.scene import Scene, describe, open_scene, read_preview
from terralean.raster.whole import whole

KINDS = ("tif", "csv", "json", "png")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainConfig(LookConfig):
    """What is shown of a scene, and how it is cut; None: as in its map."""

    tile_px: int | None = None
    bands: tuple[int, ...] | None = None  # positions from 1 of the model's bands in the scene; None: the scene's own order
    part: tuple[int, int, int, int] | None = None  # row, column, height, width in px that the figure shows; None: all
    overwrite: bool = False

    def __post_init__(self) -> None:
        LookConfig.__post_init__(self)  # a dataclass with slots is a new class, of which super() knows nothing
        check_part(self.part)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainResult:
    """What was written, and the numbers."""

    raster: str
    figure: str
    csv: str
    json: str
    document: dict[str, Any]  # what the JSON file holds
    shown: BlockNumbers  # of the block in raster and figure
    verdict: tuple[str, ...]  # in words, with a line for each block


def explain_scene(
    predictor: Predictor,
    path: str | Path,
    *,
    out: Path,
    config: ExplainConfig,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ExplainResult:
    """Write where meta tokens look in a scene: `out/<scene>_<direction>_s<stage>b<block>` as .tif, .png, .csv and .json.

    The raster has a band per token, or per head, on the scene's CRS and origin, at the resolution of the stage: multiples of
    the average attention, see `terralean.explain.strips`; NaN where there is no data. All files appear or none. `progress` is
    told finished and all rows. Raises ConfigError for what the model does not have, BandMismatch, UnreadableScene where the
    scene holds no valid pixel, OutputFailed where something cannot be written or is there.
    """
    watcher = Watcher(predictor, config)
    name = f"{Path(str(path)).stem}_{suffix(watcher.look)}"
    with open_scene(path, bands=config.bands) as scene:
        check_contract(scene, predictor.card, chosen=config.bands is not None)
        part = part_of(scene, config.part)
        plan = make_plan(predictor.card, scene.grid, config=MapConfig(tile_px=config.tile_px, bands=config.bands))
        lattice = make_lattice(watcher, scene.grid, tile_px=plan.tile_px, overlap_px=plan.overlap_px)
        tell_size(scene, held_bytes=_held_bytes(lattice, maps=len(watcher.look.maps)))
        with whole(out, [f"{name}.{kind}" for kind in KINDS], overwrite=config.overwrite) as folder:
            raster = folder / f"{name}.tif"
            blocks = _write_raster(raster, watcher, scene, lattice, progress=progress)
            shown = next(block for block in blocks if (block.stage, block.block) == watcher.look.shown)
            document = _document(watcher, scene, lattice, blocks)
            (folder / f"{name}.png").write_bytes(
                _figure(watcher, scene, raster, lattice, part=part, shown=shown, share=config.tokens is None)
            )
            (folder / f"{name}.csv").write_text(as_csv(blocks), encoding="utf-8")
            (folder / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    files = {kind: str(out / f"{name}.{kind}") for kind in KINDS}
    return ExplainResult(
        raster=files["tif"],
        figure=files["png"],
        csv=files["csv"],
        json=files["json"],
        document=document,
        shown=shown,
        verdict=verdict(watcher, lattice, blocks),
    )


def as_csv(blocks: Sequence[BlockNumbers]) -> str:
    """A row for each map of each block."""
    text = io.StringIO()
    columns = [field.name for field in fields(MapNumbers)]
    writer = csv.DictWriter(text, ["stage", "block", "by", *columns], lineterminator="\n")
    writer.writeheader()
    for block in blocks:
        of = {"stage": block.stage, "block": block.block, "by": block.by}
        writer.writerows({**of, **asdict(one)} for one in block.maps)
    return text.getvalue()


def _write_raster(
    path: Path, watcher: Watcher, scene: Scene, lattice: Lattice, *, progress: Callable[[int, int], None]
) -> list[BlockNumbers]:
    """Write the maps of the shown block strip by strip, and count all blocks."""
    look = watcher.look
    tallies = {block: Tally() for block in look.blocks}

    def count(reading: Reading) -> None:
        for block, tally in tallies.items():
            weights = reading.weights[block].double().numpy()
            valid = data_of_places(reading.valid, side=weights.shape[-1])
            tally.add(weights, valid, of_places=look.direction == "meta")

    names = tuple(f"{look.by} {number}" for number in look.maps)
    content = Content(bands=names, dtype="float32", nodata=float("nan"), overviews="AVERAGE", bits=32)
    seen = False
    with CogWriter(path, grid=lattice.grid, content=content, tags=_tags(watcher, scene, lattice)) as writer:
        for strip in strips(watcher, scene, lattice, tell=count):
            writer.write(strip.window, strip.attention)
            seen = seen or bool(np.isfinite(strip.attention).any())
            progress(strip.window.row + strip.window.height, lattice.grid.height)
        if not seen:  # inside, so that the writer removes what it began
            raise UnreadableScene(
                f"{scene.path} holds no valid pixel in these bands: every one is nodata, masked or NaN; explain another scene"
            )
    return [
        tally.numbers(stage=block.stage, block=block.block, by=look.by, maps=watcher.maps(block))
        for block, tally in tallies.items()
    ]


def _figure(
    watcher: Watcher, scene: Scene, raster: Path, lattice: Lattice, *, part: Window, shown: BlockNumbers, share: bool
) -> bytes:
    """The figure of a part of the scene, from the finished raster."""
    values, valid = read_preview(scene.crop(part), FIGURE_PX)
    places = in_places(part, lattice)
    with describe(raster, expected="the raster just written") as finished:
        maps, _ = read_preview(finished.crop(places), FIGURE_PX)
    drawn = Shown(scene=stretch(values, valid, bands=scene.bands), maps=maps, box=box_of(part, places, lattice))
    return draw(drawn, numbers=shown, words=words(watcher, scene, lattice, part=part, shown=shown), share=share)


def _held_bytes(lattice: Lattice, *, maps: int) -> int:
    """Of one strip and what is made of it."""
    return lattice.side * (lattice.grid.width + lattice.side) * maps * 4 * 3


def _tags(watcher: Watcher, scene: Scene, lattice: Lattice) -> dict[str, str]:
    card, look = watcher.predictor.card, watcher.look
    per = "places of its window" if look.direction == "meta" else "meta tokens"
    return {
        "TERRALEAN_VERSION": terralean.__version__,
        "TERRALEAN_MODEL": card.model,
        "TERRALEAN_DATA": card.training.data,
        "TERRALEAN_SCENE": Path(scene.path).name,
        "TERRALEAN_PRECISION": watcher.predictor.precision,
        "TERRALEAN_ATTENTION": DIRECTIONS[look.direction],
        "TERRALEAN_STAGE": f"S{look.shown.stage}",
        "TERRALEAN_BLOCK": str(look.shown.block),
        "TERRALEAN_BANDS": _bands(look),
        "TERRALEAN_WINDOW_PX": str(lattice.plan.tile_px),
        "TERRALEAN_OVERLAP_PX": str(lattice.plan.overlap_px),
        "TERRALEAN_VALUES": f"share of attention times the number of {per}: 1 is the average; blended where windows overlap",
    }


def _bands(look: Look) -> str:
    """What the bands are, for the tags."""
    if look.by == "head":
        return f"heads, each the mean of the tokens {named(look.tokens)}"
    return "tokens, each the mean of all heads" if look.head is None else f"tokens, of head {look.head}"


def _document(watcher: Watcher, scene: Scene, lattice: Lattice, blocks: Sequence[BlockNumbers]) -> dict[str, Any]:
    look = watcher.look
    return {
        "scene": scene.path,
        "model": watcher.predictor.card.model,
        "direction": look.direction,
        "stage": look.shown.stage,
        "block": look.shown.block,
        "by": look.by,
        "tokens": look.tokens,
        "head": look.head,
        "window_px": lattice.plan.tile_px,
        "overlap_px": lattice.plan.overlap_px,
        "place_px": lattice.plan.tile_px / lattice.side,
        "blocks": [asdict(block) for block in blocks],
    }
