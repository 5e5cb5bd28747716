"""Fixtures that several rooms use."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from terralean import __version__, recipes
from terralean.cli import main
from terralean.models import create
from terralean.raster.envi_write import write_classification, write_cube
from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import IGNORE, Bands, Classes, Normalisation
from terralean.train.config import Experiment
from terralean.train.run import run
from terralean.weights.card import Card, Training
from terralean.weights.checkpoint import save_checkpoint

if "PYTEST_XDIST_WORKER" in os.environ:  # several test processes share the cores; what they start does, too
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


CUBE_GRID = Grid(width=40, height=48, crs="EPSG:32633", transform=(30.0, 0.0, 3e5, 0.0, -30.0, 5.8e6))


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


@pytest.fixture(scope="session")
def recogniser(tmp_path_factory) -> Path:
    """A checkpoint folder of scene recognition: views of 32 px, three classes, the class is the brightest band.

    Where a band is one value v over the pixels of a view that hold data, its logit is the share of these pixels times
    max(v - mean, 0) / std: each convolution hands its first three channels on, and nothing else.
    """
    folder = tmp_path_factory.mktemp("recogniser")
    model = create("small_cnn", bands=3, classes=3, width=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for convolve, norm, *_ in model.body:
            convolve.weight[range(3), range(3), 1, 1] = (1 + norm.eps) ** 0.5
            norm.weight.fill_(1.0)
        model.head.weight[range(3), range(3)] = 1.0
    recognises = {"task": "classification", "model": "small_cnn", "sizes": {"width": 3}}
    save_checkpoint(model, card(**recognises, tile_px=32, overlap_px=0, seen_px=32), folder)
    return folder


def card(**changes) -> Card:
    """A card of the fixture's model."""
    training = Training(data="0" * 16, images=1, split="all of it", leakage="no test pixels", steps=0, minutes=0.0, seed=0)
    values = {
        "version": __version__,
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


class Small:
    """Experiments of a few steps on small crops; called with further changes."""

    changes = (
        "train.steps=6",
        "train.validate_every=2",
        "train.batch=2",
        "train.warmup_steps=1",
        "train.lr=0.002",
        "data.tile_px=32",
        "tiling.tile_px=32",
        "tiling.overlap_px=8",
    )

    def __call__(self, *changes: str) -> Experiment:
        return recipes.read("lemevit_tiny_light", changes=[*self.changes, *changes])


@pytest.fixture
def terralean(monkeypatch, capfd):
    """The command line, called with arguments: exit status, stdout, stderr."""

    def call(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["terralean", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = stop.code or 0
        found = capfd.readouterr()
        return status, found.out, found.err

    return call


@pytest.fixture(scope="session")
def experiment() -> Small:
    return Small()


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """Four images of two bands whose class is whether the first band is the brighter one, with splits in index.csv."""
    folder = tmp_path_factory.mktemp("data")
    rows = ["path,label,split"]
    for index, split in enumerate(("train", "train", "validation", "test")):
        rng = np.random.default_rng(index)
        coarse = np.kron(rng.integers(0, 2, (6, 6)), np.ones((8, 8), np.int64))
        values = rng.integers(40, 90, (2, 48, 48)) + 100 * np.stack([coarse == 0, coarse == 1])
        grid = Grid(width=48, height=48, crs="EPSG:32633", transform=(1.0, 0.0, 3e5 + 1000 * index, 0.0, -1.0, 5.2e6))
        write_scene(folder / f"{index}.tif", values.astype(np.uint8), grid=grid, bands=Bands(names=("left", "right")))
        write_scene(folder / f"{index}_mask.tif", coarse[None].astype(np.uint8), grid=grid, bands=Bands(names=("class",)))
        rows.append(f"{index}.tif,{index}_mask.tif,{split}")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    (folder / "classes.csv").write_text("value,name,colour\n0,first,#ff0000\n1,second,#0000ff\n")
    return folder


@pytest.fixture(scope="session")
def finished(data, experiment, tmp_path_factory) -> Path:
    """A run of six steps on these images; do not change it."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    run(experiment(), data=data, out=out, device="cpu")
    return out


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Callable[..., Path]:
    """The folder of a tiny network exported in a format and precision, written once; do not change it."""
    import tiny_networks  # noqa: PLC0415 - only tests of exports need what it needs

    made: dict[object, Path] = {}

    def folder(format_: str, precision: str = "fp32", told: Card | None = None) -> Path:
        told = told or tiny_networks.make_card()
        key = (format_, precision, repr(told))
        if key not in made:
            place = tmp_path_factory.mktemp(f"{format_}_{precision}")
            made[key] = tiny_networks.export_tiny(format_, precision, told, place)
        return made[key]

    return folder


@pytest.fixture(scope="session")
def labelled_cube():
    """Writes a cube of 12 bands (ENVI) and its labels into a folder: fields of 8 px of three classes, each of a spectrum."""

    def write(folder, *, name="scene", grid=CUBE_GRID, seed=0, labels=True):
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        classes = np.kron(rng.integers(0, 3, (grid.height // 8, grid.width // 8)), np.ones((8, 8), np.int64)).astype(np.uint8)
        spectra = np.random.default_rng(7).normal(1000, 150, (3, 12))
        values = spectra[classes].transpose(2, 0, 1) + rng.normal(0, 40, (12, grid.height, grid.width))
        nm = tuple(400.0 + 50 * band for band in range(12))
        bands = Bands(names=tuple(f"b{band}" for band in range(12)), wavelength_nm=nm, dtype="float32")
        write_cube(folder / name, values.astype(np.float32), grid=grid, bands=bands)
        known = np.where(rng.random(classes.shape) < 0.3, np.uint8(IGNORE), classes)
        if labels:
            write_classification(folder / f"{name}_gt", known, grid=grid, classes=Classes.named(("field", "water", "wood")))
        return values, known

    return write
