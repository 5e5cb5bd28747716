"""Scores of noisy images beside the clean ones."""

import json
import shutil

import numpy as np
import pytest
import rasterio
from sklearn.metrics import confusion_matrix

from terralean import cli, recipes
from terralean.data.pixel_noise import Noise, NoiseConfig, with_noise
from terralean.errors import ConfigError
from terralean.evaluate.kept import NAME as KEPT
from terralean.evaluate.run import run_evaluation
from terralean.mapping.run import MapConfig, map_scene
from terralean.predict import load
from terralean.raster.grid import Window
from terralean.train.run import run as train
from terralean.weights.card import read_card

MUCH = 130_000  # of 262,144: half of the pixels


@pytest.fixture(scope="module")
def forest(data, tmp_path_factory):
    """A small forest, which knows these images well."""
    out = tmp_path_factory.mktemp("forest") / "run"
    changes = ("forest.trees=5", "forest.pixels=1500", "forest.sides_px=[3]", "data.tile_px=32", "tiling.tile_px=32")
    train(recipes.read("random_forest", changes=[*changes, "tiling.overlap_px=8"]), data=data, out=out, device="cpu")
    return out


@pytest.fixture(scope="module")
def scored(forest, tmp_path_factory):
    """A forest evaluated without noise, and a copy of it with."""
    folder = tmp_path_factory.mktemp("noise")
    for name in ("clean", "noisy"):
        shutil.copytree(forest, folder / name)
    clean = evaluate(folder / "clean")
    return folder, clean, evaluate(folder / "noisy", noise=NoiseConfig(pixels=(0, 1000, MUCH)))


def evaluate(run, **options):
    return run_evaluation(run, read=recipes.read_run, device="cpu", **options)


def test_the_clean_evaluation_is_what_it_is_without_noise(scored):
    folder, clean, noisy = scored
    mine, theirs = ({**result.document} for result in (noisy, clean))
    assert theirs.pop("noise") is None
    assert mine.pop("noise") is not None
    for changing in ("run", "cost", "verdict"):  # paths, speeds, and the sentence on noise
        del mine[changing], theirs[changing]
    assert mine == theirs
    assert read_card(folder / "noisy").metrics == read_card(folder / "clean").metrics
    kept = [np.load(folder / name / KEPT) for name in ("clean", "noisy")]
    for name in ("places", "blocks", "blocks_unmapped", "map"):
        np.testing.assert_array_equal(kept[0][name], kept[1][name])


def test_levels_stand_beside_the_clean_scores(scored):
    folder, _, result = scored
    told = json.loads((folder / "noisy" / "evaluation.json").read_text())["noise"]
    assert told == result.document["noise"]
    assert (told["mode"], told["seed"], told["of_px"], told["range"]) == ("uniform", 0, [512, 512], [[0, 255], [0, 255]])
    clean, little, much = told["levels"]
    assert [level["pixels"] for level in told["levels"]] == [0, 1000, MUCH]
    assert clean["change"] is None
    for name in ("mIoU", "OA", "mF1"):
        assert clean[name]["value"] == result.document[name]["value"]
        assert much["change"][name]["value"] == pytest.approx(much[name]["value"] - clean[name]["value"])
    assert clean["OA"]["value"] > 0.97
    assert much["OA"]["value"] < 0.9
    assert much["OA"]["value"] < little["OA"]["value"] <= clean["OA"]["value"]
    assert any(
        f"With {MUCH} of 512 x 512 pixels replaced by noise mean IoU changes by \N{MINUS SIGN}" in s for s in result.verdict
    )


def test_noisy_scores_are_those_of_the_map_of_a_noisy_image(scored, data, tmp_path):
    """The image written out with its noise and mapped as a user would."""
    folder, _, result = scored
    with rasterio.open(data / "3.tif") as file:
        values, profile, names = file.read(), file.profile, file.descriptions
    noise = Noise(name="3.tif", height=48, width=48, pixels=MUCH, mode="uniform", seed=0, range=((0.0, 255.0),) * 2, whole=True)
    with rasterio.open(tmp_path / "noisy.tif", "w", **profile) as file:
        file.write(with_noise(values, window=Window(row=0, col=0, height=48, width=48), noise=noise))
        file.descriptions = names
    done = map_scene(load(folder / "noisy", device="cpu"), tmp_path / "noisy.tif", out=tmp_path / "map", config=MapConfig())
    with rasterio.open(done.path) as mapped, rasterio.open(data / "3_mask.tif") as reference:
        table = confusion_matrix(reference.read(1).ravel(), mapped.read(1).ravel(), labels=[0, 1])
    assert result.document["noise"]["levels"][2]["OA"]["value"] == pytest.approx(np.trace(table) / table.sum())


def test_the_page_shows_a_table_of_noise(scored):
    folder, _, _ = scored
    page = (folder / "noisy" / "report.html").read_text()
    assert "With noisy pixels" in page
    assert f"<td>{MUCH}</td>" in page
    assert "drawn evenly from 0 to 255" in page
    assert f"--noise 0,1000,{MUCH}" in page
    assert "With noisy pixels" not in (folder / "clean" / "report.html").read_text()


def test_another_seed_and_another_mode_change_the_noise(forest, scored, tmp_path):
    first = scored[2].document["noise"]["levels"][2]
    for i, change in enumerate(({"seed": 1}, {"mode": "saltpepper"})):
        result = evaluate(forest, data=None, out=tmp_path / str(i), noise=NoiseConfig(pixels=(MUCH,), **change))
        (level,) = result.document["noise"]["levels"]
        assert level["OA"]["value"] != first["OA"]["value"]
        assert (result.document["noise"]["mode"], result.document["noise"]["seed"]) == (
            change.get("mode", "uniform"),
            change.get("seed", 0),
        )


def test_runs_beside_each_other_see_the_same_noise(scored, finished, tmp_path, capsys):
    """A network and a forest through the command line; the copy of the forest has its scores to the digit."""
    folder, _, result = scored
    network = shutil.copytree(finished, tmp_path / "network")  # its counts are kept in its folder
    command = ["evaluate", str(network), "--against", str(folder / "noisy"), "--against", str(folder / "clean")]
    command += ["--noise", f"0,{MUCH}", "--out", str(tmp_path / "out"), "--device", "cpu"]
    cli.app(command, standalone_mode=False)
    out = capsys.readouterr().out
    document = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    first, second = (other["noise"]["levels"][1]["OA"] for other in document["against"])
    assert first == second == result.document["noise"]["levels"][2]["OA"]
    assert document["noise"]["levels"][0]["mIoU"] == document["mIoU"]
    assert "noisy pixels" in out
    assert sum(str(MUCH) in line and line.split()[-1] != "." for line in out.splitlines()) >= 3


def test_scene_recognition_has_no_such_noise(recognised):
    with pytest.raises(ConfigError, match=r"a run of classification: its images are resized before they are seen"):
        evaluate(recognised, noise=NoiseConfig(pixels=(100,)))
    assert not (recognised / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--noise=-5"], r"0 to 262144, got \[-5\]"),
        (["--noise", "1.5"], r"--noise '1\.5' must be whole numbers with commas, e\.g\. --noise 0,100,1000"),
        (["--noise", "300000"], r"0 to 262144, got \[300000\]"),
        (["--noise-mode", "saltpepper"], r"say how much with --noise"),
        (["--noise", "5", "--noise-seed=-1"], "seed of noise is 0 or more"),
    ],
)
def test_what_the_command_line_refuses(finished, flags, message):
    with pytest.raises(ConfigError, match=message):
        cli.app(["evaluate", str(finished), *flags], standalone_mode=False)
