import logging

import pytest
import torch

from terralean.errors import ConfigError
from terralean.tokens import matp
from terralean.tokens.matp import (
    AuxiliaryConfig,
    GateConfig,
    MATPConfig,
    candidates,
    gated,
    keep_prob,
    threshold,
    warn_of_floor,
    with_floor,
)


def scores(images: int = 3, tokens: int = 400) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    entropy = torch.rand(images, tokens, generator=generator)
    relation = (0.5 * torch.randn(images, tokens, generator=generator)).exp()
    return entropy, relation, torch.rand(images, tokens, generator=generator) < 0.7


def test_threshold_is_mean_and_population_deviation_of_the_tokens_that_are_there():
    entropy, _, there = scores()
    found = threshold(entropy, there, factor=1.2, mode="mean_std")
    for i in range(3):
        own = entropy[i, there[i]]
        assert float(found[i, 0]) == pytest.approx(float(own.mean() + 1.2 * own.std(unbiased=False)), rel=1e-5)
    scaled = threshold(entropy, None, factor=1.2, mode="scaled_mean")
    torch.testing.assert_close(scaled, 1.2 * entropy.mean(dim=1, keepdim=True))


def test_both_scores_have_to_be_low():
    """Mean 2.5 and deviation 1.118; at a factor of 0 the threshold is the mean."""
    low, high = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[1.0, 4.0, 2.0, 3.0]])
    found = {
        rule: candidates(low, high, None, MATPConfig(alpha=0, beta=0, rule=rule))[0].tolist()
        for rule in ("and", "entropy", "relation")
    }
    assert found == {
        "and": [True, False, False, False],
        "entropy": [True, True, False, False],
        "relation": [True, False, True, False],
    }


def test_equal_scores_prune_nothing():
    flat = torch.full((1, 9), 0.3)
    assert not candidates(flat, flat, None, MATPConfig()).any()


@pytest.mark.parametrize("mode", ["mean_std", "scaled_mean"])
def test_larger_factors_never_keep_more(mode):
    entropy, relation, there = scores()
    for name in ("alpha", "beta"):
        before = torch.zeros_like(there)
        for factor in (0.0, 0.3, 0.9, 1.2, 2.0, 3.0):
            found = candidates(entropy, relation, there, MATPConfig(threshold=mode, **{name: factor}))
            assert not (before & ~found).any(), f"{name} {factor}"
            before = found


def test_a_decision_is_the_images_own():
    entropy, relation, there = scores()
    together = candidates(entropy, relation, there, MATPConfig())
    alone = [candidates(entropy[i : i + 1], relation[i : i + 1], there[i : i + 1], MATPConfig()) for i in range(3)]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize(
    ("alpha", "beta", "share"),
    [(0.3, 2.0, 0.440), (0.6, 2.0, 0.357), (0.9, 2.0, 0.273), (1.2, 1.0, 0.268), (1.2, 1.5, 0.219), (1.2, 2.0, 0.191)],
)
def test_share_that_stays_is_that_of_the_published_costs(alpha, beta, share):
    """Entropies uniform, relations log-normal with deviation 0.5: shares within 0.01 of those that the GFLOPs imply."""
    entropy, relation, _ = scores(images=20, tokens=4000)
    gone = candidates(entropy, relation, None, MATPConfig(alpha=alpha, beta=beta))
    assert float((~gone).float().mean()) == pytest.approx(share, abs=0.006)


def test_the_floor_keeps_those_of_the_highest_score():
    gone = torch.tensor([[True, True, True, True], [True, False, True, True], [False, False, True, False]])
    score = torch.tensor([[0.1, 0.4, 0.3, 0.2]] * 3)
    found, hit = with_floor(gone, score, None, least=2)
    assert (~found).tolist() == [[False, True, True, False], [False, True, True, False], [True, True, False, True]]
    assert hit.tolist() == [True, True, False]


def test_the_floor_keeps_no_more_than_there_are():
    there = torch.tensor([[True, False, False, True]])
    found, hit = with_floor(there.clone(), torch.rand(1, 4), there, least=3)
    assert not found.any()
    assert hit.tolist() == [True]


def test_no_floor_lets_all_go():
    gone = torch.ones(1, 4, dtype=torch.bool)
    found, hit = with_floor(gone, torch.rand(1, 4), None, least=0)
    assert found.all()
    assert not hit.any()


