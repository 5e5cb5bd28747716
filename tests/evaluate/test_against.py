"""Runs beside each other: on the same pixels, paired, several seeds together."""

import dataclasses
import html
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from terralean import recipes
from terralean.errors import ConfigError, RunError
from terralean.evaluate.contenders import open_contender, open_run
from terralean.evaluate.kept import NAME as KEPT
from terralean.evaluate.run import run_evaluation
from terralean.spec import Classes
from terralean.train.run import run as train
from terralean.weights.card import read_card, write_card


@pytest.fixture(scope="module")
def trained(wide, experiment, tmp_path_factory) -> Path:
    """One run on them; do not change it."""
    out = tmp_path_factory.mktemp("trained") / "base"
    train(experiment("train.steps=8"), data=wide, out=out, device="cpu")
    return out


def variant(run: Path, to: Path, *, noise: float = 0.0, **changes) -> Path:
    """A copy of a run with noise on its weights and a card with other values."""
    shutil.copytree(run, to)
    torch.manual_seed(len(str(to.name)) + round(1000 * noise))
    state = load_file(to / "weights.safetensors")
    noisy = {k for k, v in state.items() if v.is_floating_point() and not k.endswith("running_var")}  # above 0 as it was
    moved = {k: v + noise * v.abs().mean() * torch.randn_like(v) if k in noisy else v for k, v in state.items()}
    save_file(moved, to / "weights.safetensors")
    card = read_card(to)
    seed = changes.pop("seed", card.training.seed)
    write_card(dataclasses.replace(card, training=dataclasses.replace(card.training, seed=seed), **changes), to)
    return to


def seeds_of(run: Path, to: Path, *noises: float) -> Path:
    for seed, noise in enumerate(noises):
        variant(run, to / f"seed{seed}", noise=noise, seed=seed)
    return to


