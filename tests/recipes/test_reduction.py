"""The section `reduce:` of a recipe, and the same keys where a run is used."""

from dataclasses import fields

import pytest
import yaml

from terralean import recipes
from terralean.errors import ConfigError, TerraleanError, UnknownName
from terralean.tokens import REDUCERS
from terralean.tokens.dtop import DToPConfig
from terralean.tokens.matp import GateConfig, MATPConfig
from terralean.tokens.tome import ToMeConfig
from terralean.train.config import to_yaml


@pytest.mark.parametrize("method", REDUCERS)
def test_every_method_has_its_name_first_and_as_its_default(method):
    first = fields(REDUCERS[method])[0]
    assert (first.name, first.default) == ("method", method)


def test_a_recipe_names_a_method_and_its_settings():
    experiment = recipes.read(
        "vit_tiny_segvit", changes=["reduce.method=matp", "reduce.after=[3, 6, 8]", "reduce.gate={p: 0.3}", "reduce.alpha=1"]
    )
    assert experiment.reduce == MATPConfig(after=(3, 6, 8), gate=GateConfig(p=0.3), alpha=1.0)
    assert recipes.parse(yaml.safe_load(to_yaml(experiment)), source="its own") == experiment


def test_without_a_method_the_text_of_a_recipe_is_as_before():
    assert "reduce" not in to_yaml(recipes.read("vit_tiny_segvit"))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (["reduce.method=mapt"], UnknownName, "no reduce.method 'mapt'; nearest: matp"),
        (["reduce.alpha=1"], ConfigError, "reduce: has no method; set reduce.method to one of matp, random"),
        (["reduce.method=matp", "reduce.alfa=1"], ConfigError, "no setting reduce.alfa; nearest: reduce.alpha"),
        (["reduce.method=matp", "reduce.gate.q=1"], ConfigError, "no setting reduce.gate.q; nearest: reduce.gate"),
        (["reduce.method=matp", "reduce.alpha=x"], ConfigError, "reduce.alpha: Input should be a valid number"),
        (["reduce=tome"], ConfigError, "reduce must be a section with keys, got 'tome'"),
        (["reduce.method=tome", "reduce.fraction=2"], ConfigError, "reduce.fraction must be from 0 to 0.5, got 2"),
    ],
)
def test_what_is_no_method_is_refused(changes, error, message):
    with pytest.raises(error) as found:
        recipes.read("vit_tiny_segvit", changes=changes)
    assert message in str(found.value)


def test_another_method_takes_the_whole_section():
    changes = ["reduce.method=tome", "reduce.r=8"]
    with pytest.raises(ConfigError) as found:
        recipes.read("loveda_vit_base_matp", changes=changes)
    assert str(found.value) == (
        "loveda_vit_base_matp: reduce.after: of its method matp, not of tome; say --set 'reduce={method: tome}', "
        "which replaces the whole section, in place of --set reduce.method=tome"
    )
    changes[0] = "reduce={method: tome}"
    assert recipes.read("loveda_vit_base_matp", changes=changes).reduce == ToMeConfig(r=8)


def test_keys_that_both_methods_have_stay():
    experiment = recipes.read("loveda_vit_base_matp", changes=["reduce.method=dtop"])
    assert experiment.reduce == DToPConfig(after=(3, 6, 8))


def test_a_forest_has_no_tokens():
    with pytest.raises(TerraleanError, match="reduce: of no meaning for a forest"):
        recipes.read("random_forest", changes=["reduce.method=tome"])


def test_scene_recognition_has_no_such_section():
    with pytest.raises(ConfigError, match="no setting reduce"):
        recipes.read("ucm82_lemevit_tiny", changes=["reduce.method=tome"])


def test_a_run_is_used_with_its_own_method_another_or_none():
    assert recipes.reduction([]) == "own"
    assert recipes.reduction(["reduce=null"]) is None
    assert recipes.reduction(["reduce.method=tome", "reduce.mode=sublayer"]) == ToMeConfig(mode="sublayer")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["train.lr=1"], "--set train: only reduce.key=value has a meaning here"),
        (["reduce=tome"], "write reduce.method=tome, or reduce=null for none"),
        (["reduce.method=tome", "reduce.alpha=1"], "no setting reduce.alpha"),
    ],
)
def test_other_keys_are_refused_where_a_run_is_used(changes, message):
    with pytest.raises(ConfigError, match=message):
        recipes.reduction(changes)
