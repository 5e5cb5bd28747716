"""How many processes train together, which of them this one is, and on what device."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.strategies import DDPStrategy, Strategy

from terralean.errors import ConfigError
from terralean.predict.predictor import choose_device
from terralean.train.course import Batched
from terralean.train.experiments import AnyExperiment

Launcher = Literal["torchrun", "srun"]
TORCHRUN = frozenset({"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"})
# Of the step, not of the job: a batch script sees SLURM_NTASKS too, and is one process all the same.
SRUN = frozenset({"SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Processes:
    """The processes of a training run, seen from one of them."""

    device: torch.device  # of this one
    count: int = 1
    rank: int = 0  # of this one among all
    here: int = 1  # of them on this machine
    launcher: Launcher | None = None  # who started them; None: nobody yet, or there is one

    @property
    def to_start(self) -> bool:
        """Whether there shall be more than the one that asks."""
        return self.count > 1 and self.launcher is None

    @property
    def name(self) -> str:
        """What a message calls this one."""
        return f"process {self.rank} on {socket.gethostname()}"


def find_processes(device: str | None, devices: int | None, *, environment: Mapping[str, str], gpus: int) -> Processes:
    """The processes that torchrun or srun started, else as many as `devices` says, one where it says nothing.

    `gpus`: how many this machine has. Raises ConfigError where they are not there, or where `devices` says other than who
    started the processes.
    """
    if devices is not None and devices < 1:
        raise ConfigError(f"--devices must be 1 or more, got {devices}")
    started = _started(environment)
    if started is not None and devices not in (None, started.count):
        raise ConfigError(f"--devices is {devices}, but {started.launcher} started {started.count} processes; leave it out")
    count = started.count if started is not None else devices or 1
    if count == 1:
        return Processes(device=choose_device(device))
    found = started or _Started(launcher=None, count=count, rank=0, here=count, index=0)
    chosen = _device(device, found, gpus=gpus)
    return Processes(device=chosen, count=count, rank=found.rank, here=found.here, launcher=found.launcher)


def check_count(experiment: AnyExperiment, count: int) -> None:
    """Raise ConfigError unless so many processes can train it."""
    if experiment.train is not None:
        share_of_batch(experiment.train, count=count)
    elif count > 1:
        raise ConfigError(f"a forest is fitted by one process, not by {count}; leave out --devices and torchrun")


def share_of_batch(config: Batched, *, count: int) -> int:
    """Crops that each of `count` processes works through at once. Raises ConfigError where they cannot have equal shares."""
    parts = count * config.accumulate
    if config.batch % parts:
        below, above = config.batch // parts * parts, -(-config.batch // parts) * parts
        fitting = f"{below} or {above}" if below else f"{above}"
        raise ConfigError(
            f"train.batch {config.batch} cannot be dealt out evenly to {count} processes in {config.accumulate} parts each "
            f"(train.accumulate); with {fitting} it can"
        )
    return config.batch // parts


def strategy(processes: Processes) -> Strategy | Literal["auto"]:
    """How Lightning trains: with one process as it likes, with more by averaging their gradients."""
    if processes.count == 1:
        return "auto"
    backend = "nccl" if processes.device.type == "cuda" else "gloo"
    # Which parameters a loss depends on may change from step to step, as where tokens are dropped.
    return DDPStrategy(process_group_backend=backend, find_unused_parameters=True)


def devices(processes: Processes) -> int | list[int]:
    """What Lightning calls devices: how many on this machine, or for one process on a GPU which."""
    alone = processes.count == 1 and processes.device.type == "cuda"
    return [processes.device.index or 0] if alone else processes.here


def cluster(launcher: Launcher | None) -> ClusterEnvironment:
    """Where Lightning reads ranks and addresses. Named, as what it would guess in a batch script of SLURM is wrong."""
    if launcher == "srun":
        return SLURMEnvironment(auto_requeue=False)  # the same command goes on anyhow
    return TorchElasticEnvironment() if launcher == "torchrun" else LightningEnvironment()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Started:
    launcher: Launcher | None
    count: int
    rank: int
    here: int
    index: int  # of this process on this machine


def _started(environment: Mapping[str, str]) -> _Started | None:
    """What the launcher wrote into the environment; None where it started only this process, or there is none."""
    if environment.keys() >= TORCHRUN:
        names = ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK")
        count, rank, here, index = (int(environment[name]) for name in names)
        found = _Started(launcher="torchrun", count=count, rank=rank, here=here, index=index)
    elif environment.keys() >= SRUN:
        count, rank, index = (int(environment[name]) for name in ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"))
        here = int(environment.get("SLURM_NTASKS_PER_NODE", 0))
        if count > 1 and not here:
            raise ConfigError(f"srun started {count} tasks by --ntasks; say how many with --nodes and --ntasks-per-node")
        found = _Started(launcher="srun", count=count, rank=rank, here=here, index=index)
    else:
        return None
    return found if found.count > 1 else None


def _device(name: str | None, found: _Started, *, gpus: int) -> torch.device:
    """The device of one of several processes."""
    kind = name if name is not None else ("cuda" if gpus else "cpu")
    if kind not in ("cpu", "cuda"):
        raise ConfigError(
            f"--device {name} cannot be shared by {found.count} processes; use cuda, which gives each a GPU, or cpu"
        )
    if kind == "cpu":
        return torch.device("cpu")
    if found.here > gpus:
        raise ConfigError(_too_few(found, gpus))
    return torch.device("cuda", found.index)


def _too_few(found: _Started, gpus: int) -> str:
    has = f"this machine ({socket.gethostname()}) has {gpus}"
    if found.launcher is None:
        return f"--devices {found.count} asks for {found.count} GPUs, {has}; ask for fewer, or use --device cpu"
    hint = ", and give GPUs to nodes (--gpus-per-node), not to tasks" if found.launcher == "srun" else ""
    return (
        f"{found.launcher} started {found.here} processes that need a GPU each, {has}; start fewer{hint}, or use --device cpu"
    )
