"""`terralean train --seeds`, and what else takes the runs that it leaves."""

import json
import shutil

from terralean import recipes
from terralean.train.config import to_yaml


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
    status, _, err = terralean(*train, "--out", runs, "--seeds", "4,5", "--set", "train.lr=0.02")
    assert status == 2
    assert "was begun with another recipe" in " ".join(err.split())
    assert "+ lr: 0.02" in " ".join(err.split())
    assert not (runs / "seed4").exists()
    path = tmp_path / "copy" / "seed1" / "recipe.yaml"
    path.write_text(path.read_text().replace("  lr: 0.002\n", "  lr: 0.02\n"))
    status, _, err = terralean("evaluate", tmp_path / "copy", "--device", "cpu")
    assert status == 2
    assert "differ in more than the seed; train both with one recipe" in " ".join(err.split())
    status, _, err = terralean(*train, "--out", runs, "--seeds", "0,²")
    assert status == 2
    assert "must be two or more different numbers" in " ".join(err.split())
    status, _, err = terralean(*train, "--out", runs / "seed1", "--seeds", "0,1")
    assert status == 2
    assert "is a run of one seed" in err
