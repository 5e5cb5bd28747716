"""A model with its card, ready to be asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn

from terralean.errors import ConfigError
from terralean.layers.hooks import Point
from terralean.predict.normalise import Normalise, enlarge, resized
from terralean.tokens import OrOwn
from terralean.weights.card import Card
from terralean.weights.checkpoint import load_checkpoint

Precision = Literal["fp32", "bf16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Predictor:
    """Raw band values in, probabilities out. Normalisation and bands come from the card; there are no flags for them."""

    def __init__(self, model: nn.Module, card: Card, *, device: torch.device, precision: Precision) -> None:
        if precision not in DTYPES:
            raise ConfigError(f"precision must be one of {', '.join(DTYPES)}, got {precision!r}")
        self.card = card
        self.device = device
        self.precision = precision
        self.model = model.eval().to(device, DTYPES[precision])
        fold: Callable[[], nn.Module] | None = getattr(self.model, "fold", None)
        self.network = self.model if fold is None else fold()  # what predicts
        self.normalise = Normalise(card.normalisation, shrink=card.shrink).to(device)

    @torch.inference_mode()
    def __call__(self, image: Tensor, valid: Tensor) -> Tensor:
        """image (B, C, H, W) in the units of the card's bands, valid (B, H, W) -> probabilities (B, K, H, W).

        They are float32 on the CPU. Where a pixel is not valid the answer means nothing.
        """
        scores = self.network(self.seen(image, valid)).float()
        height, width = image.shape[-2:]
        return self._probabilities(enlarge(scores, shrink=self.card.shrink, height=height, width=width))

    @torch.inference_mode()
    def trace(self, image: Tensor, valid: Tensor) -> tuple[Point, ...]:
        """What the method of token reduction does with image (B, C, H, W), valid (B, H, W), the same as in predicting them."""
        if self.card.reduce is None:
            return ()
        trace = cast("Callable[[Tensor], tuple[Point, ...]]", self.network.trace)
        return trace(self.seen(image, valid))

    @torch.inference_mode()
    def recognise(self, image: Tensor, valid: Tensor) -> Tensor:
        """image (B, C, H, W) in the units of the card's bands, valid (B, H, W) -> probabilities of whole images (B, K).

        Images are resized to what the network was trained to see. They are float32 on the CPU.
        """
        seen = self.normalise(image.to(self.device, torch.float32), valid.to(self.device))
        seen = resized(seen, side_px=self.card.seen_px or seen.shape[-1])
        return self._probabilities(self.network(seen.to(DTYPES[self.precision])).float())

    def _probabilities(self, scores: Tensor) -> Tensor:
        """scores (B, K, ...) -> probabilities. The card's temperature keeps every class where it was (Guo et al. 2017)."""
        return (scores / self.card.temperature).softmax(dim=1).cpu()

    def seen(self, image: Tensor, valid: Tensor) -> Tensor:
        """As the network takes it."""
        seen: Tensor = self.normalise(image.to(self.device, torch.float32), valid.to(self.device))
        return seen.to(DTYPES[self.precision])


def load(run: str | Path, *, device: str | None = None, precision: Precision = "fp32", reduce: OrOwn = "own") -> Predictor:
    """The predictor of a run or checkpoint folder, on `device` (default: CUDA where there is one, else the CPU).

    `reduce` is a method of token reduction in place of the run's own, None for none.
    """
    model, card = load_checkpoint(Path(run), reduce=reduce)
    return Predictor(model, card, device=choose_device(device), precision=precision)


def choose_device(name: str | None) -> torch.device:
    """A device by its name; None: CUDA where there is one, else the CPU. Raises ConfigError where it is not there."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r} is not known; use cpu, cuda or cuda:0") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {name!r} is not here: this machine has {torch.cuda.device_count()} CUDA devices; use cpu")
    return device
