"""What the processes that train together tell one another: results, mistakes, and whether they do the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

from terralean.errors import RunError, Stopped, TerraleanError
from terralean.train.processes import Processes, cluster

T = TypeVar("T")
PATIENCE = timedelta(minutes=30)  # that one process waits for another, which may have more files to read
MOST = 6  # differences that a message lists
FAILED = "failed"


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Word between the processes of a run; where there is one, it has nobody to tell."""

    names: tuple[str, ...]  # of the processes, by rank
    rank: int
    store: dist.Store | None  # None: one process

    def every(self, action: Callable[[], T]) -> T:
        """Do it in every process. Each gets its own result; where one makes a mistake, all stop."""
        if self.store is None:
            return action()
        value, error = _attempt(action)
        self._settle(_gather(error))
        return cast(T, value)

    def first(self, action: Callable[[], T]) -> T:
        """Do it in the first process, while the others wait. All get its result, or stop with its mistake."""
        if self.store is None:
            return action()
        told = _gather(_attempt(action) if self.rank == 0 else (None, None))
        self._settle([told[0][1]])
        return cast(T, told[0][0])

    def compare(self, facts: Mapping[str, object]) -> None:
        """Stop all where one process has another value of a fact than the first."""
        if self.store is None:
            return
        told = _gather({name: str(value) for name, value in facts.items()})
        lines = [line for name in facts for line in self._differences(name, [fact[name] for fact in told])]
        if lines:
            lines[MOST:] = [f"and {len(lines) - MOST} more"] if len(lines) > MOST else []
            self._stop(
                RunError("\n  ".join(["the processes would not train the same:", *lines]) + "\ngive all processes the same")
            )

    @contextmanager
    def telling(self) -> Iterator[None]:
        """While they train: where one fails, the others wait for it in vain and break off; they need not say how."""
        done = False
        try:
            yield
            done = True
        except RuntimeError:
            if self.store is not None and _marked(self.store):
                raise Stopped("another process failed, and says why") from None
            raise
        finally:
            if self.store is not None and not done:
                with suppress(RuntimeError):  # the store may have gone with the process that failed
                    self.store.set(FAILED, self.names[self.rank])

    def _settle(self, errors: Sequence[TerraleanError | None]) -> None:
        failed = [(rank, error) for rank, error in enumerate(errors) if error is not None]
        if not failed:
            return
        rank, error = failed[0]
        alike = len({str(error) for error in errors}) == 1
        self._stop(error if alike else type(error)(f"{self.names[rank]}: {error}"))

    def _stop(self, error: TerraleanError) -> None:
        """Raise in all: the first process says why."""
        raise error if self.rank == 0 else Stopped(f"{self.names[0]} says why")

    def _differences(self, name: str, values: Sequence[str]) -> list[str]:
        other = [rank for rank, value in enumerate(values) if value != values[0]]
        return [f"{name}: {values[0]} in {self.names[0]}, {values[rank]} in {self.names[rank]}" for rank in other[:1]]


@contextmanager
def joined(processes: Processes) -> Iterator[Group]:
    """The group of these processes, from where all have come together until this one leaves."""
    if processes.count == 1:
        yield Group(names=(processes.name,), rank=0, store=None)
        return
    place = cluster(processes.launcher)
    address = {"MASTER_ADDR": place.main_address, "MASTER_PORT": str(place.main_port)}
    os.environ.update(address, RANK=str(processes.rank), WORLD_SIZE=str(processes.count))
    if processes.device.type == "cuda":
        torch.cuda.set_device(processes.device)
    meeting = _meet()
    # A process may train several runs, one after the other: of each the words are its own.
    store = dist.PrefixStore(f"run {meeting.add(processes.name, 1)}", meeting)
    backend = "nccl" if processes.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=processes.rank, world_size=processes.count, timeout=PATIENCE)
    try:
        yield Group(names=tuple(_gather(processes.name)), rank=processes.rank, store=store)
    finally:
        dist.destroy_process_group()


@cache
def _meet() -> dist.Store:
    """Where processes find one another; once, as a second meeting at the same place could find those who left the first."""
    return next(dist.rendezvous("env://", timeout=PATIENCE))[0]


def _gather(value: Any) -> list[Any]:
    told: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(told, value)
    return told


def _attempt(action: Callable[[], T]) -> tuple[T | None, TerraleanError | None]:
    try:
        return action(), None
    except TerraleanError as error:
        return None, error


def _marked(store: dist.Store) -> bool:
    try:
        return store.check([FAILED])
    except RuntimeError:
        return False
