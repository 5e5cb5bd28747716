"""Where a method of token reduction meets a network: what travels through the layers, and the places where it may change.

A network with attention layers runs them on a `Stream`. A method gives `Hooks`: functions by layer (counted from 1) that are
called between its parts. Hooks are made anew for every pass, from the method's config and the `Setting` of that pass, so that
nothing has to be stored on a module: what a method wants to find again later travels in the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from terralean.tokens.packed import keep, put_back

Execution = Literal["packed", "padded", "masked"]  # no work for tokens that are gone; some; all, as a dense network does


class Point(NamedTuple):
    """What a method did at one layer, in one pass."""

    layer: int  # from 1
    left: Tensor  # (B,) tokens of each image from here on, class tokens not counted
    alive: Tensor | None = None  # (B, h, w) true for tokens that go on, of a method that prunes
    group: Tensor | None = None  # (B, h, w) which row stands for each token now, of a method that merges; rows from 0
    layers: int = 0  # that work on what is left: up to the next point, or to the end of the stage
    token_px: tuple[int, int] = (1, 1)  # height and width of a token in px of the image

    @property
    def share(self) -> Tensor:
        """(B,) tokens left, of all tokens of the grid."""
        return self.left.double() / self._grid[0].numel()

    @property
    def work(self) -> Tensor:
        """(B, h, w) what each token costs from here on: 1 if it goes on, 0 if not, of n merged ones each 1 / n."""
        if self.group is None:
            return self._grid.float()
        rows = self.group.flatten(1)
        sizes = torch.zeros(rows.shape[0], int(rows.max()) + 1, device=rows.device)
        sizes.scatter_add_(1, rows, sizes.new_ones(rows.shape))
        return (1 / sizes.gather(1, rows)).view_as(self.group)

    @property
    def _grid(self) -> Tensor:
        grid = self.alive if self.group is None else self.group
        assert grid is not None, "a method either takes tokens out or merges them"
        return grid


class Traced(NamedTuple):
    """What one pass gives of a network whose tokens are reduced."""

    scores: Tensor  # as without a record of it
    record: tuple[Point, ...]
    layers: int  # that the method may act at, and those before and between: all of its stages

    def work(self, *, height: int, width: int) -> Tensor:
        """(B, height, width) of the image's pixels: the share of these layers that worked on the token of each."""
        total = torch.full((self.scores.shape[0], height, width), float(self.layers), device=self.scores.device)
        for point in self.record:
            spared = 1 - point.work
            for axis, px in zip((1, 2), point.token_px, strict=True):
                spared = spared.repeat_interleave(px, dim=axis)
            total -= point.layers * spared[:, :height, :width]
        return total / self.layers


class Answer(NamedTuple):
    """What an attention-to-mask head says."""

    masks: Tensor  # (B, K, n) logits, whether a token belongs to the class of a query
    objects: Tensor  # (B, K, 2) logits of object and no object, or (B, K, K + 1) of all classes and none


class Stream(NamedTuple):
    """The tokens of a batch on their way through a network, always padded where a hook sees them.

    N tokens an image at the start, the prefix (class and register tokens) included; n rows now.
    """

    x: Tensor  # (B, n, C)
    there: Tensor | None = None  # (B, n) true for a token, false for a row to leave alone; None: all are tokens
    size: Tensor | None = None  # (B, n) tokens that each row stands for: attention to it is as to so many; None: one
    full: Tensor | None = None  # (B, N, C) last values of all tokens, once some were taken out
    place: Tensor | None = None  # (B, n) which row of `full` each one is
    canvas: Tensor | None = None  # (B, K, N) mask logits of tokens whose class is settled, and of others as last seen
    answers: tuple[Answer, ...] = ()  # of auxiliary heads, on the grid of the start, prefix left out
    record: tuple[Point, ...] = ()
    memory: Any = None  # the method's own


