"""Many scenes: what comes of them does not depend on who maps them."""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from terralean.cost.memory import process_bytes
from terralean.errors import ConfigError, MissingExtra, MissingFile, OutputFailed, RunError, SizeError
from terralean.mapping import processes
from terralean.mapping.cluster import Machine, processors_each
from terralean.mapping.hand import Order
from terralean.mapping.many import ManyConfig, Together, map_many, map_scenes, share_out
from terralean.mapping.progress import Progress
from terralean.mapping.run import MapConfig
from terralean.mapping.scenes import find_scenes
from terralean.predict import load
from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import Bands

GRID = Grid(width=150, height=90, crs="EPSG:32633", transform=(0.5, 0.0, 300_000.25, 0.0, -0.5, 5_200_000.75))
RGB = Bands(names=("red", "green", "blue"))
CONFIG = MapConfig(confidence=True, polygons="gpkg")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A folder of four scenes, one of them an item of two files and one without a place, and of a file that is no image."""
    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        small = rng.integers(1, 256, (3, 9, 15)).astype(np.uint8)
        write_scene(folder / f"{name}.tif", np.kron(small, np.ones((1, 10, 10), np.uint8)), grid=GRID, bands=RGB)
    unnamed = Grid(width=64, height=64, crs=None)
    write_scene(folder / "nowhere.tif", np.ones((3, 64, 64), np.uint8), grid=unnamed, bands=RGB)
    write_scene(folder / "red.tif", small[:1].repeat(10, 1).repeat(10, 2), grid=GRID, bands=Bands(names=("x",)))
    assets = {
        "image": {"href": "b.tif", "type": "image/tiff", "bands": [{"name": name} for name in ("old", "green", "blue")]},
        "red": {"href": "red.tif", "type": "image/tiff"},
    }
    item = {"type": "Feature", "id": "c", "stac_version": "1.1.0", "properties": {}, "links": [], "assets": assets}
    (folder / "item.json").write_text(json.dumps(item))
    (folder / "text.tif").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def alone(untrained, scenes, tmp_path_factory):
    """The maps of the good scenes, made one after the other."""
    out = tmp_path_factory.mktemp("alone")
    results, failed = map_scenes(load(untrained, device="cpu"), good(scenes), out=out, config=CONFIG)
    assert not failed
    assert len(results) == 4
    return out


def good(scenes):
    return find_scenes([scenes / "a.tif", scenes / "b.tif", scenes / "item.json", scenes / "nowhere.tif"])


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_processes_make_the_same_bytes_say_what_is_odd_and_name_what_failed(untrained, scenes, alone, tmp_path, caplog):
    told = []
    results, failed = map_many(
        functools.partial(load, untrained),
        [scenes / "missing.tif", *good(scenes), str(scenes / "text.tif")],
        out=tmp_path,
        config=CONFIG,
        many=ManyConfig(jobs=2),
        device="cpu",
        progress=told.append,
    )
    assert [result.scene for result in results] == [source.name for source in good(scenes)]
    assert list(failed) == [str(scenes / "missing.tif"), str(scenes / "text.tif")]
    assert "missing.tif is not there" in failed[str(scenes / "missing.tif")]
    assert bytes_of(tmp_path) == bytes_of(alone)
    assert "nowhere.tif has no CRS" in caplog.text  # in another process
    assert {progress.scenes for progress in told} == {6}
    assert all(1 <= progress.together <= 2 and progress.index + progress.together <= 6 for progress in told)
    assert all(progress.done <= progress.total for progress in told)


def test_a_single_scenes_mistake_and_what_is_no_run_are_raised(untrained, scenes, tmp_path):
    two = ManyConfig(jobs=2)
    with pytest.raises(MissingFile, match=r"gone\.tif is not there"):
        map_many(functools.partial(load, untrained), ["gone.tif"], out=tmp_path, config=CONFIG, many=two, device="cpu")
    with pytest.raises(OutputFailed, match="is given twice"):
        map_many(functools.partial(load, "no_run"), ["a.tif", "a.tif"], out=tmp_path, config=CONFIG, many=two)


@pytest.mark.slow
def test_what_is_no_run_is_raised_from_a_process(scenes, tmp_path):
    two = ManyConfig(jobs=2)
    with pytest.raises(RunError, match="no_run is not there"):
        map_many(functools.partial(load, "no_run"), good(scenes), out=tmp_path, config=CONFIG, many=two, device="cpu")


def dies_at_the_first(folder, *, device):
    """A model of which the first process dies."""
    predictor = load(folder, device=device)
    flag = os.environ["TERRALEAN_TEST_FLAG"]
    with contextlib.suppress(FileExistsError), open(flag, "x"):
        os.kill(os.getpid(), signal.SIGKILL)
    return predictor


@pytest.mark.slow
def test_a_process_that_dies_fails_its_scene_and_is_replaced(untrained, scenes, alone, tmp_path, monkeypatch):
    monkeypatch.setenv("TERRALEAN_TEST_FLAG", str(tmp_path / "flag"))
    results, failed = map_many(
        functools.partial(dies_at_the_first, untrained),
        good(scenes),
        out=tmp_path / "maps",
        config=CONFIG,
        many=ManyConfig(jobs=2),
        device="cpu",
    )
    (said,) = failed.values()
    assert "the process that mapped it was killed by signal 9; memory may have run out, fewer --jobs need less" in said
    assert len(results) == 3
    assert bytes_of(tmp_path / "maps").items() <= bytes_of(alone).items()


@pytest.mark.slow
def test_ctrl_c_ends_all_and_the_same_again_goes_on(untrained, scenes, alone, tmp_path):
    code = f"""
