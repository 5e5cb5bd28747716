"""What a set of regions holds: the mean and spread of each band, the pixels of each class, and where to find them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from terralean.data.config import DataConfig
from terralean.data.familiar import settings
from terralean.data.reading import Reader
from terralean.data.split import Region, Split
from terralean.data.words import SHOWN, listed
from terralean.errors import DatasetError, LabelError
from terralean.raster.coding import Coding
from terralean.raster.grid import Window
from terralean.spec import IGNORE, Bands, Classes, Normalisation

log = logging.getLogger(__name__)

POSITIONS = 2_000_000  # kept in all: 16 MB
POSITIONS_EACH = 2_000  # at most, of a class in a region
CONSTANT = 1e-9  # a band whose std is below this part of its mean's size is constant but for rounding


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelIndex:
    """Which classes lie where: counts (R, K) of labelled valid pixels, and of each a fair sample of positions."""

    counts: NDArray[np.int64]
    positions: tuple[tuple[NDArray[np.int32], ...], ...]  # [region][class] (n, 2) row and column in the image


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Of the valid pixels of some regions."""

    normalisation: Normalisation
    class_pixels: tuple[int, ...]
    valid_pixels: int
    index: LabelIndex = field(repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Count, mean (C,) and sum of squared deviations (C,) in float64; merging loses no precision (Chan et al. 1979)."""

    count: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets of pixels together."""
        count = self.count + other.count
        if count == 0:
            return self
        apart = other.mean - self.mean
        return Moments(
            count=count,
            mean=self.mean + apart * (other.count / count),
            squares=self.squares + other.squares + apart**2 * (self.count * other.count / count),
        )

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation (C,) of the pixels themselves, not of a larger population."""
        return np.sqrt(self.squares / max(self.count, 1))


def measure(
    regions: Sequence[Region], *, classes: Classes, coding: Coding, bands: Bands, config: DataConfig, seed: int
) -> Statistics:
    """Stream the regions once. Raises DatasetError where nothing is valid or a band is constant."""
    reader, rng = Reader(classes=classes, coding=coding, config=config), np.random.default_rng(seed)
    keep = int(np.clip(POSITIONS // max(1, len(regions) * len(classes)), 16, POSITIONS_EACH))
    moments = no_moments(len(bands))
    counts = np.zeros((len(regions), len(classes)), dtype=np.int64)
    positions = []
    for i, region in enumerate(regions):
        samples = [_Sample(keep, rng) for _ in classes.names]
        for window in reader.strips(region.image, region.window):
            values, valid = reader.values(region.image, window)
            moments = moments.merge(moments_of(values, valid))
            labels = np.where(valid, reader.labels(region.image, region.label, window), IGNORE)
            counts[i] += np.bincount(labels.ravel(), minlength=IGNORE + 1)[: len(classes)]
            _collect(samples, labels, row=window.row, col=window.col)
        positions.append(tuple(sample.kept for sample in samples))
    names = sorted({region.image for region in regions})
    normalisation = normalise(
        moments, bands=bands, where=f"the {len(names)} training images, {names[0]} for one" if names else "no image"
    )
    return Statistics(
        normalisation=normalisation,
        class_pixels=tuple(int(n) for n in counts.sum(axis=0)),
        valid_pixels=moments.count,
        index=LabelIndex(counts=counts, positions=tuple(positions)),
    )


def check_learnable(statistics: Statistics, split: Split, *, classes: Classes, config: DataConfig) -> None:
    """Raise LabelError where there is one class only, or one without a training pixel: no score of it means anything."""
    if len(classes) == 1:
        raise LabelError(
            f"{classes.names[0]} is the only class, so that there is nothing to tell apart; label a second one; where 255 was "
            "meant as one, write it as 1"
        )
    lacking = [i for i, pixels in enumerate(statistics.class_pixels) if not pixels]
    if not lacking:
        return
    names = [classes.names[i] for i in lacking]
    reader = Reader(classes=classes, coding=split.coding, config=config)
    told = listed([*(f"{classes.names[i]} ({_where(i, split, reader)})" for i in lacking[:SHOWN]), *names[SHOWN:]])
    fix = "label some in the training images, split the data otherwise (data.split, --seed), or leave the class out: "
    fix += settings({"ignore": [*config.ignore, *names]})
    if numbers := numbers_alone(classes, split.coding, statistics.class_pixels):
        fix = f"if the classes are the numbers that there are: {settings({'label_values': numbers})}; else {fix}"
    raise LabelError(f"no training pixel of {told}: the model cannot learn it; {fix}")


def numbers_alone(classes: Classes, coding: Coding, pixels: Sequence[int]) -> tuple[int, ...]:
    """The numbers that labels hold, where nobody named the classes; empty where somebody did."""
    numbers = coding.numbers(len(classes))
    if classes.names != tuple(f"class {number}" for number in numbers):
        return ()
    return tuple(number for number, count in zip(numbers, pixels, strict=True) if count)


def any_labelled(regions: Sequence[Region], *, classes: Classes, coding: Coding, config: DataConfig) -> bool:
    """Whether a pixel of these regions has data and a class; it is looked for no further than that."""
    reader = Reader(classes=classes, coding=coding, config=config)
    return any(
        bool((reader.labels(region.image, region.label, strip) != IGNORE)[reader.values(region.image, strip)[1]].any())
        for region in regions
        for strip in reader.strips(region.image, region.window)
    )


def _where(cls: int, split: Split, reader: Reader) -> str:
    """In which other splits a class is, with an image for each; else in which image between them."""
    found = []
    for name in ("validation", "test"):
        pixels = {region.image: _pixels(cls, region.image, region.label, region.window, reader) for region in split.of(name)}
        if total := sum(pixels.values()):
            found.append(f"{total} px in the {name} split, {max(pixels, key=lambda image: pixels[image])} for one")
    if found:
        return "; ".join(found)
    for region in split.of("train"):
        if pixels_between := _pixels(cls, region.image, region.label, reader.grid(region.image).window, reader):
            return f"{pixels_between} px in {region.image}, all in the gap between the splits"
    return "none in any split"


def _pixels(cls: int, image: str, label: str, window: Window, reader: Reader) -> int:
    return sum(int((reader.labels(image, label, strip) == cls).sum()) for strip in reader.strips(image, window))


def moments_of(values: NDArray, valid: NDArray[np.bool_]) -> Moments:
    """Of the valid pixels of values (C, h, w)."""
    pixels = values[:, valid].astype(np.float64)
    if not pixels.shape[1]:
        return no_moments(len(values))
    mean = pixels.mean(axis=1)
    return Moments(count=pixels.shape[1], mean=mean, squares=((pixels - mean[:, None]) ** 2).sum(axis=1))


def no_moments(bands: int) -> Moments:
    """Of no pixel."""
    return Moments(count=0, mean=np.zeros(bands), squares=np.zeros(bands))


def normalise(moments: Moments, *, bands: Bands, where: str) -> Normalisation:
    """Mean and std per band; `where` says in an error which pixels were measured."""
    if moments.count == 0:
        raise DatasetError(f"{where}: no valid pixel, all are nodata; check the nodata value and the mask with gdalinfo")
    constant = [
        i for i, (std, mean) in enumerate(zip(moments.std, moments.mean, strict=True)) if std <= CONSTANT * max(1, abs(mean))
    ]
    if constant:
        names = ", ".join(f"{bands.names[i]} (always {moments.mean[i]:g})" for i in constant)
        raise DatasetError(f"{where}: constant in all valid pixels: {names}; leave such bands out with data.bands")
    return Normalisation(mean=tuple(moments.mean.tolist()), std=tuple(moments.std.tolist()))


class _Sample:
    """A fair sample of positions that arrive in parts."""

    def __init__(self, keep: int, rng: np.random.Generator) -> None:
        self.keep, self.rng = keep, rng
        self.seen = 0
        self.kept: NDArray[np.int32] = np.zeros((0, 2), dtype=np.int32)

    def add(self, positions: NDArray[np.int32]) -> None:
        """positions (n, 2); afterwards every position seen so far is kept with the same chance."""
        new = len(positions)
        total, room = self.seen + new, min(self.keep, self.seen + new)
        from_new = room if not self.seen else int(self.rng.hypergeometric(new, self.seen, room))
        self.kept = np.concatenate([self._draw(self.kept, room - from_new), self._draw(positions, from_new)])
        self.seen = total

    def _draw(self, positions: NDArray[np.int32], count: int) -> NDArray[np.int32]:
        return positions[self.rng.choice(len(positions), size=count, replace=False)] if count else positions[:0]


def _collect(samples: Iterable[_Sample], labels: NDArray[np.uint8], *, row: int, col: int) -> None:
    for value, sample in enumerate(samples):
        flat = np.flatnonzero(labels == value)
        if len(flat):
            rows, cols = np.divmod(flat, labels.shape[1])
            sample.add(np.stack([rows + row, cols + col], axis=-1).astype(np.int32))
