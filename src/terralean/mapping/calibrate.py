"""Some batches of the scene itself, predicted before the map begins: what they hold and how long they take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from terralean.cost.memory import peak_memory
from terralean.mapping.reading import Batch, batch_at, batch_count
from terralean.mapping.stages import Stages
from terralean.mapping.work import Work

TRIED_FROM = 100  # batches for each worker: of fewer a trial of about three would take more time than its answer is worth
DIFFERENT = 8  # batches that are tried at most, however many workers there are
LOOKED_AT = 4  # places for each of them: where there is nothing to map the next one is taken
GOLDEN = (5**0.5 - 1) / 2  # its multiples lie evenly, however many there are


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """What some batches took."""

    held_bytes: int | None  # by a worker at work, beside the network, on the device; None where the system does not say
    window_s: float  # for each window, all workers at work
    data_share: float  # windows with something to map, of those that were looked at


def worth_a_trial(work: Work) -> bool:
    """Whether a map is so large that a trial tells more than it takes."""
    return batch_count(work.lattice, size=work.crew.batch) >= TRIED_FROM * work.crew.workers


def try_batches(work: Work) -> Tried | None:
    """Predict some batches that lie evenly over the scene; None where none of those looked at has something to map."""
    wanted, looked, found = min(DIFFERENT, work.crew.workers), 0, list[Batch]()
    for batch in _evenly(work, most=LOOKED_AT * wanted):
        looked += 1
        found += [batch] if batch.numbers else []
        if len(found) == wanted:
            break
    if not found:
        return None
    work.predict(found[0])  # what is done but once is not counted
    held = peak_memory(lambda: work.predict(found[0]), device=work.predictor.device)
    seconds, windows = _timed(work, [found[i % len(found)] for i in range(work.crew.workers)])
    return Tried(
        held_bytes=held,
        window_s=seconds / windows,
        data_share=sum(len(batch.numbers) for batch in found) / (looked * work.crew.batch),
    )


def _evenly(work: Work, *, most: int) -> Iterator[Batch]:
    """Batches from all over the scene, each another one."""
    count = batch_count(work.lattice, size=work.crew.batch)
    numbers = dict.fromkeys(int((i + 0.5) * GOLDEN % 1 * count) for i in range(most))
    for number in numbers:
        yield batch_at(work.scene, work.lattice, number, size=work.crew.batch, clip=work.clip)


def _timed(work: Work, batches: list[Batch]) -> tuple[float, int]:
    """Seconds for all of them at once, one for each worker, and their windows."""
    crew, began = work.crew, time.perf_counter()
    with Stages() as stages:
        results = stages.in_order(work.predict, batches, workers=crew.workers, at_once=crew.workers, prepare=crew.prepare)
        windows = sum(len(batch.numbers) for batch, _ in results)
    return time.perf_counter() - began, windows
