"""The verbs, their options, and how each refuses a mistake."""

import subprocess
import sys

import pytest
from typer.main import get_command

from terralean.cli import app

OPTIONS = {
    "demo": {"--out", "--json", "--verbose"},
    "inspect": {"--set", "--json", "--verbose"},
    "train": {"--data", "--out", "--set", "--device", "--devices", "--seed", "--seeds", "--json", "--verbose"},
    "evaluate": {
        *("--data", "--out", "--against", "--noise", "--noise-mode", "--noise-seed", "--curve", "--set"),
        *("--device", "--precision", "--json", "--verbose"),
    },
    "tile": {"--out", "--size", "--overlap", "--iof", "--cut", "--empty", "--set", "--json", "--verbose"},
    "map": {
        *("--out", "--bands", "--tile", "--overlap", "--batch", "--confidence", "--polygons", "--table", "--overwrite"),
        *("--min-area", "--stac", "--envi", "--assets", "--resample", "--pairs", "--jobs", "--cluster", "--budget"),
        *("--aoi", "--scores", "--compute", "--workers", "--threads", "--memory", "--min-score"),
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
        *("--on", "--reduce", "--images", "--runtimes"),
        *("--csv", "--figure", "--accuracy", "--paper", "--json", "--verbose"),
    },
    "export": {
        *("--format", "--out", "--precision", "--tile", "--check", "--calibrate", "--opset", "--set", "--json", "--verbose")
    },
    "list": {"--json"},
}


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("map", "RUN", "missing.tif", "--out", "OUT"), "missing.tif"),
        (("map", "nowhere", "SCENE", "--out", "OUT"), "nowhere is not there; give the folder named with --out in training"),
        (("map", "RUN", "SCENE", "--out", "OUT", "--bands", "red"), "positions from 1 with commas"),
        (("map", "RUN", "SCENE", "--out", "OUT", "--bands", "1,2"), "2 bands, the model was trained on 3"),
        (("map", "RUN", "SCENE", "--out", "OUT", "--batch", "0"), "at least 1 window, got 0"),
        (("map", "RUN", "SCENE", "--out", "OUT", "--workers", "0"), "workers must be at least 1 worker, got 0"),
        (("map", "RUN", "SCENE", "--out", "OUT", "--threads", "0"), "threads must be at least 1 thread, got 0"),
        (("map", "RUN", "SCENE", "--out", "OUT", "--memory", "much"), "memory must be a size such as 4GB, 500MB or 2GiB"),
        (("map", "RUN", "SCENE", "--out", "OUT", "--memory", "10MB"), "the least that it can do with is"),
        (("map", "RUN", "SCENE", "--out", "OUT", "--compute"), "keeps all; train with a method of token reduction"),
        (("map", "RUN", "SCENE", "--out", "OUT", "--aoi", "nowhere.gpkg"), "nowhere.gpkg is not there"),
        (("map", "RUN", "SCENE", "SCENE", "--out", "OUT"), "is given twice"),
        (("map", "RUN", "nothing/*.tif", "--out", "OUT"), "nothing/*.tif matches no file"),
        (("map", "RUN", "SCENE", "--out", "OUT", "--min-area", "5"), "ask for --polygons, too, or leave --min-area out"),
        (("map", "RUN", "SCENE", "--out", "OUT", "--resample"), "none is among the scenes; leave them out"),
        (("map", "RUN", "SCENE", "--out", "OUT", "--jobs", "0"), "jobs must be at least 1 scene at a time, got 0"),
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
