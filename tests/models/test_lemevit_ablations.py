"""What the paper's ablations vary: its costs as published, and that each option does what it says."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from terralean.cost.macs import count_macs, count_macs_at, parameters
from terralean.errors import ConfigError
from terralean.models import create, lemevit
from terralean.models.lemevit import (
    FUSIONS,
    SCALES,
    Block,
    DualAttention,
    LeMeViT,
    LeMeViTConfig,
    LeMeViTPyramid,
    SelfAttention,
)
from weights import fill, image

TOY = LeMeViTConfig(depths=(1, 2, 2, 1, 1), dims=(32, 32, 64, 96, 128), classes=5)
CHOICES = {
    "stages": ["CDDSS", "-DDSS", "CSSSS"],
    "meta_stem": ["mlp", "none"],
    "fusion": ["sum", "mean", "tokens"],
    "attention_scale": ["official", "paper"],
}
OTHERS = [(knob, value) for knob, values in CHOICES.items() for value in values[1:]]
WIDTHS = {"tiny": 64, "small": 96, "base": 96}  # of the first block after the stem


def picture(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(image(seed, shape))


def nudged(model: nn.Module) -> nn.Module:
    """Weights that depend on a tensor's name, large enough for attention to prefer some tokens."""
    model.load_state_dict(fill(model.state_dict()))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2)
    return model.eval()


# Costs


@pytest.mark.parametrize(("meta_tokens", "published"), [(64, 4.39), (32, 3.95), (16, 3.74), (8, 3.63)])
def test_macs_by_number_of_meta_tokens_are_those_of_table_6(meta_tokens, published):
    with torch.device("meta"):
        model = create("lemevit_small", bands=3, classes=1000, meta_tokens=meta_tokens)
    assert round(count_macs_at(model, (1, 3, 224, 224)).layers / 1e9, 2) == published


