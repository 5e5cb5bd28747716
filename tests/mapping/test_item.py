"""A map beside its STAC item, and what is asked of its polygons."""

import hashlib
import json
import os
import sys

import numpy as np
import pystac
import pytest
import rasterio
import shapely
from pyarrow import parquet
from shapely.geometry import shape

from terralean.errors import ConfigError, JobError, MissingExtra
from terralean.mapping.run import MapConfig, map_scene
from terralean.mapping.scenes import find_scenes
from terralean.predict import load
from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import Bands

GRID = Grid(width=96, height=80, crs="EPSG:32633", transform=(0.5, 0.0, 300_000.25, 0.0, -0.5, 5_200_000.75))
RGB = Bands(names=("red", "green", "blue"))


@pytest.fixture(scope="module")
def predictor(untrained):
    return load(untrained, device="cpu")


@pytest.fixture
def scene(tmp_path):
    """A scene of which the left half is nodata, acquired on a day in May."""
    values = np.random.default_rng(0).integers(1, 256, (3, 80, 96)).astype(np.uint8)
    values[:, :, :48] = 0
    (tmp_path / "scenes").mkdir()
    path = tmp_path / "scenes" / "scene.tif"
    write_scene(path, values, grid=GRID, bands=RGB, nodata=0)
    with rasterio.open(path, "r+") as file:
        file.update_tags(TIFFTAG_DATETIME="2020:05:01 09:08:07")
    return path


def test_an_item_says_what_when_and_where_a_map_is(predictor, untrained, scene, tmp_path):
    everything = MapConfig(confidence=True, scores=True, polygons="parquet", stac=True)
    result = map_scene(predictor, scene, out=tmp_path / "maps", config=everything)
    assert result.stac == str(tmp_path / "maps" / "scene_map.json")
    item = pystac.Item.from_file(result.stac)
    assert item.datetime.isoformat() == "2020-05-01T09:08:07+00:00"
    assert item.properties["terralean:datetime_from"] == "TIFFTAG_DATETIME"
    assert {key: asset.href for key, asset in item.assets.items()} == {
        "map": "./scene_map.tif",
        "confidence": "./scene_confidence.tif",
        "scores": "./scene_scores.tif",
        "polygons": "./scene_polygons.parquet",
        "style": "./scene_map.qml",
        "table of classes": "./scene_map.tif.aux.xml",
    }
    for asset in item.assets.values():
        data = (tmp_path / "maps" / asset.href).read_bytes()
        assert asset.extra_fields["file:checksum"] == "1220" + hashlib.sha256(data).hexdigest()
    scores = item.assets["scores"].extra_fields["bands"]
    assert [band["name"] for band in scores] == list(predictor.card.classes.names)
    with rasterio.open(result.path) as file:
        labels = file.read(1)
    counts = {one["value"]: one["count"] for one in item.assets["map"].extra_fields["classification:classes"]}
    assert counts == {value: (labels == value).sum() for value in (0, 1, 2, 255)}
    west, _, east, north = item.bbox
    with rasterio.open(scene) as file:
        bounds = rasterio.warp.transform_bounds(file.crs, "EPSG:4326", *file.bounds)
    assert (east, north) == pytest.approx((bounds[2], bounds[3]), abs=1e-6)
    assert west == pytest.approx((bounds[0] + bounds[2]) / 2, abs=1e-5)  # where there is data
    assert shape(item.geometry).is_valid
    links = {(link.rel, os.path.normpath(link.get_absolute_href())) for link in item.links if link.rel != "self"}
    assert links == {("derived_from", str(scene)), ("about", str(untrained / "card.json"))}
    assert {"terralean", "torch", "GDAL"} == set(item.properties["processing:software"])


def test_the_same_item_again(predictor, scene, tmp_path):
    for name in ("one", "two"):
        map_scene(predictor, scene, out=tmp_path / name, config=MapConfig(stac=True))
    assert (tmp_path / "one" / "scene_map.json").read_bytes() == (tmp_path / "two" / "scene_map.json").read_bytes()


