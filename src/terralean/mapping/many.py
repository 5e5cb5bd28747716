"""Many scenes to as many maps: one after the other, side by side on this machine, or on a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from terralean.cost.memory import process_bytes
from terralean.errors import ConfigError, OutputFailed, SizeError, TerraleanError
from terralean.mapping import cluster, processes
from terralean.mapping.crew import default_workers
from terralean.mapping.estimate import written_size
from terralean.mapping.hand import Load, Order, Outcome, outcome
from terralean.mapping.progress import Progress
from terralean.mapping.run import MapConfig, MapResult, map_path, targets_of
from terralean.mapping.scenes import SceneSource, as_source
from terralean.predict import Predictor


@dataclass(frozen=True, kw_only=True, slots=True)
class ManyConfig:
    """Who maps many scenes."""

    jobs: int | None = None  # scenes mapped side by side; None: one, or on a cluster one for each of its machines
    cluster: str | None = None  # address of a Ray cluster; `auto`: the one this machine is in; `local`: one of its own

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise ConfigError(f"jobs must be at least 1 scene at a time, got {self.jobs}")


def map_scenes(
    predictor: Predictor,
    scenes: Sequence[SceneSource | str | Path],
    *,
    out: Path,
    config: MapConfig,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> tuple[list[MapResult], dict[str, str]]:
    """Map one scene after the other; results of those that were mapped, and by scene what was wrong with the others.

    A single scene's mistake is raised.
    """
    sources = [as_source(scene) for scene in scenes]
    check_targets(sources, out=out, config=config)

    def found() -> Iterator[tuple[int, Outcome]]:
        for index, source in enumerate(sources):

            def tell(told: Progress, before: int = index) -> None:
                progress(replace(told, index=before, scenes=len(sources)))

            yield index, outcome(predictor, source, out=out, config=config, progress=tell)

    return _gathered(found(), sources)


def map_many(
    load: Load,
    scenes: Sequence[SceneSource | str | Path],
    *,
    out: Path,
    config: MapConfig,
    many: ManyConfig,
    device: str | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> tuple[list[MapResult], dict[str, str]]:
    """As `map_scenes`, but side by side: each of `many.jobs` processes opens the model and has its share of the machine.

    The maps are the same, byte for byte. Processes end with this one, by Ctrl-C too; what they were at goes on when it is
    mapped again. On a cluster all machines must see the scenes, the run and `out` under the same paths.
    """
    sources, jobs = [as_source(scene) for scene in scenes], min(many.jobs or 1, len(scenes))
    check_targets(sources, out=out, config=config)
    if many.cluster is None and jobs == 1:
        return map_scenes(load(device=device), sources, out=out, config=config, progress=progress)
    order, together = Order(load=load, device=device, out=out, config=config), Together(len(sources), progress)
    if many.cluster is not None:
        found = cluster.outcomes(order, sources, address=many.cluster, jobs=many.jobs, tell=together.tell)
    else:
        found = processes.outcomes(share_out(order, jobs=jobs), sources, tell=together.tell)
    with closing(found):
        return _gathered(together.count(found), sources)


def share_out(order: Order, *, jobs: int) -> list[Order]:
    """An order for each process: its share of the processors and of the memory, and one of the GPUs in turn.

    What this process itself holds is taken off the memory. Raises SizeError where nothing is left.
    """
    gpus, device, config = torch.cuda.device_count(), order.device, order.config
    workers = config.workers
    if workers is None and (device == "cpu" or (device is None and not gpus)):
        workers = max(1, default_workers(torch.device("cpu")) // jobs)
    memory = None if config.memory_bytes is None else _share(config.memory_bytes, jobs=jobs)
    config = replace(config, workers=workers, memory_bytes=memory)
    several = device in (None, "cuda") and gpus > 1
    return [replace(order, device=f"cuda:{i % gpus}" if several else device, config=config) for i in range(jobs)]


def _share(memory_bytes: int, *, jobs: int) -> int:
    own = process_bytes() or 0
    if memory_bytes <= own:
        raise SizeError(
            f"{jobs} jobs are started by a process that holds {written_size(own)} itself, --memory allows "
            f"{written_size(memory_bytes)}; allow more"
        )
    return (memory_bytes - own) // jobs


def check_targets(sources: Sequence[SceneSource], *, out: Path, config: MapConfig) -> None:
    """Raise OutputFailed where two scenes would be written to one map, or a map in the place of what is read for it."""
    taken: dict[Path, SceneSource] = {}
    read = {os.path.realpath(path) for path in (*(source.path for source in sources), config.aoi) if path is not None}
    for source in sources:
        target = map_path(source, out=out)
        other = taken.get(target)
        if other is not None and other.name == source.name:
            raise OutputFailed(f"{source.name} is given twice; name each scene once")
        if other is not None:
            raise OutputFailed(
                f"{other.name} and {source.name} would both be written to {target}; map them to different folders"
            )
        taken[target] = source
        for path in targets_of(source, out=out, config=config).paths:
            if os.path.realpath(path) in read:
                raise OutputFailed(f"{path} is read for this map, and would be replaced by a part of it; choose another --out")


class Together:
    """How far scenes are that are mapped side by side: what was done of those begun and not finished."""

    def __init__(self, scenes: int, progress: Callable[[Progress], None]) -> None:
        self._scenes, self._progress = scenes, progress
        self._finished = 0
        self._begun: dict[int, Progress] = {}

    def tell(self, index: int, told: Progress) -> None:
        """One of them got on."""
        self._begun[index] = told
        begun = [some for some in self._begun.values() if some.unit == told.unit]
        self._progress(
            replace(
                told,
                done=sum(some.done for some in begun),
                total=sum(some.total for some in begun),
                resumed=sum(some.resumed for some in begun),
                index=self._finished,
                scenes=self._scenes,
                together=len(begun),
            )
        )

    def count(self, found: Iterable[tuple[int, Outcome]]) -> Iterator[tuple[int, Outcome]]:
        """Hand outcomes on."""
        for index, one in found:
            self._finished += 1
            self._begun.pop(index, None)
            yield index, one


def _gathered(found: Iterable[tuple[int, Outcome]], sources: Sequence[SceneSource]) -> tuple[list[MapResult], dict[str, str]]:
    """In the order of the scenes."""
    outcomes = dict(found)
    failed: dict[str, str] = {}
    results = []
    for index, source in enumerate(sources):
        one = outcomes[index]
        if isinstance(one, TerraleanError):
            if len(sources) == 1:
                raise one
            failed[source.name] = str(one)
        else:
            results.append(one)
    return results, failed
