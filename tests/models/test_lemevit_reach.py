"""How image tokens of S3 reach each other: windows and meta tokens beside all reading all."""

from dataclasses import replace
from itertools import pairwise

import pytest
import timm
import torch
from torch import Tensor
from torch.export import Dim

from terralean.cost.macs import count_macs_at, parameters
from terralean.errors import ConfigError
from terralean.models import create, lemevit
from terralean.models.lemevit import LeMeViT, LeMeViTConfig, LeMeViTPyramid
from terralean.models.lemevit_reach import ThroughMeta, Whole, Windows
from terralean.spec import Bands
from terralean.tokens import REDUCERS
from terralean.weights.checkpoint import save_weights
from terralean.weights.pretrained import load_pretrained
from weights import fill, image

TOY = LeMeViTConfig(depths=(1, 2, 2, 2, 1), dims=(32, 32, 64, 96, 128), classes=5)
WINDOWS = replace(TOY, s3_attention="windows", s3_window_px=32)
META = replace(TOY, s3_attention="meta")
SCALE = 0.4


def picture(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(image(seed, shape))


def filled(model):
    """Weights that depend on a tensor's name, large enough for attention to prefer some tokens."""
    model.load_state_dict(fill(model.state_dict()))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2)
    return model.eval()


def project(tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Two heads of query, key and value, each of its own."""
    generator = torch.Generator().manual_seed(7)
    weights = torch.randn(3, 2, tokens.shape[-1], 4, generator=generator)
    return tuple((tokens[:, None] @ weight) for weight in weights)


def by_hand(image: Tensor) -> Tensor:
    """All tokens (B, N, C) reading each other, without a kernel."""
    query, key, value = project(image)
    return ((SCALE * query @ key.mT).softmax(dim=-1) @ value).transpose(1, 2).flatten(2)


@pytest.mark.parametrize(("grid", "side", "rows", "cols"), [
    ((4, 6), 2, [0, 2, 4], [0, 2, 4, 6]),
    ((4, 6), 3, [0, 2, 4], [0, 3, 6]),  # two windows of two rows, not three and one
    ((5, 7), 3, [0, 3, 5], [0, 3, 6, 7]),
    ((1, 9), 4, [0, 1], [0, 3, 6, 9]),
])  # fmt: skip
def test_each_window_is_read_as_if_it_were_the_image(grid, side, rows, cols):
    tokens = torch.randn(2, grid[0] * grid[1], 6, generator=torch.Generator().manual_seed(0))
    found = Windows(side)(tokens, None, grid=grid, project=project, scale=SCALE).unflatten(1, grid)
    of_map = tokens.unflatten(1, grid)
    for top, bottom in pairwise(rows):
        for left, right in pairwise(cols):
            expected = by_hand(of_map[:, top:bottom, left:right].flatten(1, 2))
            torch.testing.assert_close(found[:, top:bottom, left:right].flatten(1, 2), expected)


def test_through_meta_tokens_by_hand():
    image_tokens, meta = torch.randn(2, 15, 6), torch.randn(2, 3, 6)
    (query, key, value), (meta_query, meta_key, _) = project(image_tokens), project(meta)
    gathered = (SCALE * meta_query @ key.mT).softmax(dim=-1) @ value
    expected = ((SCALE * query @ meta_key.mT).softmax(dim=-1) @ gathered).transpose(1, 2).flatten(2)
    found = ThroughMeta()(image_tokens, meta, grid=(3, 5), project=project, scale=SCALE)
    torch.testing.assert_close(found, expected)


def test_whole_by_hand():
    tokens = torch.randn(2, 15, 6)
    torch.testing.assert_close(Whole()(tokens, None, grid=(3, 5), project=project, scale=SCALE), by_hand(tokens))


@pytest.mark.parametrize("build", [LeMeViT, LeMeViTPyramid])
@pytest.mark.parametrize("shape", [(2, 3, 64, 96), (1, 3, 33, 57), (1, 3, 96, 96)])
def test_a_window_that_holds_the_image_is_all_reading_all(build, shape):
    usual, windowed = (filled(build(config)) for config in (TOY, replace(WINDOWS, s3_window_px=96)))
    with torch.inference_mode():
        for ours, expected in zip(_maps(windowed(picture(*shape))), _maps(usual(picture(*shape))), strict=True):
            assert torch.equal(ours, expected)


def _maps(found: Tensor | list[Tensor]) -> list[Tensor]:
    return found if isinstance(found, list) else [found]


@pytest.mark.parametrize("varied", [WINDOWS, META, replace(WINDOWS, s3_window_px=16)])
def test_every_way_changes_the_maps_of_s3_and_s4_alone(varied):
    usual, other, x = filled(LeMeViTPyramid(TOY)), filled(LeMeViTPyramid(varied)), picture(2, 3, 64, 96)
    with torch.inference_mode():
        (first, second, *coarse), (one, two, *others) = usual(x), other(x)
    assert torch.equal(first, one) and torch.equal(second, two)
    for expected, found in zip(coarse, others, strict=True):
        assert (found - expected).norm() / expected.norm() > 1e-3


@pytest.mark.parametrize("config", [WINDOWS, META])
def test_every_parameter_gets_a_gradient(config):
    for model in (LeMeViT(config), LeMeViTPyramid(config)):
        sum(found.square().mean() for found in _maps(model(picture(2, 3, 64, 96)))).backward()
        assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


@pytest.mark.parametrize("config", [TOY, WINDOWS, META])
def test_a_pyramid_gives_the_maps_of_the_classifier(config):
    classifier, backbone, x = filled(LeMeViT(config)), filled(LeMeViTPyramid(config)), picture(2, 3, 80, 96)
    with torch.inference_mode():
        for ours, theirs in zip(backbone(x), classifier.pyramid(x), strict=True):
            torch.testing.assert_close(ours, theirs)


# Weights


def test_classifiers_have_the_same_weights_and_pyramids_those_of_the_classifier():
    assert {LeMeViT(config).state_dict().keys() == LeMeViT(TOY).state_dict().keys() for config in (WINDOWS, META)} == {True}
    usual, windows, meta = (LeMeViTPyramid(config).state_dict().keys() for config in (TOY, WINDOWS, META))
    assert usual == windows
    more = {name.rpartition(".")[0] for name in meta - usual}
    assert more == {"stages.2.1.attn.proj_c", *(f"meta_token_downsample.3.{layer}" for layer in (0, 1, 3, 4))}


@pytest.mark.parametrize("sizes", [{"s3_attention": "windows", "s3_window_px": 64}, {"s3_attention": "meta"}])
def test_weights_of_a_classifier_load_into_any_way(tmp_path, sizes):
    theirs = filled(LeMeViT(lemevit.tiny(classes=7)))
    save_weights(theirs.state_dict(), tmp_path / "lemevit.safetensors")
    model = create("lemevit_tiny_light", bands=3, classes=2, **sizes)
    told = load_pretrained(model, tmp_path / "lemevit.safetensors", bands=Bands(names=("red", "green", "blue")))
    assert told.startswith("the backbone of ")
    own = theirs.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.backbone.state_dict().items())


# Costs


def products(model, side: int) -> int:
    return count_macs_at(model, (1, 3, side, side)).attention


def test_cost_in_s3_is_as_the_formulas_say():
    """8 blocks of width 192; at 1024 px 64 x 64 tokens, of which 32 x 32 are in a window of 512 px."""
    tokens, width, depth = 64 * 64, 192, 8
    with torch.device("meta"):
        usual, windows, finer, meta = (
            LeMeViTPyramid(lemevit.tiny() if not more else replace(lemevit.tiny(), **more))
            for more in (
                {},
                {"s3_attention": "windows"},
                {"s3_attention": "windows", "s3_window_px": 256},
                {"s3_attention": "meta"},
            )
        )
    whole = products(usual, 1024)
    assert round(whole / 1e9, 2) == 53.75
    all_read_all = depth * 2 * tokens**2 * width
    assert whole - products(windows, 1024) == all_read_all * 3 // 4
    assert whole - products(finer, 1024) == all_read_all * 15 // 16
    others = whole - all_read_all
    answer = 2 * (128 * 128) * 16 * 128  # of the last block of S2, which somebody reads now
    own = (depth - 1) * 2 * 16**2 * width  # meta tokens among themselves
    assert products(meta, 1024) == others + answer + own + depth * 4 * tokens * 16 * width
    assert products(windows, 512) == products(usual, 512)
    assert parameters(usual) == parameters(windows) < parameters(meta)


def test_a_detector_in_a_recipe_costs_as_much_less():
    with torch.device("meta"):
        usual = create("lemevit_tiny_orcnn", bands=3, classes=15)
        windows = create("lemevit_tiny_orcnn", bands=3, classes=15, s3_attention="windows", s3_window_px=512)
    cost, less = (count_macs_at(model.counted(), (1, 3, 1024, 1024)) for model in (usual, windows))
    assert cost.layers == less.layers
    assert cost.attention - less.attention == 8 * 2 * 4096 * (4096 - 1024) * 192


@pytest.mark.parametrize("name", ["lemevit_tiny_light", "lemevit_small_upernet", "lemevit_base_orcnn", "lemevit_tiny"])
def test_models_of_recipes_have_the_option(name):
    with torch.device("meta"):
        model = create(name, bands=3, classes=4, s3_attention="windows", s3_window_px=256)
    config = getattr(model, "backbone", model).config
    assert (config.s3_attention, config.s3_window_px) == ("windows", 256)
    with torch.device("meta"):
        of_timm = timm.create_model("lemevit_tiny", features_only=True, s3_attention="meta")
    assert of_timm.config.s3_attention == "meta"


# Programs and refusals


@pytest.mark.parametrize(("config", "free", "shapes"), [
    (META, {0: Dim("batch", min=1), 2: Dim("height", min=33), 3: Dim("width", min=33)}, [(5, 3, 75, 131), (1, 3, 33, 40)]),
    (WINDOWS, {0: Dim("batch", min=1)}, [(5, 3, 80, 96), (1, 3, 80, 96)]),  # how many windows there are is fixed
])  # fmt: skip
def test_an_exported_program_gives_the_same(config, free, shapes):
    eager = filled(LeMeViTPyramid(config))
    with torch.no_grad():
        program = torch.export.export(eager, (picture(2, 3, 80, 96),), dynamic_shapes={"image": free}).module()
        for shape in shapes:
            for ours, expected in zip(program(picture(*shape)), eager(picture(*shape)), strict=True):
                assert (ours - expected).norm() <= 1e-5 * expected.norm()


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="s3_window_px must be a multiple of 16 above 0, got 40"):
        replace(TOY, s3_window_px=40)
    with pytest.raises(ConfigError, match="s3_attention must be one of global, windows, meta, got 'local'"):
        replace(TOY, s3_attention="local")
    with pytest.raises(ConfigError, match=r"sizes\.s3_attention must be one of global, windows, meta, got 'local'"):
        create("lemevit_tiny_orcnn", bands=3, classes=2, s3_attention="local")
    with pytest.raises(ConfigError, match="takes tokens out of an S3 in which all read all"):
        create("lemevit_tiny_light", bands=3, classes=2, s3_attention="windows", reduce=REDUCERS["tome"]())
