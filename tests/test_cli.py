"""What a user types, and what comes back: status, standard output, standard error."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pyogrio
import pytest
import rasterio
from PIL import Image
from typer.main import get_command

from terralean import recipes
from terralean.cli import app
from terralean.cli.console import out_console
from terralean.cli.evaluation_tables import score_table
from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import Bands
from terralean.train.config import to_yaml

OPTIONS = {
    "demo": {"--out", "--json", "--verbose"},
    "inspect": {"--set", "--json", "--verbose"},
    "train": {"--data", "--out", "--set", "--device", "--devices", "--seed", "--seeds", "--json", "--verbose"},
    "evaluate": {
        *("--data", "--out", "--against", "--noise", "--noise-mode", "--noise-seed", "--set"),
        *("--device", "--precision", "--json", "--verbose"),
    },
    "map": {
        *("--out", "--bands", "--tile", "--overlap", "--batch", "--confidence", "--polygons", "--table", "--overwrite"),
        *("--set", "--device", "--precision", "--json", "--verbose"),
    },
    "classify": {
        *("--out", "--top", "--bands", "--batch", "--overwrite"),
        *("--device", "--precision", "--json", "--verbose"),
    },
    "explain": {
        *("--out", "--show", "--set", "--direction", "--stage", "--block", "--tokens", "--head", "--by", "--part"),
        *("--bands", "--tile", "--overwrite"),
        *("--device", "--precision", "--json", "--verbose"),
    },
    "benchmark": {
        *("--batch", "--size", "--bands", "--classes", "--train", "--rounds", "--precision", "--mode", "--device"),
        *("--on", "--reduce", "--images"),
        *("--csv", "--figure", "--accuracy", "--paper", "--json", "--verbose"),
    },
    "export": {"--format", "--out", "--json", "--verbose"},
    "list": {"--json"},
}
GRID = Grid(width=90, height=70, crs="EPSG:32633", transform=(0.5, 0.0, 3e5, 0.0, -0.5, 5.2e6))


@pytest.fixture
def scene(tmp_path):
    values = np.random.default_rng(0).integers(1, 255, (3, 70, 90)).astype(np.uint8)
    write_scene(tmp_path / "scene.tif", values, grid=GRID, bands=Bands(names=("red", "green", "blue")), nodata=0)
    return tmp_path / "scene.tif"


def test_verbs_and_their_options_are_these():
    commands = get_command(app).commands
    found = {name: {max(o.opts, key=len) for o in c.params if o.opts[0].startswith("-")} for name, c in commands.items()}
    assert found == OPTIONS


def test_help_does_not_load_torch():
    code = (
        "import sys; sys.argv = ['terralean', '--help']\nfrom terralean.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    )
    code += "sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_version(terralean):
    assert terralean("--version")[:2] == (0, "0.1.0\n")


def test_map_writes_the_file_and_one_json_document(terralean, untrained, scene, tmp_path):
    status, out, _ = terralean("map", untrained, scene, "--out", tmp_path / "maps", "--device", "cpu", "--json")
    assert status == 0
    document = json.loads(out)
    assert document["failed"] == {}
    with rasterio.open(document["maps"][0]["path"]) as dataset:
        assert dataset.shape == (70, 90)
        assert dataset.crs.to_epsg() == 32633


def test_map_tells_shares_on_stdout_and_nothing_else(terralean, untrained, scene, tmp_path):
    status, out, _ = terralean("map", untrained, scene, "--out", tmp_path / "maps", "--device", "cpu")
    assert status == 0
    assert "scene_map.tif" in out
    assert "field" in out
    assert "forest" in out


def test_a_scene_classifier_maps_cells_with_all_that_is_asked_for(terralean, recogniser, scene, tmp_path):
    arguments = ("map", recogniser, scene, "--out", tmp_path / "maps", "--device", "cpu", "--overlap", "16", "--confidence")
    status, out, _ = terralean(*arguments, "--polygons", "gpkg", "--table", "--json")
    assert status == 0
    (result,) = json.loads(out)["maps"]
    names = {name: tmp_path / "maps" / f"scene_{name}" for name in ("map.tif", "confidence.tif", "polygons.gpkg", "cells.csv")}
    assert [result[key] for key in ("path", "confidence", "polygons", "table")] == [str(path) for path in names.values()]
    assert (result["width_px"], result["height_px"], result["cell_px"]) == (5, 4, 16)
    with rasterio.open(names["map.tif"]) as dataset:
        assert dataset.crs.to_epsg() == 32633
        assert tuple(dataset.transform)[:6] == (8.0, 0.0, 3e5 + 4, 0.0, -8.0, 5.2e6 - 4)
        labels = dataset.read(1)
    with names["cells.csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [("field", "forest", "water <&>").index(row["class"]) for row in rows] == labels.ravel().tolist()
    assert pyogrio.read_info(names["polygons.gpkg"])["crs"] == "EPSG:32633"
    status, out, _ = terralean(*arguments, "--polygons", "fgb", "--overwrite")
    assert status == 0
    assert [line.strip().rsplit("_", 1)[-1] for line in out.splitlines()[2:]] == ["confidence.tif", "polygons.fgb"]


def test_classify_tells_the_classes_of_images(terralean, recogniser, tmp_path):
    for name, colour in (("a", (180, 120, 130)), ("b", (100, 210, 120)), ("c", (100, 220, 120))):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(np.full((40, 40, 3), colour, np.uint8)).save(tmp_path / "images" / f"{name}.png")
    arguments = ("classify", recogniser, tmp_path / "images", "--device", "cpu")
    status, out, _ = terralean(*arguments, "--top", "2")
    assert status == 0
    # Logits 80 / 40, 10 / 50 and 10 / 60.
    assert out.splitlines()[0] == f"{tmp_path}/images/a.png: field 75.5%, forest 12.5%"
    assert len(out.splitlines()) == 3
    (tmp_path / "images" / "broken.jpg").write_bytes(b"no image")
    status, out, err = terralean(*arguments, "--out", tmp_path / "table.csv")
    assert status == 1
    assert out == f"{tmp_path}/table.csv: 3 images\n  forest 2, field 1\n"
    assert "1 of 4 images failed" in err
    assert "broken.jpg" in err
    status, out, _ = terralean(*arguments, "--json")
    assert status == 1
    document = json.loads(out)
    assert [image["likeliest"][0]["name"] for image in document["images"]] == ["field", "forest", "forest"]
    assert [*document["failed"]] == [str(tmp_path / "images" / "broken.jpg")]
    Image.fromarray(np.full((40, 40), 9, np.uint8)).save(tmp_path / "grey.png")
    status, out, err = terralean("classify", recogniser, tmp_path / "grey.png")
    assert (status, out) == (2, "")
    assert "scene: band_1\n  model: red, green, blue" in err


def test_inspect_tells_labelled_images_by_their_layout(terralean, tmp_path):
    rng = np.random.default_rng(0)
    for name in [f"{label}/{i}.png" for label in ("dry", "wet") for i in range(12)]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(tmp_path / name)
    status, out, _ = terralean("inspect", tmp_path, "--set", "data.split.test=0.5", "--set", "data.split.validation=0")
    assert status == 0
    assert "labelled images, a class for each as a whole; a folder per class" in out
    assert "  test        12 images" in out
    status, out, err = terralean("inspect", tmp_path, "--set", "data.tile_px=32")
    assert (status, out) == (2, "")
    assert "no setting data.tile_px" in " ".join(err.split())
    (tmp_path / "wet" / "0.png").write_bytes((tmp_path / "wet" / "0.png").read_bytes()[:200])
    status, out, _ = terralean("inspect", tmp_path, "--json")
    assert status == 2
    assert "0.png" in json.loads(out)[0]["findings"][0]["message"]


def test_explain_tells_a_table_and_one_json_document(terralean, untrained, scene, tmp_path):
    arguments = ("explain", untrained, scene, "--out", tmp_path / "seen", "--device", "cpu", "--tokens", "3,11", "--stage", "1")
    status, out, _ = terralean(*arguments)
    assert status == 0
    assert "token 11" in out and "S1 block 1 (shown): 2 tokens have" in out
    with rasterio.open(tmp_path / "seen" / "scene_meta_s1b1.tif") as dataset:
        assert dataset.descriptions == ("token 3", "token 11")
        assert dataset.crs.to_epsg() == 32633
    status, out, err = terralean(*arguments)
    assert status == 2
    assert out == ""
    assert "say --overwrite" in " ".join(err.split())
    status, out, _ = terralean(*arguments, "--direction", "image", "--head", "1", "--json")
    assert status == 0
    document = json.loads(out)
    assert document == json.loads((tmp_path / "seen" / "scene_image_s1b1_head1.json").read_text())
    assert [one["number"] for one in document["blocks"][0]["maps"]] == [3, 11]


def test_explain_shows_tokens_where_a_method_is_given(terralean, untrained, scene, tmp_path):
    arguments = ("explain", untrained, scene, "--out", tmp_path / "seen", "--device", "cpu")
    chosen = ("--set", "reduce.method=topk", "--set", "reduce.after=[2,4]", "--set", "reduce.counts=[9,4]")
    status, out, _ = terralean(*arguments, *chosen)
    assert status == 0
    assert [line.split()[:3] for line in out.splitlines()[1:3]] == [["2", "16", "9"], ["4", "16", "4"]]
    assert "layer 2 keeps " in out and "scene_tokens_topk.png" in out
    with rasterio.open(tmp_path / "seen" / "scene_tokens_topk.tif") as dataset:
        assert dataset.crs.to_epsg() == 32633
        assert dataset.transform[0] == 8.0
        assert set(np.unique(dataset.read())) == {0, 1, 2}
    status, out, _ = terralean(*arguments, "--show", "tokens", "--set", "reduce.method=tome", "--set", "reduce.r=2", "--json")
    assert status == 0
    assert json.loads(out) == json.loads((tmp_path / "seen" / "scene_tokens_tome.json").read_text())


def test_some_failed_scenes_are_status_1_and_named(terralean, untrained, scene, tmp_path):
    (tmp_path / "text.tif").write_text("no image")
    status, out, err = terralean("map", untrained, scene, tmp_path / "text.tif", "--out", tmp_path / "maps", "--device", "cpu")
    assert status == 1
    assert "scene_map.tif" in out
    assert "1 of 2 scenes failed" in err
    assert "text.tif" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("map", "RUN", "missing.tif", "--out", "OUT"), "missing.tif"),
        (("map", "nowhere", "SCENE", "--out", "OUT"), "nowhere is not there; give the folder named with --out in training"),
        (("map", "RUN", "SCENE", "--out", "OUT", "--bands", "red"), "positions from 1 with commas"),
        (("map", "RUN", "SCENE", "--out", "OUT", "--bands", "1,2"), "2 bands, the model was trained on 3"),
        (("map", "RUN", "SCENE", "--out", "OUT", "--batch", "0"), "at least 1 window, got 0"),
        (("map", "RUN", "SCENE", "SCENE", "--out", "OUT"), "is given twice"),
        (("train", "lemevit_tiny_light", "--data", ".", "--out", "OUT", "--seed", "-1"), "seed must be 0 or more, got -1"),
        (
            ("train", "lemevit_tiny_light", "--data", ".", "--out", "OUT", "--devices", "0"),
            "--devices must be 1 or more, got 0",
        ),
        (
            ("train", "lemevit_tiny_light", "--data", ".", "--out", "OUT", "--device", "cuda", "--devices", "64"),
            "--devices 64 asks for 64 GPUs, this machine",
        ),
        *(
            (("train", "lemevit_tiny_light", "--data", ".", "--out", "OUT", "--seeds", seeds), "two or more different numbers")
            for seeds in ("0,1,0", "0,-1", "0,one", "0", "")
        ),
        (
            ("train", "lemevit_tiny_light", "--data", ".", "--out", "OUT", "--seeds", "0,1", "--seed", "2"),
            "leave --seed and --set seed= out",
        ),
        (("train", "lemevit_tiny_light", "--data", ".", "--out", "RUN", "--seeds", "0,1", "--set", "seed=2"), "leave --seed"),
        (("map", "RUN", "SCENE", "--out", "OUT", "--bands", "1,2,9"), "9"),
        (("map", "RUN", "SCENE", "--out", "OUT", "--tile", "8"), "at least 32 px, got 8"),
        (("map", "RUN", "SCENE", "--out", "OUT", "--table"), "a table has a line for each cell"),
        (("map", "RUN", "SCENE", "--out", "OUT", "--polygons", "shp"), "'shp' is not one of"),
        (("classify", "RUN", "SCENE"), "was trained for segmentation, it tells no class of a whole image; use terralean map"),
        (("classify", "nowhere", "SCENE"), "nowhere is not there; give the folder named with --out in training"),
        (("classify", "RUN", "SCENE", "--top", "0"), "top must be at least 1 class, got 0"),
        (("map", "RUN", "SCENE", "--out", "OUT", "--overlap", "50"), "half the tile"),
        (("map", "RUN", "SCENE", "--out", "OUT", "--device", "tpu9"), "tpu9"),
        (("explain", "RUN", "SCENE", "--out", "OUT", "--stage", "3"), "in S3 image tokens read image tokens only"),
        (
            ("explain", "RUN", "SCENE", "--out", "OUT", "--tokens", "0,3-7"),
            "--tokens '0,3-7' must be whole numbers with commas",
        ),
        (("explain", "RUN", "SCENE", "--out", "OUT", "--part", "0,0,big,9"), "e.g. --part 0,0,512,512"),
        (("explain", "RUN", "SCENE", "--out", "OUT", "--tile", "60"), "give --tile a multiple of 8"),
        (("explain", "RUN", "missing.tif", "--out", "OUT"), "missing.tif"),
        (("explain", "RUN", "SCENE", "--out", "OUT", "--show", "tokens"), "takes no tokens out and merges none"),
        (
            ("explain", "RUN", "SCENE", "--out", "OUT", "--show", "tokens", "--stage", "1", "--head", "0"),
            "--stage and --head: only meta tokens have that",
        ),
        (("explain", "RUN", "SCENE", "--out", "OUT", "--set", "reduce.metod=tome"), "reduce: has no method"),
        (
            ("explain", "RUN", "SCENE", "--out", "OUT", "--set", "reduce.method=matp"),
            "has not been trained with the heads that reduce.method=matp grades tokens by",
        ),
        (("explain", "nowhere", "SCENE", "--out", "OUT"), "nowhere is not there"),
        (("train", "lemevit_tini", "--data", ".", "--out", "OUT"), "nearest: lemevit_tiny_light"),
        (("train", "lemevit_tiny_light", "--data", "nowhere", "--out", "OUT"), "nowhere"),
        (("train", "lemevit_tiny_light", "--data", ".", "--out", "OUT", "--set", "train.lrr=1"), "nearest: train.lr"),
        (("evaluate", "nowhere"), "nowhere"),
        (("inspect", "nowhere.tif"), "nowhere.tif"),
        (("benchmark",), "name models, or groups of them (lemevit, imagenet-peers, scene-peers, more-peers), or give --paper"),
        (("benchmark", "lemevit_tinny"), "no model 'lemevit_tinny' here or in timm, and no group; nearest: lemevit_tiny"),
        (("benchmark", "test_vit", "--batch", "0"), "batch must be at least 1, got 0"),
        (("benchmark", "test_vit", "--size", "2x3x4"), "or HEIGHTxWIDTH, e.g. 224 or 256x320, got '2x3x4'"),
        (("benchmark", "test_vit", "--mode", "fold"), "no mode 'fold'; nearest: folded"),
        (("benchmark", "test_vit", "--train", "--mode", "folded"), "leave it out with --train"),
        (("benchmark", "test_vit", "--precision", "fp16", "--device", "cpu"), "fp16 is for CUDA"),
        (("benchmark", "test_vit", "--accuracy", "test_vit=50"), "--accuracy is for a figure; give --figure FILE.svg, too"),
        (("benchmark", "test_vit", "--figure", "OUT", "--accuracy", "test_vit=50"), "name it out.svg rather than out"),
        (("benchmark", "test_vit", "--figure", "a.svg", "--accuracy", "resnet18=50"), "'resnet18' is not measured in this run"),
        (("benchmark", "test_vit", "--figure", "a.svg"), "no accuracy is known of test_vit"),
        (("benchmark", "--paper", "lemevit", "--batch", "8"), "leave lemevit, batches out"),
        (("inspect", ".", "--set", "train.lr=1"), "only data.key=value"),
    ],
)
def test_mistakes_are_status_2_with_a_message_and_no_output(
    terralean, untrained, scene, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    places = {"RUN": untrained, "SCENE": scene, "OUT": tmp_path / "out"}
    status, out, err = terralean(*[places.get(argument, argument) for argument in arguments])
    assert status == 2
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert not (tmp_path / "out").exists()


def test_full_disk_leaves_no_map(untrained, scene, tmp_path):
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))\n"
        f"sys.argv = ['terralean', 'map', {str(untrained)!r}, {str(scene)!r}, '--out', {str(tmp_path / 'maps')!r}]\n"
        "from terralean.cli import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "scene_map.tif" in done.stderr
    assert not (tmp_path / "maps").exists()


def test_ctrl_c_is_status_130_with_a_word_and_leaves_nothing(untrained, scene, tmp_path):
    code = (
        "import os, signal, sys\n"
        "import terralean.mapping.strips as strips\n"
        "def stop(*_, **__): os.kill(os.getpid(), signal.SIGINT)\n"
        "strips.Plan.weight = stop\n"
        f"sys.argv = ['terralean', 'map', {str(untrained)!r}, {str(scene)!r}, '--out', {str(tmp_path / 'maps')!r}]\n"
        "from terralean.cli import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert "stopped; nothing half-written is left" in done.stderr
    assert not (tmp_path / "maps").exists()


def test_inspect_tells_what_a_scene_is_and_fails_on_what_cannot_be_used(terralean, scene, tmp_path):
    status, out, _ = terralean("inspect", scene)
    assert status == 0
    assert "red, green, blue" in out
    assert "EPSG:32633" in out
    write_scene(
        tmp_path / "empty.tif", np.zeros((3, 70, 90), np.uint8), grid=GRID, bands=Bands(names=("a", "b", "c")), nodata=0
    )
    status, out, _ = terralean("inspect", tmp_path / "empty.tif", "--json")
    assert status == 2
    assert json.loads(out)[0]["findings"][0]["severity"] == "error"


def test_several_seeds_are_trained_evaluated_compared_and_mapped_one_by_one(terralean, experiment, data, tmp_path):
    recipe = tmp_path / "small.yaml"
    recipe.write_text(to_yaml(experiment("train.steps=2", "train.validate_every=1")))
    train = ["train", recipe, "--data", data, "--device", "cpu", "--json"]
    runs = tmp_path / "runs"
    status, out, _ = terralean(*train, "--out", runs, "--seeds", "3,1")
    assert status == 0
    assert [result["run"] for result in json.loads(out)["seeds"]] == [str(runs / "seed3"), str(runs / "seed1")]
    assert [recipes.read_run(runs / f"seed{seed}")[0].seed for seed in (1, 3)] == [1, 3]
    assert [recipes.read_run(runs / f"seed{seed}")[0].data.split.seed for seed in (1, 3)] == [0, 0]
    weights = {seed: (runs / f"seed{seed}" / "weights.safetensors").read_bytes() for seed in (1, 3)}
    assert weights[1] != weights[3]
    _, out, _ = terralean(*train, "--out", runs, "--seeds", "1,2,3")
    assert [result["already_done"] for result in json.loads(out)["seeds"]] == [True, False, True]
    assert (runs / "seed1" / "weights.safetensors").read_bytes() == weights[1]

    shutil.copytree(runs, tmp_path / "copy")
    status, out, _ = terralean("evaluate", runs, "--device", "cpu", "--against", tmp_path / "copy")
    assert status == 0
    for words in (
        "± seeds",
        "mIoU seed 1",
        "mIoU seed 3",
        "ahead in mIoU by",
        "+0.000",
        "GMACs",
        "Over 3 seeds the map is right for",
    ):
        assert words in out
    document = json.loads(terralean("evaluate", runs, "--device", "cpu", "--json")[1])
    assert document == json.loads((runs / "evaluation.json").read_text())
    assert [seed["seed"] for seed in document["seeds"]] == [1, 2, 3]

    status, _, err = terralean("map", runs, data / "3.tif", "--out", tmp_path / "maps", "--device", "cpu")
    assert status == 2
    assert "holds a run for each of the seeds 1, 2, 3; name one of them" in " ".join(err.split())
    status, _, err = terralean(*train, "--out", runs / "seed1", "--seeds", "0,1")
    assert status == 2
    assert "is a run of one seed" in err


BENCHMARK = ("benchmark", "test_resnet", "--size", "32", "--batch", "2", "--rounds", "1", "--mode", "eager", "--device", "cpu")


def test_scene_recognition_is_trained_with_seeds_evaluated_and_compared(terralean, tmp_path):
    rng = np.random.default_rng(0)
    for name, grey in (("dark", 60), ("light [b]", 190)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(20):
            values = grey + rng.integers(-40, 40) + rng.integers(-20, 20, (16, 16, 3))
            Image.fromarray(values.astype(np.uint8)).save(tmp_path / "images" / name / f"{i}.png")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "task: classification\nmodel: {name: small_cnn, sizes: {width: 4}}\n"
        "data: {size_px: 16, resize_px: 16, split: {test: 0.3}}\n"
        "train: {epochs: 1, batch: 8, lr: 0.01, warmup_epochs: 0}\n"
    )
    runs = tmp_path / "runs"
    train = ("train", recipe, "--data", tmp_path / "images", "--out", runs, "--device", "cpu", "--seeds", "0,1")
    status, out, _ = terralean(*train)
    assert status == 0
    assert "best validation top-1 accuracy" in out
    shutil.copytree(runs, tmp_path / "copy")
    status, out, _ = terralean("evaluate", runs, "--device", "cpu", "--against", tmp_path / "copy")
    assert status == 0
    for words in (
        *("± seeds", "OA seed 1", "F1 light [b]", "ahead in OA by", "+0.000", "images/s"),
        *("Over 2 seeds the model recognises", "No different from copy", f"report: {runs}/report.html"),
    ):
        assert words in out
    assert "top5" not in out
    document = json.loads(terralean("evaluate", runs / "seed0", "--device", "cpu", "--json")[1])
    assert document == json.loads((runs / "seed0" / "evaluation.json").read_text())
    (tmp_path / "other" / "river").mkdir(parents=True)
    shutil.copy(tmp_path / "images" / "dark" / "0.png", tmp_path / "other" / "river")
    status, _, err = terralean("evaluate", runs / "seed0", "--data", tmp_path / "other", "--out", tmp_path / "report")
    assert status == 2
    assert "class 'river' is none of dark, light [b]" in " ".join(err.split())


def test_benchmark_writes_table_csv_and_figure(terralean, tmp_path):
    files = "--csv", tmp_path / "speed.csv", "--figure", tmp_path / "speed.svg", "--accuracy", "test_resnet=50"
    status, out, _ = terralean(*BENCHMARK, "--bands", "5", "--classes", "7", "--precision", "fp32", *files)
    assert status == 0
    assert "inference, 2 x 32 px, 5 bands" in out
    (row,) = csv.DictReader((tmp_path / "speed.csv").open(newline=""))
    assert (row["model"], row["bands"], row["mode"], row["precision"]) == ("test_resnet", "5", "eager", "fp32")
    assert "test_resnet" in (tmp_path / "speed.svg").read_text()


def test_benchmark_prints_one_document_of_every_size_batch_and_precision(terralean):
    status, out, _ = terralean(*BENCHMARK, "--size", "32x64", "--batch", "3", "--train", "--json")
    assert status == 0
    document = json.loads(out)
    found = {(r["batch"], r["width_px"], r["precision"]) for r in document["rows"]}
    assert found == {(b, w, p) for b in (2, 3) for w in (32, 64) for p in ("fp32", "bf16")}
    assert {r["work"] for r in document["rows"]} == {"training"}
    assert len(document["products"]) == 4


def test_benchmark_with_a_model_that_fails_is_status_1_and_measures_the_others(terralean):
    status, out, _ = terralean(*BENCHMARK, "test_vit", "--size", "30", "--precision", "fp32", "--json")
    assert status == 1
    failures = {(r["model"], r["height_px"]): r["failure"] for r in json.loads(out)["rows"]}
    assert failures.pop(("test_vit", 30)).startswith("SizeError: test_vit does not take images of 30 px; of 32 px it does")
    assert set(failures.values()) == {None}


@pytest.mark.slow
def test_paper_is_a_ledger(terralean, tmp_path):
    status, out, _ = terralean("benchmark", "--paper", "--csv", tmp_path / "paper.csv", "--json")
    assert status == 0
    entries = json.loads(out)["entries"]
    assert len(entries) == len(list(csv.DictReader((tmp_path / "paper.csv").open(newline=""))))


def test_class_names_in_brackets_are_printed_as_they_are(capsys):
    entry = {"value": 0.5, "low": 0.25, "high": 0.75}
    scores = dict.fromkeys(("mIoU", "OA", "mF1", "AA", "kappa"), entry)
    document = {"task": "segmentation", **scores, "seeds": [], "classes": [{"name": "[bold]bare[/x]", "IoU": {"value": None}}]}
    out_console.print(score_table(document))
    out = capsys.readouterr().out
    assert "IoU [bold]bare[/x]  -      -" in out
    assert "0.500  0.250 .. 0.750" in out


def test_list(terralean):
    assert "lemevit_tiny_light" in terralean("list", "recipes")[1].split()
    assert {"lemevit_tiny", "lemevit_base_light"} <= set(json.loads(terralean("list", "models", "--json")[1]))
    assert terralean("list", "reducer")[0] == 2


def test_export_tells_how_timm_reads_it(terralean, untrained, tmp_path):
    status, out, _ = terralean("export", untrained, "--format", "timm", "--out", tmp_path / "out")
    assert status == 0
    assert out == f"{tmp_path}/out: timm.create_model('local-dir:{tmp_path}/out', pretrained=True)\n"
    status, _, err = terralean("export", untrained, "--format", "timm", "--out", tmp_path / "out", "--json")
    assert status == 2
    assert "is not an empty folder; name a new one with --out" in err
