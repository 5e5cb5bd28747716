"""Swin whose blocks work on some of the tokens or windows of their map, or on clusters in place of tokens.

Blocks are counted from 1 through all stages. Every stage begins with all tokens and ends with all of them in their places, for
merging patches needs whole maps.

Taking tokens out (MATP and others; Zhang & Yao 2025 prune after blocks 3, 6 and 8 of Swin-T): a window attends to those of its
tokens that are on their way. Scores are compared over the whole map; the attention that a token gets is that in its window,
times the number of tokens there, which makes windows of different fill comparable. How, is not published; chosen here.
Leaving out windows: SparseViT. Clusters in each window: ELViT.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from terralean.errors import ConfigError
from terralean.layers.hooks import Answer, Hooks, Point, Read, Seen, Setting, Stream
from terralean.layers.segmenter import ReducedMaps, Reduction, at_size_of
from terralean.models.place import Place
from terralean.models.reducers import cut_point, drawn_seeds, heads_of, hooks_of, seeds_of_values, told
from terralean.models.swin import SwinPyramid, blocks_of
from terralean.models.swin_windows import cluster_blocks, sparse_blocks, through
from terralean.models.window_attention import attend_rows, filled_windows, layout, whole_windows
from terralean.tokens.elvit import ELViTConfig
from terralean.tokens.sparsevit import SparseViTConfig, drawn_ratios, ratios_by_stage

PRUNING = ("matp", "threshold", "topk", "random")
KNOWN = (*PRUNING, "sparsevit", "elvit")


class Passed(NamedTuple):
    """What a stage gives."""

    x: Tensor  # (B, h, w, C)
    answers: tuple[Answer, ...] = ()  # masks (B, K, h, w)
    record: tuple[Point, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A stage in one pass."""

    blocks: list[SwinTransformerBlock]
    first: int  # number of its first block
    inside: tuple[int, int]  # rows and columns of its map that cover the image
    token_px: tuple[int, int]  # height and width of a token in px of the image

    @property
    def numbers(self) -> range:
        """Of its blocks."""
        return range(self.first, self.first + len(self.blocks))


def graders(backbone: SwinPyramid, config: Any, *, classes: int) -> nn.ModuleDict:
    """The parameters that a method adds; ConfigError where Swin has not what it needs."""
    depths = tuple(len(stage.blocks) for stage in backbone.stages)
    if config.method not in KNOWN:
        raise ConfigError(f"reduce.method={config.method} cannot work in windows; in Swin use {', '.join(KNOWN)}")
    if isinstance(config, SparseViTConfig):
        ratios_by_stage(config, depths=depths)
        return nn.ModuleDict()
    _check_blocks(config, depths)
    heads: dict[str, nn.Module] = {}
    if config.method in PRUNING:
        for after in config.after:
            width = backbone.feature_info.channels()[_stage_of(after, depths)]
            place = Place(width=width, depth=sum(depths), classes=classes, class_mode="two_way")
            heads.update(heads_of(at_points(config, [after]), place).items())
    return nn.ModuleDict(heads)


