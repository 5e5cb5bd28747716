import math

import numpy as np
import pytest
import torch
from rasterio.features import rasterize

from terralean.boxes.form import to_polygons
from terralean.data.oriented.augment import (
    ObjectsAugmentConfig,
    augment_objects,
    cut_objects,
    flip_objects,
    keep_inside,
    resize_objects,
    rotate_objects,
    turn_objects,
)
from terralean.errors import ConfigError
from terralean.spec import IGNORE


def painted(polygons, height, width):
    """Which pixels have their middle in any of the polygons."""
    shapes = [({"type": "Polygon", "coordinates": [p.reshape(4, 2).tolist()]}, 1) for p in polygons]
    return torch.from_numpy(rasterize(shapes, out_shape=(height, width)).astype(bool))


def sample(height=48, width=64):
    """Two objects, and an image that shows them: 200 on them, 50 beside."""
    boxes = torch.tensor([[20.0, 18.0, 18.0, 8.0, 0.5], [44.0, 26.0, 12.0, 10.0, -0.9]])
    polygons = to_polygons(boxes)
    shown = painted(polygons, height, width)
    image = torch.where(shown, 200.0, 50.0)[None] + torch.tensor([0.0, 7.0])[:, None, None]
    return {
        "image": image,
        "valid": torch.ones(height, width, dtype=torch.bool),
        "mask": shown.long(),
        "bbox": polygons,
        "labels": torch.tensor([3, 5]),
        "difficult": torch.tensor([False, True]),
    }


def shows_its_objects(out, least):
    """IoU of where the image is bright and where its corners say that objects are."""
    bright, said = out["image"][0] > 125, painted(out["bbox"].numpy(), *out["image"].shape[-2:]) & out["valid"]
    return (bright & said).sum() / (bright | said).sum() > least


def same(one, other):
    assert one.keys() == other.keys()
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=0, atol=1e-3)


@pytest.mark.parametrize(("horizontal", "vertical"), [(True, False), (False, True), (True, True)])
def test_flips_move_corners_with_the_pixels_and_undo_themselves(horizontal, vertical):
    out = flip_objects(sample(), horizontal=horizontal, vertical=vertical)
    assert shows_its_objects(out, 0.99)
    same(flip_objects(out, horizontal=horizontal, vertical=vertical), sample())


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_move_corners_with_the_pixels(turns):
    out = turn_objects(sample(), turns=turns)
    assert out["image"].shape[-2:] == ((64, 48) if turns % 2 else (48, 64))
    assert shows_its_objects(out, 0.99)
    same(turn_objects(out, turns=4 - turns), sample())


@pytest.mark.parametrize("degrees", [-170, -33, 5, 20, 45, 91])
def test_any_angle_moves_corners_with_the_pixels(degrees):
    out = rotate_objects(sample(), angle=math.radians(degrees), iof=0.01)
    assert len(out["bbox"]) == 2
    assert shows_its_objects(out, 0.9)
    assert (out["image"][0][out["valid"]] > 49).all() and not out["image"][:, ~out["valid"]].any()
    assert ((out["mask"] == IGNORE) == ~out["valid"]).all()
    assert ((out["mask"] == 1) & (out["image"][0] < 100)).float().mean() < 0.01


def test_a_quarter_by_angle_is_a_quarter_turn():
    square = cut_objects(sample(), row=0, col=10, height=48, width=48, iof=0.1)
    same(rotate_objects(square, angle=-math.pi / 2, iof=0.1), turn_objects(square, turns=1))


def test_pixels_without_data_do_not_bleed_when_turned():
    one = sample()
    one["valid"][:, :20] = False
    one["image"] = one["image"] * one["valid"]
    out = rotate_objects(one, angle=0.3, iof=0.1)
    assert (out["image"][0][out["valid"]] > 49).all()
    assert 0 < (~out["valid"]).float().mean() < 0.7