class Seen(NamedTuple):
    """What the attention of a layer saw, by the rows that it had."""

    read: Tensor | None = None  # (B, n), what `Hooks.read` made of its map
    keys: Tensor | None = None  # (B, n, heads, d)


Change = Callable[[Stream, Seen], Stream]
Read = Callable[[Tensor, Tensor | None], Tensor]  # weights (b, heads, n, n) after softmax, there (b, n) -> (b, n)
Run = Callable[[Tensor, Tensor | None], Tensor]  # y (B, m, C), there (B, m) -> (B, m, C)
Around = Callable[[Tensor, Tensor | None, Run], Tensor]  # y (B, n, C), there, the sublayer -> what the sublayer adds, (B, n, C)
Finish = Callable[[Stream], Tensor]  # -> the tokens (B, N, C) of the start, in their order


def all_tokens(stream: Stream) -> Tensor:
    """(B, N, C): tokens on their way as they are, those that were taken out as they were then."""
    if stream.full is None or stream.place is None:
        return stream.x
    return put_back(stream.x, stream.place, stream.there, stream.full)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hooks:
    """What a method does in one pass; where it says nothing, nothing happens. Keys are layers, counted from 1."""

    around_attention: Mapping[int, Around] = field(default_factory=dict)  # given the normalised input of the sublayer
    around_mlp: Mapping[int, Around] = field(default_factory=dict)
    read: Mapping[int, Read] = field(default_factory=dict)  # layers whose attention map is computed, and what is read of it
    after_attention: Mapping[int, Change] = field(default_factory=dict)  # its result is added, the MLP is still to come
    after_block: Mapping[int, Change] = field(default_factory=dict)
    restore: Finish = all_tokens
    coarse: tuple[int, int] | None = None  # rows and columns of a smaller grid that merged rows stand in
    survivors_only: bool = False  # the decoder reads tokens that are still on their way, and `canvas` answers for the others


DENSE = Hooks()


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What the hooks of a pass may depend on, beside the method's config."""

    grid: tuple[int, int]  # rows and columns of the tokens of an image
    prefix: int  # tokens before those of the grid: class and register tokens; they are never taken out
    depth: int  # layers of the network
    classes: int
    execution: Execution
    training: bool
    done: float | None  # share of the training's steps; None: not told
    seeds: Callable[
        [], list[int]
    ]  # one an image: of its values, so that the batch around it does not matter; in training drawn
    heads: Mapping[str, nn.Module]  # the method's own, by layer


class MakeHooks(Protocol):
    """A method's function from its config and the setting of a pass to its hooks."""

    def __call__(self, config: Any, setting: Setting) -> Hooks: ...  # noqa: D102 - as the class says


def drop(stream: Stream, chosen: Tensor, *, setting: Setting, most: int | None = None) -> Stream:
    """The stream with the chosen rows only, (B, n) true for them. Masked execution leaves all rows where they are.

    `most`: how many these are in every image, where that is known beforehand.
    """
    chosen = chosen if stream.there is None else chosen & stream.there
    if setting.execution == "masked":
        return stream._replace(there=chosen)
    full, before = all_tokens(stream), stream.place
    kept = keep(stream.x, chosen, most=most)
    place = kept.place if before is None else before.gather(1, kept.place)
    size = None if stream.size is None else stream.size.gather(1, kept.place)
    return stream._replace(x=kept.x, there=kept.there, size=size, full=full, place=place)


def alive_on_grid(stream: Stream, *, setting: Setting) -> Tensor:
    """(B, h, w) true for tokens of the grid that are still on their way."""
    there = torch.ones_like(stream.x[..., 0], dtype=torch.bool) if stream.there is None else stream.there
    if stream.full is not None and stream.place is not None:
        there = torch.zeros_like(stream.full[..., 0], dtype=torch.bool).scatter(1, stream.place, there)
    return there[:, setting.prefix :].unflatten(1, setting.grid)
