"""One experiment of scene recognition. What a recipe with `task: classification` holds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

from terralean.data.scene_config import SceneDataConfig
from terralean.errors import ConfigError
from terralean.models import CLASSIFIERS, PIXEL_CLASSIFIERS, SEGMENTERS
from terralean.tasks.classification import MixConfig
from terralean.train.config import AdaptConfig, ModelConfig, check_course, check_start
from terralean.train.course import StepCourse, in_steps


@dataclass(frozen=True, kw_only=True, slots=True)
class GridConfig:
    """How a raster is cut when the model is used; goes into the card."""

    view_px: int | None = None  # side of what is recognised at once, in the raster's px; None: as the training images are
    cell_px: int | None = None  # side of a cell of the map, in the middle of a view; None: the whole view

    def __post_init__(self) -> None:
        for name in ("view_px", "cell_px"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"grid.{name} must be above 0, got {value}")
        if self.view_px is not None and self.cell_px is not None and self.cell_px > self.view_px:
            raise ConfigError(f"grid.cell_px {self.cell_px} is more than a view sees, grid.view_px {self.view_px}; lower it")


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneTrainConfig:
    """The schedule of a training run. An epoch is as many images as there are to train on."""

    epochs: int
    lr: float  # highest, of a batch of this size; the published rates are per 512 images and grow with the batch
    batch: int = 64  # images per step, of all processes together
    accumulate: int = 1  # parts of its share that a process works through one after the other; saves memory
    backbone_lr: float = 1.0  # times lr: the rate of all but the last layer; 0 trains the last layer alone
    final_lr: float = 1e-5
    warmup_epochs: float = 5.0
    cooldown_epochs: float = 0.0  # the last of the epochs, at final_lr
    schedule: Literal["cosine", "poly"] = "cosine"
    weight_decay: float = 0.05  # not on norms, biases and meta tokens
    clip_norm: float | None = None  # largest norm of all gradients together
    ema_decay: float | None = 0.996  # of the averaged weights that are validated and kept; None: the plain ones
    validate_every: int = 1  # epochs; a killed run goes on from the last multiple
    patience: int | None = None  # validations without a better top-1 accuracy after which training stops
    label_smoothing: float = 0.1
    mix: MixConfig = field(default_factory=MixConfig)
    normalise: Literal["data", "imagenet"] = "data"  # by the training images, or as weights from ImageNet expect it
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # the last two mixed; fp16 needs CUDA
    workers: int = 0  # processes that read images beside the one that trains

    def __post_init__(self) -> None:
        check_course(self)
        if self.warmup_epochs + self.cooldown_epochs >= self.epochs:
            raise ConfigError(
                f"train.warmup_epochs {self.warmup_epochs:g} and train.cooldown_epochs {self.cooldown_epochs:g} leave nothing "
                f"of {self.epochs} epochs; lower them, e.g. --set train.warmup_epochs={self.epochs / 10:g}"
            )
        if self.mix.active and self.batch // self.accumulate % 2:
            raise ConfigError(
                f"train.mix pairs images, so a batch must be even, got train.batch {self.batch} in {self.accumulate} parts"
            )

    def course(self, *, images: int) -> StepCourse:
        """The schedule in steps for so many training images; the last batch of an epoch goes on into the next."""
        epoch = math.ceil(images / self.batch)
        return in_steps(
            self, epoch=epoch, warmup=round(epoch * self.warmup_epochs), cooldown=round(epoch * self.cooldown_epochs)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneExperiment:
    """Everything a run depends on but the data folder."""

    task: Literal["classification"]
    model: ModelConfig
    train: SceneTrainConfig
    data: SceneDataConfig = field(default_factory=SceneDataConfig)
    grid: GridConfig = field(default_factory=GridConfig)
    adapt: AdaptConfig | None = None  # None: all weights are trained
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, got {self.seed}")
        if self.model.name in (*SEGMENTERS, *PIXEL_CLASSIFIERS):
            does = "maps pixels" if self.model.name in SEGMENTERS else "recognises the pixel in the middle of a patch"
            raise ConfigError(
                f"model {self.model.name} {does}, task classification needs one that recognises whole images: "
                f"{', '.join(get_close_matches(self.model.name, CLASSIFIERS) or ('lemevit_tiny',))}"
            )
        check_start(self.model, self.adapt)
        if self.model.shrink != 1:
            raise ConfigError("model.shrink is for maps of pixels; what a scene classifier sees is set by data.size_px")
