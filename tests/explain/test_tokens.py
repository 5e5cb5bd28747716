from dataclasses import replace

import numpy as np
import pytest
import torch

from terralean.errors import ConfigError
from terralean.explain.tokens import Tracer
from terralean.predict import Predictor
from terralean.tokens.algm import ALGMConfig
from terralean.tokens.dtop import DToPConfig
from terralean.tokens.elvit import ELViTConfig
from terralean.tokens.matp import MATPConfig
from terralean.tokens.tome import ToMeConfig
from terralean.tokens.topk import TopKConfig


def window(side: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.rand(3, side, side, generator=torch.Generator().manual_seed(1)) * 255
    return values, torch.ones(side, side, dtype=torch.bool)


@pytest.mark.parametrize("counts", [(9, 4), (16, 1)])
def test_tokens_that_go_on_are_those_of_the_models_trace(counts, reduced):
    tracer = Tracer(reduced(TopKConfig(after=(2, 4), counts=counts)))
    values, valid = window()
    found = tracer(values, valid)
    assert not found.merges
    assert [(point.layer, point.left, point.codes.sum()) for point in found.points] == [
        (2, counts[0], counts[0]),
        (4, counts[1], counts[1]),
    ]
    seen = tracer.predictor.normalise(values[None], valid[None])
    for mine, theirs in zip(found.points, tracer.predictor.model.trace(seen), strict=True):
        np.testing.assert_array_equal(mine.codes, theirs.alive[0].numpy())
    assert (found.points[1].codes <= found.points[0].codes).all()


@pytest.mark.parametrize(
    ("config", "left"),
    [
        (ToMeConfig(r=(0, 4, 0, 3, 0, 0)), {2: 12, 4: 9}),
        (ELViTConfig(after=(3,), side=0.5), {3: 4}),
        (ALGMConfig(after=(2,), threshold=-1.0), {2: 4}),
    ],
)
def test_groups_are_numbered_and_as_many_as_are_left(config, left, reduced):
    found = Tracer(reduced(config))(*window())
    assert found.merges
    assert {point.layer: point.left for point in found.points} == left
    for point in found.points:
        assert len(np.unique(point.codes)) <= point.left
        assert point.codes.shape == (4, 4)


def test_layers_that_no_token_comes_to_keep_none(reduced):
    nothing = DToPConfig(after=(1, 2, 4), confidence=0.0, context=0)
    found = Tracer(reduced(nothing))(*window())
    assert [(point.layer, point.left, point.codes.sum()) for point in found.points] == [(1, 0, 0), (2, 0, 0), (4, 0, 0)]


def test_a_run_without_a_method_is_told_what_would_show_something(reduced):
    with pytest.raises(ConfigError, match=r"segvit takes no tokens out .* --set reduce.method=tome, or train with .*=matp"):
        Tracer(reduced(None))


@pytest.mark.parametrize("config", [ToMeConfig(mode="sublayer"), ToMeConfig(r=0)])
def test_a_method_that_leaves_nothing_merged_is_told_so(config, reduced):
    with pytest.raises(ConfigError, match=r"tome leaves no token merged as it is set: .* --set reduce.mode=progressive"):
        Tracer(reduced(config))(*window())


def test_a_predictor_that_shrinks_decides_on_what_the_model_sees(reduced):
    config = MATPConfig(after=(2,))
    whole, half = reduced(config), reduced(config, shrink=2)
    values, valid = window(128)
    small = torch.nn.functional.avg_pool2d(values, 2)
    np.testing.assert_array_equal(
        Tracer(half)(values, valid).points[0].codes, Tracer(whole)(small, valid[::2, ::2]).points[0].codes
    )
    assert Tracer(half).side_seen(128) == 64


def test_the_side_of_a_token_is_the_patch_of_a_plain_transformer_and_a_power_of_two_elsewhere(predictor, reduced):
    vit = Tracer(reduced(ToMeConfig()))
    assert vit.token_px(seen_px=105, side=7) == 16
    described = replace(predictor.card, reduce=ToMeConfig())
    pyramid = Tracer(Predictor(predictor.model, described, device=torch.device("cpu"), precision="fp32"))
    assert [pyramid.token_px(seen_px=seen, side=side) for seen, side in ((64, 4), (100, 7), (64, 2), (64, 1))] == [
        16,
        16,
        32,
        64,
    ]
