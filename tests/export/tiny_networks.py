"""Small networks that are written as graphs in a moment."""

from pathlib import Path

import torch
from torch import Tensor, nn

from terralean.export.config import ExportConfig
from terralean.export.run import Source, export_model
from terralean.export.tiles import Wanted, noise
from terralean.predict.predictor import Predictor
from terralean.spec import Bands, Classes, Normalisation
from terralean.weights.card import Card, Training

BANDS = Bands(names=("red", "green", "blue", "nir"), wavelength_nm=(665.0, 560.0, 490.0, None), dtype="uint16")


def make_card(**changes) -> Card:
    """Of four bands in 16 bits and three classes."""
    values = {
        "version": "0",
        "task": "segmentation",
        "model": "painter",
        "bands": BANDS,
        "normalisation": Normalisation(mean=(1200.0, 900.0, 700.0, 2500.0), std=(300.0, 250.0, 200.0, 600.0)),
        "classes": Classes.named(("field", "forest", "water <&>")),
        "tile_px": 64,
        "overlap_px": 16,
        "temperature": 1.5,
        "training": Training(data="0" * 16, images=1, split="all", leakage="none", steps=1, minutes=0.0, seed=0),
    }
    return Card(**{**values, **changes})


class Painter(nn.Module):
    """Scores of pixels by what is around them, at half the resolution."""

    def __init__(self, *, bands: int = 4, classes: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.wide, self.last = nn.Conv2d(bands, 16, 3, stride=2, padding=1), nn.Conv2d(16, classes, 1)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5, generator=generator)

    def forward(self, image: Tensor) -> Tensor:
        """(B, bands, H, W) -> (B, classes, H, W)."""
        scores = self.last(nn.functional.gelu(self.wide(image)))
        return nn.functional.interpolate(scores, size=image.shape[-2:], mode="bilinear", align_corners=False)


class Namer(nn.Module):
    """Scores of whole images, by means over a grid."""

    def __init__(self) -> None:
        super().__init__()
        self.painter, self.last = Painter(), nn.Linear(3 * 16, 3)
        nn.init.normal_(self.last.weight, std=2.0, generator=torch.Generator().manual_seed(4))
        nn.init.zeros_(self.last.bias)

    def forward(self, image: Tensor) -> Tensor:
        """(B, bands, 32, 32) -> (B, classes)."""
        return self.last(nn.functional.avg_pool2d(self.painter(image), 8).flatten(1))


def source(card: Card, *, tile_px: int | None = None) -> Source:
    """The network of a card, and noise to compare it on."""
    model = Namer() if card.task == "classification" else Painter(bands=len(card.bands))
    checked = noise(Wanted(card, tile_px or card.tile_px, 4, 0))
    return Source(model.eval(), card, checked, noise(Wanted(card, tile_px or card.tile_px, 6, 1)))


def eager(card: Card) -> Predictor:
    """The network of a card, as it predicts without an export."""
    return Predictor(source(card).model, card, device=torch.device("cpu"), precision="fp32")


def export_tiny(format_: str, precision: str, card: Card, folder: Path) -> Path:
    """Write the network of a card into a folder that is there."""
    given = source(card)
    config = ExportConfig(format=format_, precision=precision)
    export_model(given if precision == "int8" else given._replace(calibration=None), folder, config=config)
    return folder
