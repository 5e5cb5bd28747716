"""Augmentations move image, mask and valid together, and have the inverses they claim."""

import pytest
import torch

from terralean.data.augment import add_noise, augment, cut, draw_zoom, flip, jitter, resize, rotate90, zoom
from terralean.data.config import AugmentConfig
from terralean.spec import IGNORE, Normalisation

BANDS = 5
UNIT = Normalisation(mean=(0.0,) * BANDS, std=(1.0,) * BANDS)


@pytest.fixture
def sample():
    """Every pixel distinct; the first band encodes the mask, and a corner is not valid."""
    image = torch.arange(BANDS * 12 * 16, dtype=torch.float32).reshape(BANDS, 12, 16) + 1
    mask = torch.arange(12 * 16).reshape(12, 16) % 7
    image[0] = mask + 1
    valid = torch.ones(12, 16, dtype=torch.bool)
    valid[:3, :4] = False
    return {"image": image * valid, "mask": torch.where(valid, mask, IGNORE), "valid": valid}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(one, other) -> bool:
    return all(torch.equal(one[key], other[key]) for key in ("image", "mask", "valid"))


def assert_aligned(sample) -> None:
    """The first band still says what the mask says, wherever both are known."""
    valid = sample["valid"]
    assert torch.equal(sample["image"][0][valid].round().long() - 1, sample["mask"][valid])
    assert (sample["mask"][~valid] == IGNORE).all()
    assert (sample["image"][:, ~valid] == 0).all()


@pytest.mark.parametrize(("horizontal", "vertical"), [(True, False), (False, True), (True, True)])
def test_a_flip_undoes_itself(sample, horizontal, vertical):
    once = flip(sample, horizontal=horizontal, vertical=vertical)
    assert not same(once, sample)
    assert same(flip(once, horizontal=horizontal, vertical=vertical), sample)


def test_a_flip_moves_the_first_column_last(sample):
    once = flip(sample, horizontal=True, vertical=False)
    assert torch.equal(once["image"][..., -1], sample["image"][..., 0])


def test_four_quarter_turns_are_none(sample):
    turned = sample
    for _ in range(4):
        turned = rotate90(turned, turns=1)
    assert same(turned, sample)
    assert same(rotate90(rotate90(sample, turns=1), turns=3), sample)


def test_a_quarter_turn_is_anticlockwise(sample):
    assert torch.equal(rotate90(sample, turns=1)["image"][:, :, 0], sample["image"][:, 0].flip(-1))


@pytest.mark.parametrize("seed", range(6))
def test_geometry_keeps_image_mask_and_valid_aligned(sample, seed):
    config = AugmentConfig(brightness=0, contrast=0)
    assert_aligned(augment(sample, config, normalisation=UNIT, generator=generator(seed)))


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_zoom_keeps_mask_where_the_image_is_flat(factor):
    """A board of 8 px fields: away from their borders the interpolated band is the class."""
    patches = (torch.arange(4)[:, None] + torch.arange(4)).remainder(2).repeat_interleave(8, 0).repeat_interleave(8, 1)
    sample = {
        "image": (patches + 1).float().expand(BANDS, -1, -1),
        "mask": patches,
        "valid": torch.ones(32, 32, dtype=torch.bool),
    }
    zoomed = zoom(sample, factor=factor, generator=generator(3))
    known = zoomed["valid"]
    said, seen = zoomed["mask"][known], zoomed["image"][0][known] - 1
    exact = seen == seen.round()
    assert exact.float().mean() > 0.3
    assert torch.equal(seen[exact].long(), said[exact])
    assert (zoomed["mask"][~known] == IGNORE).all()


