"""One pass gives both scores and what was done for them, in every network that reduces tokens."""

from functools import cache

import pytest
import timm
import torch
from torch import nn

from terralean.layers.segmenter import Segmenter
from terralean.models.lemevit import LeMeViTConfig, LeMeViTPyramid
from terralean.models.light import LightHead
from terralean.models.segvit import segvit
from terralean.models.swin import SwinPyramid
from terralean.tokens.algm import ALGMConfig
from terralean.tokens.elvit import ELViTConfig
from terralean.tokens.matp import AuxiliaryConfig, MATPConfig
from terralean.tokens.sparsevit import SparseViTConfig
from terralean.tokens.tome import ToMeConfig
from terralean.tokens.topk import TopKConfig
from weights import fill, image

TOY = LeMeViTConfig(depths=(1, 1, 1, 4, 1), dims=(32, 32, 32, 64, 64), bands=3)
AUX = AuxiliaryConfig(width=24, heads=3)


def lemevit():
    return Segmenter(LeMeViTPyramid(TOY), LightHead(TOY.dims[1:], classes=3, width=16), classes=3)


def vit():
    return segvit(bands=3, classes=3, backbone="vit_tiny_patch16_224", image_px=64, decoder_width=48, decoder_layers=1)


@cache
def swin():
    """A third as wide as Swin-T."""
    name, widths = "swin_tiny_patch4_window7_224", (32, 64, 128, 256)
    with torch.device("meta"):
        backbone = SwinPyramid(name, bands=3, drop_path=0.0)
    sizes = {"embed_dim": widths[0], "num_heads": (1, 2, 4, 8), "drop_path_rate": 0.0}
    backbone.body = timm.create_model(name, features_only=True, strict_img_size=False, always_partition=True, **sizes)
    backbone.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
    return Segmenter(backbone, LightHead(widths, classes=3, width=16), classes=3)


CASES = {
    "lemevit, top k": (lemevit, TopKConfig(after=(1, 3), shares=(0.6, 0.5)), 4),
    "lemevit, matp": (lemevit, MATPConfig(after=(1, 3), alpha=0.3, beta=1.0, aux=AUX), 4),
    "lemevit, tome": (lemevit, ToMeConfig(r=(0, 4, 2, 0)), 4),
    "lemevit, elvit": (lemevit, ELViTConfig(after=(2,), side=0.5), 4),
    "vit, top k": (vit, TopKConfig(after=(3, 6, 8), shares=(0.6, 0.5, 0.5)), 12),
    "vit, algm": (vit, ALGMConfig(after=(2, 7), threshold=0.2), 12),
    "swin, top k": (swin, TopKConfig(after=(3, 6, 8), shares=(0.6, 0.5, 0.5)), 12),
    "swin, sparsevit": (swin, SparseViTConfig(), 12),
    "swin, elvit": (swin, ELViTConfig(after=(3, 6), temperature=0.3), 12),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    build, config, layers = CASES[request.param]
    torch.manual_seed(0)
    model = build()
    model.reduce_tokens(config)
    if build is not swin:
        model.load_state_dict(fill(model.state_dict()))
    return model.eval(), layers


def test_scores_are_those_of_a_pass_without_a_record(case):
    model, layers = case
    x = torch.from_numpy(image(0, (2, 3, 64, 96)))
    with torch.inference_mode():
        traced = model.traced(x)
        assert torch.equal(traced.scores, model(x))
        for ours, theirs in zip(traced.record, model.trace(x), strict=True):
            assert ours.layer == theirs.layer and torch.equal(ours.left, theirs.left)
    assert traced.layers == layers


def test_the_work_is_that_of_the_tokens_left_layer_by_layer(case):
    model, layers = case
    with torch.inference_mode():
        traced = model.traced(torch.from_numpy(image(1, (2, 3, 128, 128))))
    assert all(point.layers >= 0 for point in traced.record)
    assert sum(point.layers for point in traced.record) <= layers
    work = traced.work(height=128, width=128)
    spared = torch.stack([point.layers * (1 - point.share) for point in traced.record]).sum(dim=0)
    found, expected = work.mean(dim=(1, 2)).double(), 1 - spared / layers
    if isinstance(model.reduce, ELViTConfig):  # clusters that are nearest to no token are left all the same
        assert (found < expected + 1e-5).all()
    else:
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert 0 <= float(work.min()) < 0.999 and float(work.max()) <= 1


def test_an_image_of_any_size_has_work_for_each_pixel(case):
    model, _ = case
    with torch.inference_mode():
        work = model.traced(torch.from_numpy(image(2, (1, 3, 75, 110)))).work(height=75, width=110)
    assert work.shape == (1, 75, 110)
    assert float(work.min()) >= 0 and float(work.max()) <= 1
