"""What the data are, how they are split, cut and varied. Every default of the room is written here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from terralean.errors import ConfigError
from terralean.raster.coding import HIGHEST, LOWEST
from terralean.spec import IGNORE

SplitName = Literal["train", "validation", "test"]
SplitRule = Literal["given", "blocks", "groups", "random"]

COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
MOST_TOLERANCE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedSplit:
    """Which group is in which split, by the names that data.group captures. Every group of the data is named once."""

    train: tuple[str, ...]
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()  # known and left out

    def __post_init__(self) -> None:
        if not self.train:
            raise ConfigError("data.split.listed.train is empty; list the groups that train")
        named = [*self.train, *self.validation, *self.test, *self.unused]
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise ConfigError(f"data.split.listed names {', '.join(twice)} more than once; give each group one place")


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitConfig:
    """Which pixels train a model and which ones judge it.

    Sizes in metres hold for scenes with coordinates, sizes in pixels for the others and where no metres are given.
    """

    rule: SplitRule | None = None  # None: as the dataset gives it, else by data.group, by ground, by groups or images
    validation: float = 0.15  # share of the labelled pixels; of the training part where only the test split is given
    test: float = 0.2  # share of the labelled pixels
    block_px: int | None = None  # side of a block; None: as suits some forty blocks or ten scenes, 512 px at most
    block_m: float | None = None
    gap_px: int | None = None  # from training to any pixel that judges, at least; None: 32, or a quarter of a block
    gap_m: float | None = None
    listed: ListedSplit | None = None  # the split of each group, by name, instead of a rule
    test_from: Literal["test", "validation"] = "test"  # the given split that is scored; validation: test labels are kept back
    seed: int | None = None  # of what is dealt at random; None: the run's, so that another training is tested elsewhere

    def __post_init__(self) -> None:
        for name in ("validation", "test"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"data.split.{name} is a share, 0 up to below 1, got {getattr(self, name):g}")
        if self.validation + self.test >= 1:
            raise ConfigError(
                f"data.split.validation {self.validation:g} and data.split.test {self.test:g} leave nothing to train on; "
                "together they must stay below 1"
            )
        check_above_zero(self, "data.split", ("block_px", "block_m"))
        if self.seed is not None and self.seed < 0:
            raise ConfigError(f"data.split.seed is 0 or more, got {self.seed}")
        for name in ("gap_px", "gap_m"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise ConfigError(f"data.split.{name} is a distance, 0 or more, got {value:g}")
        if self.listed is not None and self.rule is not None:
            raise ConfigError(f"data.split.listed says the split, so data.split.rule {self.rule} has no effect; take one out")
        if self.test_from != "test" and (self.listed is not None or self.rule not in (None, "given")):
            raise ConfigError(
                f"data.split.test_from {self.test_from} is for a split that folders or an index give, so it has no effect with "
                f"data.split.{'listed' if self.listed else 'rule'}; take one out"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """How training crops vary. Radiometry is in units of each band's standard deviation, so it fits any sensor."""

    flips: bool = True
    rotate90: bool = True
    zoom: tuple[float, float] = (0.5, 2.0)  # least and largest magnification, drawn evenly in its logarithm
    brightness: float = 0.1  # largest shift of a band, in its std
    contrast: float = 0.1  # largest relative change of a band's distance from its mean
    noise: float = 0.0  # std of the noise added to each pixel, in the band's std

    def __post_init__(self) -> None:
        low, high = self.zoom
        if not 0.1 <= low <= high <= 10:  # noqa: PLR2004 - beyond a factor of ten nothing is left of a pixel
            raise ConfigError(f"data.augment.zoom is a least and a largest magnification, 0.1 to 10, got {low:g} and {high:g}")
        for name in ("brightness", "contrast", "noise"):
            if getattr(self, name) < 0:
                raise ConfigError(f"data.augment.{name} is 0 or more, got {getattr(self, name):g}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """What the images and labels of a dataset are."""

    images: str | None = None  # folder of the images, relative to the data folder; None: as the layout has it
    labels: str | None = None  # folder of their labels, or the label raster or vector file of a single scene
    classes: tuple[str, ...] | None = None  # names in order; None: classes.csv, else what the labels hold
    colours: tuple[str, ...] | None = None  # "#rrggbb" of each, in maps and in labels of colours; None: classes.csv
    label_values: tuple[int, ...] | None = None  # stored number of each class; None: classes.csv, else 0, 1, 2, ...
    ignore: tuple[int | str, ...] = ()  # stored numbers, "#rrggbb" or class names neither trained on nor scored
    colour_tolerance: int = 0  # largest difference in a channel at which a stored colour counts as a listed one
    trust_labels: bool = False  # numbers that look shifted or mixed are only warned of
    label_field: str | None = None  # attribute of a vector file that names the class
    group: str | None = None  # regular expression found in the file name; what it captures stays on one side of a split
    bands: tuple[int, ...] | None = None  # positions from 1; None: all
    tile_px: int = 256  # side of a training crop
    rare_share: float = 0.3  # share of crops centred on a pixel of a class drawn in favour of the rare ones
    cache_mb: int = 512  # decoded images kept, in each worker process
    split: SplitConfig = field(default_factory=SplitConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        if self.bands is not None and (not self.bands or min(self.bands) < 1 or len(set(self.bands)) != len(self.bands)):
            raise ConfigError(f"data.bands are different positions from 1, got {list(self.bands)}")
        if not 0 <= self.rare_share <= 1:
            raise ConfigError(f"data.rare_share is a share, 0 to 1, got {self.rare_share:g}")
        check_above_zero(self, "data", ("tile_px", "cache_mb"))
        _check_labels(self)
        if self.group is not None:
            check_expression(self.group)


def check_above_zero(config: object, section: str, names: tuple[str, ...]) -> None:
    """Raise ConfigError, naming the setting, unless each that is given is above 0."""
    for name in names:
        if (value := getattr(config, name)) is not None and not value > 0:
            raise ConfigError(f"{section}.{name} must be above 0, got {value:g}")


def _check_labels(config: DataConfig) -> None:
    if not 0 <= config.colour_tolerance <= MOST_TOLERANCE:
        raise ConfigError(f"data.colour_tolerance is 0 to {MOST_TOLERANCE}, got {config.colour_tolerance}")
    _check_numbers(config.label_values or (), "data.label_values")
    _check_numbers([item for item in config.ignore if not isinstance(item, str)], "data.ignore")
    for colour in (*(config.colours or ()), *(item for item in config.ignore if str(item).startswith("#"))):
        if not COLOUR.fullmatch(str(colour)):
            raise ConfigError(f"a colour is #rrggbb, got {colour!r}")


def _check_numbers(numbers: Sequence[int], setting: str) -> None:
    """Stored numbers: each once, of 16 bits; and 255, which is ignored anyway, is no class."""
    wrong = [n for n in numbers if not LOWEST <= n <= HIGHEST or (n == IGNORE and setting == "data.label_values")]
    if wrong or len(set(numbers)) != len(numbers):
        raise ConfigError(
            f"{setting} are different whole numbers, {LOWEST} to {HIGHEST}{' but not 255' if IGNORE in wrong else ''}, "
            f"got {list(numbers)}"
        )


def check_expression(expression: str) -> None:
    """Raise ConfigError unless data.group is a regular expression."""
    try:
        re.compile(expression)
    except re.error as error:
        raise ConfigError(f"data.group {expression!r} is not a regular expression: {error}") from error
