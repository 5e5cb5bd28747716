"""Fused attention is what the formula says, and is worked through in float32 only where that is quicker."""

import math

import pytest
import torch

from terralean.layers.attention import SHORT, fused_attention


def parts(dtype, *, queries=5, keys=7, gradients=True):
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3, queries, 8), (2, 3, keys, 8), (2, 3, keys, 8))
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_(gradients) for shape in shapes]


def by_formula(query, key, value, *, mask=None, scale=None):
    scores = query @ key.transpose(-1, -2) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(dim=-1) @ value


MASKS = [None, torch.tensor([1, 1, 0, 1, 0, 1, 1], dtype=torch.bool).expand(5, 7), torch.linspace(-2, 2, 35).view(5, 7)]


@pytest.mark.parametrize("mask", MASKS, ids=["none", "bool", "float"])
@pytest.mark.parametrize("scale", [None, 0.1])
def test_equals_the_formula_with_its_gradients(mask, scale):
    ours, theirs = parts(torch.float32), parts(torch.float32)
    mine, formula = fused_attention(*ours, mask=mask, scale=scale), by_formula(*theirs, mask=mask, scale=scale)
    torch.testing.assert_close(mine, formula)
    mine.square().sum().backward()
    formula.square().sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mask", [None, MASKS[1], MASKS[2].bfloat16()], ids=["none", "bool", "float"])
def test_bf16_with_gradients_is_float32_rounded_once_even_under_autocast(mask):
    half = parts(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        mine = fused_attention(*half, mask=mask)
    wide = mask.float() if mask is not None and mask.is_floating_point() else mask
    expected = fused_attention(*(part.detach().float() for part in half), mask=wide)
    assert mine.dtype == torch.bfloat16
    assert torch.equal(mine, expected.bfloat16())
    mine.sum().backward()
    assert all(part.grad is not None and part.grad.dtype == torch.bfloat16 for part in half)


@pytest.mark.parametrize(
    ("sides", "gradients", "floats"),
    [
        ((5, 7), True, True),
        ((5, 7), False, False),
        ((1024, SHORT // 1024), True, True),
        ((1024, SHORT // 1024 + 1), True, False),
    ],
)
def test_only_short_sequences_that_will_be_walked_back_are_widened(sides, gradients, floats, monkeypatch):
    seen = []
    kernel = torch.nn.functional.scaled_dot_product_attention

    def watched(query, *others, **settings):
        seen.append(query.dtype)
        return kernel(query, *others, **settings)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    fused_attention(*parts(torch.bfloat16, queries=sides[0], keys=sides[1], gradients=gradients))
    assert seen == [torch.float32 if floats else torch.bfloat16]


def test_nothing_is_widened_where_no_gradients_are_wanted():
    half = parts(torch.bfloat16)
    with torch.no_grad():
        mine = fused_attention(*half)
        assert torch.equal(mine, torch.nn.functional.scaled_dot_product_attention(*half))
