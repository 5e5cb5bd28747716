"""Which sizes a graph of a model can have free, and which methods of token reduction a graph can hold."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from torch import nn

from terralean.errors import ConfigError
from terralean.export.graph import NOTHING, ONLY_BATCH, Free
from terralean.layers.segmenter import Segmenter
from terralean.models.lemevit import LeMeViTPyramid
from terralean.models.segvit import SegViT
from terralean.models.swin import SwinPyramid
from terralean.weights.card import FOREST, Card

TASKS = ("segmentation", "classification", "detection")
COARSEST = 32  # largest reduction of the backbones
# Shapes that depend on values cannot be in a graph; what is decided by values can be, by masks, where no shape depends on it.
STATIC = ("topk", "elvit", "sparsevit")
MASKED = ("matp", "threshold", "dtop")


def free_axes(model: nn.Module, card: Card) -> list[Free]:
    """Sets of axes to try, the freest first."""
    backbone = getattr(model, "backbone", None)
    # How many tokens stay, and which windows reach past the map, is counted when the graph is made.
    if card.reduce is not None or isinstance(backbone, SwinPyramid) or card.sizes.get("s3_attention") == "windows":
        return [ONLY_BATCH, NOTHING]
    if card.task == "classification":
        return [Free(least_px=2), ONLY_BATCH, NOTHING]
    if isinstance(backbone, LeMeViTPyramid):
        # Maps of one pixel would be traced as such.
        return [Free(step_px=card.shrink, least_px=(COARSEST + 1) * card.shrink), ONLY_BATCH, NOTHING]
    step = _step(backbone) * card.shrink
    return [Free(step_px=step, least_px=2 * step), ONLY_BATCH, NOTHING]


def _step(backbone: Any) -> int:
    """What images are filled up to multiples of: a program cannot choose whether to fill up."""
    patch: tuple[int, ...] | None = getattr(backbone, "patch_px", None)
    return math.lcm(*patch) if patch is not None else getattr(backbone, "step_px", COARSEST)


def check_model(card: Card) -> None:
    """ConfigError for a model that no graph can hold."""
    if card.model == FOREST:
        raise ConfigError(
            "a random forest goes from node to node, which graphs of networks cannot hold; use it by terralean map, or export "
            "a network"
        )
    if card.task not in TASKS:
        raise ConfigError(f"{card.model} was trained for {card.task}; models for {', '.join(TASKS)} can be exported")


def prepare_reduction(model: nn.Module, card: Card) -> str | None:
    """Make the model's method fit for a graph, and say at what price; ConfigError where none can hold it."""
    config: Any = card.reduce
    # Of a map whose tokens are gone, windows that hold as many are computed together: how many depends on the image.
    in_windows = isinstance(getattr(model, "backbone", None), SwinPyramid) and getattr(config, "method", None) == "topk"
    if config is None or _is_static(config, in_windows=in_windows):
        return None
    if config.method not in MASKED and not in_windows:
        raise ConfigError(
            f"reduce.method={config.method} makes shapes that depend on the image, which no graph can hold; export with --set "
            "reduce=null, or with a method of fixed shapes, e.g. --set reduce.method=topk --set 'reduce.shares=[0.5,0.5]'"
        )
    _mask(model)
    better = "" if in_windows else "; topk saves"
    return f"{config.method}: the graph masks tokens, so that answers are the run's own and nothing is saved{better}"


def _is_static(config: Any, *, in_windows: bool) -> bool:
    """Whether no shape depends on the image."""
    return (config.method in STATIC and not in_windows) or (config.method == "tome" and config.mode == "sublayer")


def _mask(model: nn.Module) -> None:
    """All the work of a dense pass, in which no shape depends on a value."""
    if isinstance(model, SegViT):
        model.config = replace(model.config, execution="masked")
    elif isinstance(model, Segmenter):
        model.execution = "masked"
