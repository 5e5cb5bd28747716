"""Runs of scene recognition: a folder of small pictures whose classes differ in colour."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from terralean import recipes
from terralean.cost.macs import count_macs_at
from terralean.data.scene_samples import from_scene_samples
from terralean.data.scene_split import load_scene_split
from terralean.errors import BandMismatch, ConfigError, RunError
from terralean.models import create
from terralean.predict import load
from terralean.spec import Bands, Classes
from terralean.train.run import run, run_samples
from terralean.weights.card import read_card

CLASSES = ("lake", "meadow", "town")
HUES = {"lake": (30, 60, 160), "meadow": (60, 160, 50), "town": (160, 120, 110)}
RECIPE = """
task: classification
model:
  name: lemevit_tiny
  sizes: {drop_path: 0.2}
data:
  size_px: 32
  resize_px: 36
  split: {rule: random, validation: 0.25, test: 0.25}
  augment: {crop_scale: [0.5, 1.0]}
train:
  epochs: 3
  batch: 4
  lr: 0.001
  warmup_epochs: 1
  ema_decay: 0.5
  mix: {mixup: 0.8, cutmix: 1.0}
"""
KILLED = """
import os, signal, sys
from pathlib import Path
from terralean import recipes
from terralean.train.run import run
def tell(progress):
    if progress.step == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
