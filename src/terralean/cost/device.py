"""What a device is called."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

PROCESSORS = Path("/proc/cpuinfo")


def device_name(device: torch.device) -> str:
    """A GPU's or a processor's, as its maker calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = PROCESSORS.read_text().splitlines() if PROCESSORS.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def device_words(device: torch.device) -> str:
    """A GPU's name, or a processor's with the threads that work."""
    if device.type == "cuda":
        return device_name(device)
    threads = torch.get_num_threads()
    return f"{device_name(device)}, {threads} thread{'' if threads == 1 else 's'}"
