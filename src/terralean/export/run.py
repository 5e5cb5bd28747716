"""A trained model for another runtime: written as a graph, compared with the network on real tiles, and kept only if it agrees.

Everything that stands around the network in prediction is in the graph, of a detector in two with its suppressions between and
behind them; the folder can be used in place of the run.
"""

from __future__ import annotations

import json
import logging
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

import terralean
from terralean.boxes.detected import Detected
from terralean.cost.macs import parameters
from terralean.errors import OutputFailed, RunError
from terralean.export import axes, compare, deepness, detector, graph, onnx_file, stac_item
from terralean.export.config import RUNTIMES, ExportConfig
from terralean.export.tiles import ReadData, Tiles, Wanted, cut, noise, tiles_of_run, tiles_of_scenes, with_a_hole
from terralean.layers.folding import sharing
from terralean.models.oriented_rcnn import OrientedRCNN
from terralean.predict.artefact import (
    SUFFIXES,
    Agreement,
    Artefact,
    Manifest,
    Part,
    contract,
    digest,
    files_of,
    is_artefact,
    parts_of,
    write_manifest,
)
from terralean.predict.predictor import Predictor, open_artefact
from terralean.predict.runtime import wanted
from terralean.tokens import OrOwn
from terralean.weights.card import Card, read_card, write_card
from terralean.weights.checkpoint import load_checkpoint

log = logging.getLogger(__name__)

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
COMPANIONS = ("recipe.yaml", "split.json")  # of a run, by which what was exported can be evaluated as the run is
BATCH = 2  # tiles compared at once

Answer = Tensor | list[Detected]  # of tiles


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportResult:
    """What was written."""

    out: str
    format: str
    precision: str
    files: dict[str, int]  # bytes
    fixed: dict[str, int]
    agreement: Agreement
    notes: tuple[str, ...]
    seconds: float


class Source(NamedTuple):
    """A model, and the tiles that tell of it."""

    model: nn.Module
    card: Card
    checked: Tiles
    calibration: Tiles | None


def export_run(
    run: Path, out: Path, *, config: ExportConfig, read: ReadData, reduce: OrOwn = "own", tell: Callable[[str], None] = log.info
) -> ExportResult:
    """Write the model of a run into the new folder `out`.

    `read` gives how a run read its data; `reduce` is a method of token reduction in place of the run's own, None for none.
    `tell` is told what is being done. Raises ConfigError for what cannot be exported so, ExportDiffers where the graph does not
    agree with the network, OutputFailed where the folder cannot be written. Nothing is then left.
    """
    began = time.monotonic()
    if is_artefact(run):
        raise RunError(f"{run} is an exported model already; name the run that it was made of")
    check_model(read_card(run), config)
    check_empty(out)
    model, card = load_checkpoint(run, reduce=reduce)
    tell("reading tiles")
    source = Source(model, card, *_tiles(run, card, config, read=read))
    with _whole(out) as folder:
        manifest = export_model(source, folder, config=config, tell=tell)
        for name in COMPANIONS:
            if (run / name).is_file():
                shutil.copyfile(run / name, folder / name)
    sizes = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
    assert manifest.agreement is not None
    return ExportResult(
        out=str(out),
        format=config.format,
        precision=config.precision,
        files={name: sizes[name] for name in files_of(card.task, manifest.runtime)},
        fixed={str(axis): size for axis, size in manifest.fixed.items()},
        agreement=manifest.agreement,
        notes=manifest.notes,
        seconds=round(time.monotonic() - began, 1),
    )


def export_model(source: Source, folder: Path, *, config: ExportConfig, tell: Callable[[str], None] = log.info) -> Manifest:
    """Write a graph of the model, its card, manifest and STAC item into a folder that is there; compared before."""
    card = source.card
    check_model(card, config)
    notes = [note for note in [axes.prepare_reduction(source.model, card)] if note]
    eager = Predictor(source.model, card, device=torch.device("cpu"), precision="fp32")
    sets = [with_a_hole(source.checked)]
    expected = [_asked(eager, card, sets[0])]
    tell(f"writing {config.format} in {config.precision}")
    traced, programs = _trace(eager, source, config)
    if "height" not in traced.fixed:
        sets.append(_smaller(sets[0], traced.free))
        expected.append(_asked(eager, card, sets[1]))
    manifest = _write(traced, programs, source, folder, config=config, notes=(*notes, *_fixed_note(traced)))
    write_card(card, folder)
    tell(f"comparing on {source.checked.source}")
    manifest = _compared(Artefact(folder=folder, card=card, manifest=manifest), sets, expected, config)
    sizes = {name: (folder / name).stat().st_size for name in manifest.files}
    content = stac_item.item(card, manifest, parameters=parameters(source.model), sizes=sizes, when=datetime.now(UTC))
    stac_item.write_item(content, folder)
    write_manifest(manifest, folder)
    return manifest


