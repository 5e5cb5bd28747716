"""Which images train a model and which ones judge it, each class in the same shares."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terralean.data.config import SplitName
from terralean.data.deal import NAMES, deal
from terralean.data.scene_config import SceneDataConfig, SceneSplitRule
from terralean.data.scene_index import SceneDataset, SceneImage
from terralean.data.split import FEWEST, Shares, relative, tally
from terralean.data.words import listed
from terralean.errors import ConfigError, DatasetError, EmptySplit, LabelError, MissingFile

FORMAT = 1
CONTENT = "labelled images"  # what sets the file apart from that of regions of scenes


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneSplit:
    """Images, each in one split."""

    root: str
    images: tuple[SceneImage, ...]
    classes: tuple[str, ...]
    rule: str  # how it was made: a sentence
    method: SceneSplitRule
    seed: int

    def of(self, name: SplitName) -> tuple[SceneImage, ...]:
        """The images of one split."""
        return tuple(image for image in self.images if image.split == name)


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What the rules share."""

    images: Sequence[SceneImage]
    classes: int
    shares: Shares
    rng: np.random.Generator


def deal_scenes(dataset: SceneDataset, config: SceneDataConfig, *, seed: int) -> SceneSplit:
    """Deal the images to train, validation and test. Raises EmptySplit where one comes out empty.

    `seed` is the run's; a seed in the config goes before it. Raises LabelError where a class has no training image.
    """
    settings = config.split
    seed = seed if settings.seed is None else settings.seed
    task = _Task(
        images=dataset.images,
        classes=len(dataset.classes),
        shares=(1 - settings.validation - settings.test, settings.validation, settings.test),
        rng=np.random.default_rng(seed),
    )
    method = settings.rule or _suited(dataset.images)
    _check_rule(method, dataset, config)
    images, words = RULES[method](task)
    split = SceneSplit(
        root=dataset.root, images=tuple(images), classes=dataset.classes.names, rule=words, method=method, seed=seed
    )
    needed = NAMES if method != "given" else NAMES[: 2 if settings.validation else 1]
    for name, share in zip(NAMES, task.shares, strict=True):
        if name in needed and share and not split.of(name):
            raise EmptySplit(_empty(split, name))
    _check_taught(split)
    return split


def save_scene_split(split: SceneSplit, path: Path) -> None:
    """Write split.json; images under the data root are named relative to it."""
    root = Path(split.root)
    content = {
        "format": FORMAT,
        "content": CONTENT,
        "root": str(root.resolve()),
        "rule": split.rule,
        "method": split.method,
        "seed": split.seed,
        "classes": split.classes,
    }
    rows = [json.dumps([relative(image.path, root), image.label, image.split, image.group]) for image in split.images]
    part = path.with_suffix(path.suffix + ".part")
    # A line an image: there may be a million.
    part.write_text(json.dumps(content, indent=1)[:-2] + ',\n "images": [\n' + ",\n".join(rows) + "\n]}\n", encoding="utf-8")
    os.replace(part, path)


def load_scene_split(path: Path, *, root: Path | None = None) -> SceneSplit:
    """Read split.json; `root` where the data have moved."""
    if not path.is_file():
        raise MissingFile(f"{path} is not there; it is written when training starts")
    content = json.loads(path.read_text(encoding="utf-8"))
    found = content.get("content", "regions of scenes")
    if (content.get("format"), found) != (FORMAT, CONTENT):
        raise DatasetError(
            f"{path} holds {found} in format {content.get('format')}; expected {CONTENT} in format {FORMAT}; split the data "
            "again"
        )
    base = root or Path(content["root"])
    return SceneSplit(
        root=str(base),
        images=tuple(_image(row, base) for row in content["images"]),
        classes=tuple(content["classes"]),
        rule=content["rule"],
        method=content["method"],
        seed=content["seed"],
    )


def _image(row: list[Any], root: Path) -> SceneImage:
    path, label, split, group = row
    return SceneImage(path=str(root / path), label=label, split=split, group=group)


# Which rule, and whether it can obey.


def _suited(images: Sequence[SceneImage]) -> SceneSplitRule:
    if any(image.split for image in images):
        return "given"
    return "groups" if any(image.group for image in images) else "random"


