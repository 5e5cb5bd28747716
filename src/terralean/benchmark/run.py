"""Measure models beside each other, each as fast as it gets, all in one interleaved run.

Every model meets every size, batch, precision and mode, with random weights on random batches that are already on the device.
What is faster but wrong, compared with the plain float32 model, is a failure and not a result. Matrix products of the machine
are timed in the same rounds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from terralean.benchmark.candidates import FOREIGN, Call, Candidate, Subject, first_line, relative_error
from terralean.benchmark.config import BenchmarkConfig, Size, Work, Workload
from terralean.benchmark.groups import check_names
from terralean.benchmark.machine import Machine, Rate, describe, product_call, products, rate
from terralean.cost.memory import keep_within_memory, peak_memory
from terralean.cost.timing import Timed, Timing, TimingConfig, spread, time_interleaved, wait_for
from terralean.errors import ConfigError
from terralean.predict.predictor import choose_device

Progress = Callable[[int, int], None]  # told (done, total)
FORWARDS = {"inference": 1, "training": 3}  # a backward pass multiplies twice as much as a forward pass


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One model at one size and batch, in one mode and precision. What was not measured is None."""

    model: str
    work: str  # inference, or training: forward, backward and a step of AdamW
    mode: str
    precision: str
    batch: int
    height_px: int
    width_px: int
    bands: int
    device: str  # as its maker calls it
    threads: int  # of PyTorch, on the CPU
    torch: str  # version
    parameters: int | None = None
    macs_layers: int | None = None  # of one image forward: convolutions and linear layers, what most papers report
    macs_attention: int | None = None  # of one image forward: the products within attention, which they leave out
    macs_run: int | None = None  # of one image forward in this mode, both kinds: a model's own fold may multiply less
    images_per_s: float | None = None  # median over rounds
    images_per_s_low: float | None = None  # quartiles
    images_per_s_high: float | None = None
    latency_ms: float | None = None  # of one batch, or of one step of training: median over rounds
    latency_ms_low: float | None = None  # quartiles
    latency_ms_high: float | None = None
    processor_ms: float | None = None  # CPU time for one image over all threads, median; other programs hardly change it
    held_bytes: int | None = None  # weights, when training also AdamW's moments
    peak_memory_bytes: int | None = None  # of one batch, beyond these: activations, when training also gradients
    gflops: float | None = None  # 2 for each multiply-accumulate that runs, 3 times as many when training
    gemm_gflops: float | None = None  # of a square matrix product in this precision, in the same rounds
    gemm_lemevit_gflops: float | None = None  # of one of LeMeViT's shape
    share_of_gemm: float | None = None  # gflops by gemm_gflops
    relative_error: float | None = None  # of scores or gradients against the plain float32 model, norm of difference over norm
    norms_folded: int | None = None  # batch norms that are gone; None: not folded
    norms_left: int | None = None  # batch norms that no convolution alone feeds
    best: bool = False  # the fastest of its model at this size and batch
    rounds: int = 0
    calls: int = 0  # in each round
    note: str | None = None  # what one should know of the model at this size
    failure: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Everything that one run measured."""

    machine: Machine
    products: tuple[Rate, ...]
    rows: tuple[Row, ...]  # in the order of models, sizes and batches, the fastest first; what failed comes last


def run(config: BenchmarkConfig, *, progress: Progress | None = None) -> Report:
    """Measure; a row that failed has the reason, and the others are measured all the same.

    `progress` is told (done, total). Raises UnknownName for a model that neither we nor timm have, and ConfigError for a
    device or precision that is not here.
    """
    check_names(config.models)
    device = choose_device(config.device)
    if device.type == "cpu" and "fp16" in config.precisions:
        raise ConfigError("fp16 is for CUDA; on a CPU choose --precision bf16")
    machine = describe(device)
    tell = progress or (lambda done, total: None)
    # A process that takes more memory than there is would be killed, with all that was measured.
    bound = keep_within_memory() if device.type == "cpu" else nullcontext()
    # For the ninth model that shares a function torch.compile goes on in eager and only warns.
    with bound, torch._dynamo.config.patch(recompile_limit=config.candidates + 8):
        prepared = list(_told(_prepare(config, device, machine), config, tell))
        calls = {one.candidate.label: one.call for one in prepared if one.call is not None}
        kinds = list(products({one.candidate.workload for one in prepared if one.call}, config.precisions, device))
        calls |= {kind.label: product_call(kind, device=device, seed=config.seed) for kind in kinds}
        timed = _time(calls, config, device, tell)
    rates = tuple(rate(kind, timed.timings[kind.label]) for kind in kinds if kind.label in timed.timings)
    rows = [_finished(one, timed, rates=rates, on_cpu=device.type == "cpu") for one in prepared]
    return Report(machine=machine, products=rates, rows=tuple(_ranked(rows, config)))


class _Prepared(NamedTuple):
    candidate: Candidate
    row: Row
    call: Callable[[], object] | None  # None: it failed, and the row says why


def _told(found: Iterator[_Prepared], config: BenchmarkConfig, tell: Progress) -> Iterator[_Prepared]:
    for done, one in enumerate(found, start=1):
        tell(done, config.candidates * (config.rounds + 2))
        yield one


def _time(calls: Mapping[str, Callable[[], object]], config: BenchmarkConfig, device: torch.device, tell: Progress) -> Timed:
    """All calls in every round; a compiled model that would have to be compiled again fails."""
    before = config.candidates
    with torch.compiler.set_stance("fail_on_recompile"):
        return time_interleaved(
            calls,
            config=TimingConfig(rounds=config.rounds, seconds=config.seconds),
            order=random.Random(config.seed),
            synchronise=wait_for(device),
            tolerate=FOREIGN,
            progress=lambda done, total: tell(before + done, before + total),
        )


def _finished(one: _Prepared, timed: Timed, *, rates: Iterable[Rate], on_cpu: bool) -> Row:
    label = one.candidate.label
    if error := timed.failures.get(label):
        return replace(one.row, failure=first_line(error))
    timing = timed.timings.get(label)
    return one.row if timing is None else _measured(one.row, timing, rates=rates, on_cpu=on_cpu)


def _prepare(config: BenchmarkConfig, device: torch.device, machine: Machine) -> Iterator[_Prepared]:
    """Build, compile and check all candidates: a model and a size at a time."""
    for name, size in product(config.models, config.sizes):
        try:
            subject = Subject(name, size, bands=config.bands, classes=config.classes, seed=config.seed, device=device)
        except FOREIGN as error:
            for batch in config.batches:
                yield from _failed(name, Workload(batch, size), config, machine, error=error)
            continue
        for batch in config.batches:
            yield from _prepare_batch(subject, Workload(batch, size), config, machine)
            if device.type == "cuda":
                torch.cuda.empty_cache()  # what one batch left must not be what the next one lacks


def _prepare_batch(subject: Subject, workload: Workload, config: BenchmarkConfig, machine: Machine) -> Iterator[_Prepared]:
    device = next(subject.model.parameters()).device
    try:
        image = _image(workload, config).to(device)
        expected = subject.expected(image, work=config.work)
    except FOREIGN as error:
        yield from _failed(subject.name, workload, config, machine, error=error)
        return
    for candidate in _candidates(subject.name, workload, config):
        row = replace(
            _row(candidate, config, machine),
            parameters=subject.parameters,
            macs_layers=subject.macs.layers,
            macs_attention=subject.macs.attention,
            note=subject.note,
        )
        try:
            call = subject.call(image, work=config.work, mode=candidate.mode, precision=candidate.precision)
            yield _Prepared(candidate, _checked(row, call, work=config.work, expected=expected, device=device), call.run)
        except FOREIGN as error:
            yield _Prepared(candidate, replace(row, failure=first_line(error)), None)


def _checked(row: Row, call: Call, *, work: Work, expected: Tensor, device: torch.device) -> Row:
    """With the error of what it gives, and the memory that it takes once it has settled."""
    error = relative_error(call.answer(), expected, work=work, precision=row.precision)
    call.run()
    return replace(
        row,
        relative_error=error,
        macs_run=call.macs.total,
        held_bytes=call.held_bytes,
        peak_memory_bytes=peak_memory(call.run, device=device),
        norms_folded=call.norms and call.norms.folded,
        norms_left=call.norms and call.norms.left,
    )


def _image(workload: Workload, config: BenchmarkConfig) -> Tensor:
    shape = (workload.batch, config.bands, *workload.size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(config.seed))


def _candidates(name: str, workload: Workload, config: BenchmarkConfig) -> Iterator[Candidate]:
    for mode, precision in product(config.chosen_modes, config.precisions):
        yield Candidate(name, workload, mode, precision)


def _failed(
    name: str, workload: Workload, config: BenchmarkConfig, machine: Machine, *, error: Exception
) -> Iterator[_Prepared]:
    for candidate in _candidates(name, workload, config):
        yield _Prepared(candidate, replace(_row(candidate, config, machine), failure=first_line(error)), None)


def _row(candidate: Candidate, config: BenchmarkConfig, machine: Machine) -> Row:
    return Row(
        model=candidate.model,
        work=config.work,
        mode=candidate.mode,
        precision=candidate.precision,
        batch=candidate.workload.batch,
        height_px=candidate.workload.size.height_px,
        width_px=candidate.workload.size.width_px,
        bands=config.bands,
        device=machine.device,
        threads=machine.threads,
        torch=machine.torch,
    )


def _measured(row: Row, timing: Timing, *, rates: Iterable[Rate], on_cpu: bool) -> Row:
    quick, median, slow = spread(timing.wall_s)
    gemm = {rate.product.name: rate.gflops for rate in rates if rate.product.precision == row.precision}
    gflops = 2 * (row.macs_run or 0) * FORWARDS[row.work] * row.batch / median / 1e9
    return replace(
        row,
        images_per_s=row.batch / median,
        images_per_s_low=row.batch / slow,
        images_per_s_high=row.batch / quick,
        latency_ms=1000 * median,
        latency_ms_low=1000 * quick,
        latency_ms_high=1000 * slow,
        processor_ms=1000 * spread(timing.processor_s).median / row.batch if on_cpu else None,
        gflops=gflops,
        gemm_gflops=gemm.get("square"),
        gemm_lemevit_gflops=gemm.get("lemevit"),
        share_of_gemm=gflops / gemm["square"] if "square" in gemm else None,
        rounds=len(timing.wall_s),
        calls=timing.calls,
    )


def _ranked(rows: Sequence[Row], config: BenchmarkConfig) -> list[Row]:
    def place(row: Row) -> tuple[int, int, int]:
        size = Size(row.height_px, row.width_px)
        return config.models.index(row.model), config.sizes.index(size), config.batches.index(row.batch)

    measured = sorted((row for row in rows if row.failure is None), key=lambda row: (place(row), -(row.images_per_s or 0)))
    first = {place(row): row for row in reversed(measured)}
    failed = [row for row in rows if row.failure is not None]
    return [replace(row, best=row is first[place(row)]) for row in measured] + failed
