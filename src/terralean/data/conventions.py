"""Label numbers that follow another convention than the recipe's, or two in one dataset.

Converters number the same classes differently: ISPRS Potsdam is 0 to 5 in most papers, and 0 for the boundary and 1 to 6 as
mmsegmentation converts it. Where the two sets of numbers overlap nothing fails: a model learns shifted classes, or learns
one convention and is judged by the other (training accuracy 91 %, validation below 5 %: ViTAE-Transformer/LeMeViT issue 1).
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Literal

from terralean.data.config import DataConfig, SplitName
from terralean.data.deal import NAMES
from terralean.data.familiar import familiar_numbers, settings
from terralean.data.index import Dataset
from terralean.data.misread import common_cars, exchanged_colours, unlabelled_class
from terralean.data.split import given_sources
from terralean.data.words import listed
from terralean.errors import LabelError
from terralean.raster.coding import Coding, Colour, as_hex
from terralean.raster.labels import count_stored, numbers_found, strange_colours, strange_numbers
from terralean.raster.polygons import is_vector
from terralean.spec import Classes

log = logging.getLogger(__name__)

Kind = Literal["error", "doubt", "hint"]  # cannot be read; fits but is hardly meant; unlikely by the shares of the classes
SHIFTS = {1: "one higher", -1: "one lower"}
FEWEST = 4  # different numbers, from which their shares tell a shift from a change of scenery
# A split is taken for shifted where its shares are so far from those that train, and moved by one a third as far. Of 20,000
# simulated pairs that differ in scenery alone 1.4 % pass that where they hardly resemble each other (Dirichlet shares of
# concentration 5) and 0.03 % where they do (20); of Potsdam's shares with one split shifted 84 % (100) and 44 % (20).
UNLIKE, CLOSER = 0.07, 3
TRUST = "if they are right as they are: --set data.trust_labels=true"


@dataclass(frozen=True, kw_only=True, slots=True)
class Doubt:
    """What is odd about the numbers of a dataset's labels, and what to do."""

    kind: Kind
    message: str


def check_labels(dataset: Dataset, config: DataConfig) -> None:
    """Raise LabelError where labels hold what is not listed, or numbers that look shifted or mixed; warn where shares do.

    All label rasters are read once, and what they hold is remembered.
    """
    found = doubts(dataset, config)
    for doubt in found:
        if doubt.kind == "error" or (doubt.kind == "doubt" and not config.trust_labels):
            raise LabelError(doubt.message)
    _check_listed(dataset)
    for doubt in found:
        log.warning("%s", doubt.message)


def doubts(dataset: Dataset, config: DataConfig) -> list[Doubt]:
    """All that is odd about the numbers in the label rasters of a dataset."""
    files, expected = _files(dataset, config), _Expected(coding=dataset.coding, classes=dataset.classes)
    stored = _stored(dataset, config)
    strange = [file for file in files if file.numbers - expected.listed]
    if strange or (message := exchanged_colours(dataset, config, stored)):
        message = _from_another_start(strange, files, expected, dataset) if strange else message
        return [Doubt(kind="error", message=message)] if message else []
    found = [_shifted(files, expected), _two_kinds(files, expected, sure=True), unlabelled_class(dataset, config, stored)]
    found = [message for message in found if message] or [common_cars(dataset, config, stored)]
    sure = [Doubt(kind="doubt", message=message if TRUST in message else f"{message}; {TRUST}") for message in found if message]
    perhaps = _two_kinds(files, expected, sure=False)
    return sure or [*([Doubt(kind="hint", message=perhaps)] if perhaps else []), *_unlike_splits(files, expected)]


def _stored(dataset: Dataset, config: DataConfig) -> Counter[int | Colour]:
    """Pixels of each number or colour in all label rasters together."""
    counts: Counter[int | Colour] = Counter()
    for label in sorted({source.label for source in given_sources(dataset, config) if not is_vector(source.label)}):
        counts.update(count_stored(label, coding=dataset.coding))
    return counts


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    """A label raster of numbers."""

    path: str
    split: SplitName | None
    counts: Mapping[int, int]  # pixels of each stored number

    @property
    def numbers(self) -> frozenset[int]:
        return frozenset(self.counts)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Expected:
    """What labels are to hold."""

    coding: Coding
    classes: Classes

    @property
    def values(self) -> tuple[int, ...]:
        return self.coding.numbers(len(self.classes))

    @property
    def listed(self) -> frozenset[int]:
        return self.coding.listed(len(self.classes))

    @property
    def settings(self) -> str:
        """What to set on the command line, and whose labels are so."""
        whose = familiar_numbers(self.values, self.coding.ignored)
        ignored = (*self.coding.ignored, *map(as_hex, self.coding.ignored_colours))
        lists: dict[str, Sequence[object]] = {"label_values": self.values, "ignore": ignored}
        if self.coding.ignored_names:  # else the settings list classes that are ignored by their names
            lists |= {"classes": self.classes.names, "colours": [as_hex(colour) for colour in self.classes.colours]}
        return settings(lists) + (f", as for {whose}" if whose else "")

    def moved(self, shift: int) -> _Expected | None:
        """The same counted from another start; what then lies before the first class is ignored. None below 0."""
        values = tuple(value + shift for value in self.values)
        if min(values) < 0:
            return None
        kept = {n + shift if n >= 0 else n for n in self.coding.ignored if not 0 <= n < -shift}
        ignored = {*kept, *range(min(self.values), min(values))} - set(values)
        return replace(self, coding=replace(self.coding, values=values, ignored=tuple(sorted(ignored))))

    def explains(self, numbers: Set[int]) -> bool:
        """Whether these are the numbers of all classes, and others that are listed."""
        return set(self.values) <= numbers <= self.listed


