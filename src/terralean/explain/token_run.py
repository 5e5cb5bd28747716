"""One scene, and what a method of token reduction makes of it: a raster, a figure and the numbers."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import terralean
from terralean.explain.part import FIGURE_PX, box_of, check_part, in_places, part_of, tell_size
from terralean.explain.strips import Lattice, data_of_places
from terralean.explain.token_canvas import Canvas
from terralean.explain.token_figure import TokensShown, draw_tokens, shades
from terralean.explain.token_numbers import LayerNumbers, TokenTally, WindowNumbers
from terralean.explain.token_strips import Known, Reading, Strip, first_reading, strips, token_lattice
from terralean.explain.token_words import token_verdict, token_words
from terralean.explain.tokens import Decisions, Tracer
from terralean.mapping.contract import check_contract
from terralean.mapping.run import MapConfig, make_plan
from terralean.predict import Predictor
from terralean.raster.cog import CogWriter, Content
from terralean.raster.display import stretch
from terralean.raster.grid import Window
from terralean.raster.scene import Scene, open_scene, read_preview
from terralean.raster.whole import whole

KINDS = ("tif", "csv", "json", "png")
NO_DATA = 255  # of numbers of layers; groups of merged tokens hold at least one, there it is 0
WENT_THROUGH = (252, 253, 191, 255)  # in a GIS, of tokens that no layer took out


@dataclass(frozen=True, kw_only=True, slots=True)
class TokensConfig:
    """What is shown of a scene's tokens, and how it is cut; None: as in its map."""

    tile_px: int | None = None
    bands: tuple[int, ...] | None = None  # positions from 1 of the model's bands in the scene; None: the scene's own order
    part: tuple[int, int, int, int] | None = None  # row, column, height, width in px that the figure shows; None: all
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_part(self.part)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokensResult:
    """What was written, and the numbers."""

    raster: str
    figure: str
    csv: str
    json: str
    document: dict[str, Any]  # what the JSON file holds
    layers: tuple[LayerNumbers, ...]
    verdict: tuple[str, ...]  # in words


@dataclass(frozen=True, kw_only=True, slots=True)
class _Work:
    """What is looked at, and how."""

    tracer: Tracer
    scene: Scene
    lattice: Lattice
    sample: Decisions  # of one window: all others have the same layers
    known: Known
    overlap_px: int  # of a map

    @property
    def layers(self) -> list[int]:
        return [point.layer for point in self.sample.points]


