"""What the numbers and colours of a label raster stand for.

A coding lists all that may be stored. What it does not list is an error where it is read, never a class by accident.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terralean.spec import IGNORE

Colour = tuple[int, int, int]  # red, green, blue, 0..255
LOWEST, HIGHEST = -(2**15), 2**16 - 1  # numbers that a class can be stored as: what 16 bits hold, signed or not
UNKNOWN = 254  # in a table of colours: no class, and not ignored (classes are 0 to 253)


@dataclass(frozen=True, kw_only=True, slots=True)
class Coding:
    """How label files write the classes; where nothing is set class i is the number i. 255 is ignored in any case."""

    values: tuple[int, ...] | None = None  # stored number of each class; None: 0 to K-1
    ignored: tuple[int, ...] = ()  # stored numbers that are no class
    colours: tuple[Colour, ...] | None = None  # stored colour of each class; None: nobody has said
    ignored_colours: tuple[Colour, ...] = ()
    ignored_names: tuple[str, ...] = ()  # attribute values of polygons
    above: int | None = None  # of masks with two classes: stored bytes from here on are class 1, 255 included, the others 0
    tolerance: int = 0  # largest difference in a channel at which a stored colour still counts as a listed one

    def numbers(self, classes: int) -> tuple[int, ...]:
        """The stored number of each class."""
        return tuple(range(classes)) if self.values is None else self.values

    def listed(self, classes: int) -> frozenset[int]:
        """All numbers that a label raster may hold beside 255."""
        return frozenset((*self.numbers(classes), *self.ignored)) - {IGNORE}

    def knows(self, colour: Colour) -> bool:
        """Whether a label raster may hold the colour."""
        return any(apart(colour, known) <= self.tolerance for known in (*(self.colours or ()), *self.ignored_colours))


PLAIN = Coding()


def from_numbers(stored: NDArray[Any], *, coding: Coding, classes: int | None) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Whole numbers (h, w), 255 where not valid -> class values, 255 where ignored, and where the number is not listed.

    Without `classes` every number 0 to 254 is a class.
    """
    if coding.above is not None:
        return (stored >= coding.above).astype(np.uint8), np.zeros(stored.shape, np.bool_)
    table = _number_table(coding, IGNORE if classes is None else classes)
    kind = np.iinfo(stored.dtype)
    within = np.clip(stored, max(kind.min, LOWEST - 1), min(kind.max, HIGHEST + 1))
    found = table[within.astype(np.int32) - (LOWEST - 1)]
    return found.astype(np.uint8), found < 0


def from_colours(stored: NDArray[np.uint8], *, coding: Coding) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Colours (3, h, w) -> class values (h, w), 255 where ignored, and where the colour is not listed."""
    found = _colour_table(coding)[packed(stored)]
    return found, found == UNKNOWN


def packed(stored: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Colours (3, h, w) as one number each (h, w), red in the highest byte."""
    red, green, blue = (band.astype(np.uint32) for band in stored)
    return red << 16 | green << 8 | blue


def unpacked(code: int) -> Colour:
    """The colour that `packed` made a number of."""
    return code >> 16, code >> 8 & 255, code & 255


def apart(one: Colour, other: Colour) -> int:
    """The difference of two colours in the channel where they differ most."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def as_hex(colour: Colour) -> str:
    """The colour as recipes write it, #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


@lru_cache(maxsize=8)
def _number_table(coding: Coding, classes: int) -> NDArray[np.int16]:
    """Class value of each number from LOWEST - 1 to HIGHEST + 1, -1 where it is not listed."""
    table = np.full(HIGHEST - LOWEST + 3, -1, dtype=np.int16)
    for value, number in _targets(coding.numbers(classes), (*coding.ignored, IGNORE)):
        table[number - (LOWEST - 1)] = value
    return table


@lru_cache(maxsize=4)
def _colour_table(coding: Coding) -> NDArray[np.uint8]:
    """Class value of every colour there is, in the order of `packed`: 16 MB."""
    table, reach = np.full((256, 256, 256), UNKNOWN, dtype=np.uint8), coding.tolerance
    for value, colour in _targets(coding.colours or (), coding.ignored_colours):
        red, green, blue = (slice(max(0, c - reach), c + reach + 1) for c in colour)
        table[red, green, blue] = value
    return table.reshape(-1)


def _targets(classes: Iterable[Any], ignored: Iterable[Any]) -> list[tuple[int, Any]]:
    """What is listed, each with its class value."""
    return [*enumerate(classes), *((IGNORE, stored) for stored in ignored)]
