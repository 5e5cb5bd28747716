import numpy as np
import pytest
import torch
from tiny_networks import make_card

from terralean import recipes
from terralean.data.split import load_split
from terralean.errors import BandMismatch, UnreadableScene
from terralean.export.tiles import Wanted, cut, noise, tiles_of_run, tiles_of_scenes, with_a_hole
from terralean.raster.grid import Grid
from terralean.raster.scene import open_scene
from terralean.raster.write import write_scene
from terralean.spec import Bands
from terralean.weights.card import read_card

BANDS = make_card().bands


def scene(path, *, bands: int = 4, height: int = 100, width: int = 130, empty: bool = False):
    """Every value another one."""
    values = np.arange(bands * height * width, dtype=np.uint32).reshape(bands, height, width) % 60000 + 1
    values = np.zeros_like(values) if empty else values
    grid = Grid(width=width, height=height, crs="EPSG:32633", transform=(0.5, 0.0, 3e5, 0.0, -0.5, 5.2e6))
    names = Bands(names=BANDS.names[:bands], dtype="uint16")
    write_scene(path, values.astype(np.uint16), grid=grid, bands=names, nodata=0)
    return path


def wanted(number: int = 4, *, tile_px: int = 48, seed: int = 0) -> Wanted:
    return Wanted(make_card(), tile_px, number, seed)


def test_tiles_of_a_scene_are_windows_of_it(tmp_path):
    path = scene(tmp_path / "scene.tif")
    found = tiles_of_scenes([str(path)], wanted(20))
    assert found.image.shape == (9, 4, 48, 48)  # 3 x 3 windows cover it
    assert found.source == f"9 tiles of {path}"
    assert found.pixel_m == 0.5
    with open_scene(path) as opened:
        whole, _ = opened.read(opened.grid.window)
    corners = {int(image[0, 0, 0]) for image in found.image}
    assert corners == {int(whole[0, row, col]) for row in (0, 48, 96) for col in (0, 48, 96)}
    assert not found.valid.all()  # the last windows reach past the scene
    assert found.image.dtype == torch.float32


def test_the_seed_chooses(tmp_path):
    path = str(scene(tmp_path / "scene.tif"))
    first, again, other = (tiles_of_scenes([path], wanted(2, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(first.image, again.image)
    assert not torch.equal(first.image, other.image)


def test_scenes_that_do_not_fit(tmp_path):
    with pytest.raises(BandMismatch, match=r"3 bands, the model was trained on 4|none of the model's bands|other bands"):
        tiles_of_scenes([str(scene(tmp_path / "three.tif", bands=3))], wanted())
    empty = str(scene(tmp_path / "empty.tif", empty=True))
    with pytest.raises(UnreadableScene, match="no window with a valid pixel; name other scenes"):
        tiles_of_scenes([empty], wanted())


def test_noise_has_the_statistics_and_the_kind_of_the_training_data():
    found = noise(Wanted(make_card(), 64, 16, 3))
    image = found.image.double()
    assert torch.equal(image, image.round())
    assert image.min() >= 0
    assert image.mean(dim=(0, 2, 3)).tolist() == pytest.approx([1200, 900, 700, 2500], rel=0.01)
    assert image.std(dim=(0, 2, 3)).tolist() == pytest.approx([300, 250, 200, 600], rel=0.02)
    assert torch.equal(found.image, noise(Wanted(make_card(), 64, 16, 3)).image)
    assert not torch.equal(found.image, noise(Wanted(make_card(), 64, 16, 4)).image)
    reflectance = Bands(names=BANDS.names, dtype="float32")
    assert not torch.equal(*(f(noise(Wanted(make_card(bands=reflectance), 8, 1, 0)).image) for f in (torch.round, torch.clone)))


def test_one_tile_more_has_a_hole():
    found = with_a_hole(noise(wanted(2)))
    assert found.valid.sum(dim=(1, 2)).tolist() == [2304, 2304, 2304 - 24 * 24]
    assert found.image[2].isnan().sum() == 4 * 24 * 24
    assert torch.equal(found.image[2, :, 24:], found.image[0, :, 24:])
    smaller = cut(found, height=20, width=40, count=1)
    assert smaller.image.shape == (1, 4, 20, 40)
    assert smaller.valid.sum() == 20 * 16


def test_tiles_of_a_run_are_of_the_first_split_that_it_has(finished):
    given = Wanted(read_card(finished), 16, 3, 0)

    def read(run):
        return recipes.read_run(run)[0].data

    found = tiles_of_run(finished, given, read=read, splits=("test", "train"))
    assert found.source == "3 tiles of the run's own test split"
    assert found.pixel_m == 1.0
    (region, *_) = load_split(finished / "split.json").of("test")
    with open_scene(region.image) as opened:
        values, _ = opened.read(opened.grid.window)
    places = [values[:, row : row + 16, col : col + 16] for row in (0, 16, 32) for col in (0, 16, 32)]
    assert all(any(np.array_equal(image.numpy(), place) for place in places) for image in found.image)
    assert tiles_of_run(finished, given, read=read, splits=("train",)).source == "3 tiles of the run's own train split"


def test_a_checkpoint_without_a_recipe_has_no_tiles(untrained):
    assert tiles_of_run(untrained, Wanted(read_card(untrained), 16, 3, 0), read=lambda run: None, splits=("test",)) is None
