import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.crs import CRS
from torch import nn

from terralean.errors import BandMismatch, ConfigError, MissingFile, OutputFailed, SizeError, UnreadableScene
from terralean.mapping.many import map_scenes
from terralean.mapping.plan import Plan
from terralean.mapping.run import MapConfig, map_scene
from terralean.mapping.strips import strips
from terralean.predict import Predictor, load
from terralean.raster.grid import Grid, Window
from terralean.raster.polygons import burn_polygons
from terralean.raster.scene import open_scene
from terralean.raster.write import write_scene
from terralean.spec import Bands

GRID = Grid(width=150, height=130, crs="EPSG:32633", transform=(0.5, 0.0, 300_000.25, 0.0, -0.5, 5_200_000.75))
RGB = Bands(names=("red", "green", "blue"))


@pytest.fixture(scope="module")
def predictor(untrained):
    return load(untrained, device="cpu")


def floats_of(predictor: Predictor) -> Predictor:
    """The same, as if it had been trained on floats."""
    card = replace(predictor.card, bands=replace(predictor.card.bands, dtype="float32"))
    return Predictor(predictor.model, card, device=predictor.device, precision="fp32")


def values(grid: Grid = GRID, *, seed: int = 0) -> np.ndarray:
    """Smooth random colours, 1..255."""
    rng = np.random.default_rng(seed)
    small = torch.from_numpy(rng.uniform(1, 255, (1, 3, grid.height // 10, grid.width // 10)))
    large = torch.nn.functional.interpolate(small, size=(grid.height, grid.width), mode="bilinear")
    return large[0].numpy().astype(np.uint8)


def write(path, array, *, grid: Grid = GRID, bands: Bands = RGB, nodata: float | None = 0):
    write_scene(path, array, grid=grid, bands=bands, nodata=nodata)
    return path


def read(path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def test_map_is_a_georeferenced_named_coloured_cog(predictor, tmp_path):
    array = values()
    array[:, :20, :30] = 0
    result = map_scene(predictor, write(tmp_path / "scene.tif", array), out=tmp_path / "maps", config=MapConfig())
    assert result.path == str(tmp_path / "maps" / "scene_map.tif")
    with rasterio.open(result.path) as dataset:
        assert (dataset.width, dataset.height, dataset.count) == (150, 130, 1)
        assert dataset.crs == CRS.from_epsg(32633)
        assert tuple(dataset.transform)[:6] == GRID.transform
        assert dataset.dtypes == ("uint8",)
        assert dataset.nodata == 255
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.tags()["TERRALEAN_MODEL"] == "lemevit_tiny_light"
        assert {i: dataset.colormap(1)[i][:3] for i in range(3)} == dict(enumerate(predictor.card.classes.colours))
        labels = dataset.read(1)
    assert (labels[:20, :30] == 255).all()
    assert set(np.unique(labels[labels != 255])) <= {0, 1, 2}
    assert (labels == 255).sum() == 20 * 30
    assert result.valid_share == pytest.approx(1 - 600 / (150 * 130))
    assert result.area_km2 == pytest.approx((150 * 130 - 600) * 0.25e-6, rel=1e-3)
    assert sum(result.class_share.values()) == pytest.approx(1, abs=1e-5)
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {"scene_map.tif", "scene_map.tif.aux.xml", "scene_map.qml"}


def test_map_equals_plain_stitching_of_the_whole_scene(predictor, tmp_path):
    array = values()
    path = write(tmp_path / "scene.tif", array, nodata=None)
    labels = read(map_scene(predictor, path, out=tmp_path, config=MapConfig(batch=3)).path)
    plan = Plan(grid=GRID, tile_px=64, overlap_px=16)
    padded = np.zeros((3, 300, 300), np.float32)
    padded[:, :130, :150] = array
    inside = np.zeros((300, 300), bool)
    inside[:130, :150] = True
    total = np.zeros((3, 300, 300))
    for row in plan.rows:
        for col in plan.cols:
            window = Window(row=row, col=col, height=64, width=64)
            rows, cols = window.slices()
            image, valid = (
                torch.from_numpy(padded[:, rows, cols].copy())[None],
                torch.from_numpy(inside[rows, cols].copy())[None],
            )
            total[:, rows, cols] += predictor(image, valid)[0].numpy() * plan.weight(window)
    expected = total[:, :130, :150].argmax(axis=0)
    margin = np.sort(total[:, :130, :150], axis=0)
    clear = margin[2] - margin[1] > 1e-4  # where batches of other sizes cannot change the order
    assert clear.mean() > 0.95
    assert (labels == expected)[clear].all()


def test_strips_are_the_scene_once_and_their_probabilities_sum_to_one(predictor, tmp_path):
    path = write(tmp_path / "scene.tif", values(), nodata=None)
    with open_scene(path) as scene:
        found = list(strips(predictor, scene, Plan(grid=scene.grid, tile_px=64, overlap_px=16), batch=2))
    assert [(s.window.row, s.window.height) for s in found] == [(0, 48), (48, 48), (96, 34)]
    assert all(s.window.col == 0 and s.window.width == 150 for s in found)
    for strip in found:
        assert strip.valid.all()
        np.testing.assert_allclose(strip.probabilities.sum(axis=0), 1, atol=1e-5)


def test_map_of_a_crop_is_the_crop_of_the_map(predictor, tmp_path):
    grid = Grid(width=256, height=256, crs="EPSG:32633", transform=GRID.transform)
    array = values(grid)
    whole = map_scene(predictor, write(tmp_path / "whole.tif", array, grid=grid), out=tmp_path, config=MapConfig(batch=1))
    window = Window(row=48, col=96, height=160, width=160)  # a multiple of the stride, 48
    part = array[:, *window.slices()]
    crop = map_scene(
        predictor, write(tmp_path / "crop.tif", part, grid=grid.crop(window)), out=tmp_path, config=MapConfig(batch=1)
    )
    shared = slice(16, 144 - 16)  # windows that both have whole: 3 of the crop, but for what its edge windows alone touch
    assert (read(crop.path)[shared, shared] == read(whole.path)[window.slices()][shared, shared]).all()


def test_same_bytes_again(predictor, tmp_path):
    path = write(tmp_path / "scene.tif", values())
    one, two = (map_scene(predictor, path, out=tmp_path / name, config=MapConfig()) for name in ("a", "b"))
    assert (tmp_path / "a" / "scene_map.tif").read_bytes() == (tmp_path / "b" / "scene_map.tif").read_bytes()
    assert one.class_share == two.class_share


def test_scene_smaller_than_a_tile(predictor, tmp_path):
    grid = Grid(width=5, height=3, crs="EPSG:32633", transform=GRID.transform)
    path = write(tmp_path / "small.tif", np.arange(1, 46, dtype=np.uint8).reshape(3, 3, 5), grid=grid)
    labels = read(map_scene(predictor, path, out=tmp_path, config=MapConfig()).path)
    assert labels.shape == (3, 5)
    assert labels.max() <= 2


def test_nan_is_nodata(predictor, tmp_path):
    array = values().astype(np.float32)
    array[1, 40:50, 60:80] = np.nan
    bands = Bands(names=RGB.names, dtype="float32")
    scene = write(tmp_path / "nan.tif", array, bands=bands, nodata=None)
    labels = read(map_scene(floats_of(predictor), scene, out=tmp_path, config=MapConfig()).path)
    expected = np.zeros(labels.shape, bool)
    expected[40:50, 60:80] = True
    assert ((labels == 255) == expected).all()


def test_scene_without_a_valid_pixel_leaves_nothing(predictor, tmp_path):
    path = write(tmp_path / "empty.tif", np.zeros((3, 130, 150), np.uint8))
    with pytest.raises(UnreadableScene, match=r"empty\.tif holds no valid pixel"):
        map_scene(predictor, path, out=tmp_path / "maps", config=MapConfig())
    assert not (tmp_path / "maps").exists()


def test_bands_of_another_order_stop_before_anything_is_written(predictor, tmp_path):
    path = write(tmp_path / "bgr.tif", values()[::-1], bands=Bands(names=("blue", "green", "red")))
    with pytest.raises(BandMismatch, match=r"--bands 3,2,1"):
        map_scene(predictor, path, out=tmp_path / "maps", config=MapConfig())
    assert not (tmp_path / "maps").exists()
    right = write(tmp_path / "rgb.tif", values())
    mended = map_scene(predictor, path, out=tmp_path / "maps", config=MapConfig(bands=(3, 2, 1)))
    assert (read(mended.path) == read(map_scene(predictor, right, out=tmp_path / "maps", config=MapConfig()).path)).all()


def test_bands_that_the_user_chose_count_for_more_than_their_names(predictor, tmp_path, caplog):
    named = write(tmp_path / "rgb.tif", values())
    other = write(tmp_path / "sentinel.tif", values(), bands=Bands(names=("B04", "B03", "B02")))
    with pytest.raises(BandMismatch, match=r"none of the model's bands(.|\n)*give their positions with --bands"):
        map_scene(predictor, other, out=tmp_path, config=MapConfig())
    one, two = (map_scene(predictor, p, out=tmp_path, config=MapConfig(bands=(1, 2, 3))) for p in (named, other))
    assert (read(one.path) == read(two.path)).all()
    assert "taking, as --bands says, B04 as red, B03 as green, B02 as blue" in caplog.text


def test_existing_maps_are_kept_unless_told(predictor, tmp_path):
    path = write(tmp_path / "scene.tif", values())
    map_scene(predictor, path, out=tmp_path, config=MapConfig())
    with pytest.raises(OutputFailed, match="say --overwrite"):
        map_scene(predictor, path, out=tmp_path, config=MapConfig(overlap_px=8))
    map_scene(predictor, path, out=tmp_path, config=MapConfig(overlap_px=8, overwrite=True))


def test_what_is_read_is_never_replaced(predictor, tmp_path):
    path, other = write(tmp_path / "scene.tif", values()), write(tmp_path / "scene_scores.tif", values(seed=1))
    before = other.read_bytes()
    config = MapConfig(scores=True, overwrite=True)
    with pytest.raises(OutputFailed, match=r"scene_scores\.tif is read for this map, and would be replaced by a part of it"):
        map_scenes(predictor, [path, other], out=tmp_path, config=config)
    area = replace(config, scores=False, polygons="gpkg", aoi=str(tmp_path / "scene_polygons.gpkg"))
    with pytest.raises(OutputFailed, match=r"scene_polygons\.gpkg is read for this map"):
        map_scenes(predictor, [path], out=tmp_path, config=area)
    assert other.read_bytes() == before
    assert not (tmp_path / "scene_map.tif").exists()


def test_files_of_an_earlier_map_are_told_of(predictor, tmp_path, caplog):
    path = write(tmp_path / "scene.tif", values())
    map_scene(predictor, path, out=tmp_path, config=MapConfig(scores=True, polygons="fgb"))
    assert "earlier map" not in caplog.text
    map_scene(predictor, path, out=tmp_path, config=MapConfig(scores=True, confidence=True, polygons="gpkg", overwrite=True))
    assert "scene_map.tif: scene_polygons.fgb of an earlier map stay as they are; delete them" in caplog.text


def test_what_was_not_yet_written_into_old_polygons_is_not_written_into_the_new_ones(predictor, tmp_path):
    """A program that shows a GeoPackage may leave changes beside it that are for that file alone."""
    path, old = write(tmp_path / "scene.tif", values()), tmp_path / "scene_polygons.gpkg"
    map_scene(predictor, path, out=tmp_path, config=MapConfig(polygons="gpkg"))
    with closing(sqlite3.connect(old)) as shown:
        shown.execute("PRAGMA journal_mode=WAL")
        for (trigger,) in shown.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            shown.execute(f'DROP TRIGGER "{trigger}"')  # they call what GDAL alone has
        shown.execute("UPDATE classes SET class = 'edited'")
        shown.commit()
        left = {ending: Path(f"{old}{ending}").read_bytes() for ending in ("-wal", "-shm")}
    for ending, content in left.items():
        Path(f"{old}{ending}").write_bytes(content)
    map_scene(predictor, path, out=tmp_path, config=MapConfig(polygons="gpkg", overwrite=True))
    with closing(sqlite3.connect(old)) as shown:
        names = {name for (name,) in shown.execute("SELECT class FROM classes")}
    assert names and names <= set(predictor.card.classes.names)


class Greedy(nn.Module):
    """Wants a million times the memory of a machine."""

    def forward(self, image):
        return torch.empty(2**56).reshape(image.shape)


def test_memory_that_runs_out_is_told_with_what_takes_less(predictor, tmp_path):
    path = write(tmp_path / "scene.tif", values())
    greedy = Predictor(Greedy(), predictor.card, device=torch.device("cpu"), precision="fp32")
    with pytest.raises(SizeError, match=r"memory ran out on cpu with 1 workers and batches of 4 .*try --workers 1 --batch 2"):
        map_scene(greedy, path, out=tmp_path / "maps", config=MapConfig(workers=1))
    results, failed = map_scenes(greedy, [path, tmp_path / "missing.tif"], out=tmp_path / "maps", config=MapConfig())
    assert (results, len(failed)) == ([], 2)
    assert not (tmp_path / "maps").exists()


def test_two_scenes_of_one_name_are_refused_before_the_first_is_mapped(predictor, tmp_path):
    with pytest.raises(OutputFailed, match="would both be written to"):
        map_scenes(predictor, ["a/scene.tif", "b/scene.tif"], out=tmp_path, config=MapConfig())


def test_of_many_scenes_the_good_ones_are_mapped_and_the_others_named(predictor, tmp_path):
    good = write(tmp_path / "good.tif", values())
    (tmp_path / "text.tif").write_text("no image")
    told = []
    results, failed = map_scenes(
        predictor,
        [tmp_path / "missing.tif", good, tmp_path / "text.tif"],
        out=tmp_path / "maps",
        config=MapConfig(),
        progress=told.append,
    )
    assert [result.scene for result in results] == [str(good)]
    assert list(failed) == [str(tmp_path / "missing.tif"), str(tmp_path / "text.tif")]
    assert "missing.tif" in failed[str(tmp_path / "missing.tif")]
    last = told[-1]
    assert (last.scene, last.index, last.scenes, last.unit) == (str(good), 1, 3, "km2")
    assert last.done == last.total == pytest.approx(150 * 130 * 0.25e-6)


def test_a_single_scenes_mistake_is_raised(predictor, tmp_path):
    with pytest.raises(MissingFile):
        map_scenes(predictor, [tmp_path / "missing.tif"], out=tmp_path, config=MapConfig())


def test_confidence_and_polygons_of_a_map_of_pixels(predictor, tmp_path):
    array = values()
    array[:, :20, :30] = 0
    path = write(tmp_path / "scene.tif", array)
    result = map_scene(predictor, path, out=tmp_path, config=MapConfig(confidence=True, polygons="gpkg"))
    labels, percent = read(result.path), read(result.confidence)
    with open_scene(path) as scene:
        found = list(strips(predictor, scene, Plan(grid=scene.grid, tile_px=64, overlap_px=16), batch=4))
    likely = np.concatenate([strip.probabilities for strip in found], axis=1).max(axis=0)
    assert ((percent == 255) == (labels == 255)).all()
    assert np.abs(percent[labels != 255] - 100 * likely[labels != 255]).max() <= 0.5 + 1e-3
    with rasterio.open(result.confidence) as dataset:
        assert (dataset.crs, tuple(dataset.transform)[:6], dataset.nodata) == (CRS.from_epsg(32633), GRID.transform, 255)
    burnt = burn_polygons(
        result.polygons, like=GRID, window=GRID.window, classes=predictor.card.classes, field=None, name="scene.tif"
    )
    assert (burnt == labels).all()


def test_a_table_is_for_cells(predictor, tmp_path):
    path = write(tmp_path / "scene.tif", values())
    with pytest.raises(ConfigError, match=r"lemevit_tiny_light maps single pixels; ask for --polygons or --confidence"):
        map_scene(predictor, path, out=tmp_path / "maps", config=MapConfig(table=True))
    with pytest.raises(ConfigError, match="polygons must be one of gpkg, fgb, parquet, got 'shp'"):
        MapConfig(polygons="shp")
    assert not (tmp_path / "maps").exists()
