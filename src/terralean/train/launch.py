"""Start the processes that train together on this machine, and end together with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist

COMMAND = (sys.executable, "-m", "terralean.cli")
HOST = "127.0.0.1"
BROKEN_OFF_S = 5.0  # for the others to notice that one is gone, and to end by themselves
ENDED_S = 10.0  # for one that was asked to end
LOOK_S = 0.1
MISTAKE = 2  # exit status of a mistake of the user


def start(count: int, arguments: Sequence[str]) -> int:
    """Run `terralean` with these arguments in `count` processes, under what torchrun would set. Returns the exit status.

    Where one process fails, all end.
    """
    store = dist.TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
    workers: list[subprocess.Popen[bytes]] = []
    with _ended_by_signal():
        try:
            for rank in range(count):
                # In groups of their own, as Ctrl-C is for this process, which ends them.
                workers.append(
                    subprocess.Popen([*COMMAND, *arguments], env=_environment(count, rank, port=store.port), process_group=0)
                )
            return _wait(workers)
        finally:
            _end(workers)


def status(codes: Sequence[int]) -> int:
    """Exit status for those of all processes (negative: the signal that ended one): the one that says most."""
    failed = [128 - code if code < 0 else code for code in codes if code]
    # A process that fails by itself takes others with it; a mistake's status is the mildest they can have.
    return max(failed, key=lambda code: (code != MISTAKE, code), default=0)


def _environment(count: int, rank: int, *, port: int) -> dict[str, str]:
    own = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count,
        "GROUP_RANK": 0,
        "MASTER_ADDR": HOST,
        "MASTER_PORT": port,
        "TORCHELASTIC_USE_AGENT_STORE": True,  # the store is here, so that no port is chosen before it is taken
        "TORCHELASTIC_RESTART_COUNT": 0,
    }
    # Without it DDP warns in every process that it looked for parameters without a gradient and found none.
    quiet = {"TORCH_CPP_LOG_LEVEL": "ERROR"}
    return quiet | os.environ | {name: str(value) for name, value in own.items()}


def _wait(workers: Sequence[subprocess.Popen[bytes]]) -> int:
    """Status when all have ended, or some while after one has failed."""
    deadline = float("inf")
    while any(worker.poll() is None for worker in workers) and time.monotonic() < deadline:
        if deadline == float("inf") and any(worker.poll() for worker in workers):
            deadline = time.monotonic() + BROKEN_OFF_S
        time.sleep(LOOK_S)
    return status([worker.poll() or 0 for worker in workers])


def _end(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        worker.terminate()
    for worker in workers:
        try:
            worker.wait(timeout=ENDED_S)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """The signals that would end this process at once end its children first."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}  # as nohup has it
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
