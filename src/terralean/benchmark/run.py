"""Measure models beside each other, each as fast as it gets, all in one interleaved run.

Every model is tried in every precision and mode, with random weights on one random batch that is already on the device. What
is faster but wrong, compared with the plain float32 model, is a failure and not a result.
"""

from __future__ import annotations

import platform
import random
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from terralean.benchmark.candidates import FOREIGN, TOLERANCES, Candidate, Mode, check_names, relative_error, subject, variant
from terralean.cost.memory import peak_memory
from terralean.cost.timing import Timing, TimingConfig, spread, time_interleaved, wait_for
from terralean.errors import ConfigError
from terralean.predict.predictor import Precision, choose_device

MODES: tuple[Mode, ...] = ("eager", "channels-last", "compiled")
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkConfig:
    """What to measure, and for how long."""

    models: tuple[str, ...]  # ours, or any that timm builds
    batch: int = 8
    size_px: int = 224
    bands: int = 3
    classes: int = 1000
    device: str | None = None  # None: CUDA where there is one
    precisions: tuple[Precision, ...] = PRECISIONS
    modes: tuple[Mode, ...] = MODES
    rounds: int = 9  # in each, every candidate is measured once
    seconds: float = 0.5  # least time of one measurement
    seed: int = 0  # of weights, images and the order within rounds

    def __post_init__(self) -> None:
        for name in ("batch", "size_px", "bands", "classes", "rounds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.seconds < 0:
            raise ConfigError(f"seconds must not be negative, got {self.seconds}")
        _check_chosen("precisions", self.precisions, known=TOLERANCES)
        _check_chosen("modes", self.modes, known=MODES)
        _check_chosen("models", self.models, known=self.models)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One model in one mode and precision. What was not measured is None."""

    model: str
    mode: str
    precision: str
    batch: int
    size_px: int
    bands: int
    device: str  # as its maker calls it
    threads: int  # of PyTorch, on the CPU
    torch: str  # version
    parameters: int | None = None
    macs_layers: int | None = None  # of one image: convolutions and linear layers, what most papers report
    macs_attention: int | None = None  # of one image: the products within attention, which they leave out
    images_per_s: float | None = None  # median over rounds
    images_per_s_low: float | None = None  # quartiles
    images_per_s_high: float | None = None
    processor_ms: float | None = None  # CPU time for one image over all threads, median; other programs hardly change it
    peak_memory_bytes: int | None = None  # of one batch, beyond the weights
    relative_error: float | None = None  # of the output against the plain float32 model, norm of difference over norm
    best: bool = False  # the fastest of its model
    rounds: int = 0
    calls: int = 0  # in each round
    failure: str | None = None


def run(config: BenchmarkConfig, *, progress: Callable[[int, int], None] | None = None) -> list[Row]:
    """Rows in the order of the models, of each model the fastest first; what failed comes last, with the reason.

    `progress` is told (done, total). Raises UnknownName for a model that neither we nor timm have.
    """
    check_names(config.models)
    device = choose_device(config.device)
    count = len(config.models) * len(config.modes) * len(config.precisions)
    rows: dict[Candidate, Row] = {}
    calls: dict[str, Callable[[], Tensor]] = {}
    # For the ninth model that shares a function torch.compile goes on in eager and only warns.
    with torch.inference_mode(), torch._dynamo.config.patch(recompile_limit=count + 8):
        for done, prepared in enumerate(_prepare(config, device), start=1):
            rows[prepared.candidate] = prepared.row
            if prepared.call:
                calls[prepared.candidate.label] = prepared.call
            if progress:
                progress(done, count * (config.rounds + 2))
        with torch.compiler.set_stance("fail_on_recompile"):
            timed = time_interleaved(
                calls,
                config=TimingConfig(rounds=config.rounds, seconds=config.seconds),
                order=random.Random(config.seed),
                synchronise=wait_for(device),
                tolerate=FOREIGN,
                progress=progress and (lambda done, of: progress(count + done, count + of)),
            )
    for candidate, row in rows.items():
        if error := timed.failures.get(candidate.label):
            rows[candidate] = replace(row, failure=_reason(error))
        elif timing := timed.timings.get(candidate.label):
            rows[candidate] = _measured(row, timing, on_cpu=device.type == "cpu")
    return _ranked(rows.values(), models=config.models)


class _Prepared(NamedTuple):
    candidate: Candidate
    row: Row
    call: Callable[[], Tensor] | None  # None: it failed, and the row says why


def _prepare(config: BenchmarkConfig, device: torch.device) -> Iterator[_Prepared]:
    """Build, compile and check all candidates, a model at a time."""
    shape = (config.batch, config.bands, config.size_px, config.size_px)
    image = torch.randn(shape, generator=torch.Generator().manual_seed(config.seed)).to(device)
    for name in config.models:
        candidates = [Candidate(name, mode, precision) for mode, precision in product(config.modes, config.precisions)]
        try:
            built = subject(name, image, classes=config.classes, seed=config.seed)
        except FOREIGN as error:
            yield from (_Prepared(c, replace(_row(c, config, device), failure=_reason(error)), None) for c in candidates)
            continue
        for candidate in candidates:
            row = replace(
                _row(candidate, config, device),
                parameters=built.parameters,
                macs_layers=built.macs.layers,
                macs_attention=built.macs.attention,
            )
            try:
                call = variant(built, mode=candidate.mode, precision=candidate.precision)
                row = replace(row, relative_error=relative_error(call(), of=built, precision=candidate.precision))
                yield _Prepared(candidate, replace(row, peak_memory_bytes=peak_memory(call, device=device)), call)
            except FOREIGN as error:
                yield _Prepared(candidate, replace(row, failure=_reason(error)), None)


def _row(candidate: Candidate, config: BenchmarkConfig, device: torch.device) -> Row:
    return Row(
        model=candidate.model,
        mode=candidate.mode,
        precision=candidate.precision,
        batch=config.batch,
        size_px=config.size_px,
        bands=config.bands,
        device=device_name(device),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
    )


def _measured(row: Row, timing: Timing, *, on_cpu: bool) -> Row:
    quick, median, slow = spread(timing.wall_s)
    return replace(
        row,
        images_per_s=row.batch / median,
        images_per_s_low=row.batch / slow,
        images_per_s_high=row.batch / quick,
        processor_ms=1000 * spread(timing.processor_s).median / row.batch if on_cpu else None,
        rounds=len(timing.wall_s),
        calls=timing.calls,
    )


def _ranked(rows: Iterable[Row], *, models: tuple[str, ...]) -> list[Row]:
    measured = sorted(
        (row for row in rows if row.failure is None), key=lambda row: (models.index(row.model), -(row.images_per_s or 0))
    )
    first = {row.model: row for row in reversed(measured)}
    failed = [row for row in rows if row.failure is not None]
    return [replace(row, best=row is first[row.model]) for row in measured] + failed


def device_name(device: torch.device) -> str:
    """What its maker calls the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _reason(error: Exception) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}"[:300]


def _check_chosen(setting: str, chosen: tuple[str, ...], *, known: Collection[str]) -> None:
    wrong = [name for name in chosen if name not in known]
    if wrong:
        raise ConfigError(f"{setting} must be of {', '.join(known)}, got {', '.join(wrong)}")
    if not chosen or len(set(chosen)) < len(chosen):
        raise ConfigError(f"{setting} must be one or more different names, got {', '.join(chosen) or 'none'}")
