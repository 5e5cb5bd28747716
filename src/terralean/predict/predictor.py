"""A model with its card, ready to be asked: a network as PyTorch runs it, or an exported graph in its runtime."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from terralean.boxes.detected import Detected
from terralean.errors import ConfigError
from terralean.layers.hooks import Point
from terralean.predict.artefact import Artefact, GraphPrecision, contract, is_artefact, read_artefact
from terralean.predict.eager import Eager
from terralean.predict.exported import Exported, open_graph
from terralean.predict.normalise import Normalise
from terralean.tokens import OrOwn
from terralean.weights.card import Card
from terralean.weights.checkpoint import load_checkpoint

Precision = Literal["fp32", "bf16"]  # that a network can be asked to work in; a graph has its own


class Predictor:
    """Raw band values in, probabilities out. Normalisation and bands come from the card; there are no flags for them.

    Called by several threads at once. What looks into the network raises ConfigError for an exported graph.
    """

    def __init__(
        self,
        model: nn.Module | Exported,
        card: Card,
        *,
        device: torch.device,
        precision: Precision | GraphPrecision,
        folder: Path | None = None,
    ) -> None:
        self.card = card
        self.folder = folder  # it was read from
        self.device = device
        self.precision = precision
        self.runtime = model if isinstance(model, Exported) else Eager(model, card, device=device, precision=precision)

    @torch.inference_mode()
    def __call__(self, image: Tensor, valid: Tensor) -> Tensor:
        """image (B, C, H, W) in the units of the card's bands, valid (B, H, W) -> probabilities (B, K, H, W).

        They are float32 on the CPU. Where a pixel is not valid the answer means nothing.
        """
        if isinstance(self.runtime, Exported):
            return self.runtime(image, valid)
        return self._probabilities(self.runtime.scores(image, valid))

    @torch.inference_mode()
    def recognise(self, image: Tensor, valid: Tensor) -> Tensor:
        """image (B, C, H, W) in the units of the card's bands, valid (B, H, W) -> probabilities of whole images (B, K).

        Images are resized to what the network was trained to see. They are float32 on the CPU.
        """
        if isinstance(self.runtime, Exported):
            return self.runtime(image, valid)
        return self._probabilities(self.runtime.view_scores(image, valid))

    @torch.inference_mode()
    def detect(self, image: Tensor, valid: Tensor) -> list[Detected]:
        """image (B, C, H, W) in the units of the card's bands, valid (B, H, W) -> oriented boxes in px of each image.

        They are float32 on the CPU.
        """
        return self.runtime.detect(image, valid)

    @torch.inference_mode()
    def trace(self, image: Tensor, valid: Tensor) -> tuple[Point, ...]:
        """What the method of token reduction does with image (B, C, H, W), valid (B, H, W), the same as in predicting them."""
        return () if self.card.reduce is None else self.eager.trace(image, valid)

    @torch.inference_mode()
    def with_compute(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """The probabilities, and of the same pass the share of layers that worked on the token of each pixel: (B, H, W).

        Layers are those of the stages that the method of token reduction acts in. Both are float32 on the CPU. ConfigError for
        an exported graph.
        """
        scores, work = self.eager.scores_with_work(image, valid)
        return self._probabilities(scores), work.cpu()

    @torch.inference_mode()
    def scores(self, image: Tensor, valid: Tensor) -> Tensor:
        """What becomes the probabilities of pixels: (B, K, H, W), float32 on the device, before the temperature."""
        return self.eager.scores(image, valid)

    @torch.inference_mode()
    def view_scores(self, image: Tensor, valid: Tensor) -> Tensor:
        """What becomes the probabilities of whole images: (B, K), float32 on the device, before the temperature."""
        return self.eager.view_scores(image, valid)

    def seen(self, image: Tensor, valid: Tensor) -> Tensor:
        """As the network takes it."""
        return self.eager.seen(image, valid)

    def fingerprint(self) -> str:
        """64 hexadecimal digits: the same for the same weights and card, as far as answers depend on it."""
        digest = hashlib.sha256(contract(self.card).encode())
        for name, part in self.runtime.content():
            digest.update(name.encode())
            digest.update(part)
        return digest.hexdigest()

    @property
    def model(self) -> nn.Module:
        """The network as it was trained."""
        return self.eager.model

    @property
    def network(self) -> nn.Module:
        """What predicts: the network, folded where it knows how."""
        return self.eager.network

    @property
    def normalise(self) -> Normalise:
        """Raw values to what the network sees."""
        return self.eager.normalise

    @property
    def eager(self) -> Eager:
        """The network at work; ConfigError where there is none."""
        if isinstance(self.runtime, Exported):
            raise ConfigError(
                f"{self.runtime.artefact.folder} is an exported graph, which predicts and shows nothing else; name the run "
                "that it was made of"
            )
        return self.runtime

    def _probabilities(self, scores: Tensor) -> Tensor:
        """scores (B, K, ...) -> probabilities. The card's temperature keeps every class where it was (Guo et al. 2017)."""
        return (scores / self.card.temperature).softmax(dim=1).cpu()


def load(run: str | Path, *, device: str | None = None, precision: Precision | None = None, reduce: OrOwn = "own") -> Predictor:
    """The predictor of a run or checkpoint folder, or of a folder that `terralean export` wrote.

    On `device`, by default CUDA where there is one, else the CPU. `precision` None: fp32, or what was exported. `reduce` is a
    method of token reduction in place of the run's own, None for none. ConfigError for what an exported graph cannot change.
    """
    folder = Path(run)
    if is_artefact(folder):
        return _load_artefact(read_artefact(folder), device=device, precision=precision, reduce=reduce)
    model, card = load_checkpoint(folder, reduce=reduce)
    return Predictor(model, card, device=choose_device(device), precision=precision or "fp32", folder=folder)


def open_artefact(artefact: Artefact, *, device: torch.device | None) -> Predictor:
    """The predictor of an exported graph."""
    exported = open_graph(artefact, device=device)
    how = artefact.manifest.precision
    return Predictor(exported, artefact.card, device=exported.device, precision=how, folder=artefact.folder)


def _load_artefact(artefact: Artefact, *, device: str | None, precision: Precision | None, reduce: OrOwn) -> Predictor:
    folder, own = artefact.folder, artefact.manifest.precision
    if precision not in (None, own):
        raise ConfigError(f"{folder} was exported in {own}, got --precision {precision}; leave it out, or export the run again")
    if reduce != "own":
        raise ConfigError(
            f"{folder} has its method of token reduction built in; export the run again with the same --set reduce..."
        )
    return open_artefact(artefact, device=None if device is None else choose_device(device))


def choose_device(name: str | None) -> torch.device:
    """A device by its name; None: CUDA where there is one, else the CPU. Raises ConfigError where it is not there."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r} is not known; use cpu, cuda or cuda:0") from error
    if device.type == "cpu" and device.index:
        raise ConfigError(f"device {name!r} is not here: there is one CPU; use cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {name!r} is not here: this machine has {torch.cuda.device_count()} CUDA devices; use cpu")
    return device
