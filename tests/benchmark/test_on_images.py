"""Runs on real images, beside themselves without reduction."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from terralean.benchmark.images_table import as_table
from terralean.benchmark.on_images import ImagesConfig, count, read_images, run
from terralean.cost.convention import count_operations_at
from terralean.errors import BandMismatch, ConfigError, UnreadableScene
from terralean.models import create
from terralean.predict import load
from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import Bands, Classes, Normalisation
from terralean.tokens.matp import GateConfig, MATPConfig
from terralean.tokens.tome import ToMeConfig
from terralean.tokens.topk import TopKConfig
from terralean.weights.card import Card, Training
from terralean.weights.checkpoint import save_checkpoint

SIZES = {"image_px": 64, "decoder_width": 48, "decoder_layers": 1}
TOPK = TopKConfig(after=(2, 4), counts=(8, 2))
RGB = Bands(names=("red", "green", "blue"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of a network with random weights that keeps 8, then 2 of the 16 tokens of an image."""
    out = tmp_path_factory.mktemp("runs") / "run"
    torch.manual_seed(0)
    model = create("vit_tiny_segvit", bands=3, classes=3, reduce=TOPK, **SIZES)
    card = Card(
        version="0",
        task="segmentation",
        model="vit_tiny_segvit",
        sizes=dict(SIZES),
        reduce=TOPK,
        bands=RGB,
        normalisation=Normalisation(mean=(100.0,) * 3, std=(50.0,) * 3),
        classes=Classes.named(("a", "b", "c")),
        tile_px=64,
        overlap_px=16,
        training=Training(data="", images=1, split="", leakage="", steps=1, minutes=0.0, seed=0),
    )
    save_checkpoint(model, card, out)
    return out


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """2 x 3 windows of 64 px; one has no data at all."""
    path = tmp_path_factory.mktemp("scenes") / "scene.tif"
    values = np.random.default_rng(0).integers(1, 255, (3, 128, 192)).astype(np.uint8)
    values[:, :64, 64:128] = 0
    grid = Grid(width=192, height=128, crs="EPSG:32633", transform=(1.0, 0.0, 3e5, 0.0, -1.0, 5.2e6))
    write_scene(path, values, grid=grid, bands=RGB, nodata=0)
    return str(path)


def config(folder, scene, **more):
    values = {"rounds": 2, "batches": (1, 4), "precisions": ("fp32",), "images": 5, "device": "cpu"}
    return ImagesConfig(runs=(folder,), scenes=(scene,), **{**values, **more})


def test_a_run_beside_itself_without_reduction_and_with_another(folder, scene):
    report = run(config(folder, scene, reductions=("own", ToMeConfig(r=2))))
    assert [(row.method, row.batch) for row in report.rows] == [
        *(("none", 1), ("none", 4)),
        *(("topk", 1), ("topk", 4)),
        *(("tome", 1), ("tome", 4)),
    ]
    dense, _, pruned, _, merged, _ = report.rows
    assert (dense.speed, dense.same, dense.points, dense.tokens_left) == (1.0, 1.0, "", "")
    expected = count_operations_at(load(folder, reduce=None).network, (1, 3, 64, 64)) / 1e9
    assert (dense.operations_g, dense.operations_g_p5, dense.operations_g_p95) == pytest.approx((expected,) * 3)
    assert (pruned.points, pruned.tokens_left) == ("2 4", "0.500 (0.500 .. 0.500) 0.125 (0.125 .. 0.125)")
    assert pruned.operations_g < merged.operations_g < dense.operations_g
    assert pruned.macs_g < pruned.operations_g
    assert (merged.settings, pruned.settings) == ("r=2", "after=[2,4] counts=[8,2]")
    assert all(row.images == 5 and row.images_per_s_low <= row.images_per_s <= row.images_per_s_high for row in report.rows)


def test_operations_are_those_of_each_image_alone(folder, scene):
    images = read_images(folder, config(folder, scene))
    reduce = MATPConfig(after=(2, 4), rule="relation", beta=0.3, relation_source="self_attn", gate=GateConfig(p=0))
    predictor = load(folder, reduce=reduce)
    found = count(predictor, images)
    assert len(set(found.operations)) > 1
    alone = count(predictor, images._replace(values=images.values[3:4], valid=images.valid[3:4]))
    assert alone.operations == found.operations[3:4]
    assert alone.left[4] == found.left[4][3:4]
    assert torch.equal(alone.classes[0], found.classes[3])


def test_windows_without_data_are_left_out_and_others_spread_evenly(folder, scene):
    all_of_them = read_images(folder, config(folder, scene, images=99))
    assert all_of_them.values.shape == (5, 3, 64, 64)
    assert all_of_them.valid.flatten(1).any(dim=1).all()
    few = read_images(folder, config(folder, scene, images=2))
    assert torch.equal(few.values, all_of_them.values[[0, 2]])


def test_scenes_that_do_not_fit_are_refused(folder, tmp_path):
    grid = Grid(width=70, height=64, crs=None)
    write_scene(tmp_path / "two.tif", np.ones((2, 64, 70), np.uint8), grid=grid, bands=Bands(names=("red", "nir")))
    with pytest.raises(BandMismatch):
        read_images(folder, config(folder, str(tmp_path / "two.tif")))
    write_scene(tmp_path / "empty.tif", np.zeros((3, 64, 70), np.uint8), grid=grid, bands=RGB, nodata=0)
    with pytest.raises(UnreadableScene, match=r"empty\.tif: no window with a valid pixel; give other scenes with --on"):
        read_images(folder, config(folder, str(tmp_path / "empty.tif")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scenes": ()}, "give some with --on"),
        ({"images": 0}, "images must be above 0, got 0"),
        ({"batches": (0,)}, "batches must be above 0"),
        ({"precisions": ("fp16",)}, "runs are used in fp32 or bf16, got fp16"),
    ],
)
def test_what_cannot_be_measured(folder, scene, change, message):
    with pytest.raises(ConfigError, match=message):
        replace(config(folder, scene), **change)


def test_the_command_line_measures_prints_and_writes(terralean, folder, scene, tmp_path):
    arguments = ("--on", scene, "--rounds", "1", "--batch", "2", "--precision", "fp32", "--images", "2")
    status, out, _ = terralean(
        "benchmark", folder, *arguments, "--reduce", "{method: tome, r: 1}", "--csv", tmp_path / "rows.csv", "--json"
    )
    assert status == 0
    assert [row["method"] for row in json.loads(out)["rows"]] == ["none", "topk", "tome"]
    with (tmp_path / "rows.csv").open(newline="") as file:
        assert [row["settings"] for row in csv.DictReader(file)] == ["", "after=[2,4] counts=[8,2]", "r=1"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--size", "64"), "sizes: of no meaning with --on"),
        (("--reduce", "tome"), "write reduce.method=tome"),
        (("--reduce", "{method: tme}"), "nearest: tome"),
    ],
)
def test_mistakes_on_the_command_line(terralean, folder, scene, more, message):
    status, _, err = terralean("benchmark", folder, "--on", scene, *more)
    assert status == 2
    assert message in " ".join(err.split())


def test_images_are_for_runs(terralean):
    status, _, err = terralean("benchmark", "lemevit_tiny", "--images", "4")
    assert status == 2
    assert "name these with --on" in " ".join(err.split())


def test_every_number_is_in_the_table(folder, scene):
    report = run(config(folder, scene, rounds=1, batches=(1,)))
    assert [column.header for column in as_table(report).columns][-5:] == ["left", "same", "images/s", "speed", "+ MiB"]
    assert as_table(report).row_count == len(report.rows) == 2