def check_model(card: Card, config: ExportConfig) -> None:
    """ConfigError for a model that no graph can hold, or not one of this format and precision."""
    axes.check_model(card)
    if config.format == "deepness":
        deepness.check_task(card)
    if card.task == "detection":
        detector.check_config(config)


def check_empty(out: Path) -> None:
    """RunError where a folder holds something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} is not an empty folder; name a new one with --out")


# Tiles.


def _tiles(run: Path, card: Card, config: ExportConfig, *, read: ReadData) -> tuple[Tiles, Tiles | None]:
    """To compare on, and to calibrate on where that is asked for."""
    side = config.tile_px or card.tile_px
    checked = Wanted(card, side, config.checked_tiles, config.seed)
    if config.check:
        compared = tiles_of_scenes(config.check, checked)
    else:
        compared = tiles_of_run(run, checked, read=read, splits=("test", "validation", "train")) or noise(checked)
    if config.precision != "int8":
        return compared, None
    calibrated = Wanted(card, side, config.calibration_tiles, config.seed + 1)
    if config.calibrate:
        return compared, tiles_of_scenes(config.calibrate, calibrated)
    found = tiles_of_run(run, calibrated, read=read, splits=("train", "validation", "test"))
    if found is None:
        raise RunError(f"{run}: its training data are gone, and int8 has to see real tiles; name some with --calibrate SCENE")
    return compared, found


def _smaller(tiles: Tiles, free: graph.Free) -> Tiles:
    """Two of them, cut to another height and width that the graph takes: what is said to be free is tried."""
    height, width = (
        max(free.least_px, length * share // 8 // free.step_px * free.step_px)
        for length, share in zip(tiles.valid.shape[1:], (7, 5), strict=True)
    )
    return cut(tiles, height=height, width=width, count=min(2, len(tiles.image)))


def _asked(predictor: Predictor, card: Card, tiles: Tiles) -> Answer:
    if card.task == "detection":
        return compare.findings(predictor.detect, tiles, batch=BATCH)
    ask = predictor.recognise if card.task == "classification" else predictor
    return compare.answers(ask, tiles, batch=BATCH)


# The graph.


def _trace(eager: Predictor, source: Source, config: ExportConfig) -> tuple[graph.Traced, tuple[ExportedProgram, ...]]:
    """What is free of the first program, and all programs."""
    card = source.card
    # OpenVINO is told by a hint, int8 is made of float32.
    dtype = torch.float32 if config.format == "openvino" else HALVES.get(config.precision, torch.float32)
    side, bands = source.checked.valid.shape[-1], len(card.bands)
    if card.task == "detection":
        first, second = detector.trace_parts(eager, tile_px=side, dtype=dtype)
        return first, (first.program, second)
    made = graph.Graph(sharing(eager.network), card, dtype=dtype).eval()
    if config.format == "deepness":  # it takes squares of one size only
        traced = graph.trace(graph.BytesGraph(made), bands=bands, tile_px=side, wanted=[graph.ONLY_BATCH, graph.NOTHING])
    else:
        traced = graph.trace(made, bands=bands, tile_px=side, wanted=axes.free_axes(source.model, card))
    return traced, (traced.program,)


def _fixed_note(traced: graph.Traced) -> Iterator[str]:
    if traced.fixed:
        sizes = ", ".join(f"{axis} {size}" for axis, size in traced.fixed.items())
        yield f"fixed: {sizes}" + ("" if traced.refusal is None else f" ({traced.refusal})")
    elif traced.free.step_px > 1:
        yield f"height and width: multiples of {traced.free.step_px} px"


def _write(
    traced: graph.Traced,
    programs: Sequence[ExportedProgram],
    source: Source,
    folder: Path,
    *,
    config: ExportConfig,
    notes: Sequence[str],
) -> Manifest:
    """The files of the graphs, and what is known of them before they are compared."""
    card, runtime, side = source.card, RUNTIMES[config.format], source.checked.valid.shape[-1]
    for part, program in zip(parts_of(card.task), programs, strict=True):
        _write_graph(program, part, source, folder, config=config)
    return Manifest(
        target=config.format,
        runtime=runtime,
        precision=config.precision,
        tile_px=side,
        fixed=traced.fixed,
        step_px=traced.free.step_px if "height" in traced.free.axes else 1,
        least_px=traced.free.least_px if "height" in traced.free.axes else 1,
        opset=config.chosen_opset,
        files={name: digest(folder / name) for name in files_of(card.task, runtime)},
        contract=contract(card),
        suppression=source.model.suppression if isinstance(source.model, OrientedRCNN) else None,
        notes=tuple(notes),
        versions=versions(config),
    )


def _write_graph(program: ExportedProgram, part: Part, source: Source, folder: Path, *, config: ExportConfig) -> None:
    path = folder / f"{part.name}{SUFFIXES[RUNTIMES[config.format]][0]}"
    if config.format == "torch":
        torch.export.save(program, path)
        return
    onnx = path.with_suffix(".onnx")
    _write_onnx(program, part, source, onnx, config=config)
    if config.format == "openvino":
        _write_openvino(onnx, path, config=config)


def _write_onnx(program: ExportedProgram, part: Part, source: Source, path: Path, *, config: ExportConfig) -> None:
    opset, told, own = config.chosen_opset, _told(source.card, config), None
    assert opset is not None
    if config.format == "deepness":
        own = deepness.FORMAT_VERSION
        told |= deepness.metadata(source.card, tile_px=source.checked.valid.shape[-1], pixel_m=source.checked.pixel_m)
    if source.calibration is None:
        onnx_file.write_onnx(program, path, opset=opset, told=told, part=part, format_version=own)
        return
    whole = path.with_name(f"{path.name}.fp32")
    onnx_file.write_onnx(program, whole, opset=opset, told=told, part=part, format_version=own)
    onnx_file.quantise(whole, path, source.calibration, told=told)
    whole.unlink()


def _write_openvino(onnx: Path, path: Path, *, config: ExportConfig) -> None:
    library = wanted("openvino", what=path.name)
    model = library.Core().read_model(onnx)
    library.save_model(model, path, compress_to_fp16=config.precision == "fp16")
    onnx.unlink()


def _told(card: Card, config: ExportConfig) -> dict[str, str]:
    """Metadata of an ONNX file, for whoever finds it without its folder."""
    return {
        "terralean": terralean.__version__,
        "model": card.model,
        "task": card.task,
        "bands": json.dumps(card.bands.names),
        "classes": json.dumps(card.classes.names),
        "precision": config.precision,
        "licence": card.licence,
    }


def versions(config: ExportConfig) -> dict[str, str]:
    """Of what an export depends on."""
    packages = {"torch": ("torch",), "openvino": ("onnx", "openvino")}.get(config.format, ("onnx", "onnxruntime"))
    found = {"terralean": terralean.__version__, "python": platform.python_version(), "torch": torch.__version__}
    return found | {name: version(name) for name in packages if name != "torch"}


def _compared(artefact: Artefact, sets: Sequence[Tiles], expected: Sequence[Answer], config: ExportConfig) -> Manifest:
    opened, what = open_artefact(artefact, device=torch.device("cpu")), f"{config.format} in {config.precision}"
    found = [_asked(opened, artefact.card, tiles) for tiles in sets]
    if artefact.manifest.suppression is None:
        agreement = compare.compare(cast("list[Tensor]", found), cast("Sequence[Tensor]", expected), sets)
        compare.check(agreement, config.limit, what=what)
    else:
        (ours,), (theirs,) = cast("list[list[Detected]]", found), cast("Sequence[list[Detected]]", expected)
        limit, score = config.boxes_limits.of(config.precision), artefact.manifest.suppression.score
        agreement = compare.compare_found(ours, theirs, source=sets[0].source, score=score, limit=limit)
        compare.check_found(agreement, limit, what=what)
    return replace(artefact.manifest, agreement=agreement)


# The folder.


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A folder that becomes `out` when all is well; nothing is left otherwise."""
    part = out.with_name(f"{out.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)  # a killed run's
        part.mkdir(parents=True)
        yield part
        if out.exists():
            out.rmdir()
        part.replace(out)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, OSError):
            raise OutputFailed(f"{out} could not be written: {error}; make room or choose another --out") from error
        raise
