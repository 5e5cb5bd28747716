import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from sklearn.ensemble import RandomForestClassifier
from torch.utils.data import Dataset

from terralean import cli, recipes
from terralean.data.samples import from_samples
from terralean.errors import ConfigError, RunError
from terralean.mapping.plan import Plan
from terralean.mapping.run import MapConfig, map_scene
from terralean.mapping.strips import strips
from terralean.predict import load
from terralean.raster.scene import open_scene
from terralean.spec import Bands, Classes
from terralean.train.config import ForestConfig
from terralean.train.forest import draw_pixels, fit, hold, quotas
from terralean.train.material import from_folder
from terralean.train.run import run, run_samples
from terralean.weights.card import OF_A_FOREST, read_card

SIDES = (3, 7)
CHANGES = (
    "forest.trees=12",
    "forest.pixels=1500",
    "forest.sides_px=[3, 7]",
    "data.tile_px=32",
    "tiling.tile_px=32",
    "tiling.overlap_px=8",
)
KILLED = """
import os, signal, sys
from pathlib import Path
from terralean import recipes
from terralean.train.run import run
def tell(progress):
    os.kill(os.getpid(), signal.SIGKILL)
experiment = recipes.read("random_forest", changes=sys.argv[3:])
run(experiment, data=Path(sys.argv[1]), out=Path(sys.argv[2]), device="cpu", tell=tell)
"""


def small(*changes: str):
    return recipes.read("random_forest", changes=[*CHANGES, *changes])