def test_the_map_of_an_item_has_its_time_and_leads_back_to_it(predictor, scene, tmp_path):
    bands = [{"name": name} for name in RGB.names]
    assets = {"image": {"href": "scene.tif", "type": "image/tiff", "bands": bands}}
    properties = {"datetime": "2021-06-01T10:10:31Z", "platform": "sentinel-2a"}
    item = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": "S2 33/X",
        "properties": properties,
        "links": [],
        "assets": assets,
    }
    (scene.parent / "item.json").write_text(json.dumps(item))
    (source,) = find_scenes([scene.parent / "item.json"])
    result = map_scene(predictor, source, out=tmp_path / "maps", config=MapConfig(stac=True))
    assert result.path == str(tmp_path / "maps" / "S2_33_X_map.tif")
    found = json.loads((tmp_path / "maps" / "S2_33_X_map.json").read_text())
    assert (found["properties"]["datetime"], found["properties"]["platform"]) == ("2021-06-01T10:10:31Z", "sentinel-2a")
    assert found["links"][0] == {
        "rel": "derived_from",
        "href": "../scenes/item.json",
        "type": "application/geo+json",
        "title": "STAC item S2 33/X",
    }


def test_small_polygons_are_left_out_and_another_size_is_another_map(predictor, scene, tmp_path):
    plain = map_scene(predictor, scene, out=tmp_path / "plain", config=MapConfig(polygons="parquet"))
    config = MapConfig(polygons="parquet", min_area_m2=2.5)
    result = map_scene(predictor, scene, out=tmp_path / "maps", config=config)
    kept, every = (parquet.read_table(one.polygons) for one in (result, plain))
    areas = kept["area_m2"].to_numpy()
    assert 0 < len(kept) < len(every)
    assert areas.min() >= 2.5
    np.testing.assert_allclose(shapely.area(shapely.from_wkb(kept["geometry"].to_pylist())), areas)

    def stop(progress):
        if progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        map_scene(predictor, scene, out=tmp_path / "again", config=config, progress=stop)
    with pytest.raises(JobError, match=r"min_area_m2 was 2\.5, is null"):
        map_scene(predictor, scene, out=tmp_path / "again", config=MapConfig(polygons="parquet"))


def test_what_cannot_be_written_is_told_before_anything_is_predicted(predictor, scene, tmp_path, monkeypatch):
    told = []
    with pytest.raises(ConfigError, match="ask for --polygons, too, or leave --min-area out"):
        MapConfig(min_area_m2=5)
    write_scene(tmp_path / "nowhere.tif", np.ones((3, 64, 64), np.uint8), grid=Grid(width=64, height=64, crs=None), bands=RGB)
    least = MapConfig(polygons="gpkg", min_area_m2=5)
    with pytest.raises(ConfigError, match="the scene has no CRS"):
        map_scene(predictor, tmp_path / "nowhere.tif", out=tmp_path / "maps", config=least, progress=told.append)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"scene_polygons\.parquet: GeoParquet is written by pyarrow"):
        map_scene(predictor, scene, out=tmp_path / "maps", config=MapConfig(polygons="parquet"), progress=told.append)
    assert not told
    assert not (tmp_path / "maps").exists()


def test_a_changed_file_of_an_item_is_another_scene(predictor, scene, tmp_path):
    red = write_scene(scene.parent / "red.tif", np.ones((1, 80, 96), np.uint8), grid=GRID, bands=Bands(names=("x",)))
    assert red is None
    bands = [{"name": name} for name in ("old", "green", "blue")]
    assets = {
        "image": {"href": "scene.tif", "type": "image/tiff", "bands": bands},
        "red": {"href": "red.tif", "type": "image/tiff"},
    }
    item = {"type": "Feature", "id": "c", "properties": {}, "links": [], "assets": assets}
    (scene.parent / "item.json").write_text(json.dumps(item))
    (source,) = find_scenes([scene.parent / "item.json"])

    def stop(progress):
        if progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        map_scene(predictor, source, out=tmp_path / "maps", config=MapConfig(), progress=stop)
    write_scene(scene.parent / "red.tif", np.full((1, 80, 96), 9, np.uint8), grid=GRID, bands=Bands(names=("x",)), nodata=3)
    with pytest.raises(JobError, match=r"scene\.files was .*red\.tif"):
        map_scene(predictor, source, out=tmp_path / "maps", config=MapConfig())
