"""Cubes with labels become runs, scores and maps."""

import csv
import json
import shutil
from functools import partial

import numpy as np
import pytest
import rasterio
import torch

from terralean import recipes
from terralean.data.spectral.parts import load_split
from terralean.data.spectral.patches import CubeReader, PixelPatches
from terralean.errors import BandMismatch, ConfigError, RunError
from terralean.evaluate.run import run_evaluation
from terralean.layers.spectra import principal_components
from terralean.mapping.plan import Plan, taper
from terralean.mapping.run import MapConfig, map_scene
from terralean.predict import load
from terralean.raster.grid import Grid
from terralean.raster.scene import open_scene
from terralean.tasks.pixels import shares, tally
from terralean.train.run import run
from terralean.train.spectral_material import from_cubes
from terralean.weights.card import read_card

DATA = ("data.split.block_px=8", "data.split.window_px=5")
NET = (
    *("train.steps=12", "train.validate_every=6", "train.warmup_steps=2", "train.batch=16", "train.ema_decay=0.5"),
    *("model.sizes.window_px=5", "model.sizes.edges=zeros", "model.sizes.dim=8", "model.sizes.depth=1", "model.sizes.heads=2"),
    *("model.sizes.stem=plane", "model.sizes.components=4", "tiling.tile_px=32"),
)


def lola(*changes):
    return recipes.read("spectral_lola", changes=[*DATA, *NET, *changes])


def svm(*changes):
    return recipes.read("spectral_svm", changes=[*DATA, "svm.costs=[1, 100]", "svm.gammas=[1]", *changes])


@pytest.fixture(scope="module")
def cube(tmp_path_factory, labelled_cube):
    folder = tmp_path_factory.mktemp("cube")
    labelled_cube(folder)
    return folder


@pytest.fixture(scope="module")
def trained(cube, tmp_path_factory):
    """A network and a machine on the same pixels, by name."""
    out = tmp_path_factory.mktemp("runs")
    run(lola(), data=cube, out=out / "net", device="cpu")
    run(svm(), data=cube, out=out / "svm", device="cpu")
    return out


def test_a_run_has_what_it_needs(trained, cube):
    card, split = read_card(trained / "net"), load_split(trained / "net" / "split.json")
    assert (card.task, card.tile_px, card.overlap_px, card.cost["macs_at_px"]) == ("spectral", 32, 4, 5)
    assert card.classes.names == ("field", "water", "wood")
    assert card.bands.wavelength_nm[0] == 400.0
    assert "seeing no image, scores OA" in card.training.leakage
    assert "values normalised by the training pixels" in card.training.split
    rows = list(csv.DictReader((trained / "net" / "metrics.csv").open()))
    assert {"val_probability", "val_oa", "val_aa", "val_kappa", "val_loss"} <= rows[0].keys()
    best = max(float(row["val_probability"]) for row in rows)
    assert card.metrics["validation"]["probability"] == pytest.approx(best, abs=1e-6)
    again = run(lola(), data=cube, out=trained / "net", device="cpu")
    assert again.already_done
    machine = read_card(trained / "svm")
    assert machine.metrics["validation"]["oa"] > 0.9
    other = load_split(trained / "svm" / "split.json")
    assert (split.places("test") == other.places("test")).all()


