import math
from dataclasses import replace
from itertools import pairwise

import pytest
import timm
import torch
from torch import Tensor

from terralean.cost.macs import Macs, count_macs_at, parameters
from terralean.errors import ConfigError
from terralean.models import biformer
from terralean.models.biformer import BiFormer, BiFormerConfig, BiLevelAttention, Block
from weights import fill, image

SIZES = {"biformer_tiny": ((2, 2, 8, 2), 64), "biformer_base": ((4, 4, 18, 4), 96)}
# Regions of several tokens at stages 1 and 2 already for small images, and fewer of them read than there are.
TOY = BiFormerConfig(depths=(1, 1, 2, 1), dim=32, bands=3, classes=5, regions=3, reads=(1, 2, 3))


def picture(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(image(seed, shape))


def filled(model: torch.nn.Module) -> torch.nn.Module:
    model.load_state_dict(fill(model.state_dict()))
    return model.eval()


def on_meta(name: str, **options) -> BiFormer:
    with torch.device("meta"):
        return getattr(biformer, name)(bands=3, classes=1000, **options)


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


# The figures of the publications


@pytest.mark.parametrize(
    ("name", "published", "exact"), [("biformer_tiny", 13.14, 13_142_760), ("biformer_base", 56.80, 56_804_968)]
)
def test_parameters_are_those_of_lemevits_table(name, published, exact):
    assert parameters(on_meta(name)) == exact
    assert round(exact / 1e6, 2) == published


@pytest.mark.parametrize(("name", "with_biases"), [("biformer_tiny", 13.15), ("biformer_base", 56.81)])
def test_biases_of_the_last_projections_would_not_fit(name, with_biases):
    depths, dim = SIZES[name]
    last = 8 * dim
    assert round((parameters(on_meta(name)) + depths[-1] * 3 * last) / 1e6, 2) == with_biases


@pytest.mark.parametrize("name", SIZES)
def test_parameters_part_by_part(name):
    (depths, dim), model = SIZES[name], on_meta(name)
    dims = [dim, 2 * dim, 4 * dim, 8 * dim]
    block = [10 * d * d + (10 + 4 + 3 + 26 + 1 + 4) * d for d in dims]  # position, norms, qkv, context, projection, MLP
    block[3] -= 3 * dims[3]
    halvings = sum(9 * before * after + 3 * after for before, after in pairwise([3, dim // 2, *dims]))
    assert parameters(model.stages) == sum(depth * size for depth, size in zip(depths, block, strict=True))
    assert parameters(model.downsample_layers) == halvings
    assert parameters(model.head) + parameters(model.norm) == 1000 * dims[3] + 1000 + 2 * dims[3]


def formula(name: str) -> Macs:
    """At 224 px: convolutions and projections; the products of tokens, and of the regions' means."""
    depths, dim = SIZES[name]
    layers = 27 * dim // 2 * 112**2 + 9 * dim**2 // 2 * 56**2 + 1000 * 8 * dim
    attention = 0
    for stage, (depth, reads) in enumerate(zip(depths, (1, 4, 16, 49), strict=True)):
        d, tokens = dim * 2**stage, (56 // 2**stage) ** 2
        layers += depth * tokens * (10 * d * d + 34 * d) + (tokens * 9 * d * d // 2 if stage else 0)
        attention += depth * 2 * tokens * (reads * tokens // 49) * d + (depth * 49 * 49 * d if stage < 3 else 0)
    return Macs(layers=layers, attention=attention)


@pytest.mark.parametrize("name", SIZES)
def test_macs_are_those_of_the_formula(name):
    assert count_macs_at(on_meta(name), (1, 3, 224, 224)) == formula(name)


@pytest.mark.parametrize(("name", "paper"), [("biformer_tiny", 2.2), ("biformer_base", 9.8)])
def test_macs_with_attention_are_those_of_the_paper(name, paper):
    assert round(formula(name).total / 1e9, 1) == paper


def test_macs_without_attention_are_those_of_lemevits_table_for_base_only():
    """For tiny that table has 2.20, which is neither 2.08 nor, with attention, 2.22, but the paper's 2.2 with a zero."""
    assert round(formula("biformer_base").layers / 1e9, 2) == 9.32
    assert round(formula("biformer_tiny").layers / 1e9, 2) == 2.08
    assert round(formula("biformer_tiny").total / 1e9, 2) == 2.22


@pytest.mark.parametrize("name", SIZES)
def test_figures_of_the_docstring(name):
    text, macs = getattr(biformer, name).__doc__, formula(name)
    assert f"{parameters(on_meta(name)) / 1e6:.2f} M parameters" in text
    assert f"{macs.layers / 1e9:.2f} GMACs" in text
    assert f"{macs.total / 1e9:.2f} with attention" in text


# Routing


def looped(module: BiLevelAttention, x: Tensor) -> Tensor:
    """Region by region and head by head, token by token of the map: no padding, no gathering."""
    height, width = (math.ceil(side / module.regions) for side in x.shape[1:3])
    dim = x.shape[-1]
    depth = dim // module.heads
    out = torch.empty_like(x)
    for image_qkv, target in zip(module.qkv(x), out, strict=True):
        blocks = [
            (slice(top, top + height), slice(left, left + width))
            for top in range(0, x.shape[1], height)
            for left in range(0, x.shape[2], width)
        ]
        regions = [image_qkv[block].flatten(0, 1).split(dim, dim=-1) for block in blocks]
        for block, (query, _, _) in zip(blocks, regions, strict=True):
            affinity = torch.stack([query.mean(0) @ key.mean(0) for _, key, _ in regions])
            chosen = affinity.argsort(descending=True)[: module.reads].tolist()
            keys, values = (torch.cat([regions[i][part] for i in chosen]) for part in (1, 2))
            seen = torch.empty_like(query)
            for head in range(module.heads):
                part = slice(head * depth, (head + 1) * depth)
                weights = (query[:, part] @ keys[:, part].T / depth**0.5).softmax(dim=-1)
                seen[:, part] = weights @ values[:, part]
            target[block] = seen.view(target[block].shape)
    values = module.qkv(x)[..., 2 * dim :].permute(0, 3, 1, 2)
    return module.proj(out + module.context(values).permute(0, 2, 3, 1))


def attention(*, reads: int, regions: int = 3) -> BiLevelAttention:
    module = filled(BiLevelAttention(8, heads=2, regions=regions, reads=reads, qkv_bias=True)).double()
    return module.requires_grad_(False)


@pytest.mark.parametrize("reads", [1, 2, 5])
@pytest.mark.parametrize("size", [(6, 9), (7, 8), (4, 10), (3, 3), (5, 3), (20, 4)])
def test_attention_equals_a_loop_over_regions(size, reads):
    module, x = attention(reads=reads), 3 * picture(2, *size, 8).double()
    torch.testing.assert_close(module(x), looped(module, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [(6, 9), (7, 8), (4, 10)])
def test_reading_every_region_is_attention_over_the_map(size):
    query, key_value = 3 * picture(2, *size, 8).double(), 3 * picture(2, *size, 16, seed=1).double()
    tile = biformer.region_size(size, regions=3)
    queries, keys = (biformer.split_tiles(x, tile=tile) for x in (query, key_value))
    valid = biformer.valid_in_tiles(size, tile=tile, device=query.device)
    index = biformer.route(queries, keys[..., :8], valid=valid, reads=queries.shape[1])
    found = biformer.read_regions(queries, keys, index, heads=2, valid=valid)
    expected = biformer.read_all(torch.cat([query, key_value], dim=-1), heads=2)
    torch.testing.assert_close(biformer.join_tiles(found, tile=tile, size=size), expected, rtol=1e-9, atol=1e-9)


def test_attention_over_the_map_equals_torchs():
    qkv = picture(2, 4, 5, 24).double()
    theirs = torch.nn.MultiheadAttention(8, 2, bias=False, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.eye(8).repeat(3, 1))
        theirs.out_proj.weight.copy_(torch.eye(8))
        expected, _ = theirs(*qkv.flatten(1, 2).split(8, dim=-1), need_weights=False)
    torch.testing.assert_close(biformer.read_all(qkv, heads=2).flatten(1, 2), expected, rtol=1e-9, atol=1e-9)


def test_regions_worked():
    """Three regions of one token: the keys of the third are along the query of the second only."""
    query = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]], [[-1.0, -1.0]]]])
    key = torch.tensor([[[[3.0, 0.0]], [[2.0, 0.5]], [[0.0, 5.0]]]])
    assert biformer.route(query, key, valid=None, reads=2).tolist() == [[[0, 1], [2, 1], [1, 0]]]


def test_tokens_past_the_map_do_not_count_in_a_regions_mean():
    """Of the second region one token is there: its mean key is 3, above the first's 2, and not 3 / 2."""
    query = torch.ones(1, 2, 2, 1) * torch.tensor([[1, 1], [1, 0]])[None, ..., None]
    key = torch.tensor([[[2.0], [2.0]], [[3.0], [0.0]]])[None]
    valid = torch.tensor([[True, True], [True, False]])
    assert biformer.route(query, key, valid=valid, reads=1).flatten().tolist() == [1, 1]


@pytest.mark.parametrize(
    ("size", "expected"), [((56, 56), (8, 8)), ((7, 14), (1, 2)), ((8, 5), (2, 1)), ((57, 1), (9, 1)), ((1, 1), (1, 1))]
)
def test_no_region_is_empty(size, expected):
    found = biformer.region_size(size, regions=7)
    assert found == expected
    for side, length in zip(size, found, strict=True):
        count = math.ceil(side / length)
        assert count <= 7
        assert (count - 1) * length < side


# Blocks


def block() -> Block:
    return filled(Block(32, BiLevelAttention(32, heads=2, regions=3, reads=9, qkv_bias=True), mlp_ratio=3.0, drop_path=0.0))


def zero(*layers: torch.nn.Module) -> None:
    for layer in layers:
        for parameter in layer.parameters():
            torch.nn.init.zeros_(parameter)


def test_block_without_attention_and_feed_forward_is_its_positions_and_a_shortcut():
    ours, x = block(), picture(2, 32, 7, 5)
    zero(ours.attention.proj, ours.mlp.fc2)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), x + ours.position(x))


def test_block_that_reads_all_and_has_no_convolutions_is_a_transformer_block():
    ours, x = block(), picture(2, 32, 4, 6)
    theirs = torch.nn.TransformerEncoderLayer(
        32, 2, 96, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    ).eval()
    parts = {
        "self_attn.in_proj_": ours.attention.qkv,
        "self_attn.out_proj.": ours.attention.proj,
        "linear1.": ours.mlp.fc1,
        "linear2.": ours.mlp.fc2,
        "norm1.": ours.norm1,
        "norm2.": ours.norm2,
    }
    theirs.load_state_dict({f"{key}{name}": value for key, part in parts.items() for name, value in part.state_dict().items()})
    zero(ours.position, ours.attention.context)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x).flatten(2).mT, theirs(x.flatten(2).mT), rtol=1e-5, atol=1e-5)


