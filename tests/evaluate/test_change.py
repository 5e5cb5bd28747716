import json

import numpy as np
import pytest

from terralean import recipes
from terralean.evaluate.change_scores import F1_IMAGES, of_blocks
from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import Bands
from terralean.tasks.change import F1, IOU
from terralean.train.run import run


def test_scores_over_all_pixels_and_over_images():
    blocks = np.array([[[50, 0], [0, 10]], [[40, 10], [10, 0]], [[100, 0], [0, 0]]])
    found = of_blocks(blocks, images=np.array([0, 0, 1]))
    assert found[F1] == pytest.approx(20 / 40)
    assert found[IOU] == pytest.approx(10 / 30)
    assert found[F1_IMAGES] == pytest.approx((0.5 + 0) / 2)


@pytest.fixture(scope="module")
def run_of_change(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    for number, split in enumerate(("train", "train", "val", "test", "test")):
        rng = np.random.default_rng(number)
        ground = rng.integers(60, 90, (2, 48, 48))
        changed = np.zeros((48, 48), bool)
        changed[10 + number : 25, 12:30] = True
        grid = Grid(width=48, height=48, crs="EPSG:32633", transform=(1.0, 0.0, 3e5 + 5000 * number, 0.0, -1.0, 5.2e6))
        images = {"A": ground, "B": np.where(changed, 200, ground), "label": 255 * changed[None]}
        for name, array in images.items():
            bands = Bands(names=("change",) if name == "label" else ("red", "nir"))
            write_scene(folder / split / name / f"{number}.tif", array.astype(np.uint8), grid=grid, bands=bands)
    out = tmp_path_factory.mktemp("runs") / "vector"
    run(recipes.read("change_vector", changes=["data.tile_px=48", "tiling.tile_px=48"]), data=folder, out=out, device="cpu")
    return folder, out


def test_a_run_of_change_is_scored_on_its_test_pairs(run_of_change, terralean):
    _, out = run_of_change
    status, told, err = terralean("evaluate", out, "--json")
    assert status == 0, err
    document = json.loads(told)
    change = document["change"]
    assert change["f1"] > 0.9
    assert change["f1"] == pytest.approx(2 * change["precision"] * change["recall"] / (change["precision"] + change["recall"]))
    assert any("F1 of change is" in line for line in document["verdict"])
    card = json.loads((out / "card.json").read_text())
    assert card["metrics"]["test"]["f1_mean_of_images"] == pytest.approx(change["f1_mean_of_images"])
    assert "F1 of change is" in (out / "report.html").read_text()
    status, told, err = terralean("evaluate", out)
    assert status == 0, err
    assert "F1 changed" in told


def test_other_pairs_are_scored(run_of_change, terralean, tmp_path):
    folder, out = run_of_change
    status, told, err = terralean("evaluate", out, "--data", folder / "train", "--out", tmp_path / "report", "--json")
    assert status == 0, err
    assert json.loads(told)["change"]["f1"] > 0.9


def test_noise_is_for_single_images(run_of_change, terralean):
    _, out = run_of_change
    status, _, err = terralean("evaluate", out, "--noise", "100")
    assert (status, "--noise is for single images" in err) == (2, True)
