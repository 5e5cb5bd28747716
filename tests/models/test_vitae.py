import math
from dataclasses import replace
from itertools import pairwise

import pytest
import timm
import torch
from torch import Tensor, nn

from terralean.cost.macs import Macs, count_macs_at, parameters
from terralean.errors import ConfigError
from terralean.models import vitae
from terralean.models.vitae import (
    SMALL,
    Attention,
    NormalCell,
    PyramidReduction,
    ReductionCell,
    StageConfig,
    ViTAEv2,
    ViTAEv2Config,
)
from weights import fill, image

NARROW = {"branch": 8, "dim": 16, "reduction_groups": 1, "groups": 4, "reduction_heads": 1, "heads": 2, "window": 3}
STAGES = (
    replace(SMALL[0], **NARROW),
    replace(SMALL[1], **{**NARROW, "dim": 24, "reduction_groups": 8}),
    replace(SMALL[2], **{**NARROW, "dim": 32, "depth": 1, "window": None}),
    replace(SMALL[3], **{**NARROW, "dim": 40, "depth": 1, "window": None}),
)
TOY = ViTAEv2Config(stages=STAGES, bands=3, classes=5)


def picture(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(image(seed, shape))


def filled(model: nn.Module) -> nn.Module:
    model.load_state_dict(fill(model.state_dict()))
    return model.eval()


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def small(*, classes: int) -> ViTAEv2:
    with torch.device("meta"):
        return vitae.vitae_v2_s(bands=3, classes=classes)


# The figures of the publications


def test_parameters_and_macs_are_those_of_lemevits_table():
    """Table 4: 18.87 M with the 51 classes of MillionAID, and 5.48 G at 224 px, attention left out."""
    macs = count_macs_at(small(classes=51), (1, 3, 224, 224))
    assert parameters(small(classes=51)) == 18_871_155
    assert round(18_871_155 / 1e6, 2) == 18.87
    assert round(macs.layers / 1e9, 2) == 5.48


def test_figures_of_the_docstring():
    text, macs = vitae.vitae_v2_s.__doc__, count_macs_at(small(classes=51), (1, 3, 224, 224))
    assert f"{parameters(small(classes=51)) / 1e6:.2f} M parameters" in text
    assert f"{macs.layers / 1e9:.2f} GMACs" in text
    assert f"{macs.total / 1e9:.2f} with attention" in text


def test_parameters_of_the_vitae_paper_do_not_fit_those_of_lemevits_table():
    """It has 19.2 M with 1000 classes: 949 classes of 512 weights and a bias are 0.49 M, not 0.33 M."""
    assert parameters(small(classes=1000)) - parameters(small(classes=51)) == 949 * 513 == 486_837
    assert round((18.87e6 + 949 * 513) / 1e6, 2) == round(parameters(small(classes=1000)) / 1e6, 2) == 19.36


def test_macs_with_attention_are_within_a_hundredth_of_the_vitae_paper():
    assert count_macs_at(small(classes=1000), (1, 3, 224, 224)).total / 1e9 == pytest.approx(5.7, rel=0.01)


def convolutions(dims: tuple[int, ...], *, tokens: tuple[int, ...], groups: int) -> tuple[int, int]:
    """Parameters with the norms after the first two, and MACs."""
    weights = [9 * before * after // groups for before, after in pairwise(dims)]
    macs = sum(weight * count for weight, count in zip(weights, tokens, strict=True))
    return sum(weights) + sum(dims[1:]) + 2 * sum(dims[1:-1]), macs


def transformer(before: int, dim: int, *, hidden: int, tokens: int) -> tuple[int, int]:
    """Norms, attention, feed-forward network: parameters, and MACs without the products of tokens."""
    weights = before * 3 * dim + dim * dim + 2 * dim * hidden
    return weights + 2 * before + 3 * dim + dim + 2 * dim + hidden + dim, weights * tokens


@pytest.mark.parametrize("index", range(4))
def test_cells_part_by_part(index):
    stage, before, tokens = SMALL[index], [3, 64, 128, 256][index], (56 // 2**index) ** 2
    wide, first = stage.branch * len(stage.dilations), 4 * tokens if index == 0 else tokens
    weights = stage.kernel**2 * before * wide
    reduction = [
        (weights + wide, weights * tokens),
        transformer(wide, stage.dim, hidden=stage.dim, tokens=tokens),
        convolutions(
            (before, stage.branch, stage.branch, stage.dim), tokens=(first, tokens, tokens), groups=stage.reduction_groups
        ),
    ]
    normal = [
        transformer(stage.dim, stage.dim, hidden=4 * stage.dim, tokens=tokens),
        convolutions((stage.dim, 4 * stage.dim, stage.dim, stage.dim), tokens=(tokens,) * 3, groups=stage.groups),
    ]
    with torch.device("meta"):
        cells = {"reduction": ReductionCell(before, stage), "normal": NormalCell(stage, drop_path=0.0)}
    side = 224 if index == 0 else 112 // 2**index
    seen = 49 if index < 2 else tokens
    products = 2 * tokens * seen * stage.dim
    for cell, parts, shape in (
        (cells["reduction"], reduction, (1, before, side, side)),
        (cells["normal"], normal, (1, stage.dim, 56 // 2**index, 56 // 2**index)),
    ):
        counts, macs = zip(*parts, strict=True)
        assert parameters(cell) == sum(counts)
        assert count_macs_at(cell, shape) == Macs(layers=sum(macs), attention=products)


# Cells


def reduced(stage: StageConfig, x: Tensor) -> Tensor:
    """What a reduction cell does, layer by layer, from its own layers."""
    cell = filled(ReductionCell(x.shape[1], stage))
    scales = torch.cat([nn.functional.gelu(branch(x)) for branch in cell.scales.branches], dim=1)
    conv1, norm1, act1, conv2, norm2, act2, conv3 = cell.local
    beside = conv3(act2(norm2(conv2(act1(norm1(conv1(x)))))))
    both = cell.attention(cell.norm1(scales.permute(0, 2, 3, 1))) + beside.permute(0, 2, 3, 1)
    return (both + cell.mlp(cell.norm2(both))).permute(0, 3, 1, 2)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_reduction_cell_adds_convolutions_and_attention_over_the_scales(index):
    x = picture(2, 8, 24, 16)
    with torch.inference_mode():
        found = filled(ReductionCell(8, STAGES[index]))(x)
        torch.testing.assert_close(found, reduced(STAGES[index], x))
        assert found.shape[2:] == (24 // STAGES[index].reduction, 16 // STAGES[index].reduction)


def test_normal_cell_without_attention_and_feed_forward_is_its_convolutions_and_a_shortcut():
    cell, x = filled(NormalCell(STAGES[0], drop_path=0.0)), picture(2, 16, 7, 5)
    with torch.inference_mode():
        for layer in (cell.attention.proj, cell.mlp.fc2):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        torch.testing.assert_close(cell(x), x + cell.local(x))


def test_normal_cell_without_convolutions_is_a_transformer_block():
    cell, x = filled(NormalCell(STAGES[2], drop_path=0.0)), picture(2, 32, 4, 6)
    theirs = nn.TransformerEncoderLayer(
        32, 2, 128, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    ).eval()
    ours = {
        "self_attn.in_proj_": cell.attention.qkv,
        "self_attn.out_proj.": cell.attention.proj,
        "linear1.": cell.mlp.fc1,
        "linear2.": cell.mlp.fc2,
        "norm1.": cell.norm1,
        "norm2.": cell.norm2,
    }
    theirs.load_state_dict({f"{key}{name}": value for key, part in ours.items() for name, value in part.state_dict().items()})
    with torch.inference_mode():
        nn.init.zeros_(cell.local[-1].weight)
        nn.init.zeros_(cell.local[-1].bias)
        torch.testing.assert_close(cell(x).flatten(2).mT, theirs(x.flatten(2).mT), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("size", [(8, 12), (9, 11), (1, 2), (7, 30)])
def test_scales_and_convolutions_agree_on_the_smaller_size(index, size):
    stage, x = STAGES[index], picture(1, 8, *size)
    expected = tuple(math.ceil(side / stage.reduction) for side in size)
    with torch.inference_mode():
        assert filled(PyramidReduction(8, stage))(x).shape[2:] == expected
        assert filled(ReductionCell(8, stage)).local(x).shape[2:] == expected


def test_what_is_missing_of_the_last_step_is_zero():
    module, x = filled(PyramidReduction(8, STAGES[0])), picture(2, 8, 9, 14)
    with torch.inference_mode():
        assert torch.equal(module(x), module(nn.functional.pad(x, (0, 2, 0, 3))))


def test_dilations_widen_the_view_around_the_same_pixel():
    """A kernel of 7 over 4 px a step, dilated 1 to 4: 7, 13, 19, 25 px, centred where the step's 4 px are, or half a px off."""
    module = PyramidReduction(1, replace(SMALL[0], branch=1))
    x = torch.zeros(1, 1, 64, 64, requires_grad=True)
    for dilation, branch in zip((1, 2, 3, 4), module.branches, strict=True):
        nn.init.ones_(branch.weight)
        (seen,) = torch.autograd.grad(branch(x)[0, 0, 8, 8], x)
        rows = seen[0, 0].sum(dim=1).nonzero().flatten().tolist()
        assert rows == [33 + dilation * step for step in range(-3, 4)]


# Attention


def looped(module: Attention, x: Tensor, *, window: int) -> Tensor:
    """Token by token: who stands in the same window."""
    query, key, value = module.qkv(x).chunk(3, dim=-1)
    depth = query.shape[-1] // module.heads
    out = torch.empty_like(query)
    tokens = [(r, c) for r in range(x.shape[1]) for c in range(x.shape[2])]
    for r, c in tokens:
        rows, columns = zip(
            *[(i, j) for i, j in tokens if i // window == r // window and j // window == c // window], strict=True
        )
        for head in range(module.heads):
            part = slice(head * depth, (head + 1) * depth)
            keys, values = key[:, rows, columns, part], value[:, rows, columns, part]
            weights = (keys @ query[:, r, c, part, None] / depth**0.5).softmax(dim=1)
            out[:, r, c, part] = (weights * values).sum(dim=1)
    return module.proj(out)


@pytest.mark.parametrize("size", [(6, 9), (5, 7), (2, 10), (1, 1)])
@pytest.mark.parametrize("window", [3, None])
def test_attention_equals_a_loop_over_tokens(size, window):
    module = filled(Attention(6, 8, heads=2, window=window)).double().requires_grad_(False)
    x = 3 * picture(2, *size, 6).double()
    torch.testing.assert_close(module(x), looped(module, x, window=window or 10), rtol=1e-9, atol=1e-9)


# The network


@pytest.mark.parametrize(("bands", "size"), [(1, (64, 32)), (13, (33, 57)), (4, (1, 1)), (3, (7, 130))])
def test_any_size_and_any_number_of_bands(bands, size):
    x = picture(2, bands, *size).requires_grad_()
    model = filled(ViTAEv2(replace(TOY, bands=bands)))
    logits = model(x)
    logits.square().sum().backward()
    assert logits.shape == (2, 5)
    assert (x.grad.abs().sum(dim=(2, 3)) > 0).all()
    for reduction, found in zip((4, 8, 16, 32), model.pyramid(x), strict=True):
        assert found.shape[2:] == tuple(math.ceil(side / reduction) for side in size)


def test_images_of_a_batch_do_not_meet():
    model, x = filled(ViTAEv2(TOY)), picture(3, 3, 52, 80)
    with torch.inference_mode():
        assert relative(model(x)[1:2], model(x[1:2])) < 1e-5


def test_every_parameter_gets_a_gradient():
    model = filled(ViTAEv2(TOY)).train()
    model(picture(4, 3, 72, 64)).square().mean().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_maps_stay_in_channels_last_memory():
    with torch.inference_mode():
        maps = filled(ViTAEv2(TOY)).pyramid(picture(2, 3, 96, 96))
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in maps)


def test_bfloat16_stays_close():
    model, x = filled(ViTAEv2(TOY)), picture(2, 3, 52, 80)
    with torch.inference_mode():
        exact = model(x)
        rounded = model.to(torch.bfloat16)(x.bfloat16())
    assert rounded.dtype == torch.bfloat16
    assert 0 < relative(rounded.float(), exact) < 0.05


def test_drop_path_rises_linearly_and_acts_while_training_only():
    model, x = ViTAEv2(replace(TOY, drop_path=0.5)), picture(8, 3, 32, 32)
    rates = [getattr(cell.drop_path, "drop_prob", 0.0) for stage in model.stages for cell in stage[1:]]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    with torch.no_grad():
        assert torch.equal(model.eval()(x), model(x))
        for part in model.train().modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eval()
        assert not torch.equal(model(x), model(x))


@pytest.mark.parametrize(
    "setting",
    [
        {"kernel": 5},
        {"dilations": (1, 2)},
        {"dilations": (1, 2, 4)},
        {"reduction": 4, "kernel": 5},
        {"branch": 16},
        {"dim": 48},
        {"reduction_heads": 2},
        {"reduction_groups": 4},
        {"groups": 2},
        {"depth": 1},
        {"heads": 4},
        {"window": 4},
        {"window": None},
    ],
)
def test_every_size_changes_the_result(setting):
    other = replace(TOY, stages=(STAGES[0], replace(STAGES[1], **setting), *STAGES[2:]))
    ours, theirs = (filled(ViTAEv2(config)).double() for config in (TOY, other))
    x = picture(1, 3, 64, 64).double()
    with torch.inference_mode():
        assert relative(theirs(x), ours(x)) > 1e-6  # rounding changes 1e-15


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"reduction": 3}, "reduction must be one of 2, 4, got 3"),
        ({"kernel": 4}, "kernel must be odd and above reduction 4, got 4"),
        ({"kernel": 3}, "kernel must be odd and above reduction 4, got 3"),
        ({"heads": 3}, "dim must be a multiple of heads 3, got 16"),
        ({"reduction_groups": 16}, "branch must be a multiple of reduction_groups 16, got 8"),
    ],
)
def test_impossible_stages_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        replace(STAGES[0], **setting)


def test_impossible_drop_path_is_refused():
    with pytest.raises(ConfigError, match=r"drop_path must be 0 up to below 1, got -0\.1"):
        replace(TOY, drop_path=-0.1)


# By timm's name


def test_timm_builds_it():
    with torch.device("meta"):
        model = timm.create_model("vitae_v2_s", in_chans=5, num_classes=7, drop_path_rate=0.2)
    assert model.config == ViTAEv2Config(stages=SMALL, bands=5, classes=7, drop_path=0.2)
    first = [model.get_submodule(name) for name in model.default_cfg["first_conv"]]
    assert first == [part for part in model.modules() if isinstance(part, nn.Conv2d) and part.in_channels == 5]
    assert model.get_submodule(model.default_cfg["classifier"]) is model.get_classifier()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"pretrained": True}, "vitae_v2_s is our own writing and has no weights; .* pretrained=False and train it"),
        ({"drop_rate": 0.1}, r"no dropout, so drop_rate cannot be 0\.1; use drop_path_rate"),
        ({"features_only": True}, "vitae_v2_s is a classifier only; as a backbone use for instance lemevit_tiny"),
    ],
)
def test_what_it_does_not_have_is_refused(option, message):
    with pytest.raises(ConfigError, match=message):
        timm.create_model("vitae_v2_s", **option)


def test_features_head_and_classifier_make_the_forward_pass():
    model, x = filled(ViTAEv2(TOY)), picture(2, 3, 64, 72)
    with torch.inference_mode():
        features, logits = model.forward_features(x), model(x)
        assert features.shape == (2, model.num_features, 2, 3)
        pooled = model.forward_head(features, pre_logits=True)
        torch.testing.assert_close(model.get_classifier()(pooled), logits)
        model.reset_classifier(9)
        assert model(x).shape == (2, model.num_classes) == (2, 9)
        model.reset_classifier(0)
        assert torch.equal(model(x), pooled)
