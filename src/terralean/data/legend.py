"""What the classes of a dataset are, and how its labels write them: as the recipe says, or classes.csv, or the labels."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import combinations
from pathlib import Path

from terralean.data.config import COLOUR, DataConfig
from terralean.data.familiar import familiar_colours
from terralean.data.words import listed
from terralean.errors import ConfigError, LabelError
from terralean.raster.coding import HIGHEST, LOWEST, PLAIN, Coding, Colour, apart, as_hex
from terralean.raster.labels import count_stored, is_coloured, label_values, palette
from terralean.raster.polygons import is_vector
from terralean.spec import IGNORE, MAX_CLASSES, Classes

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Legend:
    """The classes that are learnt, in order, and how label files write them."""

    classes: Classes
    coding: Coding


@dataclass(frozen=True, kw_only=True, slots=True)
class _Named:
    """Classes as recipe, table or labels name them, those included that are ignored."""

    names: tuple[str, ...]
    values: tuple[int, ...]
    colours: tuple[Colour, ...] | None

    def without(self, ignored: set[str]) -> _Named:
        """Those that are left."""
        kept = [i for i, name in enumerate(self.names) if name not in ignored]
        return _Named(
            names=tuple(self.names[i] for i in kept),
            values=tuple(self.values[i] for i in kept),
            colours=None if self.colours is None else tuple(self.colours[i] for i in kept),
        )


def read_legend(folder: Path, labels: Sequence[str], config: DataConfig) -> Legend:
    """Classes and coding of the label files. Raises LabelError and ConfigError where settings, table and files do not agree."""
    coloured = [label for label in labels if is_coloured(label)]
    named = _named(folder, labels, coloured, config)
    if coloured and named.colours is None:
        raise LabelError(_without_colours(coloured[0], config))
    if not coloured:
        meant = set() if named.colours is None else {*named.colours, *_colours_in(config)}
        coloured = _painted(labels, meant, tolerance=config.colour_tolerance, trusted=config.trust_labels)
    names = {item for item in config.ignore if isinstance(item, str) and not item.startswith("#")}
    _check_ignored_names(names, named, labels)
    kept = named.without(names)
    if not 1 <= len(kept.names) <= MAX_CLASSES:
        raise LabelError(f"{folder}: 1 to {MAX_CLASSES} classes, got {len(kept.names)} beside those in data.ignore")
    coding = _coding(kept, named.without(set(kept.names)), names, config, colours=bool(coloured))
    _check_numbers_differ(kept, coding)
    if coloured:
        _check_colours_differ(kept.names, coding)
    classes = Classes.named(kept.names) if kept.colours is None else Classes(names=kept.names, colours=kept.colours)
    return Legend(classes=classes, coding=coding)


def _coding(kept: _Named, dropped: _Named, names: set[str], config: DataConfig, *, colours: bool) -> Coding:
    return Coding(
        values=None if kept.values == tuple(range(len(kept.names))) else kept.values,
        ignored=tuple(sorted({*(n for n in config.ignore if isinstance(n, int)), *dropped.values})),
        colours=kept.colours if colours else None,
        ignored_colours=tuple(sorted({*_colours_in(config), *(dropped.colours or ())})),
        ignored_names=tuple(sorted(names)),
        tolerance=config.colour_tolerance,
    )


def known_legend(legend: Legend, labels: Sequence[str], config: DataConfig) -> Legend:
    """A trained model's legend for other label files: the same, and their colours are those of the classes in maps."""
    coding, meant = legend.coding, {*legend.classes.colours, *legend.coding.ignored_colours}
    if any(is_coloured(label) for label in labels) or _painted(
        labels, meant, tolerance=coding.tolerance, trusted=config.trust_labels
    ):
        return replace(legend, coding=replace(coding, colours=legend.classes.colours))
    return legend


def rgb(colour: str) -> Colour:
    """The colour that #rrggbb writes."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _check_colours_differ(names: Sequence[str], coding: Coding) -> None:
    """Raise ConfigError where a stored colour could count as two listed ones that mean different things."""
    mine = list(zip(coding.colours or (), names, strict=True))
    others = [(colour, "data.ignore") for colour in coding.ignored_colours]
    for (one, name), (other, second) in [*combinations(mine, 2), *((a, b) for a in mine for b in others)]:
        if (far := apart(one, other)) <= 2 * coding.tolerance:
            own = "give each its own, or ignore the class by its name"
            fix = f"set data.colour_tolerance below {far / 2:g}" if far else own
            raise ConfigError(
                f"{name} and {second} have the colours {as_hex(one)} and {as_hex(other)}, which cannot be told apart with "
                f"data.colour_tolerance {coding.tolerance}; {fix}"
            )


# What is named.


def _named(folder: Path, labels: Sequence[str], coloured: Sequence[str], config: DataConfig) -> _Named:
    table = folder / "classes.csv"
    if config.classes is not None:
        names, values, colours = list(config.classes), None, None
    elif table.is_file():
        names, values, colours = _read_table(table)
    elif coloured:
        raise LabelError(_without_colours(coloured[0], config))
    else:
        names, values = _names_in_labels(labels, config)
        colours = None
        log.info("no classes.csv and no data.classes: classes are named %s", ", ".join(names))
    stored = config.label_values or values or range(len(names))
    painted = config.colours or colours
    for setting, given in (("data.label_values", stored), ("data.colours", painted)):
        if given is not None and len(given) != len(names):
            raise ConfigError(
                f"{setting} has {len(given)} entries for the {len(names)} classes {', '.join(names)}; give each one"
            )
    return _Named(
        names=tuple(names),
        values=tuple(stored),
        colours=None if painted is None else tuple(rgb(colour) for colour in painted),
    )


def _read_table(path: Path) -> tuple[list[str], list[int], list[str] | None]:
    """Names, stored numbers and, if every class has one, colours, in order of the numbers."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file)
        rows = list(table)
    if not {"value", "name"} <= set(table.fieldnames or ()):
        raise LabelError(f"{path} has columns {', '.join(table.fieldnames or ())}; it needs value,name and may have colour")
    values = [row["value"].strip() for row in rows]
    able = [v for v in values if v.removeprefix("-").isdecimal() and LOWEST <= int(v) <= HIGHEST and int(v) != IGNORE]
    if len(set(able)) != len(rows) or not rows:
        raise LabelError(
            f"{path} names the values {', '.join(values)}; they must be the numbers that labels hold for the classes, each "
            "once, and not 255"
        )
    rows.sort(key=lambda row: int(row["value"]))
    colours = [(row.get("colour") or "").strip() for row in rows]
    names = [row["name"].strip() for row in rows]
    if not all(colours):
        return names, [int(row["value"]) for row in rows], None
    wrong = [colour for colour in colours if not COLOUR.fullmatch(colour)]
    if wrong:
        raise ConfigError(f"{path}: a colour is #rrggbb, got {wrong[0]!r}")
    return names, [int(row["value"]) for row in rows], colours