@pytest.mark.parametrize("name", ["net", "svm"])
def test_the_map_says_of_each_pixel_what_is_said_of_its_patch(trained, cube, tmp_path, name):
    predictor = load(trained / name, device="cpu")
    result = map_scene(predictor, cube / "scene.hdr", out=tmp_path, config=MapConfig(scores=True, envi=True, workers=1))
    with rasterio.open(result.path) as found, rasterio.open(cube / "scene.img") as scene:
        classes = found.read(1)
        assert (found.crs, found.transform) == (scene.crs, scene.transform)
        assert found.tags()["TERRALEAN_WAVELENGTHS_NM"].startswith("400, 450, ")
    split = load_split(trained / name / "split.json")
    side = predictor.model.window_px
    patches = PixelPatches([CubeReader(str(cube / "scene.hdr"), bands=None)], split.test, side_px=side)
    batch = [patches[i] for i in range(len(patches))]
    scores = predictor.view_scores(torch.stack([s["image"] for s in batch]), torch.stack([s["valid"] for s in batch]))
    likely = (scores / predictor.card.temperature).softmax(dim=1)
    assert (classes[split.test.row, split.test.col] == likely.argmax(dim=1).numpy()).all()
    with rasterio.open(result.scores) as found:
        percent = found.read()[:, split.test.row, split.test.col].T
    assert np.abs(percent - 100 * likely.numpy()).max() <= 0.51
    with open_scene(result.envi) as envi:
        values = envi.read(envi.grid.window)[0][0]
        assert envi.grid.crs == "EPSG:32633"
    assert (values == classes + 1).all()
    assert all(name in (tmp_path / "scene_classes.hdr").read_text() for name in ("Unclassified", "field", "water", "wood"))


def test_scores_are_those_of_the_map_beside_position_alone(trained, cube, tmp_path):
    found = run_evaluation(trained / "svm", read=recipes.read_run, against=[trained / "net"], out=tmp_path, device="cpu")
    document = json.loads((tmp_path / "evaluation.json").read_text())
    mapped = map_scene(
        load(trained / "svm", device="cpu"), cube / "scene.hdr", out=tmp_path / "map", config=MapConfig(workers=1)
    )
    with rasterio.open(mapped.path) as raster:
        classes = raster.read(1)
    split = load_split(trained / "svm" / "split.json")
    right = classes[split.test.row, split.test.col] == split.test.label
    assert document["OA"]["value"] == pytest.approx(right.mean())
    apart = np.abs(split.places("test")[:, None] - split.places("train")[None])
    nearest = split.train.label[(apart.astype(float) ** 2).sum(axis=2).argmin(axis=1)]
    assert document["position_only"]["OA"]["value"] == pytest.approx((nearest == split.test.label).mean(), abs=0.02)
    assert document["against"][0]["difference"]["OA"]["value"] == pytest.approx(
        document["OA"]["value"] - document["against"][0]["OA"]["value"]
    )
    assert document["leakage"]["leaks"] is False
    assert any(line.startswith("Position alone, seeing no image: OA ") for line in found.verdict)
    assert "Position alone" in (tmp_path / "report.html").read_text()
    told = read_card(trained / "svm").metrics["test"]
    assert told["OA"] == pytest.approx(right.mean(), abs=1e-6)
    assert told["position_only"]["oa"] == pytest.approx(document["position_only"]["OA"]["value"], abs=1e-6)


def test_a_cube_or_split_that_changed_is_told(trained, cube, tmp_path, labelled_cube, caplog):
    for folder, origin in (("data", cube), ("run", trained / "svm")):
        shutil.copytree(origin, tmp_path / folder)
    split = tmp_path / "run" / "split.json"
    split.write_text(split.read_text().replace(str(cube), str(tmp_path / "data")))
    evaluated = partial(run_evaluation, tmp_path / "run", read=recipes.read_run, out=tmp_path / "report", device="cpu")
    evaluated()
    assert "changed" not in caplog.text
    with (tmp_path / "data" / "scene.hdr").open("a") as header:
        header.write("description = {another}\n")
    evaluated()
    assert "data changed since" in caplog.text
    labelled_cube(tmp_path / "small", grid=Grid(width=16, height=48, crs="EPSG:32633"))
    for suffix in (".hdr", ".img"):
        shutil.copy(tmp_path / "small" / f"scene{suffix}", tmp_path / "data" / f"scene{suffix}")
    with pytest.raises(RunError, match=r"scene.hdr is 16 x 48 px, and .*run has train pixels beyond that"):
        evaluated()
    split.write_text(split.read_text()[:100])
    with pytest.raises(RunError, match=r"split.json is damaged .*; copy the whole run folder again, or train anew"):
        evaluated()


