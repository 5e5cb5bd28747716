import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terralean.cost.macs import count_macs_at, parameters
from terralean.errors import BandMismatch, ConfigError
from terralean.layers.spectra import principal_components
from terralean.models import create
from terralean.models.lola_adapters import AdaptedLinear
from terralean.models.lola_blocks import WindowAttention, relative_index
from terralean.models.lola_specvit import LoLASpecViT, lola_specvit
from weights import image

SMALL = {"dim": 16, "heads": 2}
# Every setting, and a value that is not its default.
OTHERWISE = {
    "window_px": 9,
    "spectral": "none",
    "components": 9,
    "stem": "volume",
    "edges": "zeros",
    "dim": 32,
    "depth": 1,
    "heads": 4,
    "stages": 3,
    "attention_px": 3,
    "padding": "attended",
    "mlp": "wide",
    "centre": False,
    "spectrum": False,
    "patch_norm": True,
    "adapters": "gated",
}


def build(bands: int = 20, classes: int = 3, *, seed: int = 0, **sizes) -> LoLASpecViT:
    """With weights large enough for tokens to differ, and norms that scale."""
    torch.manual_seed(seed)
    model = create("lola_specvit", bands=bands, classes=classes, **{**SMALL, **sizes})
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape), alpha=0.1)
    return model.eval()


def patches(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(image(seed, shape))


# Sizes and cost


@pytest.mark.parametrize(("dim", "blocks", "total"), [(32, 0.165, 201_163), (48, 0.370, 437_535), (64, 0.654, 765_227)])
def test_parameters(dim, blocks, total):
    with torch.device("meta"):
        model = create("lola_specvit", bands=200, classes=16, dim=dim)
    assert parameters(model) == parameters(model, trainable=True) == total
    assert round(parameters(model.levels) / 1e6, 3) == blocks


def test_macs_of_a_pixel():
    with torch.device("meta"):
        flat, deep = (create("lola_specvit", bands=200, classes=16, stem=stem) for stem in ("plane", "volume"))
    few, many = (count_macs_at(model, (1, 200, 15, 15)) for model in (flat, deep))
    # 1 x 1 over the bands, then three convolutions that lose 2 px each, as their kernels say; of a volume each is 15 deep.
    reduced = 15**2 * 200 * 15
    plane = 13**2 * 8 * 15 * 9 + 11**2 * 16 * 8 * 9 + 9**2 * 48 * 16 * 9
    volume = 15 * (13**2 * 8 * 63 + 11**2 * 16 * 8 * 45 + 9**2 * 48 * 16 * 27)
    assert few.layers - reduced - plane == many.layers - reduced - volume
    assert (few.layers, few.attention) == (4_346_064, 55_296)


@pytest.mark.parametrize("bands", [48, 103, 176, 200, 224, 270])
def test_any_number_of_bands_and_each_is_heard(bands):
    x = patches(2, bands, 15, 15).requires_grad_()
    logits = build(bands)(x)
    logits.square().sum().backward()
    assert logits.shape == (2, 3)
    assert (x.grad.abs().sum(dim=(0, 2, 3)) > 0).all()


@pytest.mark.parametrize("edges", ["inside", "zeros"])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 7), (9, 13), (15, 15), (31, 18)])
def test_any_size_and_every_pixel_of_the_patch_is_heard(edges, size):
    x = patches(2, 20, *size).requires_grad_()
    logits = build(edges=edges)(x)
    logits.square().sum().backward()
    assert logits.isfinite().all()
    assert (x.grad.abs().sum(dim=(0, 1)) > 0).all()


def test_a_patch_smaller_than_the_stem_has_zeros_around_it():
    model, x = build(), patches(2, 20, 3, 4)
    torch.testing.assert_close(model(x), model(F.pad(x, (2, 2, 2, 3))), rtol=0, atol=0)


def test_other_numbers_of_bands_are_refused():
    with pytest.raises(BandMismatch, match="21 bands, the network was built for 20"):
        build()(patches(1, 21, 15, 15))


def test_patches_of_a_batch_do_not_meet():
    model, x = build(), patches(3, 20, 15, 15)
    with torch.inference_mode():
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-5, atol=1e-6)


# Settings


def test_all_settings_are_tried_here():
    known = {*inspect.signature(lola_specvit).parameters} - {"bands", "classes"}
    assert known - {"rank", "dropout", "band_dropout", "drop_path", "whitening"} == {*OTHERWISE}


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_setting_changes_what_is_computed(name):
    bands = 15
    ours, other = (build(bands, **{"window_px": 15, **changes}) for changes in ({}, {name: OTHERWISE[name]}))
    x = patches(2, bands, 15, 15)
    with torch.inference_mode():
        assert not torch.allclose(ours(x), other(x), rtol=1e-3)


