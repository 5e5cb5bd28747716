"""One experiment of oriented detection. What a recipe with `task: detection` holds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

from terralean.data.oriented.config import DetectionDataConfig
from terralean.errors import ConfigError
from terralean.models import DETECTORS
from terralean.train.config import AdaptConfig, ModelConfig, check_course, check_start
from terralean.train.course import StepCourse, in_steps


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionTrainConfig:
    """The schedule of a training run. An epoch is as many tiles as there are with objects."""

    epochs: int
    lr: float  # highest; reached after the warm-up
    batch: int = 8  # tiles per step, of all processes together
    accumulate: int = 1  # parts of its share that a process works through one after the other; saves memory
    backbone_lr: float = 1.0  # times lr: the rate of the backbone's parameters
    final_lr: float = 1e-6
    warmup_steps: int = 500
    schedule: Literal["cosine", "poly", "step"] = "cosine"  # step: a tenth after 2/3 of the steps, a hundredth after 11/12
    weight_decay: float = 0.05  # not on norms, biases and meta tokens
    clip_norm: float | None = 35.0  # largest norm of all gradients together
    ema_decay: float | None = None  # of the averaged weights that are validated and kept; None: the plain ones
    validate_every: int = 1  # epochs; a killed run goes on from the last multiple
    patience: int | None = None  # validations without a better mAP after which training stops
    freeze_norms: bool = False  # batch norms of the backbone keep their statistics; for weights trained on larger batches
    normalise: Literal["data", "imagenet"] = "data"  # by the training tiles, or as weights from ImageNet expect it
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # the last two mixed; fp16 needs CUDA
    workers: int = 0  # processes that read tiles beside the one that trains

    def __post_init__(self) -> None:
        check_course(self)

    def course(self, *, tiles: int) -> StepCourse:
        """The schedule in steps for so many training tiles. Raises ConfigError where the warm-up leaves nothing of it."""
        epoch = math.ceil(tiles / self.batch)
        steps = epoch * self.epochs
        if self.warmup_steps >= steps:
            raise ConfigError(
                f"train.warmup_steps {self.warmup_steps} leaves nothing of {steps} steps ({self.epochs} epochs of {tiles} "
                f"tiles in batches of {self.batch}); lower it, e.g. --set train.warmup_steps={steps // 10}, or train longer"
            )
        return in_steps(self, epoch=epoch, warmup=self.warmup_steps)


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionExperiment:
    """Everything a run depends on but the data folder."""

    task: Literal["detection"]
    model: ModelConfig
    train: DetectionTrainConfig
    data: DetectionDataConfig = field(default_factory=DetectionDataConfig)
    adapt: AdaptConfig | None = None  # None: all weights are trained
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, got {self.seed}")
        if self.model.name not in DETECTORS:
            raise ConfigError(
                f"model {self.model.name} finds no oriented boxes, which task detection needs; nearest: "
                f"{', '.join(get_close_matches(self.model.name, DETECTORS) or ('lemevit_tiny_orcnn',))}"
            )
        check_start(self.model, self.adapt)
        if self.model.shrink != 1:
            raise ConfigError("model.shrink is for maps of pixels; a detector sees tiles as they are, leave it out")
