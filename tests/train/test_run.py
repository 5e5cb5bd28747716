import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import yaml
from safetensors.torch import load_file

from terralean.cost.macs import count_macs_at
from terralean.data.samples import from_samples
from terralean.data.split import load_split
from terralean.errors import ConfigError, EmptySplit, RunError, WeightsDoNotFit
from terralean.models import create
from terralean.predict import load
from terralean.spec import Bands, Classes
from terralean.train.material import fingerprint
from terralean.train.run import run, run_samples
from terralean.train.temperature import NO_SPLIT
from terralean.weights.card import read_card

KILLED = """
import os, signal, sys
from pathlib import Path
from terralean import recipes
from terralean.train.run import run
def tell(progress):
    if progress.step == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
experiment = recipes.read("lemevit_tiny_light", changes=sys.argv[4:])
run(experiment, data=Path(sys.argv[1]), out=Path(sys.argv[2]), device="cpu", tell=tell)
"""


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_holds_what_the_design_names(finished):
    names = {path.name for path in finished.iterdir()}
    files = {"recipe.yaml", "split.json", "data.json", "metrics.csv", "card.json", "weights.safetensors"}
    assert names == {*files, "tensorboard"}
    assert [row["step"] for row in rows(finished)] == ["2", "4", "6"]
    assert all(float(row["val_miou"]) >= 0 and float(row["train_loss"]) > 0 for row in rows(finished))


def test_card_says_what_the_model_is(finished, data):
    card = read_card(finished)
    assert card.bands.names == ("left", "right")
    assert card.classes.names == ("first", "second")
    assert card.classes.colours == ((255, 0, 0), (0, 0, 255))
    assert (card.tile_px, card.overlap_px) == (32, 8)
    assert card.training.steps == 6
    assert card.training.images == 2
    assert "no leak found" in card.training.leakage
    assert card.cost["parameters"] == 8_784_674
    best = max(float(row["val_miou"]) for row in rows(finished))
    assert card.metrics["validation"]["miou"] == pytest.approx(best, abs=1e-5)
    predictor = load(finished, device="cpu")
    assert predictor(torch.zeros(1, 2, 32, 32), torch.ones(1, 32, 32, dtype=torch.bool)).shape == (1, 2, 32, 32)


def test_normalisation_is_that_of_the_training_images_alone(finished, data):
    stacks = []
    for index in (0, 1):
        with rasterio.open(data / f"{index}.tif") as dataset:
            stacks.append(dataset.read().reshape(2, -1))
    pixels = np.concatenate(stacks, axis=1).astype(float)
    card = read_card(finished)
    assert card.normalisation.mean == pytest.approx(pixels.mean(axis=1), rel=1e-6)
    assert card.normalisation.std == pytest.approx(pixels.std(axis=1), rel=1e-3)


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_killed_run_goes_on_to_the_same_weights(data, finished, experiment, tmp_path, step):
    out = tmp_path / "run"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, data, out, str(step), *experiment.changes], capture_output=True, check=False
    )
    assert killed.returncode == -9, killed.stderr.decode()
    assert not (out / "card.json").exists()
    run(experiment(), data=data, out=out, device="cpu")
    whole, again = (load_file(folder / "weights.safetensors") for folder in (finished, out))
    assert [name for name in whole if not torch.equal(whole[name], again[name])] == []
    for one, two in zip(rows(finished), rows(out), strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in two.items() if k != "seconds"}


def test_the_same_command_on_a_finished_run_does_nothing(finished, data, experiment):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    result = run(experiment(), data=data, out=finished, device="cpu")
    assert result.already_done
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*")}


def test_another_recipe_is_refused_with_the_difference(finished, data, experiment):
    with pytest.raises(RunError, match=r"-  lr: 0\.002\n\+  lr: 0\.003"):
        run(experiment("train.lr=0.003"), data=data, out=finished, device="cpu")


