"""Attention-to-mask heads: the attention of class queries to tokens is the map of their classes.

Zhang et al., "SegViT: Semantic Segmentation with Plain Vision Transformers", NeurIPS 2022, section 3.2, in the form with a
single stage that Liu et al. (ICCV 2023) prune tokens by: same state-dict keys and shapes as theirs, outputs agree to 1e-5.
And two light ones for decisions on the way, which Zhang & Yao 2025 name but do not describe.

A head takes tokens (B, n, C), and `there` (B, n) where some rows are none, and gives an `Answer`. Class logits are of object
and no object ("two_way", Liu et al.) or of all classes and none ("softmax", SegViT).
"""

from __future__ import annotations

from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terralean.errors import ConfigError
from terralean.layers.attention import fused_attention
from terralean.layers.hooks import Answer

ClassMode = Literal["two_way", "softmax"]
HeadKind = Literal["light", "slim", "full"]
DROPOUT = 0.1


class ATMHead(nn.Module):
    """Class queries that read the tokens in layers of self-attention, cross-attention and feed-forward, norms last.

    The mask of a class is the last layer's attention before the softmax, its mean over heads.
    """

    def __init__(self, before: int, *, classes: int, width: int, heads: int, layers: int, mode: ClassMode) -> None:
        super().__init__()
        _check_heads(width, heads)
        if layers < 1:
            raise ConfigError(f"an attention-to-mask head has at least one layer, got {layers}")
        self.input_proj = nn.Linear(before, width)
        self.proj_norm = nn.LayerNorm(width)
        self.decoder = nn.ModuleDict({"layers": nn.ModuleList(DecoderLayer(width, heads=heads) for _ in range(layers))})
        self.q = nn.Embedding(classes, width)
        self.class_embed = nn.Linear(width, 2 if mode == "two_way" else classes + 1)
        self.apply(_initialise)

    def forward(self, x: Tensor, there: Tensor | None = None) -> Answer:
        """Masks (B, K, n) and class logits."""
        memory = self.proj_norm(self.input_proj(x))
        query = self.q.weight.expand(x.shape[0], -1, -1)
        layers = cast("nn.ModuleList", self.decoder["layers"])
        for layer in layers[:-1]:
            query, _ = layer(query, memory, there, wants_scores=False)
        query, masks = layers[-1](query, memory, there, wants_scores=True)
        return Answer(masks, self.class_embed(query))


class DecoderLayer(nn.Module):
    """Queries read each other, then the tokens."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.self_attn = QueryAttention(width, heads=heads)
        self.multihead_attn = CrossAttention(width, before=width, heads=heads)
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(
        self, query: Tensor, memory: Tensor, there: Tensor | None, *, wants_scores: bool
    ) -> tuple[Tensor, Tensor | None]:
        """query (B, K, d), memory (B, n, d) -> query, and where asked for the scores (B, K, n)."""
        query = self.norm1(query + self.dropout(self.self_attn(query)))
        update, scores = self.multihead_attn(query, memory, there, wants_scores=wants_scores)
        query = self.norm2(query + self.dropout(update))
        update = self.linear2(self.dropout(F.relu(self.linear1(query))))
        return self.norm3(query + self.dropout(update)), scores


class QueryAttention(nn.Module):
    """Self-attention of queries, with the parameters of torch's MultiheadAttention, whose fast path no counter sees."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * width, width)))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, query: Tensor) -> Tensor:
        """(B, K, d) -> its update."""
        projected = F.linear(query, self.in_proj_weight, self.in_proj_bias)
        q, k, v = projected.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out_proj(fused_attention(q, k, v).transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Queries read tokens; the scores before the softmax can be had, too."""

    def __init__(self, width: int, *, before: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = nn.Linear(width, width), nn.Linear(before, width), nn.Linear(before, width)
        self.proj = nn.Linear(width, width)

    def forward(
        self, query: Tensor, memory: Tensor, there: Tensor | None, *, wants_scores: bool
    ) -> tuple[Tensor, Tensor | None]:
        """query (B, K, d), memory (B, n, C) -> update (B, K, d), and where asked for the mean scores of heads (B, K, n)."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.q, query), (self.k, memory), (self.v, memory))
        )
        seen = None if there is None else (there | ~there.any(dim=1, keepdim=True))[:, None, None, :]
        if not wants_scores:
            return self.proj(fused_attention(q, k, v, mask=seen).transpose(1, 2).flatten(2)), None
        scores = _scores(q, k)
        weights = (scores if seen is None else scores.masked_fill(~seen, -torch.inf)).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2)), scores.mean(dim=1)


