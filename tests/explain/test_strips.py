from dataclasses import replace

import numpy as np
import pytest
import torch

from terralean.errors import ConfigError
from terralean.explain.attention import LookConfig, Watcher
from terralean.explain.strips import data_of_places, make_lattice, relative, strips
from terralean.predict import Predictor
from terralean.raster.grid import Grid, Window
from terralean.raster.scene import open_scene


def stitched(watcher: Watcher, scene, *, tile_px: int = 64, overlap_px: int = 16, tell=lambda reading: None) -> np.ndarray:
    lattice = make_lattice(watcher, scene.grid, tile_px=tile_px, overlap_px=overlap_px)
    found = list(strips(watcher, scene, lattice, tell=tell))
    below = [strip.window.row + strip.window.height for strip in found]
    assert [strip.window.row for strip in found] == [0, *below[:-1]]
    assert below[-1] == lattice.grid.height
    assert all((strip.window.col, strip.window.width) == (0, lattice.grid.width) for strip in found)
    return np.concatenate([strip.attention for strip in found], axis=1)


@pytest.mark.parametrize("direction", ["meta", "image"])
@pytest.mark.parametrize("stage", [1, 2])
def test_even_attention_is_one_everywhere(even, direction, stage, readable):
    found = stitched(Watcher(even, LookConfig(direction=direction, stage=stage, block=0)), readable(130, 150))
    assert found.shape == ((16, 33, 38) if stage == 1 else (16, 17, 19))
    np.testing.assert_allclose(found, 1, rtol=2e-6)


def test_one_window_is_the_attention_of_the_model_times_its_places(predictor, readable):
    watcher, scene = Watcher(predictor, LookConfig(stage=1, tokens=(3, 1))), readable(64, 64)
    found = stitched(watcher, scene)
    weights = watcher(torch.from_numpy(scene.values), torch.ones(64, 64, dtype=torch.bool))[1, 1]
    np.testing.assert_allclose(found, weights.mean(dim=0).numpy() * 256, rtol=1e-5)
    np.testing.assert_allclose(found.mean(axis=(1, 2)), 1, rtol=1e-5)
    assert found.std() > 0.01


def test_tile_by_tile_equals_the_whole_where_there_is_one_tile(predictor, readable):
    watcher, scene = Watcher(predictor, LookConfig(stage=1)), readable(60, 50)
    np.testing.assert_array_equal(stitched(watcher, scene, overlap_px=0), stitched(watcher, scene, overlap_px=32))


def test_by_head_the_tokens_are_averaged(predictor, readable):
    scene, tokens = readable(64, 64), (2, 3, 9)
    by_head = stitched(Watcher(predictor, LookConfig(stage=2, by="head", tokens=tokens)), scene)
    assert by_head.shape == (4, 8, 8)
    for head, found in enumerate(by_head):
        of_tokens = stitched(Watcher(predictor, LookConfig(stage=2, head=head, tokens=tokens)), scene)
        np.testing.assert_allclose(found, of_tokens.mean(axis=0), rtol=1e-5)


def test_windows_are_blended_as_plain_stitching_blends_them(predictor, readable):
    watcher, scene = Watcher(predictor, LookConfig(stage=2, tokens=(0, 5))), readable(130, 150)
    found = stitched(watcher, scene)
    expected = np.zeros((2, 24, 24))
    ramp = np.array([0.25, 0.75])  # two tokens of 8 px overlap
    for row in (0, 6, 12):
        for col in (0, 6, 12):
            values, mask = scene.read(Window(row=8 * row, col=8 * col, height=64, width=64))
            valid = torch.from_numpy(mask)
            share = watcher(torch.from_numpy(values), valid)[2, 0].mean(dim=0).double().numpy()
            held = mask.reshape(8, 8, 8, 8).any(axis=(1, 3))
            share = np.where(held, share, 0)
            share *= held.sum() / share.sum(axis=(1, 2), keepdims=True)
            down, across = np.ones(8), np.ones(8)
            for weight, start in ((down, row), (across, col)):
                weight[:2] = ramp if start else 1
                weight[6:] = 1 if start == 12 else ramp[::-1]
            expected[:, row : row + 8, col : col + 8] += share * down[:, None] * across
    np.testing.assert_allclose(found, expected[:, :17, :19], rtol=1e-5)


def test_what_the_image_reads_sums_to_the_number_of_tokens_everywhere(predictor, readable):
    found = stitched(Watcher(predictor, LookConfig(direction="image", stage=1)), readable(130, 150))
    np.testing.assert_allclose(found.sum(axis=0), 16, rtol=1e-5)
    assert found.std() > 0.001


def test_places_without_data_are_nan_and_take_no_share(predictor, readable):
    valid = np.ones((64, 64), bool)
    valid[:16, :24] = False
    valid[40, 40] = False  # one pixel of a token does not make it empty
    watcher = Watcher(predictor, LookConfig(stage=2))
    found = stitched(watcher, readable(64, 64, valid=valid))
    empty = np.zeros((8, 8), bool)
    empty[:2, :3] = True
    assert (np.isnan(found) == empty).all()
    np.testing.assert_allclose(np.nanmean(found, axis=(1, 2)), 1, rtol=1e-5)