def _check_rule(method: SceneSplitRule, dataset: SceneDataset, config: SceneDataConfig) -> None:
    lacking = {
        "given": not any(image.split for image in dataset.images) and "neither an index.csv nor lists nor folders give a split",
        "groups": not any(image.group for image in dataset.images)
        and "the images have no groups; say by data.group what in a "
        "file name is the group, or give a column group in index.csv",
        "random": config.group is not None and "data.group has no effect with it",
    }[method]
    if lacking:
        raise ConfigError(f"data.split.rule is {method}, but {lacking}; take one of them out, or the rule")


# The rules.


Dealt = tuple[list[SceneImage], str]  # and how, in words


def _given(task: _Task) -> Dealt:
    words = f"split given by the dataset: {tally(image.split for image in task.images)}"
    share = task.shares[1]
    if not share or any(image.split == "validation" for image in task.images):
        return list(task.images), words
    training = [image for image in task.images if image.split == "train"]
    if not training:
        raise EmptySplit(
            f"none of the {len(task.images)} images is given to train; give some, or set data.split.rule to random or groups"
        )
    groups = len({image.group for image in training}) > 1
    carve = _groups if groups else _random
    carved, how = carve(replace(task, images=training, shares=(1 - share, share, 0.0)))
    rest = [image for image in task.images if image.split != "train"]
    return carved + rest, f"{words}, validation taken from its training part: {how}"


def _groups(task: _Task) -> Dealt:
    """Whole groups. An image without one is a group of its own."""
    keys = [image.group or image.path for image in task.images]
    number = {key: i for i, key in enumerate(sorted(set(keys)))}
    counts = np.zeros((len(number), task.classes), dtype=np.int64)
    np.add.at(counts, ([number[key] for key in keys], [image.label for image in task.images]), 1)
    dealt = deal(counts, shares=task.shares, rng=task.rng)
    images = [replace(image, split=NAMES[dealt[number[key]]]) for image, key in zip(task.images, keys, strict=True)]
    return images, f"whole groups: {tally(NAMES[i] for i in dealt)}"


def _random(task: _Task) -> Dealt:
    labels = np.array([image.label for image in task.images])
    dealt = np.zeros(len(labels), dtype=np.int64)
    for label in range(task.classes):
        own = np.flatnonzero(labels == label)
        dealt[task.rng.permutation(own)] = np.repeat(np.arange(3), _whole_shares(len(own), task.shares))
    images = [replace(image, split=NAMES[i]) for image, i in zip(task.images, dealt, strict=True)]
    return images, f"images at random, each class in the same shares: {tally(image.split for image in images)}"


def _whole_shares(count: int, shares: Shares) -> NDArray[np.int64]:
    """How many of a class go to each split (3,): its share rounded, one at least where there are enough, the rest trains."""
    wanted = np.array(shares)
    parts = np.floor(wanted * count + 0.5).astype(np.int64)
    if count >= FEWEST:
        parts = np.maximum(parts, wanted > 0)
    parts[0] = count - parts[1:].sum()
    return parts


RULES: dict[SceneSplitRule, Callable[[_Task], Dealt]] = {"given": _given, "groups": _groups, "random": _random}


# What can be wrong with the result.


def _check_taught(split: SceneSplit) -> None:
    """Raise LabelError where a class has no training image, naming where it is instead."""
    taught = {image.label for image in split.of("train")}
    elsewhere = defaultdict(list)
    for image in split.images:
        if image.label not in taught:
            elsewhere[image.label].append(image)
    if not elsewhere:
        return
    told = [f"{split.classes[label]} ({_where(images)})" for label, images in sorted(elsewhere.items())]
    raise LabelError(
        f"{split.root}: no training image of {listed(told)}: the model cannot learn it; give some to train, split the data "
        "otherwise (data.split, --seed), or take the class out"
    )


def _where(images: Sequence[SceneImage]) -> str:
    counts = Counter(image.split for image in images)
    return f"{', '.join(f'{count} in {name}' for name, count in counts.items())}, {images[0].path} for one"


def _empty(split: SceneSplit, name: SplitName) -> str:
    fix = {
        "given": "give some images to it",
        "groups": "there are too few groups, capture smaller ones by data.group",
        "random": "raise its share, or give more images",
    }[split.method]
    zero = "" if name == "train" else f", or do without: data.split.{name}=0"
    return f"{split.root}: the {name} split is empty ({split.rule}); {fix}{zero}"
