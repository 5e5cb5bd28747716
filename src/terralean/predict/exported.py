"""A graph of another runtime at work, given images of the sizes that it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from terralean.errors import BandMismatch, SizeError
from terralean.predict.artefact import Artefact, RuntimeName
from terralean.predict.onnx_runtime import open_onnx
from terralean.predict.openvino_runtime import open_openvino
from terralean.predict.runtime import Session
from terralean.predict.torch_export import open_torch

Open = Callable[..., Session]  # of an artefact, on a device
OPEN: Mapping[RuntimeName, Open] = {"onnxruntime": open_onnx, "openvino": open_openvino, "torch": open_torch}


class Exported:
    """A graph of an artefact. Called by several threads at once."""

    def __init__(self, session: Session, artefact: Artefact) -> None:
        self.session, self.artefact = session, artefact

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.session.device

    def __call__(self, image: Tensor, valid: Tensor) -> Tensor:
        """image (B, C, H, W) in the units of the card's bands, valid (B, H, W) -> probabilities, float32 on the CPU.

        Of pixels (B, K, H, W), or of whole images (B, K) where that is the model's task. A fixed number of images is filled up.
        """
        self._check(image)
        image, valid = image.to("cpu", torch.float32).contiguous(), valid.to("cpu").contiguous()
        batch = self.artefact.manifest.fixed.get("batch")
        if batch is None:
            return self.session(image, valid)
        parts = zip(image.split(batch), valid.split(batch), strict=True)
        return torch.cat([self.session(*_filled(i, v, batch=batch))[: len(i)] for i, v in parts])

    def content(self) -> Iterator[tuple[str, bytes]]:
        """The checksums of the graph's files, by name."""
        for name, found in sorted(self.artefact.manifest.files.items()):
            yield name, found.encode()

    def _check(self, image: Tensor) -> None:
        folder, bands = self.artefact.folder, len(self.artefact.card.bands)
        if image.shape[1] != bands:
            raise BandMismatch(f"{folder} takes {bands} bands, got {image.shape[1]}")
        for axis, size in (("height", image.shape[2]), ("width", image.shape[3])):
            self._check_side(axis, size)

    def _check_side(self, axis: str, size: int) -> None:
        folder, manifest = self.artefact.folder, self.artefact.manifest
        fixed = {str(name): px for name, px in manifest.fixed.items()}.get(axis)
        if fixed is not None and size != fixed:
            raise SizeError(
                f"{folder} was exported with a fixed {axis} of {fixed} px, got {size}; use --tile {fixed}, or export the run "
                f"again with --tile {size}"
            )
        if fixed is None and (size < manifest.least_px or size % manifest.step_px):
            steps = f" in steps of {manifest.step_px} px" if manifest.step_px > 1 else ""
            raise SizeError(
                f"{folder} takes a {axis} from {manifest.least_px} px{steps}, got {size}; use --tile {manifest.tile_px}"
            )


def open_graph(artefact: Artefact, *, device: torch.device | None) -> Exported:
    """What runs the graph of an artefact; `device` None: CUDA where the runtime has it, else the CPU.

    Raises MissingExtra where the runtime is not installed, ConfigError for a device that it does not have, RunError for a file
    that it cannot read.
    """
    return Exported(OPEN[artefact.manifest.runtime](artefact, device=device), artefact)


def _filled(image: Tensor, valid: Tensor, *, batch: int) -> tuple[Tensor, Tensor]:
    """With images of zeros behind, none of whose pixels is valid."""
    missing = batch - len(image)
    if not missing:
        return image, valid
    image = torch.cat([image, image.new_zeros(missing, *image.shape[1:])])
    return image, torch.cat([valid, valid.new_zeros(missing, *valid.shape[1:])])