def _names_in_labels(labels: Sequence[str], config: DataConfig) -> tuple[list[str], list[int]]:
    """Class names as vector labels say them; else numbers up to the largest in the label rasters, less those ignored."""
    found: set[object] = set()
    for label in labels:
        found.update(label_values(label, field=config.label_field))
    names = sorted(value for value in found if isinstance(value, str))
    numbers = sorted(value for value in found if isinstance(value, int) and value not in (IGNORE, *config.ignore))
    if names and not numbers:
        return names, list(range(len(names)))
    if names or not numbers or numbers[0] < 0 or numbers[-1] > IGNORE - 1:
        raise LabelError(
            f"labels beside {labels[0]} hold {listed([*names, *map(str, numbers)]) or 'no class'}; classes are values 0 to "
            "253, and 255 is no class; write classes.csv, or set data.classes and data.label_values"
        )
    values = list(config.label_values or (n for n in range(numbers[-1] + 1) if n not in config.ignore))
    return [f"class {value}" for value in values], values


# Palettes.


def _painted(labels: Sequence[str], meant: set[Colour], *, tolerance: int, trusted: bool) -> list[str]:
    """Label files whose palettes give the classes: all that have one, if what is used of these are colours with a meaning.

    Raises LabelError where they are not, and yet a number has another colour in another file.
    """
    used = {label: _used_colours(label) for label in labels if palette(label)}
    if all(_near(colour, meant, tolerance) for colours in used.values() for colour in colours.values()):
        return list(used)
    first: dict[int, tuple[Colour, str]] = {}
    for label, colours in used.items():
        for number, colour in colours.items():
            before, where = first.setdefault(number, (colour, label))
            if before != colour:
                message = (
                    f"{number} is {as_hex(before)} in the palette of {where} and {as_hex(colour)} in that of {label}: not the "
                    "numbers but the colours stand for classes; say which with data.classes and data.colours, and list the "
                    "others in data.ignore; if it is the numbers all the same: --set data.trust_labels=true"
                )
                if not trusted:
                    raise LabelError(message)
                log.warning("%s", message)
                return []
    return []


def _used_colours(label: str) -> dict[int, Colour]:
    colours = palette(label)
    return {number: colours[number] for number in count_stored(label, coding=PLAIN) if number in colours}


def _near(colour: Colour, others: set[Colour], tolerance: int) -> bool:
    return any(apart(colour, other) <= tolerance for other in others)


# What is ignored.


def _check_ignored_names(ignored: set[str], named: _Named, labels: Sequence[str]) -> None:
    """A name that is no class may still be what polygons are called; beside rasters it is a mistake."""
    unknown = sorted(ignored - set(named.names))
    if unknown and not any(is_vector(label) for label in labels):
        near = get_close_matches(unknown[0], named.names, n=1)
        hint = f"; nearest: {near[0]}" if near else ""
        raise ConfigError(
            f"data.ignore names {', '.join(unknown)}, but the classes are {', '.join(named.names)}{hint}; name a class, a "
            'stored number, or a colour as "#rrggbb"'
        )


def _check_numbers_differ(kept: _Named, coding: Coding) -> None:
    for name, value in zip(kept.names, kept.values, strict=True):
        if value in coding.ignored:
            raise ConfigError(
                f"data.ignore holds {value}, which is also the stored number of the class {name}; to leave that class out say "
                f"data.ignore=[{name}]; if the classes are stored as other numbers list them: data.label_values="
                f"[{', '.join(str(v + 1) for v in range(len(kept.names)))}] for example"
            )


def _colours_in(config: DataConfig) -> set[Colour]:
    return {rgb(item) for item in config.ignore if isinstance(item, str) and item.startswith("#")}


def _without_colours(path: str, config: DataConfig) -> str:
    """What to say of a file of colours where none have been given a meaning."""
    counts = count_stored(path, coding=PLAIN)
    ordered = sorted((colour for colour in counts if isinstance(colour, tuple)), key=lambda colour: -counts[colour])
    total = sum(counts.values())
    shown = listed([f"{as_hex(colour)} ({counts[colour] / total:.1%})" for colour in ordered])
    if config.colours is not None and config.classes is None:
        return f"{path} holds colours: {shown}; data.colours are given without names: set data.classes, in the same order"
    return (
        f"{path} holds colours: {shown}; say which class has which with data.classes and data.colours, or in classes.csv with "
        f"the columns value,name,colour, and list those without a class in data.ignore{familiar_colours(ordered)}"
    )