def evaluate(run, **options):
    return run_evaluation(run, read=recipes.read_run, device="cpu", **options)


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def change_split(run: Path, change) -> None:
    content = json.loads((run / "split.json").read_text())
    change(content["regions"])
    (run / "split.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def compared(trained, tmp_path_factory):
    """A run evaluated against a noisier one."""
    folder = tmp_path_factory.mktemp("compared")
    mine, other = variant(trained, folder / "mine"), variant(trained, folder / "other", noise=0.4)
    before = files(other)
    return mine, other, before, evaluate(mine, against=[other])


def test_the_difference_is_that_of_two_evaluations(compared, tmp_path):
    mine, other, _, result = compared
    alone = [evaluate(shutil.copytree(run, tmp_path / run.name)).document for run in (mine, other)]
    (entry,) = result.document["against"]
    for name in ("mIoU", "OA", "mF1", "AA", "kappa"):
        assert result.document[name] == alone[0][name]
        assert entry[name] == alone[1][name]
        assert entry["difference"][name]["value"] == pytest.approx(alone[0][name]["value"] - alone[1][name]["value"])
        assert entry["difference"][name]["low"] < entry["difference"][name]["value"] < entry["difference"][name]["high"]
    iou = [[c["IoU"]["value"] for c in document["classes"]] for document in alone]
    assert [c["IoU"]["value"] for c in entry["difference"]["classes"]] == pytest.approx(np.subtract(*iou))


def test_page_document_and_terminal_say_the_same(compared):
    mine, other, _, result = compared
    (entry,) = result.document["against"]
    page = html.unescape((mine / "report.html").read_text()).replace("\N{NARROW NO-BREAK SPACE}", " ")
    assert entry["verdict"] in page
    assert entry["verdict"] in result.verdict
    assert list(result.verdict[:-1]) == result.document["verdict"]
    assert other.name in entry["verdict"]
    found = entry["difference"]["mIoU"]
    told = f"{100 * found['low']:.1f} to {100 * found['high']:.1f}".replace("-", "\N{MINUS SIGN}")
    assert f"<small>{told}</small>" in page
    assert "first &lt;i>" in (mine / "report.html").read_text().replace("&gt;", ">")
    assert entry["cost"]["parameters"] == read_card(other).cost["parameters"]
    assert entry["cost"]["windows_per_s"] > 0


def test_the_other_run_is_not_touched(compared):
    _, other, before, _ = compared
    assert files(other) == before


def test_counts_of_an_earlier_evaluation_are_used_again_and_stale_ones_are_not(compared, trained, tmp_path, caplog):
    mine, other, _, result = compared
    copies = [shutil.copytree(run, tmp_path / run.name) for run in (mine, other)]
    evaluate(copies[1])
    caplog.set_level("INFO")
    caplog.clear()
    again = evaluate(copies[0], against=[copies[1]])
    assert caplog.text.count("nothing has changed since it was scored") == 2
    assert again.document["against"][0]["difference"] == result.document["against"][0]["difference"]
    shutil.copy(mine / KEPT, copies[1] / KEPT)  # foreign
    (copies[0] / KEPT).write_bytes(b"broken")
    caplog.clear()
    anew = evaluate(copies[0], against=[copies[1]])
    assert "nothing has changed" not in caplog.text
    assert anew.document["against"][0]["difference"] == again.document["against"][0]["difference"]
    save_file(load_file(trained / "weights.safetensors"), copies[1] / "weights.safetensors")
    assert evaluate(copies[0], against=[copies[1]]).document["against"][0]["difference"]["mIoU"]["value"] == 0


def test_a_copy_of_a_run_differs_by_exactly_nothing(trained, tmp_path):
    mine, copy = variant(trained, tmp_path / "mine"), variant(trained, tmp_path / "copy")
    (entry,) = evaluate(mine, against=[copy]).document["against"]
    for name in ("mIoU", "OA", "mF1"):
        assert entry["difference"][name] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert entry["verdict"].startswith("No different from copy")


def test_other_data_are_the_same_for_all_and_nothing_is_kept(trained, wide, tmp_path):
    mine, other = variant(trained, tmp_path / "mine"), variant(trained, tmp_path / "other", noise=0.4)
    before = files(mine) | files(other)
    result = evaluate(mine, against=[other], data=wide, out=tmp_path / "report")
    (entry,) = result.document["against"]
    assert sum(c["support_px"] for c in entry["classes"]) == 160 * 128 + 2 * 48 * 48
    assert entry["leaks"] is True
    assert files(mine) | files(other) == before


def test_seeds_give_mean_spread_and_each_score(trained, tmp_path):
    folder = seeds_of(trained, tmp_path / "runs", 0.1, 0.2, 0.4)
    result = evaluate(folder)
    document = json.loads((folder / "evaluation.json").read_text())
    assert document == result.document
    alone = [evaluate(folder / f"seed{seed}", out=tmp_path / f"alone{seed}").document for seed in range(3)]
    for name in ("mIoU", "OA", "mF1"):
        values = [one[name]["value"] for one in alone]
        assert document[name]["value"] == pytest.approx(np.mean(values))
        assert document[name]["sd"] == pytest.approx(np.std(values, ddof=1))
        assert document[name]["low"] < document[name]["value"] < document[name]["high"]
        assert [seed[name] for seed in document["seeds"]] == [one[name] for one in alone]
    assert [seed["seed"] for seed in document["seeds"]] == [0, 1, 2]
    assert [read_card(folder / f"seed{seed}").metrics["test"]["mIoU"] for seed in range(3)] == [one["mIoU"] for one in alone]
    page = (folder / "report.html").read_text()
    assert "Over 3 seeds the map is right for" in page
    nearest = min(range(3), key=lambda i: abs(alone[i]["mIoU"]["value"] - document["mIoU"]["value"]))
    assert f"The map of seed {nearest}, whose mean IoU is nearest" in page
    assert "--seeds 0,1,2" in page


def test_seeds_are_paired_with_the_seeds_of_another_run(trained, tmp_path):
    mine, other = seeds_of(trained, tmp_path / "mine", 0.0, 0.1), seeds_of(trained, tmp_path / "other", 0.3, 0.5)
    result = evaluate(mine, against=[other])
    (entry,) = result.document["against"]
    assert entry["difference"]["mIoU"]["value"] == pytest.approx(result.document["mIoU"]["value"] - entry["mIoU"]["value"])
    assert not (other / "evaluation.json").exists()
    swapped = evaluate(other, against=[mine], out=tmp_path / "swapped").document["against"][0]["difference"]["mIoU"]
    found = entry["difference"]["mIoU"]
    assert (swapped["value"], swapped["low"], swapped["high"]) == pytest.approx(
        (-found["value"], -found["high"], -found["low"])
    )


def test_runs_that_cannot_be_compared_are_refused_before_anything_is_predicted(trained, tmp_path):
    mine = variant(trained, tmp_path / "mine")
    named = variant(trained, tmp_path / "named", classes=Classes.named(("second", "first <i>")))
    with pytest.raises(ConfigError, match=r"(?s)named and .*mine cannot be compared: their classes differ.*same order"):
        evaluate(mine, against=[named])
    moved = variant(trained, tmp_path / "moved")
    change_split(moved, lambda regions: regions[-1].update(window=[0, 0, 128, 96]))
    message = r"(?s)moved and .*mine were not tested on the same pixels: 0 test regions are the same.*of 2\.tif, say"
    with pytest.raises(ConfigError, match=message):
        evaluate(mine, against=[moved])
    unfinished = variant(trained, tmp_path / "unfinished")
    (unfinished / "card.json").unlink()
    with pytest.raises(RunError, match=r"unfinished is not a finished run: it has no card\.json"):
        evaluate(mine, against=[unfinished])
    good = variant(trained, tmp_path / "good")
    with pytest.raises(ConfigError, match="good is given twice; name each run once"):
        evaluate(mine, against=[good, tmp_path / "named" / ".." / "good"])
    with pytest.raises(ConfigError, match="mine is the run itself; name another one"):
        evaluate(mine, against=[good, mine])
    assert not (mine / KEPT).exists()
    assert not (mine / "report.html").exists()


def test_other_test_regions_do_not_matter_on_other_data(trained, wide, tmp_path):
    mine, moved = variant(trained, tmp_path / "mine"), variant(trained, tmp_path / "moved", noise=0.2)
    change_split(moved, lambda regions: regions[-1].update(window=[0, 0, 128, 96]))
    assert evaluate(mine, against=[moved], data=wide, out=tmp_path / "report").document["against"]


def test_a_copy_of_the_data_is_the_same_test_area(trained, wide, tmp_path):
    mine, other = variant(trained, tmp_path / "mine"), variant(trained, tmp_path / "other")
    shutil.copytree(wide, tmp_path / "elsewhere")
    content = json.loads((other / "split.json").read_text())
    (other / "split.json").write_text(json.dumps(content | {"root": str(tmp_path / "elsewhere")}))
    assert evaluate(mine, against=[other]).document["against"][0]["difference"]["OA"]["value"] == 0


def test_seeds_and_single_runs_and_other_seeds_are_not_paired(trained, tmp_path):
    three, two = seeds_of(trained, tmp_path / "three", 0.0, 0.1, 0.2), seeds_of(trained, tmp_path / "two", 0.0, 0.1)
    single = variant(trained, tmp_path / "single")
    with pytest.raises(ConfigError, match=r"two: the seeds 0, 1, but .*three has the seeds 0, 1, 2; runs are paired by seed"):
        evaluate(three, against=[two])
    with pytest.raises(ConfigError, match=r"single: one run, but .*two has the seeds 0, 1"):
        evaluate(two, against=[single])


def test_seeds_must_be_finished_and_of_one_recipe_and_one_test_area(trained, tmp_path):
    folder = seeds_of(trained, tmp_path / "runs", 0.0, 0.1)
    change_split(folder / "seed1", lambda regions: regions[-1].update(window=[0, 0, 128, 96]))
    with pytest.raises(
        ConfigError, match=r"seed1 and .*seed0 were not tested on the same pixels.*data\.split, its seed included"
    ):
        evaluate(folder)
    (folder / "seed1" / "card.json").unlink()
    with pytest.raises(RunError, match=r"seed1 is not a finished run"):
        evaluate(folder)
    shutil.rmtree(folder / "seed1")
    card = read_card(trained)
    variant(trained, folder / "seed1", seed=1, bands=dataclasses.replace(card.bands, units="reflectance"))
    with pytest.raises(ConfigError, match=r"seed1 and .*seed0 differ in more than the seed"):
        evaluate(folder)


def test_seeds_stand_in_order_of_their_numbers(trained, tmp_path):
    for seed in (10, 2):
        variant(trained, tmp_path / "runs" / f"seed{seed}", seed=seed)
    assert open_contender(
        tmp_path / "runs", open_run=partial(open_run, read=recipes.read_run), read=recipes.read_run
    ).seeds == (2, 10)


def test_a_run_that_has_diverged_is_refused(trained, tmp_path):
    run = variant(trained, tmp_path / "run")
    state = load_file(run / "weights.safetensors")
    name = next(k for k in state if k.endswith("running_var"))
    save_file({**state, name: -state[name]}, run / "weights.safetensors")
    with pytest.raises(RunError, match=r"run: the model's probabilities are no numbers; its training has diverged"):
        evaluate(run)
    assert not (run / "evaluation.json").exists()
