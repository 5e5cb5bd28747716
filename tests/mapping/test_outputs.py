"""What a map consists of beside its classes, areas of interest, and scenes of all kinds."""

import shutil
from dataclasses import replace

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import torch

from terralean.errors import ConfigError, GridMismatch, OutputFailed, UnreadableScene
from terralean.mapping.plan import Plan
from terralean.mapping.run import MapConfig, map_scene
from terralean.mapping.strips import strips
from terralean.predict import Predictor, load
from terralean.raster.area import row_area_m2
from terralean.raster.clip import read_clip
from terralean.raster.grid import Grid
from terralean.raster.scene import open_scene
from terralean.raster.write import write_scene
from terralean.spec import Bands
from terralean.tokens.tome import ToMeConfig
from terralean.tokens.topk import TopKConfig

GRID = Grid(width=210, height=190, crs="EPSG:32633", transform=(0.5, 0.0, 300_000.25, 0.0, -0.5, 5_200_000.75))
RGB = Bands(names=("red", "green", "blue"))
TOP_K = TopKConfig(after=(2, 5), shares=(0.5, 0.5))


@pytest.fixture(scope="module")
def predictor(untrained):
    return load(untrained, device="cpu")


@pytest.fixture(scope="module")
def reducing(untrained):
    """The same weights; the third stage keeps half of its tokens after block 2 and half of these after block 5."""
    return load(untrained, device="cpu", reduce=TOP_K)


