"""PyTorch executes a graph that torch.export wrote."""

from __future__ import annotations

import json
import zipfile

import torch
from torch import Tensor, nn

from terralean.errors import RunError
from terralean.predict.artefact import Artefact
from terralean.predict.runtime import check_ends


def open_torch(artefact: Artefact, *, device: torch.device | None) -> TorchSession:
    """The graph of an artefact on a device, by default CUDA where there is one, else the CPU."""
    place = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    check_no_code(artefact)
    try:
        program = torch.export.load(artefact.graph)
    except (RuntimeError, ValueError, KeyError, AssertionError) as error:
        raise RunError(
            f"{artefact.graph} cannot be read by torch {torch.__version__}: {error}; export the run again with this version"
        ) from error
    result = program.graph_signature.user_outputs[0]
    shapes = {node.name: node.meta["val"].shape for node in program.graph.nodes if node.name in ("image", result)}
    classes = shapes[str(result)][1]
    check_ends(artefact, bands=int(shapes["image"][1]), classes=classes if isinstance(classes, int) else None)
    if place.type != "cpu":
        from torch.export.passes import move_to_device_pass  # noqa: PLC0415 - takes its time, and only GPUs need it

        program = move_to_device_pass(program, place)
    return TorchSession(program.module(), place)


class TorchSession:
    """A program; it holds nothing between calls."""

    def __init__(self, program: nn.Module, device: torch.device) -> None:
        self.program, self.device = program, device

    @torch.inference_mode()
    def __call__(self, image: Tensor, valid: Tensor) -> Tensor:
        """As `Session`."""
        return self.program(image.to(self.device), valid.to(self.device)).cpu()


def check_no_code(artefact: Artefact) -> None:
    """RunError where the archive holds pickled objects: reading these runs whatever was put into them."""
    try:
        with zipfile.ZipFile(artefact.graph) as archive:
            names = [name for name in archive.namelist() if name.endswith("_config.json")]
            told = {name: json.loads(archive.read(name)) for name in names}
    except (zipfile.BadZipFile, json.JSONDecodeError, KeyError) as error:
        raise RunError(f"{artefact.graph} is no archive of torch.export ({error}); export the run again") from error
    pickled = sorted(key for one in told.values() for key, entry in one.get("config", {}).items() if entry.get("use_pickle"))
    if pickled:
        raise RunError(
            f"{artefact.graph} holds pickled objects ({', '.join(pickled[:3])}), which run code when they are read; export the "
            "run again"
        )
