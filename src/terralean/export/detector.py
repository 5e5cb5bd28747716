"""A detector of oriented boxes as two graphs, with what is suppressed between them and behind them outside."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from terralean.errors import ConfigError
from terralean.export.config import ExportConfig
from terralean.export.graph import MOST, NOTHING, ONLY_BATCH, Traced, trace
from terralean.layers.folding import sharing
from terralean.models.oriented_rcnn import OrientedRCNN
from terralean.predict.artefact import MAPS, GraphPrecision
from terralean.predict.normalise import Normalise
from terralean.predict.predictor import Predictor
from terralean.weights.card import Card

EXAMPLE = 3  # proposals that the second graph is traced with
# OpenVINO would round coordinates as it rounds features, and 11 bits of them are too few where images have 1024 px. In the
# other two runtimes the network alone is in halves, and what it says of boxes is decoded in float32.
PRECISIONS: dict[str, tuple[GraphPrecision, ...]] = {
    "onnx": ("fp32", "fp16"),
    "openvino": ("fp32",),
    "torch": ("fp32", "bf16", "fp16"),
}


class Propose(nn.Module):
    """image (B, C, H, W) float32 as stored, valid (B, H, W) bool -> what the second look begins from.

    Candidates (B, P, 5) px, logits (B, P), the map (B, P) that each is from, and the four finest maps (B, C, h, w).
    """

    def __init__(self, network: OrientedRCNN, card: Card, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = _without(network, "roi").to(dtype)
        self.normalise, self.dtype = Normalise(card.normalisation), dtype

    def forward(self, image: Tensor, valid: Tensor) -> tuple[Tensor, ...]:
        """As the class says."""
        proposed = self.network.propose(self.normalise(image, valid).to(self.dtype))
        found = proposed.candidates
        return found.boxes, found.scores, found.level.expand(found.scores.shape), *proposed.maps[: len(MAPS)]


class Judge(nn.Module):
    """Proposals (R, 5) px and the four maps (1, C, h, w) of their image -> probabilities (R, K) and boxes (R, 5) px."""

    def __init__(self, network: OrientedRCNN, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = _without(network, "backbone", "fpn", "rpn").to(dtype)

    def forward(self, proposals: Tensor, *maps: Tensor) -> tuple[Tensor, Tensor]:
        """As the class says."""
        return self.network.judge(maps, proposals, proposals.new_zeros(proposals.shape[0], dtype=torch.int64))


class Programs(NamedTuple):
    """Both graphs; what is free is told by the first."""

    first: Traced
    second: ExportedProgram


def check_config(config: ExportConfig) -> None:
    """ConfigError for a format or precision that no detector is exported in."""
    known = PRECISIONS.get(config.format)
    if known is None:
        formats = ", ".join(PRECISIONS)
        raise ConfigError(f"--format {config.format} is for maps of pixels, a detector of oriented boxes can be {formats}")
    if config.precision not in known:
        raise ConfigError(
            f"of a detector of oriented boxes --format {config.format} can be {', '.join(known)}, got --precision "
            f"{config.precision}, in which boxes have not been seen to stay where they are; leave it out"
        )


def trace_parts(eager: Predictor, *, tile_px: int, dtype: torch.dtype) -> Programs:
    """The programs of a detector for images of this side; how many images, and how many proposals, is free."""
    network, card = cast("OrientedRCNN", eager.network), eager.card
    first = Propose(network, card, dtype=dtype).eval()
    traced = trace(first, bands=len(card.bands), tile_px=tile_px, wanted=[ONLY_BATCH, NOTHING])
    given = cast("tuple[Any, ...]", traced.program.graph.output_node().args[0])
    maps = tuple(torch.zeros(1, *node.meta["val"].shape[1:], dtype=dtype) for node in given[-len(MAPS) :])
    free = {0: Dim("proposals", min=1, max=MOST)}
    with torch.no_grad():
        second = torch.export.export(
            Judge(network, dtype=dtype).eval(),
            (torch.zeros(EXAMPLE, 5), *maps),
            dynamic_shapes=(free, tuple({} for _ in maps)),
            strict=False,
        )
    return Programs(traced, second)


def _without(network: OrientedRCNN, *parts: str) -> OrientedRCNN:
    """A copy that shares its tensors, without those that the other graph holds."""
    copy = sharing(network)
    for part in parts:
        setattr(copy, part, nn.Identity())
    return copy
