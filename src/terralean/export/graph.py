"""A network with all that stands around it in prediction, as one graph: raw band values in, probabilities out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from terralean.errors import ConfigError
from terralean.layers.pooling import between
from terralean.predict.artefact import Axis
from terralean.predict.normalise import Normalise, enlarge
from terralean.weights.card import Card

log = logging.getLogger(__name__)

MOST = 1 << 16  # of an axis that is free
WIDER_PX = 32
BYTE = 255
SUPPORT = 2.0  # half the width of the cubic kernel
A = -0.5  # its slope, as in Pillow's and torch's antialiased resizing


class Graph(nn.Module):
    """image (B, C, H, W) float32 as stored, valid (B, H, W) bool -> probabilities float32.

    Of pixels (B, K, H, W), or of whole images (B, K) where the card's task is classification; these are resized inside.
    """

    def __init__(self, network: nn.Module, card: Card, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network.to(dtype)
        self.normalise = Normalise(card.normalisation, shrink=card.shrink)
        self.shrink, self.temperature, self.dtype = card.shrink, card.temperature, dtype
        self.whole = card.task == "classification"
        self.seen_px = card.seen_px

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:
        """As the class says."""
        seen = self.normalise(image, valid)
        if self.whole and self.seen_px is not None:
            seen = resized_by_products(seen, side_px=self.seen_px)
        scores = self.network(seen.to(self.dtype)).float()
        if not self.whole:
            scores = enlarge(scores, shrink=self.shrink, height=image.shape[2], width=image.shape[3])
        return (scores / self.temperature).softmax(dim=1)


class BytesGraph(nn.Module):
    """image (B, C, H, W), values divided by 255 whatever they are -> probabilities; NaN stands for nodata.

    Programs that know 8-bit images only divide so.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.inner = graph  # not `graph`: that is what programs have

    def forward(self, image: Tensor) -> Tensor:
        """As the class says."""
        valid = (image == image).all(dim=1)  # noqa: PLR0124 - NaN differs from itself, in every runtime
        return self.inner(image * BYTE, valid)


class Free(NamedTuple):
    """Axes that a program may have any size of."""

    axes: tuple[Axis, ...] = ("batch", "height", "width")
    step_px: int = 1  # height and width are multiples of it
    least_px: int = 1

    def takes(self, tile_px: int) -> bool:
        """Whether a tile of this side is among the sizes."""
        return "height" not in self.axes or (tile_px >= self.least_px and tile_px % self.step_px == 0)


ONLY_BATCH, NOTHING = Free(("batch",)), Free(())


class Traced(NamedTuple):
    """A program, and which of its axes are not free."""

    program: ExportedProgram
    free: Free
    fixed: dict[Axis, int]
    refusal: str | None  # why no more axes are free


def trace(graph: nn.Module, *, bands: int, tile_px: int, wanted: Sequence[Free]) -> Traced:
    """The program with the first of these sets of axes free that the graph allows.

    Raises ConfigError where it cannot be written as a program at all.
    """
    refusals: list[str] = []
    for free in wanted:
        if not free.takes(tile_px):
            refusals.append(f"{tile_px} px is no multiple of {free.step_px} px from {free.least_px} px")
            continue
        example = _example(free, bands=bands, tile_px=tile_px)
        try:
            program = _program(graph, example, free)
        except Exception as error:  # what a network does that cannot be traced has no common class
            refusals.append(_told(error))
            log.debug("free %s: %s", ", ".join(free.axes) or "none", error)
            continue
        return Traced(program, free, example.fixed(free), refusals[0] if refusals else None)
    raise ConfigError(f"this network cannot be written as a graph for {tile_px} px: {refusals[-1]}")


def _program(graph: nn.Module, example: Example, free: Free) -> ExportedProgram:
    image = torch.zeros(example)
    valid = torch.ones(example.batch, example.height, example.width, dtype=torch.bool)
    dims = _dims(free)
    of_image = {at: dims[axis] for at, axis in ((0, "batch"), (2, "height"), (3, "width")) if axis in dims}
    of_valid = {at: dims[axis] for at, axis in ((0, "batch"), (1, "height"), (2, "width")) if axis in dims}
    alone = isinstance(graph, BytesGraph)
    with torch.no_grad():
        return torch.export.export(
            graph,
            (image,) if alone else (image, valid),
            dynamic_shapes=(of_image,) if alone else (of_image, of_valid),
            strict=False,
        )


class Example(NamedTuple):
    """The shape that a graph is traced with."""

    batch: int
    bands: int
    height: int
    width: int

    def fixed(self, free: Free) -> dict[Axis, int]:
        """Sizes of the axes that are not free."""
        sizes: dict[Axis, int] = {"batch": self.batch, "height": self.height, "width": self.width}
        return {axis: size for axis, size in sizes.items() if axis not in free.axes}


def _example(free: Free, *, bands: int, tile_px: int) -> Example:
    """Free axes have sizes of their own, so that none is taken for another."""
    wider = tile_px + free.step_px * (-(-WIDER_PX // free.step_px)) if "width" in free.axes else tile_px
    return Example(2 if "batch" in free.axes else 1, bands, tile_px, wider)


def _dims(free: Free) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for axis in free.axes:
        if axis == "batch":
            found[axis] = Dim(axis, min=1, max=MOST)
        elif free.step_px == 1:
            found[axis] = Dim(axis, min=free.least_px, max=MOST)
        else:
            found[axis] = free.step_px * Dim(f"{axis}_steps", min=-(-free.least_px // free.step_px), max=MOST)
    return found


def _told(error: Exception) -> str:
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip(" -")]
    return lines[0] if lines else type(error).__name__


def resized_by_products(seen: Tensor, *, side_px: int) -> Tensor:
    """What `resized` gives, as two products: no two runtimes agree on antialiased resizing, on these they do.

    seen (B, C, H, W) -> (B, C, S, S).
    """
    rows, columns = (_resizing(seen.shape[axis], side_px=side_px, like=seen) for axis in (2, 3))
    return between(rows, seen, columns)


def _resizing(length: int, *, side_px: int, like: Tensor) -> Tensor:
    """(S, length): with which weights each new pixel is made of the old ones, rows summing to one."""
    before = torch.arange(length, device=like.device, dtype=like.dtype) + 0.5
    step = torch.full((), length, device=like.device, dtype=like.dtype) / side_px  # a number would be frozen by the trace
    middle = (torch.arange(side_px, device=like.device, dtype=like.dtype) + 0.5) * step
    wide = step.clamp(min=1.0)
    weights = _cubic((before - middle[:, None]) / wide)
    return weights / weights.sum(dim=1, keepdim=True)


def _cubic(x: Tensor) -> Tensor:
    """Keys' kernel (Keys 1981, eq. 4)."""
    x = x.abs()
    near = ((A + 2) * x - (A + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * A
    return near.where(x < 1, far.where(x < SUPPORT, 0.0))
