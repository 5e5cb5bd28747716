"""Swin's window attention, of timm's blocks, on part of a map: some of its windows, or some of its tokens.

Liu et al., "Swin Transformer", ICCV 2021, section 3.2. Where everything takes part the results are timm's own. Windows that
reach past the map see zeros there, as in the authors' segmentation code; once tokens are gone from a map they see tokens only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock, WindowAttention
from torch import Tensor

from terralean.layers.attention import fused_attention
from terralean.layers.hooks import Read

APART = -100.0  # added to scores of tokens that lie in one window only because a shifted map was rolled; timm's value
STEP = 8  # windows whose numbers of tokens round up to the same multiple of this are computed together


class Layout(NamedTuple):
    """Which token stands where in the windows of a map (h, w); windows and positions are counted by rows."""

    token: Tensor  # (windows, area) number of the token, h * w where a window reaches past the map
    region: Tensor | None  # (windows, area) tokens of different regions were not neighbours before the roll; None: all were


class Part(NamedTuple):
    """Windows of which only some positions hold a token to compute with."""

    row: Tensor  # (n, k) row of the token, or the number of rows where there is none
    position: Tensor  # (n, k) in the window
    region: Tensor | None  # (n, k)


def layout(
    size: tuple[int, int], *, window: tuple[int, int], shift: tuple[int, int], pad_first: bool = False, device: torch.device
) -> Layout:
    """Windows of a map of this size (rows, columns), moved down and right by `shift` in a map that is rolled around.

    A map that no whole number of windows covers is filled up at its end, by timm after it was rolled, by Swin's authors before.
    """
    sources, regions, inside = [], [], []
    for length, side, step in zip(size, window, shift, strict=True):
        whole = length + -length % side
        at = torch.arange(whole, device=device)
        sources.append((at + step) % (whole if pad_first else length))
        inside.append(sources[-1] < length if pad_first else at < length)
        regions.append((at >= whole - side).long() + (at >= whole - step))
    token = sources[0][:, None] * size[1] + sources[1]
    token = token.where(inside[0][:, None] & inside[1], size[0] * size[1])
    region = _cut(3 * regions[0][:, None] + regions[1], window) if any(shift) else None
    return Layout(_cut(token, window), region)


def _cut(values: Tensor, window: tuple[int, int]) -> Tensor:
    """(rows, columns) -> (windows, area)."""
    return values.unflatten(1, (-1, window[1])).unflatten(0, (-1, window[0])).transpose(1, 2).flatten(2).flatten(0, 1)


def windows_of(x: Tensor, index: Tensor) -> Tensor:
    """x (B, N, C), index (B, windows, area) -> (B, windows, area, C), zero past the map."""
    rows = F.pad(x, (0, 0, 0, 1)).gather(1, index.flatten(1)[..., None].expand(-1, -1, x.shape[2]))
    return rows.unflatten(1, index.shape[1:])


def put_windows(changed: Tensor, index: Tensor, x: Tensor) -> Tensor:
    """x (B, N, C) with the tokens of windows (B, windows, area, C) in the places that `index` says."""
    place = index.flatten(1)[..., None].expand(-1, -1, x.shape[2])
    return F.pad(x, (0, 0, 0, 1)).scatter(1, place, changed.flatten(1, 2).to(x.dtype))[:, :-1]


def position_bias(attention: WindowAttention) -> Tensor:
    """What is added to the scores of each pair of positions: (heads, area, area)."""
    index = cast(Tensor, attention.relative_position_index)
    return attention.relative_position_bias_table[index.flatten()].unflatten(0, index.shape).permute(2, 0, 1)


def run_windows(
    block: SwinTransformerBlock, windows: Tensor, *, there: Tensor | None, region: Tensor | None, bias: Tensor
) -> Tensor:
    """A block on windows (B, windows, area, C).

    there (B, windows, area): what is past the map is zero behind the first norm; None: it is a token like the others. region
    (B, windows, area), bias (heads, area, area).
    """
    attention = block.attn
    y = block.norm1(windows)
    y = y if there is None else y * there[..., None]
    qkv = attention.qkv(y).flatten(0, 1)
    between = bias[None] if region is None else bias + _apart(region.flatten(0, 1))
    update = attention.proj(_mixed(attention, qkv, between)).unflatten(0, windows.shape[:2])
    windows = windows + block.drop_path1(attention.proj_drop(update))
    return windows + block.drop_path2(block.mlp(block.norm2(windows)))


def attend_rows(
    attention: WindowAttention, y: Tensor, parts: list[Part], *, see_zeros: bool, read: Read | None
) -> tuple[Tensor, Tensor | None]:
    """What attention adds to rows y (R, C), and where it is to be read the attention that each row gets in its window (R,).

    Rows in no part get nothing. `see_zeros`: positions without a row are zeros that the others look at; else nothing is there.
    What is read is multiplied by the number of rows in the window, so that windows of different fill can be compared.
    """
    qkv = attention.qkv(y)
    nothing = torch.zeros_like(qkv[:1]) if attention.qkv.bias is None else attention.qkv.bias[None].to(qkv.dtype)
    padded, table = torch.cat([qkv, nothing]), position_bias(attention)
    mixed = qkv.new_zeros(y.shape[0] + 1, attention.proj.in_features)
    received = None if read is None else y.new_zeros(y.shape[0] + 1, dtype=torch.float32)
    for part in parts:
        there = part.row < y.shape[0]
        between = _between(part, table, seen=None if see_zeros else there)
        if read is None or received is None:
            found = _mixed(attention, padded[part.row], between)
        else:
            found, weights = _mixed_openly(attention, padded[part.row], between)
            share = read(weights, there) * there.sum(dim=1, keepdim=True)
            received = received.index_copy(0, part.row.flatten(), share.flatten())
        mixed = mixed.index_copy(0, part.row.flatten(), found.flatten(0, 1))
    update = attention.proj_drop(attention.proj(mixed[:-1]))
    return update, None if received is None else received[:-1]


def whole_windows(place: Tensor, at: Layout) -> list[Part]:
    """All positions of all windows; place (B, N + 1) row of each token, the number of rows where it has none."""
    row = place[:, at.token].flatten(0, 1)
    images, windows = place.shape[0], at.token.shape[0]
    position = torch.arange(row.shape[1], device=row.device).expand_as(row)
    return [Part(row, position, None if at.region is None else at.region.repeat(images, 1))] if windows else []


def filled_windows(place: Tensor, at: Layout, *, rows: int) -> list[Part]:
    """Windows that hold rows, the rows first, cut to about as many positions; windows with about as many rows are one part."""
    (whole,) = whole_windows(place, at)
    empty = whole.row == rows
    position = empty.to(torch.uint8).argsort(dim=1, stable=True)
    row, region = (None if value is None else value.gather(1, position) for value in (whole.row, whole.region))
    assert row is not None
    return [
        Part(row[some, :width], position[some, :width], None if region is None else region[some, :width])
        for some, width in _alike((~empty).sum(dim=1))
    ]


def _alike(counts: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Windows by their numbers of rows (windows,): which belong together, and the largest number of these."""
    known = counts.cpu()
    groups = (known + STEP - 1) // STEP
    for group in groups.unique().tolist():
        if group:
            some = (groups == group).nonzero().flatten()
            yield some.to(counts.device), int(known[some].max())


