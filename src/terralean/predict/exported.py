"""Graphs of another runtime at work, given images of the sizes that they take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from terralean.boxes.detected import Detected
from terralean.boxes.two_looks import best_proposals, sure_detections
from terralean.errors import BandMismatch, SizeError
from terralean.predict.artefact import MAPS, Artefact, RuntimeName
from terralean.predict.onnx_runtime import open_onnx
from terralean.predict.openvino_runtime import open_openvino
from terralean.predict.runtime import Session, feeds
from terralean.predict.torch_export import open_torch

Open = Callable[..., Session]  # of an artefact, a part of it, on a device
OPEN: Mapping[RuntimeName, Open] = {"onnxruntime": open_onnx, "openvino": open_openvino, "torch": open_torch}


TOGETHER = 256  # proposals looked at at once: what is read of the maps is 16 times what is kept


class Exported:
    """The graphs of an artefact. Called by several threads at once."""

    def __init__(self, sessions: Sequence[Session], artefact: Artefact) -> None:
        self.sessions, self.artefact = tuple(sessions), artefact

    @property
    def device(self) -> torch.device:
        """Where they run."""
        return self.sessions[0].device

    def __call__(self, image: Tensor, valid: Tensor) -> Tensor:
        """image (B, C, H, W) in the units of the card's bands, valid (B, H, W) -> probabilities, float32 on the CPU.

        Of pixels (B, K, H, W), or of whole images (B, K) where that is the model's task. A fixed number of images is filled up.
        """
        (found,) = self._first(image, valid)
        return found.cpu()

    def detect(self, image: Tensor, valid: Tensor) -> list[Detected]:
        """Of a detector: oriented boxes in px of each image, float32 on the CPU."""
        candidates, logits, level, *maps = self._first(image, valid)
        return [
            self._second(candidates[i], logits[i], level[i], [values[i : i + 1] for values in maps]) for i in range(len(image))
        ]

    def content(self) -> Iterator[tuple[str, bytes]]:
        """The checksums of the graph's files, by name."""
        for name, found in sorted(self.artefact.manifest.files.items()):
            yield name, found.encode()

    def judged(self, proposals: Tensor, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Proposals (R, 5) and the four maps (1, C, h, w) of an image -> probabilities (R, K) and boxes (R, 5)."""
        if not len(proposals):  # runtimes do not agree on what to make of nothing
            return proposals.new_zeros(0, len(self.artefact.card.classes)), proposals
        given = dict(zip(MAPS, maps, strict=True))
        each = [self.sessions[1]({"proposals": some, **given}) for some in proposals.split(TOGETHER)]
        probabilities, boxes = (torch.cat(some) for some in zip(*each, strict=True))
        return probabilities, boxes

    def _first(self, image: Tensor, valid: Tensor) -> tuple[Tensor, ...]:
        """All that the first graph gives."""
        self._check(image)
        image, valid = image.to("cpu", torch.float32).contiguous(), valid.to("cpu").contiguous()
        first, batch = self.sessions[0], self.artefact.manifest.fixed.get("batch")
        if batch is None:
            return first(feeds(self.artefact, image, valid))
        parts = zip(image.split(batch), valid.split(batch), strict=True)
        each = [[out[: len(i)] for out in first(feeds(self.artefact, *_filled(i, v, batch=batch)))] for i, v in parts]
        return tuple(torch.cat(some) for some in zip(*each, strict=True))

    def _second(self, candidates: Tensor, logits: Tensor, level: Tensor, maps: Sequence[Tensor]) -> Detected:
        """What an image (1, ...) shows where something is proposed."""
        told = self.artefact.manifest.suppression
        assert told is not None, "read_artefact makes sure of it"
        chosen = best_proposals(candidates, logits, level, hull_iou=told.hull_iou, most=told.proposals)
        found = sure_detections(*self.judged(chosen, maps), score=told.score, iou=told.iou, most=told.detections)
        return Detected(*(tensor.cpu() for tensor in found))

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
    """What runs the graphs of an artefact; `device` None: CUDA where the runtime has it, else the CPU.

    Raises MissingExtra where the runtime is not installed, ConfigError for a device that it does not have, RunError for a file
    that it cannot read.
    """
    opens = OPEN[artefact.manifest.runtime]
    return Exported([opens(artefact, part, device=device) for part in artefact.parts], artefact)


def _filled(image: Tensor, valid: Tensor, *, batch: int) -> tuple[Tensor, Tensor]:
    """With images of zeros behind, none of whose pixels is valid."""
    missing = batch - len(image)
    if not missing:
        return image, valid
    image = torch.cat([image, image.new_zeros(missing, *image.shape[1:])])
    return image, torch.cat([valid, valid.new_zeros(missing, *valid.shape[1:])])
