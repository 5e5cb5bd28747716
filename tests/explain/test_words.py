from dataclasses import replace

import pytest

from terralean.explain.numbers import BlockNumbers, MapNumbers
from terralean.explain.words import differences, look_at_heads

ONE = MapNumbers(number=3, entropy_bits=5, entropy_share=0.5, half=0.1, ninety=0.5, read=None, closest=None, cosine=None)
BLOCK = BlockNumbers(
    stage=2,
    block=0,
    by="token",
    grid=8,
    distinct=1.04,
    averaged=4,
    distinct_averaged=3.82,
    without_data=0.0,
    maps=(ONE, ONE),
    cosine=((1, 1), (1, 1)),
)


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (BLOCK, "2 tokens have 1.0 different maps, 4 heads 3.8"),
        (replace(BLOCK, by="head"), "2 heads have 1.0 different maps, 4 tokens 3.8"),
        (replace(BLOCK, averaged=1, distinct_averaged=None), "2 tokens have 1.0 different maps"),
        (replace(BLOCK, maps=(ONE,)), "1 token has its map, 4 heads 3.8"),
    ],
)
def test_how_many_different_maps_there_are(block, text):
    assert differences(block) == text


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({}, True),
        ({"distinct_averaged": 1.5}, False),
        ({"distinct_averaged": None}, False),
        ({"by": "head"}, False),
        ({"without_data": None}, False),  # of all tokens together a head reads the same everywhere
    ],
)
def test_heads_are_hinted_at_where_they_differ_clearly_more_than_tokens(change, hint):
    assert look_at_heads(replace(BLOCK, **change)) == hint
