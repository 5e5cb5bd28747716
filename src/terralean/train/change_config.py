"""One experiment of change detection. What a recipe with `task: change` holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

from terralean.data.change_config import PairConfig
from terralean.data.config import DataConfig
from terralean.errors import ConfigError
from terralean.models import CHANGE_DETECTORS
from terralean.train.config import AdaptConfig, ModelConfig, TilingConfig, TrainConfig, check_start

VECTOR = "change_vector"  # the model that is fitted, not trained


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorConfig:
    """How the threshold of change vector analysis is found. The labels of the training area are not looked at."""

    bins: int = 4096  # of the histogram of lengths
    longest: float = 16.0  # length up to which it is resolved, standard deviations; longer ones count as this

    def __post_init__(self) -> None:
        if self.bins < 16 or not self.longest > 0:  # noqa: PLR2004 - with fewer there is no threshold to speak of
            raise ConfigError(f"vector.bins is 16 or more and vector.longest above 0, got {self.bins} and {self.longest:g}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangeExperiment:
    """Everything a run depends on but the data folder."""

    task: Literal["change"]
    model: ModelConfig
    data: DataConfig = field(default_factory=DataConfig)
    pairs: PairConfig = field(default_factory=PairConfig)
    train: TrainConfig | None = None  # of a network
    vector: VectorConfig | None = None  # of change vector analysis; an experiment has one of the two
    adapt: AdaptConfig | None = None  # None: all weights are trained
    tiling: TilingConfig = field(default_factory=TilingConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, got {self.seed}")
        if self.model.name not in CHANGE_DETECTORS:
            near = get_close_matches(self.model.name, CHANGE_DETECTORS) or [*CHANGE_DETECTORS]
            raise ConfigError(
                f"model {self.model.name} does not compare two dates, task change needs one that does: {', '.join(near)}"
            )
        check_start(self.model, self.adapt)
        if self.model.shrink < 1 or self.data.tile_px % self.model.shrink:
            raise ConfigError(
                f"model.shrink must be at least 1 and divide data.tile_px, got {self.model.shrink} and {self.data.tile_px} px"
            )
        if (self.train is None) == (self.vector is None) or (self.model.name == VECTOR) != (self.vector is not None):
            raise ConfigError(
                f"the model {VECTOR} is fitted with a section vector:, all others are trained with train:; this experiment of "
                f"{self.model.name} has {_sections(self)}"
            )

    @property
    def training(self) -> TrainConfig:
        """How the network is trained; for those who know that it is one."""
        assert self.train is not None
        return self.train


def _sections(experiment: ChangeExperiment) -> str:
    there = [name for name in ("train", "vector") if getattr(experiment, name) is not None]
    return " and ".join(there) or "neither"
