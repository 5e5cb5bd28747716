"""What is told of a method can be given back to the command line."""

import pytest

from terralean import recipes
from terralean.tokens import Reduction
from terralean.tokens.algm import ALGMConfig
from terralean.tokens.matp import GateConfig, MATPConfig
from terralean.tokens.settings import settings, words
from terralean.tokens.tome import ToMeConfig
from terralean.tokens.topk import TopKConfig


def test_settings_are_told_where_they_differ():
    assert settings(MATPConfig()) == ()
    assert settings(MATPConfig(after=(3, 6, 8), alpha=1.0)) == ("after=[3,6,8]", "alpha=1.0")
    assert words(TopKConfig(after=(2, 4), counts=(8, 2))) == "topk after=[2,4] counts=[8,2]"
    assert (words(ALGMConfig()), words(None)) == ("algm", "none")


@pytest.mark.parametrize(
    "reduce", [ToMeConfig(r=3), MATPConfig(after=(2,), gate=GateConfig(p=0.5)), TopKConfig(after=(2, 4), shares=(0.5, 0.25))]
)
def test_they_are_read_back(reduce: Reduction):
    given = [f"reduce.method={reduce.method}", *(f"reduce.{one}" for one in settings(reduce))]
    assert recipes.reduction(given) == reduce
