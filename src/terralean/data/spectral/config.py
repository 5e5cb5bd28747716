"""How cubes and their labels are found, dealt, and shown to a network."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from terralean.errors import ConfigError
from terralean.raster.label_map import Unlabelled

Method = Literal["block", "random", "maps", "scene"]
Distance = Literal["centre", "strict"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SpectralSplitConfig:
    """Which labelled pixels train, validate and test.

    "block": squares of the scene are dealt, training pixels drawn inside the squares for training, and test pixels too near
    to one of these left out. "random": drawn all over the scene. "maps": as given label maps have it. "scene": train on some
    scenes, test on others.
    """

    method: Method = "block"
    share: float = 0.05  # of the labelled pixels of each class, to train on
    per_class: int | None = None  # so many of each class in place of a share
    least: int = 3  # of each class where a share gives fewer
    validation: float = 0.5  # pixels for each training pixel, beside these
    validation_most: int = 2000  # pixels in all, so that validating takes no longer than training
    test: float = 0.5  # of the squares, to test on
    block_px: int | None = None  # side of the squares; None: twice the window, or smaller where classes need it
    window_px: int = 15  # side of the largest patch that any of the models compared sees around a pixel
    distance: Distance = "centre"  # no training pixel inside the window of a test pixel; strict: their windows share no pixel
    test_scenes: tuple[str, ...] = ()  # names of the files to test on, without suffix
    seed: int | None = None  # of the deal; None: the run's own, so that runs of the same seeds are paired

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ConfigError(f"data.split.share must be above 0 and below 1, got {self.share}; 0.05 is 5 %")
        if not 0 < self.test < 1:
            raise ConfigError(f"data.split.test must be above 0 and below 1, got {self.test}")
        for name in ("least", "per_class", "block_px", "window_px", "validation_most"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"data.split.{name} must be at least 1, got {value}")
        if self.window_px % 2 == 0:
            raise ConfigError(f"data.split.window_px must be odd, as the pixel stands in the middle, got {self.window_px}")
        if not 0 <= self.validation < math.inf:
            raise ConfigError(f"data.split.validation must be 0 or more, got {self.validation}")
        if self.seed is not None and self.seed < 0:
            raise ConfigError(f"data.split.seed must be 0 or more, got {self.seed}")
        if (self.method == "scene") != bool(self.test_scenes):
            raise ConfigError(
                "data.split.test_scenes names the scenes that data.split.method=scene tests on; "
                + ("name them" if self.method == "scene" else "set the method, or leave them out")
            )

    @property
    def reach_px(self) -> int:
        """Test pixels so near to a training pixel, along rows or columns, are left out."""
        return self.window_px // 2 if self.distance == "centre" else self.window_px - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class SpectralAugmentConfig:
    """How training patches are changed, each time anew."""

    turn: bool = True  # turned and mirrored, one of eight ways
    gain: float = 0.05  # all bands times 1 plus or minus up to this, as light and slope do
    noise: float = 0.05  # each value plus normal noise of this share of its band's deviation

    def __post_init__(self) -> None:
        for name in ("gain", "noise"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"data.augment.{name} must be 0 up to below 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SpectralDataConfig:
    """Where cubes and labels are, and how they are read; paths are seen from the data folder."""

    cube: str | None = None  # None: found
    labels: str | None = None  # a label map, polygons or a table of points; None: found
    label_field: str | None = None  # attribute of polygons, or column of points, that names the class; None: found
    unlabelled: Unlabelled = "auto"  # what 0 means; auto: no label, but where the file names a class 0
    classes: tuple[str, ...] | None = None  # names, in the order of the numbers; None: as the file or the public scene has them
    train_labels: str | None = None  # label maps of data.split.method=maps
    validation_labels: str | None = None
    test_labels: str | None = None
    bands: tuple[int, ...] | None = None  # positions from 1; None: all but bad ones
    fitted_on: Literal["training", "scene"] = (
        "training"  # pixels that normalisation and components come of; scene: transductive
    )
    augment: SpectralAugmentConfig = field(default_factory=SpectralAugmentConfig)
    split: SpectralSplitConfig = field(default_factory=SpectralSplitConfig)

    def __post_init__(self) -> None:
        both = self.train_labels is not None and self.test_labels is not None
        if self.split.method == "maps" and not both:
            raise ConfigError("data.split.method=maps needs data.train_labels and data.test_labels, a label map each")
        maps = (self.train_labels, self.validation_labels, self.test_labels)
        if self.split.method != "maps" and any(path is not None for path in maps):
            raise ConfigError(
                f"data.train_labels and the like are for data.split.method=maps, which is {self.split.method}; set the method, "
                "or leave them out"
            )
