from dataclasses import replace

import pytest
import torch

from terralean.errors import ConfigError
from terralean.explain.show import what_to_show
from terralean.predict import Predictor
from terralean.tokens.tome import ToMeConfig

TOME = ToMeConfig(r=2)


@pytest.fixture
def both(predictor) -> Predictor:
    """A LeMeViT with a method."""
    described = replace(predictor.card, reduce=TOME)
    return Predictor(predictor.model, described, device=torch.device("cpu"), precision="fp32")


def test_tokens_are_shown_where_there_is_a_method_and_attention_elsewhere(both, predictor, reduced):
    nothing = {"show": None, "asked": []}
    assert what_to_show(both, **nothing, reduce="own") == "tokens"
    assert what_to_show(both, **nothing, reduce=TOME) == "tokens"
    assert what_to_show(reduced(TOME), **nothing, reduce="own") == "tokens"
    assert what_to_show(predictor, **nothing, reduce="own") == "attention"
    assert what_to_show(predictor, **nothing, reduce=None) == "attention"


def test_an_option_of_attention_asks_for_attention_and_a_wish_is_obeyed(both, predictor):
    assert what_to_show(both, show=None, asked=["--stage"], reduce="own") == "attention"
    assert what_to_show(both, show="attention", asked=[], reduce="own") == "attention"
    assert what_to_show(both, show="tokens", asked=[], reduce="own") == "tokens"
    assert what_to_show(predictor, show="tokens", asked=[], reduce="own") == "tokens"


@pytest.mark.parametrize(
    ("show", "asked", "reduce", "message"),
    [
        ("tokens", ["--stage", "--head"], "own", r"--stage and --head: only meta tokens have that; .* say --show attention"),
        (None, ["--by"], TOME, r"--by is of meta tokens, reduce.method=tome of those of the image; give one of them"),
        ("attention", [], TOME, r"reduce.method=tome does not change where meta tokens look; .* say --show tokens"),
        ("attention", ["--by"], TOME, r"reduce.method=tome does not change where meta tokens look"),
    ],
)
def test_what_does_not_go_together_is_refused(both, show, asked, reduce, message):
    with pytest.raises(ConfigError, match=message):
        what_to_show(both, show=show, asked=asked, reduce=reduce)


def test_a_run_with_neither_is_told_what_has_one(reduced):
    with pytest.raises(ConfigError, match=r"segvit has nothing that can be shown: .*=tome, .* lemevit_tiny_light"):
        what_to_show(reduced(None), show=None, asked=[], reduce="own")
