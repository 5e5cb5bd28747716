"""One experiment: model, data, schedule, seed. What a recipe file holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import yaml

from terralean.data.config import DataConfig
from terralean.errors import ConfigError
from terralean.tasks.segmentation import LossConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Which network, and what it starts from."""

    name: str
    shrink: int = 1  # the network sees means over squares of so many pixels: at 2 a fourth of the work, and twice the view
    weights: str | None = None  # a run folder, .safetensors or .pth to start from; None: random
    sizes: dict[str, bool | int | float | str] = field(default_factory=dict)  # keyword arguments of the model's function


@dataclass(frozen=True, kw_only=True, slots=True)
class TilingConfig:
    """How scenes are cut when the model is used; goes into the card."""

    tile_px: int = 512
    overlap_px: int = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """The schedule of a training run."""

    steps: int  # optimiser steps in all
    validate_every: int  # steps; a killed run goes on from the last multiple
    batch: int = 8  # crops per step, of all processes together
    accumulate: int = 1  # parts of its share that a process works through one after the other; saves memory
    lr: float = 1e-3  # highest; reached after the warm-up
    backbone_lr: float = 1.0  # times lr: the rate of the backbone's parameters
    final_lr: float = 1e-5
    warmup_steps: int = 50
    schedule: Literal["cosine", "poly"] = "cosine"
    weight_decay: float = 0.05  # not on norms, biases and meta tokens
    clip_norm: float | None = 1.0  # largest norm of all gradients together
    ema_decay: float | None = 0.99  # of the averaged weights that are validated and kept; None: the plain ones
    patience: int | None = None  # validations without a better mIoU after which training stops
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # the last two mixed; fp16 needs CUDA
    workers: int = 0  # processes that read crops beside the one that trains
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        for name in ("steps", "validate_every", "batch", "accumulate", "lr"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"train.{name} must be above 0, got {getattr(self, name)}")
        if self.backbone_lr < 0:
            raise ConfigError(f"train.backbone_lr must be 0 or more (a factor of lr), got {self.backbone_lr}")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ConfigError(f"train.ema_decay must be 0 up to below 1, got {self.ema_decay}")
        if self.warmup_steps >= self.steps:
            raise ConfigError(f"train.warmup_steps {self.warmup_steps} leaves nothing of {self.steps} steps; lower it")


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """Everything a run depends on but the data folder."""

    task: Literal["segmentation"]
    model: ModelConfig
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig
    tiling: TilingConfig = field(default_factory=TilingConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, got {self.seed}")
        if self.model.shrink < 1 or self.data.tile_px % self.model.shrink:
            raise ConfigError(
                f"model.shrink must be at least 1 and divide data.tile_px, got {self.model.shrink} and {self.data.tile_px} px"
            )


def to_yaml(experiment: Experiment) -> str:
    """Every value of an experiment, defaults included, as a recipe file holds them."""
    return yaml.safe_dump(_plain(asdict(experiment)), sort_keys=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