def test_a_recipe_of_a_version_with_fewer_settings_is_gone_on_with(finished, data, experiment, tmp_path):
    """What it does not say was as it is by default."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    older = yaml.safe_load((out / "recipe.yaml").read_text())
    del older["train"]["final_lr"], older["tiling"], older["data"]["augment"]["flips"]
    (out / "recipe.yaml").write_text(yaml.safe_dump(older, sort_keys=False))
    with pytest.raises(RunError, match=r"\+tiling:\n\+  tile_px: 32"):  # by default 512
        run(experiment(), data=data, out=out, device="cpu")
    older["tiling"] = {"tile_px": 32, "overlap_px": 8}
    (out / "recipe.yaml").write_text(yaml.safe_dump(older, sort_keys=False))
    assert run(experiment(), data=data, out=out, device="cpu").already_done
    with pytest.raises(RunError, match="begun with another recipe"):
        run(experiment("train.final_lr=0.001"), data=data, out=out, device="cpu")
    (out / "recipe.yaml").write_text(yaml.safe_dump({**older, "unknown": 1}, sort_keys=False))
    with pytest.raises(RunError, match="-unknown: 1"):
        run(experiment(), data=data, out=out, device="cpu")


def test_a_finished_run_does_not_pretend_to_other_data(finished, experiment, tmp_path):
    with pytest.raises(RunError, match="is finished and was trained on"):
        run(experiment(), data=tmp_path, out=finished, device="cpu")


def test_a_folder_with_other_files_is_left_alone(data, tmp_path, experiment):
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(RunError, match="is no run of terralean"):
        run(experiment(), data=data, out=tmp_path, device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_other_data_are_refused(data, tmp_path, experiment):
    out = tmp_path / "run"
    subprocess.run([sys.executable, "-c", KILLED, data, out, "1", *experiment.changes], capture_output=True, check=False)
    index = (data / "index.csv").read_text()
    (data / "index.csv").write_text(index.replace("1.tif,1_mask.tif,train", "1.tif,1_mask.tif,test"))
    try:
        with pytest.raises(RunError, match=r"split\.json differs"):
            run(experiment(), data=data, out=out, device="cpu")
    finally:
        (data / "index.csv").write_text(index)


@pytest.mark.parametrize(
    "change",
    [
        "train.lr=0.0005",
        "train.final_lr=0.001",
        "train.schedule=poly",
        "train.warmup_steps=3",
        "train.weight_decay=0.9",
        "train.backbone_lr=0.1",
        "train.clip_norm=0.01",
        "train.ema_decay=null",
        "train.loss.dice=0",
        "train.precision=bf16",
        "data.rare_share=1",
        "model.sizes={drop_path: 0.5}",
        "seed=1",
    ],
)
def test_every_setting_changes_the_weights(data, finished, tmp_path, change, experiment):
    run(experiment(change), data=data, out=tmp_path / "run", device="cpu")
    one, two = (load_file(folder / "weights.safetensors") for folder in (finished, tmp_path / "run"))
    assert any(not torch.equal(one[name], two[name]) for name in one)


def test_training_stops_when_validation_no_longer_improves(data, tmp_path, experiment):
    changes = ("train.lr=1e-12", "train.final_lr=0", "train.patience=2", "train.steps=30", "train.validate_every=1")
    result = run(experiment(*changes), data=data, out=tmp_path / "run", device="cpu")
    miou = [float(row["val_miou"]) for row in rows(tmp_path / "run")]
    assert len(miou) == result.steps < 30
    assert max(miou[-2:]) <= max(miou[:-2])
    assert read_card(tmp_path / "run").training.steps == result.steps


def test_without_a_validation_split_the_last_weights_are_kept(data, tmp_path, experiment):
    folder = tmp_path / "data"
    folder.mkdir()
    for path in data.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    lines = (data / "index.csv").read_text().replace("validation", "train")
    (folder / "index.csv").write_text(lines)
    result = run(experiment("data.split.validation=0"), data=folder, out=tmp_path / "run", device="cpu")
    assert result.validation is None
    card = load(tmp_path / "run", device="cpu").card
    assert (card.temperature, card.metrics) == (1.0, {"calibration": {"not_fitted": NO_SPLIT}})


def test_training_starts_from_given_weights(data, finished, tmp_path, experiment):
    changes = (f"model.weights={finished}", "train.lr=1e-9", "train.final_lr=0", "train.ema_decay=null", "train.steps=2")
    run(experiment(*changes), data=data, out=tmp_path / "run", device="cpu")
    one, two = (load_file(folder / "weights.safetensors") for folder in (finished, tmp_path / "run"))
    torch.testing.assert_close(one["head.classify.weight"], two["head.classify.weight"], rtol=1e-4, atol=1e-6)


def test_weights_that_do_not_fit_leave_no_run(data, tmp_path, experiment):
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsDoNotFit):
        run(experiment(f"model.weights={tmp_path / 'other.pth'}"), data=data, out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_no_training_image(data, tmp_path, experiment):
    folder = tmp_path / "data"
    folder.mkdir()
    for path in data.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "index.csv").write_text((data / "index.csv").read_text().replace(",train", ",test"))
    with pytest.raises(EmptySplit, match="the train split is empty"):
        run(experiment(), data=folder, out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_device_that_is_not_there(data, tmp_path, experiment):
    with pytest.raises(ConfigError, match="is not here"):
        run(experiment(), data=data, out=tmp_path / "run", device="cuda:63")
    assert not (tmp_path / "run").exists()


def test_fingerprint_follows_names_sizes_and_windows(finished):
    regions = load_split(finished / "split.json").of("train")
    assert fingerprint(regions) == fingerprint(regions[::-1]) == read_card(finished).training.data
    assert fingerprint(regions) != fingerprint(regions[:1])


class Fields:
    """A dataset as torchgeo's are: dictionaries of image and mask, each of its own size."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        mask = torch.zeros(40 + 8 * index, 48, dtype=torch.int64)
        mask[:, 24:] = 1
        generator = torch.Generator().manual_seed(index)
        image = torch.rand(2, *mask.shape, generator=generator) + torch.stack([mask == 0, mask == 1])
        return {"image": image, "mask": mask[None]}


