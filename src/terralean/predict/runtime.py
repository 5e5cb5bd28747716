"""What an exported graph becomes when a library has opened it, and what all of these libraries are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor

from terralean.errors import MissingExtra, RunError
from terralean.predict.artefact import Artefact, Part

DEEPNESS = "deepness"  # a target whose graph takes values as that plugin gives them
BYTE = 255


class Session(Protocol):
    """A graph opened by a library. Called by several threads at once."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""

    def __call__(self, given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """All inputs of the graph by name, contiguous -> all its outputs, on the device or the CPU."""


def wanted(package: str, *, what: str) -> ModuleType:
    """A package of the extra `export`. MissingExtra where it is not installed."""
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingExtra(f"{what} needs {package}, which is not here ({error}); pip install 'terralean[export]'") from error


def check_ends(artefact: Artefact, part: Part, *, bands: int | None, classes: int | None) -> None:
    """RunError where the graph takes other bands or gives other classes than its card says.

    None: it does not tell, or is not the part that takes or gives them.
    """
    card, path = artefact.card, artefact.graph(part)
    for what, found, need in (("bands", bands, len(card.bands)), ("classes", classes, len(card.classes))):
        if found is not None and found != need:
            raise RunError(f"{path} has {found} {what}, the card beside it {need}; they are not of one export: export again")


def feeds(artefact: Artefact, image: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """The inputs of a graph by name."""
    return {"image": as_bytes(image, valid)} if artefact.manifest.target == DEEPNESS else {"image": image, "valid": valid}


def as_bytes(image: Tensor, valid: Tensor) -> Tensor:
    """As Deepness gives images, (B, C, H, W): divided by 255, whatever they are. It has no mask; NaN stands for nodata."""
    return image.masked_fill(~valid[:, None], torch.nan) / BYTE
