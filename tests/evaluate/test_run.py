import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from sklearn.metrics import confusion_matrix

import terralean
from terralean import recipes
from terralean.errors import BandMismatch, ConfigError, EmptySplit
from terralean.evaluate.measure import _steps, block_side
from terralean.evaluate.run import run_evaluation
from terralean.mapping.run import MapConfig, map_scene
from terralean.predict import load
from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import Bands
from terralean.weights.card import read_card, write_card


@pytest.fixture(scope="module")
def scored(finished, tmp_path_factory):
    """A copy of the finished run, evaluated."""
    run = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(finished, run)
    return run, evaluate(run)


def evaluate(run, **options):
    return run_evaluation(run, read=recipes.read_run, device="cpu", **options)


def read(path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def test_scores_are_those_of_the_map_a_user_gets(scored, data, tmp_path):
    run, result = scored
    mapped = read(map_scene(load(run, device="cpu"), data / "3.tif", out=tmp_path, config=MapConfig()).path)
    reference = read(data / "3_mask.tif")
    table = confusion_matrix(reference.ravel(), mapped.ravel(), labels=[0, 1])
    assert result.document["OA"]["value"] == pytest.approx(np.trace(table) / table.sum())
    iou = np.diag(table) / (table.sum(axis=0) + table.sum(axis=1) - np.diag(table))
    assert result.document["mIoU"]["value"] == pytest.approx(iou.mean())
    assert [entry["support_px"] for entry in result.document["classes"]] == table.sum(axis=1).tolist()


def test_everything_is_written_and_the_card_learns_the_scores(scored, finished):
    run, result = scored
    document = json.loads((run / "evaluation.json").read_text())
    assert document == result.document
    assert (run / "picture.png").read_bytes()[:4] == b"\x89PNG"
    page = (run / "report.html").read_text()
    assert "first" in page
    assert "lemevit_tiny_light on " in page
    assert read_card(run).metrics["test"]["mIoU"] == document["mIoU"]
    assert read_card(run).metrics["validation"] == read_card(finished).metrics["validation"]
    assert not list(run.glob("*.part"))


def test_baselines_see_what_they_can(scored):
    _, result = scored
    forest, common = (
        result.document["baselines"][name] for name in ("Random forest, single pixels", "Commonest class everywhere")
    )
    assert forest["OA"] > 0.99  # the brighter band is the class
    assert 0.3 < common["OA"] < 0.7
    for rival in (forest, common):
        assert rival["difference"]["mIoU"]["value"] == pytest.approx(result.document["mIoU"]["value"] - rival["mIoU"], abs=1e-6)


def test_leakage_is_told_beside_the_scores(scored):
    run, result = scored
    assert result.document["leakage"]["leaks"] is False
    assert "no leak found" in (run / "report.html").read_text()
    assert any("no leak found" in line for line in result.verdict)


def test_other_data_are_scored_whole_into_another_folder(finished, data, tmp_path):
    result = evaluate(finished, data=data, out=tmp_path / "report")
    assert sum(entry["support_px"] for entry in result.document["classes"]) == 4 * 48 * 48
    assert result.document["leakage"]["leaks"] is True  # the training images are among them
    assert not (finished / "evaluation.json").exists()
    assert "test" not in read_card(finished).metrics


def test_other_data_need_a_folder(finished, data):
    with pytest.raises(ConfigError, match="say with --out"):
        evaluate(finished, data=data)


def test_other_data_must_have_the_models_bands(finished, tmp_path):
    grid = Grid(width=48, height=48, crs="EPSG:32633", transform=(1.0, 0.0, 9e5, 0.0, -1.0, 5.2e6))
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    values = np.random.default_rng(0).integers(1, 9, (2, 48, 48)).astype(np.uint8)
    write_scene(tmp_path / "images" / "a.tif", values, grid=grid, bands=Bands(names=("right", "left")))
    write_scene(tmp_path / "masks" / "a.tif", values[:1] % 2, grid=grid, bands=Bands(names=("class",)))
    with pytest.raises(BandMismatch, match="another order"):
        evaluate(finished, data=tmp_path, out=tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_run_without_a_test_split(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    split = json.loads((run / "split.json").read_text())
    split["regions"] = [region for region in split["regions"] if region["split"] != "test"]
    (run / "split.json").write_text(json.dumps(split))
    with pytest.raises(EmptySplit, match="has no test split; name labelled data with --data"):
        evaluate(run)


def test_training_images_that_are_gone_leave_out_what_needs_them(finished, data, tmp_path, caplog):
    run, folder = tmp_path / "run", tmp_path / "data"
    shutil.copytree(finished, run)
    shutil.copytree(data, folder)
    split = json.loads((run / "split.json").read_text())
    (run / "split.json").write_text(json.dumps(split | {"root": str(tmp_path / "gone")}))
    result = evaluate(run, data=folder, out=tmp_path / "report")
    assert result.document["baselines"] == {}
    assert result.document["leakage"]["leaks"] is None
    assert "2 training images are gone" in caplog.text
    assert "not checked" in (tmp_path / "report" / "report.html").read_text()


@pytest.mark.gpu
def test_a_gpu_is_named_and_its_memory_told(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    cost = run_evaluation(run, read=recipes.read_run, device="cuda").document["cost"]
    assert cost["device"] == torch.cuda.get_device_name()
    assert (finished / "weights.safetensors").stat().st_size < cost["peak_bytes"] < 4 * 2**30


def test_steps_are_cut_at_multiples():
    assert [(s.start, s.stop) for s in _steps(5, 25, 10)] == [(5, 10), (10, 20), (20, 25)]
    assert [(s.start, s.stop) for s in _steps(10, 20, 10)] == [(10, 20)]


def test_blocks_are_about_a_hundred():
    assert block_side(1000 * 1000) == 100
    assert block_side(100) == 32


def test_confidence_is_judged_by_the_probabilities_of_the_map_a_user_gets(scored, data, tmp_path):
    run, result = scored
    known, card = result.document["calibration"], read_card(run)
    assert known["temperature"] == card.temperature != 1
    values, reference = rasterio.open(data / "3.tif").read(), read(data / "3_mask.tif")
    probabilities = terralean.load(run, device="cpu").predict(values).probabilities.reshape(2, -1)
    own = np.take_along_axis(probabilities, reference.reshape(1, -1).astype(int), axis=0)
    assert known["NLL"]["value"] == pytest.approx(-np.log(own).mean(), rel=1e-5)
    assert known["confidence"] == pytest.approx(probabilities.max(axis=0).mean(), rel=1e-5)
    assert known["accuracy"] == pytest.approx(result.document["OA"]["value"])
    assert sum(one["count"] for one in known["bins"]) == reference.size
    assert known["before"]["accuracy"] == known["accuracy"]
    assert known["before"]["NLL"] != known["NLL"]
    assert any("The expected calibration error is" in line for line in result.verdict)


def test_without_overlap_the_confidence_before_is_that_of_the_run_without_a_temperature(finished, tmp_path):
    documents = []
    for temperature in (read_card(finished).temperature, 1.0):
        run = tmp_path / f"{temperature}"
        shutil.copytree(finished, run)
        write_card(replace(read_card(run), overlap_px=0, temperature=temperature), run)
        documents.append(evaluate(run).document)
    tempered, plain = (one["calibration"] for one in documents)
    assert plain["before"] is None
    for name in ("ECE", "Brier", "NLL"):
        assert tempered["before"][name]["value"] == pytest.approx(plain[name]["value"], rel=1e-4)
    assert [one["count"] for one in tempered["before"]["bins"]] == [one["count"] for one in plain["bins"]]
    assert documents[0]["OA"] == documents[1]["OA"]  # a temperature leaves every class where it was


def test_a_run_from_before_temperatures_says_how_to_get_one(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    write_card(replace(read_card(run), temperature=1.0, metrics={}), run)
    result = evaluate(run)
    assert result.document["calibration"]["not_calibrated"].startswith("trained before temperatures were fitted; run its")
    assert any("No temperature was fitted to it: trained before temperatures were fitted" in line for line in result.verdict)
    assert "No temperature was fitted to it" in (run / "report.html").read_text()
