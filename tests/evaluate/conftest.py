"""Images of two classes to be mapped, and a small run of scene recognition with the images it learned from."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from terralean import recipes
from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import Bands
from terralean.train.run import run
from terralean.train.scene_config import SceneExperiment

SCENE_CLASSES = ("dark", "light", "rough <i>")
COUNTS = {"train": 8, "validation": 4, "test": 7}  # images of each class


@pytest.fixture(scope="session")
def wide(tmp_path_factory) -> Path:
    """Images of two bands whose class is whether the first is the brighter one; the test image has 20 blocks of 32 px."""
    folder = tmp_path_factory.mktemp("wide")
    rows = ["path,label,split"]
    for index, (split, width, height) in enumerate((("train", 48, 48), ("validation", 48, 48), ("test", 160, 128))):
        rng = np.random.default_rng(index)
        coarse = np.kron(rng.integers(0, 2, (height // 8, width // 8)), np.ones((8, 8), np.int64))
        values = rng.integers(40, 90, (2, height, width)) + 60 * np.stack([coarse == 0, coarse == 1])
        grid = Grid(width=width, height=height, crs="EPSG:32633", transform=(1.0, 0.0, 3e5 + 1000 * index, 0.0, -1.0, 5.2e6))
        write_scene(folder / f"{index}.tif", values.astype(np.uint8), grid=grid, bands=Bands(names=("left", "right")))
        write_scene(folder / f"{index}_mask.tif", coarse[None].astype(np.uint8), grid=grid, bands=Bands(names=("class",)))
        rows.append(f"{index}.tif,{index}_mask.tif,{split}")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    (folder / "classes.csv").write_text("value,name,colour\n0,first <i>,#ff0000\n1,second,#0000ff\n")
    return folder


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
