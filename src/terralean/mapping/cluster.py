"""Scenes mapped side by side on the machines of a Ray cluster, all of which see the same files."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType
from typing import Any

from terralean.errors import ConfigError, MissingExtra, OutputFailed, TerraleanError
from terralean.mapping.hand import Order, Outcome, Outcomes, Tell, outcome
from terralean.mapping.progress import Progress
from terralean.mapping.scenes import SceneSource
from terralean.predict import Predictor

LOCAL = "local"
EVERY_S = 1.0  # progress is asked for


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What a machine of the cluster has."""

    processors: int
    gpus: int

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> Machine:
        """As Ray tells it."""
        return cls(processors=int(node["Resources"].get("CPU", 0)), gpus=int(node["Resources"].get("GPU", 0)))

    def holds(self, *, processors: int, gpus: int) -> int:
        """Jobs that need so much each."""
        return min(self.processors // processors, self.gpus // gpus if gpus else self.processors)


def processors_each(machines: Sequence[Machine], *, jobs: int, gpus: int) -> int:
    """The most that each of some jobs can have at the same time, each with so many GPUs."""
    for processors in range(max((machine.processors for machine in machines), default=0), 0, -1):
        if sum(machine.holds(processors=processors, gpus=gpus) for machine in machines) >= jobs:
            return processors
    there = sum(machine.processors for machine in machines)
    raise ConfigError(f"{jobs} jobs need a processor each, and the cluster has {there}; make --jobs smaller")


def outcomes(order: Order, sources: Sequence[SceneSource], *, address: str, jobs: int | None, tell: Tell) -> Outcomes:
    """Numbers of scenes with what came of them, as they are finished, by so many actors; None: one for each machine.

    The cluster's processors and GPUs are shared out among the actors. One that dies fails the scene it was at, and Ray starts
    it again. However this ends, all actors end.
    """
    ray = _ray()
    with _connected(ray, address):
        alive = sum(node["Alive"] for node in ray.nodes())
        actors, ear = _actors(ray, order, jobs=min(jobs or alive, len(sources)))
        try:
            for actor in actors:
                _check(ray.get(actor.ready.remote()))
            yield from _shared_out(ray, actors, ear, [source.from_anywhere() for source in sources], tell)
        finally:
            for actor in (*actors, ear):
                ray.kill(actor)


def _shared_out(ray: ModuleType, actors: Sequence[Any], ear: Any, sources: Sequence[SceneSource], tell: Tell) -> Outcomes:
    waiting = deque(range(len(sources)))
    busy: dict[Any, tuple[int, Any]] = {}

    def give(actor: Any) -> None:
        if waiting:
            index = waiting.popleft()
            busy[actor.map.remote(index, sources[index], ear)] = index, actor

    for actor in actors:
        give(actor)
    while busy:
        ready, _ = ray.wait(list(busy), timeout=EVERY_S)
        for index, told in ray.get(ear.heard.remote()).items():
            tell(index, told)
        for reference in ready:
            index, actor = busy.pop(reference)
            yield index, _answer(ray, reference, sources[index])
            give(actor)


def _answer(ray: ModuleType, reference: Any, source: SceneSource) -> Outcome:
    try:
        found: Outcome = ray.get(reference)
    except ray.exceptions.RayActorError as error:
        return OutputFailed(
            f"{source.name}: the process that mapped it ended ({' '.join(str(error).split())}); the same command goes on with "
            "what it has done"
        )
    return found


def _actors(ray: ModuleType, order: Order, *, jobs: int) -> tuple[list[Any], Any]:
    """Those who map, and the one who hears how far they are."""
    machines = [Machine.of(node) for node in ray.nodes() if node["Alive"]]
    gpus = 1 if order.device != "cpu" and sum(machine.gpus for machine in machines) >= jobs else 0
    if order.device not in (None, "cpu") and not gpus:
        raise ConfigError(f"{jobs} jobs were to be on {order.device}, and the cluster has fewer GPUs; make --jobs smaller")
    processors = processors_each(machines, jobs=jobs, gpus=gpus)
    config = order.config if order.config.workers is not None else replace(order.config, workers=1 if gpus else processors)
    aoi = None if config.aoi is None else SceneSource(name="", stem="", path=config.aoi).from_anywhere().path
    theirs = replace(order, out=order.out.absolute(), config=replace(config, aoi=aoi), device="cuda" if gpus else order.device)
    mapper = ray.remote(num_cpus=processors, num_gpus=gpus, max_restarts=-1)(Mapper)
    return [mapper.remote(theirs) for _ in range(jobs)], ray.remote(num_cpus=0)(Ear).remote()


class Mapper:
    """Maps one scene after the other."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._predictor: Predictor | None = None

    def ready(self) -> TerraleanError | None:
        """Open the model; what is wrong with it."""
        try:
            self._predictor = self._order.load(device=self._order.device)
        except TerraleanError as error:
            return error
        return None

    def map(self, index: int, source: SceneSource, ear: Any) -> Outcome:
        """A map, or what was wrong with the scene."""
        if self._predictor is None:  # started again
            self._predictor = self._order.load(device=self._order.device)

        def tell(told: Progress) -> None:
            ear.hear.remote(index, told)

        return outcome(self._predictor, source, out=self._order.out, config=self._order.config, progress=tell)


class Ear:
    """Hears how far maps are."""

    def __init__(self) -> None:
        self._last: dict[int, Progress] = {}

    def hear(self, index: int, told: Progress) -> None:
        """The last counts."""
        self._last[index] = told

    def heard(self) -> dict[int, Progress]:
        """What is new."""
        last, self._last = self._last, {}
        return last


def _check(error: TerraleanError | None) -> None:
    if error is not None:
        raise error


def _ray() -> ModuleType:
    try:
        return import_module("ray")
    except ImportError as error:
        raise MissingExtra("--cluster needs ray, which is not installed; pip install 'terralean[cluster]'") from error


@contextmanager
def _connected(ray: ModuleType, address: str) -> Iterator[None]:
    """A cluster that is there, or one of this machine's own for as long as it is needed."""
    if ray.is_initialized():
        yield
        return
    try:
        own = {"include_dashboard": False} if address == LOCAL else {}
        ray.init(address=address, logging_level=logging.WARNING, **own)
    except ConnectionError as error:
        raise ConfigError(
            f"no Ray cluster answers at {address!r} ({error}); start one with ray start --head, or say --cluster local"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
