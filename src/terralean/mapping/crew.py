"""Windows of a scene predicted in batches by workers, threads of one process; answers come in the order of the windows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch

from terralean.mapping.plan import Lattice
from terralean.mapping.reading import Batch, Readable, batches, first_row_read, pieces
from terralean.mapping.stages import Stages
from terralean.raster.clip import Clip

A = TypeVar("A")


@dataclass(frozen=True, kw_only=True, slots=True)
class Crew:
    """Who predicts. Answers depend on the batch and on the threads of a worker, not on how many workers there are."""

    batch: int  # windows predicted at once
    workers: int = 1
    threads: int | None = None  # that a worker's arithmetic uses on a CPU; None: as torch is set

    @property
    def at_once(self) -> int:
        """Batches under way: with each worker one, and as many that wait for it or to be blended."""
        return max(3, 2 * self.workers)

    def prepare(self) -> None:
        """What a worker's thread does first."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)


def default_workers(device: torch.device) -> int:
    """One on a GPU, whose kernels already are parallel; else one for each processor that this process may use."""
    if device.type != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Within it torch computes with so many threads wherever it is called from."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def answered(
    stages: Stages,
    scene: Readable,
    lattice: Lattice,
    predict: Callable[[Batch], A],
    *,
    crew: Crew,
    first_row: int,
    clip: Clip | None = None,
) -> Iterator[tuple[Batch, A | None]]:
    """Batches that hold windows from `first_row` on, with what `predict` says of them: None of a batch without windows.

    The scene is read ahead, in a thread of its own.
    """
    begin = first_row_read(lattice, size=crew.batch, first_row=first_row)
    read = stages.ahead(pieces(scene, lattice, first_row=begin, clip=clip), depth=1)
    return stages.in_order(
        lambda batch: predict(batch) if batch.numbers else None,
        batches(read, lattice, size=crew.batch, first_row=first_row),
        workers=crew.workers,
        at_once=crew.at_once,
        prepare=crew.prepare,
    )