def _between(part: Part, table: Tensor, *, seen: Tensor | None) -> Tensor:
    """Added to the scores of pairs (n, heads, k, k): bias of their positions, minus infinity for what is not to be seen."""
    bias = table[:, part.position[:, :, None], part.position[:, None, :]].transpose(0, 1)
    if part.region is not None:
        bias = bias + _apart(part.region)
    if seen is None:
        return bias
    # A window without a row looks at all positions: nobody reads what it finds, and no number must become NaN.
    return bias.masked_fill(~(seen | ~seen.any(dim=1, keepdim=True))[:, None, None, :], -torch.inf)


def _apart(region: Tensor) -> Tensor:
    """(n, k) -> (n, 1, k, k)."""
    return APART * (region[:, None, :, None] != region[:, None, None, :])


def _split(attention: WindowAttention, qkv: Tensor) -> tuple[Tensor, ...]:
    return qkv.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _mixed(attention: WindowAttention, qkv: Tensor, between: Tensor) -> Tensor:
    """qkv (n, k, 3 * C), between (n or 1, heads, k, k) -> (n, k, C), by a fused kernel."""
    query, key, value = _split(attention, qkv)
    dropout = attention.attn_drop.p if attention.training else 0.0
    between = between.to(query.dtype)
    mixed = fused_attention(query, key, value, mask=between, dropout=dropout, scale=attention.scale)
    return mixed.transpose(1, 2).flatten(2)


def _mixed_openly(attention: WindowAttention, qkv: Tensor, between: Tensor) -> tuple[Tensor, Tensor]:
    """The same and the weights (n, heads, k, k)."""
    query, key, value = _split(attention, qkv)
    weights = ((query * attention.scale) @ key.transpose(-1, -2) + between).softmax(dim=-1)
    return (attention.attn_drop(weights).to(value.dtype) @ value).transpose(1, 2).flatten(2), weights