@pytest.fixture(scope="module")
def noisy(data, tmp_path_factory) -> Path:
    """The images of `data` under so much noise that single pixels say little: trees get deep, votes are split."""
    folder = tmp_path_factory.mktemp("noisy")
    for path in data.iterdir():
        shutil.copy(path, folder)
    for index in range(4):
        with rasterio.open(folder / f"{index}.tif", "r+") as dataset:
            noise = np.random.default_rng(100 + index).normal(0, 60, (2, 48, 48))
            dataset.write(np.clip(dataset.read() + noise, 0, 255).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def grown(noisy, tmp_path_factory) -> Path:
    """A fitted forest; do not change it."""
    out = tmp_path_factory.mktemp("runs") / "forest"
    run(small(), data=noisy, out=out, device="cpu")
    return out


def seen(folder: Path, index: int, run_: Path) -> NDArray[np.float32]:
    """All features of an image of `data` (F, 48, 48) by loops over pixels."""
    normalisation = read_card(run_).normalisation
    with rasterio.open(folder / f"{index}.tif") as dataset:
        values = dataset.read().astype(np.float32)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (normalisation.mean, normalisation.std))
    image = (values - mean) / std
    parts = [image]
    for side in SIDES:
        both = np.zeros((2, *image.shape), np.float32)
        for row, col in np.ndindex(image.shape[1:]):
            rows, cols = (slice(max(0, p - side // 2), p + side // 2 + 1) for p in (row, col))
            square = image[:, rows, cols].astype(np.float64)
            both[:, :, row, col] = square.mean(axis=(1, 2)), square.std(axis=(1, 2))
        parts += [*both]
    return np.concatenate(parts)


def labels(folder: Path, index: int) -> NDArray[np.uint8]:
    with rasterio.open(folder / f"{index}_mask.tif") as dataset:
        return dataset.read(1)


def sklearns_forest(noisy: Path, experiment) -> RandomForestClassifier:
    material = from_folder(experiment, noisy)
    values, wanted = draw_pixels(experiment.forest, material, seed=experiment.seed)
    return fit(experiment.forest, values, wanted, seed=experiment.seed, tell=lambda progress: None)


# The forest itself.


@pytest.mark.parametrize("trees", [1, 7, 25])
def test_probabilities_are_those_of_scikit_learn(trees):
    rng = np.random.default_rng(trees)
    # Values in steps, so that thresholds fall between them and many pixels stand exactly on the same ones.
    values = rng.integers(-20, 20, (3000, 3)).astype(np.float32) / 4
    wanted = (values.sum(axis=1) + rng.normal(0, 2, 3000) > 0) + 2 * (values[:, 0] > 3)
    forest = RandomForestClassifier(trees, min_samples_leaf=2, random_state=0).fit(values, wanted)
    model = hold(forest, bands=3, classes=4, sides_px=())
    image = torch.from_numpy(np.concatenate([values, rng.normal(0, 3, (1000, 3)).astype(np.float32)]).T).reshape(1, 3, 50, 80)
    expected = forest.predict_proba(image[0].flatten(1).T.numpy())
    found = model(image).softmax(dim=1)[0].flatten(1).T.numpy()
    np.testing.assert_allclose(found[:, : expected.shape[1]], expected, atol=1e-6)


def test_a_value_between_a_threshold_and_its_float32_goes_where_scikit_learn_sends_it():
    below, above = np.float32(0.1), np.nextafter(np.float32(0.1), np.float32(1))
    values = np.array([[below], [above]] * 10, np.float32)
    forest = RandomForestClassifier(1, bootstrap=False, random_state=0).fit(values * 1e6, [0, 1] * 10)
    tree = forest.estimators_[0].tree_
    assert float(np.float32(tree.threshold[0])) != tree.threshold[0]
    edges = np.float32(tree.threshold[0]) + np.arange(-3, 4) * np.spacing(np.float32(tree.threshold[0]))
    image = torch.from_numpy(edges.astype(np.float32)).reshape(1, 1, 1, 7)
    found = hold(forest, bands=1, classes=2, sides_px=())(image).softmax(dim=1)[0, :, 0].T
    np.testing.assert_allclose(found, forest.predict_proba(image.reshape(7, 1).numpy()), atol=1e-6)


def test_classes_that_the_forest_never_saw_get_no_votes():
    values = np.linspace(0, 1, 50, dtype=np.float32)[:, None]
    forest = RandomForestClassifier(5, random_state=0).fit(values, np.where(values[:, 0] > 0.5, 3, 1))
    found = hold(forest, bands=1, classes=5, sides_px=())(torch.from_numpy(values).reshape(1, 1, 1, 50)).softmax(dim=1)[0, :, 0]
    assert found[[0, 2, 4]].max() < 1e-30
    np.testing.assert_allclose(found[[1, 3]].T, forest.predict_proba(values), atol=1e-6)


# What it learns from.


def test_all_pixels_are_drawn_with_their_surroundings_across_the_edges_of_tiles(noisy, grown):
    experiment = small("forest.pixels=1000000")
    values, wanted = draw_pixels(experiment.forest, from_folder(experiment, noisy), seed=0)
    expected = np.concatenate([seen(noisy, i, grown).reshape(10, -1).T for i in (0, 1)])
    truth = np.concatenate([labels(noisy, i).ravel() for i in (0, 1)])
    assert len(values) == len(expected) == 2 * 48 * 48
    order, place = (np.lexsort([*array.T, known]) for array, known in ((values, wanted), (expected, truth)))
    assert np.array_equal(wanted[order], truth[place])
    np.testing.assert_allclose(values[order], expected[place], rtol=1e-5, atol=1e-6)


def test_a_sample_is_as_large_as_asked_for_and_different_pixels(noisy):
    experiment = small("forest.pixels=700")
    values, wanted = draw_pixels(experiment.forest, from_folder(experiment, noisy), seed=0)
    assert 698 <= len(values) <= 700
    assert len(np.unique(values, axis=0)) == len(values)
    again, _ = draw_pixels(experiment.forest, from_folder(experiment, noisy), seed=1)
    assert len(np.unique(np.concatenate([values, again]), axis=0)) > 1.5 * len(values)
    assert set(wanted) == {0, 1}


@pytest.mark.parametrize(
    ("there", "power", "expected"),
    [
        ((900, 100, 0), 1.0, (90, 10, 0)),
        ((900, 100, 0), 0.5, (75, 25, 0)),
        ((900, 100, 0), 0.0, (50, 50, 0)),
        ((900, 100, 20), 0.0, (40, 40, 20)),  # what a small class cannot give the others do
        ((50, 40, 3), 0.5, (50, 40, 3)),
        ((0, 5), 0.0, (0, 5)),
        ((10**9, 1, 10**4), 1.0, (98, 1, 1)),  # a class that is there is seen
    ],
)
def test_quotas_on_paper(there, power, expected):
    assert tuple(quotas(there, total=100, power=power)) == expected


# The run.


def test_the_run_folder_is_that_of_any_model(grown):
    files = {"recipe.yaml", "split.json", "data.json", "card.json", "weights.safetensors"}
    assert {path.name for path in grown.iterdir()} == files
    card = read_card(grown)
    tensors = load_file(grown / "weights.safetensors")
    assert card.model == "forest"
    assert card.sizes == {"trees": 12, "nodes": len(tensors["feature"]), "sides_px": "3,7"}
    assert (card.training.steps, card.training.images) == (12, 2)
    assert (card.tile_px, card.overlap_px) == (32, 8)
    assert card.cost == {
        "parameters": 0,
        "macs_layers": 0,
        "macs_attention": 0,
        "nodes": len(tensors["feature"]),
        "macs_at_px": 32,
    }
    assert "no leak found" in card.training.leakage


def test_validation_score_is_that_of_the_pixels_that_validate(noisy, grown):
    forest = sklearns_forest(noisy, small())
    guess = forest.predict(seen(noisy, 2, grown).reshape(10, -1).T)
    truth = labels(noisy, 2).ravel()
    iou = [((guess == k) & (truth == k)).sum() / ((guess == k) | (truth == k)).sum() for k in (0, 1)]
    assert read_card(grown).metrics["validation"]["miou"] == pytest.approx(np.mean(iou), abs=0.005)  # ties
    assert 0.6 < np.mean(iou) < 0.999


def test_a_map_is_what_scikit_learn_says(noisy, grown, tmp_path):
    forest = sklearns_forest(noisy, small())
    expected = forest.predict_proba(seen(noisy, 3, grown).reshape(10, -1).T).T.reshape(2, 48, 48)
    mapped = map_scene(load(grown, device="cpu"), noisy / "3.tif", out=tmp_path, config=MapConfig(tile_px=64))
    with rasterio.open(mapped.path) as dataset:
        found = dataset.read(1)
    clear = np.abs(expected[0] - expected[1]) > 1e-5
    assert clear.mean() > 0.9
    assert (found == expected.argmax(axis=0))[clear].all()
    predictor = load(grown, device="cpu")
    with rasterio.open(noisy / "3.tif") as dataset:
        image = torch.from_numpy(dataset.read().astype(np.float32))[None]
    probabilities = predictor(image, torch.ones(1, 48, 48, dtype=torch.bool))[0].numpy()
    far = np.abs(probabilities - expected) > 1e-6  # where the loops round a mean the other way, across a threshold
    assert far.mean() < 0.002


def test_pixels_whose_square_a_window_shows_are_the_same_in_every_tiling(noisy, grown):
    predictor = load(grown, device="cpu")
    with open_scene(noisy / "3.tif") as scene:
        wide, narrow = (Plan(grid=scene.grid, tile_px=tile, overlap_px=overlap) for tile, overlap in ((64, 8), (32, 8)))
        (whole,) = strips(predictor, scene, wide, batch=1)
        parts = np.concatenate([part.probabilities for part in strips(predictor, scene, narrow, batch=2)], axis=1)
    inner = np.zeros((48, 48), bool)
    for rows in (slice(0, 24), slice(32, 48)):  # what one window alone covers, three pixels or more from where it is cut
        for cols in (slice(0, 24), slice(32, 48)):
            inner[rows, cols] = True
    assert np.array_equal(parts[:, inner], whole.probabilities[:, inner])
    assert not np.array_equal(parts, whole.probabilities)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(noisy, grown, tmp_path):
    for name, seed in (("same", 0), ("other", 1)):
        run(small(f"seed={seed}"), data=noisy, out=tmp_path / name, device="cpu")
    weights = (grown / "weights.safetensors").read_bytes()
    assert (tmp_path / "same" / "weights.safetensors").read_bytes() == weights
    assert (tmp_path / "other" / "weights.safetensors").read_bytes() != weights


@pytest.mark.parametrize(
    "change",
    [
        "forest.trees=11",
        "forest.pixels=1400",
        "forest.min_leaf=9",
        "forest.depth=3",
        "forest.sides_px=[3]",
        "forest.balance=full",
    ],
)
def test_every_setting_changes_the_weights(noisy, grown, tmp_path, change):
    folder = tmp_path / "data"  # with classes of unequal size, else there is nothing to balance
    shutil.copytree(noisy, folder)
    for index in (0, 1):
        with rasterio.open(folder / f"{index}_mask.tif", "r+") as dataset:
            mask = dataset.read(1)
            mask[:20][mask[:20] == 1] = 255
            dataset.write(mask, 1)
    run(small(), data=folder, out=tmp_path / "before", device="cpu")
    run(small(change), data=folder, out=tmp_path / "after", device="cpu")
    before, after = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("before", "after"))
    assert before != after


def test_a_killed_run_begins_anew_and_ends_the_same(noisy, grown, tmp_path):
    out = tmp_path / "run"
    killed = subprocess.run([sys.executable, "-c", KILLED, noisy, out, *CHANGES], capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr.decode()
    assert not (out / "card.json").exists()
    run(small(), data=noisy, out=out, device="cpu")
    assert {path.name for path in out.iterdir()} == {path.name for path in grown.iterdir()}
    assert (out / "weights.safetensors").read_bytes() == (grown / "weights.safetensors").read_bytes()


def test_a_finished_run_is_left_alone_and_another_recipe_refused(noisy, grown):
    before = {path: path.stat().st_mtime_ns for path in grown.iterdir()}
    assert run(small(), data=noisy, out=grown, device="cpu").already_done
    assert before == {path: path.stat().st_mtime_ns for path in grown.iterdir()}
    with pytest.raises(RunError, match=r"-  trees: 12\n\+  trees: 13"):
        run(small("forest.trees=13"), data=noisy, out=grown, device="cpu")


def test_progress_is_told_in_trees(noisy, tmp_path):
    told = []
    run(small(), data=noisy, out=tmp_path / "run", device="cpu", tell=lambda p: told.append((p.step, p.steps)))
    assert told == [(10, 12), (12, 12)]


def test_without_a_validation_split_there_is_no_score(noisy, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(noisy, folder)
    (folder / "index.csv").write_text((noisy / "index.csv").read_text().replace("validation", "train"))
    result = run(small("data.split.validation=0"), data=folder, out=tmp_path / "run", device="cpu")
    assert result.validation is None
    card = read_card(tmp_path / "run")
    assert (card.temperature, card.metrics) == (1.0, {"calibration": {"not_fitted": OF_A_FOREST}})


class Dictionaries(Dataset):
    """A dataset of another library: eight dictionaries whose class is the sign of the first band."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        image = torch.randn(2, 20, 24, generator=torch.Generator().manual_seed(index))
        return {"image": image, "mask": (image[0] > 0).long()}


def test_datasets_of_dictionaries_are_learned_from_too(tmp_path):
    samples = from_samples(Dictionaries(), bands=Bands(names=("a", "b")), classes=Classes.named(("low", "high")))
    result = run_samples(small(), train=samples, validation=samples, out=tmp_path / "run", device="cpu")
    assert result.validation > 0.97


# Where it goes from there.


def test_fewer_digits_are_refused_before_a_map_is_written(noisy, grown, tmp_path):
    predictor = load(grown, device="cpu", precision="bf16")
    with pytest.raises(ConfigError, match="leave --precision at fp32"):
        map_scene(predictor, noisy / "3.tif", out=tmp_path / "maps", config=MapConfig())
    assert not list((tmp_path / "maps").glob("*"))


def test_every_verb_takes_the_run(noisy, tmp_path, monkeypatch, capfd):
    def terralean(*arguments) -> str:
        monkeypatch.setattr(sys, "argv", ["terralean", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        found = capfd.readouterr()
        assert not stop.value.code, found.err
        return found.out

    out = tmp_path / "run"
    changes = [part for change in CHANGES for part in ("--set", change)]
    assert "12 trees, best validation mIoU" in terralean("train", "random_forest", "--data", noisy, "--out", out, *changes)
    assert "mIoU" in terralean("evaluate", out)
    page = (out / "report.html").read_text()
    assert "forest" in page
    assert "Optimiser step" not in page
    assert read_card(out).metrics["test"]["mIoU"]["value"] > 0.6
    assert "forest" in terralean("inspect", out)
    terralean("map", out, noisy / "3.tif", "--out", tmp_path / "maps")
    with rasterio.open(tmp_path / "maps" / "3_map.tif") as dataset:
        assert dataset.tags()["TERRALEAN_MODEL"] == "forest"
        assert (dataset.read(1) == labels(noisy, 3)).mean() > 0.8


# What cannot be obeyed.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["train.steps=99", "train.validate_every=3"],
            r"train: .* or forest: .*, this one both; leave out what sets the other",
        ),
        (["model.name=lemevit_tiny_light"], "model lemevit_tiny_light does not go with the section forest:"),
        (["model.weights=there.pth", "data.rare_share=0"], r"model\.weights, data\.rare_share: of no meaning for a forest"),
        (["model.sizes={trees: 3}"], r"model\.sizes: of no meaning"),
        (["model.shrink=2"], r"model\.shrink: of no meaning"),
        (["data.augment.flips=false"], r"data\.augment: of no meaning"),
        (["forest.sides_px=[3, 63]", "tiling.overlap_px=32"], r"overlap_px 32 is too little for squares of 63 px.*make it 62"),
        (["forest.sides_px=[4]"], r"forest\.sides_px must be different odd numbers from 3, got \[4\]"),
        (["forest.sides_px=[3, 3]"], r"got \[3, 3\]"),
        (["forest.trees=0"], r"forest\.trees must be above 0, got 0"),
        (["forest.pixels=0"], r"forest\.pixels must be above 0"),
        (["forest.min_leaf=0"], r"forest\.min_leaf must be above 0"),
        (["forest.depth=0"], r"forest\.depth must be above 0, or null"),
        (["forest.balance=some"], r"forest\.balance: .*got 'some'"),
        (["forest.tree=9"], r"no setting forest\.tree; nearest: forest\.trees"),
    ],
)
def test_recipes_that_cannot_be_obeyed_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        recipes.read("random_forest", changes=changes)


@pytest.mark.slow
def test_several_processes_have_nothing_to_share(noisy, tmp_path):
    command = [sys.executable, "-m", "terralean.cli", "train", "random_forest", "--device", "cpu", "--devices", "2"]
    done = subprocess.run([*command, "--data", noisy, "--out", tmp_path / "run"], capture_output=True, check=False, text=True)
    assert done.returncode == 2, done.stderr
    assert "a forest is fitted by one process, not by 2; leave out --devices" in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_experiment_needs_a_network_or_a_forest():
    with pytest.raises(ConfigError, match="this one neither"):
        recipes.parse({"task": "segmentation", "model": {"name": "forest"}}, source="mine")
    with pytest.raises(ConfigError, match="model forest does not go with the section train:"):
        recipes.read("lemevit_tiny_light", changes=["model.name=forest"])


def test_a_square_of_one_pixel_needs_no_overlap():
    assert recipes.read("random_forest", changes=["forest.sides_px=[]", "tiling.overlap_px=0"]).forest == ForestConfig(
        sides_px=()
    )
