"""Maps that are stopped, killed or disturbed go on to the same bytes, or say why they do not."""

import json
import os
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from terralean.errors import JobError, OutputFailed, UnreadableScene
from terralean.mapping.facts import scene_facts
from terralean.mapping.job import _differences
from terralean.mapping.run import MapConfig, map_scene
from terralean.predict import Predictor, load
from terralean.raster.grid import Grid
from terralean.raster.scene import open_scene
from terralean.raster.source import Source
from terralean.raster.write import write_scene
from terralean.spec import Bands

GRID = Grid(width=150, height=130, crs="EPSG:32633", transform=(0.5, 0.0, 300_000.25, 0.0, -0.5, 5_200_000.75))
RGB = Bands(names=("red", "green", "blue"))
CONFIG = MapConfig(confidence=True, scores=True, polygons="fgb")
STRIPS = (0.369231, 0.738462, 1.0)  # share of the rows that are done after each


@pytest.fixture(scope="module")
def predictor(untrained):
    return load(untrained, device="cpu")


def values(grid=GRID, *, seed=0):
    """Smooth random colours, 1..255, with a corner without data."""
    small = torch.from_numpy(np.random.default_rng(seed).uniform(1, 255, (1, 3, grid.height // 10, grid.width // 10)))
    large = torch.nn.functional.interpolate(small, size=(grid.height, grid.width), mode="bilinear")[0]
    array = large.numpy().astype(np.uint8)
    array[:, :20, :30] = 0
    return array


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    path = tmp_path_factory.mktemp("scenes") / "scene.tif"
    write_scene(path, values(), grid=GRID, bands=RGB, nodata=0)
    return path


@pytest.fixture(scope="module")
def undisturbed(predictor, scene, tmp_path_factory):
    """The files of a map that nobody disturbed, by name."""
    out = tmp_path_factory.mktemp("undisturbed")
    map_scene(predictor, scene, out=out, config=CONFIG)
    return files(out)


def files(out):
    return {path.name: path.read_bytes() if path.is_file() else b"" for path in sorted(out.iterdir())}


def stop_after(share):
    def stop(progress):
        if progress.done >= share * progress.total:
            raise KeyboardInterrupt

    return stop


def stopped(predictor, scene, out, *, after=0.3, config=CONFIG):
    with pytest.raises(KeyboardInterrupt):
        map_scene(predictor, scene, out=out, config=config, progress=stop_after(after))
    return out / "scene_map.part"


# Kills.

POINTS = {
    "before fsync job.json.part": 0.0,
    "after replace job.json.part": 0.0,
    "before fsync scores 1": 0.0,  # rows of one file are there, those of another are not
    "after fsync journal.jsonl 1": STRIPS[0],
    "before fsync classes 2": STRIPS[0],
    "after fsync confidence 3": STRIPS[1],
    "after fsync journal.jsonl 3": 1.0,
    "within scene_confidence.tif": 1.0,
    "after replace scene_polygons.fgb 1": 1.0,
    "within scene_map.tif": 1.0,
    "after replace scene_map.qml": 1.0,  # some files have their names
    "before replace scene_map.tif": 1.0,  # all but the last
    "after replace scene_map.tif": 1.0,
    "after rmdir whole": 1.0,
}


def crashes(run, scene, out, points=()):
    command = [sys.executable, Path(__file__).parent / "crash.py", run, scene, out, *points]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return [line.split("; ") for line in done.stdout.splitlines()]


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_killed_map_goes_on_to_the_same_bytes(untrained, scene, tmp_path):
    found = crashes(untrained, scene, tmp_path, POINTS)
    assert found == [[point, str(share), "equal"] for point, share in POINTS.items()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_wherever_it_is_killed(untrained, scene, tmp_path):
    found = crashes(untrained, scene, tmp_path)
    assert len(found) > 80
    assert {line[-1] for line in found} == {"equal"}
    assert "not killed" not in {line[1] for line in found}


# What goes on and what does not.


def test_a_stopped_map_goes_on_and_says_so(predictor, scene, undisturbed, tmp_path, caplog):
    folder = stopped(predictor, scene, tmp_path)
    assert f"48 of 130 rows are kept in {folder}, and the same command goes on from there" in caplog.text
    assert list(files(tmp_path)) == ["scene_map.part"]
    told = []
    result = map_scene(predictor, scene, out=tmp_path, config=CONFIG, progress=told.append)
    assert files(tmp_path) == undisturbed
    assert result.resumed_share == STRIPS[0]
    assert (told[0].done, told[0].resumed) == (told[0].resumed, pytest.approx(48 * 150 * 0.25e-6))
    assert told[-1].done == told[-1].total == pytest.approx(130 * 150 * 0.25e-6)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_number_of_workers_changes_no_byte_and_may_change_on_the_way(predictor, scene, undisturbed, tmp_path, workers):
    map_scene(predictor, scene, out=tmp_path / "whole", config=replace(CONFIG, workers=workers))
    assert files(tmp_path / "whole") == undisturbed
    stopped(predictor, scene, tmp_path / "parts", config=replace(CONFIG, workers=3), after=0.7)
    map_scene(predictor, scene, out=tmp_path / "parts", config=replace(CONFIG, workers=workers))
    assert files(tmp_path / "parts") == undisturbed


def test_batches_that_reach_over_rows_of_windows_go_on_the_same(predictor, scene, tmp_path):
    """Three windows a row: a batch of five begins in one row and ends in the next."""
    config = MapConfig(batch=5, workers=2)
    map_scene(predictor, scene, out=tmp_path / "whole", config=config)
    for after in (0.3, 0.7):
        out = tmp_path / f"after {after}"
        stopped(predictor, scene, out, config=config, after=after)
        map_scene(predictor, scene, out=out, config=config)
        assert files(out) == files(tmp_path / "whole")


def test_a_map_begun_otherwise_is_refused_with_what_differs(predictor, scene, undisturbed, tmp_path):
    folder = stopped(predictor, scene, tmp_path)
    before = files(folder)
    for config, words in (
        (replace(CONFIG, overlap_px=8), "windows.overlap_px was 16, is 8"),
        (replace(CONFIG, batch=2), "windows.batch was 4, is 2"),
        (replace(CONFIG, threads=2), "windows.threads was 1, is 2"),
        (replace(CONFIG, scores=False), "files was "),
    ):
        with pytest.raises(JobError, match=rf"scene_map\.part holds a map that was begun otherwise: {words}.*say --overwrite"):
            map_scene(predictor, scene, out=tmp_path, config=config)
    assert {name: content for name, content in files(folder).items() if name != "lock"} == {
        name: content for name, content in before.items() if name != "lock"
    }
    map_scene(predictor, scene, out=tmp_path, config=replace(CONFIG, overlap_px=8, overwrite=True))
    assert files(tmp_path).keys() == undisturbed.keys()
    assert files(tmp_path)["scene_scores.tif"] != undisturbed["scene_scores.tif"]


def test_a_map_of_another_model_or_scene_is_refused(predictor, scene, tmp_path):
    path = tmp_path / "scene.tif"
    path.write_bytes(scene.read_bytes())
    stopped(predictor, path, tmp_path / "maps")
    with torch.no_grad():
        network = deepcopy(predictor.model)
        next(network.parameters()).add_(1e-3)
    other = Predictor(network, predictor.card, device=torch.device("cpu"), precision="fp32")
    ours, theirs = (one.fingerprint()[:12] for one in (predictor, other))
    with pytest.raises(
        JobError, match=rf"model\.fingerprint was {ours}, is {theirs}; give what it was begun with to go on, map "
    ):
        map_scene(other, path, out=tmp_path / "maps", config=CONFIG)
    colder = Predictor(predictor.model, replace(predictor.card, temperature=2.0), device=torch.device("cpu"), precision="fp32")
    with pytest.raises(JobError, match=r"model\.fingerprint was"):
        map_scene(colder, path, out=tmp_path / "maps", config=CONFIG)
    scored = Predictor(predictor.model, replace(predictor.card, metrics={"a": 1}), device=torch.device("cpu"), precision="fp32")
    stopped(scored, path, tmp_path / "maps", after=0.7)  # scores do not change what a model says
    write_scene(path, values(seed=1), grid=GRID, bands=RGB, nodata=0)
    file = rf"path {path}, bytes \d+, modified \S+"
    with pytest.raises(JobError, match=rf"scene\.files was {file}, is {file}; give what it was begun with to go on"):
        map_scene(predictor, path, out=tmp_path / "maps", config=CONFIG)


def test_a_virtual_raster_is_another_scene_when_a_file_in_it_changes(predictor, tmp_path):
    path, mosaic, out = tmp_path / "tiles" / "tile.tif", tmp_path / "mosaic.vrt", tmp_path / "maps"
    write_scene(path, values(), grid=GRID, bands=RGB, nodata=0)
    rasterio.shutil.copy(path, mosaic, driver="VRT")
    with pytest.raises(KeyboardInterrupt):
        map_scene(predictor, mosaic, out=out, config=CONFIG, progress=stop_after(0.3))
    (tmp_path / "tiles" / "tile.tif.aux.xml").write_text("<PAMDataset></PAMDataset>")  # what a program shows it by
    with pytest.raises(KeyboardInterrupt):
        map_scene(predictor, mosaic, out=out, config=CONFIG, progress=stop_after(0.7))
    write_scene(path, values(seed=1), grid=GRID, bands=RGB, nodata=0)
    with pytest.raises(JobError, match=r"scene\.files was path \S*tile\.tif, bytes \d+, modified \S+, is path \S*tile\.tif"):
        map_scene(predictor, mosaic, out=out, config=CONFIG)


def test_a_link_that_was_signed_again_is_the_same_file(scene):
    with open_scene(scene) as opened:
        signed = "/vsicurl/https://a.example/b.tif?st=2026-01-01&sig=%s"
        one, other = (scene_facts(replace(opened, source=Source(signed % key))) for key in ("abc", "xyz"))
        assert one == other
        assert one["files"][0]["path"] == "/vsicurl/https://a.example/b.tif"
        asked = "/vsicurl/https://a.example/get?file=%s.tif"
        one, other = (scene_facts(replace(opened, source=Source(asked % key))) for key in ("abc", "xyz"))
        assert one != other


def test_of_many_files_those_that_differ_are_told():
    before, now = ([{"path": f"{n}.tif", "bytes": n + (m if n > 5 else 0)} for n in range(10)] for m in (0, 1))
    (told,) = _differences({"files": before}, {"files": now})
    assert told == (
        "files was path 6.tif, bytes 6 and path 7.tif, bytes 7 and 2 more, "
        "is path 6.tif, bytes 7 and path 7.tif, bytes 8 and 2 more"
    )
    (told,) = _differences({"files": before[:1]}, {"files": before[:2]})
    assert told == "files was without these, is path 1.tif, bytes 1"


def test_another_format_of_polygons_is_another_map(predictor, scene, tmp_path):
    stopped(predictor, scene, tmp_path)
    with pytest.raises(JobError, match="files was"):
        map_scene(predictor, scene, out=tmp_path, config=replace(CONFIG, polygons="gpkg"))


# Damage.


@pytest.mark.parametrize("name", ["classes", "confidence", "scores"])
@pytest.mark.parametrize("row", [20, 70])
def test_rows_that_are_damaged_are_made_again(predictor, scene, undisturbed, tmp_path, caplog, name, row):
    folder = stopped(predictor, scene, tmp_path, after=0.7)
    content = bytearray((folder / name).read_bytes())
    content[row * len(content) // 96] ^= 1
    (folder / name).write_bytes(content)
    result = map_scene(predictor, scene, out=tmp_path, config=CONFIG)
    assert result.resumed_share == (0.0 if row == 20 else STRIPS[0])
    assert "pieces are damaged or half written; they are made again" in caplog.text
    assert files(tmp_path) == undisturbed


@pytest.mark.parametrize(
    ("spoil", "share"),
    [
        (lambda text: text[:-5], STRIPS[0]),
        (lambda text: text + b'{"rows": 3', STRIPS[1]),
        (lambda text: text.replace(b'"rows": 48', b'"rows": 47', 1), 0.0),
        (lambda text: b"\xff\xfe" + text, 0.0),
        (lambda text: text.splitlines(keepends=True)[1], 0.0),
        (lambda text: b"[]\n" + text, 0.0),
        (lambda text: b"", 0.0),
    ],
)
def test_a_damaged_journal_counts_as_far_as_it_is_whole(predictor, scene, undisturbed, tmp_path, spoil, share):
    journal = stopped(predictor, scene, tmp_path, after=0.7) / "journal.jsonl"
    journal.write_bytes(spoil(journal.read_bytes()))
    assert map_scene(predictor, scene, out=tmp_path, config=CONFIG).resumed_share == share
    assert files(tmp_path) == undisturbed


def test_a_job_that_cannot_be_read_is_another_one(predictor, scene, undisturbed, tmp_path):
    card = stopped(predictor, scene, tmp_path) / "job.json"
    card.write_text(card.read_text()[:50])
    with pytest.raises(JobError, match=r"for its job\.json is damaged; restore that file, or say --overwrite to begin again"):
        map_scene(predictor, scene, out=tmp_path, config=CONFIG)
    map_scene(predictor, scene, out=tmp_path, config=replace(CONFIG, overwrite=True))
    assert files(tmp_path) == undisturbed


def test_a_folder_without_a_job_is_cleared(predictor, scene, undisturbed, tmp_path):
    (tmp_path / "scene_map.part" / "whole").mkdir(parents=True)
    (tmp_path / "scene_map.part" / "classes").write_bytes(b"something")
    map_scene(predictor, scene, out=tmp_path, config=CONFIG)
    assert files(tmp_path) == undisturbed


def test_what_the_job_says_it_is_made_of_can_be_read(predictor, scene, tmp_path):
    facts = json.loads((stopped(predictor, scene, tmp_path) / "job.json").read_text())
    assert facts["windows"] == {"side_px": 64, "overlap_px": 16, "batch": 4, "threads": 1, "area": None}
    assert (facts["scene"]["width"], facts["scene"]["height"], facts["scene"]["bands"]) == (150, 130, [1, 2, 3])
    assert facts["files"][0] == "scene_map.tif"


# Two at once, and the disk.


@pytest.mark.skipif(sys.platform == "win32", reason="says no process")
def test_a_second_run_on_one_output_is_refused_with_the_first_ones_process(predictor, scene, tmp_path):
    refused = []

    def second(progress):
        if not refused:
            with pytest.raises(
                JobError, match=rf"is at work in another process, {os.getpid()}; wait until it is done"
            ) as error:
                map_scene(predictor, scene, out=tmp_path, config=replace(CONFIG, overwrite=True))
            refused.append(error)

    map_scene(predictor, scene, out=tmp_path, config=CONFIG, progress=second)
    assert len(refused) == 1
    assert (tmp_path / "scene_map.tif").is_file()


def test_a_file_in_the_way_is_named_before_anything_is_predicted(predictor, scene, tmp_path):
    (tmp_path / "scene_scores.tif").write_text("mine")
    told = []
    with pytest.raises(OutputFailed, match=r"scene_scores\.tif exists; delete it, choose another folder, or say --overwrite"):
        map_scene(predictor, scene, out=tmp_path, config=CONFIG, progress=told.append)
    assert not told
    assert files(tmp_path) == {"scene_scores.tif": b"mine"}


def test_a_name_that_cannot_be_taken_leaves_all_files_unnamed_and_the_job(predictor, scene, undisturbed, tmp_path):
    (tmp_path / "scene_map.tif").mkdir()
    (tmp_path / "scene_map.tif" / "kept").write_text("")
    with pytest.raises(OutputFailed, match=r"130 of 130 rows are kept in .*scene_map\.part, and the same command goes on"):
        map_scene(predictor, scene, out=tmp_path, config=replace(CONFIG, overwrite=True))
    assert list(files(tmp_path)) == ["scene_map.part", "scene_map.tif"]
    (tmp_path / "scene_map.tif" / "kept").unlink()
    (tmp_path / "scene_map.tif").rmdir()
    map_scene(predictor, scene, out=tmp_path, config=CONFIG)
    assert files(tmp_path) == undisturbed


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to_is_named(predictor, scene, tmp_path):
    (tmp_path / "maps").mkdir(mode=0o500)
    with pytest.raises(OutputFailed, match=r"scene_map\.tif could not be written: .*choose a folder that you may write to"):
        map_scene(predictor, scene, out=tmp_path / "maps", config=CONFIG)


def test_a_folder_that_is_a_file_is_named(predictor, scene, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        OutputFailed, match=r"scene_map\.tif could not be written: .*nothing is left of it; choose a folder that"
    ):
        map_scene(predictor, scene, out=tmp_path / "file", config=CONFIG)


FULL_DISK = """
import os, resource, sys
from pathlib import Path
from terralean.errors import OutputFailed
from terralean.mapping.run import MapConfig, map_scene
from terralean.predict import load

run, scene, out, *limits = sys.argv[1:]
predictor = load(run, device="cpu")

def stop_at_the_end(progress):
    if limit == 59000 and progress.done == progress.total:
        raise KeyboardInterrupt

for limit in map(int, limits):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        config = MapConfig(confidence=True, scores=True)
        result = map_scene(predictor, scene, out=Path(out), config=config, progress=stop_at_the_end)
        print(limit, "done after", result.resumed_share)
    except KeyboardInterrupt:
        print(limit, "stopped")
    except OutputFailed as error:
        print(limit, sorted(os.listdir(out)) if os.path.exists(out) else "no folder", error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_disk_that_fills_on_the_way_keeps_what_is_done(untrained, predictor, scene, tmp_path):
    """Scores are 450 bytes a row: the second strip does not fit, then the third, then all rows do, and then no file."""
    out = tmp_path / "full"
    limits = ["100", "9000", "30000", "50000", "59000", "2000", "1000000"]
    done = subprocess.run(
        [sys.executable, "-B", "-c", FULL_DISK, untrained, scene, out, *limits], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert lines["100"].startswith("no folder") and "nothing is left of it" in lines["100"]
    assert lines["9000"].startswith("no folder")
    assert lines["59000"] == "stopped"
    for limit, rows in (("30000", 48), ("50000", 96), ("2000", 130)):
        assert lines[limit].startswith("['scene_map.part']")
        assert f"{rows} of 130 rows are kept in {out}/scene_map.part, and the same command goes on from there" in lines[limit]
        assert "bytes are free there; free some space" in lines[limit]
    assert lines["1000000"] == "done after 1.0"
    map_scene(predictor, scene, out=tmp_path / "free", config=MapConfig(confidence=True, scores=True))
    assert files(out) == files(tmp_path / "free")


def test_a_scene_that_breaks_off_keeps_the_rows_above_and_names_the_block(predictor, tmp_path, caplog):
    path = tmp_path / "scene.tif"
    grid = Grid(width=300, height=800, crs=GRID.crs, transform=GRID.transform)
    write_scene(path, values(grid), grid=grid, bands=RGB, nodata=None)  # blocks of 256 px
    whole = path.read_bytes()
    with rasterio.open(path) as dataset:
        broken = int(dataset.get_tag_item("BLOCK_OFFSET_1_2", "TIFF", bidx=1))
    path.write_bytes(whole[:broken] + b"\0" * 2000 + whole[broken + 2000 :])
    kept = os.stat(path)
    with pytest.raises(UnreadableScene, match=r"scene\.tif breaks off at rows 512 to 767, columns 256 to 299"):
        map_scene(predictor, path, out=tmp_path / "maps", config=MapConfig())
    assert "480 of 800 rows are kept in" in caplog.text
    assert "goes on from there if the scene can be read as it is; where its file is replaced, say --overwrite" in caplog.text
    assert list(files(tmp_path / "maps")) == ["scene_map.part"]
    path.write_bytes(whole)
    os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    result = map_scene(predictor, path, out=tmp_path / "maps", config=MapConfig())
    assert result.resumed_share == 480 / 800  # all strips above the break
    map_scene(predictor, path, out=tmp_path / "whole", config=MapConfig())
    assert files(tmp_path / "maps") == files(tmp_path / "whole")
