"""Training of a detector of oriented boxes, from a folder to a run, and what is made of that run."""

import csv
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch

from terralean import recipes
from terralean.data.oriented.dota import read_labels, write_labels
from terralean.data.oriented.samples import from_object_samples
from terralean.errors import ConfigError, DatasetError, LabelError
from terralean.inspect.run import describe_run
from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import Bands, Classes
from terralean.train.run import run, run_samples
from terralean.weights.card import read_card, write_card
from terralean.weights.checkpoint import read_tensors, save_weights

SIDE = 96
NAMES = ("boat", "car")
CHANGES = (
    "model.name=orcnn",
    "model.sizes={backbone: test_resnet, width: 24, hidden: 64, proposals: 100}",
    f"data.tile_px={SIDE}",
    "data.overlap_px=24",
    "data.radiometry={brightness: 0.0, contrast: 0.0}",
    "data.augment={flips: true, rotate90: false}",
    "train.batch=2",
    "train.lr=0.003",
    "train.warmup_steps=5",
    "train.epochs=60",
    "train.validate_every=30",
)


def experiment(*changes: str):
    return recipes.read("detection_orcnn_lemevit_tiny", changes=[*CHANGES, *changes])


def paint(folder, stem: str, *, seed: int, place: int, side: int = SIDE) -> None:
    """A GeoTIFF with three rectangles in the colour of their class and its labels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] + 0.5
    image = rng.integers(20, 40, (3, side, side)).astype(np.uint8)
    polygons, names = [], []
    for number, (cx, cy) in enumerate([(side * 0.28, side * 0.3), (side * 0.7, side * 0.35), (side * 0.48, side * 0.75)]):
        angle, label = rng.uniform(-1.5, 1.5), number % 2
        cos, sin = math.cos(angle), math.sin(angle)
        along, across = (x - cx) * cos + (y - cy) * sin, (y - cy) * cos - (x - cx) * sin
        image[label, (np.abs(along) <= 15) & (np.abs(across) <= 7)] = 220
        corners = [(-15, -7), (15, -7), (15, 7), (-15, 7)]
        polygons.append([value for u, v in corners for value in (cx + u * cos - v * sin, cy + u * sin + v * cos)])
        names.append(NAMES[label])
    grid = Grid(width=side, height=side, crs="EPSG:32633", transform=(0.5, 0, 5e5 + 1000 * place, 0, -0.5, 5e6))
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "labelTxt").mkdir(exist_ok=True)
    write_scene(folder / "images" / f"{stem}.tif", image, grid=grid, bands=Bands(names=("red", "green", "blue")), nodata=None)
    hard = np.zeros(len(names), np.uint8)
    write_labels(folder / "labelTxt" / f"{stem}.txt", np.array(polygons), names, hard)


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    root = tmp_path_factory.mktemp("objects")
    for number, split in enumerate(["train", "train", "val", "test"]):
        paint(root / split, f"harbour_{number}", seed=number % 2, place=number)  # what judges looks like what trains
    return root


@pytest.fixture(scope="module")
def trained(objects, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return run(experiment(), data=objects, out=out, device="cpu"), out


def test_a_run_learns_rectangles_by_heart(trained):
    result, out = trained
    assert result.score == "mAP@0.5 (area)" and result.validation > 0.9
    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["30", "60"]
    assert float(rows[1]["train_loss"]) < float(rows[0]["train_loss"])
    assert float(rows[1]["val_map50_voc07"]) > 0.9


def test_the_card_says_what_the_model_is(trained):
    card = read_card(trained[1])
    assert (card.task, card.classes.names, card.tile_px, card.overlap_px) == ("detection", NAMES, SIDE, 24)
    assert card.metrics["calibration"] == {"not_fitted": "the scores of detections are taken as the network gives them"}
    assert card.cost["macs_layers"] > 1e6 and card.cost["macs_at_px"] == SIDE
    split = json.loads((trained[1] / "split.json").read_text())
    assert [row[1] for row in sorted(split["images"], key=lambda row: row[0][-5])] == ["train", "train", "validation", "test"]
    assert "2 images" in card.training.split


def test_inspect_finds_nothing_wrong_with_the_run(trained):
    report = describe_run(trained[1])
    assert report.finished and report.splits == {"train": 2, "validation": 1, "test": 1}
    assert [one for one in report.findings if one.severity == "error"] == []


def test_the_same_command_on_a_finished_run_does_nothing(trained, objects):
    again = run(experiment(), data=objects, out=trained[1], device="cpu")
    assert again.already_done and again.validation == trained[0].validation


def test_a_scene_becomes_georeferenced_boxes(trained, objects, tmp_path, terralean):
    scene = objects / "test" / "images" / "harbour_3.tif"
    status, out, err = terralean("map", trained[1], scene, "--out", tmp_path, "--json", "--device", "cpu")
    assert status == 0, err
    (told,) = json.loads(out)["maps"]
    import pyogrio  # noqa: PLC0415 - to open the file again
    import shapely  # noqa: PLC0415

    meta, _, geometry, values = pyogrio.raw.read(tmp_path / "harbour_3_boxes.gpkg")
    assert meta["crs"] == "EPSG:32633"
    found = dict(zip(meta["fields"], values, strict=True))
    sure = found["score"] > 0.5
    assert sorted(found["class"][sure]) == ["boat", "boat", "car"]
    assert told["objects"] == {name: int((found["class"] == name).sum()) for name in NAMES}
    truth = read_labels(objects / "test" / "labelTxt" / "harbour_3.txt")
    with rasterio.open(scene) as opened:
        a, b, c, d, e, f = opened.transform[:6]
    corners = truth.polygons.reshape(-1, 4, 2)
    x, y = corners[..., 0], corners[..., 1]
    ground = shapely.polygons(np.stack([a * x + b * y + c, d * x + e * y + f], axis=-1))
    for shape, name in zip(ground, truth.names, strict=True):
        best = max(
            shape.intersection(other).area / shape.union(other).area
            for other, label in zip(shapely.from_wkb(geometry[sure]), found["class"][sure], strict=True)
            if label == name
        )
        assert best > 0.5
    lines = (tmp_path / "harbour_3_dota" / "Task1_boat.txt").read_text().splitlines()
    assert len(lines) == told["objects"]["boat"] and all(line.startswith("harbour_3 ") for line in lines)


def test_evaluation_scores_the_test_images(trained, terralean):
    status, out, err = terralean("evaluate", trained[1], "--json", "--device", "cpu")
    assert status == 0, err
    told = json.loads(out)
    assert told["images"] == 1 and told["mAP@0.5 (VOC07)"]["value"] > 0.9 and told["mAP@0.5 (area)"]["value"] > 0.9
    assert [(one["name"], one["objects"]) for one in told["classes"]] == [("boat", 2), ("car", 1)]
    assert told["leakage"].startswith("no leak found") and told["intervals"].startswith("No intervals")
    page = (trained[1] / "report.html").read_text()
    assert "mAP@0.5 (VOC07)" in page and "boat" in page and "Training and test are kept apart" in page
    assert len((trained[1] / "detections" / "Task1_boat.txt").read_text().splitlines()) >= 2
    assert read_card(trained[1]).metrics["test"]["mAP@0.5 (VOC07)"] == told["mAP@0.5 (VOC07)"]


def test_other_data_are_scored_elsewhere(trained, objects, tmp_path, terralean):
    status, out, err = terralean("evaluate", trained[1], "--data", objects / "train", "--out", tmp_path / "report")
    assert status == 0, err
    assert "mAP@0.5 (VOC07)" in out and (tmp_path / "report" / "evaluation.json").is_file()


@pytest.fixture(scope="module")
def seeds(trained, tmp_path_factory):
    """The run twice, the second time with weights that find no cars."""
    root = tmp_path_factory.mktemp("seeds") / "both"
    for seed in (0, 1):
        folder = root / f"seed{seed}"
        shutil.copytree(trained[1], folder, ignore=shutil.ignore_patterns("last", "detections"))
        card = read_card(folder)
        write_card(replace(card, training=replace(card.training, seed=seed)), folder)
    tensors = read_tensors(root / "seed1" / "weights.safetensors")
    tensors["roi.classify.bias"][NAMES.index("car")] -= 100
    save_weights(tensors, root / "seed1" / "weights.safetensors")
    return root


def test_several_seeds_have_a_mean_and_a_spread(seeds, terralean):
    status, out, err = terralean("evaluate", seeds, "--json", "--device", "cpu")
    assert status == 0, err
    told = json.loads(out)
    first, second = (one["mAP@0.5 (area)"]["value"] for one in told["seeds"])
    assert [one["seed"] for one in told["seeds"]] == [0, 1] and second < first
    assert told["mAP@0.5 (area)"]["value"] == pytest.approx((first + second) / 2)
    assert told["mAP@0.5 (area)"]["sd"] == pytest.approx(abs(first - second) / math.sqrt(2))
    assert told["verdict"][0].startswith("mAP@0.5 (VOC07) is ") and "in the mean over 2 seeds" in told["verdict"][0]
    page = (seeds / "report.html").read_text()
    assert "Seed by seed" in page and page.count("data:image/jpeg") == 1
    of_card = read_card(seeds / "seed1").metrics["test"]["mAP@0.5 (area)"]["value"]
    assert of_card == pytest.approx(second)


def test_runs_stand_beside_each_other(seeds, tmp_path, terralean):
    first, second = seeds / "seed0", seeds / "seed1"
    status, out, err = terralean("evaluate", first, "--against", second, "--json", "--device", "cpu")
    assert status == 0, err
    told = json.loads(out)
    (other,) = told["against"]
    apart = told["mAP@0.5 (VOC07)"]["value"] - other["mAP@0.5 (VOC07)"]["value"]
    assert other["difference"]["mAP@0.5 (VOC07)"]["value"] == pytest.approx(apart) and apart > 0
    assert "are too few to say how sure that is" in other["verdict"] and other["verdict"] in told["verdict"]
    assert "Beside other runs" in (first / "report.html").read_text()
    status, _, err = terralean("evaluate", first, "--against", first)
    assert status == 2 and "is the run itself" in " ".join(err.split())


def test_runs_of_other_test_images_are_not_compared(seeds, objects, tmp_path, terralean):
    shutil.copytree(seeds / "seed0", tmp_path / "other")
    path = tmp_path / "other" / "split.json"
    saved = json.loads(path.read_text())
    saved["images"] = [[name, "test" if split == "validation" else split, group] for name, split, group in saved["images"]]
    path.write_text(json.dumps(saved))
    status, _, err = terralean("evaluate", seeds / "seed0", "--against", tmp_path / "other")
    told = " ".join(err.split())
    assert status == 2 and "were not tested on the same images: 1 are the same" in told and "harbour_2.tif" in told


def test_what_a_detector_cannot_do_is_refused(trained, objects, tmp_path, terralean):
    scene = objects / "test" / "images" / "harbour_3.tif"
    status, _, err = terralean("map", trained[1], scene, "--out", tmp_path, "--confidence")
    assert status == 2 and "finds oriented boxes, for which --confidence has no meaning" in " ".join(err.split())
    status, _, err = terralean("map", trained[1], scene, "--out", tmp_path, "--memory", "2GB", "--scores")
    assert status == 2 and "for which --scores, --memory have no meaning" in " ".join(err.split())
    status, _, err = terralean("evaluate", trained[1], "--noise", "0,100")
    assert status == 2 and "--noise is for runs of segmentation" in " ".join(err.split())


def test_images_of_one_name_are_not_scored_into_one_file(trained, objects, tmp_path, terralean):
    rows = ["path,label"]
    for number, split in ((0, "train"), (3, "test")):
        for kind, suffix in (("images", ".tif"), ("labelTxt", ".txt")):
            (tmp_path / "data" / split / kind).mkdir(parents=True)
            shutil.copy(objects / split / kind / f"harbour_{number}{suffix}", tmp_path / "data" / split / kind / f"one{suffix}")
        rows.append(f"{split}/images/one.tif,{split}/labelTxt/one.txt")
    (tmp_path / "data" / "index.csv").write_text("\n".join(rows) + "\n")
    status, _, err = terralean("evaluate", trained[1], "--data", tmp_path / "data", "--out", tmp_path / "report")
    assert status == 2 and "several images are called one; result files name them so" in " ".join(err.split())
    assert not (tmp_path / "report").exists()


def test_recipes_of_the_package_are_read():
    for name in ("lemevit_tiny", "lemevit_small", "lemevit_base", "swin_tiny"):
        found = recipes.read(f"dota_orcnn_{name}")
        assert found.train.epochs == 12 and found.data.split.merge and found.train.schedule == "step"
        assert len(found.data.classes) == 15
    assert recipes.read("dota_orcnn_lemevit_base").train.lr == 5e-5


def test_a_model_that_finds_no_boxes_is_refused():
    with pytest.raises(ConfigError, match=r"model lemevit_tiny_upernet finds no oriented boxes.*nearest: lemevit_tiny_orcnn"):
        recipes.read("detection_orcnn_lemevit_tiny", changes=["model.name=lemevit_tiny_upernet"])


def test_a_warm_up_longer_than_the_run_is_refused(objects, tmp_path):
    with pytest.raises(ConfigError, match=r"train.warmup_steps 500 leaves nothing of 60 steps"):
        run(experiment("train.warmup_steps=500"), data=objects, out=tmp_path / "run", device="cpu")


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_norms_keep_their_statistics(objects, tmp_path, frozen):
    short = experiment(f"train.freeze_norms={frozen}", "train.epochs=2", "train.validate_every=2", "train.warmup_steps=1")
    run(short, data=objects, out=tmp_path / "run", device="cpu")
    means = [t for name, t in read_tensors(tmp_path / "run" / "weights.safetensors").items() if name.endswith("running_mean")]
    assert len(means) > 5 and all(bool((mean == 0).all()) for mean in means) == frozen


class Boats:
    """Torchgeo's kind of dictionaries: a boat in each of four images, smaller than a tile."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        image = torch.full((3, 64, 80), 30.0) + torch.rand(3, 64, 80, generator=torch.Generator().manual_seed(index))
        image[0, 20:32, 10 + index : 40 + index] = 220.0
        corners = [10.0 + index, 20, 40 + index, 20, 40 + index, 32, 10 + index, 32]
        return {"image": image, "bbox": torch.tensor([corners]), "labels": torch.tensor([0])}


def test_datasets_of_dictionaries_train(tmp_path):
    bands, classes = Bands(names=("red", "green", "blue"), dtype="float32"), Classes.named(("boat",))
    samples = from_object_samples(Boats(), bands=bands, classes=classes)
    short = experiment("train.epochs=20", "train.validate_every=20", "train.warmup_steps=2", "data.augment.flips=false")
    result = run_samples(short, train=samples, validation=samples, out=tmp_path / "run", device="cpu")
    assert result.validation > 0.5 and result.split == "as Boats has it: 4 samples train, 4 validate"
    with pytest.raises(DatasetError, match=r"sample 0 of Boats is 80 x 64 px, data.tile_px is 64"):
        samples.of_side(64)[0]
    with pytest.raises(LabelError, match="no training tile has an object of car"):
        other = from_object_samples(Boats(), bands=bands, classes=Classes.named(("boat", "car")))
        run_samples(short, train=other, validation=None, out=tmp_path / "other", device="cpu")
