import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from terralean.cost.macs import parameters
from terralean.errors import ConfigError
from terralean.models import lemevit
from terralean.models.lemevit import (
    SCALES,
    Block,
    DualAttention,
    LeMeViT,
    LeMeViTConfig,
    LeMeViTPyramid,
    MetaReadsImage,
    SelfAttention,
)
from weights import fill, image

GOLDEN = Path(__file__).parents[1] / "golden"
SIZES = {"tiny": lemevit.tiny, "tiny_d7": lemevit.tiny_d7, "small": lemevit.small, "base": lemevit.base}
PUBLISHED = ["tiny", "small", pytest.param("base", marks=pytest.mark.slow)]
# All five stages, two blocks where a stage's last block is special, different widths everywhere.
TOY = LeMeViTConfig(depths=(1, 2, 2, 1, 1), dims=(32, 32, 64, 96, 128), classes=5)


def relative(ours, theirs) -> float:
    return float(np.linalg.norm(np.asarray(ours) - np.asarray(theirs)) / np.linalg.norm(np.asarray(theirs)))


def picture(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(image(seed, shape))


def filled(model: nn.Module) -> nn.Module:
    model.load_state_dict(fill(model.state_dict()))
    return model.eval()


def nudge(model: nn.Module) -> nn.Module:
    """Weights large enough for attention to prefer some tokens, which it does not at initialisation."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.2)
    return model


# Agreement with the authors' networks


@pytest.mark.parametrize("size", PUBLISHED)
def test_state_dict_has_the_keys_and_shapes_of_the_authors(size):
    theirs = json.loads((GOLDEN / "lemevit_keys.json").read_text())[size]
    assert {key: list(value.shape) for key, value in LeMeViT(SIZES[size]()).state_dict().items()} == theirs


@pytest.mark.parametrize("case", ["0/2x3x224x224", "1/1x3x256x320"])
@pytest.mark.parametrize("size", PUBLISHED)
def test_logits_and_maps_equal_those_of_the_authors(size, case):
    golden = np.load(GOLDEN / "lemevit.npz")
    seed, shape = case.split("/")
    x = picture(*map(int, shape.split("x")), seed=int(seed))
    classifier, backbone = filled(LeMeViT(SIZES[size]())), filled(LeMeViTPyramid(SIZES[size]()))
    with torch.inference_mode():
        assert relative(classifier(x), golden[f"{size}/{case}/logits"]) < 1e-5
        for maps in classifier.pyramid(x), backbone(x):
            for stage, found in enumerate(maps, start=1):
                theirs = f"{size}/{case}/stage{stage}"
                values = found.double().numpy()
                assert relative(values.mean((0, 2, 3)), golden[f"{theirs}/mean"]) < 1e-5
                assert relative(values.std((0, 2, 3)), golden[f"{theirs}/std"]) < 1e-5
                assert relative(values[:, :8, :4, :4], golden[f"{theirs}/corner"]) < 1e-5


@pytest.mark.parametrize(
    ("size", "classes", "count"),
    [
        ("tiny", 1000, 8_635_816),
        ("tiny", 51, 8_331_187),
        ("tiny_d7", 1000, 8_189_032),
        ("tiny_d7", 51, 7_884_403),
        ("small", 1000, 16_400_456),
        ("small", 51, 16_035_091),
        ("base", 1000, 53_098_152),
        ("base", 51, 52_611_315),
    ],
)
def test_parameters_are_those_published(size, classes, count):
    with torch.device("meta"):
        assert parameters(LeMeViT(SIZES[size](classes=classes))) == count


def test_pyramid_is_the_classifier_less_what_cannot_reach_a_map():
    classifier, backbone = LeMeViT(lemevit.tiny()), LeMeViTPyramid(lemevit.tiny())
    kept = backbone.state_dict()
    left_out = {k: v for k, v in classifier.named_parameters() if k not in kept and not k.startswith("head.")}
    assert not kept.keys() - classifier.state_dict().keys()
    assert len(left_out) == 22
    assert sum(v.numel() for v in left_out.values()) == 580_224


# Any size of image, any number of bands


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (8, 8), (5, 300), (33, 57)])
def test_any_image_gives_finite_maps_of_its_size_over_4_8_16_32(size):
    x = picture(2, 3, *size)
    classifier, backbone = filled(LeMeViT(TOY)), filled(LeMeViTPyramid(TOY))
    with torch.inference_mode():
        assert classifier(x).isfinite().all()
        for reduction, channels, found in zip((4, 8, 16, 32), TOY.dims[1:], backbone(x), strict=True):
            assert found.shape == (2, channels, *(math.ceil(side / reduction) for side in size))
            assert found.isfinite().all()


@pytest.mark.parametrize("bands", [1, 3, 4, 13, 224])
def test_every_band_counts(bands):
    model = filled(LeMeViT(replace(TOY, bands=bands)))
    x = picture(1, bands, 40, 24).requires_grad_()
    model(x).square().sum().backward()
    assert (x.grad.abs().amax(dim=(0, 2, 3)) > 0).all()


# Laws


def test_images_of_a_batch_do_not_meet():
    model, x = filled(LeMeViT(TOY)), picture(3, 3, 48, 80)
    with torch.inference_mode():
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-5, atol=1e-5)


def test_order_of_meta_tokens_does_not_matter():
    model, x = filled(LeMeViT(TOY)), picture(1, 3, 48, 80)
    shuffled = filled(LeMeViT(TOY))
    shuffled.meta_tokens.data = model.meta_tokens.data[torch.randperm(16, generator=torch.Generator().manual_seed(1))]
    with torch.inference_mode():
        torch.testing.assert_close(shuffled(x), model(x), rtol=1e-5, atol=1e-5)


def test_first_stage_hands_the_stem_on_untouched():
    block = LeMeViT(TOY).stages[0][0]
    x, meta = picture(2, 32, 6, 5), picture(2, 16, 32)
    same, updated = block(x, meta)
    assert same is x
    assert not torch.equal(updated, meta)


def test_image_tokens_are_views_of_channels_last_maps():
    seen = []

    def watch(_block: nn.Module, inputs: tuple[Tensor, Tensor], outputs: tuple[Tensor, Tensor]) -> None:
        for tokens_as_map in (inputs[0], outputs[0]):
            tokens = lemevit.as_tokens(tokens_as_map)
            seen.append(tokens.is_contiguous() and tokens.data_ptr() == tokens_as_map.data_ptr())

    model = LeMeViT(TOY).eval()
    for module in model.modules():
        if isinstance(module, Block):
            module.register_forward_hook(watch)
    with torch.inference_mode():
        model(picture(2, 3, 64, 96))
    assert seen == [True] * 2 * sum(TOY.depths)


@pytest.mark.parametrize("build", [LeMeViT, LeMeViTPyramid])
def test_every_parameter_gets_a_gradient(build):
    assert not _without_gradient(build(TOY), picture(2, 3, 64, 64))


@pytest.mark.parametrize(("indices", "last"), [((0,), 0), ((1, 0), 1), ((0, 1, 2), 2), ((-1,), 3), (2, 3), ((-4, 2), 2)])
def test_pyramid_builds_only_what_the_chosen_maps_need(indices, last):
    whole, part = filled(LeMeViTPyramid(TOY)), filled(LeMeViTPyramid(TOY, out_indices=indices))
    assert len(part.stages) == last + 2
    assert not _without_gradient(part, picture(2, 3, 64, 64))
    x = picture(1, 3, 64, 96)
    positions = [2, 3] if indices == 2 else list(indices)
    with torch.inference_mode():
        for found, position in zip(part(x), positions, strict=True):
            torch.testing.assert_close(found, whole(x)[position])
    assert part.feature_info.channels() == [TOY.dims[1:][i] for i in positions]
    assert part.feature_info.reduction() == [(4, 8, 16, 32)[i] for i in positions]


@pytest.mark.parametrize("indices", [(), (4,), (-5, 0), 0, 5, -1])
def test_maps_that_do_not_exist_are_refused(indices):
    with pytest.raises(ConfigError, match=r"4 feature maps: give positions 0 to 3 .* got"):
        LeMeViTPyramid(TOY, out_indices=indices)
    with pytest.raises(ConfigError, match=r"4 feature maps"):
        LeMeViT(TOY).forward_intermediates(picture(1, 3, 32, 32), indices=indices)


def _without_gradient(model: nn.Module, x: Tensor) -> list[str]:
    found = model(x)
    sum(o.square().mean() for o in (found if isinstance(found, list) else [found])).backward()
    return [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


@pytest.mark.parametrize("build", [LeMeViT, LeMeViTPyramid])
def test_checkpointing_gives_the_same_gradients(build):
    gradients = []
    for save_memory in (False, True):
        torch.manual_seed(0)
        model = build(replace(TOY, drop_path=0.3)).train()
        model.set_grad_checkpointing(save_memory)
        found = model(picture(4, 3, 64, 64))
        sum(o.square().mean() for o in (found if isinstance(found, list) else [found])).backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain, rtol=1e-5, atol=1e-7)


def test_drop_path_rises_linearly_from_the_first_block_to_the_last():
    model = LeMeViT(lemevit.tiny(drop_path=0.15))
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for stage in model.stages for block in stage]
    assert rates == pytest.approx([0.15 * i / 14 for i in range(15)])
    assert rates[1:5] == pytest.approx([0.0107, 0.0214, 0.0321, 0.0429], abs=5e-5)


def test_drop_path_acts_while_training_only():
    model, x = LeMeViT(replace(TOY, drop_path=0.5)), picture(8, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), model(x))
        model.downsample_layers.eval()
        torch.manual_seed(0)
        once, again = model.train()(x), model(x)
    assert not torch.equal(once, again)


@pytest.mark.parametrize("build", [LeMeViT, LeMeViTPyramid])
def test_bfloat16_is_close_to_float32(build):
    model, x = filled(build(TOY)), picture(2, 3, 64, 96)
    with torch.inference_mode():
        exact = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(x)
        cast = model.bfloat16()(x.bfloat16())
    for precise, *rough in zip(*(o if isinstance(o, list) else [o] for o in (exact, mixed, cast)), strict=True):
        assert rough[1].dtype is torch.bfloat16
        for values in rough:
            assert 0 < relative(values.float(), precise) < 0.03


# Attention


def naive(query: Tensor, key: Tensor, value: Tensor, *, heads: int, scale: float) -> Tensor:
    """Attention by its definition: (B, N, C), (B, M, C), (B, M, C) -> (B, N, C)."""
    parts = [t.chunk(heads, dim=-1) for t in (query, key, value)]
    return torch.cat([(scale * q @ k.mT).softmax(-1) @ v for q, k, v in zip(*parts, strict=True)], dim=-1)


N, M, DIM, HEADS = 784, 16, 128, 4
RATIO = math.log(M) / math.log(N)


def test_factors_of_the_worked_example():
    assert math.log(M) / math.log(N) == pytest.approx(0.4160, abs=5e-5)
    assert RATIO / math.sqrt(DIM) == pytest.approx(0.03677, abs=5e-6)  # S2 of tiny at 224 px
    assert math.log(16) / math.log(3136) / math.sqrt(64) == pytest.approx(0.04305, abs=5e-6)  # S1


@pytest.mark.parametrize(("scales", "scale"), [("official", 1 / math.sqrt(32)), ("paper", RATIO / math.sqrt(DIM))])
def test_meta_tokens_read_the_image_with_this_scale(scales, scale):
    module = nudge(MetaReadsImage(DIM, heads=HEADS, scales=SCALES[scales])).requires_grad_(False)
    tokens, meta = picture(2, N, DIM), picture(2, M, DIM, seed=1)
    key, value = module.kv(tokens).chunk(2, dim=-1)
    expected = module.proj(naive(module.q(meta), key, value, heads=HEADS, scale=scale))
    untouched, update = module(tokens, meta)
    assert untouched is None
    assert relative(update, expected) < 1e-5


@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize(("scales", "scale"), [("official", 1 / math.sqrt(DIM)), ("paper", RATIO / math.sqrt(DIM))])
def test_dual_attention_reads_both_ways_with_these_scales(scales, scale, answers):
    module = nudge(DualAttention(DIM, heads=HEADS, scales=SCALES[scales], answers=answers)).requires_grad_(False)
    tokens, meta = picture(2, N, DIM), picture(2, M, DIM, seed=1)
    query1, key1, value1 = module.qkv1(tokens).chunk(3, dim=-1)
    query2, key2, value2 = module.qkv2(meta).chunk(3, dim=-1)
    to_image, to_meta = module(tokens, meta)
    expected = module.proj_x(naive(query1, key2, value2, heads=HEADS, scale=RATIO / math.sqrt(DIM)))
    assert relative(to_image, expected) < 1e-5
    if answers:
        assert relative(to_meta, module.proj_c(naive(query2, key1, value1, heads=HEADS, scale=scale))) < 1e-5
    else:
        assert to_meta is None


@pytest.mark.parametrize(("scales", "scale"), [("official", 1 / math.sqrt(32)), ("paper", 1 / math.sqrt(DIM))])
def test_tokens_read_themselves_with_this_scale(scales, scale):
    module = nudge(SelfAttention(DIM, heads=HEADS, scales=SCALES[scales])).requires_grad_(False)
    tokens, meta = picture(2, 49, DIM), picture(2, M, DIM, seed=1)
    for update, read in zip(module(tokens, meta), (tokens, meta), strict=True):
        query, key, value = module.qkv(read).chunk(3, dim=-1)
        assert relative(update, module.proj(naive(query, key, value, heads=HEADS, scale=scale))) < 1e-5
    assert module(tokens, None)[1] is None


def test_scale_of_the_text_changes_the_result():
    x = picture(1, 3, 64, 96)
    by_code, by_text = (nudge(filled(LeMeViT(replace(TOY, attention_scale=s)))) for s in ("official", "paper"))
    with torch.inference_mode():
        assert relative(by_text(x), by_code(x)) > 1e-3


@pytest.mark.parametrize("scales", ["official", "paper"])
def test_meta_attention_is_what_the_fused_attention_used(scales):
    model, x = nudge(filled(LeMeViT(replace(TOY, attention_scale=scales)))), picture(2, 3, 64, 96)
    reads = []
    for stage in model.stages[:3]:
        for block in stage:
            block.attn.register_forward_hook(lambda module, inputs, outputs: reads.append((module, inputs[0], outputs[1])))
    with torch.inference_mode():
        found = model.meta_attention(x)
        for weights, (module, tokens, update) in zip(found, reads, strict=True):
            assert weights.shape == (2, module.heads, 16, *weights.shape[-2:])
            torch.testing.assert_close(weights.sum(dim=(-2, -1)), torch.ones(2, module.heads, 16))
            first_stage = isinstance(module, MetaReadsImage)
            value = (module.kv(tokens).chunk(2, -1) if first_stage else module.qkv1(tokens).chunk(3, -1))[-1]
            read = weights.flatten(-2) @ value.unflatten(-1, (module.heads, -1)).transpose(1, 2)
            project = module.proj if first_stage else module.proj_c
            assert relative(project(read.transpose(1, 2).flatten(2)), update) < 1e-5
    assert [w.shape[-2:] for w in found] == [(16, 24)] * 3 + [(8, 12)] * 2


def test_pyramid_has_the_attention_of_the_classifier():
    classifier, backbone, x = filled(LeMeViT(TOY)), filled(LeMeViTPyramid(TOY)), picture(2, 3, 64, 96)
    with torch.inference_mode():
        for name in ("meta_attention", "image_attention"):
            for ours, theirs in zip(getattr(backbone, name)(x), getattr(classifier, name)(x), strict=True):
                assert torch.equal(ours, theirs)


@pytest.mark.parametrize("build", [LeMeViT, LeMeViTPyramid])
def test_image_attention_is_the_softmax_over_meta_tokens_that_the_fused_attention_used(build):
    model, x = nudge(filled(build(TOY))), picture(2, 3, 64, 96)
    reads = []
    for stage in model.stages[1:3]:
        for block in stage:
            block.attn.register_forward_hook(lambda module, inputs, outputs: reads.append((module, *inputs, outputs[0])))
    with torch.inference_mode():
        found = model.image_attention(x)
        for weights, (module, tokens, meta, update) in zip(found, reads, strict=True):
            query = module.qkv1(tokens).chunk(3, dim=-1)[0].unflatten(-1, (module.heads, -1)).transpose(1, 2)
            _, key, value = (t.unflatten(-1, (module.heads, -1)).transpose(1, 2) for t in module.qkv2(meta).chunk(3, dim=-1))
            scale = math.log(16) / math.log(tokens.shape[1]) / math.sqrt(tokens.shape[-1])
            expected = (scale * query @ key.mT).softmax(dim=-1)
            assert relative(weights.flatten(-2).mT, expected) < 1e-5
            torch.testing.assert_close(weights.sum(dim=2), torch.ones(2, module.heads, *weights.shape[-2:]))
            read = weights.flatten(-2).mT @ value
            assert relative(module.proj_x(read.transpose(1, 2).flatten(2)), update) < 1e-5
    assert [w.shape[-2:] for w in found] == [(16, 24)] * 2 + [(8, 12)] * 2


# Configuration


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"dims": (32, 32, 64, 96, 100)}, r"dims must be multiples of head_dim 32, got \[100\]"),
        ({"meta_tokens": 1}, "meta_tokens must be at least 2, got 1"),
        ({"attention_scale": "papr"}, "attention_scale must be one of official, paper, got 'papr'"),
    ],
)
def test_impossible_sizes_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        replace(TOY, **setting)


@pytest.mark.parametrize("setting", [{"meta_tokens": 8}, {"head_dim": 16}, {"mlp_ratio": 2.0}, {"depths": (1, 2, 2, 2, 1)}])
def test_every_size_changes_the_result(setting):
    x = picture(1, 3, 64, 64)
    with torch.inference_mode():
        assert relative(filled(LeMeViT(replace(TOY, **setting)))(x), filled(LeMeViT(TOY))(x)) > 1e-4