def test_dictionaries_of_other_libraries_train_like_a_folder(experiment, tmp_path):
    bands, classes = Bands(names=("left", "right"), dtype="float32"), Classes.named(("first", "second"))
    train, validation = (from_samples(Fields(count), bands=bands, classes=classes) for count in (3, 2))
    result = run_samples(experiment(), train=train, validation=validation, out=tmp_path / "run", device="cpu")
    card = read_card(tmp_path / "run")
    assert card.bands == bands
    assert card.training.images == 3
    assert "not checked" in card.training.leakage
    assert result.validation == pytest.approx(max(float(row["val_miou"]) for row in rows(tmp_path / "run")), abs=1e-5)
    predictor = load(tmp_path / "run", device="cpu")
    assert predictor(torch.zeros(1, 2, 32, 32), torch.ones(1, 32, 32, dtype=torch.bool)).shape == (1, 2, 32, 32)
    again = run_samples(experiment(), train=train, validation=validation, out=tmp_path / "run", device="cpu")
    assert again.already_done


def test_a_model_that_sees_squares_of_pixels_costs_less_and_answers_for_every_pixel(data, experiment, tmp_path):
    run(experiment("model.shrink=2"), data=data, out=tmp_path / "half", device="cpu")
    card = read_card(tmp_path / "half")
    assert card.shrink == 2
    network = create("lemevit_tiny_light", bands=2, classes=2, drop_path=0.1)
    assert card.cost["macs_layers"] == count_macs_at(network, (1, 2, 16, 16)).layers  # tiles of 32 px
    image = torch.randint(0, 255, (1, 2, 33, 47)).float()
    assert load(tmp_path / "half", device="cpu")(image, torch.ones(1, 33, 47, dtype=torch.bool)).shape == (1, 2, 33, 47)


@pytest.mark.parametrize("change", ["model.shrink=0", "model.shrink=5"])
def test_a_shrink_that_does_not_divide_the_crop_is_refused(experiment, change):
    with pytest.raises(ConfigError, match=r"at least 1 and divide data.tile_px, got . and 32 px"):
        experiment(change)


def test_a_folder_of_seeds_is_no_run_of_one(data, tmp_path, experiment):
    (tmp_path / "seed2").mkdir()
    with pytest.raises(RunError, match="holds a run for each of the seeds 2; go on with --seeds, or give a new --out"):
        run(experiment(), data=data, out=tmp_path, device="cpu")
