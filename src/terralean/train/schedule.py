"""Learning rate and weight decay."""

from __future__ import annotations

import math

from timm.optim import param_groups_weight_decay
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from terralean.train.config import TrainConfig


def optimiser(model: nn.Module, config: TrainConfig) -> AdamW:
    """AdamW; norms, biases and what the model names itself (meta tokens) are not decayed."""
    spared: set[str] = getattr(model, "no_weight_decay", set)()
    groups = param_groups_weight_decay(model, weight_decay=config.weight_decay, no_weight_decay_list=sorted(spared))
    return AdamW(groups, lr=config.lr)


def schedule(adamw: AdamW, config: TrainConfig) -> LambdaLR:
    """Per-step learning rate: linear warm-up, then cosine or linear (poly, power 1) down to `final_lr`."""
    return LambdaLR(adamw, lambda step: factor(step, config))


def factor(step: int, config: TrainConfig) -> float:
    """Share of `lr` at a step, from 0."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = min(1.0, (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps))
    left = (1 + math.cos(math.pi * done)) / 2 if config.schedule == "cosine" else 1 - done
    floor = config.final_lr / config.lr
    return floor + (1 - floor) * left