def test_zooming_in_by_two_repeats_the_mask():
    mask = torch.arange(16).reshape(4, 4)
    sample = {"image": mask[None].float(), "mask": mask, "valid": torch.ones(4, 4, dtype=torch.bool)}
    assert torch.equal(resize(sample, height=8, width=8)["mask"], mask.repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_zooming_out_by_two_averages_two_by_two():
    image = torch.arange(16, dtype=torch.float32).reshape(1, 4, 4)
    sample = {"image": image, "valid": torch.ones(4, 4, dtype=torch.bool)}
    small = resize(sample, height=2, width=2)["image"]
    assert torch.equal(small, torch.tensor([[[2.5, 4.5], [10.5, 12.5]]]))


def test_invalid_pixels_do_not_darken_their_neighbours():
    valid = torch.ones(8, 8, dtype=torch.bool)
    valid[:, :3] = False
    out = resize({"image": 100.0 * valid[None], "valid": valid}, height=13, width=11)
    assert out["valid"].any()
    torch.testing.assert_close(out["image"][0][out["valid"]], torch.full((int(out["valid"].sum()),), 100.0))
    assert (out["image"][0][~out["valid"]] == 0).all()


def test_zooming_out_surrounds_with_invalid_pixels(sample):
    small = zoom(sample, factor=0.5, generator=generator())
    assert small["image"].shape == sample["image"].shape
    assert int(small["valid"].sum()) <= sample["valid"].sum() / 4 + 12


def test_a_cut_inside_is_a_slice_and_outside_is_unknown(sample):
    part = cut(sample, row=-2, col=4, height=6, width=20)
    assert torch.equal(part["image"][:, 2:, :12], sample["image"][:, :4, 4:])
    assert torch.equal(part["mask"][2:, :12], sample["mask"][:4, 4:])
    assert (part["mask"][:2] == IGNORE).all()
    assert not part["valid"][:, 12:].any()


@pytest.mark.parametrize("bands", [1, 3, 13])
def test_jitter_is_in_units_of_each_bands_spread(bands):
    normalisation = Normalisation(mean=tuple(100.0 * i for i in range(bands)), std=tuple(1.0 + i for i in range(bands)))
    mean = torch.tensor(normalisation.mean)[:, None, None]
    sample = {"image": mean.expand(-1, 4, 4) + 2.0, "valid": torch.ones(4, 4, dtype=torch.bool)}
    out = jitter(sample, gain=torch.full((bands,), 1.5), shift=torch.full((bands,), 0.5), normalisation=normalisation)
    expected = mean + 3.0 + 0.5 * torch.tensor(normalisation.std)[:, None, None]
    torch.testing.assert_close(out["image"], expected.expand(-1, 4, 4))


def test_noise_has_the_spread_asked_for_and_leaves_invalid_pixels_at_zero():
    valid = torch.ones(200, 200, dtype=torch.bool)
    valid[:10] = False
    sample = {"image": torch.zeros(2, 200, 200), "valid": valid}
    normalisation = Normalisation(mean=(0.0, 0.0), std=(1.0, 50.0))
    image = add_noise(sample, noise=0.1, normalisation=normalisation, generator=generator())["image"]
    assert image[0][valid].std() == pytest.approx(0.1, rel=0.02)
    assert image[1][valid].std() == pytest.approx(5.0, rel=0.02)
    assert (image[:, ~valid] == 0).all()


def test_the_same_generator_gives_the_same_sample_and_another_one_another(sample):
    config = AugmentConfig(noise=0.1)
    results = [augment(sample, config, normalisation=UNIT, generator=generator(seed)) for seed in (1, 1, 2)]
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_zoom_is_drawn_within_bounds_and_both_ways():
    drawn = [draw_zoom(AugmentConfig(zoom=(0.5, 2.0)), generator=generator(i)) for i in range(200)]
    assert min(drawn) >= 0.5
    assert max(drawn) <= 2.0
    assert 0.35 < sum(factor < 1 for factor in drawn) / 200 < 0.65


@pytest.mark.parametrize(
    "changed",
    [{"flips": True}, {"rotate90": True}, {"brightness": 0.5}, {"contrast": 0.5}, {"noise": 0.5}],
    ids=lambda changed: next(iter(changed)),
)
def test_each_option_changes_the_result(sample, changed):
    none = {"flips": False, "rotate90": False, "brightness": 0.0, "contrast": 0.0, "noise": 0.0}
    off, on = AugmentConfig(**none), AugmentConfig(**{**none, **changed})
    assert same(augment(sample, off, normalisation=UNIT, generator=generator()), sample)
    assert any(not same(augment(sample, on, normalisation=UNIT, generator=generator(seed)), sample) for seed in range(3))


def test_inputs_are_not_changed(sample):
    before = {key: value.clone() for key, value in sample.items()}
    augment(sample, AugmentConfig(noise=0.1), normalisation=UNIT, generator=generator())
    assert same(sample, before)
