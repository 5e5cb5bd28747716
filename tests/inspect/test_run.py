"""A run's report says whether it is whole, and what its card says against it."""

import json
import shutil
from dataclasses import asdict, replace

import pytest

from terralean.data.scene_index import SceneImage
from terralean.data.scene_split import SceneSplit, save_scene_split
from terralean.data.split import Region, Split, save_split
from terralean.inspect.run import describe_run, is_run
from terralean.inspect.words import tell
from terralean.raster.grid import Window
from terralean.spec import Bands, Classes, Normalisation
from terralean.weights.card import Card, Training, write_card

CARD = Card(
    version="0",
    task="segmentation",
    model="lemevit_tiny_light",
    bands=Bands(names=("red", "nir")),
    normalisation=Normalisation(mean=(1.0, 2.0), std=(1.0, 1.0)),
    classes=Classes.named(["a", "b"]),
    tile_px=256,
    overlap_px=64,
    training=Training(data="0", images=3, split="whole images", leakage="no leak found: 3 m", steps=10, minutes=1.5, seed=0),
    metrics={"validation": {"miou": 0.25, "step": 8}, "test": {"mIoU": {"value": 0.5, "low": 0.4, "high": 0.6}}},
)


@pytest.fixture
def run(tmp_path):
    """A finished run on data that are there."""
    window = Window(row=0, col=0, height=4, width=4)
    names = ("train", "train", "test")
    regions = [Region(image=str(tmp_path / f"{i}.tif"), label="l", window=window, split=name) for i, name in enumerate(names)]
    folder = tmp_path / "run"
    folder.mkdir()
    split = Split(root=str(tmp_path), regions=tuple(regions), rule="r", method="groups", seed=0, gap_px=0, gap_m=None)
    save_split(split, folder / "split.json")
    (folder / "recipe.yaml").write_text("task: segmentation\n")
    (folder / "weights.safetensors").write_bytes(b"0" * 1_500_000)
    write_card(CARD, folder)
    return folder


def said(report) -> list[tuple[str, str]]:
    return [(finding.severity, finding.message) for finding in report.findings]


def test_a_whole_run_has_no_findings(run, tmp_path):
    report = describe_run(run)
    assert is_run(run)
    assert report.finished
    assert report.card == CARD
    assert report.weights_mb == 1.5
    assert report.data == str(tmp_path)
    assert report.splits == {"train": 2, "validation": 0, "test": 1}
    assert report.findings == ()
    assert json.loads(json.dumps(asdict(report)))["card"]["model"] == "lemevit_tiny_light"


def test_scores_are_told_with_and_without_an_interval(run):
    text = tell(describe_run(run))
    assert "miou 0.25, step 8" in text
    assert "mIoU 0.5" in text


def test_an_unfinished_run(run):
    (run / "card.json").unlink()
    report = describe_run(run)
    assert is_run(run)
    assert not report.finished
    assert said(report) == [("error", "the run is not finished: it has no card.json")]
    assert report.findings[0].fix == "give the same train command again; it goes on"


def test_missing_files(run):
    (run / "weights.safetensors").unlink()
    (run / "split.json").unlink()
    report = describe_run(run)
    assert not report.finished
    assert said(report) == [
        ("error", "weights.safetensors is missing beside the card"),
        ("note", "split.json is missing: evaluate cannot tell test pixels; mapping works all the same"),
    ]


@pytest.mark.parametrize("name", ["card.json", "split.json"])
def test_broken_files(run, name):
    (run / name).write_text('{"format": 99}')
    assert [severity for severity, message in said(describe_run(run)) if "has format 99" in message] == ["error"]
    (run / name).write_text("{")
    assert said(describe_run(run))[0][0] == "error"


def test_what_the_card_says_against_it(run):
    leaky = replace(CARD, metrics={}, training=replace(CARD.training, leakage="LEAKS: 3 of 3 test images touch"))
    write_card(leaky, run)
    assert said(describe_run(run)) == [
        ("warning", "LEAKS: 3 of 3 test images touch"),
        ("note", "it has not been evaluated on its test split"),
    ]


def test_data_that_have_moved(run, tmp_path):
    content = json.loads((run / "split.json").read_text())
    (run / "split.json").write_text(json.dumps(content | {"root": str(tmp_path / "gone")}))
    assert said(describe_run(run)) == [("note", f"its data are no longer at {tmp_path / 'gone'}")]


def test_a_run_of_scene_recognition(run, tmp_path):
    """Its split is of images, and the report says which cells it maps."""
    names = ("train", "train", "train", "validation", "test", "test")
    images = tuple(SceneImage(path=str(tmp_path / f"{i}.png"), label=i % 2, split=name) for i, name in enumerate(names))
    split = SceneSplit(root=str(tmp_path), images=images, classes=("a", "b"), rule="r", method="random", seed=0)
    save_scene_split(split, run / "split.json")
    training = replace(CARD.training, leakage="LEAKS: 1 of 2 test images hold the same pixels as a training image")
    write_card(
        replace(CARD, task="classification", model="small_cnn", tile_px=64, overlap_px=16, seen_px=224, training=training), run
    )
    report = describe_run(run)
    assert report.splits == {"train": 3, "validation": 1, "test": 2}
    assert report.data == str(tmp_path)
    assert said(report) == [("warning", training.leakage)]
    assert report.findings[0].fix == "split by groups and train again; until then its scores are too good"
    text = tell(report).splitlines()
    assert "  model       small_cnn for classification, 1.5 MB, terralean 0" in text
    assert "  cells       48 px, in the middle of views of 64 px, seen at 224 px" in text
    many = replace(CARD, classes=Classes.named([f"c{i}" for i in range(1000)]))
    write_card(many, run)
    assert "  classes     1000: c0, c1, c2, c3, c4 and 995 more" in tell(describe_run(run)).splitlines()


def test_whether_confidence_is_calibrated_is_told(run):
    assert "confidence  not calibrated: trained before temperatures were fitted; run its" in tell(describe_run(run))
    fitted = {"on": "validation split", "pixels": 4600, "nll": 0.5, "nll_calibrated": 0.4}
    write_card(replace(CARD, temperature=1.25, metrics={"calibration": fitted}), run)
    assert "confidence  temperature 1.25, fitted to 4,600 validation pixels" in tell(describe_run(run))


def test_an_export_is_told_with_how_near_it_comes_to_its_run(exported):
    folder = exported("openvino")
    report = describe_run(folder)
    assert report.finished
    assert report.exported.precision == "fp32"
    largest = max(path.stat().st_size for path in folder.iterdir())
    assert report.weights_mb == pytest.approx(largest / 1e6, abs=0.1)  # MB, to one place
    text = tell(report)
    assert ": export, finished" in text
    assert "for openvino in fp32; 100.00% with the same class as the run on seeded noise" in text
    assert not [finding for finding in report.findings if finding.severity == "error"]


def test_a_damaged_export_is_an_error(exported, tmp_path):
    folder = shutil.copytree(exported("onnx"), tmp_path / "copy")
    (folder / "model.onnx").write_bytes(b"")
    report = describe_run(folder)
    assert not report.finished
    assert report.findings[0].severity == "error"
    assert "model.onnx is not the file that was exported" in report.findings[0].message
