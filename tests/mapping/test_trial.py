"""Trials on a scene: what holds data, which windows are tried, and what a budget makes of them."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from shapely import box

from terralean.errors import BandMismatch, ConfigError, RunError
from terralean.mapping import trial as trials
from terralean.mapping.budget import parse_budget
from terralean.mapping.plan import Plan
from terralean.mapping.run import MapConfig, map_scene
from terralean.mapping.scenes import as_source
from terralean.mapping.trial import TrialConfig, _part, try_out
from terralean.mapping.within import curve_of, fit_budget, map_within
from terralean.predict import load
from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import Bands
from terralean.weights.card import read_card, write_card
from terralean.weights.curve import Change, Row, entries

GRID = Grid(width=300, height=200, crs="EPSG:32633", transform=(10.0, 0.0, 3e5, 0.0, -10.0, 5.2e6))
RGB = Bands(names=("red", "green", "blue"))
SHORT = TrialConfig(seconds=0.001)  # one place
ALONE = MapConfig(workers=1)
OWN = Row(
    overlap_px=16,
    precision="fp32",
    reduce=None,
    score="mIoU",
    value=0.8,
    low=0.7,
    high=0.9,
    change=Change(value=0.0, low=0.0, high=0.0),
    relative_cost=1.0,
    relative_window_cost=1.0,
    device="another machine",
)
NONE = replace(OWN, overlap_px=0, value=0.7, change=Change(value=-0.1), relative_cost=0.5625)


@pytest.fixture(scope="module")
def predictor(untrained):
    return load(untrained, device="cpu")


@pytest.fixture(scope="module")
def run(untrained, tmp_path_factory) -> Path:
    """A run with a curve of two settings."""
    folder = tmp_path_factory.mktemp("curved") / "run"
    shutil.copytree(untrained, folder)
    write_card(replace(read_card(folder), metrics={"curve": entries([OWN, NONE])}), folder)
    return folder


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    """300 x 200 px, the left 100 of them without data."""
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    values = np.random.default_rng(0).integers(1, 255, (3, 200, 300)).astype(np.uint8)
    values[:, :, :100] = 0
    write_scene(path, values, grid=GRID, bands=RGB, nodata=0)
    return path


def tried(predictor, scene, *, config: MapConfig = ALONE, trial: TrialConfig = SHORT, budget: str = "100h"):
    return try_out(predictor, as_source(scene), budget=parse_budget(budget), config=config, trial=trial)


def test_a_trial_knows_what_holds_data_and_what_a_scene_takes(predictor, scene):
    found = tried(predictor, scene)
    extent, calibration = found.extent, found.calibration
    assert (extent.height_px, extent.width_px, extent.tile_px) == (200, 300, 64)
    assert extent.mapped_px == 200 * 200
    assert extent.area_km2 == pytest.approx(200 * 200 * 100 / 1e6, rel=2e-3)  # the projection stretches a little
    assert calibration.seconds_per_mpx > 0
    assert calibration.fixed_s > 0
    with rasterio.open(scene) as dataset:  # windows of 64 px that share 16: at 0, 48, 96, 144, ... px
        valid = dataset.read_masks(1) > 0
    windows = sum(valid[row : row + 64, col : col + 64].any() for row in range(0, 184, 48) for col in range(0, 284, 48))
    assert windows == 4 * 5
    window_s = calibration.seconds_per_mpx * 0.04 / windows
    assert 1e-4 < window_s < 60


def test_an_area_of_interest_is_all_that_counts(predictor, scene, tmp_path):
    area = tmp_path / "area.gpkg"
    square = shapely.to_wkb(np.array([box(3e5 + 2000, 5.2e6 - 1000, 3e5 + 2500, 5.2e6 - 600)]))  # 50 x 40 px, all with data
    pyogrio.raw.write(area, square, [], fields=[], crs="EPSG:32633", geometry_type="Polygon", driver=None)
    extent = tried(predictor, scene, config=replace(ALONE, aoi=str(area))).extent
    assert (extent.height_px, extent.width_px, extent.mapped_px) == (40, 50, 2000)


def test_a_trial_leaves_nothing_behind(predictor, scene, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = sorted(scene.parent.iterdir())
    tried(predictor, scene, config=replace(ALONE, confidence=True, polygons="gpkg"))
    assert list(tmp_path.iterdir()) == []
    assert sorted(scene.parent.iterdir()) == before


def test_more_places_are_tried_while_there_is_time(predictor, scene, monkeypatch):
    counts = []
    take = trials._take
    monkeypatch.setattr(trials, "_take", lambda *args, **options: counts.append(1) or take(*args, **options))
    tried(predictor, scene, trial=TrialConfig(seconds=1000.0, places=3))
    assert len(counts) == 3
    tried(predictor, scene)
    assert len(counts) == 4
    tried(predictor, scene, trial=TrialConfig(seconds=1000.0, places=3), budget="1ms")
    assert len(counts) == 5  # no more than a share of the budget


def test_a_scene_without_data_and_one_of_other_bands(predictor, tmp_path):
    empty, other = tmp_path / "empty.tif", tmp_path / "other.tif"
    write_scene(empty, np.zeros((3, 90, 90), np.uint8), grid=Grid(width=90, height=90, crs=None), bands=RGB, nodata=0)
    assert tried(predictor, empty) is None
    write_scene(other, np.ones((2, 90, 90), np.uint8), grid=Grid(width=90, height=90, crs=None), bands=RGB.choose([0, 1]))
    with pytest.raises(BandMismatch):
        tried(predictor, other)


@pytest.mark.parametrize(("width", "height"), [(1000, 700), (60, 700), (1000, 60), (64, 64), (300, 200)])
@pytest.mark.parametrize("overlap_px", [0, 16, 32])
@pytest.mark.parametrize("least", [1, 8, 40])
def test_a_place_is_a_block_of_windows_that_no_other_reaches(width, height, overlap_px, least):
    plan = Plan(grid=Grid(width=width, height=height, crs=None), tile_px=64, overlap_px=overlap_px)
    rows, cols = plan.rows, plan.cols
    for number in range(len(rows) * len(cols)):
        place = replace(plan, part=_part(plan, number, least=least))
        assert len(place.rows) * len(place.cols) >= min(least, len(rows) * len(cols)) or len(place.rows) == len(rows)
        assert rows[number // len(cols)] in place.rows
        assert cols[number % len(cols)] in place.cols
        assert place.mapped.pixels > 0
        assert len(place.rows) <= max(2, least)
        assert len(place.cols) <= max(2, least)


@pytest.mark.parametrize("changes", [{"seconds": 0.0}, {"places": 0}, {"share": 0.0}])
def test_a_trial_of_nothing_is_refused(changes):
    with pytest.raises(ConfigError, match="a trial takes more than 0 s in 1 place or more"):
        TrialConfig(**changes)


# Budgets.


def fitted(run, scene, budget: str, *, out: Path, **options):
    opened = partial(load, run, device="cpu")
    told = {"config": ALONE, **options}
    return fit_budget(opened, scene, run=run, out=out, budget=parse_budget(budget), trial=SHORT, **told)


def test_the_own_setting_stays_where_there_is_time(run, scene, tmp_path):
    found = fitted(run, scene, "5h", out=tmp_path)
    assert (found.config.overlap_px, found.predictor.precision) == (16, "fp32")
    assert found.choice.given_up == ""
    assert found.told.endswith("of 5h, with the run's own setting: nothing is given up")


def test_what_cannot_be_met_is_refused_with_the_least_possible_time(run, scene, tmp_path):
    with pytest.raises(
        ConfigError, match=r"--budget 1ms cannot be met: the quickest setting .* takes about .*overlap 16 -> 0 px"
    ):
        fitted(run, scene, "1ms", out=tmp_path)
    with pytest.raises(ConfigError, match=r"--budget 0\.1ms/km2, 0\.0s for this scene cannot be met"):
        fitted(run, scene, "0.1ms/km2", out=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def huge(tmp_path_factory) -> Path:
    """A scene on which a window more or less is hours."""
    path = tmp_path_factory.mktemp("huge") / "huge.tif"
    profile = {"driver": "GTiff", "width": 20_000, "height": 20_000, "count": 3, "dtype": "uint8", "tiled": True}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(*GRID.transform)}
    with rasterio.open(path, "w", **profile, **place, SPARSE_OK=True, compress="deflate") as dataset:
        dataset.descriptions = RGB.names
    return path


def test_a_quicker_setting_is_chosen_where_it_must_be(run, huge, tmp_path):
    curved = tmp_path / "run"
    shutil.copytree(run, curved)
    quick = replace(OWN, precision="bf16", value=0.75, change=Change(value=-0.05), relative_window_cost=1e-6)
    here = load(run, device="cpu")
    device = trials.device_name(here.device)
    rows = [replace(row, device=device) for row in (OWN, NONE, quick)]
    write_card(replace(read_card(curved), metrics={"curve": entries(rows)}), curved)
    found = fitted(curved, huge, "9min", out=tmp_path / "maps")
    assert (found.config.overlap_px, found.predictor.precision) == (16, "bf16")
    assert found.choice.own_seconds > 540 > found.choice.seconds
    assert found.told.endswith("given up: precision fp32 -> bf16: mIoU 0.800 -> 0.750")
    assert not (tmp_path / "maps").exists()


def test_a_map_that_was_stopped_goes_on_as_it_was_begun(run, scene, tmp_path):
    def stop(told) -> None:
        if told.done > 0:
            raise KeyboardInterrupt

    begun = replace(ALONE, overlap_px=0)
    with pytest.raises(KeyboardInterrupt):
        map_scene(load(run, device="cpu"), scene, out=tmp_path, config=begun, progress=stop)
    found = fitted(run, scene, "1ms", out=tmp_path)  # which could not be met anew
    assert (found.config, found.choice) == (begun, None)
    assert found.told == "going on as it was begun, with overlap 0 px, fp32, token reduction none"
    assert map_scene(found.predictor, scene, out=tmp_path, config=found.config).resumed_share > 0
    with pytest.raises(ConfigError, match="cannot be met"):
        fitted(run, scene, "1ms", out=tmp_path)  # it is finished now


def test_a_scene_that_holds_nothing_is_left_to_the_map(run, tmp_path):
    empty = tmp_path / "empty.tif"
    write_scene(empty, np.zeros((3, 90, 90), np.uint8), grid=Grid(width=90, height=90, crs=None), bands=RGB, nodata=0)
    found = fitted(run, empty, "1ms", out=tmp_path)
    assert (found.choice, found.config) == (None, ALONE)


def test_what_a_budget_needs_is_told(run, untrained, recogniser, scene, tmp_path):
    with pytest.raises(RunError, match=r"has no accuracy-cost curve, by which a budget chooses; measure it once: terralean"):
        fitted(untrained, scene, "1h", out=tmp_path)
    with pytest.raises(ConfigError, match="is a run of classification; a budget is for maps of pixels"):
        curve_of(read_card(recogniser), run=recogniser)
    for config in (replace(ALONE, overlap_px=8), replace(ALONE, tile_px=96)):
        with pytest.raises(ConfigError, match="leave --overlap and --tile out"):
            fitted(run, scene, "1h", out=tmp_path, config=config)


def test_an_exported_model_has_nothing_to_choose(exported, scene, tmp_path):
    folder = exported("torch")
    with pytest.raises(ConfigError, match=r"is an exported model, whose precision .* are built in, and --budget chooses them"):
        fitted(folder, scene, "1h", out=tmp_path)


def test_maps_are_made_with_what_was_chosen_and_failures_are_told(run, scene, tmp_path, caplog):
    caplog.set_level("INFO", "terralean.mapping.within")
    other = tmp_path / "other.tif"
    write_scene(other, np.ones((2, 90, 90), np.uint8), grid=Grid(width=90, height=90, crs=None), bands=RGB.choose([0, 1]))
    steps = []
    made, failed = map_within(
        partial(load, run, device="cpu"),
        [scene, other],
        run=run,
        out=tmp_path / "maps",
        budget=parse_budget("1h/km2"),
        config=ALONE,
        trial=SHORT,
        progress=steps.append,
    )
    assert [one.result.scene for one in made] == [str(scene)]
    assert f"{scene}: {made[0].told}" in caplog.text
    assert (steps[-1].index, steps[-1].scenes) == (0, 2)
    assert list(failed) == [str(other)]
    alone = map_scene(load(run, device="cpu"), scene, out=tmp_path / "alone", config=ALONE)
    assert Path(made[0].result.path).read_bytes() == Path(alone.path).read_bytes()


def test_a_time_is_for_one_scene(run, scene, tmp_path):
    with pytest.raises(ConfigError, match="--budget 1h is for one scene, got 2; give a budget by area"):
        map_within(
            partial(load, run, device="cpu"),
            [scene, scene],
            run=run,
            out=tmp_path,
            budget=parse_budget("1h"),
            config=ALONE,
        )