def test_a_window_has_the_objects_of_which_it_holds_enough():
    one = sample()
    out = cut_objects(one, row=4, col=30, height=60, width=40, iof=0.7)
    assert out["labels"].tolist() == [5] and out["difficult"].tolist() == [True]
    torch.testing.assert_close(out["bbox"], one["bbox"][1:] - torch.tensor([30.0, 4.0]).repeat(4))
    assert out["image"].shape[-2:] == (60, 40) and not out["valid"][-10:].any()
    some = cut_objects(one, row=0, col=14, height=48, width=50, iof=0.7)["labels"].tolist()
    assert some == [3, 5] and cut_objects(one, row=0, col=14, height=48, width=50, iof=0.95)["labels"].tolist() == [5]


def test_other_pixels_of_the_same_ground():
    out = resize_objects(sample(), height=96, width=96)
    torch.testing.assert_close(out["bbox"], sample()["bbox"] * torch.tensor([1.5, 2.0]).repeat(4))
    assert shows_its_objects(out, 0.9)


def test_an_image_without_objects_can_be_turned():
    one = sample()
    empty = one | {"bbox": one["bbox"][:0], "labels": one["labels"][:0], "difficult": one["difficult"][:0]}
    config = ObjectsAugmentConfig(angle_deg=30.0)
    out = augment_objects(empty, config, generator=torch.Generator().manual_seed(0))
    assert out["bbox"].shape == (0, 8) and out["labels"].shape == (0,)


def test_an_object_without_area_stays_while_it_is_inside():
    line = sample() | {"bbox": torch.tensor([[1.0, 5, 1, 5, 1, 9, 1, 9], [90.0, 5, 90, 5, 90, 9, 90, 9]])}
    assert keep_inside(line, iof=0.7)["labels"].tolist() == [3]


def variants(config):
    return [augment_objects(sample(), config, generator=torch.Generator().manual_seed(seed)) for seed in range(20)]


def test_variants_are_drawn_from_the_generator_and_show_their_objects():
    config = ObjectsAugmentConfig(angle_deg=180.0, iof=0.01)
    first, again = variants(config), variants(config)
    for one, other in zip(first, again, strict=True):
        same(one, other)
        assert shows_its_objects(one, 0.85)
    assert len({tuple(one["bbox"].flatten().round().tolist()) for one in first}) > 15


def test_how_much_of_an_object_must_be_left_can_be_said():
    one = sample() | {"bbox": to_polygons(torch.tensor([[58.0, 6.0, 12.0, 10.0, 0.0], [32.0, 24.0, 8.0, 8.0, 0.0]]))}
    kept = []
    for iof in (0.05, 0.95):
        config = ObjectsAugmentConfig(flips=False, rotate90=False, angle_deg=30.0, iof=iof)
        out = [augment_objects(one, config, generator=torch.Generator().manual_seed(seed)) for seed in range(10)]
        kept.append(sum(len(some["bbox"]) for some in out))
    assert kept[0] > kept[1] + 3


@pytest.mark.parametrize("change", [{"flips": False}, {"rotate90": False}, {"angle_deg": 20.0}])
def test_each_setting_changes_what_comes(change):
    plain, other = variants(ObjectsAugmentConfig()), variants(ObjectsAugmentConfig(**change))
    assert any(
        a["bbox"].shape != b["bbox"].shape or not torch.equal(a["bbox"], b["bbox"]) for a, b in zip(plain, other, strict=True)
    )


@pytest.mark.parametrize(
    ("change", "message"), [({"angle_deg": 181.0}, "angle_deg must be 0 to 180"), ({"iof": 0.0}, "iof must be")]
)
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        ObjectsAugmentConfig(**change)


def test_angles_are_drawn_either_way():
    config = ObjectsAugmentConfig(flips=False, rotate90=False, angle_deg=40.0, iof=0.01)
    start = sample()["bbox"][0, 2:4] - sample()["bbox"][0, :2]
    turns = []
    for one in variants(config):
        side = one["bbox"][0, 2:4] - one["bbox"][0, :2]
        turn = math.degrees(math.atan2(side[1], side[0]) - math.atan2(start[1], start[0]))
        turns.append((turn + 180) % 360 - 180)
    assert min(turns) < -10 and max(turns) > 10 and np.abs(turns).max() <= 40 + 1e-3
