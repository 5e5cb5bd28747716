"""One experiment: model, data, schedule, seed. What a recipe file holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from typing import Any, Literal

import yaml

from terralean.adapt.lora import LoRAConfig
from terralean.data.config import DataConfig
from terralean.errors import ConfigError
from terralean.models import CLASSIFIERS, PIXEL_CLASSIFIERS, SEGMENTERS
from terralean.tasks.segmentation import LossConfig
from terralean.tokens import Reduction
from terralean.weights.card import FOREST, MIN_TILE_PX

# Of the settings of a schedule: names, what holds of a value, and that in words.
RANGES: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (
        ("steps", "epochs", "validate_every", "batch", "accumulate", "lr", "clip_norm"),
        lambda value: 0 < value < math.inf,
        "above 0",
    ),
    (("patience",), lambda value: value >= 1, "1 or more, or null for no end before the last step"),
    (
        ("backbone_lr", "final_lr", "weight_decay", "workers"),
        lambda value: 0 <= value < math.inf,
        "0 or more",
    ),
    (
        ("warmup_steps", "warmup_epochs", "cooldown_steps", "cooldown_epochs"),
        lambda value: 0 <= value < math.inf,
        "0 or more",
    ),
    (("ema_decay", "label_smoothing"), lambda value: 0 <= value < 1, "0 up to below 1"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Which network, and what it starts from."""

    name: str
    shrink: int = 1  # the network sees means over squares of so many pixels: at 2 a fourth of the work, and twice the view
    weights: str | None = None  # a run folder, .safetensors or .pth to start from; None: random
    averaged: bool = False  # start from the averaged weights of a file that holds both these and the plain ones
    sizes: dict[str, bool | int | float | str] = field(default_factory=dict)  # keyword arguments of the model's function


@dataclass(frozen=True, kw_only=True, slots=True)
class TilingConfig:
    """How scenes are cut when the model is used; goes into the card."""

    tile_px: int = 512
    overlap_px: int = 128

    def __post_init__(self) -> None:
        check_tiling(tile_px=self.tile_px, overlap_px=self.overlap_px)