def values(grid=GRID, *, seed=0):
    """Smooth random colours, 1..255, with a corner without data."""
    size = (max(1, grid.height // 10), max(1, grid.width // 10))
    small = torch.from_numpy(np.random.default_rng(seed).uniform(1, 255, (1, 3, *size)))
    large = torch.nn.functional.interpolate(small, size=(grid.height, grid.width), mode="bilinear")[0]
    array = large.numpy().astype(np.uint8)
    array[:, : grid.height // 8, : grid.width // 6] = 0
    return array


def write(path, array, *, grid=GRID):
    write_scene(path, array, grid=grid, bands=RGB, nodata=0)
    return path


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write(tmp_path_factory.mktemp("scenes") / "scene.tif", values())


def read(path, band=1):
    with rasterio.open(path) as dataset:
        return dataset.read(band)


def blended(predictor, path, plan):
    """Probabilities of a scene (K, H, W)."""
    with open_scene(path) as opened:
        return np.concatenate([strip.probabilities for strip in strips(predictor, opened, plan, batch=4)], axis=1)


# Scores and compute.


def test_scores_are_the_probabilities_of_all_classes_in_percent(predictor, scene, tmp_path):
    result = map_scene(predictor, scene, out=tmp_path, config=MapConfig(scores=True, confidence=True))
    expected = blended(predictor, scene, Plan(grid=GRID, tile_px=64, overlap_px=16))
    labels = read(result.path)
    with rasterio.open(result.scores) as dataset:
        found = dataset.read()
        assert dataset.descriptions == predictor.card.classes.names
        assert (dataset.nodatavals, dataset.dtypes, dataset.crs.to_epsg()) == ((255,) * 3, ("uint8",) * 3, 32633)
        assert tuple(dataset.transform)[:6] == GRID.transform
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    known = labels != 255
    assert ((found == 255) == ~known).all()
    assert np.abs(found[:, known] - 100 * expected[:, known]).max() <= 0.5 + 1e-3
    np.testing.assert_array_equal(found.max(axis=0)[known], read(result.confidence)[known])


def test_compute_is_the_share_of_layers_that_worked_on_each_pixel(reducing, scene, tmp_path):
    result = map_scene(reducing, scene, out=tmp_path, config=MapConfig(compute=True, workers=2))
    plan = Plan(grid=GRID, tile_px=64, overlap_px=16)
    expected, windows, total = np.zeros((4 * 64, 5 * 64)), [], 0.0
    with open_scene(scene) as opened:
        for row in plan.rows:
            for window in plan.row_of_windows(row):
                array, valid = opened.read(window)
                if valid.any():
                    images = torch.from_numpy(array.astype(np.float32))[None]
                    kept = reducing.with_compute(images, torch.from_numpy(valid)[None])[1][0].numpy()
                    expected[window.slices()] += kept * plan.weight(window)
                    windows.append(window)
                    total += kept.mean()
    labels, found = read(result.path), read(result.compute)
    known = labels != 255
    assert ((found == 255) == ~known).all()
    assert np.abs(found[known] - 100 * expected[:190, :210][known]).max() <= 0.5 + 1e-3
    assert result.windows == len(windows)
    assert result.compute_share == pytest.approx(total / len(windows), abs=1e-6)
    assert 0.3 < result.compute_share < 0.9
    with rasterio.open(result.compute) as dataset:
        assert (dataset.descriptions, dataset.nodata) == (("tokens_kept_percent",), 255)


def test_classes_are_the_same_with_compute_and_without(reducing, scene, tmp_path):
    one, other = (
        map_scene(reducing, scene, out=tmp_path / str(compute), config=MapConfig(compute=compute)) for compute in (True, False)
    )
    np.testing.assert_array_equal(read(one.path), read(other.path))
    assert other.compute is None and other.compute_share is None


def test_compute_needs_a_method_that_leaves_something_to_tell(predictor, untrained, recogniser, scene, tmp_path):
    config = MapConfig(compute=True)
    with pytest.raises(ConfigError, match=r"this run of lemevit_tiny_light keeps all; train with a .*reduce\.method=tome"):
        map_scene(predictor, scene, out=tmp_path / "maps", config=config)
    with pytest.raises(ConfigError, match="this run of small_cnn keeps all"):
        map_scene(load(recogniser, device="cpu"), scene, out=tmp_path / "maps", config=config)
    sublayers = load(untrained, device="cpu", reduce=ToMeConfig(mode="sublayer"))
    with pytest.raises(ConfigError, match=r"leaves none; of tome use --set reduce\.mode=progressive"):
        map_scene(sublayers, scene, out=tmp_path / "maps", config=config)
    assert not (tmp_path / "maps").exists()


# Areas of interest.


def area(path, shape, *, grid=GRID, crs="EPSG:32633"):
    """A vector file of a shape in columns and rows of the scene."""
    a, b, c, d, e, f = grid.transform
    ground = shapely.transform(
        shape, lambda p: np.stack([a * p[:, 0] + b * p[:, 1] + c, d * p[:, 0] + e * p[:, 1] + f], axis=1)
    )
    pyogrio.raw.write(path, shapely.to_wkb(np.array([ground])), [], fields=[], crs=crs, geometry_type=ground.geom_type)
    return str(path)


ISLANDS = shapely.union_all([shapely.box(70.2, 60.4, 99.6, 90.5), shapely.Point(150, 150).buffer(20)])


@pytest.mark.parametrize("batch", [1, 3])
def test_the_map_of_an_area_is_that_of_the_scene_within_it(reducing, scene, tmp_path, batch):
    config = MapConfig(batch=batch, confidence=True, scores=True, compute=True)
    whole = map_scene(reducing, scene, out=tmp_path / "whole", config=config)
    path = area(tmp_path / "area.gpkg", ISLANDS)
    part = map_scene(reducing, scene, out=tmp_path / "part", config=replace(config, aoi=path))
    clip = read_clip(path, like=GRID, name="scene.tif")
    inside = clip.inside(clip.window)
    assert (part.height_px, part.width_px) == (clip.window.height, clip.window.width) == inside.shape
    with rasterio.open(part.path) as dataset:
        assert tuple(dataset.transform)[:6] == GRID.crop(clip.window).transform
    for one, other in ((part.path, whole.path), (part.confidence, whole.confidence), (part.compute, whole.compute)):
        np.testing.assert_array_equal(read(one), np.where(inside, read(other)[clip.window.slices()], 255))
    assert part.valid_share == inside.mean()
    assert part.windows < whole.windows / 2


def test_windows_beside_an_area_are_not_predicted(predictor, scene, tmp_path):
    """One pixel: all windows that see it are those of four whose overlap it lies in."""
    result = map_scene(
        predictor, scene, out=tmp_path, config=MapConfig(aoi=area(tmp_path / "a.gpkg", shapely.box(100.2, 100.2, 100.8, 100.8)))
    )
    assert (result.windows, result.width_px, result.height_px, result.valid_share) == (4, 1, 1, 1.0)


def test_an_area_of_cells_is_that_of_the_cells_it_touches(recogniser, scene, tmp_path):
    predictor = load(recogniser, device="cpu")
    config = MapConfig(confidence=True, table=True, polygons="gpkg")
    whole = map_scene(predictor, scene, out=tmp_path / "whole", config=config)
    shape = shapely.box(70, 40, 95.9, 130)  # cells of 32 px: column 2, rows 1 to 4
    part = map_scene(predictor, scene, out=tmp_path / "part", config=replace(config, aoi=area(tmp_path / "a.fgb", shape)))
    np.testing.assert_array_equal(read(part.path), read(whole.path)[1:5, 2:3])
    with rasterio.open(part.path) as dataset:
        assert tuple(dataset.transform)[:6] == (16.0, 0.0, 300_032.25, 0.0, -16.0, 5_199_984.75)


def test_areas_that_cannot_be_mapped_leave_nothing(predictor, scene, tmp_path):
    away = area(tmp_path / "away.gpkg", shapely.box(500, 500, 600, 600))
    with pytest.raises(GridMismatch, match=r"no pixel of .*scene\.tif lies in the polygons of .*away\.gpkg"):
        map_scene(predictor, scene, out=tmp_path / "maps", config=MapConfig(aoi=away))
    empty = area(tmp_path / "empty.gpkg", shapely.box(2, 2, 20, 15))
    with pytest.raises(UnreadableScene, match=r"no valid pixel in these bands within the polygons of .*; map another area"):
        map_scene(predictor, scene, out=tmp_path / "maps", config=MapConfig(aoi=empty))
    assert not (tmp_path / "maps").exists()


# Scenes of all kinds.


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32633", (8.7, 5.1, 500_000.3, 5.1, -8.7, 5_000_000.7)),
        ("EPSG:32633", (10.0, 0.0, 500_000.0, 0.0, 10.0, 5_000_000.0)),
        ("EPSG:4326", (0.001, 0.0, 10.0, 0.0, -0.001, 60.0)),
    ],
    ids=["rotated", "south-up", "degrees"],
)
def test_any_place_is_kept_and_ground_is_told_in_square_metres(predictor, tmp_path, crs, transform):
    grid = Grid(width=90, height=75, crs=crs, transform=transform)
    told = []
    result = map_scene(
        predictor,
        write(tmp_path / "scene.tif", values(grid), grid=grid),
        out=tmp_path / "maps",
        config=MapConfig(polygons="gpkg", workers=1),
        progress=told.append,
    )
    with rasterio.open(result.path) as dataset:
        assert tuple(dataset.transform)[:6] == transform
        assert dataset.crs.to_string() == crs
        labels = dataset.read(1)
    area_m2 = row_area_m2(grid)
    expected = ((labels != 255).sum(axis=1) * area_m2).sum()
    assert result.area_km2 == pytest.approx(expected / 1e6, rel=1e-6)
    assert (told[-1].unit, told[-1].total) == ("km2", pytest.approx(90 * area_m2.sum() / 1e6))
    columns = pyogrio.raw.read(result.polygons, columns=["area_m2"])[3]
    assert columns[0].sum() == pytest.approx(expected)


def test_a_scene_of_one_pixel(predictor, tmp_path):
    grid = Grid(width=1, height=1, crs="EPSG:32633", transform=GRID.transform)
    path = write(tmp_path / "scene.tif", np.array([[[100]], [[120]], [[50]]], np.uint8), grid=grid)
    result = map_scene(
        predictor, path, out=tmp_path / "maps", config=MapConfig(confidence=True, scores=True, polygons="gpkg", workers=3)
    )
    assert read(result.path).shape == (1, 1) and read(result.path)[0, 0] < 3
    assert (result.windows, result.valid_share, result.area_km2) == (1, 1.0, 0.25e-6)


def test_a_scene_placed_by_points_only_is_mapped_in_its_own_pixels_with_a_word(predictor, tmp_path, caplog):
    path = tmp_path / "photo" / "scene.tif"
    path.parent.mkdir()
    points = [rasterio.control.GroundControlPoint(row=r, col=c, x=15 + c, y=50 - r) for r in (0, 75) for c in (0, 90)]
    with rasterio.open(path, "w", driver="GTiff", width=90, height=75, count=3, dtype="uint8") as dataset:
        dataset.gcps = (points, rasterio.crs.CRS.from_epsg(4326))
        dataset.write(values(Grid(width=90, height=75, crs=None)))
    told = []
    result = map_scene(predictor, path, out=tmp_path / "maps", config=MapConfig(), progress=told.append)
    assert "is placed by ground control points only: maps of it will have no CRS" in caplog.text
    with rasterio.open(result.path) as dataset:
        assert dataset.crs is None and dataset.transform == rasterio.Affine.identity()
    assert (told[-1].unit, told[-1].total, result.area_km2) == ("px", 90 * 75, None)


def test_scenes_may_have_more_bands_than_the_model_and_floats(predictor, tmp_path):
    bands = Bands(names=("red", "nir", "green", "blue"), dtype="float32")
    array = np.insert(values().astype(np.float32), 1, 7.5, axis=0)
    array[:, 30:40, 100:120] = np.nan
    write_scene(tmp_path / "scene.tif", array, grid=GRID, bands=bands, nodata=0)
    config = MapConfig(bands=(1, 3, 4), confidence=True)
    card = replace(predictor.card, bands=replace(predictor.card.bands, dtype="float32"))
    trained = Predictor(predictor.model, card, device=predictor.device, precision="fp32")
    result = map_scene(trained, tmp_path / "scene.tif", out=tmp_path / "maps", config=config)
    gap = np.zeros((190, 210), bool)
    gap[30:40, 100:120] = True
    gap[:23, :35] = True
    np.testing.assert_array_equal(read(result.path) == 255, gap)


def test_what_is_left_of_the_disk_is_looked_at_before_the_start(predictor, scene, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=50_000))
    told = []
    with pytest.raises(OutputFailed, match=r"scene_map\.tif may need [\d,]+ bytes while it is written, 50,000 are available"):
        map_scene(predictor, scene, out=tmp_path / "maps", config=MapConfig(), progress=told.append)
    assert not (tmp_path / "maps").exists()
    assert [one.done for one in told] == [0]