class LightATMHead(nn.Module):
    """Learned class tokens read the projected tokens once; no self-attention, no feed-forward. Not published; chosen here.

    At 192 channels, 3 heads, 768 channels before and 6 classes it has 298,178 parameters; the published total leaves room for
    304 to 308 thousand (Zhang & Yao 2025, table of ViT-B).
    """

    def __init__(self, before: int, *, classes: int, width: int, heads: int, mode: ClassMode) -> None:
        super().__init__()
        _check_heads(width, heads)
        self.input_proj = nn.Linear(before, width)
        self.proj_norm = nn.LayerNorm(width)
        self.q = nn.Embedding(classes, width)
        self.attention = CrossAttention(width, before=width, heads=heads)
        self.norm = nn.LayerNorm(width)
        self.class_embed = nn.Linear(width, 2 if mode == "two_way" else classes + 1)
        self.apply(_initialise)

    def forward(self, x: Tensor, there: Tensor | None = None) -> Answer:
        """Masks (B, K, n) and class logits."""
        query = self.q.weight.expand(x.shape[0], -1, -1)
        update, masks = self.attention(query, self.proj_norm(self.input_proj(x)), there, wants_scores=True)
        assert masks is not None
        return Answer(masks, self.class_embed(self.norm(query + update)))


class SlimATMHead(nn.Module):
    """Products of class tokens and image tokens alone; what a class token is does not depend on the image.

    At 192 channels, 3 heads, 768 channels before and 6 classes it has 305,287 parameters, with which three heads make the
    published total of 94.75 M (Zhang & Yao 2025); many other lists of layers do, too. Not published; chosen here.
    """

    def __init__(self, before: int, *, classes: int, width: int, heads: int) -> None:
        super().__init__()
        _check_heads(width, heads)
        self.heads = heads
        self.q = nn.Embedding(classes, before)
        self.query, self.key = nn.Linear(before, width), nn.Linear(before, width)
        self.class_embed = nn.Linear(before, classes + 1)
        self.apply(_initialise)

    def forward(self, x: Tensor, there: Tensor | None = None) -> Answer:
        """Masks (B, K, n) and class logits; nothing is mixed, so that rows without a token change nothing."""
        query = self.query(self.q.weight).expand(x.shape[0], -1, -1).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key = self.key(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return Answer(_scores(query, key).mean(dim=1), self.class_embed(self.q.weight).expand(x.shape[0], -1, -1))


def auxiliary_head(
    kind: HeadKind, before: int, *, classes: int, width: int, heads: int, layers: int, mode: ClassMode
) -> nn.Module:
    """A head on the way; a slim one always tells all classes and none apart."""
    if kind == "full":
        return ATMHead(before, classes=classes, width=width, heads=heads, layers=layers, mode=mode)
    if kind == "light":
        return LightATMHead(before, classes=classes, width=width, heads=heads, mode=mode)
    return SlimATMHead(before, classes=classes, width=width, heads=heads)


def _scores(query: Tensor, key: Tensor) -> Tensor:
    return (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)


def _check_heads(width: int, heads: int) -> None:
    if width < 1 or heads < 1 or width % heads:
        raise ConfigError(f"the width of an attention-to-mask head must be a multiple of its heads, got {width} and {heads}")


def _initialise(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
