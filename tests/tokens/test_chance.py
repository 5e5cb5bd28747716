import pytest
import torch

from terralean.errors import ConfigError
from terralean.tokens.chance import RandomConfig, counts_of_shares, draw, draw_line, generators, keep_random


def test_each_image_keeps_its_own_number():
    draws = draw(generators([1, 2, 3, 4], seed=0), tokens=50)
    there = torch.rand(4, 50, generator=torch.Generator().manual_seed(0)) < 0.6
    counts = torch.tensor([0, 7, 20, 50])
    found = keep_random(draws, there, counts)
    assert not (found & ~there).any()
    assert torch.equal(found.sum(dim=1), torch.minimum(counts, there.sum(dim=1)))


def test_every_token_is_as_likely():
    """4000 images that keep 3 of 12: each token stays 1000 times, give or take four deviations of 27."""
    draws = draw(generators(range(4000), seed=0), tokens=12)
    found = keep_random(draws, None, torch.full((4000,), 3)).sum(dim=0)
    assert int(found.sum()) == 12_000
    assert (found - 1000).abs().max() < 110


def test_an_image_is_drawn_for_by_its_own_seed():
    together = draw(generators([5, 6, 7], seed=1), tokens=9)
    assert torch.equal(together[1:2], draw(generators([6], seed=1), tokens=9))
    assert not torch.equal(together[1:2], draw(generators([6], seed=2), tokens=9))
    assert len({tuple(row) for row in together.tolist()}) == 3


def test_shares_are_rounded_to_whole_tokens():
    assert counts_of_shares(torch.tensor([10, 3, 1]), 0.5).tolist() == [5, 2, 0]


def test_lines_are_drawn_alike():
    generator = torch.Generator().manual_seed(0)
    lines = [draw_line(((0.5, 0.1), (0.9, 0.8)), generator) for _ in range(200)]
    assert 70 < lines.count((0.5, 0.1)) < 130


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "either shares .* or images"),
        ({"shares": (0.5, 0.5), "images": ((0.5, 0.2),)}, "either shares .* or images"),
        ({"shares": (0.5,)}, r"\[0\.5\] must have a share for each of the layers \[6, 8\]"),
        ({"shares": (0.5, 1.2)}, r"shares must be 0 to 1, got \[0\.5, 1\.2\]"),
    ],
)
def test_settings_that_cannot_be_obeyed_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        RandomConfig(**settings)
