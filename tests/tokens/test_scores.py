import math

import pytest
import torch
from torch import nn

from terralean.tokens.scores import attention_of_classes, attention_received, class_map, entropy, ranks


def logits(classes: int = 4, tokens: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, classes, tokens), torch.randn(2, classes, 2)


def test_entropy_of_the_normalised_map_by_plain_arithmetic():
    masks, objects = logits()
    found = entropy(masks, objects, source="sigmoid_norm")
    for b in range(2):
        for i in range(7):
            s = [
                1 / (1 + math.exp(-m)) * math.exp(o[0]) / (math.exp(o[0]) + math.exp(o[1]))
                for m, o in zip(masks[b, :, i].tolist(), objects[b].tolist(), strict=True)
            ]
            p = [v / sum(s) for v in s]
            assert float(found[b, i]) == pytest.approx(-sum(v * math.log(v) for v in p), abs=1e-5)


def test_entropy_of_the_softmax_by_plain_arithmetic():
    masks, objects = logits()
    found = entropy(masks, objects, source="softmax")
    for b in range(2):
        there = [math.exp(o[0]) / (math.exp(o[0]) + math.exp(o[1])) for o in objects[b].tolist()]
        for i in range(7):
            s = [math.exp(m) * t for m, t in zip(masks[b, :, i].tolist(), there, strict=True)]
            p = [v / sum(s) for v in s]
            assert float(found[b, i]) == pytest.approx(-sum(v * math.log(v) for v in p), abs=1e-5)


@pytest.mark.parametrize("source", ["sigmoid_norm", "softmax"])
def test_entropy_is_zero_where_a_class_is_sure_and_the_most_where_all_are_alike(source):
    masks = torch.tensor([[[60.0, 0.0], [-60.0, 0.0], [-60.0, 0.0]]])
    found = entropy(masks, torch.zeros(1, 3, 2), source=source)
    assert found[0].tolist() == pytest.approx([0, math.log(3)], abs=1e-5)


@pytest.mark.parametrize("source", ["sigmoid_norm", "softmax"])
def test_entropy_takes_class_logits_of_all_classes_and_none(source):
    """Where each query is surely its own class, or nothing, both kinds of logits say the same."""
    masks, objects = logits()
    own = torch.full((2, 4, 5), -100.0)
    own[:, :, 4] = objects[..., 1]
    own[:, range(4), range(4)] = objects[..., 0]
    torch.testing.assert_close(entropy(masks, own, source=source), entropy(masks, objects, source=source))
    torch.testing.assert_close(class_map(masks, own), class_map(masks, objects))


def weights(tokens: int = 6) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 3, tokens, tokens).softmax(dim=-1)


def test_attention_received_is_what_torchs_attention_gives():
    torch.manual_seed(2)
    layer, x = nn.MultiheadAttention(12, 3, batch_first=True), torch.randn(1, 5, 12)
    _, theirs = layer(x, x, x, average_attn_weights=False)
    torch.testing.assert_close(attention_received(theirs, None), theirs.mean(dim=(1, 2)))
    assert float(attention_received(theirs, None).mean().detach()) == pytest.approx(1 / 5)


def test_attention_received_leaves_out_queries_that_are_no_tokens():
    w = weights()
    there = torch.tensor([[True] * 4 + [False] * 2, [True] * 6])
    w[0, :, :, 4:] = 0
    found = attention_received(w, there)
    torch.testing.assert_close(found[0], w[0, :, :4].mean(dim=(0, 1)))
    torch.testing.assert_close(found[1], w[1].mean(dim=(0, 1)))


def test_attention_to_oneself_can_be_left_out():
    w = weights()
    own = w.diagonal(dim1=-2, dim2=-1).mean(dim=1) / 6
    torch.testing.assert_close(attention_received(w, None, exclude_self=True), attention_received(w, None) - own)


def test_attention_of_classes_is_the_largest_share_among_tokens_that_are_there():
    masks, _ = logits()
    there = torch.tensor([[True] * 7, [True] * 5 + [False] * 2])
    found = attention_of_classes(masks, there)
    torch.testing.assert_close(found[0], masks[0].softmax(dim=-1).amax(dim=0))
    torch.testing.assert_close(found[1, :5], masks[1, :, :5].softmax(dim=-1).amax(dim=0))


def test_ranks_rise_with_the_score_and_begin_with_what_is_no_token():
    score = torch.tensor([[3.0, 1.0, 2.0, 1.0]])
    assert ranks(score, None).tolist() == [[3, 0, 2, 1]]
    assert ranks(score, torch.tensor([[True, True, False, True]])).tolist() == [[3, 1, 0, 2]]
