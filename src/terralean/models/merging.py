"""Methods that put tokens together, at the places where a network lets them, and copy them back to their members at the end.

Rows of merged tokens stand in the order of the methods' authors; what finds them again, the row of each token of the start,
travels in the stream's memory. Class and register tokens are never merged.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from terralean.errors import ConfigError
from terralean.layers.hooks import Hooks, Point, Run, Seen, Setting, Stream
from terralean.models.place import Place
from terralean.tokens import algm, elvit, tome
from terralean.tokens.algm import ALGMConfig
from terralean.tokens.elvit import ELViTConfig
from terralean.tokens.groups import Groups, after, copy_back_alike, flat_index, merge, merge_alike
from terralean.tokens.packed import pack, pad
from terralean.tokens.tome import ToMeConfig


class Members(NamedTuple):
    """What merged tokens are made of."""

    row: Tensor  # (B, N) of each token of the start, counted within its image
    size: Tensor  # (T,) tokens that each row stands for, images one after the other


def tome_hooks(config: ToMeConfig, setting: Setting) -> Hooks:
    """ToMe, progressive or by sublayer."""
    if config.mode == "sublayer":
        around = partial(_spared, fraction=config.fraction, prefix=setting.prefix)
        every = dict.fromkeys(range(1, setting.depth + 1), around)
        return Hooks(around_attention=every, around_mlp=every)

    def merging(stream: Stream, seen: Seen, *, layer: int, r: int) -> Stream:
        assert seen.keys is not None
        groups = _grouped(seen.keys.mean(dim=2), partial(tome.match, r=r), prefix=setting.prefix)
        images, tokens = stream.x.shape[:2]
        left = tokens - min(r, (tokens - setting.prefix) // 2)  # known beforehand, so that no shape waits for values
        stream = merged(stream, flat_index(groups), [left] * images, layer=layer, setting=setting)
        size = _members(stream).size.view(stream.x.shape[:2])
        return stream._replace(size=size.to(stream.x.dtype)) if config.proportional else stream

    numbers = enumerate(tome.tokens_per_layer(config, depth=setting.depth), start=1)
    return Hooks(after_attention={layer: partial(merging, layer=layer, r=r) for layer, r in numbers if r}, restore=copied_back)


def check_tome(config: ToMeConfig, place: Place) -> nn.ModuleDict:
    """No parameters; raises ConfigError where it is not told what each layer merges."""
    tome.tokens_per_layer(config, depth=place.depth)
    return nn.ModuleDict()


def algm_hooks(config: ALGMConfig, setting: Setting) -> Hooks:
    """ALGM: windows of the grid at one layer, any tokens at a later one."""

    def in_windows(stream: Stream, _: Seen, *, layer: int) -> Stream:
        similar = algm.similarity(stream.x[:, setting.prefix :], grid=setting.grid, window=config.window)
        chosen = algm.alike_windows(similar, config)
        groups = _behind(algm.local_groups(similar, chosen, grid=setting.grid, window=config.window), setting.prefix)
        return merged(stream, flat_index(groups), groups.counts.tolist(), layer=layer, setting=setting)

    def anywhere(stream: Stream, _: Seen, *, layer: int) -> Stream:
        decide = partial(algm.global_groups, layer=layer, count=config.count)
        if stream.there is None:
            groups = _grouped(stream.x, decide, prefix=setting.prefix)
            return merged(stream, flat_index(groups), groups.counts.tolist(), layer=layer, setting=setting)
        tokens, lengths = pack(stream.x, stream.there)
        found = [_grouped(x[None], decide, prefix=setting.prefix) for x in tokens.split(lengths)]
        counts = [int(groups.counts) for groups in found]
        starts = torch.tensor([0, *counts]).cumsum(0).tolist()
        index = torch.cat([groups.group[0] + start for groups, start in zip(found, starts, strict=False)])
        return merged(stream, index, counts, layer=layer, setting=setting)

    changes = {at: partial(change, layer=at) for at, change in zip(config.after, (in_windows, anywhere), strict=False)}
    return Hooks(after_attention=changes, restore=copied_back)


def elvit_hooks(config: ELViTConfig, setting: Setting) -> Hooks:
    """ELViT: clusters go on, and tokens are made of them at the end."""
    prefix, clusters = setting.prefix, elvit.cluster_grid(setting.grid, side=config.side)

    def clustering(stream: Stream, _: Seen, *, layer: int) -> Stream:
        first, tokens = stream.x[:, :prefix], stream.x[:, prefix:]
        centres = elvit.find_clusters(tokens, grid=setting.grid, clusters=clusters, config=config)
        left = torch.full((tokens.shape[0],), centres.shape[1], device=tokens.device)
        point = Point(layer, left, group=elvit.labels(tokens, centres).unflatten(1, setting.grid) + prefix)
        weights = elvit.weights_back(tokens, centres, config)
        x = torch.cat([first, centres], dim=1)
        return stream._replace(x=x, memory=weights, record=(*stream.record, point))

    def made_again(stream: Stream) -> Tensor:
        return torch.cat([stream.x[:, :prefix], elvit.make_again(stream.x[:, prefix:], stream.memory)], dim=1)

    changes = {layer: partial(clustering, layer=layer) for layer in config.after}
    return Hooks(after_block=changes, restore=made_again, coarse=clusters)


def check_elvit(config: ELViTConfig, _: Place) -> nn.ModuleDict:
    """No parameters; raises ConfigError unless tokens are clustered once."""
    if len(config.after) != 1:
        raise ConfigError(
            f"elvit clusters the tokens of a plain vision transformer once; set reduce.after to one layer, got {config.after}"
        )
    return nn.ModuleDict()


def merged(stream: Stream, index: Tensor, counts: list[int], *, layer: int, setting: Setting) -> Stream:
    """The stream with groups in place of their members.

    index: the group of each token (T,), tokens and groups of all images counted one image after the other; counts: groups of
    each image.
    """
    members, tokens = _members(stream), pack(stream.x, stream.there)
    x, size = merge(tokens.x, index, size=members.size, total=sum(counts))
    row = after((members.row + _starts(tokens.lengths, like=index)).flatten(), index).view_as(members.row)
    members = Members(row - _starts(counts, like=index), size)
    grown, there = pad(x, counts)
    left = torch.tensor(counts, device=x.device) - setting.prefix
    point = Point(layer, left, group=members.row[:, setting.prefix :].unflatten(1, setting.grid))
    return stream._replace(x=grown, there=there, memory=members, record=(*stream.record, point))


def copied_back(stream: Stream) -> Tensor:
    """Every token of the start gets what became of its group: (B, N, C)."""
    if stream.memory is None:
        return stream.x
    return copy_back_alike(stream.x, Groups(_members(stream).row, stream.x.new_tensor(stream.x.shape[1])))


def _members(stream: Stream) -> Members:
    if isinstance(stream.memory, Members):
        return stream.memory
    assert stream.there is None, "rows that are no tokens would be merged with tokens"
    images, tokens = stream.x.shape[:2]
    row = torch.arange(tokens, device=stream.x.device).expand(images, -1)
    return Members(row, torch.ones(images * tokens, device=stream.x.device))


def _starts(counts: list[int] | tuple[int, ...], *, like: Tensor) -> Tensor:
    """How many rows stand before those of each image: (B, 1)."""
    return torch.tensor([0, *counts[:-1]], device=like.device).cumsum(0)[:, None]


def _grouped(metric: Tensor, decide: Callable[..., Groups], *, prefix: int) -> Groups:
    """Groups where the first `prefix` tokens stay alone and first; a single one takes part in counting tokens, as published."""
    if prefix <= 1:
        return decide(metric, class_token=bool(prefix))
    return _behind(decide(metric[:, prefix:]), prefix)


def _behind(groups: Groups, prefix: int) -> Groups:
    """The same groups behind tokens that are alone."""
    if not prefix:
        return groups
    first = torch.arange(prefix, device=groups.group.device).expand(groups.group.shape[0], -1)
    return Groups(torch.cat([first, groups.group + prefix], dim=1), groups.counts + prefix)


def _spared(y: Tensor, there: Tensor | None, run: Run, *, fraction: float, prefix: int) -> Tensor:
    """What a sublayer adds to its normalised input y (B, n, C), computed of fewer tokens."""
    assert there is None, "rows that are no tokens would be merged with tokens"
    r = int(fraction * (y.shape[1] - prefix))
    if not r:
        return run(y, None)
    groups = _grouped(y, partial(tome.match, r=r), prefix=prefix)
    fewer, _ = merge_alike(y, groups, size=torch.ones(y.shape[:2], device=y.device), count=y.shape[1] - r)
    return copy_back_alike(run(fewer, None), groups)
