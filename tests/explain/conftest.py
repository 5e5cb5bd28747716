"""Models whose meta tokens look somewhere: with the weights of their initialisation attention is the same everywhere."""

import numpy as np
import pytest
import torch

from terralean.models import create
from terralean.models.lemevit import LeMeViT, LeMeViTConfig
from terralean.predict import Predictor, load
from terralean.raster.grid import Grid, Window
from terralean.raster.write import write_scene
from terralean.spec import Bands, Classes, Normalisation
from terralean.tokens import Reduction
from terralean.weights.card import Card, Training
from terralean.weights.checkpoint import save_checkpoint

GRID = Grid(width=150, height=130, crs="EPSG:32633", transform=(0.5, 0.0, 300_000.25, 0.0, -0.5, 5_200_000.75))
# Two blocks in S1 and S2, of which the last one of S2 differs; three different widths.
TOY = LeMeViTConfig(depths=(1, 2, 2, 1, 1), dims=(32, 32, 64, 96, 128), classes=5)


class Values:
    """Values that read as a scene, without data where `valid` is False."""

    def __init__(self, height: int, width: int, *, valid: np.ndarray | None = None) -> None:
        self.values = np.random.default_rng(height).uniform(1, 255, (3, height, width)).astype(np.float32)
        self.valid = np.ones((height, width), bool) if valid is None else valid
        self.grid = Grid(width=width, height=height, crs=None)

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        values = np.zeros((3, window.height, window.width), np.float32)
        valid = np.zeros((window.height, window.width), bool)
        inside = window.cut(self.grid.window)
        to, source = inside.slices(origin=window), inside.slices()
        valid[to] = self.valid[source]
        values[:, *to] = np.where(self.valid[source], self.values[:, *source], 0)
        return values, valid


def card(**changes) -> Card:
    values = {
        "version": "0",
        "task": "segmentation",
        "model": "lemevit_tiny_light",
        "bands": Bands(names=("red", "green", "blue")),
        "normalisation": Normalisation(mean=(100.0, 110.0, 120.0), std=(40.0, 50.0, 60.0)),
        "classes": Classes.named(("field", "forest", "water")),
        "tile_px": 64,
        "overlap_px": 16,
        "training": Training(data="0" * 16, images=1, split="all", leakage="none", steps=0, minutes=0.0, seed=0),
    }
    return Card(**{**values, **changes})


def nudge(model: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
    return model.eval()


@pytest.fixture(scope="session")
def looking(tmp_path_factory):
    """A run folder of LeMeViT-tiny with the light head."""
    folder = tmp_path_factory.mktemp("looking")
    torch.manual_seed(0)
    save_checkpoint(nudge(create("lemevit_tiny_light", bands=3, classes=3)), card(), folder)
    return folder


@pytest.fixture(scope="session")
def predictor(looking) -> Predictor:
    return load(looking, device="cpu")


@pytest.fixture(scope="session")
def classifier() -> Predictor:
    """A small scene classifier that sees tiles of 40 px at 64."""
    torch.manual_seed(0)
    described = card(task="classification", model="toy", tile_px=40, overlap_px=0, seen_px=64)
    return Predictor(nudge(LeMeViT(TOY)), described, device=torch.device("cpu"), precision="fp32")


@pytest.fixture(scope="session")
def even() -> Predictor:
    """LeMeViT-tiny whose queries and keys are all alike: attention is the same everywhere."""
    torch.manual_seed(0)
    model = nudge(create("lemevit_tiny_light", bands=3, classes=3))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".attn.q" in name:
                weight.zero_()
    return Predictor(model, card(), device=torch.device("cpu"), precision="fp32")


@pytest.fixture(scope="session")
def readable():
    """Makes values that read as a scene."""
    return Values


@pytest.fixture(scope="session")
def reduced():
    """Makes a predictor that takes tokens out or merges them."""
    return _reduced


def _reduced(reduce: Reduction | None, **changes) -> Predictor:
    """A small vision transformer of patches of 16 px, whose weights are the same with every method."""
    torch.manual_seed(0)
    model = create("segvit", backbone="test_vit", bands=3, classes=3, image_px=64, decoder_width=48, decoder_heads=3)
    nudge(model)
    if reduce is not None:
        model.reduce_tokens(reduce)
        nudge(model.heads)
    described = card(model="segvit", reduce=reduce, **changes)
    return Predictor(model, described, device=torch.device("cpu"), precision="fp32")


def values(grid: Grid = GRID, *, seed: int = 0) -> np.ndarray:
    """Smooth random colours, 1..255."""
    small = torch.from_numpy(np.random.default_rng(seed).uniform(1, 255, (1, 3, grid.height // 10, grid.width // 10)))
    large = torch.nn.functional.interpolate(small, size=(grid.height, grid.width), mode="bilinear")
    return large[0].numpy().astype(np.uint8)


@pytest.fixture
def scene(tmp_path):
    """A scene of 150 x 130 px of half a metre, a corner of which holds no data."""
    array = values()
    array[:, :20, :30] = 0
    write_scene(tmp_path / "scene.tif", array, grid=GRID, bands=Bands(names=("red", "green", "blue")), nodata=0)
    return tmp_path / "scene.tif"
