"""Recipes of publications: what their headers say can be done with them."""

import re
from importlib.resources import files

import pytest

from terralean import recipes
from terralean.data.familiar import PALETTES
from terralean.data.legend import rgb

DENSE = [name for name in recipes.names() if name.startswith(("potsdam6_", "loveda_", "fbp_"))]


@pytest.mark.parametrize("name", DENSE)
def test_a_dense_recipe_becomes_one_that_prunes_by_the_settings_of_its_header(name):
    header = files(recipes).joinpath(f"{name}.yaml").read_text().partition("task: segmentation")[0]
    (line,) = [line for line in header.splitlines() if "reduce.method" in line]
    changes = [quoted or plain for quoted, plain in re.findall(r'--set (?:"(.+?)"|(\S+))', line)]
    assert changes == ["reduce.method=matp", "reduce.after=[3, 6, 8]"]
    pruned = recipes.read(name, changes=changes)
    assert recipes.read(name).reduce is None
    assert (pruned.reduce.method, pruned.reduce.after) == ("matp", (3, 6, 8))


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
