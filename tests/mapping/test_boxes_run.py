"""Scenes searched for oriented boxes by a detector that sees every painted rectangle: none lost, none doubled, resumed."""

import math
import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
import torch
from scipy import ndimage
from torch import Tensor, nn

from terralean import __version__
from terralean.boxes.detected import Detected
from terralean.boxes.form import to_polygons
from terralean.boxes.merge import MergeConfig
from terralean.boxes.overlap import iou
from terralean.boxes.rectangle import smallest_rectangle
from terralean.data.oriented.dota import read_results
from terralean.errors import BandMismatch, ConfigError, JobError, OutputFailed, UnreadableScene
from terralean.mapping.boxes_run import BoxesConfig, find_boxes, search_scene
from terralean.mapping.many import map_scenes
from terralean.mapping.run import MapConfig, check_task, map_scene
from terralean.mapping.scenes import as_source
from terralean.predict.predictor import Predictor
from terralean.raster.grid import Grid, Window
from terralean.raster.scene import open_scene
from terralean.raster.write import write_scene
from terralean.spec import Bands, Classes, Normalisation
from terralean.weights.card import Card, Training

NAMES = ("boat", "car")
HEIGHT, WIDTH, TILE, OVERLAP = 300, 420, 96, 40
BANDS = Bands(names=("red", "green", "blue"))
PLACED = Grid(width=WIDTH, height=HEIGHT, crs="EPSG:32633", transform=(0.5, 0.0, 5e5, 0.0, -0.5, 5e6))


