import pytest
import torch

from terralean.errors import ConfigError
from terralean.tokens.topk import TopKConfig, combined_rank, how_many, keep_best


def test_numbers_left_after_each_point():
    assert how_many(TopKConfig(shares=(0.5, 0.3)), tokens=1024) == [512, 154]
    assert how_many(TopKConfig(counts=(205, 41)), tokens=1024) == [205, 41]
    assert how_many(TopKConfig(counts=(205, 41)), tokens=64) == [64, 41]
    assert how_many(TopKConfig(shares=(0.1, 0.1)), tokens=4) == [1, 1]


def test_one_high_score_is_enough():
    entropy = torch.tensor([[0.9, 0.1, 0.5, 0.4]])
    relation = torch.tensor([[0.2, 0.8, 0.1, 0.3]])
    rank = combined_rank(entropy, relation, None)  # ranks 3 0 2 1 and 1 3 0 2
    assert rank.argsort(dim=1, descending=True).tolist() == [[0, 1, 3, 2]]
    assert keep_best(rank, None, most=2).tolist() == [[True, True, False, False]]
    assert keep_best(combined_rank(entropy, None, None), None, most=2).tolist() == [[True, False, True, False]]
    assert keep_best(combined_rank(None, relation, None), None, most=2).tolist() == [[False, True, False, True]]


def test_what_is_no_token_is_not_kept_and_changes_no_choice():
    torch.manual_seed(0)
    entropy, relation = torch.rand(1, 30), torch.rand(1, 30)
    there = torch.rand(1, 30) < 0.6
    found = keep_best(combined_rank(entropy, relation, there), there, most=8)
    alone = keep_best(combined_rank(entropy[there][None], relation[there][None], None), None, most=8)
    assert torch.equal(found[there][None], alone)
    assert not found[~there].any()
    assert keep_best(combined_rank(entropy, relation, there), there, most=30).sum() == there.sum()


def test_of_equal_scores_exactly_so_many_stay():
    flat = torch.zeros(2, 10)
    assert keep_best(combined_rank(flat, flat, None), None, most=4).sum(dim=1).tolist() == [4, 4]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "either shares or counts"),
        ({"shares": (0.5, 0.5), "counts": (4, 2)}, "either shares or counts"),
        ({"counts": (4,)}, r"\[4\] must have a number for each of the layers \[6, 8\]"),
        ({"shares": (0.5, 0.0)}, r"reduce\.shares of topk must be above 0 up to 1, got \[0\.5, 0\.0\]"),
        ({"counts": (4, 9)}, r"reduce\.counts of topk must be above 0 and not rise, got \[4, 9\]"),
    ],
)
def test_settings_that_cannot_be_obeyed_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        TopKConfig(**settings)
