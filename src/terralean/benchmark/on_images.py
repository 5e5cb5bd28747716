"""What runs cost on real images: with their method of token reduction, with others and with none, all in one measurement.

With a method that goes by the content the cost differs from image to image: operations and tokens left are counted for each
image alone and told as mean, 5th and 95th percentile. Time is that of all images in batches, so that images that have more
tokens left than others are in it as they occur. Answers are compared with the run's own without reduction.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from terralean.benchmark.machine import Machine, describe
from terralean.cost.convention import count_work
from terralean.cost.macs import parameters
from terralean.cost.memory import keep_within_memory, peak_memory
from terralean.cost.timing import Timing, TimingConfig, spread, time_interleaved, wait_for
from terralean.errors import ConfigError, UnreadableScene
from terralean.predict import Predictor, load
from terralean.predict.predictor import choose_device
from terralean.raster.grid import Window
from terralean.raster.scene import open_scene
from terralean.spec import check_bands
from terralean.tokens import OrOwn, Reduction
from terralean.tokens.settings import settings
from terralean.weights.card import Card, read_card

Precision = Literal["fp32", "bf16"]
LOW, HIGH = 5, 95  # percentiles that are told beside means


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagesConfig:
    """Which runs are measured, how they reduce tokens, and on what."""

    runs: tuple[Path, ...]
    scenes: tuple[str, ...]  # rasters that GDAL opens, with the runs' bands
    reductions: tuple[OrOwn, ...] = ("own",)  # beside none, which is always measured
    images: int = 16  # windows of the run's tile with data, evenly over the scenes
    batches: tuple[int, ...] = (1, 8)
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    rounds: int = 9
    seconds: float = 0.0  # a measurement repeats all images until about this much has passed
    device: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.scenes:
            raise ConfigError("what a run costs depends on the images: give some with --on, e.g. --on scene.tif")
        for name in ("images", "rounds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")
        if any(batch < 1 for batch in self.batches):
            raise ConfigError(f"batches must be above 0, got {list(self.batches)}")
        if unknown := [one for one in self.precisions if one not in get_args(Precision)]:
            raise ConfigError(f"runs are used in {' or '.join(get_args(Precision))}, got {', '.join(unknown)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagesRow:
    """A run with one way of reducing tokens, at one batch and precision."""

    run: str
    model: str
    method: str  # "none" without reduction
    settings: str  # of the method, where they are not its defaults
    precision: str
    batch: int
    tile_px: int
    seen_px: int  # side of what the network sees of it
    images: int
    parameters: int
    operations_g: float  # of one image, 1e9, as fvcore counts (terralean.cost.convention): mean over the images
    operations_g_p5: float
    operations_g_p95: float
    macs_g: float  # multiply-adds alone, attention's products included: mean
    points: str  # layers at which the method acts
    tokens_left: str  # after each of them, share of all tokens: mean (p5 .. p95)
    same: float  # share of pixels whose class is that of the run without reduction, in this precision
    images_per_s: float  # median over rounds
    images_per_s_low: float  # quartiles
    images_per_s_high: float
    speed: float  # times the images/s of the run without reduction, medians; of it itself 1
    processor_ms: float  # CPU time for one image over all threads, median
    peak_memory_bytes: int | None  # of one batch, beyond the weights
    rounds: int
    device: str
    threads: int
    torch: str


class Images(NamedTuple):
    """Windows of scenes."""

    values: Tensor  # (n, C, tile, tile), float32 in the scenes' units
    valid: Tensor  # (n, tile, tile)


class Variant(NamedTuple):
    """A run with one way of reducing tokens, in one precision."""

    run: Path
    predictor: Predictor
    precision: Precision

    @property
    def reduce(self) -> Reduction | None:
        """The method, None for none."""
        return self.predictor.card.reduce

    def label(self, batch: int) -> str:
        """Its name among all calls."""
        return f"{self.run} {self.reduce} {self.precision} {batch}"


class Counted(NamedTuple):
    """What a variant does with each image."""

    operations: tuple[int, ...]
    macs: tuple[int, ...]
    left: dict[int, tuple[float, ...]]  # by layer, share of all tokens
    classes: Tensor  # (n, tile, tile)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagesReport:
    """Everything that one measurement gave."""

    machine: Machine
    rows: tuple[ImagesRow, ...]


def run(config: ImagesConfig, *, progress: Callable[[int, int], None] | None = None) -> ImagesReport:
    """Count and time. Raises RunError for a folder that is no run, and the errors of scenes that do not fit it."""
    device = choose_device(config.device)
    images = {folder: read_images(folder, config) for folder in config.runs}
    variants = list(_variants(config, device))
    pairs = list(product(variants, config.batches))
    calls = {variant.label(batch): _call(variant.predictor, images[variant.run], batch) for variant, batch in pairs}
    # A process that takes more memory than there is would be killed, with all that was measured.
    with keep_within_memory() if device.type == "cpu" else nullcontext():
        timed = time_interleaved(
            calls,
            config=TimingConfig(rounds=config.rounds, seconds=config.seconds, warm_up=1),
            order=random.Random(config.seed),
            synchronise=wait_for(device),
            progress=progress,
        )
        counted = {variant.label(0): count(variant.predictor, images[variant.run]) for variant in variants}
        memory = {label: peak_memory(call, device=device) for label, call in calls.items()}
    machine = describe(device)
    rows = (
        _row(variant, _dense(variant, variants), batch, counted, timed.timings, memory, config=config, machine=machine)
        for variant, batch in pairs
    )
    return ImagesReport(machine=machine, rows=tuple(rows))


def read_images(folder: Path, config: ImagesConfig) -> Images:
    """Windows with data on a lattice without overlap, spread evenly over all of the scenes."""
    card, found = read_card(folder), []
    for path in config.scenes:
        with open_scene(path) as scene:
            check_bands(scene.bands, card.bands, scene=scene.path)
            for window in _windows(scene.grid.height, scene.grid.width, card.tile_px):
                values, valid = scene.read(window)
                if valid.any():
                    found.append((values.astype(np.float32), valid))
    if not found:
        raise UnreadableScene(f"{', '.join(config.scenes)}: no window with a valid pixel; give other scenes with --on")
    step = max(1.0, len(found) / config.images)
    chosen = [found[int(i * step)] for i in range(min(config.images, len(found)))]
    return Images(*(torch.from_numpy(np.stack(parts)) for parts in zip(*chosen, strict=True)))


def count(predictor: Predictor, images: Images) -> Counted:
    """Operations, tokens left and answers, image by image."""
    operations, macs, classes = [], [], []
    left: dict[int, list[float]] = {}
    for values, valid in zip(images.values, images.valid, strict=True):
        one, mask = values[None], valid[None]
        network, seen = predictor.network, predictor.seen(one, mask)
        work = count_work(network, seen)
        operations.append(work.operations)
        macs.append(work.macs.total)
        for point in predictor.trace(one, mask):
            left.setdefault(point.layer, []).append(float(point.share))
        classes.append(predictor(one, mask).argmax(dim=1))
    return Counted(tuple(operations), tuple(macs), {layer: tuple(shares) for layer, shares in left.items()}, torch.cat(classes))


def _variants(config: ImagesConfig, device: torch.device) -> Iterator[Variant]:
    for folder, precision in product(config.runs, config.precisions):
        seen: list[Reduction | None] = []
        for reduce in (None, *config.reductions):
            predictor = load(folder, device=str(device), precision=precision, reduce=reduce)
            if predictor.card.reduce not in seen:
                seen.append(predictor.card.reduce)
                yield Variant(folder, predictor, precision)


def _dense(variant: Variant, variants: list[Variant]) -> Variant:
    same = (variant.run, variant.precision)
    return next(one for one in variants if (one.run, one.precision) == same and one.reduce is None)


def _call(predictor: Predictor, images: Images, batch: int) -> Callable[[], object]:
    """All images, in batches, from windows to probabilities."""
    groups = list(zip(images.values.split(batch), images.valid.split(batch), strict=True))

    def all_images() -> None:
        for values, valid in groups:
            predictor(values, valid)

    return all_images


def _windows(height: int, width: int, tile_px: int) -> Iterator[Window]:
    for row, col in product(range(0, height, tile_px), range(0, width, tile_px)):
        yield Window(row=row, col=col, height=tile_px, width=tile_px)


def _row(
    variant: Variant,
    dense: Variant,
    batch: int,
    counted: Mapping[str, Counted],
    timings: Mapping[str, Timing],
    memory: Mapping[str, int | None],
    *,
    config: ImagesConfig,
    machine: Machine,
) -> ImagesRow:
    card, label, found = variant.predictor.card, variant.label(batch), counted[variant.label(0)]
    images, timing, reduce = len(found.operations), timings[label], variant.reduce
    seconds, plain = spread(timing.wall_s), spread(timings[dense.label(batch)].wall_s)
    operations = np.array(found.operations) / 1e9
    return ImagesRow(
        run=str(variant.run),
        model=card.model,
        method="none" if reduce is None else reduce.method,
        settings="" if reduce is None else " ".join(settings(reduce)),
        precision=variant.precision,
        batch=batch,
        tile_px=card.tile_px,
        seen_px=_seen_px(card),
        images=images,
        parameters=parameters(variant.predictor.model),
        operations_g=float(operations.mean()),
        operations_g_p5=float(np.percentile(operations, LOW)),
        operations_g_p95=float(np.percentile(operations, HIGH)),
        macs_g=float(np.mean(found.macs)) / 1e9,
        points=" ".join(map(str, found.left)),
        tokens_left=" ".join(_share(shares) for shares in found.left.values()),
        same=float((found.classes == counted[dense.label(0)].classes).float().mean()),
        images_per_s=images / seconds.median,
        images_per_s_low=images / seconds.high,
        images_per_s_high=images / seconds.low,
        speed=plain.median / seconds.median,
        processor_ms=1000 * spread(timing.processor_s).median / images,
        peak_memory_bytes=memory[label],
        rounds=config.rounds,
        device=machine.device,
        threads=machine.threads,
        torch=machine.torch,
    )


def _share(shares: tuple[float, ...]) -> str:
    low, high = np.percentile(shares, (LOW, HIGH))
    return f"{np.mean(shares):.3f} ({low:.3f} .. {high:.3f})"


def _seen_px(card: Card) -> int:
    return -(-card.tile_px // card.shrink)
