"""Files that torch.save wrote, read without running anything that they name.

Trainers put more than tensors into them: timm's the options that it was called with (an argparse.Namespace), mmengine's the
course of the losses. Objects of classes that torch does not know come back empty, so that the tensors beside them can be read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from terralean.errors import WeightsDoNotFit


class Unknown:
    """Stands for an object of whatever other class; what the file says of it is dropped."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def read_pickled(path: Path) -> Any:
    """What a file holds, its tensors on the CPU. Raises WeightsDoNotFit for what torch.save did not write."""
    try:
        with safe_globals([(Unknown, name) for name in _unknown_to_torch(path)]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not its own
        raise WeightsDoNotFit(
            f"{path} cannot be read as a checkpoint of tensors ({type(error).__name__}); give a .safetensors or .pth file"
        ) from error


def _unknown_to_torch(path: Path) -> list[str]:
    """Full names of classes and functions in the file that torch would not make an object of."""
    try:
        return get_unsafe_globals_in_checkpoint(path)
    except ValueError:  # the format before torch 1.6, or none
        return []
