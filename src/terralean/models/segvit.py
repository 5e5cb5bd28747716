"""Segmentation by a plain vision transformer and one attention-to-mask head, with or without a method of token reduction.

The dense network is the baseline of Zhang & Yao 2025 (Remote Sensing 17(14), 2508): ViT-B/16 without class token in the
sequence and without last norm, and the head of a single stage that Liu et al. (ICCV 2023) use instead of SegViT's three (Zhang
et al., NeurIPS 2022). At 512 px with 6 classes it has 93.832 M parameters and takes 108.267 GFLOPs as fvcore counts them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from terralean.layers.hooks import Answer, Execution, Hooks, Point, Setting, Stream, Traced
from terralean.layers.segmenter import at_size_of, learned_tokens, stacked
from terralean.models.atm import ATMHead, ClassMode
from terralean.models.place import Place
from terralean.models.reducers import drawn_seeds, grid_multiple, heads_of, hooks_of, seeds_of_values, told
from terralean.models.vit import Embedded, ViTEncoder
from terralean.tokens.packed import put_back
from terralean.tokens.scores import class_map

LEAST = 1e-8  # of a class's share, whose logarithm is the score


@dataclass(frozen=True, kw_only=True, slots=True)
class SegViTConfig:
    """Sizes of a segmenter, and how it runs batches whose images hold different numbers of tokens."""

    bands: int
    classes: int
    backbone: str  # timm's name of a plain vision transformer
    image_px: int = 512  # side of the image that the table of positions is for; others take it resized
    drop_path: float = 0.1
    class_token_in_sequence: bool = False
    final_norm: bool = False
    decoder_width: int = 384
    decoder_layers: int = 3
    decoder_heads: int = 6  # 6 in Liu et al. 2023, 12 in SegViT
    class_mode: ClassMode = "two_way"
    execution: Execution = "packed"
    training_execution: Execution = "masked"


class SegViT(nn.Module):
    """Segmenter: (B, bands, H, W) -> scores (B, classes, H, W), logarithms of shares that sum to one, for any H and W."""

    def __init__(self, config: SegViTConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = ViTEncoder(
            config.backbone,
            bands=config.bands,
            image_px=config.image_px,
            drop_path=config.drop_path,
            class_token_in_sequence=config.class_token_in_sequence,
            final_norm=config.final_norm,
        )
        self.head = ATMHead(
            self.backbone.width,
            classes=config.classes,
            width=config.decoder_width,
            heads=config.decoder_heads,
            layers=config.decoder_layers,
            mode=config.class_mode,
        )
        self.reduce: Any = None
        self.heads = nn.ModuleDict()  # of the method of reduction

    def reduce_tokens(self, config: Any) -> None:
        """Use a method of token reduction (a config of `terralean.tokens`), None for none; adds the parameters that it needs.

        Raises ConfigError where the network does not have the layers it is to act at.
        """
        place = Place(
            width=self.backbone.width,
            depth=self.backbone.depth,
            classes=self.config.classes,
            class_mode=self.config.class_mode,
        )
        self.heads = nn.ModuleDict() if config is None else heads_of(config, place)
        self.reduce = config

    def forward(self, image: Tensor, *, done: float | None = None) -> Tensor | dict[str, Tensor]:
        """Scores at the resolution of the image.

        In training a dict of these, "shares" (B, K, H, W) whose logarithms they are before these add up to 1, "masks"
        (1, B, K, h, w) and "objects" (1, B, K, 2 or K + 1), the logits of the head, and "auxiliary_masks" and
        "auxiliary_objects", those of A heads on the way, where there are any. `done` is the share of the steps of training that
        are behind us, for methods that go by it.
        """
        run = self._run(image, done=done)
        shares = shares_of(run.answer, image)
        scores = scores_of(shares)
        if not self.training:
            return scores
        output = {"scores": scores, "shares": shares, **stacked([run.answer])}
        return output | stacked(run.on_the_way, prefix="auxiliary_")

    def trace(self, image: Tensor) -> tuple[Point, ...]:
        """What the method did at each of its points; nothing without a method."""
        return self._record(self._encode(image, done=None))

    def traced(self, image: Tensor) -> Traced:
        """Scores and what the method did for them, of one pass."""
        run = self._run(image, done=None)
        return Traced(scores_of(shares_of(run.answer, image)), run.record, self.backbone.depth)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters to leave without weight decay beside the one-dimensional ones."""
        return {f"backbone.{name}" for name in self.backbone.no_weight_decay()} | learned_tokens(self)

    def _run(self, image: Tensor, *, done: float | None) -> Run:
        encoded = self._encode(image, done=done)
        start, setting, end = encoded.start, encoded.setting, encoded.end
        on_the_way = [Answer(_cut(masks, setting.grid, start.size), objects) for masks, objects in end.answers]
        decode = self._decode_survivors if encoded.hooks.survivors_only else self._decode_all
        return Run(decode(encoded), on_the_way, self._record(encoded))

    def _record(self, encoded: Encoded) -> tuple[Point, ...]:
        backbone, record = self.backbone, encoded.end.record
        return told(record, inside=encoded.start.size, last=backbone.depth, token_px=backbone.patch_px)

    def _encode(self, image: Tensor, *, done: float | None) -> Encoded:
        start = self.backbone.embed(image, multiple=grid_multiple(self.reduce))
        setting = self._setting(image, start, done=done)
        hooks = hooks_of(self.reduce, setting)
        return Encoded(
            start, setting, hooks, self.backbone.run(Stream(start.x, start.there), hooks, execution=setting.execution)
        )

    def _setting(self, image: Tensor, start: Embedded, *, done: float | None) -> Setting:
        config = self.config
        return Setting(
            grid=start.grid,
            prefix=self.backbone.prefix,
            depth=self.backbone.depth,
            classes=config.classes,
            execution=config.training_execution if self.training else config.execution,
            training=self.training,
            done=done,
            seeds=(lambda: drawn_seeds(len(image))) if self.training else (lambda: seeds_of_values(image)),
            heads=dict(self.heads.items()),
        )

    def _decode_all(self, encoded: Encoded) -> Answer:
        """The head reads every token, those that were taken out as they were then: masks (B, K, h, w)."""
        start, setting, hooks, end = encoded
        tokens = self.backbone.finish(hooks.restore(end)[:, setting.prefix :])
        height, width = start.size
        if start.grid != start.size:
            tokens = tokens.unflatten(1, start.grid)[:, :height, :width].flatten(1, 2)
        masks, objects = self.head(tokens)
        return Answer(masks.unflatten(2, start.size), objects)

    def _decode_survivors(self, encoded: Encoded) -> Answer:
        """The head reads tokens that are still on their way; of the others the canvas holds the masks: (B, K, h, w)."""
        start, setting, _, end = encoded
        there = None if end.there is None else end.there[:, setting.prefix :]
        masks, objects = self.head(self.backbone.finish(end.x[:, setting.prefix :]), there)
        if end.canvas is not None:
            rows = torch.arange(masks.shape[2], device=masks.device).expand(masks.shape[0], -1)
            rows = rows if end.place is None else end.place[:, setting.prefix :] - setting.prefix
            canvas = end.canvas.detach().to(masks.dtype).transpose(1, 2)
            masks = put_back(masks.transpose(1, 2), rows, there, canvas).transpose(1, 2)
        return Answer(_cut(masks, setting.grid, start.size), objects)


