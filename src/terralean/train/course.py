"""What the machinery of a run asks of any task: how long and how fast to train, and which score says what is best."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol

from torch import nn

from terralean.tasks.change import F1, F1_BATCHES, F1_CLASSES, IOU, PRECISION, RECALL
from terralean.tasks.change import OA as CHANGE_OA
from terralean.tasks.classification import TOP1, TOP5
from terralean.tasks.pixels import AA, KAPPA, OA, PROBABILITY


class Course(Protocol):
    """How a network is trained, in optimiser steps. `TrainConfig` documents each."""

    @property
    def steps(self) -> int: ...  # noqa: D102 - named as the settings are
    @property
    def validate_every(self) -> int: ...  # noqa: D102
    @property
    def batch(self) -> int: ...  # noqa: D102
    @property
    def accumulate(self) -> int: ...  # noqa: D102
    @property
    def lr(self) -> float: ...  # noqa: D102
    @property
    def backbone_lr(self) -> float: ...  # noqa: D102
    @property
    def final_lr(self) -> float: ...  # noqa: D102
    @property
    def warmup_steps(self) -> int: ...  # noqa: D102
    @property
    def cooldown_steps(self) -> int: ...  # noqa: D102
    @property
    def schedule(self) -> Literal["cosine", "poly", "step"]: ...  # noqa: D102
    @property
    def weight_decay(self) -> float: ...  # noqa: D102
    @property
    def clip_norm(self) -> float | None: ...  # noqa: D102
    @property
    def ema_decay(self) -> float | None: ...  # noqa: D102
    @property
    def patience(self) -> int | None: ...  # noqa: D102
    @property
    def precision(self) -> Literal["fp32", "bf16", "fp16"]: ...  # noqa: D102
    @property
    def workers(self) -> int: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCourse:
    """A course that was asked for in epochs, in the steps that these are."""

    steps: int
    validate_every: int
    batch: int
    accumulate: int
    lr: float
    backbone_lr: float
    final_lr: float
    warmup_steps: int
    cooldown_steps: int
    schedule: Literal["cosine", "poly", "step"]
    weight_decay: float
    clip_norm: float | None
    ema_decay: float | None
    patience: int | None
    precision: Literal["fp32", "bf16", "fp16"]
    workers: int


class InEpochs(Protocol):
    """A schedule whose other settings are those of `StepCourse`, but for warm-up and cool-down."""

    @property
    def epochs(self) -> int: ...  # noqa: D102
    @property
    def validate_every(self) -> int: ...  # noqa: D102


def in_steps(schedule: InEpochs, *, epoch: int, warmup: int, cooldown: int = 0) -> StepCourse:
    """The same in steps, where an epoch, the warm-up and the cool-down have so many."""
    steps = epoch * schedule.epochs
    counted: dict[str, Any] = {
        "steps": steps,
        "validate_every": min(epoch * schedule.validate_every, steps),
        "warmup_steps": warmup,
        "cooldown_steps": cooldown,
    }
    same = {f.name: getattr(schedule, f.name) for f in fields(StepCourse) if f.name not in counted}
    return StepCourse(**counted, **same)


class Batched(Protocol):
    """What of a schedule says how many images a process holds."""

    @property
    def batch(self) -> int: ...  # noqa: D102
    @property
    def accumulate(self) -> int: ...  # noqa: D102


class Judged(Protocol):
    """What is trained: a network, and how well it does on the validation split of all processes."""

    model: nn.Module

    def validation_scores(self) -> dict[str, float]:
        """By their columns in metrics.csv; the loss is "val_loss"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """The score by which the best weights are kept."""

    name: str  # as people say it
    key: str  # in a card
    beside: tuple[str, ...]  # keys of others that are logged

    @property
    def column(self) -> str:
        """Of metrics.csv."""
        return f"val_{self.key}"

    @property
    def columns(self) -> tuple[str, ...]:
        """Of metrics.csv, the others' included."""
        return (self.column, *(f"val_{key}" for key in self.beside))


MAP50 = Score(name="mAP@0.5 (area)", key="map50_area", beside=("map50_voc07",))
MIOU = Score(name="mIoU", key="miou", beside=("oa",))
SURE = Score(name="probability of the true class", key=PROBABILITY, beside=(OA, AA, KAPPA))
CHANGE = Score(name="F1 of change", key=F1, beside=(PRECISION, RECALL, IOU, F1_BATCHES, F1_CLASSES, CHANGE_OA))
TOP = Score(name="top-1 accuracy", key=TOP1, beside=(TOP5,))
