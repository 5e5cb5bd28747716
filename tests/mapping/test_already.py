"""The same command on a map that is there: nothing is done, or it is said why not."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from terralean.errors import OutputFailed
from terralean.mapping.many import map_scenes
from terralean.mapping.run import MapConfig, map_scene
from terralean.predict import Predictor, load
from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import Bands
from terralean.tokens.topk import TopKConfig

GRID = Grid(width=120, height=100, crs="EPSG:32633", transform=(10.0, 0.0, 3e5, 0.0, -10.0, 5.2e6))
RGB = Bands(names=("red", "green", "blue"))
CONFIG = MapConfig(confidence=True, compute=True, polygons="gpkg", stac=True)
REDUCE = TopKConfig(after=(2, 5), shares=(0.5, 0.5))


@pytest.fixture(scope="module")
def predictor(untrained):
    return load(untrained, device="cpu", reduce=REDUCE)


@pytest.fixture
def scene(tmp_path):
    array = np.random.default_rng(0).integers(1, 256, (3, 100, 120)).astype(np.uint8)
    array[:, :30, :40] = 0
    write_scene(tmp_path / "scene.tif", array, grid=GRID, bands=RGB, nodata=0)
    return tmp_path / "scene.tif"


def state(folder):
    """Of each file its bytes and when it was written."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_a_map_that_was_made_so_is_told_and_left_as_it_is(predictor, scene, tmp_path, caplog):
    caplog.set_level("INFO", "terralean")
    first = map_scene(predictor, scene, out=tmp_path / "maps", config=CONFIG)
    assert "is there already" not in caplog.text
    before, told = state(tmp_path / "maps"), []
    again = map_scene(predictor, scene, out=tmp_path / "maps", config=replace(CONFIG, workers=1), progress=told.append)
    assert again == replace(first, resumed_share=1.0, seconds=again.seconds)
    assert 0 < again.compute_share < 1
    assert state(tmp_path / "maps") == before
    assert told == []
    assert "scene_map.tif is there already, made of this scene in this way" in caplog.text


def test_of_many_scenes_those_that_are_done_do_not_fail(predictor, scene, tmp_path):
    map_scene(predictor, scene, out=tmp_path / "maps", config=CONFIG)
    other = tmp_path / "other.tif"
    other.write_bytes(scene.read_bytes())
    results, failed = map_scenes(predictor, [scene, other], out=tmp_path / "maps", config=CONFIG)
    assert failed == {}
    assert [result.resumed_share for result in results] == [1.0, 0.0]


def test_a_map_that_was_made_otherwise_is_in_the_way(predictor, scene, tmp_path):
    maps = tmp_path / "maps"
    map_scene(predictor, scene, out=maps, config=CONFIG)
    before = state(maps)
    colder = Predictor(predictor.model, replace(predictor.card, temperature=2.0), device=torch.device("cpu"), precision="fp32")
    other, more = replace(CONFIG, overlap_px=8), replace(CONFIG, scores=True)
    for model, config in ((predictor, other), (colder, CONFIG), (predictor, more)):
        with pytest.raises(OutputFailed, match=r"scene_map\.tif exists; delete it, choose another folder, or say --overwrite"):
            map_scene(model, scene, out=maps, config=config)
    assert state(maps) == before


@pytest.mark.parametrize("spoil", ["newer scene", "no polygons", "half a map"])
def test_a_map_that_is_old_or_not_whole_is_in_the_way(predictor, scene, tmp_path, spoil):
    path = tmp_path / "maps" / "scene_map.tif"
    map_scene(predictor, scene, out=tmp_path / "maps", config=CONFIG)
    if spoil == "newer scene":
        later = path.stat().st_mtime + 10
        os.utime(scene, (later, later))
    elif spoil == "no polygons":
        (tmp_path / "maps" / "scene_polygons.gpkg").unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(OutputFailed, match=r"scene_map\.tif exists"):
        map_scene(predictor, scene, out=tmp_path / "maps", config=CONFIG)
    assert not (tmp_path / "maps" / "scene_map.part").exists()