class Encoded(NamedTuple):
    """Where an image's tokens began, what was to happen to them, and where they are after the last layer."""

    start: Embedded
    setting: Setting
    hooks: Hooks
    end: Stream


class Run(NamedTuple):
    """What one pass gives; masks (B, K, h, w)."""

    answer: Answer
    on_the_way: list[Answer]
    record: tuple[Point, ...]


def shares_of(answer: Answer, image: Tensor) -> Tensor:
    """Masks (B, K, h, w) and class logits -> each class's mask times its probability (B, K, H, W), as large as the image."""
    found = class_map(answer.masks.flatten(2), answer.objects).unflatten(2, answer.masks.shape[-2:])
    return at_size_of(image, found).float()


def scores_of(share: Tensor) -> Tensor:
    """Shares (B, K, H, W) -> their logarithms when they add up to 1."""
    return (share / share.sum(dim=1, keepdim=True).clamp(min=LEAST)).clamp(min=LEAST).log()


def _cut(masks: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """(B, K, N) -> (B, K, h, w) without what lies past the image."""
    return masks.unflatten(2, grid)[:, :, : size[0], : size[1]]


def segvit(
    *,
    bands: int,
    classes: int,
    backbone: str,
    image_px: int = 512,
    drop_path: float = 0.1,
    class_token_in_sequence: bool = False,
    final_norm: bool = False,
    decoder_width: int = 384,
    decoder_layers: int = 3,
    decoder_heads: int = 6,
    class_mode: ClassMode = "two_way",
    execution: Execution = "packed",
    training_execution: Execution = "masked",
) -> SegViT:
    """Any plain vision transformer of timm's with an attention-to-mask head."""
    return SegViT(
        SegViTConfig(
            bands=bands,
            classes=classes,
            backbone=backbone,
            image_px=image_px,
            drop_path=drop_path,
            class_token_in_sequence=class_token_in_sequence,
            final_norm=final_norm,
            decoder_width=decoder_width,
            decoder_layers=decoder_layers,
            decoder_heads=decoder_heads,
            class_mode=class_mode,
            execution=execution,
            training_execution=training_execution,
        )
    )


def vit_base_segvit(
    *,
    bands: int,
    classes: int,
    image_px: int = 512,
    drop_path: float = 0.1,
    class_token_in_sequence: bool = False,
    final_norm: bool = False,
    decoder_width: int = 384,
    decoder_layers: int = 3,
    decoder_heads: int = 6,
    class_mode: ClassMode = "two_way",
    execution: Execution = "packed",
    training_execution: Execution = "masked",
) -> SegViT:
    """ViT-B/16 with an attention-to-mask head, 93.832 M parameters with 6 classes."""
    return segvit(
        bands=bands,
        classes=classes,
        backbone="vit_base_patch16_224",
        image_px=image_px,
        drop_path=drop_path,
        class_token_in_sequence=class_token_in_sequence,
        final_norm=final_norm,
        decoder_width=decoder_width,
        decoder_layers=decoder_layers,
        decoder_heads=decoder_heads,
        class_mode=class_mode,
        execution=execution,
        training_execution=training_execution,
    )


def vit_tiny_segvit(
    *,
    bands: int,
    classes: int,
    image_px: int = 256,
    drop_path: float = 0.1,
    class_token_in_sequence: bool = False,
    final_norm: bool = False,
    decoder_width: int = 192,
    decoder_layers: int = 3,
    decoder_heads: int = 3,
    class_mode: ClassMode = "two_way",
    execution: Execution = "packed",
    training_execution: Execution = "masked",
) -> SegViT:
    """ViT-Ti/16 with a narrower attention-to-mask head, for tiles of 256 px."""
    return segvit(
        bands=bands,
        classes=classes,
        backbone="vit_tiny_patch16_224",
        image_px=image_px,
        drop_path=drop_path,
        class_token_in_sequence=class_token_in_sequence,
        final_norm=final_norm,
        decoder_width=decoder_width,
        decoder_layers=decoder_layers,
        decoder_heads=decoder_heads,
        class_mode=class_mode,
        execution=execution,
        training_execution=training_execution,
    )
