"""What labelled images are, how they are split, seen and varied, where each image as a whole has a class."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from terralean.data.config import check_above_zero, check_expression
from terralean.errors import ConfigError

SceneSplitRule = Literal["given", "groups", "random"]
Interpolation = Literal["bilinear", "bicubic"]

RAND_AUGMENT = re.compile(r"rand(-(m|n|mmax|inc)\d+|-(p|mstd)\d+(\.\d+)?|-t(weights|3aw?))*")  # what timm understands


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneSplitConfig:
    """Which images train a model and which ones judge it."""

    rule: SceneSplitRule | None = None  # None: as the dataset gives it, else by groups where they are known, else at random
    validation: float = 0.15  # share of the images; of the training part where only the test split is given
    test: float = 0.2  # share of the images
    seed: int | None = None  # of what is dealt at random; None: the run's, so that another training is tested elsewhere

    def __post_init__(self) -> None:
        check_shares(validation=self.validation, test=self.test, seed=self.seed)


def check_shares(*, validation: float, test: float, seed: int | None) -> None:
    """Raise ConfigError where a data.split of shares leaves nothing to train on, or its seed is none."""
    for name, share in (("validation", validation), ("test", test)):
        if not 0 <= share < 1:
            raise ConfigError(f"data.split.{name} is a share, 0 up to below 1, got {share:g}")
    if validation + test >= 1:
        raise ConfigError(
            f"data.split.validation {validation:g} and data.split.test {test:g} leave nothing to train on; together they must "
            "stay below 1"
        )
    if seed is not None and seed < 0:
        raise ConfigError(f"data.split.seed is 0 or more, got {seed}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneAugmentConfig:
    """How training crops vary. Crop, RandAugment and erasing are those of DeiT (Touvron et al. 2021, table 9)."""

    crop_scale: tuple[float, float] = (0.08, 1.0)  # least and largest share of the image's area that a crop shows
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)  # narrowest and widest crop, width over height, before it is made square
    flips: Literal["none", "horizontal", "both"] = "both"  # what may be exchanged: left and right, or top and bottom as well
    rotate90: bool = True  # quarter turns
    rand_augment: str | None = None  # in timm's notation, "rand-m9-mstd0.5-inc1"; only for three bands of 8 bits
    erasing: float = 0.0  # chance that a rectangle becomes noise, of the mean and spread of each band
    interpolation: Interpolation = "bicubic"  # of crops and of what is judged; always with antialiasing

    def __post_init__(self) -> None:
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ConfigError(
                f"data.augment.crop_scale is a least and a largest share of an image, above 0 to 1, got {low:g} and {high:g}"
            )
        low, high = self.crop_ratio
        if not 0 < low <= high:
            raise ConfigError(
                f"data.augment.crop_ratio is a least and a largest width over height, above 0, got {low:g} and {high:g}"
            )
        if self.rand_augment is not None and not RAND_AUGMENT.fullmatch(self.rand_augment):
            raise ConfigError(
                f"data.augment.rand_augment {self.rand_augment!r} is not in timm's notation, "
                "such as rand-m9-mstd0.5-inc1 (magnitude 9, varied by 0.5, of operations that grow with it)"
            )
        if not 0 <= self.erasing <= 1:
            raise ConfigError(f"data.augment.erasing is a chance, 0 to 1, got {self.erasing:g}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneDataConfig:
    """What the images of a dataset are, and how a network sees them."""

    classes: tuple[str, ...] | None = None  # names in order; None: of the folders, sorted, or by the numbers of the lists
    lists: str | None = None  # which of several list files: "82_0" for train_labels_82_0.txt and valid_labels_82_0.txt
    group: str | None = None  # regular expression found in the file name; what it captures stays on one side of a split
    bands: tuple[int, ...] | None = None  # positions from 1; None: all
    colour: Literal["stored", "rgb"] = "stored"  # "rgb": grey and CMYK pictures of 8 bits are read as red, green, blue
    least_px: int = 16  # shorter side of an image, at least
    unreadable: Literal["stop", "skip"] = "stop"  # what images do that are broken or too small: stop the run, or be left out
    size_px: int = 224  # side of the square that the network sees
    resize_px: int = 256  # shorter side to which an image is resized before the centre of it is judged
    views: Literal["centre", "many"] = "centre"  # what is judged of an image: its centre, or a grid of crops that covers it
    most_views: int = 24  # of an image, where many are judged
    cache_mb: int = 512  # decoded images kept, in each worker process
    split: SceneSplitConfig = field(default_factory=SceneSplitConfig)
    augment: SceneAugmentConfig = field(default_factory=SceneAugmentConfig)

    def __post_init__(self) -> None:
        if self.bands is not None and (not self.bands or min(self.bands) < 1 or len(set(self.bands)) != len(self.bands)):
            raise ConfigError(f"data.bands are different positions from 1, got {list(self.bands)}")
        check_above_zero(self, "data", ("least_px", "size_px", "most_views", "cache_mb"))
        if self.resize_px < self.size_px:
            raise ConfigError(
                f"data.resize_px {self.resize_px} is less than data.size_px {self.size_px}, what is cut from its centre; "
                f"make it {self.size_px} or more, usual is {round(self.size_px / 0.875)}"
            )
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            raise ConfigError(f"data.classes must differ, got {', '.join(self.classes)}")
        if self.group is not None:
            check_expression(self.group)