def explain_tokens(
    predictor: Predictor,
    path: str | Path,
    *,
    out: Path,
    config: TokensConfig,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TokensResult:
    """Write what becomes of a scene's tokens: `out/<scene>_tokens_<method>` as .tif, .png, .csv and .json.

    The raster lies on the scene's CRS and origin and has a pixel for each token, the finest where the network has several
    sizes. Where tokens are taken out it holds at how many layers each went on (255: no data); where they are merged, for each
    layer how many tokens the group of each holds (0: no data). Where windows overlap, see `terralean.explain.token_strips`.
    All files appear or none. `progress` is told finished and all rows. Raises ConfigError where the run has no method or the
    window holds no whole tokens, BandMismatch, UnreadableScene where the scene holds no valid pixel, OutputFailed where
    something cannot be written or is there.
    """
    tracer = Tracer(predictor)
    name = f"{Path(str(path)).stem}_tokens_{tracer.reduce.method}"
    with open_scene(path, bands=config.bands) as scene:
        check_contract(scene, predictor.card, chosen=config.bands is not None)
        part = part_of(scene, config.part)
        with whole(out, [f"{name}.{kind}" for kind in KINDS], overwrite=config.overwrite) as folder:
            work = _prepared(tracer, scene, config)
            tell_size(scene, held_bytes=_held_bytes(work.lattice, layers=len(work.layers)))
            canvas, tally = Canvas(in_places(part, work.lattice), points=len(work.layers)), TokenTally()
            with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as table:
                _write_raster(folder / f"{name}.tif", work, tell=_teller(table, tally), canvas=canvas, progress=progress)
            document, verdict = _document(work, tally), _verdict(work, tally)
            (folder / f"{name}.png").write_bytes(_figure(work, canvas, part=part, tally=tally))
            (folder / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    files = {kind: str(out / f"{name}.{kind}") for kind in KINDS}
    return TokensResult(
        raster=files["tif"],
        figure=files["png"],
        csv=files["csv"],
        json=files["json"],
        document=document,
        layers=tally.layers(),
        verdict=verdict,
    )


def raster_values(strip: Strip, *, merges: bool, layers: int) -> NDArray[Any]:
    """Values of the raster, (bands, h, w): of merging the size of groups, of pruning at how many layers a token went on."""
    if merges:
        empty = np.zeros((layers, *strip.data.shape), np.uint16)
        return strip.sizes if len(strip.sizes) else empty
    passed = (strip.codes > 0).sum(axis=0)
    return np.where(strip.data, passed, NO_DATA).astype(np.uint8)[None]


def _prepared(tracer: Tracer, scene: Scene, config: TokensConfig) -> _Work:
    """Look at one window, to know the sizes of tokens."""
    plan = make_plan(tracer.predictor.card, scene.grid, config=MapConfig(tile_px=config.tile_px, bands=config.bands))
    first = first_reading(tracer, scene, plan, path=scene.path)
    lattice = token_lattice(tracer, scene.grid, first.decisions, tile_px=plan.tile_px, overlap_px=plan.overlap_px)
    return _Work(
        tracer=tracer,
        scene=scene,
        lattice=lattice,
        sample=first.decisions,
        known={first.window: first.decisions},
        overlap_px=plan.overlap_px,
    )


def _teller(table: Any, tally: TokenTally) -> Callable[[Reading], None]:
    """What counts each window and writes its lines into the table."""
    writer = csv.DictWriter(table, [field.name for field in fields(WindowNumbers)], lineterminator="\n")
    writer.writeheader()

    def tell(reading: Reading) -> None:
        data = data_of_places(reading.valid, side=reading.decisions.side)
        found = tally.add(reading.decisions, data, row=reading.window.row, col=reading.window.col)
        writer.writerows(asdict(one) for one in found)

    return tell


def _write_raster(
    path: Path, work: _Work, *, tell: Callable[[Reading], None], canvas: Canvas, progress: Callable[[int, int], None]
) -> None:
    lattice, merges = work.lattice, work.sample.merges
    with CogWriter(path, grid=lattice.grid, content=_content(work), tags=_tags(work)) as writer:
        for strip in strips(work.tracer, work.scene, lattice, known=work.known, tell=tell):
            writer.write(strip.window, raster_values(strip, merges=merges, layers=len(work.layers)))
            canvas.add(strip)
            progress(strip.window.row + strip.window.height, lattice.grid.height)


def _figure(work: _Work, canvas: Canvas, *, part: Window, tally: TokenTally) -> bytes:
    values, valid = read_preview(work.scene.crop(part), FIGURE_PX)
    shown = TokensShown(
        scene=stretch(values, valid, bands=work.scene.bands),
        merges=work.sample.merges,
        codes=canvas.codes,
        sizes=canvas.sizes,
        data=canvas.data,
        box=box_of(part, in_places(part, work.lattice), work.lattice),
    )
    words = token_words(work.tracer, work.scene, work.lattice, part=part, shown=shown, tally=tally, sample=work.sample)
    return draw_tokens(shown, words)


def _verdict(work: _Work, tally: TokenTally) -> tuple[str, ...]:
    return token_verdict(
        work.tracer,
        work.lattice,
        tally,
        sample=work.sample,
        overlap_px=work.overlap_px,
    )


def _content(work: _Work) -> Content:
    if work.sample.merges:
        names = tuple(f"tokens in the group after layer {layer}" for layer in work.layers)
        return Content(bands=names, dtype="uint16", nodata=0, overviews="NEAREST", bits=16)
    count = len(work.layers)
    colours = {number: (*map(round, colour), 255) for number, colour in enumerate(shades(count).tolist())}
    return Content(
        bands=("layers at which the token went on",),
        dtype="uint8",
        nodata=NO_DATA,
        overviews="MODE",
        bits=count.bit_length() + 1,
        colours=colours | {count: WENT_THROUGH, NO_DATA: (0, 0, 0, 0)},
        band_tags={f"value_{number}": text for number, text in enumerate(_values(work))},
    )


def _values(work: _Work) -> Iterator[str]:
    """What each value of the raster of pruning means."""
    out = work.tracer.stays_out(work.sample)
    for number, layer in enumerate(work.layers):
        yield f"taken out after layer {layer}" if out else f"went on at {number} of {len(work.layers)} layers"
    yield f"went on at all of the layers {', '.join(map(str, work.layers))}"


def _tags(work: _Work) -> dict[str, str]:
    card, plan = work.tracer.predictor.card, work.lattice.plan
    return {
        "TERRALEAN_VERSION": terralean.__version__,
        "TERRALEAN_MODEL": card.model,
        "TERRALEAN_DATA": card.training.data,
        "TERRALEAN_SCENE": Path(work.scene.path).name,
        "TERRALEAN_PRECISION": work.tracer.predictor.precision,
        "TERRALEAN_REDUCE": json.dumps(asdict(work.tracer.reduce)),
        "TERRALEAN_LAYERS": ",".join(map(str, work.layers)),
        "TERRALEAN_WINDOW_PX": str(plan.tile_px),
        "TERRALEAN_OVERLAP_PX": str(plan.overlap_px),
        "TERRALEAN_VALUES": "of the window whose centre is nearest: "
        + ("tokens in the group of each token" if work.sample.merges else "number of layers at which a token went on"),
    }


def _document(work: _Work, tally: TokenTally) -> dict[str, Any]:
    plan, layers = work.lattice.plan, tally.layers()
    return {
        "scene": work.scene.path,
        "model": work.tracer.predictor.card.model,
        "reduce": asdict(work.tracer.reduce),
        "merges": work.sample.merges,
        "window_px": plan.tile_px,
        "overlap_px": plan.overlap_px,
        "token_px": plan.tile_px / work.lattice.side,
        "windows": tally.windows,
        "stays_out": work.tracer.stays_out(work.sample),
        "layers": [asdict(one) for one in layers],
        "verdict": _verdict(work, tally),
    }


def _held_bytes(lattice: Lattice, *, layers: int) -> int:
    """Of one strip, codes and sizes twice and what is written, and of what the figure needs."""
    return layers * (lattice.side * lattice.grid.width * 2 * (8 + 2) + FIGURE_PX**2 * (8 + 2))