def test_windows_without_data_are_not_read_by_the_model(predictor, readable):
    valid = np.zeros((64, 256), bool)
    valid[:, :20] = True
    told = []
    found = stitched(Watcher(predictor, LookConfig()), readable(64, 256, valid=valid), overlap_px=0, tell=told.append)
    assert [reading.window.col for reading in told] == [0]
    assert np.isfinite(found[:, :, :3]).all()
    assert np.isnan(found[:, :, 3:]).all()


@pytest.mark.parametrize(("stage", "px", "size"), [(1, 4, (38, 33)), (2, 8, (19, 17))])
def test_the_grid_of_places_has_the_scenes_origin_and_their_size(predictor, scene, stage, px, size):
    with open_scene(scene) as opened:
        found = make_lattice(Watcher(predictor, LookConfig(stage=stage)), opened.grid, tile_px=64, overlap_px=16).grid
    assert (found.width, found.height) == size
    assert found.crs == "EPSG:32633"
    assert found.transform == (0.5 * px, 0.0, 300_000.25, 0.0, -0.5 * px, 5_200_000.75)


def test_a_model_that_resizes_has_tokens_of_a_fraction_of_a_pixel(classifier, readable):
    grid = Grid(width=100, height=40, crs="EPSG:32633", transform=(2.0, 0.0, 0.0, 0.0, -2.0, 0.0))
    lattice = make_lattice(Watcher(classifier, LookConfig(stage=1)), grid, tile_px=40, overlap_px=0)
    assert lattice.side == 16
    assert (lattice.grid.width, lattice.grid.height) == (40, 16)
    assert lattice.grid.transform == (5.0, 0.0, 0.0, 0.0, -5.0, 0.0)
    found = stitched(Watcher(classifier, LookConfig(stage=1)), readable(40, 100), tile_px=40, overlap_px=0)
    assert found.shape == (16, 16, 40)
    np.testing.assert_allclose(found[:, :, :16].mean(axis=(1, 2)), 1, rtol=1e-5)


@pytest.mark.parametrize(("overlap_px", "used_px"), [(0, 0), (7, 0), (8, 8), (23, 16), (32, 32)])
def test_overlap_is_rounded_down_to_whole_places(predictor, overlap_px, used_px, readable):
    lattice = make_lattice(Watcher(predictor, LookConfig(stage=2)), readable(90, 90).grid, tile_px=64, overlap_px=overlap_px)
    assert lattice.plan.overlap_px == used_px
    total = np.zeros((24, 24))
    for row in lattice.plan.rows:
        for window in lattice.plan.row_of_windows(row):
            place = lattice.places(row), lattice.places(window.col)
            total[place[0] : place[0] + 8, place[1] : place[1] + 8] += lattice.weight(window)
    np.testing.assert_allclose(total[:12, :12], 1, rtol=1e-6)


def test_windows_that_do_not_hold_whole_tokens_are_refused(predictor, classifier, readable):
    grid = readable(90, 90).grid
    with pytest.raises(ConfigError, match=r"window of 60 px, .* whole tokens of S2, 8 px each; give --tile a multiple of 8"):
        make_lattice(Watcher(predictor, LookConfig(stage=2)), grid, tile_px=60, overlap_px=0)
    assert make_lattice(Watcher(predictor, LookConfig(stage=1)), grid, tile_px=60, overlap_px=0).side == 15
    with pytest.raises(ConfigError, match="overlap must be 0 to half the tile"):
        make_lattice(Watcher(predictor, LookConfig()), grid, tile_px=64, overlap_px=40)


def test_tokens_of_a_model_that_shrinks_are_larger(predictor, readable):
    shrunk = Predictor(predictor.model, replace(predictor.card, shrink=2), device=torch.device("cpu"), precision="fp32")
    watcher, scene = Watcher(shrunk, LookConfig(stage=2)), readable(128, 160)
    found = stitched(watcher, scene, tile_px=128, overlap_px=32)
    assert found.shape == (16, 8, 10)
    with pytest.raises(ConfigError, match=r"of which the model sees 32 px a side, .* multiple of 16"):
        make_lattice(watcher, scene.grid, tile_px=63, overlap_px=0)


def test_the_average_is_that_of_the_places_with_data(predictor):
    look = Watcher(predictor, LookConfig()).look
    weights = np.array([[[0.1, 0.2], [0.3, 0.4]]], np.float32)
    valid = np.array([[False, True], [True, False]])
    np.testing.assert_allclose(relative(weights, valid, look=look), [[[0, 0.8], [1.2, 0]]], rtol=1e-6)
    read = Watcher(predictor, LookConfig(direction="image")).look
    np.testing.assert_allclose(relative(weights, valid, look=read), [[[0, 3.2], [4.8, 0]]], rtol=1e-6)


def test_a_place_has_data_where_one_of_its_pixels_has():
    valid = torch.zeros(8, 8, dtype=torch.bool)
    valid[3, 4] = valid[7, 7] = True
    assert data_of_places(valid, side=2).tolist() == [[False, True], [False, True]]
