"""What the networks that LoLA-SpecViT is compared with have, and what all of them have in common."""

import pytest
import torch
from torch import Tensor, nn

from terralean import recipes
from terralean.cost.macs import count_macs_at, parameters
from terralean.errors import BandMismatch, ConfigError, SizeError
from terralean.layers.spectra import principal_components
from terralean.models import PIXEL_CLASSIFIERS, create
from terralean.spec import Bands
from terralean.weights.checkpoint import save_weights
from terralean.weights.pretrained import load_pretrained
from weights import image

SMALL = {
    "lola_specvit": {"window_px": 15, "components": 5, "dim": 16, "heads": 2},
    "ssftt": {"window_px": 7, "components": 5},
    "hybridsn": {"window_px": 11, "components": 14},
}
every = pytest.mark.parametrize("name", SMALL)


def build(name: str, *, bands: int = 20, **sizes) -> nn.Module:
    torch.manual_seed(0)
    return create(name, bands=bands, classes=3, **{**SMALL[name], **sizes})


def patches(model: nn.Module, *, bands: int = 20, count: int = 4) -> Tensor:
    return torch.from_numpy(image(0, (count, bands, model.window_px, model.window_px)))


def test_all_of_them_are_tried_here():
    assert {*SMALL} | {"lola_specvit_published", "svm"} == {*PIXEL_CLASSIFIERS}


def test_hybridsn_has_the_published_parameters():
    with torch.device("meta"):
        published = create("hybridsn", bands=30, classes=16, spectral="none")
        pavia = create("hybridsn", bands=15, classes=9, spectral="none")
        small = create("hybridsn", bands=30, classes=16, spectral="none", window_px=15)
    assert (parameters(published), parameters(pavia), parameters(small)) == (5_122_176, 4_844_793, 1_190_016)
    assert count_macs_at(published, (1, 30, 25, 25)).total == 247_683_392


def test_ssftt_is_small():
    with torch.device("meta"):
        model = create("ssftt", bands=30, classes=16, spectral="none")
    assert parameters(model) == 153_224
    assert count_macs_at(model, (1, 30, 13, 13)).layers == 11_623_328


def test_hybridsn_takes_patches_of_its_window_only():
    model = build("hybridsn")
    with pytest.raises(SizeError, match="windows of 11 px got patches of 13 x 11 px"):
        model(torch.zeros(1, 20, 13, 11))


@pytest.mark.parametrize(
    ("name", "sizes", "words"),
    [
        ("hybridsn", {"window_px": 7}, "an odd number from 9, got 7"),
        ("hybridsn", {"window_px": 12}, "an odd number from 9, got 12"),
        ("hybridsn", {"components": 12}, "needs 13 components at least, got 12"),
        ("ssftt", {"window_px": 3}, "an odd number from 5, got 3"),
        ("ssftt", {"components": 2}, "needs 3 components at least, got 2"),
    ],
)
def test_sizes_that_cannot_be(name, sizes, words):
    with pytest.raises(ConfigError, match=words):
        build(name, **sizes)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 7), (12, 9)])
def test_ssftt_takes_patches_of_any_size(size):
    x = torch.from_numpy(image(0, (2, 20, *size))).requires_grad_()
    logits = build("ssftt").eval()(x)
    logits.square().sum().backward()
    assert logits.isfinite().all()
    assert (x.grad.abs().sum(dim=(0, 1)) > 0).all()


def test_tokens_of_ssftt_are_means_of_pixels_so_their_order_does_not_count():
    model = build("ssftt").eval()
    maps = torch.from_numpy(image(0, (2, 64, 3, 3)))
    with torch.inference_mode():
        torch.testing.assert_close(model.answer(maps), model.answer(maps.flip(2)), rtol=1e-5, atol=1e-6)
        assert not torch.allclose(model.answer(maps), model.answer(maps.roll(1, dims=1)), rtol=1e-3)


@every
@pytest.mark.parametrize("bands", [48, 103, 270])
def test_any_number_of_bands_and_each_is_heard(name, bands):
    model = build(name, bands=bands, spectral="learned").eval()
    x = patches(model, bands=bands).requires_grad_()
    model(x).square().sum().backward()
    assert (x.grad.abs().sum(dim=(0, 2, 3)) > 0).all()


@every
def test_other_numbers_of_bands_are_refused(name):
    model = build(name)
    with pytest.raises(BandMismatch, match="19 bands, the network was built for 20"):
        model(patches(model, bands=19))


@every
def test_components_are_learned_kept_or_given(name):
    learned, kept, given = (build(name, spectral=kind, bands=SMALL[name]["components"]) for kind in ("learned", "pca", "none"))
    project = parameters(learned.spectral)
    assert parameters(kept) == parameters(learned) == parameters(given) + project
    assert parameters(kept, trainable=True) == parameters(given)
    pixels = torch.from_numpy(image(1, (60, SMALL[name]["components"])))
    for model in (learned, kept, given):
        model.start_from(pixels)
    weight = principal_components(pixels, count=SMALL[name]["components"], whitening=kept.spectral.whitening)[1]
    assert torch.equal(kept.spectral.project.weight[..., 0, 0], weight)
    assert torch.equal(kept.spectral.project.weight, learned.spectral.project.weight)


@every
def test_every_parameter_learns(name):
    model = build(name, spectral="learned").train()
    model(patches(model)).square().sum().backward()
    assert not [key for key, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]


@every
def test_what_is_not_decayed_is_there(name):
    model = build(name)
    assert getattr(model, "no_weight_decay", set)() <= {key for key, _ in model.named_parameters()}
    assert model.get_classifier() is model.head


@pytest.mark.parametrize("recipe", ["lemevit_tiny_light", "ucm82_lemevit_tiny"])
def test_other_tasks_refuse_them(recipe):
    with pytest.raises(ConfigError, match="model ssftt recognises the pixel in the middle of a patch, task"):
        recipes.read(recipe, changes=["model.name=ssftt"])


@every
def test_a_network_of_another_scene_is_what_it_starts_from(name, tmp_path):
    trained, other = build(name, spectral="learned"), build(name, bands=30, spectral="learned")
    with torch.no_grad():
        for weight in trained.parameters():
            weight.add_(1)
    save_weights(trained.state_dict(), tmp_path / "weights.safetensors")
    told = load_pretrained(other, tmp_path / "weights.safetensors", bands=Bands(names=tuple(f"band {i}" for i in range(1, 31))))
    assert "its first layer was made for 30 bands from its 20" in told
    own, theirs = other.state_dict(), trained.state_dict()
    assert {key for key in own if own[key].shape != theirs[key].shape} == {"spectral.project.weight"}
    assert all(torch.equal(own[key], theirs[key]) for key in own if key != "spectral.project.weight")
