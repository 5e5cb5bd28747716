import json
import pickle

import numpy as np
import pytest
import rasterio

from terralean.errors import BandMismatch, ConfigError, GridMismatch, MissingFile
from terralean.mapping.scenes import ScenesConfig, find_scenes
from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import Bands

GRID = Grid(width=24, height=16, crs="EPSG:32633", transform=(10.0, 0.0, 5e5, 0.0, -10.0, 5e6))
HALF = Grid(width=12, height=8, crs="EPSG:32633", transform=(20.0, 0.0, 5e5, 0.0, -20.0, 5e6))
NEED = Bands(names=("red", "green"), dtype="uint16")


def write(path, *, grid=GRID, bands=1, seed=0):
    values = np.random.default_rng(seed).integers(1, 60_000, (bands, grid.height, grid.width)).astype(np.uint16)
    write_scene(path, values, grid=grid, bands=Bands(names=tuple(f"band_{i + 1}" for i in range(bands)), dtype="uint16"))
    return values


def item(name, **bands):
    assets = {
        key: {"href": href, "type": "image/tiff", "roles": ["data"], "bands": [{"name": key, "eo:common_name": key}]}
        for key, href in bands.items()
    }
    properties = {"datetime": "2021-06-01T10:10:31Z"}
    links = []
    return {"type": "Feature", "stac_version": "1.1.0", "id": name, "properties": properties, "links": links, "assets": assets}


def collection(path, *items):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(items)}))
    return path


def names(sources):
    return [source.name for source in sources]


def test_paths_patterns_and_lists_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    for name in ("b.tif", "a.tif", "a.tif.aux.xml", "deep/c.tif", "x[1].tif"):
        (tmp_path / name).write_text("")
    (tmp_path / "list.txt").write_text(
        "\ufeff# scenes\ndeep/*.tif\n\n  a.tif  \n/vsicurl/https://a.example/d.tif?x=1\n", "utf-8"
    )
    assert names(find_scenes(["[ab].tif*"])) == ["a.tif", "b.tif"]
    assert names(find_scenes(["**/*.tif"])) == ["a.tif", "b.tif", "deep/c.tif", "x[1].tif"]
    assert names(find_scenes(["x[1].tif", tmp_path / "b.tif"])) == ["x[1].tif", str(tmp_path / "b.tif")]
    listed = find_scenes(["@list.txt", "missing.tif"])
    assert names(listed) == ["deep/c.tif", "a.tif", "/vsicurl/https://a.example/d.tif?x=1", "missing.tif"]
    assert [source.stem for source in listed[:2]] == ["c", "a"]


def test_patterns_leave_out_maps_that_were_made_of_what_they_match(tmp_path):
    for name in ("a", "a_map", "b_map"):
        write(tmp_path / f"{name}.tif")
    (tmp_path / "c_map.tif").write_text("no raster")
    with rasterio.open(tmp_path / "a_map.tif", "r+") as dataset:
        dataset.update_tags(TERRALEAN_MODEL="lemevit_tiny")
    assert [source.stem for source in find_scenes([tmp_path / "*.tif"])] == ["a", "b_map", "c_map"]
    assert [source.stem for source in find_scenes([tmp_path / "a_map.tif"])] == ["a_map"]
    with pytest.raises(MissingFile, match=r"a_\*\.tif matches nothing but maps that were made here"):
        find_scenes([tmp_path / "a_*.tif"])


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("# nothing\n", MissingFile, "names no scene"),
        ("@other.txt\n", ConfigError, "names another list, @other.txt"),
        ("no/*.tif\n", MissingFile, r"no/\*\.tif matches no file"),
    ],
)
def test_lists_and_patterns_with_nothing_in_them(tmp_path, monkeypatch, text, error, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(error, match=said):
        find_scenes(["@list.txt"])
    with pytest.raises(MissingFile, match="check the path behind the @"):
        find_scenes(["@gone.txt"])


def test_items_of_single_bands_are_scenes(tmp_path):
    red, green = write(tmp_path / "red.tif", seed=1), write(tmp_path / "green.tif", seed=2)
    path = collection(tmp_path / "found.json", item("one/a", green="green.tif", red="./red.tif"))
    (source,) = pickle.loads(pickle.dumps(find_scenes([path])))
    assert (source.name, source.stem) == (f"{path}, item one/a", "one_a")
    with source.open(NEED) as scene:
        assert scene.bands.names == ("red", "green")
        assert (scene.read(GRID.window)[0] == np.concatenate([red, green])).all()
        assert source.acquired(scene).moment == "2021-06-01T10:10:31Z"


def test_bands_of_one_file_are_read_from_it(tmp_path):
    values = write(tmp_path / "all.tif", bands=3)
    bands = [{"name": name} for name in ("blue", "green", "red")]
    said = item("one")
    said["assets"] = {"all": {"href": "all.tif", "type": "image/tiff", "bands": bands}}
    (source,) = find_scenes([collection(tmp_path / "found.json", said)])
    with source.open(NEED) as scene:
        assert (scene.path, scene.bands.names) == (str(tmp_path / "all.tif"), ("red", "green"))
        assert (scene.read(GRID.window)[0] == values[[2, 1]]).all()
    with source.open(NEED, bands=(1, 3)) as scene:
        assert (scene.read(GRID.window)[0] == values[[0, 2]]).all()


def test_a_dead_link_is_told_with_its_item_when_it_is_opened(tmp_path):
    write(tmp_path / "red.tif")
    path = collection(tmp_path / "found.json", item("good", red="red.tif"), item("bad", red="red.tif", green="gone.tif"))
    good, bad = find_scenes([path])
    with good.open(Bands(names=("red",), dtype="uint16")):
        pass
    with pytest.raises(MissingFile, match=r"found\.json, item bad: .*gone\.tif is not there"):
        bad.open(NEED)
    with pytest.raises(BandMismatch, match=r"^.*found\.json, item good: no asset has green"):
        good.open(NEED)


def test_what_is_said_of_items_changes_how_they_are_opened(tmp_path):
    for name, grid in (("red", GRID), ("green", HALF), ("other", GRID)):
        write(tmp_path / f"{name}.tif", grid=grid)
    path = collection(tmp_path / "found.json", item("one", red="red.tif", green="green.tif", other="other.tif"))
    (plain,) = find_scenes([path])
    with pytest.raises(GridMismatch, match=r"item one: .*say --resample"):
        plain.open(NEED)
    with pytest.raises(BandMismatch, match="the item has the images red, green, other; name one of them with --assets"):
        plain.open(NEED, bands=(1,))
    (resampled,) = find_scenes([path], config=ScenesConfig(resample=True))
    assert resampled.open(NEED).grid == GRID
    (chosen,) = find_scenes([path], config=ScenesConfig(assets=("red", "other")))
    assert chosen.open(NEED).grid == GRID
    with pytest.raises(ConfigError, match="none is among the scenes"):
        find_scenes(["a.tif"], config=ScenesConfig(resample=True))


def test_the_time_of_a_file_is_what_it_says(tmp_path):
    write(tmp_path / "red.tif")
    (source,) = find_scenes([tmp_path / "red.tif"])
    with source.open(NEED) as scene:
        assert source.acquired(scene).moment is None