def check_tiling(*, tile_px: int, overlap_px: int) -> None:
    """Raise ConfigError for windows that no map can be made of."""
    if tile_px < MIN_TILE_PX:
        raise ConfigError(f"tiling.tile_px must be {MIN_TILE_PX} or more, got {tile_px}")
    if not 0 <= overlap_px <= tile_px // 2:
        raise ConfigError(
            f"tiling.overlap_px must be 0 to half of tiling.tile_px ({tile_px // 2} px of {tile_px}), got {overlap_px}; set "
            f"both, e.g. --set tiling.tile_px={tile_px} --set tiling.overlap_px={tile_px // 4}"
        )


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
    cooldown_steps: int = 0  # at the end, at final_lr
    schedule: Literal["cosine", "poly"] = "cosine"
    weight_decay: float = 0.05  # not on norms, biases and meta tokens
    clip_norm: float | None = 1.0  # largest norm of all gradients together
    ema_decay: float | None = 0.99  # of the averaged weights that are validated and kept; None: the plain ones
    patience: int | None = None  # validations without a better mIoU after which training stops
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # the last two mixed; fp16 needs CUDA
    workers: int = 0  # processes that read crops beside the one that trains
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        check_course(self)
        if self.warmup_steps + self.cooldown_steps >= self.steps:
            raise ConfigError(
                f"train.warmup_steps {self.warmup_steps} {_with_cooldown(self.cooldown_steps)}leaves nothing of {self.steps} "
                f"steps; lower it, e.g. --set train.warmup_steps={self.steps // 10}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ForestConfig:
    """How a random forest is fitted."""

    pixels: int = 200_000  # labelled training pixels that it learns from
    trees: int = 100
    min_leaf: int = 5  # training pixels in a leaf at least
    depth: int | None = None  # of a tree at most; None: as the leaves allow
    sides_px: tuple[int, ...] = (3, 7, 15, 31)  # of squares whose means and deviations it sees beside a pixel's values
    balance: Literal["none", "root", "full"] = "root"  # classes by frequency, by its root, or all as often, where they can

    def __post_init__(self) -> None:
        for name in ("pixels", "trees", "min_leaf"):
            if getattr(self, name) < 1:
                raise ConfigError(f"forest.{name} must be above 0, got {getattr(self, name)}")
        if self.depth is not None and self.depth < 1:
            raise ConfigError(f"forest.depth must be above 0, or null for no limit, got {self.depth}")
        if len(set(self.sides_px)) != len(self.sides_px) or any(side < 3 or side % 2 == 0 for side in self.sides_px):  # noqa: PLR2004
            raise ConfigError(f"forest.sides_px must be different odd numbers from 3, got {list(self.sides_px)}")

    @property
    def largest_px(self) -> int:
        """Side of the largest square, 1 where it sees the pixel alone."""
        return max(self.sides_px, default=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptConfig(LoRAConfig):
    """How a trained network is adapted instead of training all of its weights; its adapters are merged at the end."""

    start: str  # in a recipe `from`: a run folder, .safetensors or .pth of a network of this kind


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """Everything a run depends on but the data folder."""

    task: Literal["segmentation"]
    model: ModelConfig
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig | None = None  # of a network
    forest: ForestConfig | None = None  # of a random forest; an experiment has one of the two
    reduce: Reduction | None = None  # how tokens are taken out or merged on their way through the network; None: not at all
    adapt: AdaptConfig | None = None  # None: all weights are trained
    tiling: TilingConfig = field(default_factory=TilingConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, got {self.seed}")
        if self.model.name in (*CLASSIFIERS, *PIXEL_CLASSIFIERS):
            sees = "whole images" if self.model.name in CLASSIFIERS else "the pixel in the middle of a patch"
            raise ConfigError(
                f"model {self.model.name} recognises {sees}, task segmentation needs one that maps pixels: "
                f"{', '.join(get_close_matches(self.model.name, SEGMENTERS) or ('lemevit_tiny_light',))}"
            )
        check_start(self.model, self.adapt)
        if self.model.shrink < 1 or self.data.tile_px % self.model.shrink:
            raise ConfigError(
                f"model.shrink must be at least 1 and divide data.tile_px, got {self.model.shrink} and {self.data.tile_px} px"
            )
        if (self.train is None) == (self.forest is None):
            found = "neither" if self.train is None else "both"
            raise ConfigError(
                f"an experiment has a section train: (a network) or forest: (a random forest), this one {found}; "
                "leave out what sets the other, --set train.KEY=VALUE for a forest, say"
            )
        if (self.model.name == FOREST) != (self.forest is not None):
            raise ConfigError(
                f"model {self.model.name} does not go with the section {'train' if self.forest is None else 'forest'}:; "
                f"the model named {FOREST} is fitted with forest:, all others are trained with train:"
            )
        if self.forest is not None:
            _check_forest(self, self.forest)

    @property
    def training(self) -> TrainConfig:
        """How the network is trained; for those who know that it is one."""
        assert self.train is not None
        return self.train


def check_course(config: object) -> None:
    """Raise ConfigError, naming the setting, for a value of a section train: that no schedule can have; of any task."""
    for names, least, words in RANGES:
        for name in names:
            value = getattr(config, name, None)  # a section has steps or epochs, and None where a setting is left out
            if value is not None and not least(value):
                raise ConfigError(f"train.{name} must be {words}, got {value}")


def _with_cooldown(steps: int) -> str:
    return f"with train.cooldown_steps {steps} " if steps else ""


def to_yaml(experiment: Any) -> str:
    """Every value of an experiment, defaults included, as a recipe file holds them."""
    return yaml.safe_dump(plain(sections(experiment)), sort_keys=False)


def sections(experiment: Any) -> dict[str, Any]:
    """The values of an experiment by the names that recipes have for them; sections that it does not have are left out."""
    found = {name: value for name, value in asdict(experiment).items() if value is not None}
    if "adapt" in found:
        found["adapt"] = {"from": found["adapt"].pop("start"), **found["adapt"]}
    return found


def check_start(model: ModelConfig, adapt: AdaptConfig | None) -> None:
    """Raise ConfigError where it is said twice what a network starts from."""
    if adapt is not None and model.weights is not None:
        raise ConfigError(
            f"adapt.from {adapt.start} and model.weights {model.weights} both say what the network starts from; leave out "
            "model.weights to adapt, or adapt: to train all weights"
        )


def _check_forest(experiment: Experiment, forest: ForestConfig) -> None:
    """Raise ConfigError for what has a meaning for networks only, and for windows that share too little."""
    default = DataConfig()
    told = {
        "model.weights": experiment.model.weights is not None,
        "model.sizes": bool(experiment.model.sizes),
        "model.shrink": experiment.model.shrink != 1,
        "reduce": experiment.reduce is not None,
        "adapt": experiment.adapt is not None,
        "data.augment": experiment.data.augment != default.augment,
        "data.rare_share": experiment.data.rare_share != default.rare_share,
    }
    if wrong := [name for name, is_told in told.items() if is_told]:
        raise ConfigError(f"{', '.join(wrong)}: of no meaning for a forest; leave it out, forest: holds all its settings")
    if experiment.tiling.overlap_px < forest.largest_px - 1:
        raise ConfigError(
            f"tiling.overlap_px {experiment.tiling.overlap_px} is too little for squares of {forest.largest_px} px "
            f"(forest.sides_px): neighbouring windows would differ; make it {forest.largest_px - 1} or more"
        )


def plain(value: Any) -> Any:
    """As a recipe file holds it: lists in place of tuples."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value