@pytest.mark.parametrize(("size", "dual", "alone"), [("tiny", 0.16, 1.41), ("small", 0.36, 2.24), ("base", 0.36, 2.24)])
def test_first_block_costs_what_section_3_4_says_by_its_formulas(size, dual, alone):
    """Formulas of table 2: 12 N D^2 for the layers of either, 2 N M D and 2 N^2 D for the products."""
    tokens, meta, width = 56 * 56, 16, WIDTHS[size]
    by_dual, by_self = _first_block(size, "CDDSS"), _first_block(size, "CSSSS")
    convolution, of_meta = 9 * tokens * width, 12 * meta * width**2
    assert by_dual.layers == by_self.layers == 12 * tokens * width**2 + of_meta + convolution
    # Twice the paper's count: each of two directions has a product for weights and one for values.
    assert by_dual.attention == 2 * (2 * tokens * meta * width)
    assert by_self.attention == 2 * tokens**2 * width + 2 * meta**2 * width
    assert (by_dual.layers - convolution + by_dual.attention // 2) / 1e9 == pytest.approx(dual, abs=5e-3)
    assert (12 * tokens * width**2 + 2 * tokens**2 * width) / 1e9 == pytest.approx(alone, abs=5e-3)


def _first_block(size: str, stages: str):
    with torch.device("meta"):
        model = create(f"lemevit_{size}", bands=3, classes=0, stages=stages)
        width = WIDTHS[size]
        return count_macs(model.stages[1][0], torch.empty(1, width, 56, 56), torch.empty(1, 16, width))


def test_without_cross_attention_its_block_and_one_meta_mlp_are_gone():
    width = WIDTHS["small"]
    whole, without = (_small(stages=s) for s in ("CDDSS", "-DDSS"))
    block = 12 * width**2 + (9 + 1 + 4 + 4 + 5) * width  # products; CPE, two norms, biases of attention and of feed-forward
    mlp = 8 * width**2 + (4 + 8 + 1 + 2) * width
    assert parameters(whole) - parameters(without) == block + mlp
    assert not [key for key in without.state_dict() if key.startswith(("stages.0.", "meta_token_downsample.1."))]
    assert [len(blocks) for blocks in without.stages] == [0, 2, 2, 6, 2]


def test_without_meta_stem_one_meta_mlp_is_gone():
    width = WIDTHS["small"]
    assert parameters(_small()) - parameters(_small(meta_stem="none")) == 8 * width**2 + (4 + 8 + 1 + 2) * width


def test_self_attention_in_place_of_dual_has_half_the_projections():
    difference = sum(2 * (4 * width**2 + 4 * width) for width in (96, 192))  # two blocks in each of two stages
    assert parameters(_small()) - parameters(_small(stages="CSSSS")) == difference


@pytest.mark.parametrize(("knob", "value"), [("fusion", "mean"), ("fusion", "tokens"), ("attention_scale", "paper")])
def test_other_fusions_and_scales_have_the_same_parameters(knob, value):
    assert {k: v.shape for k, v in _small(**{knob: value}).state_dict().items()} == {
        k: v.shape for k, v in _small().state_dict().items()
    }


def _small(**varied: str) -> LeMeViT:
    with torch.device("meta"):
        return LeMeViT(replace(lemevit.small(), **varied))


# What each does


@pytest.mark.parametrize("stages", CHOICES["stages"])
@pytest.mark.parametrize("meta_stem", CHOICES["meta_stem"])
@pytest.mark.parametrize("fusion", CHOICES["fusion"])
def test_every_variant_builds_and_every_parameter_gets_a_gradient(stages, meta_stem, fusion):
    model = LeMeViT(replace(TOY, stages=stages, meta_stem=meta_stem, fusion=fusion))
    model(picture(2, 3, 64, 96)).square().mean().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


@pytest.mark.parametrize(("knob", "value"), OTHERS)
def test_every_option_changes_the_result(knob, value):
    usual, varied, x = nudged(LeMeViT(TOY)), nudged(LeMeViT(replace(TOY, **{knob: value}))), picture(2, 3, 64, 96)
    with torch.inference_mode():
        expected, found = usual(x), varied(x)
    assert (found - expected).norm() / expected.norm() > 1e-3


@pytest.mark.parametrize("knob", ["stages", "meta_stem"])
def test_a_pyramid_without_a_part_is_that_of_the_classifier_without_it(knob):
    config = replace(TOY, **{knob: {"stages": "-DDSS", "meta_stem": "none"}[knob]})
    classifier, backbone, x = nudged(LeMeViT(config)), nudged(LeMeViTPyramid(config)), picture(2, 3, 64, 96)
    with torch.inference_mode():
        for ours, theirs in zip(backbone(x), classifier.pyramid(x), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_fusions_by_hand():
    tokens, meta = torch.tensor([[[1.0], [2.0], [6.0]]]), torch.tensor([[[10.0], [30.0]]])
    found = {name: fuse(tokens, meta).item() for name, fuse in FUSIONS.items()}
    assert found == pytest.approx({"sum": 3 + 20, "mean": (3 + 20) / 2, "tokens": (1 + 2 + 6 + 1 + 3) / 5})


def test_without_meta_stem_the_first_stage_gets_the_meta_tokens_themselves():
    model = LeMeViT(replace(TOY, meta_stem="none"))
    seen = []
    model.stages[0][0].register_forward_pre_hook(lambda _block, inputs: seen.append(inputs[1]))
    with torch.inference_mode():
        model.eval()(picture(2, 3, 32, 32))
    assert torch.equal(seen[0], model.meta_tokens.expand(2, -1, -1))


def test_self_attention_in_place_of_dual_is_that_of_the_later_stages():
    """An S block put in the place of the D block of the same width gives what the variant gives."""
    whole, varied = LeMeViT(TOY), LeMeViT(replace(TOY, stages="CSSSS"))
    for stage in (1, 2):
        dim = TOY.dims[stage]
        for index in range(len(whole.stages[stage])):
            attention = SelfAttention(dim, heads=dim // TOY.head_dim, scales=SCALES[TOY.attention_scale])
            whole.stages[stage][index] = Block(dim, attention, mlp_ratio=TOY.mlp_ratio, drop_path=0.0)
    x = picture(2, 3, 64, 96)
    with torch.inference_mode():
        assert torch.equal(nudged(whole)(x), nudged(varied)(x))
    assert not [m for m in varied.modules() if isinstance(m, DualAttention)]


@pytest.mark.parametrize(("stages", "meta", "of_image"), [("CDDSS", 5, 4), ("-DDSS", 4, 4), ("CSSSS", 1, 0)])
def test_attention_is_shown_of_the_blocks_that_have_it(stages, meta, of_image):
    model, x = nudged(LeMeViT(replace(TOY, stages=stages))), picture(1, 3, 64, 96)
    with torch.inference_mode():
        assert len(model.meta_attention(x)) == meta
        assert len(model.image_attention(x)) == of_image


def test_drop_path_rises_over_the_blocks_that_there_are():
    model = LeMeViT(lemevit_without := replace(TOY, stages="-DDSS", drop_path=0.5))
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for stage in model.stages for block in stage]
    assert rates == pytest.approx(list(np.linspace(0, 0.5, sum(lemevit_without.depths[1:]))))


# How they are asked for


@pytest.mark.parametrize(("knob", "value"), OTHERS)
def test_options_are_settings_of_the_model_and_arguments_of_timm(knob, value):
    with torch.device("meta"):
        ours = create("lemevit_tiny", bands=3, classes=1000, drop_path=0.0, **{knob: value})
        of_timm = timm.create_model("lemevit_tiny", **{knob: value})
    assert ours.config == of_timm.config == replace(lemevit.tiny(), **{knob: value})


def test_defaults_are_those_of_the_authors_everywhere():
    first = {knob: values[0] for knob, values in CHOICES.items()}
    with torch.device("meta"):
        built = [create("lemevit_tiny", bands=3, classes=1000, drop_path=0.0), timm.create_model("lemevit_tiny")]
    assert all(model.config == lemevit.tiny() == replace(lemevit.tiny(), **first) for model in built)


@pytest.mark.parametrize("knob", [*CHOICES])
def test_other_values_are_refused_with_the_choices(knob):
    listed = ", ".join(CHOICES[knob])
    with pytest.raises(ConfigError, match=f"^{knob} must be one of {listed}, got 'both'$"):
        replace(TOY, **{knob: "both"})
    with pytest.raises(ConfigError, match=rf"^model lemevit_tiny: sizes\.{knob} must be one of {listed}, got 'both'$"):
        create("lemevit_tiny", bands=3, classes=2, **{knob: "both"})


def test_a_pyramid_whose_maps_hear_nothing_of_meta_tokens_is_refused():
    with pytest.raises(ConfigError, match="no map depends on meta tokens with stages='CSSSS'; only a classifier"):
        LeMeViTPyramid(replace(TOY, stages="CSSSS"))
