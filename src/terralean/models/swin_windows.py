"""A stage of Swin that leaves out whole windows (SparseViT), or has clusters in its windows in place of tokens (ELViT).

Sources: terralean.tokens.sparsevit and terralean.tokens.elvit. Every image has as many windows and clusters as the others, so
that no shape depends on the content.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock, WindowAttention, get_relative_position_index
from torch import Tensor

from terralean.layers.hooks import Point
from terralean.layers.tiles import join_tiles, split_tiles, tiling
from terralean.models.window_attention import Layout, layout, position_bias, put_windows, run_windows, windows_of
from terralean.tokens import elvit
from terralean.tokens.elvit import ELViTConfig
from terralean.tokens.sparsevit import SparseViTConfig, best_first, window_scores, windows_kept


def sparse_blocks(
    blocks: Sequence[SwinTransformerBlock], x: Tensor, *, ratios: Sequence[float], config: SparseViTConfig, first: int
) -> tuple[Tensor, list[Point]]:
    """Blocks, the first of which has this number, on a map (B, h, w, C): each leaves out this share of its windows.

    Windows are ranked once, regular and shifted ones apart, by what the first block that leaves out any gets.
    """
    size, record = (x.shape[1], x.shape[2]), []
    ranked: dict[tuple[int, int], Tensor] = {}
    shifts = {block.shift_size: block.window_size for block in blocks}
    for number, (block, ratio) in enumerate(zip(blocks, ratios, strict=True), start=first):
        if ratio and not ranked:
            ranked = {
                shift: _ranked(x, _layout(size, window, shift, config, device=x.device)) for shift, window in shifts.items()
            }
        if not ratio and config.filling == "timm":
            x = block(x)
            continue
        at = _layout(size, block.window_size, block.shift_size, config, device=x.device)
        kept = _all_windows(x, at) if not ratio else _kept(ranked[block.shift_size], ratio)
        x = _on_windows(block, x, at, kept, config)
        if ratio:
            record.append(_point(number, kept, at, x))
    return x, record


def cluster_blocks(
    blocks: Sequence[SwinTransformerBlock], x: Tensor, *, after: Sequence[int], config: ELViTConfig, first: int
) -> tuple[Tensor, list[Point]]:
    """Blocks on a map (B, h, w, C); behind the one that `after` names, if any, on clusters of the tokens of each window."""
    if not after:
        return through(blocks, x), []
    (last,) = after
    split, window = last - first + 1, blocks[0].window_size
    x = through(blocks[:split], x)
    size, clusters = (x.shape[1], x.shape[2]), elvit.cluster_grid(window, side=config.side)
    tiles = split_tiles(_filled(x, window), tile=window)
    tokens, shape = tiles.flatten(0, 1), tiles.shape[:2]
    centres = elvit.find_clusters(tokens, grid=window, clusters=clusters, config=config)
    weights = elvit.weights_back(tokens, centres, config)
    end = _run_clusters(blocks[split:], centres.unflatten(0, shape), windows=tiling(size, tile=window), clusters=clusters)
    again = elvit.make_again(end.flatten(0, 1), weights).unflatten(0, shape)
    starts = centres.shape[1] * torch.arange(shape[1], device=x.device)[:, None]
    group = elvit.labels(tokens, centres).unflatten(0, shape) + starts
    left = torch.full((shape[0],), shape[1] * centres.shape[1], device=x.device)
    point = Point(last, left, group=join_tiles(group[..., None], tile=window, size=size)[..., 0])
    return join_tiles(again, tile=window, size=size), [point]


def resized_bias(attention: WindowAttention, *, window: tuple[int, int]) -> Tensor:
    """The bias of pairs of positions in a window of another size, (heads, area, area), its table resized bicubically."""
    if window == attention.window_size:
        return position_bias(attention)
    before, after = ([2 * side - 1 for side in sides] for sides in (attention.window_size, window))
    table = attention.relative_position_bias_table.T.unflatten(1, before)[None].float()
    resized = F.interpolate(table, size=after, mode="bicubic", align_corners=False)[0].flatten(1)
    index = get_relative_position_index(*window, device=table.device)
    return resized[:, index.flatten()].unflatten(1, index.shape)


def _layout(
    size: tuple[int, int],
    window: tuple[int, int],
    shift: tuple[int, int],
    config: SparseViTConfig,
    *,
    device: torch.device,
) -> Layout:
    return layout(size, window=window, shift=shift, pad_first=config.filling == "published", device=device)


def _ranked(x: Tensor, at: Layout) -> Tensor:
    """Windows of a map, the most active first: (B, windows)."""
    return best_first(window_scores(windows_of(x.flatten(1, 2), at.token.expand(x.shape[0], -1, -1))))


def _kept(ranked: Tensor, ratio: float) -> Tensor:
    return ranked[:, : windows_kept(ranked.shape[1], ratio=ratio)]


def _all_windows(x: Tensor, at: Layout) -> Tensor:
    return torch.arange(at.token.shape[0], device=x.device).expand(x.shape[0], -1)


def _on_windows(block: SwinTransformerBlock, x: Tensor, at: Layout, kept: Tensor, config: SparseViTConfig) -> Tensor:
    """The map with some of its windows, kept (B, k), changed by a block."""
    token, tokens = at.token[kept], x.flatten(1, 2)
    there = None if config.filling == "published" else token < tokens.shape[1]
    region = None if at.region is None else at.region[kept]
    changed = run_windows(block, windows_of(tokens, token), there=there, region=region, bias=position_bias(block.attn))
    return put_windows(changed, token, tokens).view_as(x)


def _point(number: int, kept: Tensor, at: Layout, x: Tensor) -> Point:
    """Which tokens lie in windows that are kept."""
    size = (x.shape[1], x.shape[2])
    alive = torch.zeros(x.shape[0], size[0] * size[1] + 1, dtype=torch.bool, device=x.device)
    alive = alive.scatter(1, at.token[kept].flatten(1), value=True)[:, :-1]
    return Point(number, alive.sum(dim=1), alive.unflatten(1, size))


def _filled(x: Tensor, window: tuple[int, int]) -> Tensor:
    """A map (B, h, w, C) with its last row and column once more until windows cover it.

    Zeros in their place would be clusters that tokens are made of.
    """
    rows, columns = (
        torch.arange(count * side, device=x.device).clamp(max=length - 1)
        for count, side, length in zip(tiling((x.shape[1], x.shape[2]), tile=window), window, x.shape[1:3], strict=True)
    )
    return x[:, rows][:, :, columns]


def _run_clusters(
    blocks: Sequence[SwinTransformerBlock], centres: Tensor, *, windows: tuple[int, int], clusters: tuple[int, int]
) -> Tensor:
    """Blocks on the clusters of windows (B, windows, clusters of one, C); shifted ones shift by half of the clusters' side."""
    size = (windows[0] * clusters[0], windows[1] * clusters[1])
    x = join_tiles(centres, tile=clusters, size=size).flatten(1, 2)
    for block in blocks:
        shift = (clusters[0] // 2, clusters[1] // 2) if any(block.shift_size) else (0, 0)
        at = layout(size, window=clusters, shift=shift, device=x.device)
        token, region = (None if v is None else v.expand(x.shape[0], -1, -1) for v in at)
        assert token is not None
        bias = resized_bias(block.attn, window=clusters)
        x = put_windows(run_windows(block, windows_of(x, token), there=None, region=region, bias=bias), token, x)
    return split_tiles(x.unflatten(1, size), tile=clusters)


def through(blocks: Sequence[SwinTransformerBlock], x: Tensor) -> Tensor:
    """A map (B, h, w, C) after timm's own blocks."""
    for block in blocks:
        x = block(x)
    return x
