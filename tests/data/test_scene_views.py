"""The centre is what torchvision cuts; many views cover an image of any size and are never too many."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from terralean.data.scene_config import SceneAugmentConfig, SceneDataConfig
from terralean.data.scene_picture import RGB, Picture, read_picture
from terralean.data.scene_views import centre, covering, keep_px, views

SMALL = SceneDataConfig(size_px=56, resize_px=64)
SIDES = (20, 64, 110, 256, 600, 31_672)


def photograph(height: int, width: int, *, grain_px: int = 9) -> Picture:
    """Smooth, as photographs are."""
    size = max(2, height // grain_px), max(2, width // grain_px), 3
    coarse = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return Picture(values=np.moveaxis(image, -1, 0), valid=np.ones((height, width), bool), bands=RGB)


def theirs(picture: Picture, config: SceneDataConfig, mode: InterpolationMode) -> np.ndarray:
    cut = Compose([Resize(config.resize_px, mode), CenterCrop(config.size_px)])
    return np.moveaxis(np.asarray(cut(Image.fromarray(np.moveaxis(picture.values, 0, -1))), np.float32), -1, 0)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (100, 70), (70, 131), (500, 333), (30, 41), (187, 62)])
@pytest.mark.parametrize("name", ["bicubic", "bilinear"])
def test_the_centre_is_torchvisions(height, width, name):
    picture = photograph(height, width)
    config = SceneDataConfig(size_px=56, resize_px=64, augment=SceneAugmentConfig(interpolation=name))
    ours = centre(picture, config)
    assert np.abs(ours["image"].numpy() - theirs(picture, config, InterpolationMode(name))).max() <= 1
    assert ours["valid"].all()


@pytest.mark.parametrize(("height", "width"), [(40, 2001), (1500, 31)])
def test_of_a_strip_only_the_middle_is_resized(height, width):
    picture = photograph(height, width)
    difference = np.abs(centre(picture, SMALL)["image"].numpy() - theirs(picture, SMALL, InterpolationMode.BICUBIC))
    assert difference.mean() < 2  # of 255: the longer side is rounded of another length, so the scale is a little off
    assert difference.max() < 20


def test_the_centre_of_an_image_of_the_right_size_is_cut_and_no_more():
    picture = photograph(64, 64)
    assert np.array_equal(centre(picture, SMALL)["image"].numpy(), picture.values[:, 4:60, 4:60])


def test_a_small_image_is_enlarged():
    picture = Picture(values=np.full((3, 20, 30), 77, np.uint8), valid=np.ones((20, 30), bool), bands=RGB)
    for many in ("centre", "many"):
        found = views(picture, SceneDataConfig(views=many))
        assert found["image"].shape[1:] == (3, 224, 224)
        assert (found["image"] == 77).all()
        assert found["valid"].all()


@pytest.mark.parametrize("height", SIDES)
@pytest.mark.parametrize("width", SIDES)
def test_many_views_lie_in_the_image_and_are_never_too_many(height, width):
    for most in (1, 4, 24, 60):
        squares = covering(height, width, config=SceneDataConfig(most_views=most))
        assert 1 <= len(squares) <= most
        for square in squares:
            assert square.height == square.width
            assert 0 <= square.row <= height - square.height
            assert 0 <= square.col <= width - square.width


@pytest.mark.parametrize(("height", "width"), [(64, 64), (256, 256), (600, 600), (600, 900), (2000, 3000), (1500, 1500)])
def test_many_views_cover_the_image_coarsely_and_finely(height, width):
    squares = covering(height, width, config=SceneDataConfig())
    sides = sorted({square.height for square in squares})
    assert sides[-1] == round(min(height, width) * 224 / 256)
    assert len(sides) == (2 if min(height, width) > 384 else 1)
    for side in sides:
        seen = np.zeros((height, width), bool)
        for square in squares:
            if square.height == side:
                seen[square.slices()] = True
        assert seen.all()


def test_the_fine_squares_have_the_networks_size_where_that_is_few_enough():
    squares = covering(600, 600, config=SceneDataConfig())
    assert [square.height for square in squares] == [525] * 4 + [224] * 16
    fewer = covering(600, 600, config=SceneDataConfig(most_views=13))
    assert [square.height for square in fewer][:4] == [525] * 4
    assert len(fewer) == 13
    assert 224 < fewer[-1].height < 525 / 1.5


def test_of_a_strip_squares_are_spread_from_end_to_end():
    squares = covering(110, 31_672, config=SceneDataConfig())
    assert len(squares) == 24
    assert {square.row for square in squares} == {0, 110 - 96}
    columns = sorted({square.col for square in squares})
    assert (columns[0], columns[-1]) == (0, 31_672 - 96)
    assert max(np.diff(columns)) - min(np.diff(columns)) <= 1


def test_many_views_show_the_parts():
    picture = photograph(300, 200)
    config = SceneDataConfig(size_px=56, resize_px=64, views="many")
    found = views(picture, config)
    squares = covering(300, 200, config=config)
    assert len(found["image"]) == len(squares) == len(found["valid"])
    for image, square in zip(found["image"], squares, strict=True):
        rows, cols = square.slices()
        part = Image.fromarray(np.moveaxis(picture.values, 0, -1)[rows, cols]).resize((56, 56), Image.Resampling.BICUBIC)
        assert np.abs(image.numpy() - np.moveaxis(np.asarray(part, np.float32), -1, 0)).max() <= 1


def test_reading_a_large_image_reduced_changes_little(tmp_path):
    picture = photograph(1100, 1000, grain_px=50)
    Image.fromarray(np.moveaxis(picture.values, 0, -1)).save(tmp_path / "a.png")
    for how in ("centre", "many"):
        config = SceneDataConfig(size_px=56, resize_px=64, views=how)
        reduced = read_picture(str(tmp_path / "a.png"), config=config, keep_px=keep_px(config))
        assert reduced.valid.shape == (550, 500)
        whole = views(picture, config)["image"]
        near = views(reduced, config)["image"]
        assert len(whole) == len(near)
        torch.testing.assert_close(near, whole, rtol=0, atol=12)
        assert (near - whole).abs().mean() < 2


def test_more_views_need_more_pixels():
    assert keep_px(SceneDataConfig()) == 1024
    assert keep_px(SceneDataConfig(views="many", most_views=100)) == 2240