@pytest.mark.parametrize("name", ["dropout", "band_dropout", "drop_path"])
def test_what_is_dropped_in_training(name):
    still = {"dropout": 0.0, "band_dropout": 0.0, "drop_path": 0.0}
    x = patches(4, 20, 15, 15)
    for changes, moves in (({}, False), ({name: 0.5}, True)):
        model = build(**{**still, **changes})
        for part in model.modules():
            part.train(not isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d))
        assert torch.equal(model(x), model(x)) != moves


def test_rank_of_adapters():
    assert {
        part.lora_down.out_features for part in build(adapters="plain", rank=3).modules() if isinstance(part, AdaptedLinear)
    } == {3}


def test_settings_that_cannot_be():
    with pytest.raises(ConfigError, match="odd number of px, as the pixel stands in the middle, got 14"):
        build(window_px=14)
    with pytest.raises(ConfigError, match=r"window_px must be 9 or more with edges=inside, got 7; or take .*=zeros"):
        build(window_px=7)
    with pytest.raises(ConfigError, match="window_px must be 3 or more with edges=zeros, got 1"):
        build(window_px=1, edges="zeros")
    assert build(window_px=3, edges="zeros")(torch.zeros(2, 20, 3, 3)).shape == (2, 3)
    with pytest.raises(ConfigError, match="multiples of the numbers of heads, got 15 by 2"):
        build(dim=15)
    with pytest.raises(ConfigError, match="components must be 1 or more, got 0"):
        build(components=0)


def test_a_uniform_patch_keeps_its_level_unless_each_patch_is_normalised():
    x = torch.ones(1, 15, 15, 15) * torch.tensor([1.0, 2.0])[:, None, None, None]
    with torch.inference_mode():
        low, high = build(15, spectral="none")(x)
        assert (low - high).norm() > 0.01
        low, high = build(15, spectral="none", patch_norm=True)(x)
        torch.testing.assert_close(low, high, rtol=0, atol=0)


def test_normalising_each_patch_gives_mean_0_and_deviation_1():
    model, x = build(15, spectral="none", patch_norm=True), patches(2, 15, 15, 15)
    plain = build(15, spectral="none")
    standard = (x - x.mean(dim=(2, 3), keepdim=True)) / x.std(dim=(2, 3), keepdim=True)
    with torch.inference_mode():
        torch.testing.assert_close(model(5 * x + 3), plain(standard), rtol=1e-4, atol=1e-5)


def test_the_pixel_itself_is_heard_with_centre():
    model, x = build(spectrum=False), patches(1, 20, 15, 15)
    with torch.inference_mode():
        maps = model.stages(x)[0]
        before = model(x)
        model.centre.weight.zero_()
        model.centre.bias.zero_()
        pooled = model.norm(model.stages(x)[-1].permute(0, 2, 3, 1)).mean(dim=(1, 2))
        torch.testing.assert_close(model(x), model.head(pooled))
        model.centre.load_state_dict(build(spectrum=False).centre.state_dict())
        torch.testing.assert_close(model.head(pooled + model.centre(maps[:, :, 4, 4])), before)


@pytest.mark.parametrize("edges", ["inside", "zeros"])
def test_the_components_of_the_pixel_alone_are_heard_with_spectrum(edges):
    model, x = build(centre=False, edges=edges), patches(2, 20, 15, 15)
    with torch.inference_mode():
        pooled = model.norm(model.stages(x)[-1].permute(0, 2, 3, 1)).mean(dim=(1, 2))
        expected = model.head(pooled + model.spectrum(model.spectral(x)[:, :, 7, 7]))
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


# Attention


def attention(side: int, *, attend_padding: bool = False) -> WindowAttention:
    torch.manual_seed(0)
    made = WindowAttention(8, heads=2, side=side, linear=nn.Linear, attend_padding=attend_padding)
    nn.init.normal_(made.relative_position_bias_table)
    return made.eval()


def reference(made: WindowAttention, tokens: Tensor, *, places: list[tuple[int, int]]) -> Tensor:
    """tokens (n, C) of one window at these places, by the definition, pair by pair."""
    query, key, value = made.qkv(tokens).unflatten(-1, (3, made.heads, -1)).unbind(1)
    found = []
    for head in range(made.heads):
        scores = query[:, head] @ key[:, head].T / 2  # the root of 8 channels over 2 heads
        for i, (row, col) in enumerate(places):
            for j, (other_row, other_col) in enumerate(places):
                at = (row - other_row + made.side - 1) * (2 * made.side - 1) + col - other_col + made.side - 1
                scores[i, j] = scores[i, j] + made.relative_position_bias_table[at, head]
        found.append(scores.softmax(dim=-1) @ value[:, head])
    return made.proj(torch.cat(found, dim=-1))


