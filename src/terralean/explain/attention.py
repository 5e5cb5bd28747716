"""Which attention of which model there is to look at, and its weights for a window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn

from terralean.errors import ConfigError
from terralean.models.lemevit import Block, DualAttention, LeMeViT, LeMeViTPyramid, MetaReadsImage
from terralean.predict import Predictor
from terralean.predict.normalise import resized

Direction = Literal["meta", "image"]
By = Literal["token", "head"]
DIRECTIONS = {"meta": "meta tokens reading the image", "image": "the image reading meta tokens"}
Meeting = MetaReadsImage | DualAttention  # of image and meta tokens


class BlockId(NamedTuple):
    """Which block of a model, both numbers from 0."""

    stage: int
    block: int

    def __str__(self) -> str:
        return f"S{self.stage} block {self.block}"


@dataclass(frozen=True, kw_only=True, slots=True)
class LookConfig:
    """Which attention is shown; None: all tokens, all heads, the last stage and block that have it."""

    direction: Direction = "meta"
    by: By = "token"  # a map of each token, the mean of the heads; or of each head, the mean of the tokens
    stage: int | None = None
    block: int | None = None
    tokens: tuple[int, ...] | None = None  # from 0
    head: int | None = None  # from 0

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            named = ", ".join(f"{name} ({words})" for name, words in DIRECTIONS.items())
            raise ConfigError(f"direction must be one of {named}, got {self.direction!r}")
        if self.by not in get_args(By):
            raise ConfigError(f"by must be one of {', '.join(get_args(By))}, got {self.by!r}")
        if self.by == "head" and self.head is not None:
            raise ConfigError(f"by head there is a map of each head, not of head {self.head} alone; leave out --by or --head")
        if self.block is not None and self.stage is None:
            raise ConfigError(f"block {self.block} of which stage? give the stage too, e.g. --stage 1 --block {self.block}")
        if self.tokens is not None and (not self.tokens or len(set(self.tokens)) < len(self.tokens)):
            raise ConfigError(f"tokens must be one or more different numbers from 0, got {list(self.tokens)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """A LookConfig that a model can answer."""

    direction: Direction
    by: By
    shown: BlockId
    blocks: tuple[BlockId, ...]  # all that have this direction, for the numbers
    tokens: tuple[int, ...]
    count: int  # of meta tokens, chosen or not
    head: int | None
    maps: tuple[int, ...]  # numbers of the tokens, or of the heads, that have a map in the shown block


class Watcher:
    """A predictor whose attention can be read."""

    def __init__(self, predictor: Predictor, config: LookConfig) -> None:
        self.predictor = predictor
        self._backbone = find_backbone(predictor.model, name=predictor.card.model)
        self.look = choose(self._backbone, config)

    @torch.inference_mode()
    def __call__(self, image: Tensor, valid: Tensor) -> dict[BlockId, Tensor]:
        """image (C, H, W) as the scene stores it, valid (H, W) -> weights of each block, float32 on the CPU.

        They are (heads, tokens, h, w), of the chosen ones, and by head (tokens, heads, h, w): a map is a mean over the first
        axis. With direction "meta" they sum to one over h and w, with "image" over all tokens.
        """
        seen = self._seen(image, valid)
        meta = self.look.direction == "meta"
        found = self._backbone.meta_attention(seen) if meta else self._backbone.image_attention(seen)
        there = attentions(self._backbone)
        everywhere = [block for block, attention in there.items() if meta or isinstance(attention, DualAttention)]
        read = dict(zip(everywhere, found, strict=True))
        return {block: self._chosen(read[block]) for block in self.look.blocks}

    def maps(self, block: BlockId) -> tuple[int, ...]:
        """Numbers of the tokens, or of the heads, that have a map in a block."""
        return self.look.tokens if self.look.by == "token" else tuple(range(attentions(self._backbone)[block].heads))

    def side_seen(self, tile_px: int) -> int:
        """Side of what the model sees of a square window of the scene, in px."""
        card = self.predictor.card
        return card.seen_px or -(-tile_px // card.shrink)

    def _seen(self, image: Tensor, valid: Tensor) -> Tensor:
        device = self.predictor.device
        seen = self.predictor.normalise(image[None].to(device, torch.float32), valid[None].to(device))
        return resized(seen, side_px=self.side_seen(image.shape[-1])).to(next(self._backbone.parameters()).dtype)

    def _chosen(self, weights: Tensor) -> Tensor:
        """(1, heads, M, h, w) -> (heads, tokens, h, w) or (tokens, heads, h, w); rounded by bfloat16, sums become one again."""
        weights = weights[0].float()
        weights = weights / weights.sum(dim=(-2, -1) if self.look.direction == "meta" else 1, keepdim=True)
        heads = slice(None) if self.look.head is None else slice(self.look.head, self.look.head + 1)
        chosen = weights[heads, list(self.look.tokens)].cpu()
        return chosen.transpose(0, 1) if self.look.by == "head" else chosen


def has_meta_tokens(model: nn.Module) -> bool:
    """Whether there is attention to show."""
    return any(isinstance(part, LeMeViT | LeMeViTPyramid) for part in model.modules())


def find_backbone(model: nn.Module, *, name: str) -> LeMeViT | LeMeViTPyramid:
    """The part of a model that has meta tokens. Raises ConfigError where there is none."""
    found = next((part for part in model.modules() if isinstance(part, LeMeViT | LeMeViTPyramid)), None)
    if found is None:
        raise ConfigError(
            f"{name} has no meta tokens whose attention could be shown; explain a run of a LeMeViT, "
            "for instance of lemevit_tiny_light or, for scene recognition, lemevit_tiny"
        )
    return found


def choose(backbone: LeMeViT | LeMeViTPyramid, config: LookConfig) -> Look:
    """What was asked for, checked against the model. Raises ConfigError where it does not have that."""
    there = attentions(backbone)
    shown = _shown(there, config, stages=backbone.config.stages[: len(backbone.stages)])
    count, heads = backbone.config.meta_tokens, there[shown].heads
    wrong = [token for token in config.tokens or () if not 0 <= token < count]
    if wrong:
        raise ConfigError(f"the model has {count} meta tokens, 0 to {count - 1}; got {', '.join(map(str, wrong))}")
    if config.head is not None and not 0 <= config.head < heads:
        raise ConfigError(f"{shown} has {heads} heads, 0 to {heads - 1}; got {config.head}")
    tokens = tuple(range(count)) if config.tokens is None else config.tokens
    if config.by == "head" and config.direction == "image" and len(tokens) == count:
        raise ConfigError("of all tokens together a head reads the same everywhere; choose some, e.g. --tokens 0 --by head")
    able = [block for block, attention in there.items() if _answers(attention, config)]
    return Look(
        direction=config.direction,
        by=config.by,
        shown=shown,
        blocks=tuple(block for block in able if (config.head or 0) < there[block].heads),
        tokens=tokens,
        count=count,
        head=config.head,
        maps=tokens if config.by == "token" else tuple(range(heads)),
    )


def attentions(backbone: LeMeViT | LeMeViTPyramid) -> dict[BlockId, Meeting]:
    """The attention of every block in which image and meta tokens meet, in order."""
    stages = cast("list[list[Block]]", list(backbone.stages))
    found = {BlockId(stage, index): block.attn for stage, blocks in enumerate(stages) for index, block in enumerate(blocks)}
    return {block: attention for block, attention in found.items() if isinstance(attention, Meeting)}


def _answers(attention: Meeting, config: LookConfig) -> bool:
    if isinstance(attention, MetaReadsImage):
        return config.direction == "meta"
    return config.direction == "image" or attention.proj_c is not None


def _shown(there: Mapping[BlockId, Meeting], config: LookConfig, *, stages: str) -> BlockId:
    """The block that was asked for, or the last one that answers."""
    blocks = [block for block in there if config.stage in (None, block.stage)]
    able = [block for block in blocks if _answers(there[block], config)]
    if not able:
        _refuse_stage(there, config, stages=stages)
    if config.block is None and able:
        return able[-1]
    if config.block is not None and not 0 <= config.block < len(blocks):
        raise ConfigError(f"S{config.stage} has {len(blocks)} blocks, 0 to {len(blocks) - 1}; got {config.block}")
    wanted = blocks[config.block or 0]
    if wanted not in able:
        other = f"--block {able[-1].block}, or " if able else ""
        raise ConfigError(
            f"in {wanted} no meta token reads the image: it is the last block whose meta tokens the model uses, and they are "
            f"read there as they came; use {other}--direction image"
        )
    return wanted


def _refuse_stage(there: Mapping[BlockId, Meeting], config: LookConfig, *, stages: str) -> None:
    """Raise ConfigError for a stage without such an attention; the last block of S2 alone may be one that does not answer."""
    elsewhere = sorted({block.stage for block in there if _answers(there[block], config)})
    use = f"use --stage {' or '.join(map(str, elsewhere))}" if elsewhere else "use --direction meta"
    if config.stage is None:
        raise ConfigError(f"in this model (stages {stages}) the image reads no meta tokens; {use}")
    if not 0 <= config.stage < len(stages):
        raise ConfigError(f"stage must be one of {', '.join(map(str, elsewhere))}, got {config.stage}")
    if stages[config.stage] == "S":
        raise ConfigError(
            f"in S{config.stage} image tokens read image tokens only; meta tokens, where the model still has them, read one "
            f"another; {use}, where image and meta tokens meet"
        )
    if stages[config.stage] == "-":
        raise ConfigError(f"this model has no S{config.stage} (stages {stages}); {use}")
    if config.direction == "image" and stages[config.stage] == "C":
        raise ConfigError(
            f"in S{config.stage} meta tokens read the image, and the image reads nothing; {use}, or --direction meta"
        )
