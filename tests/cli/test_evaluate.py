"""`terralean evaluate`: status, standard output and error, and the report."""

import json
import shutil

import numpy as np
from PIL import Image


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


def test_a_curve_is_asked_for(terralean, recogniser):
    status, _, err = terralean("evaluate", recogniser, "--curve")
    assert status == 2
    assert "is a run of classification, whose views are not blended; --curve is for runs of segmentation" in " ".join(
        err.split()
    )