def test_two_levels_of_entropy_would_lose_all_tokens_but_for_the_floor():
    """Half and half is one deviation from the mean at most, below any factor above 1."""
    entropy = torch.tensor([[0.0, 1.0] * 4])
    gone = candidates(entropy, torch.zeros(1, 8), None, MATPConfig(rule="entropy"))
    assert gone.all()
    found, _ = with_floor(gone, entropy, None, least=1)
    assert (~found).nonzero().tolist() == [[0, 1]]


def test_warning_names_the_images_once_for_a_layer(caplog, monkeypatch):
    monkeypatch.setattr(matp, "_told", set())
    with caplog.at_level(logging.WARNING):
        warn_of_floor(torch.tensor([False]), least=4, layer=6)
        warn_of_floor(torch.tensor([False, True, True]), least=4, layer=6)
        warn_of_floor(torch.tensor([True]), least=4, layer=6)
        warn_of_floor(torch.tensor([True]), least=4, layer=8)
    first, second = (record.getMessage() for record in caplog.records)
    assert first == (
        "after layer 6 the thresholds leave fewer than n_min = 4 tokens in 2 of 3 images (number 1, 2 of the batch, from 0); "
        "those of the highest score stay (said once for a layer)"
    )
    assert second.startswith("after layer 8 ")


@pytest.mark.parametrize(
    ("mode", "p", "at"),
    [
        ("bernoulli", 0.2, {None: 0.2, 0.0: 0.2, 1.0: 0.2}),
        ("bernoulli", 1.0, {0.5: 1.0}),
        ("warmup_fraction", 0.2, {0.0: 1.0, 0.19: 1.0, 0.2: 0.0, 1.0: 0.0}),
        ("warmup_fraction", 1.0, {0.0: 1.0, 0.99: 1.0, 1.0: 1.0}),
        ("warmup_fraction", 0.0, {0.0: 0.0}),
        ("linear", 0.5, {0.0: 1.0, 0.25: 0.5, 0.5: 0.0, 0.9: 0.0}),
        ("linear", 0.0, {0.0: 0.0}),
    ],
)
def test_probability_to_stay(mode, p, at):
    gate = GateConfig(mode=mode, p=p)
    assert {done: keep_prob(done, gate=gate) for done in at} == pytest.approx(at)


@pytest.mark.parametrize("mode", ["warmup_fraction", "linear"])
def test_some_gates_have_to_know_how_far_training_is(mode):
    with pytest.raises(ConfigError, match=rf"reduce\.gate\.mode {mode} needs to know how much of the training is done"):
        keep_prob(None, gate=GateConfig(mode=mode))


@pytest.mark.parametrize("p", [0.0, 0.2, 0.7, 1.0])
def test_the_gate_keeps_that_share_of_what_is_to_go(p):
    generator = torch.Generator().manual_seed(3)
    gone = torch.rand(8, 5000, generator=generator) < 0.6
    found = gated(gone, torch.rand(8, 5000, generator=generator), probability=p)
    assert not (found & ~gone).any()
    r = float((~gone).float().mean())
    assert float((~found).float().mean()) == pytest.approx(r + (1 - r) * p, abs=0.01)
    assert p not in (0, 1) or torch.equal(found, gone if p == 0 else torch.zeros_like(gone))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: MATPConfig(after=()),
            r"reduce\.after must be layers in rising order, counted from 1, e\.g\. \[6,8\], got \[\]",
        ),
        (lambda: MATPConfig(after=(8, 6)), r"rising order.*got \[8, 6\]"),
        (lambda: MATPConfig(after=(0, 6)), r"counted from 1.*got \[0, 6\]"),
        (lambda: MATPConfig(n_min=-1), r"reduce\.n_min must be 0 or more, got -1"),
        (lambda: GateConfig(p=1.5), r"reduce\.gate\.p must be 0 to 1, got 1\.5"),
        (lambda: AuxiliaryConfig(width=0), r"reduce\.aux\.width must be above 0, got 0"),
        (lambda: AuxiliaryConfig(width=100), r"reduce\.aux\.width must be a multiple of reduce\.aux\.heads, got 100 and 3"),
    ],
)
def test_settings_that_cannot_be_obeyed_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