def _files(dataset: Dataset, config: DataConfig) -> list[_File]:
    out = {}
    for source in given_sources(dataset, config):
        stored = {} if is_vector(source.label) else count_stored(source.label, coding=dataset.coding)
        if counts := {number: pixels for number, pixels in stored.items() if isinstance(number, int)}:
            out[source.label] = _File(path=source.label, split=source.split, counts=counts)
    return list(out.values())


# What is not listed.


def _check_listed(dataset: Dataset) -> None:
    """Raise LabelError, naming the first file, where label rasters hold numbers or colours that are not listed."""
    labels = sorted({source.label for source in dataset.sources if not is_vector(source.label)})
    faults = {label: fault for label in labels if (fault := _fault(label, dataset)) is not None}
    if faults:
        raise LabelError(next(iter(faults.values())) + _and_others(list(faults)))
    if dataset.coding.tolerance:
        _tell_tolerated(labels, dataset.coding)


def _tell_tolerated(labels: Sequence[str], coding: Coding) -> None:
    exact = {*(coding.colours or ()), *coding.ignored_colours}
    pixels = 0
    for label in labels:
        stored = count_stored(label, coding=coding)
        pixels += sum(px for colour, px in stored.items() if isinstance(colour, tuple) and colour not in exact)
    log.info("%d label pixels are of no listed colour, but at most %d off one, and read as it", pixels, coding.tolerance)


def _fault(label: str, dataset: Dataset) -> str | None:
    coding, known = dataset.coding, dataset.coding.listed(len(dataset.classes))
    stored = count_stored(label, coding=coding)
    colours = {colour: px for colour, px in stored.items() if isinstance(colour, tuple) and not coding.knows(colour)}
    numbers = {number: px for number, px in stored.items() if isinstance(number, int) and number not in known}
    if colours:
        return strange_colours(colours, classes=dataset.classes, coding=coding, path=label)
    return strange_numbers(numbers, classes=dataset.classes, coding=coding, path=label) if numbers else None


def _and_others(paths: Sequence[str]) -> str:
    return f"\nthere are {len(paths)} such files: {listed(paths)}" if len(paths) > 1 else ""


def _from_another_start(strange: Sequence[_File], files: Sequence[_File], expected: _Expected, dataset: Dataset) -> str | None:
    """What to say of numbers that are not listed but would be if all, or some, of the files were counted from another start."""
    for shift, words in SHIFTS.items():
        moved = expected.moved(shift)
        if moved is None or any(file.numbers - moved.listed for file in strange):
            continue
        for kind in (_of_their_splits(strange, files), strange):
            rest = [file for file in files if file not in kind]
            if rest and _mixed(kind, rest, moved, shift):
                return _two_starts([rest, kind], expected)
        fits = "it fits" if len(files) == 1 else f"all {len(files)} label files fit"
        return (
            f"{_found(strange[0], expected)}{_and_others([file.path for file in strange])}\n"
            f"counted {words} {fits}; if they are: {moved.settings}"
        )
    return None


def _found(file: _File, expected: _Expected) -> str:
    wrong = {number: pixels for number, pixels in file.counts.items() if number not in expected.listed}
    return numbers_found(wrong, classes=expected.classes, coding=expected.coding, path=file.path)


def _of_their_splits(some: Sequence[_File], files: Sequence[_File]) -> list[_File]:
    """All files of the splits that some are in: what was converted together is of one kind, whether or not a file shows it."""
    splits = {file.split for file in some}
    return [file for file in files if file.split in splits]


def _mixed(kind: Sequence[_File], rest: Sequence[_File], moved: _Expected, shift: int) -> bool:
    """Whether the rest is as expected, while this kind is moved: by their numbers, else by the shares of these."""
    if any(file.numbers - moved.listed for file in rest):
        return True
    ours, theirs = _shares(kind), _shares(rest)
    return _distance(ours, _moved_by(theirs, shift)) < _distance(ours, theirs)


def _two_starts(kinds: Sequence[Sequence[_File]], expected: _Expected) -> str:
    told = "; ".join(f"{_span(kind)} in {listed([_told(file) for file in kind])}" for kind in kinds)
    return (
        f"the labels are numbered in two ways: {told}; read are {_meanings(expected)}; write all of them by one converter, so "
        "that a number means the same in each"
    )


