"""Which images with oriented objects train a detector and which ones judge it."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from terralean.data.config import SplitName
from terralean.data.deal import NAMES, deal
from terralean.data.oriented.config import DetectionDataConfig
from terralean.data.oriented.layouts import Picture, Pictures
from terralean.data.words import counted
from terralean.errors import DatasetError, EmptySplit, LabelError, MissingFile

FORMAT = 1
CONTENT = "images with oriented objects"


@dataclass(frozen=True, kw_only=True)
class ObjectsSplit:
    """Images, each in one split."""

    pictures: Pictures
    rule: str  # how it was made: a sentence
    seed: int

    def of(self, name: SplitName) -> tuple[Picture, ...]:
        """The images of one split."""
        return tuple(picture for picture in self.pictures.pictures if picture.split == name)


def deal_objects(found: Pictures, config: DetectionDataConfig, *, seed: int) -> ObjectsSplit:
    """Deal the images to train, validation and test.

    Raises EmptySplit where one that is wanted comes out empty, LabelError where a class has no training object.
    """
    settings = config.split
    seed = seed if settings.seed is None else settings.seed
    pictures = [replace(picture, group=group_of(picture, config)) for picture in found.pictures]
    given = any(picture.split for picture in pictures)
    if settings.rule == "given" and not given:
        raise DatasetError(f"{found.root}: {found.layout} give no split; leave data.split.rule out, or set it to groups")
    if given and settings.rule != "groups":
        pictures, rule = _as_given(pictures, config, seed=seed, classes=len(found.classes))
    else:
        shares = (1 - settings.validation - settings.test, settings.validation, settings.test)
        pictures = _dealt(pictures, shares, seed=seed, classes=len(found.classes))
        rule = f"images or groups of them dealt by their objects, {shares[0]:.0%} train (seed {seed})"
    if settings.merge:
        pictures = [replace(one, split="train" if one.split == "validation" else one.split) for one in pictures]
        rule += ", validation images train, too"
    split = ObjectsSplit(pictures=replace(found, pictures=tuple(pictures)), rule=_told(pictures, rule), seed=seed)
    _check(split, config, given=given)
    return split


def group_of(picture: Picture, config: DetectionDataConfig) -> str | None:
    """What the image's name, an index or the original of a tile says it belongs to. Raises DatasetError."""
    if config.group is None:
        return picture.group
    name = Path(picture.record.image).name
    match = re.search(config.group, name)
    if match is None:
        raise DatasetError(f"data.group {config.group!r} is not found in {name}; every image's name must hold it")
    return match.group(1) if match.re.groups else match.group(0)


def _as_given(pictures: list[Picture], config: DetectionDataConfig, *, seed: int, classes: int) -> tuple[list[Picture], str]:
    """As the data say; where they say nothing of validation, a share of the training images."""
    rule, share = "as the data give it", config.split.validation
    if any(one.split == "validation" for one in pictures) or not share or config.split.merge:
        return pictures, rule
    train = [one for one in pictures if one.split == "train"]
    dealt = iter(_dealt(train, (1 - share, share, 0.0), seed=seed, classes=classes))
    return [next(dealt) if one.split == "train" else one for one in pictures], f"{rule}, {share:.0%} of training validates"


def _dealt(pictures: Sequence[Picture], shares: tuple[float, float, float], *, seed: int, classes: int) -> list[Picture]:
    units: dict[str, list[int]] = defaultdict(list)
    for number, picture in enumerate(pictures):
        units[picture.group or picture.record.image].append(number)
    counts = np.zeros((len(units), classes), dtype=np.int64)
    for unit, numbers in enumerate(units.values()):
        for number in numbers:
            counts[unit] += np.bincount(pictures[number].record.labels, minlength=classes)
    dealt = deal(counts, shares=shares, rng=np.random.default_rng(seed))
    out = list(pictures)
    for split, numbers in zip(dealt, units.values(), strict=True):
        for number in numbers:
            out[number] = replace(pictures[number], split=NAMES[split])
    return out


def _told(pictures: Sequence[Picture], rule: str) -> str:
    parts = ", ".join(
        f"{name} {counted(sum(one.split == name for one in pictures), 'image')}"
        for name in NAMES
        if any(one.split == name for one in pictures)
    )
    return f"{rule}: {parts}"


