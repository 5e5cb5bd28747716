"""A run in every runtime that can execute it, on real images, all in one interleaved measurement.

As PyTorch runs it, folded, in another memory layout, compiled, and exported to ONNX Runtime and OpenVINO: from raw values to
probabilities each. What is faster but says something else is told by the share of pixels with the class of the plain network.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from terralean.benchmark.candidates import FOREIGN, first_line
from terralean.benchmark.config import treatments
from terralean.benchmark.machine import Machine, describe
from terralean.cost.memory import keep_within_memory
from terralean.cost.timing import Timed, TimingConfig, spread, time_interleaved, wait_for
from terralean.errors import ConfigError, TerraleanError
from terralean.export import axes, compare, graph
from terralean.export.config import ExportConfig, Limit, Limits
from terralean.export.run import Source, export_model
from terralean.export.tiles import ReadData, Tiles, Wanted, tiles_of_run, tiles_of_scenes
from terralean.layers.folding import sharing
from terralean.predict.artefact import Artefact, Manifest
from terralean.predict.predictor import choose_device, open_artefact
from terralean.weights.card import Card, read_card
from terralean.weights.checkpoint import load_checkpoint

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PLAIN = "eager"
# Of networks what is done to them, of exported graphs what executes them; and in which precisions.
RUNTIMES: Mapping[str, tuple[str, ...]] = {
    PLAIN: ("fp32", "bf16"),
    "folded": ("fp32", "bf16"),
    "folded+channels-last": ("fp32", "bf16"),
    "folded+compiled": ("fp32", "bf16"),
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "bf16", "int8"),
}
FORMATS = {"onnxruntime": "onnx", "openvino": "openvino"}
EVERYTHING = Limit(difference=1.0, same_class=0.0)  # here the share of equal classes is told, and judged by the reader
Ask = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimesConfig:
    """Which run, in what, and on what."""

    run: Path
    scenes: tuple[str, ...]  # rasters that GDAL opens, with the run's bands
    runtimes: tuple[str, ...] = tuple(RUNTIMES)
    batches: tuple[int, ...] = (1, 8)
    images: int = 16  # windows of the run's tile with data
    rounds: int = 9
    seconds: float = 0.0  # a measurement repeats all images until about this much has passed
    device: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.scenes:
            raise ConfigError("how fast and how right a run is depends on the images: give some with --on, e.g. --on scene.tif")
        if wrong := [name for name in self.runtimes if name not in RUNTIMES]:
            raise ConfigError(f"runtimes must be of {', '.join(RUNTIMES)}, got {', '.join(wrong)}")
        for name in ("images", "rounds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")
        if any(not 1 <= batch <= self.images for batch in self.batches):
            raise ConfigError(f"batches must be from 1 to the number of images, {self.images}, got {list(self.batches)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimesRow:
    """A run in one runtime, precision and batch. What was not measured is None."""

    run: str
    model: str
    runtime: str
    precision: str
    batch: int
    tile_px: int
    images: int
    images_per_s: float | None = None  # median over rounds
    images_per_s_low: float | None = None  # quartiles
    images_per_s_high: float | None = None
    speed: float | None = None  # times the images/s of the plain network in float32, medians; of it itself 1
    processor_ms: float | None = None  # CPU time for one image over all threads, median
    same: float | None = None  # share of valid pixels, or of images, with the class of the plain network in float32
    difference: float | None = None  # largest, of a probability
    graph_bytes: int | None = None  # of an exported graph's files
    fixed: str = ""  # axes of an exported graph that are not free
    rounds: int = 0
    device: str = ""
    threads: int = 0
    torch: str = ""
    version: str = ""  # of the runtime
    failure: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimesReport:
    """Everything that one measurement gave."""

    machine: Machine
    source: str  # of the images
    rows: tuple[RuntimesRow, ...]  # by batch, the fastest first; what failed comes last


class Candidate(NamedTuple):
    """A runtime in a precision, ready or failed."""

    runtime: str
    precision: str
    ask: Ask | None = None
    manifest: Manifest | None = None
    bytes: int | None = None
    failure: str | None = None

    def label(self, batch: int) -> str:
        """Its name among all calls."""
        return f"{self.runtime} {self.precision} {batch}"


class Subject(NamedTuple):
    """What is measured, and on what."""

    model: nn.Module
    card: Card
    tiles: Tiles
    calibration: Tiles
    device: torch.device
    folder: Path  # for exported graphs


def run(
    config: RuntimesConfig, *, read: ReadData, progress: Callable[[int, int], None] = lambda done, total: None
) -> RuntimesReport:
    """Export, compare and time; a runtime that cannot has the reason in its row. `read` gives how a run read its data.

    Raises RunError for a folder that is no run, ConfigError for one that no graph can hold, and the errors of scenes that do
    not fit it.
    """
    card = read_card(config.run)
    axes.check_model(card)
    if card.task == "detection":
        raise ConfigError(f"{card.model} finds oriented boxes; runtimes are compared for maps of pixels and whole images")
    tiles = tiles_of_scenes(config.scenes, Wanted(card, card.tile_px, config.images, config.seed))
    device = choose_device(config.device)
    bound = keep_within_memory() if device.type == "cpu" else nullcontext()
    with TemporaryDirectory(prefix="terralean_") as folder, bound:
        model, card = load_checkpoint(config.run)
        subject = Subject(model, card, tiles, _calibration(config, card, read=read), device, Path(folder))
        candidates = list(_candidates(subject, config))
        shares = _compared(candidates, tiles)
        calls = {one.label(batch): _call(one.ask, tiles, batch) for one, batch in _pairs(candidates, config)}
        timed = time_interleaved(
            calls,
            config=TimingConfig(rounds=config.rounds, seconds=config.seconds, warm_up=1),
            order=random.Random(config.seed),
            synchronise=wait_for(device),
            tolerate=FOREIGN,
            progress=progress,
        )
    machine = describe(device)
    rows = [
        _row(one, batch, shares.get(one.label(0)), timed, subject, config=config, machine=machine)
        for one, batch in product(candidates, config.batches)
    ]
    return RuntimesReport(machine=machine, source=tiles.source, rows=tuple(sorted(rows, key=_place)))


def _calibration(config: RuntimesConfig, card: Card, *, read: ReadData) -> Tiles:
    """Tiles that int8 finds its ranges on: training data where they are there, else others of the scenes."""
    wanted = Wanted(card, card.tile_px, ExportConfig(format="onnx").calibration_tiles, config.seed + 1)
    return tiles_of_run(config.run, wanted, read=read, splits=("train",)) or tiles_of_scenes(config.scenes, wanted)


# What is measured.


def _candidates(subject: Subject, config: RuntimesConfig) -> Iterator[Candidate]:
    """The plain network in float32 first: what all others are compared with."""
    chosen = dict.fromkeys((PLAIN, *config.runtimes))
    for runtime in chosen:
        for precision in RUNTIMES[runtime]:
            if runtime not in config.runtimes and precision != "fp32":
                continue
            try:
                yield _exported(subject, runtime, precision) if runtime in FORMATS else _network(subject, runtime, precision)
            except (*FOREIGN, TerraleanError) as error:
                yield Candidate(runtime, precision, failure=first_line(error))


def _network(subject: Subject, mode: str, precision: str) -> Candidate:
    """The network as PyTorch runs it, after some treatments."""
    done = treatments(mode)
    fold: Callable[[], nn.Module] | None = getattr(subject.model, "fold", None)
    network = fold() if "folded" in done and fold is not None else subject.model
    layout = torch.channels_last if "channels-last" in done else torch.contiguous_format
    made: Any = graph.Graph(sharing(network), subject.card, dtype=DTYPES[precision]).eval().to(subject.device)
    made = made.to(memory_format=layout)
    made = torch.compile(made, dynamic=False) if "compiled" in done else made

    @torch.inference_mode()
    def ask(image: Tensor, valid: Tensor) -> Tensor:
        return made(image.to(subject.device).contiguous(memory_format=layout), valid.to(subject.device)).cpu()

    return Candidate(mode, precision, ask)


def _exported(subject: Subject, runtime: str, precision: str) -> Candidate:
    """A graph, written and opened; how near it comes is told in its row."""
    folder = subject.folder / f"{runtime}_{precision}"
    folder.mkdir()
    given: dict[str, Any] = {"format": FORMATS[runtime], "precision": precision}
    config = ExportConfig(limits=Limits(**dict.fromkeys(("fp32", "bf16", "fp16", "int8"), EVERYTHING)), **given)
    # A copy: what makes a method of token reduction fit for a graph must not slow down the network itself.
    source = Source(sharing(subject.model), subject.card, subject.tiles, subject.calibration if precision == "int8" else None)
    manifest = export_model(source, folder, config=config)
    device = None if subject.device.type == "cpu" else subject.device
    predictor = open_artefact(Artefact(folder=folder, card=subject.card, manifest=manifest), device=device)
    ask = predictor.recognise if subject.card.task == "classification" else predictor
    size = sum((folder / name).stat().st_size for name in manifest.files)
    return Candidate(runtime, precision, ask, manifest, size)


def _compared(candidates: list[Candidate], tiles: Tiles) -> dict[str, Any]:
    """How near each comes to the plain network; nothing of what failed."""
    plain, *_ = candidates
    assert plain.ask is not None, "the plain network runs"
    expected = compare.answers(plain.ask, tiles, batch=1)
    found = {}
    for one in candidates:
        if one.ask is not None:
            found[one.label(0)] = compare.compare([compare.answers(one.ask, tiles, batch=1)], [expected], [tiles])
    return found


def _pairs(candidates: list[Candidate], config: RuntimesConfig) -> Iterator[tuple[Any, int]]:
    for one, batch in product(candidates, config.batches):
        if one.ask is not None:
            yield one, batch


def _call(ask: Ask, tiles: Tiles, batch: int) -> Callable[[], object]:
    """All images in whole batches: a compiled program is for one number of images."""
    whole = len(tiles.image) // batch * batch
    groups = list(zip(tiles.image[:whole].split(batch), tiles.valid[:whole].split(batch), strict=True))

    def all_images() -> None:
        for image, valid in groups:
            ask(image, valid)

    return all_images


# What is told.


def _row(
    one: Candidate, batch: int, share: Any, timed: Timed, subject: Subject, *, config: RuntimesConfig, machine: Machine
) -> RuntimesRow:
    row = RuntimesRow(
        run=str(config.run),
        model=subject.card.model,
        runtime=one.runtime,
        precision=one.precision,
        batch=batch,
        tile_px=subject.card.tile_px,
        images=len(subject.tiles.image) // batch * batch,
        rounds=config.rounds,
        device=machine.device,
        threads=machine.threads,
        torch=machine.torch,
        version="" if one.manifest is None else one.manifest.versions[one.manifest.runtime],
        graph_bytes=one.bytes,
        fixed="" if one.manifest is None else " ".join(f"{axis} {size}" for axis, size in one.manifest.fixed.items()),
        failure=one.failure,
        **({} if share is None else {"same": share.same_class, "difference": share.difference}),
    )
    if error := timed.failures.get(one.label(batch)):
        return replace(row, failure=first_line(error))
    return row if one.ask is None else _timed(row, one, timed)


def _timed(row: RuntimesRow, one: Candidate, timed: Timed) -> RuntimesRow:
    timing = timed.timings[one.label(row.batch)]
    plain = timed.timings.get(Candidate(PLAIN, "fp32").label(row.batch))
    quick, median, slow = spread(timing.wall_s)
    return replace(
        row,
        images_per_s=row.images / median,
        images_per_s_low=row.images / slow,
        images_per_s_high=row.images / quick,
        speed=None if plain is None else spread(plain.wall_s).median / median,
        processor_ms=1000 * spread(timing.processor_s).median / row.images,
    )


def _place(row: RuntimesRow) -> tuple[int, bool, float]:
    return row.batch, row.failure is not None, -(row.images_per_s or 0.0)
