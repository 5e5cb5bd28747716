"""PyTorch executes a graph that torch.export wrote."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from terralean.errors import RunError
from terralean.predict.artefact import Artefact, Part
from terralean.predict.runtime import check_ends


def open_torch(artefact: Artefact, part: Part, *, device: torch.device | None) -> TorchSession:
    """A graph of an artefact on a device, by default CUDA where there is one, else the CPU."""
    place = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    path = artefact.graph(part)
    check_no_code(path)
    try:
        program = torch.export.load(path)
    except (RuntimeError, ValueError, KeyError, AssertionError) as error:
        raise RunError(
            f"{path} cannot be read by torch {torch.__version__}: {error}; export the run again with this version"
        ) from error
    signature, shapes = program.graph_signature, {node.name: node.meta.get("val") for node in program.graph.nodes}
    ends = {**dict(zip(part.inputs, signature.user_inputs)), **dict(zip(part.outputs, signature.user_outputs))}  # noqa: B905
    bands, classes = (_size(shapes.get(str(ends.get(name)))) for name in ("image", "probabilities"))
    check_ends(artefact, part, bands=bands, classes=classes)
    if place.type != "cpu":
        from torch.export.passes import move_to_device_pass  # noqa: PLC0415 - takes its time, and only GPUs need it

        program = move_to_device_pass(program, place)
    return TorchSession(program.module(), part, place)


class TorchSession:
    """A program; it holds nothing between calls."""

    def __init__(self, program: nn.Module, part: Part, device: torch.device) -> None:
        self.program, self.part, self.device = program, part, device

    @torch.inference_mode()
    def __call__(self, given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """As `Session`."""
        found = self.program(*(given[name].to(self.device) for name in self.part.inputs))
        return (found,) if isinstance(found, Tensor) else tuple(found)


def check_no_code(path: Path) -> None:
    """RunError where the archive holds pickled objects: reading these runs whatever was put into them."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("_config.json")]
            told = {name: json.loads(archive.read(name)) for name in names}
    except (zipfile.BadZipFile, json.JSONDecodeError, KeyError) as error:
        raise RunError(f"{path} is no archive of torch.export ({error}); export the run again") from error
    pickled = sorted(key for one in told.values() for key, entry in one.get("config", {}).items() if entry.get("use_pickle"))
    if pickled:
        raise RunError(
            f"{path} holds pickled objects ({', '.join(pickled[:3])}), which run code when they are read; export the run again"
        )


def _size(value: object) -> int | None:
    """Of the second axis of a traced tensor; None where it is free."""
    shape = value.shape if isinstance(value, Tensor) else ()
    return shape[1] if len(shape) > 1 and isinstance(shape[1], int) else None
