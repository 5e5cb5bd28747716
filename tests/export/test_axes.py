from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_networks import make_card

from terralean.errors import ConfigError
from terralean.export.axes import check_model, free_axes, prepare_reduction
from terralean.export.graph import NOTHING, ONLY_BATCH, Free
from terralean.models import create
from terralean.tokens.algm import ALGMConfig
from terralean.tokens.chance import RandomConfig
from terralean.tokens.elvit import ELViTConfig
from terralean.tokens.matp import AuxiliaryConfig, MATPConfig
from terralean.tokens.sparsevit import SparseViTConfig
from terralean.tokens.tome import ToMeConfig
from terralean.tokens.topk import TopKConfig

CARD = make_card()


def built(name: str, reduce: Any = None, **sizes: Any) -> torch.nn.Module:
    with torch.device("meta"):
        return create(name, bands=4, classes=3, reduce=reduce, **sizes).eval()


@pytest.mark.parametrize(
    ("name", "sizes", "shrink", "free"),
    [
        ("lemevit_tiny_light", {}, 1, Free(step_px=1, least_px=33)),
        ("lemevit_tiny_light", {}, 2, Free(step_px=2, least_px=66)),
        ("light", {"backbone": "test_resnet"}, 1, Free(step_px=32, least_px=64)),
        ("light", {"backbone": "test_resnet"}, 3, Free(step_px=96, least_px=192)),
        ("segvit", {"backbone": "test_vit", "decoder_width": 48, "decoder_heads": 3}, 1, Free(step_px=16, least_px=32)),
        ("unet_resnet18", {}, 1, Free(step_px=32, least_px=64)),
    ],
)
def test_sizes_that_are_tried_first(name, sizes, shrink, free):
    assert free_axes(built(name, **sizes), replace(CARD, shrink=shrink)) == [free, ONLY_BATCH, NOTHING]


def test_swin_has_windows_of_one_map():
    assert free_axes(built("swin_tiny_upernet"), CARD) == [ONLY_BATCH, NOTHING]


@pytest.mark.parametrize(("way", "first"), [("windows", ONLY_BATCH), ("meta", Free(least_px=33))])
def test_windows_in_lemevit_are_counted_when_the_graph_is_made(way, first):
    sizes = {"s3_attention": way}
    assert free_axes(built("lemevit_tiny_light", **sizes), replace(CARD, sizes=sizes))[0] == first


def test_whole_images_may_have_any_size():
    assert free_axes(built("small_cnn"), replace(CARD, task="classification", seen_px=32))[0] == Free(least_px=2)


def test_with_token_reduction_height_and_width_are_those_of_the_tile():
    card = replace(CARD, reduce=TopKConfig(after=(2,), shares=(0.5,)))
    assert free_axes(built("lemevit_tiny_light", reduce=card.reduce), card) == [ONLY_BATCH, NOTHING]


@pytest.mark.parametrize(
    "reduce",
    [
        None,
        TopKConfig(after=(2,), shares=(0.5,)),
        ELViTConfig(after=(2,)),
        ToMeConfig(mode="sublayer"),
    ],
)
def test_methods_of_fixed_shapes_stay_as_they_are(reduce):
    model = built("lemevit_tiny_light", reduce=reduce)
    assert prepare_reduction(model, replace(CARD, reduce=reduce)) is None
    assert model.execution == "packed"
    assert prepare_reduction(model, replace(CARD, reduce=SparseViTConfig())) is None


def test_methods_that_go_by_values_are_masked():
    reduce = MATPConfig(after=(2, 4), aux=AuxiliaryConfig(width=24, heads=3))
    model = built("lemevit_tiny_light", reduce=reduce)
    assert prepare_reduction(model, replace(CARD, reduce=reduce)).startswith("matp: the graph masks tokens")
    assert model.execution == "masked"
    reduced = TopKConfig(after=(6, 8), shares=(0.5, 0.5))
    windows = built("swin_tiny_upernet", reduce=reduced)
    note = "topk: the graph masks tokens, so that answers are the run's own and nothing is saved"
    assert prepare_reduction(windows, replace(CARD, reduce=reduced)) == note
    assert windows.execution == "masked"
    plain = built("segvit", backbone="test_vit", reduce=reduce, decoder_width=48, decoder_heads=3)
    prepare_reduction(plain, replace(CARD, reduce=reduce))
    assert plain.config.execution == "masked"


@pytest.mark.parametrize("reduce", [ToMeConfig(r=3), ALGMConfig(after=(1, 3)), RandomConfig(after=(2,), shares=(0.5,))])
def test_methods_whose_shapes_depend_on_the_image_are_refused(reduce):
    with pytest.raises(ConfigError, match=f"reduce.method={reduce.method} makes shapes that depend on the image"):
        prepare_reduction(torch.nn.Identity(), replace(CARD, reduce=reduce))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "forest"}, "a random forest goes from node to node, which graphs of networks cannot hold"),
        ({"task": "spectral"}, "painter was trained for spectral; models for segmentation, classification, detection can be"),
    ],
)
def test_what_no_graph_can_hold(changes, message):
    with pytest.raises(ConfigError, match=message):
        check_model(replace(CARD, **changes))
