import csv
import dataclasses
import html
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from terralean import recipes
from terralean.data.scene_split import load_scene_split
from terralean.errors import BandMismatch, ConfigError, EmptySplit, LabelError, MissingFile, OutputFailed, RunError
from terralean.evaluate.run import run_evaluation
from terralean.evaluate.scene_measure import measure_scenes
from terralean.evaluate.scene_metrics import score
from terralean.mapping.images import ClassifyConfig, classify
from terralean.predict import load
from terralean.spec import Classes
from terralean.train.run import run as train
from terralean.weights.card import read_card, write_card

CLASSES = ("dark", "light", "rough <i>")
FILES = {"report.html", "picture.png", "answers.csv", "evaluation.json"}


def evaluate(run, **options):
    return run_evaluation(run, read=recipes.read_run, device="cpu", **options)


def variant(run: Path, to: Path, *, noise: float = 0.0, **changes) -> Path:
    """A copy of a run with noise on its weights and a card with other values."""
    shutil.copytree(run, to)
    torch.manual_seed(round(1000 * noise))
    state = load_file(to / "weights.safetensors")
    moved = {k: v if "running" in k else v + noise * v.float().abs().mean() * torch.randn(v.shape) for k, v in state.items()}
    save_file(moved, to / "weights.safetensors")
    card = read_card(to)
    seed = changes.pop("seed", card.training.seed)
    write_card(dataclasses.replace(card, training=dataclasses.replace(card.training, seed=seed), **changes), to)
    return to


def change_split(run: Path, change) -> None:
    content = json.loads((run / "split.json").read_text())
    content["images"] = change(content["images"])
    (run / "split.json").write_text(json.dumps(content))


