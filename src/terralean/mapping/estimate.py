"""What a map will take, told before it begins: memory, disk and time; and what would fit where memory is limited."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from terralean.cost.memory import available_bytes, process_bytes
from terralean.errors import ConfigError, SizeError
from terralean.mapping.budget import duration
from terralean.mapping.calibrate import Tried, try_batches, worth_a_trial
from terralean.mapping.job import Job
from terralean.mapping.pixels import PixelWork
from terralean.mapping.work import Work
from terralean.raster.cog import BLOCK, CACHE_BYTES, check_space, cog_bytes, rows_bytes
from terralean.weights.card import MIN_TILE_PX

log = logging.getLogger(__name__)

SIZE = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([KMGT]?)(i?)B?\s*", re.IGNORECASE)
ALLOCATOR = "DefaultCPUAllocator"  # how torch's error begins where a CPU has no more memory; it has no class of its own
FREED_BYTES = 32 * 2**20  # that the allocators of several threads keep between arrays; 20 to 30 million seen
POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a map may take, and what is known of it beforehand."""

    memory_bytes: int | None  # of the whole process; None: not limited
    workers_given: bool  # their number was asked for and is not to be changed
    outlining_bytes: int  # that making polygons takes, 0 where there are none


def read_size(text: str) -> int:
    """Bytes from words such as 4GB, 500 MB or 2GiB. Raises ConfigError for others."""
    found = SIZE.fullmatch(text)
    if found is None or not float(found[1]):
        raise ConfigError(f"memory must be a size such as 4GB, 500MB or 2GiB, got {text!r}")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** POWERS[found[2].upper()])


def written_size(count: int) -> str:
    """Bytes as people read them, rounded up."""
    unit, size = ("GB", 10**9) if count >= 10**9 else ("MB", 10**6)
    digits = 1 if count < 10 * size else 0
    return f"{-(-count * 10**digits // size) / 10**digits:.{digits}f} {unit}"


def prepared(work: Work, job: Job, limits: Limits, *, target: Path) -> Work:
    """The work with as many workers as fit into the memory that it may take, after telling what it will take.

    Raises SizeError, with what would fit, where nothing that may be changed does, and OutputFailed where the disk is too small.
    """
    tried = try_batches(work) if limits.memory_bytes is not None or worth_a_trial(work) else None
    base = process_bytes()
    if limits.memory_bytes is not None:
        work = fitting(work, limits, tried=tried, base=base)
    needed = max(0, disk_bytes(work) - job.bytes_on_disk())
    check_space(target, needed=needed)
    memory = None if base is None else memory_bytes(work, tried=tried, base=base, outlining=limits.outlining_bytes)
    log.info("%s", _told(work, job, memory=memory, disk=needed, tried=tried))
    if memory is not None and memory - (base or 0) > available_bytes():
        there = written_size((base or 0) + available_bytes()).replace(" ", "")
        log.warning("%s: there is less memory than that, %s; say --memory %s to keep to it", work.scene.path, there, there)
    return work


