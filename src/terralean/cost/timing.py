"""How long calls take, compared fairly: all of them in every round, each round in another order.

A machine slows down and speeds up while it is measured: clocks fall with heat, other programs run. Timing one candidate to its
end and then the next charges that to the candidate; interleaved rounds spread it over all of them, and the spread shows it.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch


class Clocks(NamedTuple):
    """Two clocks in seconds, read together."""

    wall: Callable[[], float]
    processor: Callable[[], float]  # time that processors spent on this process, over all threads


CLOCKS = Clocks(wall=time.perf_counter, processor=time.process_time)


@dataclass(frozen=True, kw_only=True, slots=True)
class TimingConfig:
    """How much to measure."""

    rounds: int
    seconds: float  # a measurement repeats its call until about this much has passed
    warm_up: int = 2  # calls before the first measurement, which compile, allocate and choose algorithms


class Spread(NamedTuple):
    """Quartiles of a sample."""

    low: float
    median: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Seconds of one call, one entry a round, each the mean over `calls` calls."""

    wall_s: tuple[float, ...]
    processor_s: tuple[float, ...]
    calls: int


class Timed(NamedTuple):
    """What was measured, and what went wrong, by the callables' names."""

    timings: dict[str, Timing]
    failures: dict[str, Exception]


def time_interleaved(
    calls: Mapping[str, Callable[[], object]],
    *,
    config: TimingConfig,
    order: random.Random,
    clocks: Clocks = CLOCKS,
    synchronise: Callable[[], object] = lambda: None,
    tolerate: tuple[type[Exception], ...] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Timed:
    """Time all calls in rounds, each round in an order drawn from `order`.

    `synchronise` waits for a device and is called before each clock is read. A call that raises one of `tolerate` drops out.
    `progress` is told (done, total) in measurements, warming up being one for each call.
    """
    failures: dict[str, Exception] = {}
    repeats: dict[str, int] = {}
    laps: dict[str, list[_Lap]] = {name: [] for name in calls}
    done, total = 0, len(calls) * (config.rounds + 1)
    for round_ in range(config.rounds + 1):
        for name in order.sample(sorted(calls), len(calls)):
            done += 1
            if name not in failures:
                try:
                    if round_ == 0:
                        repeats[name] = _warm_up(calls[name], config=config, clocks=clocks, synchronise=synchronise)
                    else:
                        laps[name].append(_lap(calls[name], repeats=repeats[name], clocks=clocks, synchronise=synchronise))
                except tolerate as error:
                    failures[name] = error.with_traceback(None)  # which would hold the tensors of the call
            if progress:
                progress(done, total)
    timings = {
        name: Timing(
            wall_s=tuple(lap.wall for lap in laps[name]), processor_s=tuple(lap.processor for lap in laps[name]), calls=n
        )
        for name, n in repeats.items()
        if name not in failures
    }
    return Timed(timings, failures)


def spread(values: tuple[float, ...]) -> Spread:
    """Quartiles, interpolated between the values (those of one value are the value)."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    return Spread(*statistics.quantiles(values, n=4, method="inclusive"))


def wait_for(device: torch.device) -> Callable[[], None]:
    """What to call until everything queued on the device is done; on a CPU nothing is queued."""
    return lambda: torch.cuda.synchronize(device) if device.type == "cuda" else None


class _Lap(NamedTuple):
    wall: float
    processor: float


def _warm_up(call: Callable[[], object], *, config: TimingConfig, clocks: Clocks, synchronise: Callable[[], object]) -> int:
    """Calls that one measurement needs."""
    for _ in range(config.warm_up):
        call()
    once = _lap(call, repeats=1, clocks=clocks, synchronise=synchronise).wall
    return max(1, math.ceil(config.seconds / once)) if once > 0 else 1


def _lap(call: Callable[[], object], *, repeats: int, clocks: Clocks, synchronise: Callable[[], object]) -> _Lap:
    """Mean seconds of a call."""
    synchronise()
    wall, processor = clocks.wall(), clocks.processor()
    for _ in range(repeats):
        call()
    synchronise()
    return _Lap((clocks.wall() - wall) / repeats, (clocks.processor() - processor) / repeats)
