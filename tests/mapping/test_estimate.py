"""What a map will take: sizes in words, memory beside what is measured, what fits, and when it is worth trying."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from terralean.errors import ConfigError, SizeError
from terralean.mapping.calibrate import Tried, try_batches, worth_a_trial
from terralean.mapping.cells import CellPlan, CellWork
from terralean.mapping.crew import Crew
from terralean.mapping.estimate import Limits, fitting, memory_bytes, read_size, written_size
from terralean.mapping.pixels import PixelWork
from terralean.mapping.plan import Plan
from terralean.mapping.run import MapConfig, map_scene
from terralean.predict import load
from terralean.raster.grid import Grid
from terralean.raster.scene import open_scene
from terralean.raster.write import map_content, write_scene
from terralean.spec import Bands

MB, GB = 10**6, 10**9
GRID = Grid(width=600, height=500, crs="EPSG:32633", transform=(1.0, 0.0, 3e5, 0.0, -1.0, 5e6))
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a process holds")


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * GB), ("500 MB", 500 * MB), ("2GiB", 2 * 2**30), ("1.5g", 1.5 * GB), ("300k", 300_000), ("12B", 12), ("7", 7)],
)
def test_sizes_are_read(text, size):
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "0GB", "-1GB", "4 gigs", "1e9", "4GBB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ConfigError, match=r"memory must be a size such as 4GB, 500MB or 2GiB, got"):
        read_size(text)


@pytest.mark.parametrize(
    ("size", "text"), [(1, "0.1 MB"), (999_999, "1.0 MB"), (12_300_001, "13 MB"), (1_210_000_000, "1.3 GB"), (64 * GB, "64 GB")]
)
def test_sizes_are_written_rounded_up(size, text):
    assert written_size(size) == text


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    values = np.random.default_rng(0).integers(1, 255, (3, 500, 600), dtype=np.uint8)
    values[:, :250] = 0
    path = tmp_path_factory.mktemp("scenes") / "scene.tif"
    write_scene(path, values, grid=GRID, bands=Bands(names=("red", "green", "blue")), nodata=0)
    with open_scene(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def predictor(untrained):
    return load(untrained, device="cpu")


def pixels(predictor, scene, *, workers=4, batch=4, tile=64, overlap=16):
    return PixelWork(
        predictor=predictor,
        scene=scene,
        lattice=Plan(grid=scene.grid, tile_px=tile, overlap_px=overlap),
        clip=None,
        crew=Crew(batch=batch, workers=workers, threads=1),
        contents={"classes": map_content(predictor.card.classes)},
    )


def tried(held):
    return Tried(held_bytes=held, window_s=0.1, data_share=1.0)


def limits(memory, *, given=False):
    return Limits(memory_bytes=memory, workers_given=given, outlining_bytes=0)


def test_as_many_workers_as_fit(predictor, scene):
    work, base = pixels(predictor, scene, workers=6), 500 * MB
    needs = [
        memory_bytes(work.with_crew(replace(work.crew, workers=n)), tried=tried(100 * MB), base=base, outlining=0)
        for n in range(1, 7)
    ]
    assert all(100 * MB <= more - less < 105 * MB for less, more in pairwise(needs))
    for workers, need in enumerate(needs, start=1):
        found = fitting(work, limits(need), tried=tried(100 * MB), base=base)
        assert found.crew == replace(work.crew, workers=workers)
        assert found.lattice == work.lattice


def test_what_does_not_fit_is_refused_with_what_would(predictor, scene):
    work, one = pixels(predictor, scene), tried(100 * MB)
    need = memory_bytes(work, tried=one, base=500 * MB, outlining=0)
    with pytest.raises(SizeError, match=r"needs about 9\d\d MB of memory, --memory allows 934 MB; --workers 3 would fit: [89]"):
        fitting(work, limits(934 * MB, given=True), tried=one, base=500 * MB)
    with pytest.raises(SizeError, match=r"; --workers 1 --batch 2 would fit"):
        fitting(work, limits(634 * MB), tried=one, base=500 * MB)
    with pytest.raises(SizeError, match=r"; --workers 1 --batch 1 --tile 32 would fit"):
        fitting(work, limits(579 * MB), tried=one, base=500 * MB)
    with pytest.raises(SizeError, match=r"the least that it can do with is 5\d\d MB"):
        fitting(work, limits(500 * MB), tried=one, base=500 * MB)
    with pytest.raises(SizeError, match=r"the least"):  # outlining polygons alone
        fitting(work, replace(limits(need), outlining_bytes=2 * GB), tried=one, base=500 * MB)
    with pytest.raises(ConfigError, match="on Linux; leave it out"):
        fitting(work, limits(need), tried=one, base=None)


def test_views_are_not_made_smaller_for_they_would_be_other_cells(recogniser, scene):
    model = load(recogniser, device="cpu")
    work = CellWork(
        predictor=model,
        scene=scene,
        lattice=CellPlan(grid=scene.grid, view_px=32, overlap_px=0),
        clip=None,
        crew=Crew(batch=16, workers=2, threads=1),
        contents={"classes": map_content(model.card.classes)},
    )
    with pytest.raises(SizeError, match=r"--workers 1 --batch 4 would fit"):
        fitting(work, limits(599 * MB), tried=tried(100 * MB), base=500 * MB)
    with pytest.raises(SizeError, match="the least that it can do with"):
        fitting(work, limits(500 * MB), tried=tried(100 * MB), base=500 * MB)


def test_a_trial_is_of_windows_that_hold_something(predictor, scene):
    work = pixels(predictor, scene, workers=2)
    found = try_batches(work)
    assert found.window_s > 0
    assert 0.3 < found.data_share <= 0.8  # about half of the scene is empty
    empty = replace(scene, nodata_values=(None, None, None))
    assert try_batches(replace(work, scene=empty)).data_share == 1


def test_small_scenes_are_not_worth_a_trial(predictor, scene):
    assert not worth_a_trial(pixels(predictor, scene, workers=1))  # 11 x 13 windows, 36 batches
    assert worth_a_trial(pixels(predictor, scene, workers=1, batch=1))
    assert not worth_a_trial(pixels(predictor, scene, workers=2, batch=1))


@LINUX
def test_workers_are_as_many_as_memory_allows_and_bytes_the_same(predictor, scene, tmp_path, caplog):
    caplog.set_level("INFO", "terralean")
    out = [tmp_path / name for name in ("free", "tight")]
    map_scene(predictor, scene.path, out=out[0], config=MapConfig(batch=16))
    with pytest.raises(SizeError) as error:
        map_scene(predictor, scene.path, out=out[1], config=MapConfig(batch=16, workers=40, memory_bytes=10**8))
    least = read_size(str(error.value).rpartition("least that it can do with is ")[2].replace(" ", ""))
    assert not out[1].exists()
    config = MapConfig(batch=16, memory_bytes=least + 2 * GB)
    map_scene(predictor, scene.path, out=out[1], config=config)
    assert (out[0] / "scene_map.tif").read_bytes() == (out[1] / "scene_map.tif").read_bytes()
    assert "of memory" in caplog.text and "of disk" in caplog.text


def taken(folder: Path, *, height: int) -> dict[str, float]:
    """What a process of its own says of its memory."""
    folder.mkdir()
    command = [sys.executable, Path(__file__).parent / "peak.py", folder, "1500", str(height)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@LINUX
@pytest.mark.slow
def test_memory_does_not_grow_with_the_height_and_is_about_what_is_told(tmp_path):
    low, high = (taken(tmp_path / str(height), height=height) for height in (8000, 24000))  # both fill what GDAL keeps
    more = (high["peak"] - high["before"]) - (low["peak"] - low["before"])
    assert more < 3 * 16_000 * 1500  # bytes: less than an allowance and the classes and confidence of the pixels more
    for one in (low, high):
        assert 0.7 * one["said"] < one["peak"] < 1.02 * one["said"]
