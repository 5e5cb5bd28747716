"""`terralean map`: status, standard output and error, and the files."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from pyarrow import parquet


def test_map_writes_the_file_and_one_json_document(terralean, untrained, scene, tmp_path):
    status, out, _ = terralean("map", untrained, scene, "--out", tmp_path / "maps", "--device", "cpu", "--json")
    assert status == 0
    document = json.loads(out)
    assert document["failed"] == {}
    with rasterio.open(document["maps"][0]["path"]) as dataset:
        assert dataset.shape == (70, 90)
        assert dataset.crs.to_epsg() == 32633


def test_map_tells_shares_on_stdout_and_nothing_else(terralean, untrained, scene, tmp_path):
    status, out, _ = terralean("map", untrained, scene, "--out", tmp_path / "maps", "--device", "cpu")
    assert status == 0
    assert "scene_map.tif" in out
    assert "field" in out
    assert "forest" in out


def test_a_scene_classifier_maps_cells_with_all_that_is_asked_for(terralean, recogniser, scene, tmp_path):
    arguments = ("map", recogniser, scene, "--out", tmp_path / "maps", "--device", "cpu", "--overlap", "16", "--confidence")
    status, out, _ = terralean(*arguments, "--polygons", "gpkg", "--table", "--json")
    assert status == 0
    (result,) = json.loads(out)["maps"]
    names = {name: tmp_path / "maps" / f"scene_{name}" for name in ("map.tif", "confidence.tif", "polygons.gpkg", "cells.csv")}
    assert [result[key] for key in ("path", "confidence", "polygons", "table")] == [str(path) for path in names.values()]
    assert (result["width_px"], result["height_px"], result["cell_px"]) == (5, 4, 16)
    with rasterio.open(names["map.tif"]) as dataset:
        assert dataset.crs.to_epsg() == 32633
        assert tuple(dataset.transform)[:6] == (8.0, 0.0, 3e5 + 4, 0.0, -8.0, 5.2e6 - 4)
        labels = dataset.read(1)
    with names["cells.csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [("field", "forest", "water <&>").index(row["class"]) for row in rows] == labels.ravel().tolist()
    assert pyogrio.read_info(names["polygons.gpkg"])["crs"] == "EPSG:32633"
    status, out, _ = terralean(*arguments, "--polygons", "fgb", "--overwrite")
    assert status == 0
    assert [line.strip().rsplit("_", 1)[-1] for line in out.splitlines()[2:]] == ["confidence.tif", "polygons.fgb"]


def test_of_an_area_all_that_is_asked_for_within_what_is_allowed(terralean, untrained, scene, tmp_path):
    with rasterio.open(scene) as dataset:
        a, _, c, _, e, f = tuple(dataset.transform)[:6]
    area = shapely.box(c + 20 * a, f + 60 * e, c + 50 * a, f + 30 * e)
    pyogrio.raw.write(
        tmp_path / "area.gpkg", shapely.to_wkb(np.array([area])), [], fields=[], crs="EPSG:32633", geometry_type="Polygon"
    )
    arguments = ("map", untrained, scene, "--out", tmp_path / "maps", "--device", "cpu", "--aoi", tmp_path / "area.gpkg")
    reduce = ("--set", "reduce.method=topk", "--set", "reduce.after=[2,5]", "--set", "reduce.shares=[0.5,0.5]")
    options = ("--scores", "--compute", "--workers", "2", "--threads", "1", "--memory", "64GB", *reduce)
    status, out, err = terralean(*arguments, *options)
    assert status == 0
    assert "% of the compute of all tokens" in out
    assert "4 windows, 2 workers; takes about" in " ".join(err.split())
    shapes = {}
    for name, bands in (("map", 1), ("scores", 3), ("compute", 1)):
        with rasterio.open(tmp_path / "maps" / f"scene_{name}.tif") as dataset:
            assert dataset.count == bands
            shapes[name] = dataset.shape
    assert set(shapes.values()) == {(30, 30)}


def test_items_and_lists_are_mapped_with_all_that_is_asked_for(terralean, untrained, scene, tmp_path):
    bands = [{"name": name} for name in ("red", "green", "blue")]
    assets = {"image": {"href": str(scene), "type": "image/tiff", "bands": bands}, "twin": {"href": str(scene), "bands": bands}}
    item = {"type": "Feature", "id": "one", "properties": {"datetime": "2021-06-01T10:10:31Z"}, "assets": assets}
    (tmp_path / "item.json").write_text(json.dumps(item))
    (tmp_path / "list.txt").write_text(f"{scene}\n{tmp_path / 'item.json'}\n")
    arguments = ("map", untrained, f"@{tmp_path / 'list.txt'}", "--out", tmp_path / "maps", "--device", "cpu")
    status, _, err = terralean(*arguments)
    assert status == 1
    assert (
        "red may be image (band 1), twin (band 1); name the assets of the model's bands, in their order, with --assets" in err
    )
    options = ("--assets", "image", "--polygons", "parquet", "--min-area", "4", "--stac", "--overwrite")
    status, out, _ = terralean(*arguments, *options)
    assert status == 0
    said = json.loads((tmp_path / "maps" / "one_map.json").read_text())
    assert said["properties"]["datetime"] == "2021-06-01T10:10:31Z"
    assert parquet.read_table(tmp_path / "maps" / "one_polygons.parquet")["area_m2"].to_numpy().min() >= 4
    assert "one_map.json" in out


@pytest.mark.slow
def test_jobs_map_scenes_side_by_side(terralean, untrained, scene, tmp_path):
    twin = shutil.copy(scene, tmp_path / "twin.tif")
    status, out, _ = terralean("map", untrained, scene, twin, "--out", tmp_path / "maps", "--device", "cpu", "--jobs", "2")
    assert status == 0
    assert "scene_map.tif" in out
    with rasterio.open(tmp_path / "maps" / "scene_map.tif") as one, rasterio.open(tmp_path / "maps" / "twin_map.tif") as other:
        assert (one.read() == other.read()).all()


def test_some_failed_scenes_are_status_1_and_named(terralean, untrained, scene, tmp_path):
    (tmp_path / "text.tif").write_text("no image")
    status, out, err = terralean("map", untrained, scene, tmp_path / "text.tif", "--out", tmp_path / "maps", "--device", "cpu")
    assert status == 1
    assert "scene_map.tif" in out
    assert "1 of 2 scenes failed" in err
    assert "text.tif" in err


def test_full_disk_leaves_no_map(untrained, scene, tmp_path):
    """No bytecode: where a file may not grow, Python names half a module's, and whoever imports that next breaks off."""
    code = (
        "import resource, sys\n"
        "from terralean.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400, resource.RLIM_INFINITY))\n"
        f"sys.argv = ['terralean', 'map', {str(untrained)!r}, {str(scene)!r}, '--out', {str(tmp_path / 'maps')!r}]\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "scene_map.tif" in done.stderr
    assert not (tmp_path / "maps").exists()


def test_ctrl_c_is_status_130_with_a_word_and_leaves_nothing(untrained, scene, tmp_path):
    code = (
        "import os, signal, sys\n"
        "import terralean.mapping.strips as strips\n"
        "def stop(*_, **__): os.kill(os.getpid(), signal.SIGINT)\n"
        "strips.Plan.weight = stop\n"
        f"sys.argv = ['terralean', 'map', {str(untrained)!r}, {str(scene)!r}, '--out', {str(tmp_path / 'maps')!r}]\n"
        "from terralean.cli import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert "stopped; nothing half-written is left" in done.stderr
    assert not (tmp_path / "maps").exists()


def test_a_budget_is_met_or_refused_and_tells_what_it_takes(terralean, untrained, scene, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(untrained, run)
    arguments = ("map", run, scene, "--out", tmp_path / "maps", "--device", "cpu", "--budget")
    status, _, err = terralean(*arguments, "1h")
    assert status == 2
    assert f"measure it once: terralean evaluate {run} --curve" in " ".join(err.split())
    own = {"overlap_px": 16, "precision": "fp32", "reduce": None, "score": "mIoU", "value": 0.8, "low": None, "high": None}
    own |= {"change": {"value": 0.0, "low": None, "high": None}, "device": "here"}
    card = json.loads((run / "card.json").read_text())
    card["metrics"]["curve"] = [own | {"relative_cost": 1.0, "relative_window_cost": 1.0}]
    (run / "card.json").write_text(json.dumps(card))
    for budget, words in (("soon", "is no time; write 10min"), ("0.1ms", "cannot be met: the quickest setting")):
        status, _, err = terralean(*arguments, budget)
        assert (status, words in " ".join(err.split())) == (2, True)
    status, _, err = terralean(*arguments, "1h", "--precision", "bf16")
    assert (status, "leave --precision out" in " ".join(err.split())) == (2, True)
    assert not (tmp_path / "maps").exists()
    status, out, err = terralean(*arguments, "1h", "--json")
    (result,) = json.loads(out)["maps"]
    assert status == 0
    assert result["budget"].endswith("of 1h, with the run's own setting: nothing is given up")
    assert "nothing is given up" in " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no scene is named; give rasters, a quoted pattern, @LIST or a STAC file"),
        (("--pairs", "pairs.csv"), "--pairs is for a model of change, which compares two dates; name scenes instead"),
    ],
)
def test_what_is_to_be_mapped_has_to_fit_the_model(terralean, untrained, tmp_path, arguments, words):
    status, _, err = terralean("map", untrained, *arguments, "--out", tmp_path / "maps")
    assert (status, words in err) == (2, True)
