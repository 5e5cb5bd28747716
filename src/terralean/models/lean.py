"""LeMeViT made ready to predict: the same function of the image to rounding, with fewer products and passes over memory.

Meta tokens are few, so what is made of them is small, and products may be taken in another order. Of one head, let Q, K, V be
queries, keys and values of the meta tokens (M, d), W with b the projections of the normalised image tokens x (N, C) and O the
head's part of the projection of what was read:

    the image reads meta tokens     (x Wq + bq) K' = x (Wq K') + bq K'        (P V) O = P (V O)
    meta tokens read the image      Q (x Wk + bk)' = (Q Wk') x' + Q bk'       P (x Wv + bv) = (P x) Wv + bv

Q bk' is the same for all image tokens, so that the softmax over these does not see it; each row of P sums to one. The image
tokens are then multiplied by M columns a head four times instead of being projected four times: with 16 meta tokens and heads
of 32 channels, dual cross-attention takes 2 N C^2 multiply-accumulates instead of 4 N C^2 + 4 N M C. Image tokens that read
each other through meta tokens do both one after the other.

Image tokens are updated in place, GELU too, and the feed-forward takes as many tokens at once as a core's cache holds: new
memory for every result costs page faults (docs/experiments.md).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

from terralean.layers.folding import fold_norms, with_weights
from terralean.models.lemevit import (
    Block,
    DualAttention,
    LeMeViT,
    LeMeViTPyramid,
    MetaReadsImage,
    SelfAttention,
    as_map,
    as_tokens,
    log_ratio,
    split_heads,
)
from terralean.models.lemevit_reach import Grid, ThroughMeta

SLICE_BYTES = 2**20  # for each thread, of what a feed-forward widens tokens to; second-level caches are of about this size

AnyLeMeViT = TypeVar("AnyLeMeViT", LeMeViT, LeMeViTPyramid)
# (attention, tokens of the image, the same normalised, meta tokens normalised, the image's grid) -> the first with what they
# read added in place, None where they read nothing; the update of meta tokens, None where nobody asks for it.
Exchange = Callable[..., tuple[Tensor | None, Tensor | None]]


def fold(model: AnyLeMeViT, *, but: Collection[int] = ()) -> AnyLeMeViT:
    """A copy for inference: norms folded into convolutions, the first meta MLP computed once, blocks as here.

    The outputs are the same to rounding. What stays as it is is shared with the model; nothing of the model is changed. The
    blocks of the stages in `but` stay as they are.
    """
    folded = fold_norms(model)
    stem = folded.meta_token_downsample[0]
    with torch.no_grad():
        folded.meta_tokens = nn.Parameter(stem(folded.meta_tokens), requires_grad=False)
    folded.meta_token_downsample[0] = nn.Identity()
    folded.downsample_layers[0] = _with_gelu_in_place(cast(nn.Sequential, folded.downsample_layers[0]))
    for stage, blocks in enumerate(cast("list[nn.ModuleList]", list(folded.stages))):
        if stage in but:
            continue
        for index, block in enumerate(cast("list[Block]", list(blocks))):
            blocks[index] = LeanBlock(block, exchange=_exchange(block, meta_tokens=model.config.meta_tokens))
    return folded


class LeanBlock(nn.Module):
    """A Block for inference, made of the block's own parts. The image given is not changed."""

    def __init__(self, block: Block, *, exchange: Exchange) -> None:
        super().__init__()
        self.exchange = exchange
        self.pos_embed = _adding_its_input(block.pos_embed)
        self.norm1, self.attn = block.norm1, block.attn
        self.norm2, self.mlp = block.norm2, block.mlp

    def forward(self, image: Tensor, meta: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """As `Block.forward`."""
        placed = self._placed(image)
        meta_normed = None if meta is None else self.norm1(meta)
        tokens, update = self.exchange(self.attn, placed, self.norm1(placed), meta_normed, image.shape[-2:])
        if meta is not None and update is not None:
            meta = self._feed_forward(meta + update)
        return image if tokens is None else as_map(self._feed_forward(tokens), like=image), meta

    def _placed(self, image: Tensor) -> Tensor:
        return as_tokens(self.pos_embed(image))

    def _feed_forward(self, tokens: Tensor) -> Tensor:
        """tokens (B, N, C), in place unless they lie channel by channel, as the convolution of a single band leaves them."""
        tokens = tokens.contiguous()
        widen, _, _, narrow = self.mlp
        for rows in _slices(tokens.view(-1, tokens.shape[-1]), width=cast(nn.Linear, widen).out_features):
            rows.add_(narrow(torch.ops.aten.gelu_(widen(self.norm2(rows)))))
        return tokens


class GELUInPlace(nn.Module):
    """GELU for what nobody else reads."""

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape, changed."""
        return torch.ops.aten.gelu_(x)


def _with_gelu_in_place(layers: nn.Sequential) -> nn.Sequential:
    return nn.Sequential(*(GELUInPlace() if isinstance(layer, nn.GELU) else layer for layer in layers))


def _slices(rows: Tensor, *, width: int) -> Sequence[Tensor]:
    """Views of the rows; a compiled program plans its memory itself, and a GPU wants all at once."""
    if torch.compiler.is_compiling() or not rows.is_cpu:
        return (rows,)
    return rows.split(max(1, SLICE_BYTES * torch.get_num_threads() // (width * rows.element_size())))


def _adding_its_input(conv: nn.Conv2d) -> nn.Conv2d:
    """x + conv(x) as one convolution, for one of kernel 3 that works on each channel by itself."""
    weight = conv.weight.detach().clone()
    weight[:, 0, 1, 1] += 1
    return with_weights(conv, weight=weight, bias=conv.bias)


def _exchange(block: Block, *, meta_tokens: int) -> Exchange:
    """What takes the fewest products."""
    width = block.norm1.normalized_shape[0]
    attention = cast("MetaReadsImage | DualAttention | SelfAttention", block.attn)
    if meta_tokens * attention.heads >= width + meta_tokens:
        return _add_update
    if isinstance(attention, SelfAttention):
        return _through_meta if isinstance(attention.reach, ThroughMeta) else _add_update
    return _meta_reads if isinstance(attention, MetaReadsImage) else _both_read


def _add_update(
    attention: nn.Module, tokens: Tensor, image: Tensor, meta: Tensor | None, grid: Grid
) -> tuple[Tensor | None, Tensor | None]:
    """The attention as it is."""
    image_update, meta_update = attention(image, meta, grid=grid)
    return None if image_update is None else tokens.add_(image_update), meta_update


def _meta_reads(attention: MetaReadsImage, _: Tensor, image: Tensor, meta: Tensor, __: Grid) -> tuple[None, Tensor]:
    key, value = _by_head(attention.kv, parts=2, heads=attention.heads)
    (query,) = split_heads(attention.q(meta), parts=1, heads=attention.heads)
    query = query * attention.scale
    query = query * log_ratio(few=meta, many=image) if attention.log else query
    scores = _products(query @ key.weight, image)
    return None, attention.proj(_joined(_mean_read(scores, image, value)))


def _both_read(attention: DualAttention, tokens: Tensor, image: Tensor, meta: Tensor, _: Grid) -> tuple[Tensor, Tensor | None]:
    ratio = log_ratio(few=meta, many=image)
    query1, key1, value1 = _by_head(attention.qkv1, parts=3, heads=attention.heads)
    query2, key2, value2 = split_heads(attention.qkv2(meta), parts=3, heads=attention.heads)
    key2 = key2 * (attention.scale * ratio)
    seen_by_image = key2 @ query1.weight
    if attention.proj_c is None:
        to_image, update = _products(seen_by_image, image), None
    else:
        query2 = query2 * (attention.scale * ratio if attention.scales.log_in_meta_reads else attention.scale)
        # One product for both directions: the image tokens are read from memory once.
        both = _products(torch.cat([seen_by_image, query2 @ key1.weight], dim=1), image)
        to_image, to_meta = both.chunk(2, dim=1)
        update = attention.proj_c(_joined(_mean_read(to_meta, image, value1)))
    return _add_read(tokens, to_image + key2 @ query1.bias, _written(attention.proj_x, value2)), update


def _through_meta(
    attention: SelfAttention, tokens: Tensor, image: Tensor, meta: Tensor, _: Grid
) -> tuple[Tensor, Tensor | None]:
    query, key, value = _by_head(attention.qkv, parts=3, heads=attention.heads)
    meta_query, meta_key, _value = split_heads(attention.qkv(meta), parts=3, heads=attention.heads)
    meta_key = meta_key * attention.scale
    both = torch.cat([meta_key @ query.weight, (meta_query * attention.scale) @ key.weight], dim=1)
    to_image, to_meta = _products(both, image).chunk(2, dim=1)
    written = _written(attention.proj, _mean_read(to_meta, image, value))
    return _add_read(tokens, to_image + meta_key @ query.bias, written), attention.meta_update(meta)


class _Heads(NamedTuple):
    """A linear layer's part for each head."""

    weight: Tensor  # (heads, d, C)
    bias: Tensor  # (heads, d, 1)


def _by_head(layer: nn.Linear, *, parts: int, heads: int) -> list[_Heads]:
    weights, biases = (t.unflatten(0, (parts, heads, -1)).unbind(0) for t in (layer.weight, layer.bias))
    return [_Heads(weight, bias[..., None]) for weight, bias in zip(weights, biases, strict=True)]


def _products(few: Tensor, image: Tensor) -> Tensor:
    """few (B, heads, M, C), image (B, N, C) -> (B, heads, M, N)."""
    return torch.bmm(few.flatten(1, 2), image.mT).unflatten(1, few.shape[1:3])


def _mean_read(scores: Tensor, image: Tensor, value: _Heads) -> Tensor:
    """scores (B, heads, M, N) -> the values of the image (B, N, C) that each meta token reads (B, heads, M, d)."""
    mean = torch.bmm(scores.softmax(dim=-1).flatten(1, 2), image).unflatten(1, scores.shape[1:3])
    return mean @ value.weight.mT + value.bias.mT


def _joined(read: Tensor) -> Tensor:
    """(B, heads, M, d) -> (B, M, heads * d)."""
    return read.transpose(1, 2).flatten(2)


def _add_read(tokens: Tensor, scores: Tensor, written: Tensor) -> Tensor:
    """Tokens (B, N, C) with what they read of rows (B, heads * M, C) by scores (B, heads, M, N) added in place."""
    # With out, for torch's counter of operations does not know baddbmm_.
    return torch.baddbmm(tokens, scores.softmax(dim=2).flatten(1, 2).mT, written, out=tokens)


def _written(projection: nn.Linear, value: Tensor) -> Tensor:
    """value (B, heads, M, d) -> what a token gets that reads nothing else (B, heads * M, C), bias included."""
    heads = value.shape[1]
    weight = projection.weight.unflatten(1, (heads, -1)).permute(1, 2, 0)
    # The weights of each head sum to one, so that its share of the bias comes through whole.
    return (value @ weight + projection.bias / heads).flatten(1, 2)
