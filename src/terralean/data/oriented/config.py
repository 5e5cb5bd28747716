"""How oriented objects are read, split, cut and varied. Every default of training on them is written here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from terralean.data.config import check_above_zero, check_expression
from terralean.data.oriented.augment import ObjectsAugmentConfig
from terralean.data.oriented.layouts import ObjectsConfig
from terralean.data.scene_config import check_shares
from terralean.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectsSplitConfig:
    """Which images train a detector and which ones judge it. Images of one group stay together."""

    rule: Literal["given", "groups"] | None = None  # None: as folders, lists or an index give it, else by groups or images
    validation: float = 0.15  # share of the objects; of the training part where the data give no validation images
    test: float = 0.2  # share of the objects, where the data give no split
    merge: bool = False  # validation images train, too, and nothing is validated, as is usual for DOTA
    seed: int | None = None  # of what is dealt at random; None: the run's

    def __post_init__(self) -> None:
        check_shares(validation=self.validation, test=self.test, seed=self.seed)


@dataclass(frozen=True, kw_only=True, slots=True)
class RadiometryConfig:
    """How values vary, in units of each band's standard deviation."""

    brightness: float = 0.1  # largest shift of a band, in its std
    contrast: float = 0.1  # largest relative change of a band's distance from its mean

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast"):
            if getattr(self, name) < 0:
                raise ConfigError(f"data.radiometry.{name} is 0 or more, got {getattr(self, name):g}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionDataConfig(ObjectsConfig):
    """What a detector learns from."""

    bands: tuple[int, ...] | None = None  # positions from 1; None: all
    group: str | None = None  # regular expression found in the file name; what it captures stays on one side of a split
    tile_px: int = 1024  # side of the square that is seen at once
    overlap_px: int = 200  # shared by neighbouring tiles
    iof: float = 0.7  # share of an object's area from which on a tile has it
    least_px: float = 2.0  # objects with a shorter side are not learned
    empty_share: float = 0.0  # of tiles without objects, in training
    cache_mb: int = 512  # decoded images kept, in each worker process
    split: ObjectsSplitConfig = field(default_factory=ObjectsSplitConfig)
    augment: ObjectsAugmentConfig = field(default_factory=ObjectsAugmentConfig)
    radiometry: RadiometryConfig = field(default_factory=RadiometryConfig)

    def __post_init__(self) -> None:
        check_above_zero(self, "data", ("tile_px", "cache_mb"))
        if not 0 <= self.overlap_px < self.tile_px:
            raise ConfigError(f"data.overlap_px must be 0 or more and below data.tile_px {self.tile_px}, got {self.overlap_px}")
        if not 0 < self.iof <= 1:
            raise ConfigError(f"data.iof must be above 0 up to 1, got {self.iof:g}")
        if not 0 <= self.empty_share < 1 or self.least_px < 0:
            raise ConfigError(
                "data.empty_share is a share below 1 and data.least_px 0 or more, got "
                f"{self.empty_share:g} and {self.least_px:g}"
            )
        if self.bands is not None and (not self.bands or min(self.bands) < 1 or len(set(self.bands)) != len(self.bands)):
            raise ConfigError(f"data.bands are different positions from 1, got {list(self.bands)}")
        if self.group is not None:
            check_expression(self.group)
