"""A backbone and the heads that read its maps, which is what most segmentation networks are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terralean.errors import ConfigError
from terralean.layers.folding import fold_norms
from terralean.layers.hooks import Answer, Execution, Point, Traced


class Reduction(NamedTuple):
    """How a backbone is to take tokens out or merge them, in one pass."""

    config: Any  # of a method, one of `terralean.tokens`
    heads: Mapping[str, nn.Module]  # the method's own, by layer
    classes: int
    execution: Execution
    done: float | None  # share of the training's steps behind us


class ReducedMaps(NamedTuple):
    """What a backbone gives that takes tokens out or merges them."""

    maps: list[Tensor]  # finest first, every token in its place
    answers: tuple[Answer, ...]  # of auxiliary heads, masks (B, K, h, w)
    record: tuple[Point, ...]
    layers: int  # of the stages that can be reduced


class Segmenter(nn.Module):
    """A backbone that gives a pyramid and a head that reads it: (B, bands, H, W) -> scores (B, classes, H, W).

    An auxiliary head reads the same pyramid while training, so that the loss reaches the middle of the backbone; the scores
    of the head do not depend on it.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, *, classes: int, auxiliary: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.classes = classes
        self.auxiliary = auxiliary
        self.reduce: Any = None
        self.heads = nn.ModuleDict()  # of the method of token reduction
        self.execution: Execution = "packed"
        self.training_execution: Execution = "masked"

    def reduce_tokens(self, config: Any) -> None:
        """Use a method of token reduction (a config of `terralean.tokens`), None for none; adds the parameters that it needs.

        Raises ConfigError where the backbone has no tokens, not the layers that the method is to act at, or no use for it.
        """
        graders: Callable[..., nn.ModuleDict] | None = getattr(self.backbone, "graders", None)
        if graders is None:
            raise ConfigError(
                f"a {type(self.backbone).__name__} has no place for reduce.method={config.method}; LeMeViT, Swin and the plain "
                "vision transformers of segvit have"
            )
        self.heads = nn.ModuleDict() if config is None else graders(config, classes=self.classes)
        self.reduce = config

    def forward(self, image: Tensor, *, done: float | None = None) -> Tensor | dict[str, Tensor]:
        """Scores (logits) at the resolution of the image, for any H and W.

        In training, with an auxiliary head: a dict of "scores" and "auxiliary", both of that shape. And with a method of token
        reduction that has heads: "auxiliary_masks" (A, B, K, h, w) and "auxiliary_objects" (A, B, K, 2), the logits of these.
        `done` is the share of the training's steps behind us, for methods that go by it.
        """
        if self.reduce is None:
            return self._read(self.backbone(image), image)
        found = self._reduced(image, done=done)
        output = self._read(found.maps, image)
        if not self.training or not found.answers:
            return output
        return {**(output if isinstance(output, dict) else {"scores": output}), **stacked(found.answers, prefix="auxiliary_")}

    def trace(self, image: Tensor) -> tuple[Point, ...]:
        """What the method did at each of its points; nothing without a method."""
        return () if self.reduce is None else self._reduced(image, done=None).record

    def traced(self, image: Tensor) -> Traced:
        """Scores and what the method did for them, of one pass."""
        found = self._reduced(image, done=None)
        return Traced(at_size_of(image, self.head(found.maps)), found.record, found.layers)

    def fold(self) -> Segmenter:
        """A copy for inference: the same scores to rounding, faster."""
        folded = fold_norms(self)
        own: Callable[..., nn.Module] | None = getattr(self.backbone, "fold", None)
        folded.backbone = folded.backbone if own is None else own(**({} if self.reduce is None else {"reduced": True}))
        return folded

    def no_weight_decay(self) -> set[str]:
        """Names of parameters to leave without weight decay beside the one-dimensional ones."""
        own: set[str] = getattr(self.backbone, "no_weight_decay", set)()
        return {f"backbone.{name}" for name in own} | {f"heads.{name}" for name in learned_tokens(self.heads)}

    def _read(self, maps: list[Tensor], image: Tensor) -> Tensor | dict[str, Tensor]:
        scores = at_size_of(image, self.head(maps))
        if self.auxiliary is None or not self.training:
            return scores
        return {"scores": scores, "auxiliary": at_size_of(image, self.auxiliary(maps))}

    def _reduced(self, image: Tensor, *, done: float | None) -> ReducedMaps:
        reduce = cast("Callable[..., ReducedMaps]", self.backbone.reduced)
        execution = self.training_execution if self.training else self.execution
        return reduce(image, Reduction(self.reduce, dict(self.heads.items()), self.classes, execution, done))


def learned_tokens(module: nn.Module) -> set[str]:
    """Names of the parameters that are tokens themselves, class queries for instance."""
    return {f"{name}.weight" for name, part in module.named_modules() if isinstance(part, nn.Embedding)}


def stacked(answers: Sequence[Answer], *, prefix: str = "") -> dict[str, Tensor]:
    """Answers of equal shapes as a loss takes them: "masks" (A, B, K, h, w) and "objects" (A, B, K, 2), with a prefix."""
    if not answers:
        return {}
    masks, objects = (torch.stack(parts) for parts in zip(*answers, strict=True))
    return {f"{prefix}masks": masks, f"{prefix}objects": objects}


def at_size_of(target: Tensor, x: Tensor) -> Tensor:
    """x (B, C, h, w) at the height and width of the target (..., H, W), bilinear between the centres of pixels."""
    return F.interpolate(x, size=target.shape[-2:], mode="bilinear", align_corners=False)
