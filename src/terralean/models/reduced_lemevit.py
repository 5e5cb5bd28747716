"""LeMeViT whose third stage takes image tokens out or merges them, so that its cost follows the content of the scene.

S3 is where the image tokens read each other: at 1024 px it takes three quarters of LeMeViT-tiny's products, and more with the
side. The methods are those of plain vision transformers (room `tokens`); layers are the blocks of S3, counted from 1. Before
S4 every token is put back in its place, so that the head reads whole maps.

A block begins with a convolution over the grid. It sees tokens that were taken out as they were then, and in place of merged
ones what stands for them; merged tokens get the mean of what it gives at their places. Clusters stand in a grid of their own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terralean.errors import ConfigError
from terralean.layers.hooks import Answer, Hooks, Setting, Stream, all_tokens
from terralean.layers.running import Parts, Rows, arranged, padded, run_layer
from terralean.layers.segmenter import ReducedMaps, Reduction
from terralean.models.lemevit import Block, LeMeViTPyramid, SelfAttention, as_map, as_tokens
from terralean.models.place import Place
from terralean.models.reducers import drawn_seeds, grid_multiple, heads_of, hooks_of, seeds_of_values, told
from terralean.tokens.packed import take

STAGE = 3


def graders(backbone: LeMeViTPyramid, config: Any, *, classes: int) -> nn.ModuleDict:
    """The parameters that a method adds; ConfigError where it cannot work in S3."""
    if len(backbone.stages) <= STAGE:
        raise ConfigError(f"reduce: this LeMeViT ends before S{STAGE}, the stage whose tokens can be reduced")
    if backbone.config.s3_attention != "global":
        raise ConfigError(
            f"reduce.method={config.method} takes tokens out of an S3 in which all read all; leave model.sizes.s3_attention="
            f"{backbone.config.s3_attention} out, or the reduction"
        )
    if config.method == "dtop":
        raise ConfigError(
            "reduce.method=dtop lets its heads write the classes of finished tokens, which only attention-to-mask decoders "
            "take up; use it with segvit, or another method here"
        )
    place = Place(width=backbone.config.dims[STAGE], depth=backbone.config.depths[STAGE], classes=classes, class_mode="two_way")
    return heads_of(config, place)


def reduced(backbone: LeMeViTPyramid, image: Tensor, reduction: Reduction) -> ReducedMaps:
    """The maps of the pyramid, and what the method did in S3."""
    ends: list[tuple[Stream, tuple[int, int]]] = []

    def third(blocks: list[Block], x: Tensor) -> Tensor:
        setting = _setting(backbone, image, x, reduction)
        after, end = run_stage(blocks, x, hooks_of(reduction.config, setting), setting=setting)
        ends.append((end, setting.grid))
        return after

    maps = backbone.maps(image, third=third)
    (end, grid) = ends[0]
    px = 2 ** (STAGE + 1)
    height, width = (-(-side // px) for side in image.shape[-2:])
    depth = backbone.config.depths[STAGE]
    record = told(end.record, inside=(height, width), last=depth, token_px=(px, px))
    answers = tuple(Answer(masks.unflatten(2, grid)[:, :, :height, :width], objects) for masks, objects in end.answers)
    return ReducedMaps(maps, answers, record, depth)


def run_stage(blocks: list[Block], image: Tensor, hooks: Hooks, *, setting: Setting) -> tuple[Tensor, Stream]:
    """Blocks of self-attention on a map (B, C, h, w), as the hooks want it; the map and the stream at the end."""
    height, width = image.shape[-2:]
    down, along = setting.grid[0] - height, setting.grid[1] - width
    whole, there = image, None
    if down or along:
        whole = F.pad(image, (0, along, 0, down)).contiguous(memory_format=torch.channels_last)
        inside = F.pad(torch.ones(height, width, dtype=torch.bool, device=image.device), (0, along, 0, down))
        there = inside.flatten().expand(image.shape[0], -1)
    rows = arranged(Stream(as_tokens(whole), there), setting.execution)
    for layer, block in enumerate(blocks, start=1):
        rows = _placed(block.pos_embed, rows, hooks, setting)
        rows = run_layer(_parts(block), rows, hooks, layer=layer, execution=setting.execution)
    end = padded(rows)
    return as_map(hooks.restore(end), like=whole)[:, :, :height, :width], end


def _setting(backbone: LeMeViTPyramid, image: Tensor, x: Tensor, reduction: Reduction) -> Setting:
    multiple, training = grid_multiple(reduction.config), backbone.training
    return Setting(
        grid=(x.shape[2] + -x.shape[2] % multiple, x.shape[3] + -x.shape[3] % multiple),
        prefix=0,
        depth=backbone.config.depths[STAGE],
        classes=reduction.classes,
        execution=reduction.execution,
        training=training,
        done=reduction.done,
        seeds=(lambda: drawn_seeds(len(image))) if training else (lambda: seeds_of_values(image)),
        heads=reduction.heads,
    )


def _parts(block: Block) -> Parts:
    attention = block.attn
    assert isinstance(attention, SelfAttention), "S3 is a stage of self-attention in every variant"

    def project(y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = attention.qkv(y).unflatten(-1, (3, attention.heads, -1)).unbind(-3)
        return query, key, value

    return Parts(
        norm1=block.norm1,
        project=project,
        output=lambda mixed: attention.proj(mixed.flatten(-2)),
        norm2=block.norm2,
        mlp=block.mlp,
        path1=block.drop_path,
        path2=block.drop_path,
        scale=attention.scale,
    )


def _placed(convolution: nn.Module, rows: Rows, hooks: Hooks, setting: Setting) -> Rows:
    """Each token on its way with what the positional convolution gives at its place."""
    stream = padded(rows)
    group = stream.record[-1].group if stream.record else None
    if group is not None and hooks.coarse is not None:
        x = stream.x + _convolved(convolution, stream.x, hooks.coarse)
    else:
        everything = all_tokens(stream) if group is None else take(stream.x, group.flatten(1))
        x = stream.x + _of_rows(_convolved(convolution, everything, setting.grid), stream, group)
    if stream.there is not None:
        x = torch.where(stream.there[..., None], x, stream.x)
    return arranged(stream._replace(x=x), setting.execution)


def _convolved(convolution: nn.Module, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    return as_tokens(convolution(tokens.unflatten(1, grid).permute(0, 3, 1, 2)))


def _of_rows(update: Tensor, stream: Stream, group: Tensor | None) -> Tensor:
    """An update of all tokens (B, N, C) -> of the rows (B, n, C), of a merged row the mean of its members'."""
    if group is not None:
        index = group.flatten(1)[..., None].expand_as(update)
        return torch.zeros_like(stream.x).scatter_reduce(1, index, update, "mean", include_self=False)
    return update if stream.place is None else take(update, stream.place)
