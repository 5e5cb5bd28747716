import pickle

import numpy as np
import pytest
import rasterio

from terralean.errors import GridMismatch, MissingFile
from terralean.raster.grid import Grid, Window
from terralean.raster.scene import open_scene
from terralean.raster.source import remote_options
from terralean.raster.stac_search import Part
from terralean.raster.stack import open_stack, renamed
from terralean.raster.write import write_scene
from terralean.spec import Bands

FINE = Grid(width=60, height=48, crs="EPSG:32633", transform=(10.0, 0.0, 5e5, 0.0, -10.0, 5e6))
COARSE = Grid(width=20, height=16, crs="EPSG:32633", transform=(30.0, 0.0, 5e5, 0.0, -30.0, 5e6))


def write(path, grid, *, seed, bands=1, dtype="uint16", nodata=None, nm=None):
    """A file of random values, none of them 0."""
    values = np.random.default_rng(seed).integers(1, 60_000, (bands, grid.height, grid.width)).astype(dtype)
    described = Bands(names=tuple(f"b{i}" for i in range(bands)), dtype=dtype, wavelength_nm=nm)
    write_scene(path, values, grid=grid, bands=described, nodata=nodata)
    return values


def part(path, position=1):
    return Part(path=str(path), position=position)


def test_a_stack_is_the_bands_of_its_files(tmp_path):
    one = write(tmp_path / "one.tif", FINE, seed=0, bands=3)
    two = write(tmp_path / "two <&>.tif", FINE, seed=1, nm=(1610.0,))
    parts = [part(tmp_path / "one.tif", 3), part(tmp_path / "two <&>.tif"), part(tmp_path / "one.tif", 1)]
    with open_stack("item 7", parts, names=("red", "swir", "blue"), resample=False) as scene:
        assert (scene.path, scene.grid) == ("item 7", FINE)
        assert scene.bands == Bands(names=("red", "swir", "blue"), dtype="uint16", wavelength_nm=(None, 1610.0, None))
        values, valid = scene.read(Window(row=-2, col=5, height=20, width=30))
        assert valid[2:].all()
        assert not valid[:2].any()
        assert (values[:, 2:] == np.stack([one[2], two[0], one[0]])[:, :18, 5:35]).all()


def test_coarser_bands_are_refused_or_interpolated_the_same_in_any_window(tmp_path):
    write(tmp_path / "fine.tif", FINE, seed=0)
    coarse = write(tmp_path / "coarse.tif", COARSE, seed=1)
    parts = [part(tmp_path / "coarse.tif"), part(tmp_path / "fine.tif")]
    with pytest.raises(GridMismatch, match=r"coarse\.tif is 20 x 16 px .*fine\.tif 60 x 48; say --resample"):
        open_stack("item", parts, names=("a", "b"), resample=False)
    with open_stack("item", parts, names=("a", "b"), resample=True) as scene:
        whole, valid = scene.read(scene.grid.window)
        assert scene.grid == FINE
        assert valid.all()
        assert (whole[0, 1::3, 1::3] == coarse[0]).all()  # middles of pixels
        between = (2 * coarse[0, :, :-1].astype(float) + coarse[0, :, 1:]) / 3
        assert np.abs(whole[0, 1::3, 2:-1:3] - between).max() <= 1
        rng = np.random.default_rng(0)
        for _ in range(60):
            row, col = rng.integers(0, 40, 2).tolist()
            window = Window(row=row, col=col, height=int(rng.integers(1, 30)), width=int(rng.integers(1, 30)))
            inside = window.cut(FINE.window)
            assert (scene.read(inside)[0] == whole[:, *inside.slices()]).all()


def test_bands_of_different_places_are_refused(tmp_path):
    write(tmp_path / "one.tif", FINE, seed=0)
    for name, grid in {
        "shifted": Grid(width=60, height=48, crs=FINE.crs, transform=(10.0, 0.0, 5e5 + 5, 0.0, -10.0, 5e6)),
        "zone": Grid(width=60, height=48, crs="EPSG:32634", transform=FINE.transform),
        "smaller": Grid(width=20, height=16, crs=FINE.crs, transform=(20.0, 0.0, 5e5, 0.0, -20.0, 5e6)),
    }.items():
        write(tmp_path / f"{name}.tif", grid, seed=1)
        with pytest.raises(GridMismatch, match=f"{name}.tif"):
            open_stack("item", [part(tmp_path / "one.tif"), part(tmp_path / f"{name}.tif")], names=("a", "b"), resample=True)


def test_nodata_and_masks_of_all_files_count(tmp_path):
    write(tmp_path / "one.tif", FINE, seed=0)
    two = write(tmp_path / "two.tif", FINE, seed=1, nodata=7)
    write(tmp_path / "three.tif", FINE, seed=2)
    two[0, 5, 6] = 7
    with rasterio.open(tmp_path / "two.tif", "r+") as file:
        file.write(two)
    for name, rows in (("one", slice(0, 4)), ("three", slice(40, 48))):
        mask = np.full((48, 60), 255, np.uint8)
        mask[rows] = 0
        with rasterio.open(tmp_path / f"{name}.tif", "r+") as file:
            file.write_mask(mask)
    parts = [part(tmp_path / f"{name}.tif") for name in ("one", "two", "three")]
    with open_stack("item", parts, names=("a", "b", "c"), resample=False) as scene:
        valid = scene.read(scene.grid.window)[1]
    expected = np.ones((48, 60), bool)
    expected[:4] = expected[40:] = expected[5, 6] = False
    assert (valid == expected).all()


def test_a_stack_travels_to_other_processes(tmp_path):
    write(tmp_path / "one.tif", FINE, seed=0)
    write(tmp_path / "two.tif", FINE, seed=1)
    scene = open_stack("item", [part(tmp_path / "one.tif"), part(tmp_path / "two.tif")], names=("a", "b"), resample=False)
    again = pickle.loads(pickle.dumps(scene))
    assert again == scene
    assert (again.read(FINE.window)[0] == scene.read(FINE.window)[0]).all()


def test_a_file_that_is_gone_is_named(tmp_path):
    write(tmp_path / "one.tif", FINE, seed=0)
    with pytest.raises(MissingFile, match=r"two\.tif is not there"):
        open_stack("item", [part(tmp_path / "one.tif"), part(tmp_path / "two.tif")], names=("a", "b"), resample=False)


def test_options_for_remote_files_are_those_of_the_files_of_a_stack():
    local = "<VRTDataset><SourceFilename>/a/b.tif</SourceFilename></VRTDataset>"
    assert not remote_options(local, {})
    assert remote_options(local.replace("/a/", "/vsicurl/https://a.example/"), {}) == remote_options("/vsis3/a/b.tif", {}) != {}


def test_bands_called_otherwise_are_the_same_bands(tmp_path):
    values = write(tmp_path / "one.tif", FINE, seed=0, bands=2)
    with renamed(open_scene(tmp_path / "one.tif"), ("left", "right")) as scene:
        assert scene.bands.names == ("left", "right")
        assert (scene.read(FINE.window)[0] == values).all()
