"""Runs with token reduction: what they cost beside their scores, and the same weights with another method or none."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from terralean import recipes
from terralean.data.config import DataConfig
from terralean.data.pixel_noise import NoiseConfig
from terralean.data.split import load_split
from terralean.errors import ConfigError
from terralean.evaluate.kept import NAME as KEPT
from terralean.evaluate.measure import measure
from terralean.evaluate.run import run_evaluation
from terralean.predict import load
from terralean.tokens.matp import MATPConfig
from terralean.tokens.tome import ToMeConfig
from terralean.tokens.topk import TopKConfig
from terralean.train.run import run as train
from terralean.weights.card import read_card, write_card

TOPK = TopKConfig(after=(2, 4), counts=(2, 1))  # of 4 tokens a window
LEFT = [{"layer": 2, "mean": 0.5, "p5": 0.5, "p95": 0.5}, {"layer": 4, "mean": 0.25, "p5": 0.25, "p95": 0.25}]
NAMES = ("mIoU", "OA", "mF1", "AA", "kappa")


@pytest.fixture(scope="module")
def dense(wide, experiment, tmp_path_factory) -> Path:
    """A vision transformer that keeps all tokens; do not change it."""
    out = tmp_path_factory.mktemp("dense") / "base"
    sizes = ("model.sizes.image_px=32", "model.sizes.decoder_width=48", "model.sizes.decoder_layers=1")
    train(
        recipes.read("vit_tiny_segvit", changes=[*experiment.changes, *sizes, "train.steps=2"]),
        data=wide,
        out=out,
        device="cpu",
    )
    return out


@pytest.fixture(scope="module")
def pruned(dense, tmp_path_factory):
    """The same run as if it were trained with top-k, evaluated."""
    out = with_method(dense, tmp_path_factory.mktemp("pruned") / "topk")
    return out, evaluate(out).document


def with_method(run: Path, to: Path, *, seed: int = 0) -> Path:
    shutil.copytree(run, to)
    card = read_card(to)
    write_card(dataclasses.replace(card, reduce=TOPK, training=dataclasses.replace(card.training, seed=seed)), to)
    return to


def evaluate(run, **options):
    return run_evaluation(run, read=recipes.read_run, device="cpu", **options)


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_what_windows_cost_stands_beside_the_scores(pruned):
    run, document = pruned
    found = document["reduction"]
    assert (found["windows"], found["all_windows"]) == (32, False)  # of 5 x 7
    assert found["left"] == LEFT
    for name in ("operations", "macs"):
        assert found[name]["mean"] == found[name]["p5"] == found[name]["p95"] < found[name]["dense"]
    assert document["cost"]["macs"] == found["macs"]["mean"]
    assert found["macs"]["dense"] == read_card(run).cost["macs_layers"] + read_card(run).cost["macs_attention"]
    assert document["run"]["reduce"]["counts"] == (2, 1)
    assert document["run"]["as_trained"] is True
    assert read_card(run).cost["reduction"] == found
    share = 100 * found["operations"]["mean"] / found["operations"]["dense"]
    told = f"With topk a window takes {share:.1f} % of the operations of the same network without it."
    assert told in [sentence.replace("\N{NARROW NO-BREAK SPACE}", " ") for sentence in document["verdict"]]
    page = (run / "report.html").read_text()
    for words in (
        "What token reduction saves",
        "Tokens left after layer 4",
        "Counted on 32 windows, spread evenly",
        "<td>25.0<small>after layer 4</small></td>",
    ):
        assert words in page


def test_a_run_that_keeps_all_tokens_says_nothing_of_them(dense, tmp_path):
    run = shutil.copytree(dense, tmp_path / "run")
    document = evaluate(run).document
    assert "reduction" not in document
    assert "reduction" not in read_card(run).cost
    assert document["run"]["reduce"] is None
    assert "What token reduction saves" not in (run / "report.html").read_text()


def test_counting_changes_no_score(pruned):
    """What is kept of the evaluation is, bit for bit, what mapping alone gives."""
    run, _ = pruned
    split = load_split(run / "split.json")
    alone = measure(
        load(run, device="cpu"), split.of("test"), coding=split.coding, config=DataConfig(), progress=lambda done, total: None
    )
    with np.load(run / KEPT) as kept:
        for name in ("places", "blocks", "blocks_unmapped"):
            np.testing.assert_array_equal(kept[name], getattr(alone, name))
        np.testing.assert_array_equal(kept["map"], alone.shown.map)


def test_what_was_counted_is_kept_with_the_scores(pruned, tmp_path, caplog):
    run, document = pruned
    copy = shutil.copytree(run, tmp_path / "copy")
    caplog.set_level("INFO")
    again = evaluate(copy).document
    assert "nothing has changed since it was scored" in caplog.text
    assert again["reduction"] == document["reduction"]
    write_card(dataclasses.replace(read_card(copy), reduce=None), copy)
    caplog.clear()
    assert "reduction" not in evaluate(copy).document
    assert "nothing has changed" not in caplog.text


def test_a_run_beside_itself_with_another_method(dense, pruned, tmp_path):
    before = files(dense)
    result = evaluate(dense, reduce=TOPK, against=[dense], out=tmp_path / "out")
    document, (other,) = result.document, result.document["against"]
    plain = evaluate(shutil.copytree(dense, tmp_path / "plain")).document
    for name in NAMES:
        assert document[name] == pruned[1][name]
        assert other[name] == plain[name]
        assert other["difference"][name]["value"] == pytest.approx(document[name]["value"] - other[name]["value"])
    assert document["reduction"] == pruned[1]["reduction"]
    assert (document["run"]["as_trained"], other["reduce"], "reduction" in other) == (False, None, False)
    assert "base as trained (no token reduction)" in other["verdict"]
    page = (tmp_path / "out" / "report.html").read_text()
    for words in ("Trained with", "--set &#39;reduce.after=[2,4]&#39; --set &#39;reduce.counts=[2,1]&#39;", "base as trained"):
        assert words in page
    assert files(dense) == before


def test_a_pruned_run_beside_itself_without_its_method(pruned, tmp_path):
    run, own = pruned
    before = files(run)
    document = evaluate(run, reduce=None, against=[run], out=tmp_path / "out").document
    (other,) = document["against"]
    assert "reduction" not in document
    assert other["reduction"] == own["reduction"]
    assert {name: other[name] for name in NAMES} == {name: own[name] for name in NAMES}
    assert "topk as trained (topk after=[2,4] counts=[2,1])" in other["verdict"]
    assert "terralean map" in (page := (tmp_path / "out" / "report.html").read_text())
    assert "--set reduce=null" in page
    assert files(run) == before


def test_parameters_are_those_of_the_method_in_use(pruned, tmp_path):
    run, _ = pruned
    with_heads = shutil.copytree(run, tmp_path / "heads")
    card = read_card(with_heads)
    write_card(dataclasses.replace(card, cost={**card.cost, "parameters": card.cost["parameters"] + 1000}), with_heads)
    document = evaluate(with_heads, reduce=None, out=tmp_path / "out").document
    assert document["cost"]["parameters"] == card.cost["parameters"]


def test_runs_of_several_seeds_are_counted_together(dense, tmp_path):
    for seed in (0, 1):
        with_method(dense, tmp_path / "runs" / f"seed{seed}", seed=seed)
    found = evaluate(tmp_path / "runs").document["reduction"]
    assert (found["windows"], found["left"]) == (64, LEFT)
    assert [read_card(tmp_path / "runs" / f"seed{seed}").cost["reduction"]["windows"] for seed in (0, 1)] == [32, 32]


def test_noisy_images_are_counted_too(dense, tmp_path):
    document = evaluate(
        dense, reduce=TOPK, against=[dense], noise=NoiseConfig(pixels=(0, 130_000)), out=tmp_path / "out"
    ).document
    levels = document["noise"]["levels"]
    assert levels[0]["reduction"] == document["reduction"]
    assert levels[1]["reduction"]["left"] == LEFT
    assert all("reduction" not in level for level in document["against"][0]["noise"]["levels"])
    assert "Tokens left" in (tmp_path / "out" / "report.html").read_text()


def test_the_command_line_prints_what_windows_cost(dense, terralean, tmp_path):
    command = ["evaluate", dense, "--against", dense, "--device", "cpu", "--out", tmp_path / "out", "--noise", "0"]
    command += ["--set", "reduce.method=topk", "--set", "reduce.after=[2,4]", "--set", "reduce.counts=[2,1]"]
    status, out, _ = terralean(*command)
    assert status == 0
    assert "50.0% after 2, 25.0% after 4" in out
    assert "G operations" in out
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())["reduction"]["operations"]
    assert f"{found['mean'] / found['dense']:.1%}" in out
    assert sum(line.split()[1:2] == ["none"] for line in out.splitlines()) == 1  # the run as it was trained


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduce": TOPK}, "with --set reduce... the scores are not those of .*; say with --out where the report goes"),
        ({"reduce": None}, "say with --out where the report goes"),
        ({"reduce": MATPConfig(after=(2,)), "out": "out"}, "has not been trained with the heads that reduce.method=matp"),
        ({"reduce": TopKConfig(after=(2, 99), counts=(2, 1)), "out": "out"}, "99"),
        (
            {"reduce": None, "out": "out", "against": "itself"},
            "is the run itself; name another one, or give RUN another method",
        ),
        ({"against": "itself"}, "is the run itself"),
    ],
)
def test_what_is_refused(dense, tmp_path, options, message):
    given = dict(options)
    if "out" in given:
        given["out"] = tmp_path / given["out"]
    if "against" in given:
        given["against"] = [dense]
    before = files(dense)
    with pytest.raises(ConfigError, match=message):
        evaluate(dense, **given)
    assert files(dense) == before
    assert not (tmp_path / "out").exists()


def test_other_tasks_and_other_settings_are_refused(recognised, tmp_path):
    with pytest.raises(ConfigError, match="a run of classification, whose networks keep all tokens"):
        evaluate(recognised, reduce=ToMeConfig(r=1), out=tmp_path / "out")
    with pytest.raises(ConfigError, match=r"only reduce\.key=value has a meaning here"):
        recipes.reduction(["train.lr=1"])
    assert not (tmp_path / "out").exists()