def test_runs_on_other_pixels_are_not_compared(trained, cube, tmp_path):
    run(svm("seed=1"), data=cube, out=tmp_path / "other", device="cpu")
    with pytest.raises(ConfigError, match="were not tested on the same pixels"):
        run_evaluation(trained / "svm", read=recipes.read_run, against=[tmp_path / "other"], out=tmp_path, device="cpu")


def test_seeds_deal_their_own_pixels_and_are_scored_together(cube, tmp_path):
    for seed in (0, 1):
        run(svm(f"seed={seed}"), data=cube, out=tmp_path / "runs" / f"seed{seed}", device="cpu")
    found = run_evaluation(tmp_path / "runs", read=recipes.read_run, out=tmp_path / "report", device="cpu").document
    values = [seed["OA"]["value"] for seed in found["seeds"]]
    assert found["OA"]["value"] == pytest.approx(np.mean(values))
    assert found["OA"]["sd"] == pytest.approx(np.std(values, ddof=1))
    splits = [load_split(tmp_path / "runs" / f"seed{seed}" / "split.json") for seed in (0, 1)]
    assert splits[0].train.row.tolist() != splits[1].train.row.tolist()


def test_other_data_are_scored_as_a_whole(trained, tmp_path, labelled_cube):
    _, known = labelled_cube(tmp_path / "data", seed=3)
    how = {"read": recipes.read_run, "data": tmp_path / "data", "out": tmp_path / "report", "device": "cpu"}
    found = run_evaluation(trained / "svm", **how).document
    assert sum(entry["support_px"] for entry in found["classes"]) == (known != 255).sum()
    assert found["OA"]["value"] > 0.9  # its spectra are those of the scene that was learned from
    assert found["position_only"] is None
    assert "not checked" in found["leakage"]["verdict"]


def test_mixing_patches_is_a_setting(trained, cube, tmp_path):
    run(lola("train.mixup=0"), data=cube, out=tmp_path / "plain", device="cpu")
    losses = [read_losses(folder) for folder in (trained / "net", tmp_path / "plain")]
    assert losses[0][0] != losses[1][0]
    with pytest.raises(ConfigError, match=r"train.mixup must be 0 \(off\) or more, 1 for example, got -1"):
        lola("train.mixup=-1")
    with pytest.raises(ConfigError, match=r"train.mixup must be 0 \(off\) or more, 1 for example, got nan"):
        lola("train.mixup=.nan")


def read_losses(folder):
    with (folder / "metrics.csv").open() as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file)]


def test_only_training_pixels_are_measured(cube):
    material = from_cubes(svm(), cube)
    mean, weight = principal_components(material.pixels, count=4)
    assert mean.abs().max() < 1e-5
    whole = from_cubes(svm("data.fitted_on=scene"), cube)
    assert len(whole.pixels) > len(material.pixels)
    assert whole.normalisation != material.normalisation
    assert "all pixels of the scene, test pixels too (transductive)" in whole.split
    net = from_cubes(lola(), cube)
    assert torch.equal(net.pixels, material.pixels)  # the deal is the same for every model
    assert weight.shape == (4, 12)


def test_label_maps_say_what_trains(tmp_path, labelled_cube):
    _, known = labelled_cube(tmp_path, labels=False)
    numbers = np.where(known == 255, 0, known + 1).astype(np.uint8)
    train, test = numbers.copy(), numbers.copy()
    train[24:], test[:24] = 0, 0
    np.save(tmp_path / "train.npy", train)
    np.save(tmp_path / "test.npy", test)
    material = from_cubes(svm("data.split.method=maps", "data.train_labels=train.npy", "data.test_labels=test.npy"), tmp_path)
    assert material.classes.names == ("class 1", "class 2", "class 3")
    assert sum(material.class_counts) + len(material.validation) == (train > 0).sum()
    assert material.split.startswith("train as train.npy")
    assert "LEAKS" in material.leakage  # rows 23 and 24 touch


