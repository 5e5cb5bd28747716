"""A network at work as PyTorch runs it, with all that stands around it in prediction."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor, nn

from terralean.boxes.detected import Detected
from terralean.errors import ConfigError
from terralean.layers.every_pixel import EveryPixel
from terralean.layers.folding import sharing
from terralean.layers.hooks import Point, Traced
from terralean.layers.watched_folding import fold
from terralean.predict.normalise import Normalise, enlarge, resized
from terralean.weights.card import Card

WATCHED = ("segmentation", "classification")  # tasks whose networks run through once to see which norm reads what
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Eager:
    """A model on a device, folded where it knows how. Called by several threads at once; nothing is kept between calls."""

    def __init__(self, model: nn.Module, card: Card, *, device: torch.device, precision: str) -> None:
        if precision not in DTYPES:
            raise ConfigError(f"precision must be one of {', '.join(DTYPES)}, got {precision!r}")
        self.card, self.device, self.dtype = card, device, DTYPES[precision]
        self.model = model.eval().to(device, self.dtype)
        folded = _folded(self.model, card)
        self.network = EveryPixel(folded) if card.task == "spectral" else folded  # what predicts
        self.viewer = folded  # what recognises a whole image, or the pixel in the middle of a patch
        self.normalise = Normalise(card.normalisation, shrink=card.shrink).to(device)

    def scores(self, image: Tensor, valid: Tensor) -> Tensor:
        """Of pixels, (B, K, H, W), float32 on the device, before the temperature."""
        scores = self.network(self.seen(image, valid)).float()
        height, width = image.shape[-2:]
        return enlarge(scores, shrink=self.card.shrink, height=height, width=width)

    def view_scores(self, image: Tensor, valid: Tensor) -> Tensor:
        """Of whole images, or of patches by their middle pixel, (B, K), float32 on the device, before the temperature."""
        seen = self.normalise(image.to(self.device, torch.float32), valid.to(self.device))
        seen = resized(seen, side_px=self.card.seen_px or seen.shape[-1])
        return self.viewer(seen.to(self.dtype)).float()

    def detect(self, image: Tensor, valid: Tensor) -> list[Detected]:
        """Oriented boxes in px of each image, float32 on the CPU."""
        found: list[Detected] = self.network(self.seen(image, valid))
        return [Detected(one.boxes.float().cpu(), one.scores.float().cpu(), one.labels.cpu()) for one in found]

    def scores_with_work(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """`scores`, and of the same pass the share of layers that worked on the token of each pixel: (B, H, W).

        Raises ConfigError where the method leaves nothing that could be told.
        """
        traced = cast("Callable[[Tensor], Traced]", self.network.traced)(self.seen(image, valid))
        if not traced.record:
            raise ConfigError(
                "--compute draws tokens that are taken out or merged for good, and this method, as it is set, leaves none; of "
                "tome use --set reduce.mode=progressive, of others set layers or shares otherwise"
            )
        height, width = image.shape[-2:]
        shrink = self.card.shrink
        work = traced.work(height=-(-height // shrink), width=-(-width // shrink))
        work = work.repeat_interleave(shrink, dim=1).repeat_interleave(shrink, dim=2)[:, :height, :width]
        return enlarge(traced.scores.float(), shrink=shrink, height=height, width=width), work

    def trace(self, image: Tensor, valid: Tensor) -> tuple[Point, ...]:
        """What the method of token reduction does with these images; nothing without a method."""
        if self.card.reduce is None:
            return ()
        trace = cast("Callable[[Tensor], tuple[Point, ...]]", self.network.trace)
        return trace(self.seen(image, valid))

    def content(self) -> Iterator[tuple[str, bytes]]:
        """The bytes of all that was trained, by name."""
        for name, tensor in sorted(self.model.state_dict().items()):
            plain = tensor.detach().cpu().reshape(-1)
            yield f"{name} {tensor.dtype} {tuple(tensor.shape)}", plain.view(torch.uint8).numpy().tobytes()

    def seen(self, image: Tensor, valid: Tensor) -> Tensor:
        """As the network takes it."""
        seen: Tensor = self.normalise(image.to(self.device, torch.float32), valid.to(self.device))
        return seen.to(self.dtype)


def _folded(model: nn.Module, card: Card) -> nn.Module:
    """The model with batch norms made part of convolutions, by itself where it knows how; a copy that shares what stays."""
    own: Callable[[], nn.Module] | None = getattr(model, "fold", None)
    if own is not None:
        return own()
    if (
        card.task not in WATCHED
        or card.reduce is not None
        or not any(isinstance(part, nn.BatchNorm2d) for part in model.modules())
    ):
        return model
    side = card.seen_px or math.ceil(card.tile_px / card.shrink)
    whole = fold(sharing(model), (1, len(card.bands), side, side)).model
    return whole.to(memory_format=torch.channels_last)
