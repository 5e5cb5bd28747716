"""A folded LeMeViT is the same function with fewer products."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from terralean.cost.macs import count_macs_at
from terralean.models import create, lean, lemevit
from terralean.models.lemevit import LeMeViT, LeMeViTConfig, LeMeViTPyramid
from weights import fill, image

GOLDEN = Path(__file__).parents[1] / "golden"
SIZES = {"tiny": lemevit.tiny, "tiny_d7": lemevit.tiny_d7, "small": lemevit.small, "base": lemevit.base}
TOY = LeMeViTConfig(depths=(1, 2, 2, 1, 1), dims=(32, 32, 64, 96, 128), classes=5)
VARIANTS = [
    {},
    {"stages": "-DDSS"},
    {"stages": "CSSSS"},
    {"meta_stem": "none"},
    {"attention_scale": "paper"},
    {"meta_tokens": 2},
    {"meta_tokens": 64},
    {"fusion": "tokens"},
    {"s3_attention": "windows", "s3_window_px": 32},
    {"s3_attention": "meta"},
    {"s3_attention": "meta", "meta_tokens": 64},
]


def picture(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(image(seed, shape))


def filled(model: nn.Module) -> nn.Module:
    model.load_state_dict(fill(model.state_dict()))
    return model.eval()


def nudged(model: nn.Module) -> nn.Module:
    """Weights large enough for attention to prefer some tokens."""
    with torch.no_grad():
        for weight in filled(model).parameters():
            weight.mul_(2)
    return model


def relative(ours, theirs) -> float:
    return float(np.linalg.norm(np.asarray(ours) - np.asarray(theirs)) / np.linalg.norm(np.asarray(theirs)))


def outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    with torch.inference_mode():
        found = model(x)
    return found if isinstance(found, list) else [found]


@pytest.mark.parametrize("case", ["0/2x3x224x224", "1/1x3x256x320"])
@pytest.mark.parametrize("size", ["tiny", "small", pytest.param("base", marks=pytest.mark.slow)])
def test_logits_and_maps_equal_those_of_the_authors(size, case):
    golden = np.load(GOLDEN / "lemevit.npz")
    seed, shape = case.split("/")
    x = picture(*map(int, shape.split("x")), seed=int(seed))
    classifier, backbone = (filled(build(SIZES[size]())).fold() for build in (LeMeViT, LeMeViTPyramid))
    assert relative(outputs(classifier, x)[0], golden[f"{size}/{case}/logits"]) < 1e-5
    for stage, found in enumerate(outputs(backbone, x), start=1):
        assert relative(found.double().numpy()[:, :8, :4, :4], golden[f"{size}/{case}/stage{stage}/corner"]) < 1e-5


@pytest.mark.parametrize("shape", [(2, 3, 64, 96), (1, 3, 1, 1), (2, 3, 33, 57)])
@pytest.mark.parametrize("varied", VARIANTS, ids=str)
@pytest.mark.parametrize("build", [LeMeViT, LeMeViTPyramid])
def test_every_variant_gives_the_same_for_any_image(build, varied, shape):
    if build is LeMeViTPyramid and varied.get("stages") == "CSSSS":
        pytest.skip("there is no such pyramid")
    model, x = nudged(build(replace(TOY, **varied))), picture(*shape)
    for ours, expected in zip(outputs(model.fold(), x), outputs(model, x), strict=True):
        assert relative(ours, expected) < 1e-5


@pytest.mark.parametrize("bands", [1, 2, 12])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels-last"])
def test_images_of_any_bands_and_layout(bands, layout):
    model = nudged(LeMeViT(replace(TOY, bands=bands)))
    x = picture(2, bands, 64, 96).to(memory_format=layout)
    for ours, expected in zip(outputs(model.fold(), x), outputs(model, x), strict=True):
        assert relative(ours, expected) < 1e-5


@pytest.mark.parametrize("indices", [(0,), (1, 0), (0, 1, 2)])
def test_a_pyramid_of_fewer_maps_gives_the_same(indices):
    model, x = nudged(LeMeViTPyramid(TOY, out_indices=indices)), picture(2, 3, 64, 96)
    for ours, expected in zip(outputs(model.fold(), x), outputs(model, x), strict=True):
        assert relative(ours, expected) < 1e-5


@pytest.mark.parametrize(("name", "norms"), [("lemevit_tiny_light", 0), ("lemevit_tiny_upernet", 13)])
def test_a_segmenter_gives_the_same(name, norms):
    """Norms that stay are those of UPerNet's head and auxiliary head, which do more than follow a convolution."""
    model, x = filled(create(name, bands=4, classes=3)), picture(1, 4, 64, 96)
    folded = model.fold()
    assert relative(outputs(folded, x)[0], outputs(model, x)[0]) < 1e-5
    assert len([part for part in folded.modules() if isinstance(part, nn.BatchNorm2d)]) == norms