def test_a_network_is_adapted_to_another_scene(trained, tmp_path, labelled_cube):
    labelled_cube(tmp_path / "data", seed=5)
    steps = ("train.steps=4", "train.validate_every=2", "train.warmup_steps=1")
    run(
        lola(*steps, f"adapt.from={trained / 'net'}", "adapt.rank=2"),
        data=tmp_path / "data",
        out=tmp_path / "run",
        device="cpu",
    )
    card = read_card(tmp_path / "run")
    assert card.adapted.start == str(trained / "net")
    assert card.adapted.learned < card.adapted.of
    before, after = (load(folder, device="cpu").model.state_dict() for folder in (trained / "net", tmp_path / "run"))
    assert torch.equal(before["spectral.project.weight"], after["spectral.project.weight"])
    assert not torch.equal(before["head.weight"], after["head.weight"])


SHORT = ("train.steps=2", "train.validate_every=1", "train.warmup_steps=1", "adapt.rank=2")


def adapted_projection(trained, data, out, *changes):
    """Of the run that it starts from, and of itself: (components, bands)."""
    run(lola(*SHORT, f"adapt.from={trained / 'net'}", *changes), data=data, out=out, device="cpu")
    found = (load(folder, device="cpu").model.state_dict() for folder in (trained / "net", out))
    return tuple(state["spectral.project.weight"][..., 0, 0] for state in found)


def without_wavelengths(folder, labelled_cube, *, bands):
    values, known = labelled_cube(folder, seed=5, labels=False)
    (folder / "scene.hdr").unlink()
    np.save(folder / "scene.npy", values[:bands].transpose(1, 2, 0))
    np.save(folder / "scene_gt.npy", np.where(known == 255, 0, known + 1).astype(np.uint8))


def test_other_bands_get_the_kernels_of_their_wavelengths(trained, tmp_path, labelled_cube, caplog):
    """Every second band stands for itself and half of each neighbour; the last for the one behind it."""
    labelled_cube(tmp_path / "data", seed=5)
    with caplog.at_level("INFO"):
        before, after = adapted_projection(trained, tmp_path / "data", tmp_path / "run", "data.bands=[1,3,5,7,9,11]")
    wanted = before[:, ::2].clone()
    wanted[:, 1:] += before[:, 1:-1:2] / 2
    wanted += before[:, 1::2] / 2
    wanted[:, -1] += before[:, -1] / 2
    torch.testing.assert_close(after, wanted)
    assert "by wavelength" in caplog.text


def test_bands_that_the_run_or_the_scene_lacks_are_told(trained, tmp_path, labelled_cube, caplog):
    labelled_cube(tmp_path / "data", seed=5)
    before, after = adapted_projection(trained, tmp_path / "data", tmp_path / "run", "data.bands=[5,6,7,8,9,10,11,12]")
    torch.testing.assert_close(after, before[:, 4:])
    assert "the scene has nothing like bands 1 at 400 nm, 2 at 450 nm, 3 at 500 nm, 4 at 550 nm of" in caplog.text


