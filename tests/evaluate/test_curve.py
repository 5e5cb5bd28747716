"""What accuracy a run gives up for speed: scores are those of maps of the validation split, costs follow from windows."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

from terralean import recipes
from terralean.data.split import Region, load_split
from terralean.errors import ConfigError, EmptySplit, RunError
from terralean.evaluate.curve import CurveConfig, check_curve, measure_curve, sample
from terralean.evaluate.curve_page import front, section
from terralean.evaluate.metrics import confusion, score, unmapped
from terralean.evaluate.run import run_evaluation
from terralean.mapping.model import Model
from terralean.mapping.run import MapConfig
from terralean.predict import load
from terralean.raster.grid import Window
from terralean.tokens.topk import TopKConfig
from terralean.train.run import run as train
from terralean.weights.card import read_card, write_card
from terralean.weights.curve import Change, Row, default, entries, own_row, read_curve

SMALL = CurveConfig(rounds=2)


@pytest.fixture(scope="module")
def pruner(wide, experiment, tmp_path_factory) -> Path:
    """A vision transformer that can leave tokens out, trained for two steps; its validation image is 48 px, windows 32."""
    out = tmp_path_factory.mktemp("pruner") / "run"
    sizes = ("model.sizes.image_px=32", "model.sizes.decoder_width=48", "model.sizes.decoder_layers=1")
    settings = recipes.read("vit_tiny_segvit", changes=[*experiment.changes, *sizes, "train.steps=2"])
    train(settings, data=wide, out=out, device="cpu")
    return out


def curve_of(run: Path, config: CurveConfig = SMALL, **options):
    experiment, _ = recipes.read_run(run)
    card, split = read_card(run), load_split(run / "split.json")
    return measure_curve(run, card, split, data=experiment.data, config=config, device="cpu", **options)


@pytest.fixture(scope="module")
def curve(pruner):
    return curve_of(pruner)


def test_every_setting_is_tried_the_own_one_first(curve, pruner):
    own = read_card(pruner).overlap_px
    assert curve.rows[0].setting == default(read_card(pruner))
    methods = (None, *(TopKConfig(shares=(share, share)) for share in SMALL.kept))
    expected = {(px, precision, method) for px in (own, own // 2, 0) for precision in ("fp32", "bf16") for method in methods}
    assert {(row.overlap_px, row.precision, row.reduce) for row in curve.rows} == expected
    assert len(curve.rows) == len(expected) == 18
    assert (curve.regions, curve.of_regions, curve.rounds, curve.left_out) == (1, 1, 2, ())


@pytest.mark.parametrize("number", [0, 5, 11, 17])
def test_scores_are_those_of_maps_at_that_setting(curve, pruner, wide, number):
    row = curve.rows[number]
    model = Model(load(pruner, device="cpu", precision=row.precision, reduce=row.reduce))
    with rasterio.open(wide / "1.tif") as image, rasterio.open(wide / "1_mask.tif") as mask:
        values, reference = image.read(), mask.read(1)
    mapped = model.predict(values, config=MapConfig(overlap_px=row.overlap_px)).classes
    found = score(confusion(reference, mapped, classes=2), unmapped=unmapped(reference, mapped, classes=2))
    assert row.value == pytest.approx(found.miou, abs=1e-6)


def test_costs_are_relative_to_the_own_setting_and_grow_with_overlap(curve, pruner):
    card, own = read_card(pruner), curve.rows[0]
    assert (own.relative_cost, own.relative_window_cost, own.change) == (1.0, 1.0, Change(value=0.0))
    windows = {(row.precision, row.reduce): row.relative_window_cost for row in curve.rows}
    assert len(windows) == 6
    for row in curve.rows:
        assert row.relative_window_cost == windows[row.precision, row.reduce]  # however far windows overlap
        windows_of_a_scene = ((card.tile_px - own.overlap_px) / (card.tile_px - row.overlap_px)) ** 2
        assert row.relative_cost == pytest.approx(row.relative_window_cost * windows_of_a_scene, rel=1e-3, abs=1e-4)
        assert row.relative_window_cost > 0
        assert row.change.value == pytest.approx(row.value - own.value, abs=2e-6)


def test_intervals_need_blocks(pruner, wide, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(pruner, run)
    split = json.loads((run / "split.json").read_text())
    for region in split["regions"]:  # the test image has 20 blocks; here it validates
        region["split"] = {"validation": "test", "test": "validation"}.get(region["split"], region["split"])
    (run / "split.json").write_text(json.dumps(split))
    found = curve_of(run, CurveConfig(rounds=1, kept=(), precisions=("fp32",), overlaps=(0.0,)))
    assert len(found.rows) == 2
    for row in found.rows:
        assert row.low < row.value < row.high
    assert found.rows[1].change.low <= found.rows[1].change.value <= found.rows[1].change.high


def test_what_a_run_cannot_do_is_left_out_and_told(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    write_card(dataclasses.replace(read_card(run), tile_px=48), run)
    found = curve_of(run, CurveConfig(rounds=1, precisions=("fp32",), kept=(0.5,)))
    assert {row.overlap_px for row in found.rows} == {read_card(run).overlap_px}
    assert "No validation region is larger than a window of 48 px" in found.left_out[0]


def test_progress_ends_where_it_says(pruner):
    told = []
    curve_of(
        pruner, CurveConfig(rounds=2, kept=(), precisions=("fp32",)), progress=lambda done, total: told.append((done, total))
    )
    assert told == [(i, 9) for i in range(1, 10)]  # three overlaps, two rounds and one region


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"overlaps": (2.0,)}, "overlaps are shares of the run's own overlap, 0 to 1"),
        ({"kept": (1.0,)}, "kept are shares of tokens, above 0 and below 1"),
        ({"rounds": 0}, "rounds and most_mpx must be above 0"),
        ({"most_mpx": 0.0}, "rounds and most_mpx must be above 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        CurveConfig(**changes)


def test_regions_are_drawn_whole_as_far_as_they_fit():
    def region(number: int, side: int) -> Region:
        window = Window(row=0, col=0, height=side, width=side)
        return Region(image=f"{number}.tif", label="l", window=window, split="validation")

    regions = [region(i, 1000) for i in range(10)]
    some = sample(regions, CurveConfig(most_mpx=4.0))
    assert len(some) == 4
    assert [one.image for one in some] == sorted(one.image for one in some)
    assert some == sample(regions, CurveConfig(most_mpx=4.0))
    assert {sample(regions, CurveConfig(most_mpx=4.0, seed=seed)) for seed in range(5)} != {some}
    assert sample(regions, CurveConfig(most_mpx=100.0)) == tuple(regions)
    assert sample([region(0, 9000)], CurveConfig(most_mpx=1.0)) == (region(0, 9000),)  # one region at least


# Asked for with an evaluation.


@pytest.fixture(scope="module")
def evaluated(pruner, tmp_path_factory):
    run = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(pruner, run)
    config = CurveConfig(rounds=1, kept=(0.5,), precisions=("fp32",), overlaps=(0.0, 1.0))
    return run, run_evaluation(run, read=recipes.read_run, device="cpu", curve=config)


def test_card_document_and_page_have_the_curve(evaluated):
    run, result = evaluated
    rows = read_curve(read_card(run), run=run)
    assert len(rows) == 4
    assert json.loads(json.dumps(entries(rows))) == json.loads((run / "evaluation.json").read_text())["curve"]["rows"]
    assert result.document["curve"]["regions"] == 1
    assert own_row(rows, read_card(run)) == rows[0]
    assert rows[-1].reduce in (TopKConfig(shares=(0.5, 0.5)), None)
    page = (run / "report.html").read_text()
    assert 'id="curve"' in page
    assert page.count('<circle class="own"') == 1
    assert "topk shares=[0.5,0.5]" in page
    again = run_evaluation(run, read=recipes.read_run, device="cpu")  # the card keeps it, and the page shows it
    assert again.document["curve"] == {"rows": entries(rows)}
    assert read_curve(read_card(run), run=run) == rows
    assert 'id="curve"' in (run / "report.html").read_text()
    assert "test" in read_card(run).metrics


def test_the_test_split_is_not_looked_at(pruner, evaluated, tmp_path):
    """Another test split, the same curve."""
    run = tmp_path / "run"
    shutil.copytree(pruner, run)
    split = json.loads((run / "split.json").read_text())
    split["regions"] = [region for region in split["regions"] if region["split"] != "test"]
    (run / "split.json").write_text(json.dumps(split))
    rows = curve_of(run, CurveConfig(rounds=1, kept=(0.5,), precisions=("fp32",), overlaps=(0.0, 1.0))).rows
    before = read_curve(read_card(evaluated[0]), run=run)
    assert [(row.setting, row.value) for row in rows] == [(row.setting, row.value) for row in before]


def test_what_has_no_curve_says_why(pruner, recognised, finished, tmp_path):
    def ask(run, **options):
        return run_evaluation(run, read=recipes.read_run, device="cpu", curve=SMALL, **options)

    with pytest.raises(ConfigError, match="is a run of classification, whose views are not blended"):
        ask(recognised)
    with pytest.raises(ConfigError, match=r"on its own validation split; leave --data .* out"):
        ask(finished, data=tmp_path, out=tmp_path / "out")
    with pytest.raises(ConfigError, match=r"leave --set reduce\.\.\. out"):
        ask(pruner, reduce=TopKConfig(shares=(0.5, 0.5)), out=tmp_path / "out")
    shutil.copytree(finished, tmp_path / "runs" / "seed3")
    with pytest.raises(ConfigError, match=r"holds a run for each of the seeds 3, .*name one of them, e\.g\. .*seed3"):
        ask(tmp_path / "runs")
    card, split = read_card(finished), load_split(finished / "split.json")
    without = dataclasses.replace(split, regions=split.of("train"))
    with pytest.raises(EmptySplit, match=r"has no validation split.*train with data\.split\.validation above 0"):
        check_curve(without, card, run=finished)


def test_a_curve_that_cannot_be_read_names_the_fix(finished):
    card = read_card(finished)
    for broken in ([{"overlap_px": 3}], [{**entries([ROW])[0], "overlap_px": 7}]):
        told = dataclasses.replace(card, metrics={"curve": json.loads(json.dumps(broken))})
        with pytest.raises(RunError, match=r"runs/mine: the accuracy-cost curve .*terralean evaluate runs/mine --curve"):
            read_curve(told, run="runs/mine")
    assert read_curve(card, run="runs/mine") == ()


# The page.

ROW = Row(
    overlap_px=128,
    precision="fp32",
    reduce=None,
    score="mIoU",
    value=0.8,
    low=0.75,
    high=0.85,
    change=Change(value=0.0, low=0.0, high=0.0),
    relative_cost=1.0,
    relative_window_cost=1.0,
    device="processor <b>",
)


def row(value: float, cost: float, **changes) -> Row:
    change = Change(value=value - 0.8, low=value - 0.81, high=value - 0.79)
    return dataclasses.replace(ROW, value=value, relative_cost=cost, change=change, **changes)


def test_the_line_joins_what_no_other_beats():
    rows = (ROW, row(0.79, 0.6, overlap_px=64), row(0.7, 0.5, overlap_px=0), row(0.78, 0.7, precision="bf16"))
    assert [one.value for one in front(rows)] == [0.7, 0.79, 0.8]
    assert front((ROW, row(0.85, 1.0, overlap_px=96))) == (row(0.85, 1.0, overlap_px=96),)


def test_places_of_the_drawing_go_by_cost_and_score():
    rows = (ROW, row(0.79, 0.5, overlap_px=64), row(0.7, 0.25, precision="bf16", reduce=TopKConfig(shares=(0.5, 0.5))))
    shown = section(rows, curve=None)
    own, half, cheap = shown.dots
    assert own["x"] > half["x"] > cheap["x"]
    assert own["y"] < half["y"] < cheap["y"]  # y grows downwards
    assert (own["x"] - half["x"]) / (half["x"] - cheap["x"]) == pytest.approx(2, rel=0.01)
    assert (own["own"], own["ends"]) == (True, ())
    assert [(dot["half"], dot["reduced"]) for dot in shown.dots] == [(False, False), (False, False), (True, True)]
    assert half["ends"][0] > half["y"] > half["ends"][1]
    assert [line["setting"] for line in shown.rows] == [
        "overlap 128 px, fp32",
        "overlap 64 px, fp32",
        "overlap 128 px, bf16",
    ]
    assert shown.rows[1]["change"].endswith("1.0")
    assert shown.rows[0]["change"] == ""
    assert section((), curve=None) is None


def test_one_row_can_be_drawn():
    shown = section((ROW,), curve=None)
    assert len(shown.dots) == len(shown.front) == 1
    assert np.isfinite([shown.dots[0]["x"], shown.dots[0]["y"]]).all()
