"""What the machinery of a run asks of any task: how long and how fast to train, and which score says what is best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

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
