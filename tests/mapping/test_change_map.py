import json

import numpy as np
import pyogrio
import pytest
import rasterio

from terralean.models import create
from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import Bands, Classes, Normalisation
from terralean.weights.card import Card, Training
from terralean.weights.checkpoint import save_checkpoint

BANDS = Bands(names=("red", "nir"))
BOTH = Bands(names=("red before", "nir before", "red after", "nir after"))
GRID = Grid(width=100, height=80, crs="EPSG:32633", transform=(2.0, 0.0, 3e5, 0.0, -2.0, 5.2e6))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A run of change vector analysis: changed is what moved by more than 20."""
    folder = tmp_path_factory.mktemp("run")
    network = create("change_vector", bands=4, classes=2)
    network.threshold.fill_(20.0)
    training = Training(data="0" * 16, images=1, split="all", leakage="none", steps=0, minutes=0.0, seed=0)
    card = Card(
        version="0",
        task="change",
        model="change_vector",
        bands=BOTH,
        normalisation=Normalisation(mean=(0.0,) * 4, std=(1.0,) * 4),
        classes=Classes.named(("unchanged", "changed")),
        tile_px=64,
        overlap_px=16,
        training=training,
    )
    save_checkpoint(network, card, folder)
    return folder


@pytest.fixture
def dates(tmp_path):
    """Two dates with a square that changed, nodata 0 in the first and 255 in the second."""
    rng = np.random.default_rng(0)
    before = rng.integers(40, 60, (2, 80, 100)).astype(np.uint8)
    after = before + 5
    after[:, 30:50, 40:70] += 60
    before[:, :10, :20] = 0
    after[:, 70:, 90:] = 255
    write_scene(tmp_path / "2001.tif", before, grid=GRID, bands=BANDS, nodata=0)
    write_scene(tmp_path / "2009.tif", after, grid=GRID, bands=BANDS, nodata=255)
    expected = np.zeros((80, 100), np.uint8)
    expected[30:50, 40:70] = 1
    expected[:10, :20] = expected[70:, 90:] = 255
    return tmp_path / "2001.tif", tmp_path / "2009.tif", expected


def test_a_pair_becomes_a_georeferenced_map_of_change(model, dates, terralean, tmp_path):
    before, after, expected = dates
    out = tmp_path / "maps"
    asked = ("--confidence", "--polygons", "gpkg", "--json", "--workers", 1)
    status, told, err = terralean("map", model, f"{before}:{after}", "--out", out, *asked)
    assert status == 0, err
    (document,) = json.loads(told)["maps"]
    assert document["class_share"]["changed"] == pytest.approx(600 / (8000 - 300), abs=1e-6)
    with rasterio.open(out / "2001_2009_map.tif") as file:
        assert np.array_equal(file.read(1), expected)
        assert (file.crs.to_epsg(), tuple(file.transform)[:6], file.nodata) == (32633, GRID.transform, 255)
    with rasterio.open(out / "2001_2009_confidence.tif") as file:
        assert np.array_equal(file.read(1) == 255, expected == 255)
    meta, _, geometry, _ = pyogrio.raw.read(out / "2001_2009_polygons.gpkg")
    assert len(geometry) >= 2
    assert meta["crs"] == "EPSG:32633"


def test_a_table_names_pairs(model, dates, terralean, tmp_path):
    before, after, expected = dates
    table = tmp_path / "pairs.csv"
    table.write_text(f"before,after,name\n{before.name},{after.name},north\n")
    status, _, err = terralean("map", model, "--pairs", table, "--out", tmp_path / "maps", "--workers", 1)
    assert status == 0, err
    with rasterio.open(tmp_path / "maps" / "north_map.tif") as file:
        assert np.array_equal(file.read(1), expected)
    table.write_text("before,after\n2001.tif,gone.tif\n")
    status, _, err = terralean("map", model, "--pairs", table, "--out", tmp_path / "more")
    assert status == 2
    assert "row 2" in err
    assert "gone.tif" in err


def test_dates_of_other_grids_are_refused_or_resampled(model, dates, terralean, tmp_path):
    before, _, _ = dates
    grid = Grid(width=60, height=50, crs=GRID.crs, transform=(4.0, 0.0, 3e5 - 20, 0.0, -4.0, 5.2e6 + 20))
    write_scene(tmp_path / "coarse.tif", np.full((2, 50, 60), 50, np.uint8), grid=grid, bands=BANDS)
    pair = f"{before}:{tmp_path / 'coarse.tif'}"
    status, _, err = terralean("map", model, pair, "--out", tmp_path / "maps")
    assert status != 0
    assert "--resample" in err
    status, _, err = terralean("map", model, pair, "--resample", "--out", tmp_path / "maps", "--workers", 1)
    assert status == 0, err
    with rasterio.open(tmp_path / "maps" / "2001_coarse_map.tif") as file:
        found = file.read(1)
    assert (found[:10, :20] == 255).all()
    assert (found[10:] == 0).all()


def test_one_image_or_a_pair_where_the_other_is_meant_is_refused(model, untrained, dates, terralean, tmp_path):
    before, after, _ = dates
    status, _, err = terralean("map", model, before, "--out", tmp_path / "maps")
    assert (status, "BEFORE:AFTER" in err) == (2, True)
    status, _, err = terralean("map", model, "--out", tmp_path / "maps")
    assert (status, "no pair is named" in err) == (2, True)
    status, _, err = terralean("map", untrained, f"{before}:{after}", "--out", tmp_path / "maps")
    assert (status != 0, "maps single scenes" in err) == (True, True)
    status, _, err = terralean("map", untrained, "--pairs", tmp_path / "pairs.csv", "--out", tmp_path / "maps")
    assert (status, "is for a model of change" in err) == (2, True)
    status, _, err = terralean("map", model, f"{before}:{tmp_path / 'gone.tif'}", "--out", tmp_path / "maps")
    assert (status, "gone.tif is not there; it is the later date" in err) == (2, True)
    assert not (tmp_path / "maps").exists() or not [*(tmp_path / "maps").glob("*.tif")]


def test_maps_do_not_depend_on_where_a_pair_is_named_from(model, dates, terralean, tmp_path, monkeypatch):
    before, after, _ = dates
    monkeypatch.chdir(before.parent)
    for pair, out in ((f"{before}:{after}", "one"), ("2001.tif:2009.tif", "two")):
        assert terralean("map", model, pair, "--out", tmp_path / out, "--workers", 1)[0] == 0
    maps = [rasterio.open(tmp_path / out / "2001_2009_map.tif").read(1) for out in ("one", "two")]
    assert np.array_equal(*maps)