# What is listed and yet hardly meant.


def _shifted(files: Sequence[_File], expected: _Expected) -> str | None:
    """What to say where a listed number is nowhere, and counted from another start every class is there."""
    found = frozenset().union(*(file.numbers for file in files))
    for shift, words in SHIFTS.items():
        moved = expected.moved(shift)
        if moved is not None and moved.explains(found) and found < expected.listed:
            missing = ", ".join(map(str, sorted(expected.listed - found)))
            return (
                f"no label holds {missing}, while {_span(files)} are there; read are {_meanings(expected)}; counted "
                f"{words} they fit exactly; if they are: {moved.settings}; {TRUST}"
            )
    return None


def _two_kinds(files: Sequence[_File], expected: _Expected, *, sure: bool) -> str | None:
    """What to say where files hold all numbers but the last, or all but the first, and none holds both.

    Few classes do that by chance, tile by tile, though hardly split by split: sure are more of them, and whole splits.
    """
    numbers = expected.listed
    first, last = min(numbers), max(numbers)
    ends_are_classes = not {first, last} & set(expected.coding.ignored)
    if ends_are_classes and not _unnamed(expected):
        return None
    low = [file for file in files if first in file.numbers]
    high = [file for file in files if last in file.numbers]
    complete = any(file.numbers == numbers - {last} for file in low) and any(file.numbers == numbers - {first} for file in high)
    if not complete or any(file in high for file in low):
        return None
    told = len(numbers) > FEWEST or not {file.split for file in low} & {file.split for file in high}
    if told is not sure or (len(numbers) < FEWEST and not told):
        return None
    named = f"if there are {len(expected.classes)} classes name them in data.classes; " if _unnamed(expected) else ""
    return f"{_two_starts([low, high], expected)}; {named}{TRUST}"


def _unnamed(expected: _Expected) -> bool:
    """Whether the classes were named by the numbers that labels hold."""
    return expected.classes.names == tuple(f"class {value}" for value in expected.values)


def _unlike_splits(files: Sequence[_File], expected: _Expected) -> list[Doubt]:
    """A doubt for each given split whose numbers have the shares of the training labels only if counted from another start."""
    train = [file for file in files if file.split == "train"]
    out = []
    for name in NAMES[1:]:
        other = [file for file in files if file.split == name]
        if min(len(_shares(train)), len(_shares(other))) < FEWEST:
            continue
        ours, theirs = _shares(train), _shares(other)
        plain = _distance(ours, theirs)
        for shift, words in SHIFTS.items():
            far = _distance(_moved_by(ours, shift), theirs)
            if plain > UNLIKE and far < plain / CLOSER:
                moved = expected.moved(shift)
                numbers = frozenset(theirs)
                sure = moved is not None and moved.explains(numbers) and numbers < expected.listed
                message = (
                    f"the labels of the {name} split look as if they were counted {words} than those that train: shares "
                    f"{_percent(theirs)} against {_percent(ours)}, {plain / max(far, 1e-3):.0f} times closer if so; files: "
                    f"{listed([file.path for file in other])}; write all by one converter; {TRUST}"
                )
                out.append(Doubt(kind="doubt" if sure else "hint", message=message))
    return out


# Shares and words.


def _shares(files: Sequence[_File]) -> dict[int, float]:
    """Share of each number in the labelled pixels of all files."""
    counts: Counter[int] = Counter()
    for file in files:
        counts.update(file.counts)
    total = sum(counts.values())
    return {number: px / total for number, px in sorted(counts.items())}


def _moved_by(shares: Mapping[int, float], shift: int) -> dict[int, float]:
    return {number + shift: share for number, share in shares.items()}


def _distance(one: Mapping[int, float], other: Mapping[int, float]) -> float:
    """Squared Hellinger distance, 0 to 1: rare classes count for more than in a difference of shares."""
    roots = ((math.sqrt(one.get(n, 0.0)), math.sqrt(other.get(n, 0.0))) for n in one.keys() | other.keys())
    return sum((a - b) ** 2 for a, b in roots) / 2


def _percent(shares: Mapping[int, float]) -> str:
    return ", ".join(f"{number}: {share:.0%}" for number, share in shares.items())


def _span(files: Sequence[_File]) -> str:
    numbers = sorted(frozenset().union(*(file.numbers for file in files)))
    whole = numbers == list(range(numbers[0], numbers[-1] + 1))
    return f"{numbers[0]} to {numbers[-1]}" if whole else ", ".join(map(str, numbers))


def _told(file: _File) -> str:
    return file.path + (f" ({file.split})" if file.split else "")


def _meanings(expected: _Expected) -> str:
    classes = [f"{value} {name}" for value, name in zip(expected.values, expected.classes.names, strict=True)]
    ignored = [f"{value} ignored" for value in expected.coding.ignored]
    return ", ".join([*classes, *ignored])
