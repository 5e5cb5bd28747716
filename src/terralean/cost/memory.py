"""Peak memory of one call, and of a stretch of work."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

STATUS, RESET, SYSTEM = Path("/proc/self/status"), Path("/proc/self/clear_refs"), Path("/proc/meminfo")
GROUP_LIMITS = (  # of a container: the most it may hold, and what it holds
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
KEPT_FREE = 0.05  # of what is available, for others and for what is not counted


def peak_memory(call: Callable[[], object], *, device: torch.device) -> int | None:
    """Bytes that `call` held at its peak beyond what was held before: activations and its result, weights not.

    On CUDA the allocator says. On a CPU it is the growth of the process' resident memory, after freed memory has been given
    back to the system; None where the system (not Linux with glibc) cannot say. Libraries keep scratch memory between calls:
    what a first call leaves behind is not in a second call's growth, so call once before.
    """
    return _peak_on_cuda(call, device) if device.type == "cuda" else _peak_of_process(call)


def process_bytes() -> int | None:
    """Memory that this process holds now; None where the system (not Linux) cannot say."""
    return _field_bytes(STATUS, "VmRSS") if STATUS.is_file() else None


def restart_peak(device: torch.device) -> bool:
    """Forget the most memory held so far, so that `peak_since` tells of what follows. False where that cannot be done."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    return _reset_peak()


def peak_since(device: torch.device) -> int:
    """The most bytes held at once since a `restart_peak` that was True: by tensors on CUDA, else by the whole process."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _field_bytes(STATUS, "VmHWM")


@contextmanager
def keep_within_memory() -> Iterator[None]:
    """Within it this process cannot take more memory than the system has left when it starts: an allocation that would raises.

    Otherwise Linux grants it and later kills a process. Where the system (not Linux) cannot say, nothing is changed.
    """
    if not (STATUS.is_file() and SYSTEM.is_file()):
        yield
        return
    import resource  # noqa: PLC0415 - Unix only

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _field_bytes(STATUS, "VmData") + int((1 - KEPT_FREE) * available_bytes())
    resource.setrlimit(resource.RLIMIT_DATA, (limit if soft == resource.RLIM_INFINITY else min(limit, soft), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def give_back_freed() -> bool:
    """Have the C library return memory that is no longer used to the system. False where it cannot (not Linux with glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if STATUS.is_file() else None
    if trim is None:
        return False
    trim(0)
    return True


def available_bytes() -> int:
    """Memory that Linux can still give to this process without swapping, its container's limit considered."""
    left = [_field_bytes(SYSTEM, "MemAvailable")]
    for most, held in GROUP_LIMITS:
        if most.is_file() and most.read_text().strip() != "max":
            left.append(int(most.read_text()) - int(held.read_text()))
    return max(0, min(left))


def _peak_on_cuda(call: Callable[[], object], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _peak_of_process(call: Callable[[], object]) -> int | None:
    if not give_back_freed() or not _reset_peak():
        return None
    before = _field_bytes(STATUS, "VmRSS")
    call()
    return max(0, _field_bytes(STATUS, "VmHWM") - before)


def _reset_peak() -> bool:
    try:
        RESET.write_text("5")  # proc(5): the peak resident size becomes the current one
    except OSError:
        return False
    return True


def _field_bytes(path: Path, field: str) -> int:
    line = next(line for line in path.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
