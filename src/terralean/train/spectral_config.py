"""One experiment on hyperspectral pixels. What a recipe with `task: spectral` holds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

from terralean.data.spectral.config import SpectralDataConfig
from terralean.errors import ConfigError
from terralean.models import PIXEL_CLASSIFIERS
from terralean.tasks.pixels import Balance
from terralean.train.config import AdaptConfig, ModelConfig, check_course, check_start, check_tiling
from terralean.train.svm_config import SVMConfig
from terralean.weights.card import SVM


@dataclass(frozen=True, kw_only=True, slots=True)
class SpectralTrainConfig:
    """The schedule of a training run."""

    steps: int  # optimiser steps in all
    validate_every: int  # steps; a killed run goes on from the last multiple
    batch: int = 64  # patches per step, of all processes together
    accumulate: int = 1  # parts of its share that a process works through one after the other; saves memory
    lr: float = 1e-3  # highest; reached after the warm-up
    backbone_lr: float = 1.0  # times lr: the rate of all but the last layer
    final_lr: float = 1e-5
    warmup_steps: int = 50
    cooldown_steps: int = 0  # at the end, at final_lr
    schedule: Literal["cosine", "poly"] = "cosine"
    weight_decay: float = 0.05  # not on norms, biases and tables of positions
    clip_norm: float | None = 1.0  # largest norm of all gradients together
    ema_decay: float | None = 0.98  # of the averaged weights that are validated and kept; None: the plain ones
    patience: int | None = None  # validations without a better score after which training stops
    label_smoothing: float = 0.1
    mixup: float = 1.0  # alpha of the shares by which two patches are mixed into one; 0: none are
    balance: Balance = "none"  # classes are drawn as often as they have pixels, by the root of that, or all as often
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # the last two mixed; fp16 needs CUDA
    workers: int = 0  # processes that cut patches beside the one that trains

    def __post_init__(self) -> None:
        check_course(self)
        if not 0 <= self.mixup < math.inf:
            raise ConfigError(f"train.mixup must be 0 (off) or more, 1 for example, got {self.mixup}")
        if self.warmup_steps + self.cooldown_steps >= self.steps:
            raise ConfigError(
                f"train.warmup_steps {self.warmup_steps} and train.cooldown_steps {self.cooldown_steps} leave nothing of "
                f"{self.steps} steps; lower them, e.g. --set train.warmup_steps={self.steps // 10}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class CubeTilingConfig:
    """How cubes are cut when the model is used; goes into the card."""

    tile_px: int = 64
    overlap_px: int | None = None  # None: what a window needs, its side less one

    def __post_init__(self) -> None:
        check_tiling(tile_px=self.tile_px, overlap_px=0 if self.overlap_px is None else self.overlap_px)


@dataclass(frozen=True, kw_only=True, slots=True)
class SpectralExperiment:
    """Everything a run depends on but the data."""

    task: Literal["spectral"]
    model: ModelConfig
    data: SpectralDataConfig = field(default_factory=SpectralDataConfig)
    train: SpectralTrainConfig | None = None  # of a network
    svm: SVMConfig | None = None  # of a support vector machine; an experiment has one of the two
    adapt: AdaptConfig | None = None  # None: all weights are trained
    tiling: CubeTilingConfig = field(default_factory=CubeTilingConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, got {self.seed}")
        if self.model.name not in PIXEL_CLASSIFIERS:
            near = get_close_matches(self.model.name, PIXEL_CLASSIFIERS) or [*PIXEL_CLASSIFIERS]
            raise ConfigError(
                f"model {self.model.name} recognises no single pixel of a cube, task spectral needs one that does: "
                f"{', '.join(near)}"
            )
        check_start(self.model, self.adapt)
        if self.model.shrink != 1:
            raise ConfigError("model.shrink is for maps by networks that see whole tiles; leave it out")
        if (self.model.name == SVM) != (self.svm is not None) or (self.train is None) == (self.svm is None):
            raise ConfigError(
                f"the model named {SVM} is fitted with a section svm:, all others are trained with train:; model "
                f"{self.model.name} has {'svm:' if self.svm else 'no svm:'} and {'train:' if self.train else 'no train:'}"
            )
        if self.svm is not None:
            _check_svm(self)

    @property
    def training(self) -> SpectralTrainConfig:
        """How the network is trained; for those who know that it is one."""
        assert self.train is not None
        return self.train


def _check_svm(experiment: SpectralExperiment) -> None:
    told = {
        "model.weights": experiment.model.weights is not None,
        "model.sizes": bool(experiment.model.sizes),
        "adapt": experiment.adapt is not None,
    }
    if wrong := [name for name, is_told in told.items() if is_told]:
        raise ConfigError(f"{', '.join(wrong)}: of no meaning for a machine that is fitted; svm: holds all its settings")