@pytest.mark.parametrize("size", [(3, 3), (2, 3), (1, 1), (5, 3), (4, 5)])
def test_tokens_look_at_those_of_their_window_and_at_nothing_else(size):
    made, x = attention(3), patches(1, *size, 8)
    with torch.inference_mode():
        ours = made(x)
        for top in range(0, size[0], min(3, size[0])):
            for left in range(0, size[1], min(3, size[1])):
                part = x[0, top : top + 3, left : left + 3]
                places = [(row, col) for row in range(part.shape[0]) for col in range(part.shape[1])]
                theirs = reference(made, part.flatten(0, 1), places=places).view(part.shape)
                torch.testing.assert_close(ours[0, top : top + 3, left : left + 3], theirs, rtol=1e-5, atol=1e-6)


def test_what_padding_holds_changes_nothing(monkeypatch):
    made, x = attention(3), patches(1, 4, 4, 8)
    with torch.inference_mode():
        before = made(x)
        pad = F.pad
        fill = iter((7.0, 0.0))  # of the tokens, then of what says that they are there
        monkeypatch.setattr(F, "pad", lambda tensor, sides: pad(tensor, sides, value=next(fill)))
        torch.testing.assert_close(made(x), before, rtol=0, atol=0)


@pytest.mark.parametrize("size", [(2, 3), (4, 3)])
def test_the_authors_look_at_padding(size):
    made, x = attention(3, attend_padding=True), patches(1, *size, 8)
    places = [(row, col) for row in range(3) for col in range(3)]
    with torch.inference_mode():
        ours, filled = made(x), F.pad(x, (0, 0, 0, 0, 0, -size[0] % 3))
        for top in range(0, size[0], 3):
            theirs = reference(made, filled[0, top : top + 3].flatten(0, 1), places=places).view(3, 3, 8)
            part = ours[0, top : top + 3]
            torch.testing.assert_close(part, theirs[: len(part)], rtol=1e-5, atol=1e-6)


def test_relative_positions_of_a_window_of_two():
    assert relative_index(2).tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]


# Adapters within the network


def test_an_adapted_layer_is_its_formula():
    torch.manual_seed(0)
    layer = AdaptedLinear(5, 4, rank=2, alpha=6.0, gate=True, residual=True)
    x = patches(3, 5)
    a, b, g, r = (part.weight for part in (layer.lora_down, layer.lora_up, layer.lora_gate, layer.lora_residual))
    expected = x @ layer.linear.weight.T + layer.linear.bias + torch.sigmoid(x @ g.T) * 3 * (x @ a.T @ b.T) + x @ r.T
    torch.testing.assert_close(layer(x), expected)
    plain = AdaptedLinear(5, 4, rank=2, alpha=6.0, gate=False, residual=False)
    plain.load_state_dict({name: tensor for name, tensor in layer.state_dict().items() if name in plain.state_dict()})
    torch.testing.assert_close(plain(x), x @ layer.linear.weight.T + layer.linear.bias + 3 * (x @ a.T @ b.T))


def test_adapters_begin_by_changing_nothing_but_as_the_authors_draw_them():
    torch.manual_seed(0)
    models = {
        kind: create("lola_specvit", bands=20, classes=3, **SMALL, adapters=kind) for kind in ("plain", "gated", "published")
    }
    ups = {
        kind: [part.lora_up.weight for part in model.modules() if isinstance(part, AdaptedLinear)]
        for kind, model in models.items()
    }
    assert not any(weight.any() for kind in ("plain", "gated") for weight in ups[kind])
    assert all(weight.any() for weight in ups["published"])
    assert all(weight.requires_grad for weight in models["gated"].parameters())
    assert parameters(models["published"], trainable=True) < parameters(models["published"])


def test_whitening_is_of_the_components_it_starts_from():
    pixels = torch.from_numpy(image(1, (60, 20))) * torch.linspace(1, 5, 20)
    ours, whitened = build(), build(whitening=1.0)
    for model, whitening in ((ours, 0.5), (whitened, 1.0)):
        model.start_from(pixels)
        expected = principal_components(pixels, count=15, whitening=whitening)[1]
        assert torch.equal(model.spectral.project.weight[..., 0, 0], expected)
    assert not torch.equal(ours.spectral.project.weight, whitened.spectral.project.weight)


# Training


@pytest.mark.parametrize(
    "changes", [{}, {"stem": "volume"}, {"centre": False}, {"mlp": "wide", "adapters": "gated"}, {"stages": 1}]
)
def test_every_parameter_learns(changes):
    model = build(**changes).train()
    model(patches(4, 20, 15, 15)).square().sum().backward()
    assert not [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]


def test_tables_of_positions_are_not_decayed():
    model = build()
    assert {name.rpartition(".")[2] for name in model.no_weight_decay()} == {"pos_embed", "relative_position_bias_table"}
    assert {*model.no_weight_decay()} <= {name for name, _ in model.named_parameters()}
    assert model.get_classifier() is model.head