def reduced(backbone: SwinPyramid, image: Tensor, reduction: Reduction) -> ReducedMaps:
    """The maps of the pyramid, and what the method did."""
    passed: list[Passed] = []
    stages = backbone.stages
    firsts = list(accumulate((len(stage.blocks) for stage in stages[:-1]), initial=1))
    seeds = _seeds(image, training=backbone.training)

    def run(number: int, x: Tensor) -> Tensor:
        scale = backbone.feature_info.reduction()[number]
        inside = (-(-image.shape[-2] // scale), -(-image.shape[-1] // scale))
        piece = Piece(blocks=blocks_of(stages[number]), first=firsts[number], inside=inside, token_px=(scale, scale))
        passed.append(_run_stage(backbone, piece, x, reduction, seeds=seeds))
        return passed[-1].x

    maps = backbone.maps(image, run=run)
    answers = [answer for stage in passed for answer in stage.answers]
    if answers:  # of different stages, but to be stacked
        finest = answers[0].masks
        answers = [Answer(at_size_of(finest, masks), objects) for masks, objects in answers]
    layers = sum(len(stage.blocks) for stage in stages)
    return ReducedMaps(maps, tuple(answers), tuple(point for stage in passed for point in stage.record), layers)


def _ratios(backbone: SwinPyramid, piece: Piece, config: SparseViTConfig) -> list[float]:
    """Share of the windows that each block of a stage leaves out in this pass."""
    if backbone.training and config.training == "random":
        return drawn_ratios(len(piece.blocks))
    depths = tuple(len(stage.blocks) for stage in backbone.stages)
    ratios = [ratio for stage in ratios_by_stage(config, depths=depths) for ratio in stage]
    return ratios[piece.first - 1 :][: len(piece.blocks)]


def _run_stage(
    backbone: SwinPyramid, piece: Piece, x: Tensor, reduction: Reduction, *, seeds: Callable[[], list[int]]
) -> Passed:
    config = reduction.config
    if isinstance(config, SparseViTConfig):
        ratios = _ratios(backbone, piece, config)
        x, points = sparse_blocks(piece.blocks, x, ratios=ratios, config=config, first=piece.first)
        cut = partial(cut_point, inside=piece.inside, layers=1, token_px=piece.token_px)  # a block chooses for itself alone
        return Passed(x, (), tuple(map(cut, points)))
    points_here = [after for after in config.after if after in piece.numbers]
    if isinstance(config, ELViTConfig):
        x, points = cluster_blocks(piece.blocks, x, after=points_here, config=config, first=piece.first)
        return Passed(x, (), told(points, inside=piece.inside, last=piece.numbers[-1], token_px=piece.token_px))
    if not points_here:
        return Passed(through(piece.blocks, x))
    setting = Setting(
        grid=(x.shape[1], x.shape[2]),
        prefix=0,
        depth=piece.numbers[-1],
        classes=reduction.classes,
        execution=reduction.execution,
        training=backbone.training,
        done=reduction.done,
        seeds=seeds,
        heads=reduction.heads,
    )
    return prune_stage(piece, x, hooks_of(at_points(config, points_here), setting), setting)


def prune_stage(piece: Piece, x: Tensor, hooks: Hooks, setting: Setting) -> Passed:
    """Blocks on a map (B, h, w, C), from the first of the hooks' blocks on with tokens that are on their way only."""
    start = min(hooks.after_block)
    x = through(piece.blocks[: start - piece.first], x)
    stream = Stream(x.flatten(1, 2))
    for number, block in enumerate(piece.blocks[start - piece.first :], start=start):
        stream, received = run_block(block, stream, setting, read=hooks.read.get(number))
        change = hooks.after_block.get(number)
        if change is not None:
            if number == start and piece.inside != setting.grid:
                stream = stream._replace(there=_inside(piece.inside, setting, like=stream.x))
            stream = change(stream, Seen(read=received))
    height, width = piece.inside
    answers = (Answer(masks.unflatten(2, setting.grid)[:, :, :height, :width], objects) for masks, objects in stream.answers)
    record = told(stream.record, inside=piece.inside, last=piece.numbers[-1], token_px=piece.token_px)
    return Passed(hooks.restore(stream).unflatten(1, setting.grid), tuple(answers), record)


def run_block(
    block: SwinTransformerBlock, stream: Stream, setting: Setting, *, read: Read | None
) -> tuple[Stream, Tensor | None]:
    """The stream after a block, and what was read of its attention (B, n)."""
    whole = stream.there is None and stream.place is None  # nothing was taken out yet: as timm computes it
    rows = _rows(stream, setting)
    at = layout(setting.grid, window=block.window_size, shift=block.shift_size, device=stream.x.device)
    cut = whole or setting.execution == "masked"
    parts = whole_windows(rows.place, at) if cut else filled_windows(rows.place, at, rows=rows.x.shape[0])
    update, received = attend_rows(block.attn, block.norm1(rows.x), parts, see_zeros=whole, read=read)
    x = rows.x + _dropped(block.drop_path1, update, rows)
    x = x + _dropped(block.drop_path2, block.mlp(block.norm2(x)), rows)
    return _with_rows(stream, x, rows), None if received is None else _spread(received[:, None], stream, rows)[..., 0]


class Rows(NamedTuple):
    """The tokens of a stream as blocks take them."""

    x: Tensor  # (R, C)
    image: Tensor  # (R,) image of each
    place: Tensor  # (B, N + 1) row of each token of the map, R where it has none, and R behind the last
    chosen: Tensor | None  # (R,) which rows of the flat stream they are; None: all


def _rows(stream: Stream, setting: Setting) -> Rows:
    """Packed execution has rows for tokens only, the others for all rows of the stream."""
    images, n = stream.x.shape[:2]
    flat = stream.x.flatten(0, 1)
    number = torch.arange(images * n, device=flat.device)
    image, chosen, count = number // n, None, images * n
    if stream.there is not None and setting.execution == "packed":
        chosen = stream.there.flatten().nonzero().flatten()
        flat, image, count = flat[chosen], image[chosen], chosen.shape[0]
        number = stream.there.flatten().cumsum(0) - 1
    number = number.view(images, n)
    if stream.there is not None:
        number = number.where(stream.there, count)
    empty = number.new_full((images, setting.grid[0] * setting.grid[1] + 1), count)
    place = torch.cat([number, empty[:, -1:]], dim=1) if stream.place is None else empty.scatter(1, stream.place, number)
    return Rows(flat, image, place, chosen)


def _with_rows(stream: Stream, x: Tensor, rows: Rows) -> Stream:
    return stream._replace(x=_spread(x, stream, rows))


def _spread(x: Tensor, stream: Stream, rows: Rows) -> Tensor:
    """Values of rows (R, D) as the stream has them (B, n, D); where there is no token, what the stream had, or zero."""
    shape, there = stream.x.shape[:2], stream.there
    before = stream.x if x.shape[1] == stream.x.shape[2] else x.new_zeros(*shape, x.shape[1])
    if rows.chosen is not None:
        return before.flatten(0, 1).index_copy(0, rows.chosen, x.to(before.dtype)).unflatten(0, shape)
    x = x.unflatten(0, shape)
    return x if there is None else torch.where(there[..., None], x, before)


def _dropped(path: nn.Module, update: Tensor, rows: Rows) -> Tensor:
    """Drop path leaves out the update of whole images."""
    if not path.training or isinstance(path, nn.Identity):
        return update
    return update * path(update.new_ones(len(rows.place)))[rows.image, None]


def at_points(config: Any, after: Sequence[int]) -> Any:
    """The method's config with some of its points, and what it says of each of these."""
    chosen = [config.after.index(point) for point in after]
    changes: dict[str, Any] = {"after": tuple(after)}
    for name in ("shares", "counts"):
        if getattr(config, name, ()):
            changes[name] = tuple(getattr(config, name)[i] for i in chosen)
    if getattr(config, "images", ()):
        changes["images"] = tuple(tuple(line[i] for i in chosen) for line in config.images)
    return replace(config, **changes)


def _inside(size: tuple[int, int], setting: Setting, *, like: Tensor) -> Tensor:
    """Which tokens cover the image: the others go at the first point, and no score is compared with theirs. (B, N)."""
    down, along = setting.grid[0] - size[0], setting.grid[1] - size[1]
    there = F.pad(torch.ones(size, dtype=torch.bool, device=like.device), (0, along, 0, down))
    return there.flatten().expand(like.shape[0], -1)


def _seeds(image: Tensor, *, training: bool) -> Callable[[], list[int]]:
    """The same for all stages of a pass."""
    found: list[list[int]] = []

    def seeds() -> list[int]:
        if not found:
            found.append(drawn_seeds(len(image)) if training else seeds_of_values(image))
        return found[0]

    return seeds


def _stage_of(block: int, depths: tuple[int, ...]) -> int:
    return next(stage for stage, end in enumerate(accumulate(depths)) if block <= end)


def _check_blocks(config: Any, depths: tuple[int, ...]) -> None:
    wrong = [block for block in config.after if not 1 <= block <= sum(depths)]
    if wrong:
        raise ConfigError(
            f"reduce: {config.method} is to act after block {', '.join(map(str, wrong))}, the network has the blocks 1 to "
            f"{sum(depths)} in stages of {', '.join(map(str, depths))}; set reduce.after to some of these"
        )
    stages = [_stage_of(block, depths) for block in config.after]
    if isinstance(config, ELViTConfig) and len({*stages}) < len(stages):
        raise ConfigError(f"elvit clusters the tokens of a stage once; reduce.after={config.after} has two blocks of one stage")