@pytest.mark.parametrize("build", [LeMeViT, LeMeViTPyramid])
def test_neither_the_model_nor_the_image_is_changed(build):
    model, x = nudged(build(TOY)), picture(2, 3, 64, 96)
    state, drawn = copy.deepcopy(model.state_dict()), x.clone()
    before, folded = outputs(model, x), model.fold()
    first = [found.clone() for found in outputs(folded, x)]
    again = outputs(folded, x)
    assert torch.equal(x, drawn)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    for one, other in [*zip(first, again, strict=True), *zip(before, outputs(model, x), strict=True)]:
        assert torch.equal(one, other)


def test_a_model_in_training_stays_so():
    model = LeMeViT(TOY).train()
    folded = model.fold()
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert not folded.training
    model(picture(2, 3, 32, 32)).sum().backward()


def test_maps_of_earlier_stages_stand_when_later_ones_are_made():
    """Blocks write into memory: never into a map that is given out."""
    model, x = nudged(LeMeViT(replace(TOY, depths=(1, 1, 1, 1, 1)))), picture(2, 3, 64, 96)
    with torch.inference_mode():
        for ours, expected in zip(model.fold().pyramid(x), model.pyramid(x), strict=True):
            assert relative(ours, expected) < 1e-5
        first_stage = model.fold().stages[0][0]
        given, meta = picture(2, 32, 6, 5), picture(2, 16, 32)
        kept = given.clone(), meta.clone()
        same, _ = first_stage(given, meta)
    assert same is given
    assert torch.equal(given, kept[0])
    assert torch.equal(meta, kept[1])


def test_attention_can_be_seen_as_before():
    model, x = nudged(LeMeViT(TOY)), picture(2, 3, 64, 96)
    folded = model.fold()
    with torch.inference_mode():
        for name in ("meta_attention", "image_attention"):
            for ours, expected in zip(getattr(folded, name)(x), getattr(model, name)(x), strict=True):
                assert relative(ours, expected) < 1e-5


@pytest.mark.parametrize("slice_bytes", [1, 1000, 2**40])
def test_how_many_tokens_pass_at_once_does_not_matter(monkeypatch, slice_bytes):
    model, x = nudged(LeMeViT(TOY)), picture(2, 3, 64, 96)
    expected = outputs(model, x)[0]
    monkeypatch.setattr(lean, "SLICE_BYTES", slice_bytes)
    assert relative(outputs(model.fold(), x)[0], expected) < 1e-5


@pytest.mark.parametrize(("meta_tokens", "per_token"), [(8, 4 * 8 * 2), (16, 4 * 16 * 2), (64, 4 * 64 + 4 * 64)])
def test_dual_attention_takes_the_products_that_are_fewer(meta_tokens, per_token):
    """Per image token and channel of a block with 64 channels, two heads: 4 M heads, or 4 C + 4 M as the paper has it."""
    counts = []
    for height in (128, 256):  # the difference is what image tokens cost, without what meta tokens do
        config = LeMeViTConfig(depths=(0, 1, 0, 0, 0), dims=(64, 64, 64, 64, 64), classes=0, meta_tokens=meta_tokens)
        counts.append(count_macs_at(LeMeViT(config).fold(), (1, 3, height, 128)))
    tokens = 32 * 32
    layers_else = 9 * 64 + 8 * 64**2 + 4 * (3 * 9 * 32 + 32 * 9 * 64 / 4) + 64**2 * 9 * (1 / 4 + 1 / 16 + 1 / 64)
    found = (counts[1].total - counts[0].total) / tokens - layers_else
    assert found / 64 == pytest.approx(per_token, rel=1e-6)


def test_bfloat16_is_close_to_float32():
    model, x = filled(LeMeViT(TOY)), picture(2, 3, 64, 96)
    exact = outputs(model, x)[0]
    (rough,) = outputs(copy.deepcopy(model).bfloat16().fold(), x.bfloat16())
    assert rough.dtype is torch.bfloat16
    assert 0 < relative(rough.float(), exact) < 0.03


@pytest.mark.slow
def test_compiled_it_gives_the_same():
    model, x = nudged(LeMeViT(replace(TOY, depths=(1, 1, 0, 1, 0)))), picture(2, 3, 64, 96)
    compiled = torch.compile(model.fold())
    with torch.no_grad():
        assert relative(compiled(x), model(x)) < 1e-5
