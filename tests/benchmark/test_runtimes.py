"""A run in every runtime: what is measured, and what is told of one that fails."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from terralean import recipes
from terralean.benchmark.runtimes import RUNTIMES, RuntimesConfig, run
from terralean.benchmark.runtimes_table import as_table
from terralean.errors import ConfigError
from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import Bands

PLAIN = ("eager", "folded", "folded+channels-last")


def read_data(folder: Path):
    return recipes.read_run(folder)[0].data


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """2 x 3 windows of 32 px."""
    path = tmp_path_factory.mktemp("scenes") / "scene.tif"
    values = np.random.default_rng(0).integers(1, 255, (3, 64, 96)).astype(np.uint8)
    grid = Grid(width=96, height=64, crs="EPSG:32633", transform=(1.0, 0.0, 3e5, 0.0, -1.0, 5.2e6))
    write_scene(path, values, grid=grid, bands=Bands(names=("red", "green", "blue")), nodata=0)
    return str(path)


def config(folder, scene, **more) -> RuntimesConfig:
    values = {"rounds": 1, "batches": (1, 4), "images": 5, "device": "cpu", "runtimes": (*PLAIN, "onnxruntime", "openvino")}
    return RuntimesConfig(run=folder, scenes=(scene,), **{**values, **more})


@pytest.fixture(scope="module")
def report(recogniser, scene):
    return run(config(recogniser, scene), read=read_data)


def test_every_runtime_and_precision_is_measured_at_every_batch(report):
    found = {(row.runtime, row.precision, row.batch) for row in report.rows}
    assert found == {
        (runtime, precision, batch)
        for runtime in (*PLAIN, "onnxruntime", "openvino")
        for precision in RUNTIMES[runtime]
        for batch in (1, 4)
    }
    assert all(row.failure is None and row.images_per_s > 0 for row in report.rows)
    assert {(row.batch, row.images) for row in report.rows} == {(1, 5), (4, 4)}  # whole batches only


def test_rows_are_compared_with_the_plain_network(report):
    rows = {(row.runtime, row.precision, row.batch): row for row in report.rows}
    plain = rows["eager", "fp32", 1]
    assert (plain.same, plain.difference, plain.speed) == (1.0, 0.0, 1.0)
    assert rows["openvino", "fp32", 4].difference < 1e-4
    assert 0 < rows["eager", "bf16", 1].difference < 0.1
    assert rows["onnxruntime", "int8", 1].graph_bytes > 0
    assert rows["onnxruntime", "int8", 1].version
    first = [row for row in report.rows if row.batch == 1]
    assert [row.images_per_s for row in first] == sorted((row.images_per_s for row in first), reverse=True)


def test_the_table_tells_of_all_rows(report):
    table = as_table(replace(report, rows=(*report.rows, replace(report.rows[0], failure="no compiler", images_per_s=None))))
    assert table.row_count == len(report.rows) + 1
    assert f"{report.rows[0].runtime} {report.rows[0].precision} failed: no compiler" in table.caption


def test_what_cannot_be_measured():
    with pytest.raises(ConfigError, match="give some with --on"):
        RuntimesConfig(run=Path("run"), scenes=())
    with pytest.raises(ConfigError, match=r"runtimes must be of eager, folded, .*, got tensorrt"):
        RuntimesConfig(run=Path("run"), scenes=("a.tif",), runtimes=("tensorrt",))
    with pytest.raises(ConfigError, match=r"batches must be from 1 to the number of images, 16, got \[32\]"):
        RuntimesConfig(run=Path("run"), scenes=("a.tif",), batches=(32,))


def test_the_command_line(terralean, recogniser, scene, tmp_path, monkeypatch):
    given = ("benchmark", recogniser, "--runtimes", "--on", scene, "--device", "cpu")
    status, _, err = terralean(*given, "--precision", "bf16")
    assert (status, "leave --precision and --reduce out" in err) == (2, True)
    status, _, err = terralean("benchmark", recogniser, recogniser, "--runtimes", "--on", scene)
    assert (status, "--runtimes is of one run" in err) == (2, True)
    status, _, err = terralean("benchmark", "test_vit", "--runtimes")
    assert (status, "--runtimes: for runs on real images; name these with --on" in err) == (2, True)


@pytest.mark.slow
def test_a_compiled_run_is_measured_too(terralean, recogniser, scene, tmp_path):
    given = ("benchmark", recogniser, "--runtimes", "--on", scene, "--device", "cpu", "--images", "2", "--rounds", "1")
    status, out, _ = terralean(*given, "--batch", "2", "--csv", tmp_path / "rows.csv", "--json")
    rows = json.loads(out)["rows"]
    assert status == 0
    assert {row["runtime"] for row in rows} == set(RUNTIMES)
    assert all(row["same"] == 1.0 for row in rows if row["precision"] == "fp32")
    with (tmp_path / "rows.csv").open() as file:
        assert [row["runtime"] for row in csv.DictReader(file)] == [row["runtime"] for row in rows]
    assert torch.get_num_threads() == rows[0]["threads"]
