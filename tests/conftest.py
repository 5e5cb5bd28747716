"""Fixtures that several rooms use."""

import os
from pathlib import Path

import pytest
import torch

import terralean
from terralean.models import create
from terralean.spec import Bands, Classes, Normalisation
from terralean.weights.card import Card, Training
from terralean.weights.checkpoint import save_checkpoint


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real imagery and reference numbers beside the repository; without it the test is skipped by name."""
    folder = Path(os.environ.get("TERRALEAN_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip(f"real data is not at {folder}; set TERRALEAN_SHARED")
    return folder


@pytest.fixture(scope="session")
def untrained(tmp_path_factory) -> Path:
    """A checkpoint folder: LeMeViT-tiny with the light head, three classes of red, green, blue, random weights."""
    folder = tmp_path_factory.mktemp("untrained")
    torch.manual_seed(0)
    model = create("lemevit_tiny_light", bands=3, classes=3)
    for parameter in model.head.classify.parameters():
        torch.nn.init.normal_(parameter)  # as it stands the head says the same everywhere
    save_checkpoint(model, card(), folder)
    return folder


def card(**changes) -> Card:
    """A card of the fixture's model."""
    training = Training(data="0" * 16, images=1, split="all of it", leakage="no test pixels", steps=0, minutes=0.0, seed=0)
    values = {
        "version": terralean.__version__,
        "task": "segmentation",
        "model": "lemevit_tiny_light",
        "bands": Bands(names=("red", "green", "blue")),
        "normalisation": Normalisation(mean=(100.0, 110.0, 120.0), std=(40.0, 50.0, 60.0)),
        "classes": Classes.named(("field", "forest", "water <&>")),
        "tile_px": 64,
        "overlap_px": 16,
        "training": training,
    }
    return Card(**{**values, **changes})
