import pytest
import torch

from terralean.errors import ConfigError
from terralean.tokens.dtop import DToPConfig, finished, sure


def test_sure_tokens_go_but_for_the_surest_of_each_class():
    found = torch.tensor([[[0.95, 0.97, 0.99, 0.10, 0.20, 0.91], [0.05, 0.01, 0.01, 0.92, 0.85, 0.03]]])
    above = sure(found, None, confidence=0.9)
    assert above.tolist() == [[True, True, True, True, False, True]]
    for context, gone in ((0, [0, 1, 2, 3, 5]), (1, [0, 1, 5]), (2, [0, 5]), (4, [])):
        assert finished(found, above, context=context)[0].nonzero().flatten().tolist() == gone, context


def test_what_is_no_token_is_neither_sure_nor_context():
    found = torch.full((1, 1, 4), 0.99)
    above = sure(found, torch.tensor([[True, False, True, True]]), confidence=0.9)
    assert above.tolist() == [[True, False, True, True]]
    assert finished(found, above, context=2).sum() == 1


def test_a_decision_is_the_images_own():
    torch.manual_seed(0)
    found = torch.rand(4, 5, 200)
    above = sure(found, None, confidence=0.8)
    together = finished(found, above, context=5)
    assert torch.equal(together, torch.cat([finished(found[i : i + 1], above[i : i + 1], context=5) for i in range(4)]))


def test_settings_that_cannot_be_obeyed_are_refused():
    with pytest.raises(ConfigError, match=r"reduce\.confidence must be 0 to 1, got 1\.2"):
        DToPConfig(confidence=1.2)
    with pytest.raises(ConfigError, match=r"reduce\.context must be 0 or more, got -1"):
        DToPConfig(context=-1)
