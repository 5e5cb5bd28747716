"""Training adapters in place of all weights: what happens before, while and after, so that a run's weights are plain again."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning
from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch import Tensor, nn

from terralean.adapt.freezing import adapt, learning
from terralean.adapt.lora import CycleConfig, adapters, set_strength, strength_at, unwrap
from terralean.train.config import AdaptConfig
from terralean.train.course import Course, Judged
from terralean.weights.adapter import save_adapter
from terralean.weights.card import Adapted
from terralean.weights.checkpoint import NAME as WEIGHTS
from terralean.weights.checkpoint import load_exactly, read_tensors, save_weights

log = logging.getLogger(__name__)

FOLDER = "adapter"  # in a run: the adapters alone, and what else learned


def begin(model: nn.Module, config: AdaptConfig) -> None:
    """Put adapters into a network that holds the weights it starts from, and freeze the rest."""
    layers = adapt(model, config)
    log.info("%d layers adapted with rank %d; %s", len(layers), config.rank, learning(model))


def callbacks(config: AdaptConfig, course: Course) -> list[Callback]:
    """What averages weights, and sets the strength of adapters, as far as these are wanted."""
    averaging = [] if course.ema_decay is None else [WeightAveraging(avg_fn=partial(nearer, decay=course.ema_decay))]
    return [*averaging, *([] if config.schedule is None else [Strength(config.schedule, steps=course.steps)])]


def nearer(averaged: Tensor, current: Tensor, count: Tensor, *, decay: float) -> Tensor:
    """The exponential mean one step on, written so that what is frozen stays what it is to the last bit."""
    return averaged + (1 - decay) * (current - averaged)


class Strength(Callback):
    """Set the strength of adapters before every step. What is validated and kept has that of the step before it."""

    def __init__(self, config: CycleConfig, *, steps: int) -> None:
        self.config, self.steps = config, steps

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """By optimiser steps, not parts of them."""
        strength = strength_at(trainer.global_step, steps=self.steps, config=self.config)
        set_strength(cast("Judged", pl_module).model, strength)


def finish(model: nn.Module, config: AdaptConfig, *, out: Path) -> Adapted:
    """Merge the adapters that were kept into the run's weights, and keep them alone in a folder beside these.

    A run that was killed behind that holds plain weights already, and they stay.
    """
    learned, layers = learning(model), len([*adapters(model)])
    state = read_tensors(out / WEIGHTS)
    if state.keys() == model.state_dict().keys():
        load_exactly(model, state, source=str(out / WEIGHTS))
        save_adapter(model, out / FOLDER, base=config.start)
        unwrap(model)
        save_weights(model.state_dict(), out / WEIGHTS)
    else:
        unwrap(model)
        load_exactly(model, state, source=str(out / WEIGHTS))
    return Adapted(
        start=config.start,
        rank=config.rank,
        alpha=config.scaled_by,
        layers=layers,
        learned=learned.learning,
        of=learned.total,
    )
