import math

import pytest
import torch

from terralean.errors import ConfigError
from terralean.tokens.threshold import ThresholdConfig, candidates


def test_thresholds_by_hand():
    """Four classes: the largest entropy is log 4. Four tokens that are there: the mean relation is a quarter."""
    entropy = math.log(4) * torch.tensor([[0.6, 0.8, 0.6, 0.8, 0.0]])
    relation = torch.tensor([[0.3, 0.3, 0.4, 0.4, 0.0]])
    there = torch.tensor([[True, True, True, True, False]])
    found = {
        rule: candidates(entropy, relation, there, ThresholdConfig(entropy=0.7, relation=1.4, rule=rule), classes=4)[0].tolist()
        for rule in ("and", "entropy", "relation")
    }
    assert found == {
        "and": [True, False, False, False, False],
        "entropy": [True, False, True, False, False],
        "relation": [True, True, False, False, False],
    }


def test_the_same_for_every_image():
    entropy = torch.rand(1, 50).sort(dim=1).values
    relation = torch.full((1, 50), 1 / 50)
    both = [candidates(e, relation, None, ThresholdConfig(), classes=3).sum() for e in (entropy, entropy / 10)]
    assert both[0] < both[1] == 50


def test_settings_that_cannot_be_obeyed_are_refused():
    with pytest.raises(ConfigError, match=r"reduce\.entropy of threshold is a share of the largest entropy, 0 to 1, got 1\.3"):
        ThresholdConfig(entropy=1.3)
    with pytest.raises(ConfigError, match=r"reduce\.n_min must be 0 or more, got -2"):
        ThresholdConfig(n_min=-2)
