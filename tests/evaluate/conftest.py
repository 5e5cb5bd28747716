"""A small run of scene recognition and the images it learned from."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from terralean import recipes
from terralean.train.run import run
from terralean.train.scene_config import SceneExperiment

SCENE_CLASSES = ("dark", "light", "rough <i>")
COUNTS = {"train": 8, "validation": 4, "test": 7}  # images of each class


def paint(path: Path, label: int, *, seed: int, mode: str = "RGB") -> None:
    rng = np.random.default_rng(seed)
    base, amplitude = (60, 180, 120)[label], (20, 20, 110)[label]
    values = base + rng.integers(-30, 30) + rng.integers(-amplitude, amplitude + 1, (32, 32, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert(mode).save(path)


@pytest.fixture(scope="session")
def paint_scene():
    """Write a dark, a light or a rough image, by its label; no two seeds give the same."""
    return paint


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Path:
    """Images of three classes with splits in index.csv."""
    folder = tmp_path_factory.mktemp("scenes")
    rows, seed = ["path,label,split"], 0
    for split, count in COUNTS.items():
        for label, name in enumerate(SCENE_CLASSES):
            for i in range(count):
                seed += 1
                path = f"{label}/{split}_{i}.png"
                paint(folder / path, label, seed=seed)
                rows.append(f"{path},{name},{split}")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def scene_experiment():
    """Experiments of four steps on images of 32 px; called with further changes."""

    def make(**data) -> SceneExperiment:
        values = {
            "task": "classification",
            "model": {"name": "small_cnn", "sizes": {"width": 8}},
            "data": {"size_px": 32, "resize_px": 32, "augment": {"crop_scale": [0.5, 1.0]}, **data},
            "train": {"epochs": 2, "batch": 12, "lr": 0.01, "warmup_epochs": 0, "ema_decay": None},
        }
        return recipes.parse(values, source="test")

    return make


@pytest.fixture(scope="session")
def recognised(scenes, scene_experiment, tmp_path_factory) -> Path:
    """A run of four steps on these images; do not change it."""
    out = tmp_path_factory.mktemp("recognised") / "run"
    run(scene_experiment(), data=scenes, out=out, device="cpu")
    return out