class Perfect(nn.Module):
    """Sees each rectangle of a class's band as the smallest box round its pixels; stops after so many windows, if asked."""

    def __init__(self, *, stop_after: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.left = stop_after

    def forward(self, image: Tensor) -> list[Detected]:
        if self.left is not None:
            self.left -= len(image)
            if self.left < 0:
                raise KeyboardInterrupt
        return [self._seen(one) for one in image]

    def _seen(self, image: Tensor) -> Detected:
        boxes, labels = [], []
        for label in range(len(NAMES)):
            numbered, count = ndimage.label(image[label].numpy() > 100)
            for number in range(1, count + 1):
                rows, cols = np.nonzero(numbered == number)
                points = np.stack([cols, rows], axis=1)[:, None] + np.array([(0, 0), (1, 0), (0, 1), (1, 1)])
                outline = shapely.get_coordinates(shapely.convex_hull(shapely.multipoints(points.reshape(-1, 2))))
                boxes.append(smallest_rectangle(torch.from_numpy(outline[:-1])).float())
                labels.append(label)
        sizes = torch.tensor([float(box[2] * box[3]) for box in boxes])
        scores = sizes / (sizes + 100)  # more of an object, surer
        return Detected(torch.stack(boxes) if boxes else torch.zeros(0, 5), scores, torch.tensor(labels, dtype=torch.int64))


def detector(**changes) -> Predictor:
    told = Card(
        version=__version__,
        task="detection",
        model="orcnn",
        bands=BANDS,
        training=Training(data="0" * 16, images=1, split="all", leakage="none", steps=0, minutes=0.0, seed=0),
        classes=Classes.named(NAMES),
        normalisation=Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        tile_px=TILE,
        overlap_px=OVERLAP,
    )
    return Predictor(Perfect(**changes), told, device=torch.device("cpu"), precision="fp32")


@pytest.fixture(scope="module")
def harbour():
    """Values (3, H, W), boxes (n, 5) and labels (n,) of rectangles that do not touch, one longer than windows share."""
    rng, boxes = np.random.default_rng(5), [[210.0, 150.0, 84.0, 10.0, 0.6]]
    while len(boxes) < 60:
        box = [rng.uniform(20, WIDTH - 20), rng.uniform(20, HEIGHT - 20), rng.uniform(14, 30), rng.uniform(6, 13), 0.0]
        box[4] = rng.uniform(-1.5, 1.5)
        apart = [math.dist(box[:2], other[:2]) - (math.hypot(*box[2:4]) + math.hypot(*other[2:4])) / 2 for other in boxes]
        if min(apart) > 3:
            boxes.append(box)
    labels = np.arange(len(boxes)) % len(NAMES)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    values = np.full((3, HEIGHT, WIDTH), 10, np.uint8)
    values[2] = (x + y).astype(np.uint8) % 90
    for (cx, cy, width, height, angle), label in zip(boxes, labels, strict=True):
        along = (x - cx) * math.cos(angle) + (y - cy) * math.sin(angle)
        across = (y - cy) * math.cos(angle) - (x - cx) * math.sin(angle)
        values[label, (np.abs(along) <= width / 2) & (np.abs(across) <= height / 2)] = 200
    return values, torch.tensor(boxes, dtype=torch.float64), labels


@pytest.fixture(scope="module")
def scene(harbour, tmp_path_factory):
    path = tmp_path_factory.mktemp("scene") / "harbour.tif"
    write_scene(path, harbour[0], grid=PLACED, bands=BANDS, nodata=None)
    return path


@pytest.fixture(scope="module")
def cove(harbour, tmp_path_factory):
    """A corner of it, searched in a moment."""
    path, part = tmp_path_factory.mktemp("cove") / "harbour.tif", Window(row=0, col=0, height=140, width=180)
    write_scene(path, harbour[0][:, :140, :180], grid=PLACED.crop(part), bands=BANDS, nodata=None)
    return path


def test_a_scene_without_a_valid_pixel_is_refused(tmp_path):
    path = tmp_path / "none.tif"
    write_scene(path, np.zeros((3, 60, 70), np.uint8), grid=Grid(width=70, height=60, crs=None), bands=BANDS, nodata=0)
    with pytest.raises(UnreadableScene, match=r"none\.tif holds no valid pixel in these bands.*search another scene"):
        find_boxes(detector(), as_source(path), out=tmp_path / "out", config=BoxesConfig())
    assert list((tmp_path / "out").iterdir()) == []


def found_in(path):
    meta, _, geometry, values = pyogrio.raw.read(path)
    return meta, shapely.from_wkb(geometry), dict(zip(meta["fields"], values, strict=True))


def test_no_object_is_lost_or_doubled_at_borders_of_windows(harbour, scene, tmp_path):
    _, truth, labels = harbour
    result = find_boxes(detector(), as_source(scene), out=tmp_path, config=BoxesConfig())
    assert result.objects == {"boat": 30, "car": 30}
    meta, shapes, columns = found_in(result.path)
    assert meta["crs"] == "EPSG:32633" and len(shapes) == 60
    rows = [columns[name] for name in ("x_px", "y_px", "width_px", "height_px")]
    boxes = torch.from_numpy(np.stack([*rows, np.deg2rad(columns["angle_deg"])], axis=1))
    overlap = iou(truth, boxes)
    assert overlap.amax(dim=1).min() > 0.6
    best = overlap.argmax(dim=1)
    assert len(best.unique()) == 60
    assert (columns["value"][best.numpy()] == labels).all()
    assert [NAMES[value] for value in columns["value"]] == columns["class"].tolist()


def test_polygons_lie_on_the_ground_where_the_boxes_are(scene, tmp_path):
    result = find_boxes(detector(), as_source(scene), out=tmp_path, config=BoxesConfig())
    _, shapes, columns = found_in(result.path)
    middles = shapely.get_coordinates(shapely.centroid(shapes))
    np.testing.assert_allclose(middles[:, 0], 5e5 + 0.5 * columns["x_px"], atol=0.01)
    np.testing.assert_allclose(middles[:, 1], 5e6 - 0.5 * columns["y_px"], atol=0.01)
    np.testing.assert_allclose(shapely.area(shapes), columns["width_px"] * columns["height_px"] * 0.25, rtol=1e-3)
    assert shapely.is_ccw(shapely.get_exterior_ring(shapes)).all()


def test_boxes_that_are_not_sure_enough_are_left_out(scene, tmp_path):
    every = found_in(find_boxes(detector(), as_source(scene), out=tmp_path / "all", config=BoxesConfig()).path)[2]["score"]
    least = float(np.median(every))
    result = map_scene(detector(), scene, out=tmp_path / "sure", config=MapConfig(min_score=least))
    scores = found_in(result.path)[2]["score"]
    assert sorted(scores) == sorted(every[every >= least - 1e-6]) and 20 < len(scores) < 60
    assert sum(result.objects.values()) == len(scores)


def test_a_least_score_is_a_probability_of_boxes(scene, tmp_path):
    with pytest.raises(ConfigError, match=r"min_score is a probability, 0 to 1, got 1\.2"):
        MapConfig(min_score=1.2)
    with pytest.raises(ConfigError, match="--min-score is for oriented boxes, and lemevit_tiny_light finds none"):
        check_task(replace(detector().card, task="segmentation", model="lemevit_tiny_light"), MapConfig(min_score=0.5))


def test_result_files_are_the_same_boxes(scene, tmp_path):
    result = find_boxes(detector(), as_source(scene), out=tmp_path, config=BoxesConfig())
    (told,) = read_results(result.dota, classes=Classes.named(NAMES))
    _, _, columns = found_in(result.path)
    assert told.image == "harbour" and len(told) == 60
    assert sorted(np.round(told.scores, 5)) == pytest.approx(sorted(columns["score"].round(5)), abs=2e-5)


def test_a_search_that_was_stopped_goes_on_to_the_same_bytes(scene, tmp_path):
    whole = find_boxes(detector(), as_source(scene), out=tmp_path / "whole", config=BoxesConfig())
    with pytest.raises(KeyboardInterrupt):
        find_boxes(detector(stop_after=20), as_source(scene), out=tmp_path / "stopped", config=BoxesConfig())
    assert not list((tmp_path / "stopped").glob("*.gpkg"))
    after = find_boxes(detector(), as_source(scene), out=tmp_path / "stopped", config=BoxesConfig())
    assert after.resumed_share > 0 and whole.resumed_share == 0
    assert (tmp_path / "stopped" / "harbour_boxes.gpkg").read_bytes() == (tmp_path / "whole/harbour_boxes.gpkg").read_bytes()
    assert not list((tmp_path / "stopped").glob("*.part"))


def test_workers_change_nothing(scene, tmp_path):
    for workers in (1, 3):
        config = BoxesConfig(workers=workers, batch=2)
        find_boxes(detector(), as_source(scene), out=tmp_path / str(workers), config=config)
    one, other = ((tmp_path / name / "harbour_boxes.gpkg").read_bytes() for name in ("1", "3"))
    assert one == other


def test_a_search_begun_otherwise_is_not_gone_on_with(scene, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        find_boxes(detector(stop_after=20), as_source(scene), out=tmp_path, config=BoxesConfig())
    other = BoxesConfig(tile_px=80)
    with pytest.raises(JobError, match="begun with another model, scene or windows"):
        find_boxes(detector(), as_source(scene), out=tmp_path, config=other)
    anew = find_boxes(detector(), as_source(scene), out=tmp_path, config=BoxesConfig(tile_px=80, overwrite=True))
    assert anew.resumed_share == 0 and sum(anew.objects.values()) == 60


def state(folder):
    """Of each file its bytes and when it was written."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("kind", ["gpkg", "fgb", "parquet"])
def test_boxes_that_were_made_so_are_told_and_left_as_they_are(cove, tmp_path, caplog, kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow.parquet")
    caplog.set_level("INFO", "terralean")
    first = find_boxes(detector(), as_source(cove), out=tmp_path, config=BoxesConfig(format=kind, min_score=0.1))
    assert "is there already" not in caplog.text
    before, told = state(tmp_path), []
    config = BoxesConfig(format=kind, min_score=0.1, workers=2)
    again = find_boxes(detector(stop_after=0), as_source(cove), out=tmp_path, config=config, progress=told.append)
    assert again == replace(first, resumed_share=1.0, seconds=again.seconds) and sum(again.objects.values()) > 5
    assert state(tmp_path) == before and told == []
    assert f"harbour_boxes.{kind} is there already, made of this scene in this way" in caplog.text
    assert {path.name for path in tmp_path.iterdir()} == {f"harbour_boxes.{kind}", "harbour_boxes.json", "harbour_dota"}


def test_of_many_scenes_those_that_are_searched_do_not_fail(cove, tmp_path):
    map_scene(detector(), cove, out=tmp_path / "maps", config=MapConfig())
    other = tmp_path / "other.tif"
    other.write_bytes(cove.read_bytes())
    results, failed = map_scenes(detector(), [cove, other], out=tmp_path / "maps", config=MapConfig())
    assert failed == {} and [result.resumed_share for result in results] == [1.0, 0.0]
    assert results[0].objects == results[1].objects


@pytest.mark.parametrize(
    "other",
    [BoxesConfig(min_score=0.2), BoxesConfig(tile_px=80), BoxesConfig(merge=MergeConfig(iou=0.4))],
    ids=["score", "tile", "merge"],
)
def test_boxes_that_were_made_otherwise_are_in_the_way(cove, tmp_path, other):
    find_boxes(detector(), as_source(cove), out=tmp_path, config=BoxesConfig())
    before = state(tmp_path)
    with pytest.raises(OutputFailed, match=r"harbour_boxes\.gpkg exists; delete it, choose another folder, or say --overwrite"):
        find_boxes(detector(), as_source(cove), out=tmp_path, config=other)
    assert state(tmp_path) == before
    find_boxes(detector(), as_source(cove), out=tmp_path, config=replace(other, overwrite=True))
    again = find_boxes(detector(stop_after=0), as_source(cove), out=tmp_path, config=other)
    assert again.resumed_share == 1.0


@pytest.mark.parametrize(
    "spoil", ["newer scene", "no class", "half a class", "one box less", "no record", "a record of others"]
)
def test_boxes_that_are_old_or_not_whole_are_in_the_way(cove, tmp_path, spoil):
    copy, out = tmp_path / "harbour.tif", tmp_path / "out"
    copy.write_bytes(cove.read_bytes())
    path = Path(find_boxes(detector(), as_source(copy), out=out, config=BoxesConfig()).path)
    car = out / "harbour_dota" / "Task1_car.txt"
    if spoil == "newer":
        later = path.stat().st_mtime + 10
        os.utime(copy, (later, later))
    elif spoil == "no class":
        car.unlink()
    elif spoil == "half a class":
        car.write_text(car.read_text()[:50])
    elif spoil == "one box less":
        with closing(sqlite3.connect(path)) as file, file:
            names = [row[0] for row in file.execute("select name from sqlite_master where type='trigger'")]
            for name in names:  # they call functions that plain SQLite has not
                file.execute(f'drop trigger "{name}"')
            file.execute("delete from classes where fid = (select max(fid) from classes)")
    elif spoil == "no record":
        (out / "harbour_boxes.json").unlink()
    else:
        (out / "harbour_boxes.json").write_text('{"mine": 1}')
    with pytest.raises(OutputFailed, match=r"harbour_boxes\.gpkg exists"):
        find_boxes(detector(), as_source(copy), out=out, config=BoxesConfig())
    assert not (out / "harbour_boxes.part").exists()


def test_a_record_alone_is_replaced_and_another_file_of_its_name_is_not(cove, tmp_path):
    path = Path(find_boxes(detector(), as_source(cove), out=tmp_path, config=BoxesConfig()).path)
    path.unlink()
    shutil.rmtree(tmp_path / "harbour_dota")
    assert find_boxes(detector(), as_source(cove), out=tmp_path, config=BoxesConfig(min_score=0.1)).resumed_share == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "harbour_boxes.json").write_text("[]")
    with pytest.raises(OutputFailed, match=r"harbour_boxes\.json exists; delete it"):
        find_boxes(detector(), as_source(cove), out=tmp_path / "other", config=BoxesConfig())
    assert [entry.name for entry in (tmp_path / "other").iterdir()] == ["harbour_boxes.json"]


def test_what_was_stopped_while_files_got_their_names_goes_on(cove, tmp_path):
    whole = find_boxes(detector(), as_source(cove), out=tmp_path / "whole", config=BoxesConfig())
    out, folder = tmp_path / "out", tmp_path / "out" / "harbour_boxes.part"
    with pytest.raises(KeyboardInterrupt):
        find_boxes(detector(stop_after=5), as_source(cove), out=out, config=BoxesConfig())
    shutil.copytree(tmp_path / "whole" / "harbour_dota", out / "harbour_dota")
    with pytest.raises(OutputFailed, match="harbour_dota exists"):  # it may be another's
        find_boxes(detector(), as_source(cove), out=out, config=BoxesConfig())
    (folder / "named").touch()
    after = find_boxes(detector(), as_source(cove), out=out, config=BoxesConfig())
    assert after.objects == whole.objects and not folder.exists()
    assert Path(after.path).read_bytes() == Path(whole.path).read_bytes()


@pytest.mark.parametrize("kind", ["fgb", "parquet"])
def test_other_formats_hold_the_same(scene, tmp_path, kind):
    first = find_boxes(detector(), as_source(scene), out=tmp_path, config=BoxesConfig())
    other = find_boxes(detector(), as_source(scene), out=tmp_path, config=BoxesConfig(format=kind, overwrite=True))
    _, shapes, columns = found_in(first.path)
    if kind == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        table = parquet.read_table(other.path)
        theirs, scores = shapely.from_wkb(table["geometry"].to_pylist()), table["score"].to_pylist()
        assert b'"geometry_types": ["Polygon"]' in parquet.read_metadata(other.path).metadata[b"geo"]
    else:
        _, theirs, values = found_in(other.path)
        scores = values["score"]
    order, their_order = np.argsort(columns["score"], kind="stable"), np.argsort(scores, kind="stable")
    assert np.asarray(scores)[their_order].tolist() == columns["score"][order].tolist()
    assert shapely.area(theirs).sum() == pytest.approx(shapely.area(shapes).sum())


def test_a_scene_without_objects_gives_files_without_any(tmp_path):
    path = tmp_path / "sea.tif"
    values = np.arange(3 * 60 * 70, dtype=np.uint32).reshape(3, 60, 70) % 90
    write_scene(path, values.astype(np.uint8), grid=Grid(width=70, height=60, crs=None), bands=BANDS, nodata=None)
    result = find_boxes(detector(), as_source(path), out=tmp_path, config=BoxesConfig())
    _, shapes, columns = found_in(result.path)
    assert len(shapes) == 0 and "score" in columns and result.objects == {"boat": 0, "car": 0}
    assert (tmp_path / "sea_dota" / "Task1_car.txt").read_text() == ""


def test_only_what_lies_in_an_area_is_kept(harbour, scene, tmp_path):
    area = tmp_path / "area.gpkg"
    left, top, right, bottom = 100.0, 60.0, 260.0, 200.0
    shape = shapely.box(5e5 + left / 2, 5e6 - bottom / 2, 5e5 + right / 2, 5e6 - top / 2)
    pyogrio.raw.write(
        area,
        geometry=shapely.to_wkb([shape]),
        field_data=[],
        fields=[],
        crs="EPSG:32633",
        geometry_type="Polygon",
        driver="GPKG",
    )
    result = find_boxes(detector(), as_source(scene), out=tmp_path, config=BoxesConfig(aoi=str(area)))
    _, truth, _ = harbour
    x, y = truth[:, 0], truth[:, 1]
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    _, shapes, _ = found_in(result.path)
    assert len(shapes) == int(inside.sum())


def test_searching_in_memory_finds_the_same(scene, tmp_path):
    result = find_boxes(detector(), as_source(scene), out=tmp_path, config=BoxesConfig())
    with open_scene(scene) as opened:
        merged = search_scene(detector(), opened, config=BoxesConfig())
    _, shapes, _ = found_in(result.path)
    mine = shapely.area(shapely.polygons(to_polygons(merged.boxes).numpy().reshape(-1, 4, 2))).sum() * 0.25
    assert len(merged.boxes) == 60 and mine == pytest.approx(shapely.area(shapes).sum())


def test_map_scene_finds_boxes_where_the_model_does(scene, tmp_path):
    result = map_scene(detector(), scene, out=tmp_path, config=MapConfig(polygons="fgb", overlap_px=48))
    assert result.path.endswith("harbour_boxes.fgb") and sum(result.objects.values()) == 60
    with pytest.raises(ConfigError, match="finds oriented boxes, for which --scores, --stac have no meaning"):
        map_scene(detector(), scene, out=tmp_path, config=MapConfig(scores=True, stac=True))


def test_a_scene_of_other_bands_is_refused(tmp_path):
    path = tmp_path / "grey.tif"
    write_scene(
        path,
        np.ones((1, 64, 64), np.uint8),
        grid=PLACED.crop(Window(row=0, col=0, height=64, width=64)),
        bands=Bands(names=("grey",)),
        nodata=None,
    )
    with pytest.raises(BandMismatch, match=r"grey.tif"):
        find_boxes(detector(), as_source(path), out=tmp_path, config=BoxesConfig())
