"""Recipes of publications: what their headers say can be done with them."""

from dataclasses import replace
from importlib.resources import files

import pytest

from terralean import recipes
from terralean.data.familiar import PALETTES
from terralean.data.legend import rgb

DENSE = [name for name in recipes.names() if name.startswith(("potsdam6_", "loveda_", "fbp_")) and "matp" not in name]


@pytest.mark.parametrize("name", DENSE)
def test_the_recipe_that_prunes_is_the_dense_one_with_a_method(name):
    other = name.replace("segvit", "matp").replace("upernet", "matp")
    assert f"With their token pruning: {other}." in files(recipes).joinpath(f"{name}.yaml").read_text()
    dense, pruned = recipes.read(name), recipes.read(other)
    assert dense.reduce is None
    assert (pruned.reduce.method, pruned.reduce.after) == ("matp", (3, 6, 8))
    sizes = {**dense.model.sizes, **({"auxiliary": False} if "swin" in name else {})}
    assert pruned == replace(dense, reduce=pruned.reduce, model=replace(dense.model, sizes=sizes))


@pytest.mark.parametrize("name", DENSE)
def test_names_and_colours_are_those_of_the_publisher(name):
    data = recipes.read(name).data
    palette = next(
        one for one in PALETTES if name.startswith({"ISPRS Potsdam": "potsdam6", "LoveDA": "loveda"}.get(one.name, "fbp"))
    )
    known = {**palette.classes, **palette.ignored}
    assert [known[rgb(colour)] for colour in data.colours] == list(data.classes)
    assert len(data.classes) == {"potsdam6": 6, "loveda": 7, "fbp": 24}[name.partition("_")[0]]


def test_two_recipes_differ_in_the_model_alone_on_each_data_set():
    assert len(DENSE) == 6
    for kind in ("potsdam6", "loveda", "fbp"):
        one, other = recipes.read(f"{kind}_vit_base_segvit"), recipes.read(f"{kind}_swin_tiny_upernet")
        assert (one.data, one.train, one.tiling) == (other.data, other.train, other.tiling)