run(recipes.read(sys.argv[1]), data=Path(sys.argv[2]), out=Path(sys.argv[3]), device="cpu", tell=tell)
"""


def picture(hue: tuple[int, int, int], *, seed: int, side: int = 40) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(np.array(hue) + rng.normal(0, 12, (side, side, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    for number, name in enumerate(CLASSES):
        (root / name).mkdir()
        for i in range(8):
            Image.fromarray(picture(HUES[name], seed=100 * number + i)).save(root / name / f"{name}_{i}.png")
    return root


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "mine.yaml"
    path.write_text(RECIPE)
    return str(path)


@pytest.fixture(scope="module")
def finished(data, recipe, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    run(recipes.read(recipe), data=data, out=out, device="cpu")
    return out


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_holds_what_the_design_names(finished):
    names = {path.name for path in finished.iterdir()}
    files = {"recipe.yaml", "split.json", "data.json", "metrics.csv", "card.json", "weights.safetensors"}
    assert names == {*files, "tensorboard"}
    assert [row["step"] for row in rows(finished)] == ["3", "6", "9"]
    assert [*rows(finished)[0]] == ["epoch", "step", "lr", "train_loss", "val_loss", "val_top1", "val_top5", "seconds"]


def test_card_says_what_the_model_is(finished, data):
    card = read_card(finished)
    assert (card.task, card.model, card.classes.names) == ("classification", "lemevit_tiny", CLASSES)
    assert card.bands.names == ("red", "green", "blue")
    assert (card.seen_px, card.tile_px, card.overlap_px) == (32, 36, 0)  # 40 px resized to 36, of which 32 are seen
    assert (card.training.images, card.training.steps) == (12, 9)
    assert "no leak found" in card.training.leakage
    best = max(float(row["val_top1"]) for row in rows(finished))
    assert card.metrics["validation"]["top1"] == pytest.approx(best, abs=1e-5)
    macs = count_macs_at(create("lemevit_tiny", bands=3, classes=3), (1, 3, 32, 32))
    assert (card.cost["macs_layers"], card.cost["macs_attention"]) == (macs.layers, macs.attention)
    assert card.cost["macs_at_px"] == 32


def test_normalisation_is_that_of_the_training_images_alone(finished):
    train = load_scene_split(finished / "split.json").of("train")
    pixels = np.stack([np.asarray(Image.open(image.path)) for image in train]).reshape(-1, 3).astype(float)
    card = read_card(finished)
    assert card.normalisation.mean == pytest.approx(pixels.mean(axis=0), rel=1e-6)
    assert card.normalisation.std == pytest.approx(pixels.std(axis=0), rel=1e-3)


@pytest.mark.parametrize("step", [2, 5])
def test_a_killed_run_goes_on_to_the_same_weights(data, recipe, finished, tmp_path, step):
    out = tmp_path / "run"
    killed = subprocess.run([sys.executable, "-c", KILLED, recipe, data, out, str(step)], capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr
    assert not (out / "card.json").exists()
    run(recipes.read(recipe), data=data, out=out, device="cpu")
    ours, theirs = (load_file(folder / "weights.safetensors") for folder in (out, finished))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    drop = [{key: value for key, value in row.items() if key != "seconds"} for row in rows(out)]
    assert drop == [{key: value for key, value in row.items() if key != "seconds"} for row in rows(finished)]


def test_what_differs_in_colour_is_learned(data, tmp_path):
    changes = ["model={name: small_cnn, sizes: {width: 4}}", "train.mix={}", "train.epochs=12", "train.lr=0.01"]
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE)
    result = run(recipes.read(str(path), changes=changes), data=data, out=tmp_path / "run", device="cpu")
    assert (result.score, result.validation) == ("top-1 accuracy", 1.0)
    predictor = load(tmp_path / "run", device="cpu")
    seen = [torch.from_numpy(picture(HUES[name], seed=999, side=36)).permute(2, 0, 1) for name in CLASSES]
    probabilities = predictor.recognise(torch.stack(seen).float(), torch.ones(3, 36, 36, dtype=torch.bool))
    assert probabilities.argmax(dim=1).tolist() == [0, 1, 2]
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(3))


def test_a_run_starts_from_a_classifier_of_other_classes(data, recipe, finished, tmp_path, caplog):
    caplog.set_level("INFO")
    changes = [f"model.weights={finished}", "data.classes=[lake, meadow, town, ice]", "train.lr=1e-9", "train.final_lr=0"]
    (tmp_path / "data").mkdir()
    for name in CLASSES:
        (tmp_path / "data" / name).symlink_to(data / name)
    (tmp_path / "data" / "ice").mkdir()
    for i in range(8):
        Image.fromarray(picture((220, 220, 230), seed=500 + i)).save(tmp_path / "data" / "ice" / f"ice_{i}.png")
    run(recipes.read(recipe, changes=changes), data=tmp_path / "data", out=tmp_path / "run", device="cpu")
    assert f"all layers of {finished} but the last, whose classes differ" in caplog.text
    ours, theirs = (load_file(folder / "weights.safetensors") for folder in (tmp_path / "run", finished))
    torch.testing.assert_close(ours["stages.3.0.mlp.0.weight"], theirs["stages.3.0.mlp.0.weight"], atol=1e-6, rtol=0)
    assert ours["head.weight"].shape == (4, 320)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            ["model.name=classifier", "model.sizes={backbone: vit_tiny_patch16_224}"],
            r"cannot learn from 4 x 32 px \(train\.batch, data\.size_px\): Input height \(32\) doesn't match model \(224\).*"
            r"model\.sizes\.image_px=32",
        ),
        (["model.name=small_cnn", "model.sizes={}", "data.size_px=8"], "cannot learn from 4 x 8 px .*Output size is too small"),
        (
            ["model.name=classifier", "model.sizes={backbone: resnet18}", "train.batch=1", "train.mix={}"],
            r"cannot learn from 1 x 32 px .*Expected more than 1 value per channel.*, or raise train\.batch",
        ),
    ],
)
def test_a_size_that_the_network_cannot_see_leaves_no_run_behind(data, recipe, tmp_path, changes, expected):
    with pytest.raises(ConfigError, match=expected):
        run(recipes.read(recipe, changes=changes), data=data, out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_statistics_of_imagenet_are_for_three_bands(data, recipe, finished, tmp_path):
    imagenet = ["train.normalise=imagenet", "train.epochs=2", "train.warmup_epochs=0"]
    run(recipes.read(recipe, changes=imagenet), data=data, out=tmp_path / "run", device="cpu")
    assert read_card(tmp_path / "run").normalisation.mean == (123.675, 116.28, 103.53)
    with pytest.raises(BandMismatch, match=r"is for red, green and blue, the images have 2 bands: red, blue; choose three"):
        run(recipes.read(recipe, changes=[*imagenet, "data.bands=[1, 3]"]), data=data, out=tmp_path / "two", device="cpu")
    assert not (tmp_path / "two").exists()


def test_another_recipe_on_the_same_folder_is_refused(data, recipe, finished):
    with pytest.raises(RunError, match=r"-    mixup: 0\.8\n\+    mixup: 0\.4"):
        run(recipes.read(recipe, changes=["train.mix.mixup=0.4"]), data=data, out=finished, device="cpu")
    assert run(recipes.read(recipe), data=data, out=finished, device="cpu").already_done


class Pairs:
    """A dataset as torchgeo has them."""

    def __init__(self, *, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        name = CLASSES[index % 3]
        image = torch.from_numpy(picture(HUES[name], seed=index)).permute(2, 0, 1).float()
        return {"image": image, "label": torch.tensor(index % 3)}


def test_datasets_of_other_libraries_train(recipe, tmp_path):
    bands, classes = Bands(names=("red", "green", "blue")), Classes.named(CLASSES)
    train, validation = (from_scene_samples(Pairs(count=n), bands=bands, classes=classes) for n in (9, 6))
    experiment = recipes.read(recipe, changes=["train.epochs=2", "model={name: small_cnn}", "train.warmup_epochs=0"])
    result = run_samples(experiment, train=train, validation=validation, out=tmp_path / "run", device="cpu")
    assert result.steps == 6
    assert "9 images train, 6 validate" in result.split
    assert result.leakage.startswith("not checked")
    assert read_card(tmp_path / "run").training.images == 9
