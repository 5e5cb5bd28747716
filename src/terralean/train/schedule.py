"""Learning rate and weight decay."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

from timm.optim import param_groups_weight_decay
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from terralean.errors import ConfigError
from terralean.train.course import Course

DROPS = (8 / 12, 11 / 12)  # shares of the steps; mmdetection's schedule of twelve epochs


def optimiser(model: nn.Module, config: Course) -> AdamW:
    """AdamW; norms, biases and what the model names itself (meta tokens) are not decayed, the backbone has its own rate.

    Raises ConfigError where there is a rate for a backbone that the model does not have.
    """
    spared: set[str] = getattr(model, "no_weight_decay", set)()
    groups = param_groups_weight_decay(model, weight_decay=config.weight_decay, no_weight_decay_list=sorted(spared))
    if config.backbone_lr != 1:
        groups = _with_backbone(groups, model, lr=config.lr * config.backbone_lr)
    return AdamW(groups, lr=config.lr)


def schedule(adamw: AdamW, config: Course) -> LambdaLR:
    """Per-step learning rate: linear warm-up, cosine, linear (poly, power 1) or by steps, then a cooldown."""
    return LambdaLR(adamw, lambda step: factor(step, config))


def factor(step: int, config: Course) -> float:
    """Share of `lr` at a step, from 0."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    falling = config.steps - config.cooldown_steps - config.warmup_steps
    done = min(1.0, (step - config.warmup_steps) / max(1, falling))
    if config.schedule == "step":
        return _dropped(step / config.steps)
    left = (1 + math.cos(math.pi * done)) / 2 if config.schedule == "cosine" else 1 - done
    floor = config.final_lr / config.lr
    return floor + (1 - floor) * left


def _dropped(done: float) -> float:
    """Share of `lr` after this share of the steps: a tenth from two thirds on, a hundredth from eleven twelfths on."""
    return 0.1 ** sum(done >= drop for drop in DROPS)


def _with_backbone(groups: list[dict[str, Any]], model: nn.Module, *, lr: float) -> list[dict[str, Any]]:
    """The groups without the backbone's parameters, then those of the backbone, with their rate."""
    own = _backbone(model)
    if not own:
        parts = ", ".join(name for name, _ in model.named_children())
        raise ConfigError(f"train.backbone_lr: the model has no backbone, its parts are {parts}; leave train.backbone_lr at 1")
    rest = [group | {"params": [p for p in group["params"] if id(p) not in own]} for group in groups]
    slow = [group | {"params": [p for p in group["params"] if id(p) in own], "lr": lr} for group in groups]
    return [group for group in [*rest, *slow] if group["params"]]


def _backbone(model: nn.Module) -> set[int]:
    """Parameters of what a model calls its backbone; of a classifier, all but its last layer's."""
    if not hasattr(model, "get_classifier"):
        return {id(parameter) for name, parameter in model.named_parameters() if name.startswith("backbone.")}
    last: nn.Module | tuple[nn.Module, ...] = cast("Callable[[], Any]", model.get_classifier)()
    heads = last if isinstance(last, tuple) else (last,)  # timm's distilled models have two
    spared = {id(parameter) for head in heads for parameter in head.parameters()}
    return {id(parameter) for parameter in model.parameters()} - spared
