"""Recipes of hyperspectral scenes."""

import pytest

from terralean import recipes

SPECTRAL = [name for name in recipes.names() if name.startswith("spectral_")]
NETWORKS = ("spectral_lola", "spectral_ssftt", "spectral_hybridsn")


def test_what_is_compared_learns_from_the_same_pixels():
    data = recipes.read("spectral_lola").data
    for name in (*NETWORKS, "spectral_svm", "spectral_svm_context"):
        assert recipes.read(name).data == data
    assert len({recipes.read(name).train for name in NETWORKS}) == 1


@pytest.mark.parametrize("name", [name for name in SPECTRAL if name not in ("spectral_svm", "spectral_svm_context")])
def test_one_default_serves_all_scenes(name):
    found, default = recipes.read(name), recipes.read("spectral_lola")
    assert found.train == default.train
    if name not in NETWORKS:
        assert found.model == default.model


@pytest.mark.parametrize("scene", ["salinas", "longkou", "honghu"])
def test_shares_are_those_of_the_paper(scene):
    shares = [recipes.read(f"spectral_{scene}_{percent}").data.split for percent in (2, 5, 10)]
    assert [(split.method, split.share) for split in shares] == [("random", 0.02), ("random", 0.05), ("random", 0.1)]
