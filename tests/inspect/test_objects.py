"""Folders of images with oriented objects, as inspect tells of them, and as tile cuts them."""

import json
import shutil

import numpy as np
import pytest
import rasterio
from PIL import Image

from terralean.data.oriented.dota import read_labels, write_labels
from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import Bands


def rectangle(x: float, y: float, width: float, height: float) -> list[float]:
    return [x, y, x + width, y, x + width, y + height, x, y + height]


@pytest.fixture
def dota(tmp_path):
    """Two images of 90 x 60 px with three boats, one difficult and one tiny, and a car."""
    root, values = tmp_path / "dota", np.arange(2 * 60 * 90, dtype=np.uint16).reshape(2, 60, 90)
    objects = {
        "one": ([rectangle(5, 5, 20, 8), rectangle(60, 30, 1.5, 10)], ("boat", "boat"), [1, 0]),
        "two": ([rectangle(30, 20, 12, 12), rectangle(70, 40, 10, 6)], ("car", "boat"), [0, 0]),
    }
    for number, (name, (corners, names, hard)) in enumerate(objects.items()):
        grid = Grid(width=90, height=60, crs="EPSG:32633", transform=(2.0, 0.0, 5e5 + 1000 * number, 0.0, -2.0, 5e6))
        bands = Bands(names=("red", "infrared"), dtype="uint16")
        (root / "train" / "images").mkdir(parents=True, exist_ok=True)
        write_scene(root / "train" / "images" / f"{name}.tif", values, grid=grid, bands=bands, nodata=None)
        write_labels(root / "train" / "labelTxt" / f"{name}.txt", np.array(corners), names, np.array(hard, np.uint8))
    return root


def test_inspect_tells_of_objects(dota, terralean):
    status, out, _ = terralean("inspect", dota, "--json", "--set", "data.tile_px=64", "--set", "data.overlap_px=16")
    (told,) = json.loads(out)
    assert status == 0 and told["kind"] == "objects"
    assert (told["images"], told["objects"], told["difficult"], told["empty"]) == (2, 4, 1, 0)
    assert told["classes"] == [["boat", 3], ["car", 1]] and told["splits"] == [["train", 2]]
    assert told["widths_px"] == [90, 90] and told["heights_px"] == [60, 60] and told["sides_px"] == [1.5, 7.0, 12.0]
    assert told["tiles"] == 4
    assert [one["message"] for one in told["findings"]] == ["1 object with a side below 2 px; training leaves them out"]
    status, out, _ = terralean("inspect", dota)
    assert "2 of 90 x 60 px (width x height), 0 without objects" in out and "boat 3, car 1" in out


def test_inspect_tells_of_labels_that_are_wrong(dota, terralean):
    (dota / "train" / "labelTxt" / "one.txt").write_text("5 5 25 5 25 13 5 boat 0\n")
    status, out, _ = terralean("inspect", dota)
    assert status == 2 and "line 1: 7 numbers before 'boat'" in out


def test_inspect_knows_other_layouts_of_objects(tmp_path, terralean):
    Image.fromarray(np.arange(60 * 40 * 3, dtype=np.uint8).reshape(40, 60, 3)).save(tmp_path / "a.png")
    box = "<robndbox><cx>20</cx><cy>20</cy><w>8</w><h>4</h><angle>0</angle></robndbox>"
    coco = {"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1, "name": "dam"}]}
    coco |= {"annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 9, 9]}]}
    files = {
        "yolo": {"data.yaml": "names: [dam]", "images": "a.png", "labels/a.txt": "0 0.1 0.2 0.3 0.2 0.3 0.4 0.1 0.4"},
        "dior": {
            "JPEGImages-test": "a.png",
            "Annotations/Oriented Bounding Boxes/a.xml": f"<annotation><object><name>dam</name>{box}</object></annotation>",
        },
        "coco": {"images": "a.png", "labels.json": json.dumps(coco)},
    }
    for name, parts in files.items():
        for place, text in parts.items():
            path = tmp_path / name / place
            path.parent.mkdir(parents=True, exist_ok=True)
            if text == "a.png":
                path.mkdir()
                shutil.copy(tmp_path / "a.png", path)
            else:
                path.write_text(text)
    status, out, _ = terralean("inspect", *(tmp_path / name for name in files), "--json")
    assert status == 0
    assert [(one["kind"], one["objects"], one["classes"]) for one in json.loads(out)] == [("objects", 1, [["dam", 1]])] * 3


def test_a_setting_that_tiles_do_not_heed_is_refused(dota, tmp_path, terralean):
    status, _, err = terralean("tile", dota, "--out", tmp_path / "tiles", "--set", "data.bands=[1]")
    assert status == 2 and "no setting data.bands" in err and not (tmp_path / "tiles").exists()


def test_tiles_keep_their_place_and_their_objects(dota, tmp_path, terralean):
    out = tmp_path / "tiles"
    status, told, err = terralean("tile", dota, "--out", out, "--size", 48, "--overlap", 16, "--json")
    assert status == 0, err
    assert json.loads(told)["tiles"] == len(list((out / "images").glob("*.tif"))) > 2
    labels = read_labels(out / "labelTxt" / "two__1__42___12.txt")
    assert labels.names == ("boat",) and labels.polygons[0].tolist() == rectangle(28, 28, 10, 6)
    with rasterio.open(out / "images" / "two__1__42___12.tif") as tile:
        assert tile.crs.to_epsg() == 32633 and (tile.transform.c, tile.transform.f) == (5e5 + 1000 + 2 * 42, 5e6 - 2 * 12)
    status, _, err = terralean("tile", dota, "--out", out)
    assert status == 2 and "is there and not empty" in err