def test_another_number_of_unknown_bands_is_refused_unless_their_layer_learns(trained, tmp_path, labelled_cube, caplog):
    data = tmp_path / "data"
    without_wavelengths(data, labelled_cube, bands=9)
    expected = r"was trained on 12 bands, the scene has 9, and the scene cannot tell .*--set 'adapt\.train=\[head, spectral\]'"
    with pytest.raises(ConfigError, match=expected):
        adapted_projection(trained, data, tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.yaml").exists()
    anew = ("adapt.train=[head, spectral]", "train.lr=1e-9", "train.final_lr=1e-9")
    _, begun = adapted_projection(trained, data, tmp_path / "begun", *anew)
    assert "what it learned of its 12 bands is left out" in caplog.text
    _, weight = principal_components(from_cubes(lola(), data).pixels, count=4, whitening=0.5)
    torch.testing.assert_close(begun, weight, rtol=1e-4, atol=1e-6)
    _, learned = adapted_projection(trained, data, tmp_path / "learned", "adapt.train=[head, spectral]")
    assert not torch.equal(learned, begun)


def test_as_many_unknown_bands_are_taken_for_the_same_with_a_warning(trained, tmp_path, labelled_cube, caplog):
    without_wavelengths(tmp_path / "data", labelled_cube, bands=12)
    before, after = adapted_projection(trained, tmp_path / "data", tmp_path / "run")
    assert torch.equal(before, after)
    assert "the scene does not tell its wavelengths; its 12 bands are taken for those of" in caplog.text


def test_a_scene_of_other_bands_is_refused(trained, cube, tmp_path):
    with pytest.raises(BandMismatch, match="11 bands, the model was trained on 12"):
        bands = tuple(range(1, 12))
        map_scene(load(trained / "svm", device="cpu"), cube / "scene.hdr", out=tmp_path, config=MapConfig(bands=bands))


def test_a_cube_without_wavelengths_is_mapped_with_a_warning_once(trained, tmp_path, labelled_cube, caplog):
    without_wavelengths(tmp_path, labelled_cube, bands=12)
    waves = tmp_path / "waves.txt"
    waves.write_text("\n".join(str(400 + 50 * band) for band in range(12)))
    path = tmp_path / "scene.npy"
    model = load(trained / "svm", device="cpu")
    map_scene(model, f"{path}#wavelengths={waves}", out=tmp_path / "told", config=MapConfig())
    assert "does not tell" not in caplog.text
    for name in ("one", "two"):
        map_scene(model, path, out=tmp_path / name, config=MapConfig())
    told = [line for line in caplog.messages if "does not tell" in line]
    assert told == [
        f"{path} does not tell its wavelengths; its 12 bands are taken for the model's, 400 to 950 nm, in the same order; to "
        f"have that checked, tell {path}#wavelengths=FILE, a line for each band, or an ENVI header"
    ]
    waves.write_text("\n".join(str(1400 + 50 * band) for band in range(12)))
    with pytest.raises(BandMismatch, match="12 of 12 bands at other wavelengths"):
        map_scene(model, f"{path}#wavelengths={waves}", out=tmp_path / "other", config=MapConfig())


def test_windows_share_what_a_patch_needs(trained, cube, tmp_path):
    with pytest.raises(ConfigError, match=r"share 4 px at least, got a window of 32 px that shares 3; raise --overlap"):
        map_scene(load(trained / "net", device="cpu"), cube / "scene.hdr", out=tmp_path, config=MapConfig(overlap_px=3))


@pytest.mark.parametrize(("overlap", "margin"), [(4, 2), (9, 4), (8, 2), (0, 0)])
def test_weights_of_windows_sum_to_one_and_their_margins_count_for_nothing(overlap, margin):
    plan = Plan(grid=Grid(width=90, height=70, crs=None), tile_px=32, overlap_px=overlap, margin_px=margin)
    total = np.zeros((200, 200), np.float32)
    for row in plan.rows:
        for window in plan.row_of_windows(row):
            total[window.slices()] += plan.weight(window)
    np.testing.assert_allclose(total[:70, :90], 1, rtol=1e-6)
    inner = taper(100, [0, 100, 200], tile=32, overlap=overlap, margin=margin)
    assert (inner[:margin] == 0).all()
    assert (inner[32 - margin :] == 0).all()


def test_settings_that_do_not_go_together_are_refused(cube):
    with pytest.raises(ConfigError, match="sees 5 px, the split keeps test pixels apart for windows of 3 px"):
        from_cubes(lola("data.split.window_px=3"), cube)
    with pytest.raises(ConfigError, match="the model named svm is fitted with a section svm:"):
        recipes.read("spectral_svm", changes=["model.name=ssftt"])
    with pytest.raises(ConfigError, match="recognises no single pixel of a cube"):
        recipes.read("spectral_lola", changes=["model.name=lemevit_tiny_light"])


def test_tally_counts_and_leaves_out_what_has_no_label():
    scores = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
    counts, sums = tally(scores, torch.tensor([0, 0, -1]))
    assert counts.tolist() == [[1, 1], [0, 0]]
    found = shares(counts, sums)
    assert found["oa"] == 0.5
    assert found["probability"] == pytest.approx(0.5)
