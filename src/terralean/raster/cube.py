"""Cubes: what a file of many bands is, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terralean.errors import BandMismatch
from terralean.raster.arrays import Store, read
from terralean.raster.coding import Colour
from terralean.raster.grid import Grid
from terralean.spec import Bands


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """What makes physical values of stored ones: value = stored * gain + offset, a pair for each band."""

    gains: tuple[float, ...]
    offsets: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Cube:
    """A file of bands on one grid, with all that it says of them."""

    path: str
    format: str  # "ENVI BIL", "MATLAB 5", ...
    variable: str | None = None  # of a file of several
    grid: Grid
    bands: Bands  # all of them, bad ones too
    good: tuple[bool, ...]
    nodata: float | None
    partial: bool = False  # pixels with the nodata value in some of the good bands count
    fwhm_nm: tuple[float, ...] | None = None
    scaling: Scaling | None = None  # where it differs from band to band; else it is in `bands.scale`
    class_names: tuple[str, ...] = ()  # of a file of classes
    colours: Mapping[int, Colour] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()  # what is wrong with the file, and what is done about it
    notes: tuple[str, ...] = ()  # what was assumed
    scene: str | None = None  # the public scene that it is, in words
    store: Store = field(repr=False, compare=False)

    @property
    def positions(self) -> tuple[int, ...]:
        """Positions of the good bands, from 1; of all where none is good."""
        found = tuple(i for i, good in enumerate(self.good, start=1) if good)
        return found or tuple(range(1, len(self.good) + 1))

    @property
    def bad(self) -> tuple[int, ...]:
        """Positions of the bad bands, from 1."""
        return tuple(i for i, good in enumerate(self.good, start=1) if not good)

    def choose(self, bands: Sequence[int] | None) -> tuple[int, ...]:
        """The bands that are read: those asked for, checked, or the good ones."""
        if bands is None:
            return self.positions
        wrong = [i for i in bands if not 1 <= i <= len(self.bands)]
        if wrong or not bands or len(set(bands)) != len(bands):
            raise BandMismatch(
                f"{self.path} has bands 1 to {len(self.bands)}; got {', '.join(map(str, bands)) or 'none'}; choose different "
                "ones of these"
            )
        return tuple(bands)

    def values(self, positions: Sequence[int], *, rows: Sequence[int], cols: Sequence[int]) -> NDArray[Any]:
        """Values (len(positions), len(rows), len(cols)) of bands from 1 at rows and columns from 0, scaled if bands differ."""
        stored = read(self.store, bands=[i - 1 for i in positions], rows=rows, cols=cols)
        if self.scaling is None:
            return stored
        gains, offsets = ([per_band[i - 1] for i in positions] for per_band in (self.scaling.gains, self.scaling.offsets))
        scaled = stored * np.array(gains, np.float32)[:, None, None] + np.array(offsets, np.float32)[:, None, None]
        scaled[:, self.hidden(stored)] = np.nan
        return scaled.astype(np.float32, copy=False)

    def hidden(self, stored: NDArray[Any]) -> NDArray[np.bool_]:
        """Where stored values (C, h, w) are no data, (h, w): all bands hold the nodata value, or (unless 0) any does."""
        if self.nodata is None:
            return np.zeros(stored.shape[1:], dtype=bool)
        found = stored == self.nodata
        return np.asarray(found.all(axis=0) if self.partial or self.nodata == 0 else found.any(axis=0))


def span(numbers: Sequence[int]) -> str:
    """Numbers in few words: 1-3, 7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)