def _check(split: ObjectsSplit, config: DetectionDataConfig, *, given: bool) -> None:
    settings, total = config.split, counted(len(split.pictures.pictures), "image")
    wanted = {"train": 1.0, "validation": 0.0 if settings.merge else settings.validation}
    wanted["test"] = 0.0 if given and settings.rule != "groups" else settings.test
    for name in NAMES:
        if wanted[name] and not split.of(name):
            raise EmptySplit(
                f"{split.pictures.root}: of {total} none is left for {name}; give more images or groups, cut large ones into "
                f"tiles with groups of their own, or set data.split.{name if name != 'train' else 'test'}=0"
            )
    labels = [picture.record.labels for picture in split.of("train")]
    held = np.bincount(np.concatenate(labels), minlength=len(split.pictures.classes))
    if lacking := [name for name, count in zip(split.pictures.classes.names, held, strict=True) if not count]:
        raise LabelError(
            f"{split.pictures.root}: no training image has an object of {', '.join(lacking)}; split the data otherwise, or "
            "leave the class out of data.classes together with its labels"
        )


# On disk.


def save_objects_split(split: ObjectsSplit, path: Path) -> None:
    """Write split.json; images are named relative to the data root."""
    root = Path(split.pictures.root)
    content: dict[str, Any] = {
        "format": FORMAT,
        "content": CONTENT,
        "root": str(root.resolve()),
        "rule": split.rule,
        "seed": split.seed,
        "classes": split.pictures.classes.names,
        "images": [[os.path.relpath(one.record.image, root), one.split, one.group] for one in split.pictures.pictures],
    }
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedSplit:
    """What a split.json says, whether or not its images are still there."""

    root: str
    images: tuple[tuple[str, SplitName | None], ...]  # relative to the root

    def of(self, name: SplitName) -> tuple[str, ...]:
        """The images of one split."""
        return tuple(image for image, split in self.images if split == name)


def load_objects_split(path: Path) -> SavedSplit:
    """Read split.json. Raises MissingFile, and DatasetError for a file of another kind."""
    content = _content(path)
    return SavedSplit(root=content["root"], images=tuple((row[0], row[1]) for row in content["images"]))


def read_root(path: Path) -> Path:
    """Where the data of a split.json were. Raises as `load_objects_split` does."""
    return Path(load_objects_split(path).root)


def resplit(found: Pictures, path: Path) -> ObjectsSplit:
    """The images as a split.json deals them. Raises DatasetError where it names others than there are."""
    content = _content(path)
    places: Mapping[str, tuple[SplitName | None, str | None]] = {row[0]: (row[1], row[2]) for row in content["images"]}
    names = [os.path.relpath(one.record.image, found.root) for one in found.pictures]
    if odd := sorted({*names} ^ {*places}):
        where = "is not there" if odd[0] in places else "is new"
        raise DatasetError(f"{path} does not fit {found.root}: {odd[0]} {where}; restore the data that the run was trained on")
    pictures = tuple(
        replace(one, split=places[name][0], group=places[name][1]) for one, name in zip(found.pictures, names, strict=True)
    )
    return ObjectsSplit(pictures=replace(found, pictures=pictures), rule=content["rule"], seed=content["seed"])


def _content(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingFile(f"{path} is not there; it is written when training starts")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if (content.get("format"), content.get("content")) != (FORMAT, CONTENT):
        raise DatasetError(
            f"{path} holds {content.get('content', 'regions of scenes')} in format {content.get('format')}; expected {CONTENT} "
            f"in format {FORMAT}; split the data again"
        )
    return content


def leakage(split: ObjectsSplit) -> str:
    """Whether a group, or an image under two names, is on both sides. A sentence, of which the first word is LEAKS if so."""
    train = split.of("train")
    judges = {name: split.of(name) for name in ("test", "validation") if split.of(name)}
    if not judges:
        return "no leak found: there is nothing to compare, no images that judge"
    for name, judged in judges.items():
        groups = {one.group for one in train if one.group} & {one.group for one in judged if one.group}
        if groups:
            return f"LEAKS: {counted(len(groups), 'group')} of {name} images also train, {min(groups)} for one"
        pair = _overlapping(judged, train)
        if pair:
            return f"LEAKS: {Path(pair[0]).name} of the {name} images shares ground with {Path(pair[1]).name}, which trains"
    return "no leak found: no group is on both sides, and no images with coordinates share ground"


def _overlapping(judged: Sequence[Picture], train: Sequence[Picture]) -> tuple[str, str] | None:
    """The first pair whose upright extents on the ground meet, of those in one coordinate system."""
    placed = [(one.record.image, one.grid.crs, _bounds(one)) for one in train if one.grid.crs is not None]
    for one in judged:
        left, bottom, right, top = _bounds(one)
        for image, crs, (west, south, east, north) in placed:
            if crs == one.grid.crs and left < east and west < right and bottom < north and south < top:
                return one.record.image, image
    return None


def _bounds(picture: Picture) -> tuple[float, float, float, float]:
    x, y = zip(*picture.grid.corners(), strict=True)
    return min(x), min(y), max(x), max(y)