def read_answers(folder: Path) -> list[dict[str, str]]:
    with (folder / "answers.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def shown(folder: Path) -> str:
    return html.unescape((folder / "report.html").read_text()).replace("\N{NARROW NO-BREAK SPACE}", " ")


@pytest.fixture(scope="module")
def scored(recognised, tmp_path_factory):
    """A copy of the run, evaluated."""
    run = variant(recognised, tmp_path_factory.mktemp("evaluated") / "run")
    return run, evaluate(run)


# What is scored.


def test_validation_images_get_the_scores_that_training_gave_them(recognised):
    split = load_scene_split(recognised / "split.json")
    config, card = recipes.read_scene_data(recognised), read_card(recognised)
    told = []
    measured = measure_scenes(
        load(recognised, device="cpu"), split.of("validation"), config=config, progress=lambda *at: told.append(at)
    )
    assert score(measured.answers, classes=3).oa == pytest.approx(card.metrics["validation"]["top1"], abs=1e-6)
    assert told[-1] == (12, 12)
    assert measured.views == 12
    assert measured.images_per_s < measured.views_per_s


def test_answers_are_those_that_a_user_gets(scored, scenes):
    run, result = scored
    split = load_scene_split(run / "split.json")
    paths = [image.path for image in split.of("test")]
    given = classify(load(run, device="cpu"), paths, config=ClassifyConfig(), data=recipes.read_scene_data(run)).images
    rows = read_answers(run)
    assert [str(scenes / row["path"]) for row in rows] == paths
    for row, one in zip(rows, given, strict=True):
        names = [row["answer"], row["answer_2"], row["answer_3"]]
        assert names == [likely.name for likely in one.likeliest]
        assert float(row["confidence"]) == pytest.approx(one.likeliest[0].probability, abs=1e-4)
        assert int(row["right"]) == (row["answer"] == row["class"])
    true, said = [row["class"] for row in rows], [row["answer"] for row in rows]
    assert result.document["OA"]["value"] == pytest.approx(accuracy_score(true, said))
    assert result.document["confusion"] == confusion_matrix(true, said, labels=CLASSES).tolist()
    f1 = f1_score(true, said, labels=CLASSES, average=None)
    assert [c["F1"]["value"] or 0.0 for c in result.document["classes"]] == pytest.approx(f1)
    assert [c["images"] for c in result.document["classes"]] == [7, 7, 7]


def test_many_views_are_averaged(scenes, scene_experiment, tmp_path):
    run = tmp_path / "run"
    train(scene_experiment(size_px=16, resize_px=20, views="many"), data=scenes, out=run, device="cpu")
    result = evaluate(run)
    assert result.document["cost"]["views_per_image"] > 1
    paths = [image.path for image in load_scene_split(run / "split.json").of("test")]
    given = classify(load(run, device="cpu"), paths, config=ClassifyConfig(), data=recipes.read_scene_data(run)).images
    assert [row["answer"] for row in read_answers(run)] == [one.likeliest[0].name for one in given]
    assert "views of an image, their mean" in shown(run)


def test_everything_is_written_and_the_card_learns_the_scores(scored, recognised):
    run, result = scored
    text = (run / "evaluation.json").read_text()
    document = json.loads(text)
    assert document == result.document
    assert f"\n  {document['confusion'][2]}\n ]" in text
    assert document["task"] == "classification"
    card = read_card(run)
    assert card.metrics["test"]["OA"] == document["OA"]
    assert card.metrics["validation"] == read_card(recognised).metrics["validation"]
    assert "top5" not in document  # of three classes it is always 1
    assert card.cost["images_per_s"] == document["cost"]["images_per_s"] > 0
    assert card.cost["parameters"] == read_card(recognised).cost["parameters"]
    with Image.open(run / "picture.png") as picture:
        assert picture.width == 6 * 186 + 10
    assert not list(run.glob("*.part*"))


def test_the_page_says_what_was_found(scored):
    run, result = scored
    page = shown(run)
    for sentence in result.document["verdict"]:
        assert sentence.partition(" (")[0].replace("\N{NARROW NO-BREAK SPACE}", " ") in page
    assert result.document["verdict"][0].startswith("The model recognises ")
    assert "small_cnn on scenes" in page
    assert "No test image is among the training images" in page
    assert "no leak found" in page
    assert result.document["intervals"] in page
    assert "rough <i>" in page
    assert "rough <i>" not in (run / "report.html").read_text()


def test_simple_methods_stand_beside_with_paired_differences(scored):
    _, result = scored
    regression, common = result.document["baselines"].values()
    assert regression["OA"] > 0.9  # brightness and roughness are the classes
    assert common["OA"] == pytest.approx(1 / 3)
    for rival in (regression, common):
        assert rival["difference"]["OA"]["value"] == pytest.approx(result.document["OA"]["value"] - rival["OA"], abs=1e-6)
    assert any("the best simple method (regression on colours and texture)" in line for line in result.verdict)


def test_calibration_is_told(scored):
    run, result = scored
    known = result.document["calibration"]
    assert known["accuracy"] == pytest.approx(result.document["OA"]["value"])
    assert sum(one["count"] for one in known["bins"]) == 21
    assert f"15 equal ranges of confidence</small></th><td>{100 * known['ECE']['value']:.1f}<" in shown(run)
    table = read_answers(run)
    gap = np.mean([float(row["confidence"]) for row in table]) - np.mean([int(row["right"]) for row in table])
    assert known["gap"]["value"] == pytest.approx(gap, abs=1e-4)
    assert known["temperature"] == read_card(run).temperature
    assert 0 < known["ECE_by_chance"] < 1


def test_a_second_evaluation_says_the_same(scored):
    run, result = scored
    before = read_answers(run)
    again = evaluate(run)
    timed = ("cost", "verdict")
    assert {k: v for k, v in again.document.items() if k not in timed} == {
        k: v for k, v in result.document.items() if k not in timed
    }
    assert read_answers(run) == before


# Other data.


@pytest.fixture
def others(paint_scene, tmp_path) -> Path:
    """Other images of two of the classes, a folder each."""
    for label, name in enumerate(CLASSES[:2]):
        for i in range(5):
            paint_scene(tmp_path / "others" / name / f"{i}.png", label, seed=500 + 10 * label + i)
    return tmp_path / "others"


def test_other_data_are_scored_whole_into_another_folder(recognised, others, tmp_path):
    before = files(recognised)
    result = evaluate(recognised, data=others, out=tmp_path / "report")
    assert {path.name for path in (tmp_path / "report").iterdir()} == FILES
    assert result.document["images"] == 10
    assert result.document["leakage"]["leaks"] is False
    assert result.document["classes"][2]["recall"] == {"value": None}
    assert files(recognised) == before
    assert {row["path"].split("/")[0] for row in read_answers(tmp_path / "report")} == {"dark", "light"}


def test_training_images_among_other_data_leak(recognised, scenes, others, tmp_path):
    shutil.copy(scenes / "0" / "train_3.png", others / "dark" / "copy.png")
    result = evaluate(recognised, data=others, out=tmp_path / "report")
    assert result.document["leakage"]["leaks"] is True
    assert "1 of 11 test images hold the same pixels as a training image" in result.document["leakage"]["verdict"]
    assert "expect lower scores on new ground" in shown(tmp_path / "report")


def test_the_training_data_themselves_leak(recognised, scenes, tmp_path):
    result = evaluate(recognised, data=scenes, out=tmp_path / "report")
    assert result.document["images"] == 57
    assert "24 of 57 test images" in result.document["leakage"]["verdict"]


def test_a_class_that_the_model_does_not_know_is_refused(recognised, others, paint_scene, tmp_path):
    paint_scene(others / "river" / "0.png", 0, seed=900)
    with pytest.raises(LabelError, match=r"class 'river' is none of dark, light, rough <i>; .*run can answer no other classes"):
        evaluate(recognised, data=others, out=tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_images_with_other_bands_are_refused(recognised, paint_scene, tmp_path):
    for name in CLASSES[:2]:
        paint_scene(tmp_path / "grey" / name / "0.png", 0, seed=len(name), mode="L")
    with pytest.raises(BandMismatch, match=r"grey: 1 band, the model was trained on 3"):
        evaluate(recognised, data=tmp_path / "grey", out=tmp_path / "report")
    deep = np.random.default_rng(0).integers(0, 60_000, (32, 32)).astype(np.uint16)
    for name in CLASSES[:2]:
        (tmp_path / "deep" / name).mkdir(parents=True)
        Image.fromarray(deep).save(tmp_path / "deep" / name / "0.png")
    with pytest.raises(BandMismatch, match="deep: 1 band"):
        evaluate(recognised, data=tmp_path / "deep", out=tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_broken_image_among_other_data_is_named(recognised, others, tmp_path):
    path = others / "light" / "2.png"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(Exception, match=r"light/2\.png breaks off"):
        evaluate(recognised, data=others, out=tmp_path / "report")


def test_other_data_need_a_folder(recognised, others):
    with pytest.raises(ConfigError, match="say with --out"):
        evaluate(recognised, data=others)


# Bad runs.


def test_a_run_without_a_test_split_says_what_mends_it(recognised, tmp_path):
    run = variant(recognised, tmp_path / "run")
    change_split(run, lambda images: [row for row in images if row[2] != "test"])
    with pytest.raises(
        EmptySplit, match=r"run has no test split \(.*\); name labelled data with --data DIR --out DIR, or train"
    ):
        evaluate(run)


def test_test_images_that_are_gone_are_named(recognised, scenes, tmp_path):
    run = variant(recognised, tmp_path / "run")
    shutil.copytree(scenes, tmp_path / "scenes")
    content = json.loads((run / "split.json").read_text())
    (run / "split.json").write_text(json.dumps(content | {"root": str(tmp_path / "scenes")}))
    (tmp_path / "scenes" / "1" / "test_2.png").unlink()
    with pytest.raises(MissingFile, match=r"1 of 21 test images are gone since training: .*1/test_2\.png; put them back"):
        evaluate(run)
    assert not (run / "report.html").exists()


def test_training_images_that_are_gone_leave_out_what_needs_them(recognised, scenes, others, tmp_path, caplog):
    run = variant(recognised, tmp_path / "run")
    shutil.copytree(scenes, tmp_path / "scenes")
    content = json.loads((run / "split.json").read_text())
    (run / "split.json").write_text(json.dumps(content | {"root": str(tmp_path / "scenes")}))
    (tmp_path / "scenes" / "1" / "train_2.png").unlink()
    own = evaluate(run)
    assert own.document["baselines"] == {}
    assert own.document["leakage"]["leaks"] is False  # as training found
    assert "1 training images are gone" in caplog.text
    assert "1/train_2.png" in caplog.text
    assert 'id="baselines"' not in (run / "report.html").read_text()
    other = evaluate(run, data=others, out=tmp_path / "report")
    assert other.document["leakage"]["leaks"] is None
    assert "It is not known whether training and test overlap" in shown(tmp_path / "report")


def test_runs_that_are_not_finished_or_not_whole_are_refused(recognised, tmp_path):
    run = variant(recognised, tmp_path / "run")
    (run / "card.json").unlink()
    with pytest.raises(RunError, match=r"run is not a finished run: it has no card\.json"):
        evaluate(run)
    mixed = variant(recognised, tmp_path / "mixed", classes=Classes.named(("a", "b", "c")))
    with pytest.raises(RunError, match=r"mixed: split\.json has the classes dark, light, rough <i>, the card a, b, c; copy"):
        evaluate(mixed)


def test_what_cannot_be_written_leaves_nothing(recognised, tmp_path):
    run = variant(recognised, tmp_path / "run")
    (tmp_path / "file").write_text("in the way")
    before = files(run)
    with pytest.raises(OutputFailed):
        evaluate(run, out=tmp_path / "file")
    assert files(run) == before


def test_a_model_that_answers_no_numbers_is_refused(recognised, tmp_path):
    run = variant(recognised, tmp_path / "run")
    state = load_file(run / "weights.safetensors")
    save_file(state | {"head.bias": state["head.bias"] * torch.nan}, run / "weights.safetensors")
    with pytest.raises(RunError, match=r"run: the model's answer for .*0/test_0\.png is no number; .*lower train\.lr"):
        evaluate(run)


# Leakage and groups.


def test_the_same_image_in_training_and_test_leaks_as_long_as_it_is_test_that_has_it(scenes, scene_experiment, tmp_path):
    shutil.copytree(scenes, tmp_path / "scenes")
    run = tmp_path / "run"
    shutil.copy(scenes / "0" / "train_0.png", tmp_path / "scenes" / "0" / "validation_0.png")
    train(scene_experiment(), data=tmp_path / "scenes", out=run, device="cpu")
    assert read_card(run).training.leakage.startswith("LEAKS: 1 of 12 validation images")
    assert evaluate(run).document["leakage"]["leaks"] is False
    shutil.copy(scenes / "0" / "train_0.png", tmp_path / "scenes" / "0" / "test_0.png")
    assert evaluate(run).document["leakage"]["verdict"].startswith("LEAKS: 1 of 21 test images")


def test_groups_are_drawn_whole(recognised, tmp_path):
    run = variant(recognised, tmp_path / "run")
    change_split(run, lambda images: [[*row[:3], f"{row[2]} place {i % 6}"] for i, row in enumerate(images)])
    result = evaluate(run)
    assert "draws of the 6 test groups. Whole groups are drawn" in result.document["intervals"]
    assert "Training and test are kept apart" in shown(run)


# Beside other runs.


def test_the_difference_is_that_of_two_evaluations(recognised, tmp_path):
    mine, other = variant(recognised, tmp_path / "mine"), variant(recognised, tmp_path / "other", noise=3.0)
    before = files(other)
    result = evaluate(mine, against=[other])
    assert files(other) == before
    alone = [evaluate(run, out=tmp_path / f"{run.name} alone").document for run in (mine, other)]
    (entry,) = result.document["against"]
    for name in ("OA", "AA", "mF1", "kappa"):
        assert result.document[name] == alone[0][name]
        assert entry[name] == alone[1][name]
        assert entry["difference"][name]["value"] == pytest.approx(alone[0][name]["value"] - alone[1][name]["value"])
    right = [
        np.array([int(row["right"]) for row in read_answers(tmp_path / f"{run.name} alone")], bool) for run in (mine, other)
    ]
    assert entry["difference"]["only_this"] == (right[0] & ~right[1]).sum()
    assert entry["difference"]["only_other"] == (right[1] & ~right[0]).sum()
    page = shown(mine)
    assert entry["verdict"] in page
    assert entry["verdict"] in result.verdict
    assert "other" in entry["verdict"]
    assert 'id="against"' in page


def test_a_copy_of_a_run_on_a_copy_of_the_data_differs_by_exactly_nothing(recognised, scenes, tmp_path):
    mine, copy = variant(recognised, tmp_path / "mine"), variant(recognised, tmp_path / "copy")
    content = json.loads((copy / "split.json").read_text())
    (copy / "split.json").write_text(json.dumps(content | {"root": str(tmp_path / "elsewhere")}))
    (entry,) = evaluate(mine, against=[copy]).document["against"]
    assert entry["difference"]["OA"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert entry["verdict"].startswith("No different from copy")


def test_runs_that_cannot_be_compared_are_refused_before_anything_is_predicted(recognised, finished, tmp_path):
    mine, moved = variant(recognised, tmp_path / "mine"), variant(recognised, tmp_path / "moved")
    swap = {"2/test_6.png": "train", "2/train_0.png": "test"}
    change_split(moved, lambda images: [[*row[:2], swap.get(row[0], row[2]), row[3]] for row in images])
    message = (
        r"moved and .*mine were not tested on the same images: 20 are the same, only .*moved has 1 \(2/train_0\.png\), "
        r"only .*mine has 1 \(2/test_6\.png\); train them on the same data with the same data\.split"
    )
    with pytest.raises(ConfigError, match=message):
        evaluate(mine, against=[moved])
    with pytest.raises(ConfigError, match=r"--against .*finished: a run of segmentation, but .*mine is one of classification"):
        evaluate(mine, against=[finished])
    with pytest.raises(ConfigError, match=r"a run of classification, but .*finished is one of segmentation"):
        evaluate(finished, against=[mine])
    with pytest.raises(ConfigError, match="mine is the run itself"):
        evaluate(mine, against=[mine])
    named = variant(recognised, tmp_path / "named", classes=Classes.named(("light", "dark", "rough <i>")))
    split = json.loads((named / "split.json").read_text())
    (named / "split.json").write_text(json.dumps(split | {"classes": ["light", "dark", "rough <i>"]}))
    with pytest.raises(ConfigError, match=r"(?s)named and .*mine cannot be compared: their classes differ"):
        evaluate(mine, against=[named])
    assert not (mine / "report.html").exists()


def test_seeds_give_mean_spread_and_each_score(recognised, tmp_path):
    folder = tmp_path / "runs"
    for seed, noise in enumerate((0.0, 1.0, 3.0)):
        variant(recognised, folder / f"seed{seed}", noise=noise, seed=seed)
    document = evaluate(folder).document
    alone = [evaluate(folder / f"seed{seed}", out=tmp_path / f"alone{seed}").document for seed in range(3)]
    for name in ("OA", "AA", "mF1"):
        values = [one[name]["value"] for one in alone]
        assert document[name]["value"] == pytest.approx(np.mean(values))
        assert document[name]["sd"] == pytest.approx(np.std(values, ddof=1))
        assert [seed[name] for seed in document["seeds"]] == [one[name] for one in alone]
    assert [read_card(folder / f"seed{seed}").metrics["test"]["OA"] for seed in range(3)] == [one["OA"] for one in alone]
    assert np.sum([one["confusion"] for one in alone], axis=0).tolist() == document["confusion"]
    assert [row["seed"] for row in read_answers(folder)] == ["0"] * 21 + ["1"] * 21 + ["2"] * 21
    page = shown(folder)
    assert "Over 3 seeds the model recognises" in page
    nearest = min(range(3), key=lambda i: abs(alone[i]["OA"]["value"] - document["OA"]["value"]))
    assert f"The answers of seed {nearest}, whose overall accuracy is nearest" in page
    assert document["calibration"] == alone[nearest]["calibration"]
    assert "--seeds 0,1,2" in page
    assert any(sentence.startswith(f"Of seed {nearest}: ") for sentence in document["verdict"])


def test_seeds_are_paired_with_the_seeds_of_another_run(recognised, tmp_path):
    for name, noises in (("mine", (0.0, 0.5)), ("other", (2.0, 3.0))):
        for seed, noise in enumerate(noises):
            variant(recognised, tmp_path / name / f"seed{seed}", noise=noise, seed=seed)
    result = evaluate(tmp_path / "mine", against=[tmp_path / "other"])
    (entry,) = result.document["against"]
    assert entry["difference"]["OA"]["value"] == pytest.approx(result.document["OA"]["value"] - entry["OA"]["value"])
    assert "each a mean over the seeds" in shown(tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"one run, but .*mine has the seeds 0, 1"):
        evaluate(tmp_path / "mine", against=[recognised])
