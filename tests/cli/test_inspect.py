"""`terralean inspect`: status and words."""

import json

import numpy as np
from PIL import Image

from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import Bands


def test_inspect_tells_labelled_images_by_their_layout(terralean, tmp_path):
    rng = np.random.default_rng(0)
    for name in [f"{label}/{i}.png" for label in ("dry", "wet") for i in range(12)]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(tmp_path / name)
    status, out, _ = terralean("inspect", tmp_path, "--set", "data.split.test=0.5", "--set", "data.split.validation=0")
    assert status == 0
    assert "labelled images, a class for each as a whole; a folder per class" in out
    assert "  test        12 images" in out
    status, out, err = terralean("inspect", tmp_path, "--set", "data.tile_px=32")
    assert (status, out) == (2, "")
    assert "no setting data.tile_px" in " ".join(err.split())
    (tmp_path / "wet" / "0.png").write_bytes((tmp_path / "wet" / "0.png").read_bytes()[:200])
    status, out, _ = terralean("inspect", tmp_path, "--json")
    assert status == 2
    assert "0.png" in json.loads(out)[0]["findings"][0]["message"]


def test_inspect_tells_what_a_scene_is_and_fails_on_what_cannot_be_used(terralean, scene, tmp_path):
    status, out, _ = terralean("inspect", scene)
    assert status == 0
    assert "red, green, blue" in out
    assert "EPSG:32633" in out
    grid = Grid(width=90, height=70, crs="EPSG:32633", transform=(0.5, 0.0, 3e5, 0.0, -0.5, 5.2e6))
    bands = Bands(names=("a", "b", "c"))
    write_scene(tmp_path / "empty.tif", np.zeros((3, 70, 90), np.uint8), grid=grid, bands=bands, nodata=0)
    status, out, _ = terralean("inspect", tmp_path / "empty.tif", "--json")
    assert status == 2
    assert json.loads(out)[0]["findings"][0]["severity"] == "error"
