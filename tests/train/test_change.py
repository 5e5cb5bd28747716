import csv
import json

import numpy as np
import pytest
import torch

from terralean import recipes
from terralean.data.change_config import PairConfig
from terralean.data.change_samples import from_pair_samples
from terralean.errors import ConfigError, LabelError
from terralean.models.change_vector import lengths, otsu
from terralean.predict import load
from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import Bands
from terralean.train.run import run, run_samples
from terralean.weights.card import read_card

BANDS = Bands(names=("red", "nir"))
SMALL = (
    "model.sizes={backbone: resnet18, width: 16}",
    "train.steps=4",
    "train.validate_every=2",
    "train.batch=2",
    "train.warmup_steps=1",
    "data.tile_px=32",
    "tiling.tile_px=32",
    "tiling.overlap_px=8",
)


def dates(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A ground and the same with a bright square, on a darker day."""
    rng = np.random.default_rng(number)
    ground = rng.integers(60, 90, (2, 48, 48))
    changed = np.zeros((48, 48), bool)
    row, col = rng.integers(0, 30, 2)
    changed[row : row + 14, col : col + 14] = True
    return ground, np.where(changed, 170, ground) * 9 // 10 + rng.integers(0, 4, ground.shape), changed


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Six pairs with splits in index.csv, each at its place on the ground."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = ["before,after,label,split"]
    for number, split in enumerate(("train", "train", "train", "validation", "test", "test")):
        before, after, changed = dates(number)
        grid = Grid(width=48, height=48, crs="EPSG:32633", transform=(1.0, 0.0, 3e5 + 5000 * number, 0.0, -1.0, 5.2e6))
        for name, array in (("a", before), ("b", after)):
            write_scene(folder / f"{name}{number}.tif", array.astype(np.uint8), grid=grid, bands=BANDS)
        mask = Bands(names=("change",))
        write_scene(folder / f"m{number}.tif", (255 * changed[None]).astype(np.uint8), grid=grid, bands=mask)
        rows.append(f"a{number}.tif,b{number}.tif,m{number}.tif,{split}")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def trained(pairs, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "network"
    return out, run(recipes.read("change_difference_light", changes=SMALL), data=pairs, out=out, device="cpu")


@pytest.fixture(scope="module")
def fitted(pairs, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "vector"
    return out, run(recipes.read("change_vector", changes=["data.tile_px=48"]), data=pairs, out=out, device="cpu")


def test_a_run_keeps_the_weights_of_the_best_f1_of_change_and_tells_all_scores(trained):
    out, result = trained
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    names = ("f1", "precision", "recall", "iou", "f1_mean_of_batches", "f1_mean_of_classes", "oa")
    assert [float(row[f"val_{name}"]) >= 0 for row in rows for name in names] == [True] * 2 * len(names)
    assert result.score == "F1 of change"
    assert result.validation == pytest.approx(max(float(row["val_f1"]) for row in rows), abs=1e-6)
    card = read_card(out)
    assert card.task == "change"
    assert card.bands.names == ("red before", "nir before", "red after", "nir after")
    assert card.normalisation.mean[:2] == card.normalisation.mean[2:]
    assert card.classes.names == ("unchanged", "changed")


def test_the_same_command_again_does_nothing(trained, pairs):
    out, _ = trained
    assert run(recipes.read("change_difference_light", changes=SMALL), data=pairs, out=out, device="cpu").already_done


def test_split_names_both_dates(trained):
    out, _ = trained
    regions = json.loads((out / "split.json").read_text())["regions"]
    assert regions[0]["image"] == ["a0.tif", "b0.tif"]


def test_change_vector_analysis_finds_squares_that_it_was_never_shown(fitted):
    out, result = fitted
    card = read_card(out)
    assert card.metrics["validation"]["f1"] > 0.95
    assert result.length == f"{3 * 48 * 48} pixels"
    before, after, changed = dates(5)
    image = torch.from_numpy(np.concatenate([before, after])).float()[None]
    found = load(out, device="cpu")(image, torch.ones(1, 48, 48, dtype=torch.bool))[0].argmax(0).numpy()
    assert (found == changed).mean() > 0.98


def test_each_date_has_its_own_normalisation_where_that_is_asked_for(fitted):
    mean = read_card(fitted[0]).normalisation.mean
    assert mean[0] != mean[2]


def test_raw_values_enter_as_they_are(pairs, tmp_path):
    changes = [*SMALL, "pairs.normalise=raw", "train.steps=2"]
    run(recipes.read("change_difference_light", changes=changes), data=pairs, out=tmp_path / "run", device="cpu")
    normalisation = read_card(tmp_path / "run").normalisation
    assert (normalisation.mean, normalisation.std) == ((0.0,) * 4, (1.0,) * 4)


def test_threshold_is_otsus():
    counts = np.zeros(100, np.int64)
    counts[:20], counts[60:80] = 50, 5
    assert 19 <= otsu(counts) < 60
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 50, 40)
    bins = np.arange(40)

    def within(edge: int) -> float:
        parts = [(counts[: edge + 1], bins[: edge + 1]), (counts[edge + 1 :], bins[edge + 1 :])]
        return sum(float((n * (b - (n * b).sum() / n.sum()) ** 2).sum()) for n, b in parts)

    assert otsu(counts) == min(range(39), key=within)
    with pytest.raises(ConfigError, match="all change vectors are of one length"):
        otsu(np.array([0, 9, 0]))


def test_length_of_a_change_vector():
    pair = torch.tensor([1.0, 2.0, 4.0, 6.0]).reshape(1, 4, 1, 1)
    assert lengths(pair).item() == pytest.approx(((9 + 16) / 2) ** 0.5)


def test_datasets_that_yield_dictionaries_train(tmp_path):
    class Torchgeo:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> dict:
            before, after, changed = dates(index)
            return {"image": torch.from_numpy(np.stack([before, after])).float(), "mask": torch.from_numpy(changed).long()}

    samples = from_pair_samples(Torchgeo(), bands=BANDS)
    experiment = recipes.read("change_concatenation_light", changes=[*SMALL, "train.steps=2"])
    result = run_samples(experiment, train=samples, validation=samples, out=tmp_path / "run", device="cpu")
    (row,) = csv.DictReader((tmp_path / "run" / "metrics.csv").open())
    assert result.validation == pytest.approx(float(row["val_f1"]), abs=1e-6)
    assert (result.steps, row["step"]) == (2, "2")


def test_masks_without_change_teach_nothing(pairs, tmp_path):
    folder = tmp_path / "data"
    for name in ("A", "B", "label"):
        (folder / name).mkdir(parents=True)
    for number in range(4):
        before, after, _ = dates(number)
        grid = Grid(width=48, height=48, crs=None)
        for name, array in (("A", before), ("B", after), ("label", np.zeros((1, 48, 48)))):
            bands = BANDS if name != "label" else Bands(names=("change",))
            write_scene(folder / name / f"{number}.tif", array.astype(np.uint8), grid=grid, bands=bands)
    with pytest.raises(LabelError, match="no training pixel of changed"):
        run(recipes.read("change_difference_light", changes=SMALL), data=folder, out=tmp_path / "run", device="cpu")


def test_settings_that_do_not_go_together_are_refused():
    with pytest.raises(ConfigError, match="does not compare two dates"):
        recipes.read("change_difference_light", changes=["model.name=lemevit_tiny_light"])
    with pytest.raises(ConfigError, match="has train and vector"):
        recipes.read("change_difference_light", changes=["vector.bins=100"])
    with pytest.raises(ConfigError, match=r"pairs\.swap exchanges dates"):
        PairConfig(swap=True, normalise="each")
    with pytest.raises(ConfigError, match=r"nearest: pairs\.resample"):
        recipes.read("change_difference_light", changes=["pairs.resampel=true"])


@pytest.mark.parametrize("name", [name for name in recipes.names() if name.startswith(("change", "cdd"))])
def test_recipes_are_read(name):
    assert recipes.read(name).task == "change"


def test_cdd_is_trained_as_published():
    experiment = recipes.read("cdd_bit_lemevit_small")
    course = experiment.training
    assert course.steps == 200 * 10_000 // course.batch
    assert (course.lr, course.weight_decay, course.schedule) == (2.4e-4, 0.01, "poly")
    assert experiment.pairs == PairConfig(mask="truncation", swap=False, normalise="raw")
    assert (experiment.data.tile_px, experiment.model.name) == (256, "bit_lemevit_small")
