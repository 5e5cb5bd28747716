"""What a file of labels is: its classes, which number means no label, and whether it is a label map that was published.

Label maps of hyperspectral scenes number their classes from 1 (not always all of them), and 0 is no label; class maps of GIS
programs have a class 0. Which of the two a file means cannot be seen in it, so it can be said, and what is taken is told.
Numbers below 0 are no classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from terralean.errors import LabelError
from terralean.raster.coding import HIGHEST, LOWEST, Coding
from terralean.raster.cube_config import told
from terralean.raster.cube_source import CubeSource, is_cube
from terralean.raster.known_scenes import KnownLabels, check_pixels, coloured, known_labels
from terralean.raster.label_points import is_points
from terralean.raster.labels import count_stored
from terralean.raster.polygons import is_vector
from terralean.raster.scene import describe, scene_of
from terralean.spec import IGNORE, MAX_CLASSES, Classes

Unlabelled = Literal["auto", "zero", "none"]
NO_CLASS = ("unclassified", "unlabelled", "unlabeled", "undefined", "background", "nodata", "none", "ignore", "maskedpixels")
SHOWN = 5  # numbers in an error
ALL_NUMBERS = Coding(values=tuple(range(IGNORE)))


@dataclass(frozen=True, kw_only=True)
class LabelledFile:
    """Labels with their classes: class i is stored as `coding.values[i]`."""

    path: str
    classes: Classes
    coding: Coding
    counts: tuple[int, ...]  # pixels (or points, or polygons) of each class
    known: KnownLabels | None
    note: str  # what was taken for no label, and why


def find_labels(
    path: str | Path, *, unlabelled: Unlabelled = "auto", names: Sequence[str] | None = None, field: str | None = None
) -> LabelledFile:
    """The classes of a label map: .mat, .npy, ENVI classification, GeoTIFF or another raster of numbers, points, polygons.

    `unlabelled` says whether 0 is no label ("zero") or a class ("none"). "auto" takes 0 for no label in published label maps,
    in ENVI classifications whose class 0 is named so, and in arrays (.mat, .npy) unless other pixels of these have no label
    (255, NaN, nodata, numbers below 0); elsewhere 0 is a class.
    `names` are those of the classes in the order of their numbers, the one without label left out. `field` is the attribute of
    polygons, or the column of points, that holds the class. Raises LabelError where nothing is labelled, where the names do not
    fit, and for a map that goes by the name of a published one and is another.
    """
    text = str(path)
    stored = count_stored(text, coding=ALL_NUMBERS, field=field)
    counts = {number: count for number, count in stored.items() if isinstance(number, int)}
    if len(counts) < len(stored):
        return _by_names(text, stored, names)
    _check_numbers(text, counts)
    known = _known(text, counts)
    named = _own_names(text)
    below = tuple(number for number in sorted(counts) if number < 0)
    zero, note = _zero(text, unlabelled, known, named, others=bool(below) or _has_others(text, counts))
    numbers = [number for number in sorted(counts) if number > 0 or (number == 0 and not zero)]
    if not numbers:
        raise LabelError(
            f"{text} has no labelled pixel: all are {'0, which is no label' if zero else 'ignored'}; check the file"
        )
    if known is not None:
        numbers = list(known.labels.numbers)
    classes = _classes(text, numbers, names, known, named)
    ignored = (*below, *((0,) if zero and 0 in counts else ()))
    return LabelledFile(
        path=text,
        classes=classes,
        coding=Coding(values=tuple(numbers), ignored=ignored),
        counts=tuple(counts.get(number, 0) for number in numbers),
        known=known,
        note=f"{note}; {', '.join(map(str, below))}: no label, as they are below 0" if below else note,
    )


def _check_numbers(path: str, counts: Mapping[int, int]) -> None:
    """Raise LabelError for numbers that no class can have, or more of them than classes can be."""
    if far := [str(number) for number in counts if not LOWEST <= number <= HIGHEST]:
        raise LabelError(
            f"{path} holds the numbers {', '.join(far[:SHOWN])}; classes are numbers up to {HIGHEST} (and {LOWEST} to -1 no "
            "label); renumber them"
        )
    if len(counts) > MAX_CLASSES + 1:
        raise LabelError(
            f"{path} holds {len(counts)} different numbers; expected a label map of {MAX_CLASSES} classes at most; it may be "
            "an image, or number areas and not classes: choose another file or variable"
        )


def _has_others(path: str, counts: Mapping[int, int]) -> bool:
    """Whether an array has pixels that hold no number: 255, NaN or its nodata value."""
    if is_points(path) or is_vector(path) or not is_cube(path):
        return False
    return sum(counts.values()) < CubeSource(path, labels=True).cube.grid.window.pixels


def _known(path: str, counts: Mapping[int, int]) -> KnownLabels | None:
    if is_vector(path) or is_points(path) or not told(path)[1].known:
        return None
    source = CubeSource(path, labels=True) if is_cube(path) else None
    with scene_of(source) if source else describe(path, expected="a label map") as scene:
        size = (scene.grid.height, scene.grid.width)
        known = known_labels(source.cube.variable if source else None, size=size, counts=counts, path=path)
        if known is not None:
            check_pixels(known, scene.read(scene.grid.window)[0][0], path=path)
    return known


def _own_names(path: str) -> dict[int, str]:
    """Names by number, of an ENVI classification."""
    if is_vector(path) or is_points(path) or not is_cube(path):
        return {}
    return dict(enumerate(CubeSource(path, labels=True).cube.class_names))


def _zero(
    path: str, unlabelled: Unlabelled, known: KnownLabels | None, named: Mapping[int, str], *, others: bool
) -> tuple[bool, str]:
    """Whether 0 is no label, and how that is known."""
    if unlabelled != "auto":
        return unlabelled == "zero", f"0 is {'no label' if unlabelled == 'zero' else 'a class'}, as was said"
    if known is not None:
        return True, f"0 is no label, as in {known.words}"
    if named:
        says = "".join(filter(str.isalnum, named.get(0, "").lower())).startswith(NO_CLASS)
        return says, f"0 is {'no label' if says else 'a class'}, by its name {named.get(0, '')!r}"
    if is_points(path) or is_vector(path) or not is_cube(path):
        return False, "0 is a class like any number; if it is no label, say so"
    if others:
        return False, "0 is a class, as other pixels have no label; if it is none, either, say so"
    return True, "0 is no label, as is usual in such files; if it is a class, say so"


def _classes(
    path: str, numbers: Sequence[int], names: Sequence[str] | None, known: KnownLabels | None, own: Mapping[int, str]
) -> Classes:
    if names is not None:
        if len(names) != len(numbers):
            raise LabelError(
                f"{path} has {len(numbers)} classes, numbers {', '.join(map(str, numbers))}; {len(names)} names were given; "
                "name each, in the order of the numbers"
            )
        return coloured(names)
    if known is not None:
        return known.classes
    if own and all(own.get(number) for number in numbers) and len({own[number] for number in numbers}) == len(numbers):
        return _own_colours(path, numbers, [own[number] for number in numbers])
    return coloured([f"class {number}" for number in numbers])


def _own_colours(path: str, numbers: Sequence[int], names: Sequence[str]) -> Classes:
    colours = CubeSource(path, labels=True).cube.colours
    if not all(number in colours for number in numbers):
        return coloured(names)
    return Classes(names=tuple(names), colours=tuple(colours[number] for number in numbers))


def _by_names(path: str, stored: Mapping[str | int, int], names: Sequence[str] | None) -> LabelledFile:
    """Points or polygons whose classes are written out."""
    found = [str(name) for name in stored]
    listed = list(names) if names is not None else found
    if missing := [name for name in found if name not in listed]:
        raise LabelError(
            f"{path} has the classes {', '.join(missing)}, which are not among {', '.join(listed)}; name them, too"
        )
    counts = tuple(stored.get(name, 0) for name in listed)
    note = "classes are written out"
    return LabelledFile(path=path, classes=coloured(listed), coding=Coding(), counts=counts, known=None, note=note)