# The network


@pytest.mark.parametrize(("bands", "size"), [(1, (64, 32)), (13, (33, 57)), (4, (1, 1)), (3, (7, 230))])
def test_any_size_and_any_number_of_bands(bands, size):
    x = picture(2, bands, *size).requires_grad_()
    model = filled(BiFormer(replace(TOY, bands=bands)))
    logits = model(x)
    logits.square().sum().backward()
    assert logits.shape == (2, 5)
    assert (x.grad.abs().sum(dim=(2, 3)) > 0).all()
    for reduction, found in zip((4, 8, 16, 32), model.pyramid(x), strict=True):
        assert found.shape[2:] == tuple(math.ceil(side / reduction) for side in size)


def test_images_of_a_batch_do_not_meet():
    model, x = filled(BiFormer(TOY)), picture(3, 3, 52, 80)
    with torch.inference_mode():
        assert relative(model(x)[1:2], model(x[1:2])) < 1e-5


def test_every_parameter_gets_a_gradient():
    model = BiFormer(TOY).train()
    model(picture(4, 3, 80, 72)).square().mean().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_maps_stay_in_channels_last_memory():
    with torch.inference_mode():
        maps = filled(BiFormer(TOY)).pyramid(picture(2, 3, 96, 96))
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in maps)


def test_bfloat16_stays_close():
    model, x = filled(BiFormer(TOY)), picture(2, 3, 52, 80)
    with torch.inference_mode():
        exact = model(x)
        rounded = model.to(torch.bfloat16)(x.bfloat16())
    assert rounded.dtype == torch.bfloat16
    assert 0 < relative(rounded.float(), exact) < 0.05


