"""Layers of attention and feed-forward, run on tokens that a method of reduction may take out or merge between their parts.

Three ways of running a batch whose images hold different numbers of tokens give the same tokens. Masked does all the work of
a dense pass and leaves rows as they are, which training likes; padded works on the rows of the fullest image; packed has
only tokens in its linear layers and norms, and attention one call for all images of equal length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from terralean.layers.attention import fused_attention
from terralean.layers.hooks import Change, Execution, Hooks, Read, Seen, Stream
from terralean.tokens.packed import pack, pad, rows_of_equal_images


class Parts(NamedTuple):
    """What a layer consists of; everything but attention itself works on the last axis, whatever is before it."""

    norm1: Callable[[Tensor], Tensor]
    project: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]  # (..., C) -> queries, keys, values, each (..., heads, d)
    output: Callable[[Tensor], Tensor]  # values mixed (..., heads, d) -> what attention adds (..., C)
    norm2: Callable[[Tensor], Tensor]
    mlp: Callable[[Tensor], Tensor]  # -> what the feed-forward adds
    path1: nn.Module  # drop path, or the identity
    path2: nn.Module
    scale: float  # of the products of queries and keys
    drop: nn.Module | None = None  # dropout of attention weights


class Rows(NamedTuple):
    """Tokens between two hooks: the stream, whose x (T, C) and size (T,) are packed where lengths are given."""

    stream: Stream
    lengths: tuple[int, ...] | None = None
    groups: tuple[Tensor, ...] = ()  # rows of images of equal length


def arranged(stream: Stream, execution: Execution) -> Rows:
    """As the layers take it."""
    if execution != "packed" or stream.there is None:
        return Rows(stream)
    x, lengths = pack(stream.x, stream.there)
    size = None if stream.size is None else stream.size[stream.there]
    return Rows(stream._replace(x=x, size=size), lengths, tuple(rows_of_equal_images(lengths, device=x.device)))


def padded(rows: Rows) -> Stream:
    """As hooks take it."""
    if rows.lengths is None:
        return rows.stream
    stream = rows.stream
    size = None if stream.size is None else pad(stream.size, rows.lengths, stream.there)[0]
    return stream._replace(x=pad(stream.x, rows.lengths, stream.there)[0], size=size)


def run_layer(parts: Parts, rows: Rows, hooks: Hooks, *, layer: int, execution: Execution) -> Rows:
    """The rows after this layer and what the hooks do in it; its number counts from 1."""
    before = rows.stream.x
    update, seen = _attention_sublayer(parts, rows, hooks, layer=layer)
    rows = _added(rows, update, parts.path1)
    rows = _changed(rows, hooks.after_attention.get(layer), seen, execution)
    rows = _added(rows, _mlp_sublayer(parts, rows, hooks, layer=layer), parts.path2)
    if execution == "masked" and rows.stream.there is not None and before.shape == rows.stream.x.shape:
        kept = torch.where(rows.stream.there[..., None], rows.stream.x, before)
        rows = rows._replace(stream=rows.stream._replace(x=kept))
    return _changed(rows, hooks.after_block.get(layer), seen, execution)


def _changed(rows: Rows, change: Change | None, seen: Seen, execution: Execution) -> Rows:
    return rows if change is None else arranged(change(padded(rows), seen), execution)


def _added(rows: Rows, update: Tensor, path: nn.Module) -> Rows:
    """Drop path leaves out the update of whole images, packed or not."""
    if rows.lengths is not None and path.training and isinstance(path, DropPath):
        factor = path(update.new_ones(len(rows.lengths)))
        update = update * factor.repeat_interleave(torch.tensor(rows.lengths, device=update.device))[:, None]
    else:
        update = path(update)
    return rows._replace(stream=rows.stream._replace(x=rows.stream.x + update))


def _attention_sublayer(parts: Parts, rows: Rows, hooks: Hooks, *, layer: int) -> tuple[Tensor, Seen]:
    """What the attention adds to the rows, and what hooks of this layer see of it."""
    y, around = parts.norm1(rows.stream.x), hooks.around_attention.get(layer)
    if around is not None:
        stream = padded(rows._replace(stream=rows.stream._replace(x=y)))
        update = around(stream.x, stream.there, lambda x, there: _self_attention(parts, x, there=there))
        return _as_rows(update, rows), Seen()
    wants_keys = layer in hooks.after_attention or layer in hooks.after_block
    query, key, value = parts.project(y)
    mixed, read = _mixed(parts, query, key, value, rows, hooks.read.get(layer))
    if rows.lengths is not None:
        read = None if read is None else pad(read, rows.lengths, rows.stream.there)[0]
        key = pad(key, rows.lengths, rows.stream.there)[0] if wants_keys else key
    return parts.output(mixed), Seen(read, key if wants_keys else None)


def _mlp_sublayer(parts: Parts, rows: Rows, hooks: Hooks, *, layer: int) -> Tensor:
    y, around = parts.norm2(rows.stream.x), hooks.around_mlp.get(layer)
    if around is None:
        return parts.mlp(y)
    stream = padded(rows._replace(stream=rows.stream._replace(x=y)))
    return _as_rows(around(stream.x, stream.there, lambda x, _: parts.mlp(x)), rows)


def _as_rows(update: Tensor, rows: Rows) -> Tensor:
    return update if rows.lengths is None else pack(update, rows.stream.there).x


def _self_attention(parts: Parts, y: Tensor, *, there: Tensor | None) -> Tensor:
    query, key, value = parts.project(y)
    return parts.output(_attend(parts, query, key, value, there=there, size=None, read=None)[0])


def _mixed(
    parts: Parts, query: Tensor, key: Tensor, value: Tensor, rows: Rows, read: Read | None
) -> tuple[Tensor, Tensor | None]:
    """Values mixed by attention, of rows in either form, and what is read of the map."""
    stream = rows.stream
    if rows.lengths is None:
        return _attend(parts, query, key, value, there=stream.there, size=stream.size, read=read)
    mixed = torch.empty_like(value)
    found = None if read is None else value.new_empty(value.shape[0], dtype=torch.float32)
    for group in rows.groups:
        size = None if stream.size is None else stream.size[group]
        mixed[group], seen = _attend(parts, query[group], key[group], value[group], there=None, size=size, read=read)
        if found is not None and seen is not None:
            found[group] = seen
    return mixed, found


def _attend(
    parts: Parts,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    there: Tensor | None,
    size: Tensor | None,
    read: Read | None,
) -> tuple[Tensor, Tensor | None]:
    """(B, n, heads, d) each -> (B, n, heads, d), by a fused kernel unless the map is read."""
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    bias, drop = _bias(there, size, dtype=query.dtype), parts.drop
    if read is None:
        p = drop.p if isinstance(drop, nn.Dropout) and drop.training else 0.0
        mixed = fused_attention(query, key, value, mask=bias, dropout=p, scale=parts.scale)
        return mixed.transpose(1, 2), None
    scores = (query * parts.scale) @ key.transpose(-1, -2)
    weights = (scores if bias is None else scores + bias).softmax(dim=-1)
    return ((weights if drop is None else drop(weights)) @ value).transpose(1, 2), read(weights, there)


def _bias(there: Tensor | None, size: Tensor | None, *, dtype: torch.dtype) -> Tensor | None:
    """Added to the scores of keys, (B, 1, 1, n): minus infinity where no token is, the logarithm of how many it stands for."""
    bias = None if size is None else size.to(dtype).log()
    if there is not None:
        bias = torch.zeros_like(there, dtype=dtype) if bias is None else bias
        # An image without tokens looks at all rows: its own are left alone, and no number must become NaN.
        bias = bias.masked_fill(~there & there.any(dim=1, keepdim=True), -torch.inf)
    return None if bias is None else bias[:, None, None, :]