@contextmanager
def enough_memory(work: Work) -> Iterator[None]:
    """Within it, memory that runs out is a SizeError that says what takes less."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError | torch.OutOfMemoryError) or ALLOCATOR in str(error)):
            raise
        smaller = next(_smaller(work), None)
        fix = f"try {smaller[0]}" if smaller else "map a part of it with --aoi, or on a larger machine"
        raise SizeError(
            f"{work.scene.path}: memory ran out on {work.predictor.device} with {work.crew.workers} workers and batches of "
            f"{work.crew.batch} ({str(error).strip().partition(chr(10))[0] or type(error).__name__}); {fix}"
        ) from error


def memory_bytes(work: Work, *, tried: Tried | None, base: int, outlining: int) -> int:
    """Of the process at its peak: what it holds already, arrays, what workers hold at work, what GDAL and allocators keep.

    Without a trial the share of the workers is left out.
    """
    on_cpu = work.predictor.device.type == "cpu"
    worker = tried.held_bytes if tried is not None and on_cpu else None
    rows = max(len(content.bands) * (2 if content.dtype == "uint16" else 1) for content in work.contents.values())
    copying = 3 * BLOCK * work.grid.width * rows
    mapping = work.bytes_held() + work.crew.workers * (worker or 0)
    return base + max(mapping, copying, outlining) + CACHE_BYTES + FREED_BYTES


def disk_bytes(work: Work) -> int:
    """The most that rows and rasters take together; polygons and tables are not counted."""
    return sum(rows_bytes(work.grid, content) + cog_bytes(work.grid, content) for content in work.contents.values())


def fitting(work: Work, limits: Limits, *, tried: Tried | None, base: int | None) -> Work:
    """The work with fewer workers if need be and allowed. Raises SizeError with what would fit where nothing does."""
    if base is None or (tried is not None and tried.held_bytes is None):
        raise ConfigError("--memory can be kept to where the system says what a process holds, on Linux; leave it out")
    assert limits.memory_bytes is not None, "a limit to keep to"

    def needs(other: Work) -> int:
        scaled = None if tried is None else replace(tried, held_bytes=_scaled(tried, work, other))
        return memory_bytes(other, tried=scaled, base=base, outlining=limits.outlining_bytes)

    fewer = () if limits.workers_given else range(work.crew.workers - 1, 0, -1)
    for other in (work, *(_with_crew(work, workers=workers) for workers in fewer)):
        if needs(other) <= limits.memory_bytes:
            return other
    asked = f"{work.scene.path} needs about {written_size(needs(work))} of memory, --memory allows "
    least = base
    for words, other in _smaller(work):
        if needs(other) <= limits.memory_bytes:
            raise SizeError(f"{asked}{written_size(limits.memory_bytes)}; {words} would fit: {written_size(needs(other))}")
        least = needs(other)
    raise SizeError(f"{asked}{written_size(limits.memory_bytes)}; the least that it can do with is {written_size(least)}")


def _smaller(work: Work) -> Iterator[tuple[str, Work]]:
    """What takes less and less, in the words of the command line."""
    crew = work.crew
    for workers in range(crew.workers - 1, 0, -1):
        yield f"--workers {workers}", _with_crew(work, workers=workers)
    batch = crew.batch
    while batch > 1:
        batch //= 2
        yield f"--workers 1 --batch {batch}", _with_crew(work, workers=1, batch=batch)
    if not isinstance(work, PixelWork):
        return  # views of another size would be other cells
    tile = work.lattice.tile_px
    while tile // 2 >= MIN_TILE_PX:
        tile //= 2
        plan = replace(work.lattice, tile_px=tile, overlap_px=work.lattice.overlap_px * tile // work.lattice.tile_px)
        yield f"--workers 1 --batch 1 --tile {tile}", replace(work, crew=replace(crew, workers=1, batch=1), lattice=plan)


def _with_crew(work: Work, *, workers: int, batch: int | None = None) -> Work:
    return work.with_crew(replace(work.crew, workers=workers, batch=batch or work.crew.batch))


def _scaled(tried: Tried, work: Work, other: Work) -> int:
    """What a worker holds at work on batches or windows of another size: about as much for each pixel."""
    pixels = [one.crew.batch * one.lattice.side_px**2 for one in (work, other)]
    return round((tried.held_bytes or 0) * pixels[1] / pixels[0])


def _told(work: Work, job: Job, *, memory: int | None, disk: int, tried: Tried | None) -> str:
    """One line for the user."""
    grid, crew = work.scene.grid, work.crew
    windows = len(work.lattice.rows) * len(work.lattice.cols)
    parts = [f"{written_size(disk)} of disk"]
    if memory is not None:
        unknown = "" if tried is not None else " beside what the network takes at work"
        parts.insert(0, f"{written_size(memory)} of memory{unknown}")
    if tried is not None:
        rest = 1 - job.rows_done / job.height
        parts.append(duration(rest * windows * tried.data_share * tried.window_s))
        if work.predictor.device.type == "cuda" and tried.held_bytes is not None:
            parts.insert(1, f"{written_size(tried.held_bytes * crew.workers)} on the GPU beside the network")
    resumed = f", {job.rows_done} of {job.height} rows from before" if job.rows_done else ""
    counts = ", ".join(f"{n:,} {one}{'' if n == 1 else 's'}" for n, one in ((windows, "window"), (crew.workers, "worker")))
    return f"{work.scene.path}: {grid.width} x {grid.height} px, {counts}{resumed}; takes about {', '.join(parts)}"