def test_drop_path_rises_linearly_and_acts_while_training_only():
    model, x = BiFormer(replace(TOY, drop_path=0.4)), picture(8, 3, 32, 32)
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for stage in model.stages for block in stage]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    with torch.no_grad():
        assert torch.equal(model.eval()(x), model(x))
        model.train()
        assert not torch.equal(model(x), model(x))


@pytest.mark.parametrize("setting", [{"regions": 2}, {"reads": (2, 2, 3)}, {"head_dim": 16}, {"mlp_ratio": 2.0}, {"dim": 64}])
def test_every_size_changes_the_result(setting):
    x = picture(1, 3, 96, 96)
    with torch.inference_mode():
        assert relative(filled(BiFormer(replace(TOY, **setting)))(x), filled(BiFormer(TOY))(x)) > 1e-4


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"dim": 48}, "dim must be a multiple of head_dim 32, got 48"),
        ({"reads": (1, 0, 3)}, r"regions and reads must be at least 1, got 3 and \(1, 0, 3\)"),
        ({"drop_path": 1.0}, "drop_path must be 0 up to below 1, got 1.0"),
    ],
)
def test_impossible_sizes_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        replace(TOY, **setting)


# By timm's name


def test_timm_builds_both():
    assert timm.list_models("biformer*") == ["biformer_base", "biformer_tiny"]
    with torch.device("meta"):
        model = timm.create_model("biformer_tiny", in_chans=5, num_classes=7, drop_path_rate=0.2)
        base = timm.create_model("biformer_base", num_classes=0)
    assert model.config == BiFormerConfig(depths=(2, 2, 8, 2), dim=64, bands=5, classes=7, drop_path=0.2)
    assert base.config == BiFormerConfig(depths=(4, 4, 18, 4), dim=96, bands=3, classes=0)
    assert model.get_submodule(model.default_cfg["first_conv"]).in_channels == 5
    assert model.get_submodule(model.default_cfg["classifier"]) is model.get_classifier()


def test_features_head_and_classifier_make_the_forward_pass():
    model, x = filled(BiFormer(TOY)), picture(2, 3, 64, 72)
    with torch.inference_mode():
        features, logits = model.forward_features(x), model(x)
        assert features.shape == (2, model.num_features, 2, 3)
        pooled = model.forward_head(features, pre_logits=True)
        torch.testing.assert_close(model.get_classifier()(pooled), logits)
        model.reset_classifier(9)
        assert model(x).shape == (2, model.num_classes) == (2, 9)
        model.reset_classifier(0)
        assert torch.equal(model(x), pooled)