import functools, os, signal, sys
from pathlib import Path
from terralean.mapping.many import ManyConfig, map_many
from terralean.mapping.run import MapConfig
from terralean.mapping.scenes import find_scenes
from terralean.predict import load

def progress(told):
    if told.done:
        os.kill(os.getpid(), signal.SIGINT)

if __name__ == "__main__":
    scenes = find_scenes({[str(scenes / name) for name in ("a.tif", "b.tif", "item.json", "nowhere.tif")]!r})
    map_many(functools.partial(load, Path({str(untrained)!r})), scenes, out=Path({str(tmp_path / "maps")!r}),
             config=MapConfig(confidence=True, polygons="gpkg"), many=ManyConfig(jobs=2), device="cpu", progress=progress)
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert "KeyboardInterrupt" in done.stderr
    assert done.returncode != 0
    assert done.stderr.count("Traceback") == 1  # none of the others
    begun = {path.name for path in (tmp_path / "maps").iterdir()}
    assert 0 < len({name[0] for name in begun}) <= 2  # of four scenes
    again = {"out": tmp_path / "maps", "config": CONFIG, "many": ManyConfig()}
    results, failed = map_many(functools.partial(load, untrained), good(scenes), device="cpu", **again)
    assert not failed
    assert len(results) == 4
    assert {one.path for one in results if one.resumed_share == 1} >= {
        str(tmp_path / "maps" / name) for name in begun if name.endswith("_map.tif")
    }
    assert bytes_of(tmp_path / "maps") == bytes_of(alone)


def test_each_process_has_its_share_of_the_machine(monkeypatch, tmp_path):
    order = Order(load=functools.partial(load, tmp_path), device=None, out=tmp_path, config=MapConfig())
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert [one.config.workers for one in share_out(order, jobs=3)] == [2, 2, 2]
    asked = Order(load=order.load, device="cpu", out=tmp_path, config=MapConfig(workers=5, memory_bytes=10**10))
    shares = share_out(asked, jobs=2)
    assert [one.config.workers for one in shares] == [5, 5]
    own = 10**10 - sum(one.config.memory_bytes for one in shares)  # this process takes memory, too
    assert own == pytest.approx(process_bytes(), rel=0.05)
    with pytest.raises(SizeError, match=r"2 jobs are started by a process that holds .*, --memory allows 1\.0 MB; allow more"):
        share_out(replace(asked, config=MapConfig(memory_bytes=10**6)), jobs=2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [one.device for one in share_out(order, jobs=3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert [one.device for one in share_out(asked, jobs=2)] == ["cpu", "cpu"]


def test_progress_is_that_of_the_scenes_at_work():
    told = []
    together = Together(3, told.append)
    together.tell(0, Progress(scene="a", done=1, total=4, unit="km2"))
    together.tell(2, Progress(scene="c", done=2, total=6, unit="km2", resumed=1))
    assert [next(together.count([(0, OutputFailed("full"))]))[0]] == [0]
    together.tell(2, Progress(scene="c", done=3, total=6, unit="km2", resumed=1))
    assert [(one.scene, one.done, one.total, one.resumed, one.index, one.together) for one in told] == [
        ("a", 1, 4, 0, 0, 1),
        ("c", 3, 10, 1, 0, 2),
        ("c", 3, 6, 1, 1, 1),
    ]


def test_settings_that_cannot_be():
    with pytest.raises(ConfigError, match="jobs must be at least 1 scene at a time, got 0"):
        ManyConfig(jobs=0)
    assert processes.NEW.get_start_method() == "spawn"


def test_jobs_on_a_cluster_have_what_each_machine_can_give():
    two = [Machine(processors=8, gpus=1), Machine(processors=8, gpus=0)]
    assert [processors_each(two, jobs=jobs, gpus=0) for jobs in (1, 2, 3, 4, 16)] == [8, 8, 4, 4, 1]
    assert processors_each(two, jobs=1, gpus=1) == 8
    with pytest.raises(ConfigError, match="17 jobs need a processor each, and the cluster has 16"):
        processors_each(two, jobs=17, gpus=0)


def test_without_ray_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"--cluster needs ray, which is not installed; pip install 'terralean\[cluster\]'"):
        map_many(functools.partial(load, "run"), ["a.tif"], out=tmp_path, config=CONFIG, many=ManyConfig(cluster="local"))


@pytest.mark.slow
def test_a_cluster_makes_the_same_bytes_and_names_what_failed(untrained, scenes, alone, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # or it leaves a token in the home folder
    pytest.importorskip("ray", reason="ray is not installed: pip install 'terralean[cluster]'")
    told = []
    results, failed = map_many(
        functools.partial(load, untrained),
        [*good(scenes), scenes / "text.tif"],
        out=tmp_path,
        config=CONFIG,
        many=ManyConfig(jobs=2, cluster="local"),
        device="cpu",
        progress=told.append,
    )
    assert list(failed) == [str(scenes / "text.tif")], failed
    assert [result.scene for result in results] == [source.name for source in good(scenes)]
    assert bytes_of(tmp_path) == bytes_of(alone)
    one = ManyConfig(cluster="local", jobs=1)
    with pytest.raises(RunError, match="no_run is not there"):
        map_many(functools.partial(load, "no_run"), good(scenes), out=tmp_path, config=CONFIG, many=one)
