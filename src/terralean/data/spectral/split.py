"""Labelled pixels dealt to training, validation and test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terralean.data.deal import deal
from terralean.data.spectral.config import SpectralDataConfig, SpectralSplitConfig
from terralean.data.spectral.pixels import Pixels, joined, labelled
from terralean.data.spectral.places import nearest_px, origins, places
from terralean.data.spectral.scenes import SpectralDataset, folder_of
from terralean.data.words import listed
from terralean.errors import DatasetError, EmptySplit, LabelError, RunError
from terralean.raster.source import named_part
from terralean.spec import IGNORE

DEALS = 40  # that are tried with squares of one size
SMALLEST_BLOCK_PX = 4
VALIDATION_SIDE = 0.25  # of the squares that are not for test
NAMES = ("train", "validation", "test")
PIXELS = "pixels of cubes"  # what a split.json with this `content` is of


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelSplit:
    """Which pixels train, validate and test."""

    root: str
    images: tuple[str, ...]
    origin: NDArray[np.int64]  # (scenes, 2), see places.origins
    method: str
    seed: int
    window_px: int
    train: Pixels
    validation: Pixels
    test: Pixels
    dropped: tuple[int, ...]  # test pixels of each class that were too near to a training pixel
    rule: str  # in words
    notes: tuple[str, ...]  # what could not be had

    def of(self, name: str) -> Pixels:
        """The pixels of a part."""
        found: Pixels = getattr(self, name)
        return found

    def counts(self, classes: Sequence[str]) -> dict[str, dict[str, int]]:
        """Pixels of each class in each part, and those left out of the test."""
        each = {name: self.of(name).counts(len(classes)) for name in NAMES} | {"dropped": np.array(self.dropped)}
        return {cls: {name: int(counts[i]) for name, counts in each.items()} for i, cls in enumerate(classes)}

    def places(self, name: str) -> NDArray[np.int64]:
        """Where they lie (n, 2), row and column."""
        return places(self.of(name), self.origin)


def deal_pixels(dataset: SpectralDataset, config: SpectralDataConfig, there: Pixels, *, seed: int) -> PixelSplit:
    """Deal the labelled pixels that hold data; of label maps, those of `there` that the maps name.

    The same seed and labels give the same deal. Raises EmptySplit where nothing is left to train or to test on.
    """
    split = config.split
    seed = seed if split.seed is None else split.seed
    origin = origins([scene.grid for scene in dataset.scenes])
    classes = dataset.classes.names
    ways = {"block": _blocks, "random": _random, "scene": _scenes}
    if split.method == "maps":
        found = _maps(dataset, config, there, seed=seed)
    else:
        found = ways[split.method](_Task(dataset=dataset, split=split, pixels=there, origin=origin, seed=seed))
    kept, dropped = found.test, np.zeros(len(classes), np.int64)
    if split.method in ("block", "scene"):
        near = nearest_px(places(found.test, origin), places(found.train, origin)) <= split.reach_px
        kept, dropped = found.test.take(~near), found.test.take(near).counts(len(classes))
    _check_parts(found.train, kept, dataset, split)
    return PixelSplit(
        root=dataset.root,
        images=tuple(scene.image for scene in dataset.scenes),
        origin=origin,
        method=split.method,
        seed=seed,
        window_px=split.window_px,
        train=found.train,
        validation=found.validation,
        test=kept,
        dropped=tuple(dropped.tolist()),
        rule=f"{found.rule}; {_counted(found, kept)}{_dropped(split, dropped, classes)}",
        notes=(*found.notes, *_short(found, there, dataset, split), *_absent(found, kept, classes)),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Dealt:
    train: Pixels
    validation: Pixels
    test: Pixels
    rule: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Task:
    dataset: SpectralDataset
    split: SpectralSplitConfig
    pixels: Pixels
    origin: NDArray[np.int64]
    seed: int
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rng", np.random.default_rng(self.seed))

    @property
    def counts(self) -> NDArray[np.int64]:
        return self.pixels.counts(len(self.dataset.classes))


def wanted(counts: NDArray[np.int64], split: SpectralSplitConfig) -> NDArray[np.int64]:
    """Training pixels (K,) of classes with so many labelled pixels: one at least is left to test on, unless it is the only."""
    share = np.full(len(counts), split.per_class) if split.per_class else np.round(split.share * counts).astype(np.int64)
    return np.minimum(np.maximum(share, split.least if split.per_class is None else 1), np.maximum(counts - 1, counts > 0))


def _in_words(split: SpectralSplitConfig) -> str:
    if split.per_class:
        return f"{split.per_class} px of each class"
    return f"{100 * split.share:g} % of each class, {split.least} px at least,"


def _draw(pixels: Pixels, counts: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which pixels (n,) are drawn: so many of each class (K,), or all where there are fewer."""
    chosen = np.zeros(len(pixels), bool)
    for cls, count in enumerate(counts):
        chosen[rng.permutation(np.flatnonzero(pixels.label == cls))[:count]] = True
    return chosen


def _validated(drawn: NDArray[np.int64], split: SpectralSplitConfig) -> NDArray[np.int64]:
    """Validation pixels (K,) of classes of which so many are drawn to train on."""
    each = split.validation * drawn
    share = min(1.0, split.validation_most / max(each.sum(), 1))
    return np.ceil(share * each).astype(np.int64)


def _random(task: _Task) -> _Dealt:
    pixels, counts = task.pixels, task.counts
    train = _draw(pixels, wanted(counts, task.split), task.rng)
    left = counts - pixels.take(train).counts(len(counts))
    more = np.minimum(_validated(pixels.take(train).counts(len(counts)), task.split), np.maximum(left - 1, 0))
    rest = np.flatnonzero(~train)
    validation = rest[_draw(pixels.take(rest), more, task.rng)]
    test = np.setdiff1d(rest, validation)
    return _Dealt(
        train=pixels.take(train),
        validation=pixels.take(validation),
        test=pixels.take(test),
        rule=f"random pixels: {_in_words(task.split)} train (seed {task.seed})",
    )


def _blocks(task: _Task) -> _Dealt:
    """The first deal that has every class on both sides; of smaller and smaller squares where none has."""
    split = task.split
    first = split.block_px or 2 * split.window_px
    sides = [first] if split.block_px else [side for i in range(8) if (side := first >> i) >= SMALLEST_BLOCK_PX] or [first]
    best = _deal_blocks(task, side=first)
    fewest = _lacking(best, task)
    for side in (side for side in sides for _ in range(DEALS)):
        if not fewest:
            break
        found = _deal_blocks(task, side=side)
        if (lacking := _lacking(found, task)) < fewest:
            best, fewest = found, lacking
    return best


def _lacking(found: _Dealt, task: _Task) -> int:
    """Classes that could be on both sides and are not, with the pixels left out that are too near."""
    near = nearest_px(places(found.test, task.origin), places(found.train, task.origin)) <= task.split.reach_px
    classes = len(task.dataset.classes)
    both = (found.train.counts(classes) > 0) & (found.test.take(~near).counts(classes) > 0)
    return int(((task.counts > 1) & ~both).sum())


def _deal_blocks(task: _Task, *, side: int) -> _Dealt:
    split, pixels = task.split, task.pixels
    outer = _sides_of(task, pixels, side=side, shares=(1 - split.test, 0.0, split.test))
    learn, test = pixels.take(outer != 2), pixels.take(outer == 2)  # noqa: PLR2004 - the place of test in NAMES
    apart = VALIDATION_SIDE if split.validation else 0.0
    inner = _sides_of(task, learn, side=max(side // 2, 1), shares=(1 - apart, apart, 0.0))
    mine, validating = learn.take(inner == 0), learn.take(inner == 1)
    train = mine.take(_draw(mine, wanted(task.counts, split), task.rng))
    validation = validating.take(_draw(validating, _validated(train.counts(len(task.counts)), split), task.rng))
    return _Dealt(
        train=train,
        validation=validation,
        test=test,
        rule=(
            f"squares of {side} px, {100 * split.test:g} % of them for test: {_in_words(split)} train, "
            f"validation in squares of {max(side // 2, 1)} px of the same side (seed {task.seed})"
        ),
    )


def _sides_of(task: _Task, pixels: Pixels, *, side: int, shares: tuple[float, float, float]) -> NDArray[np.int64]:
    """The part (n,) that the square of each pixel is dealt to."""
    squares, number = np.unique(places(pixels, task.origin) // side, axis=0, return_inverse=True)
    counts = np.zeros((len(squares), len(task.dataset.classes)), np.int64)
    np.add.at(counts, (number.ravel(), pixels.label), 1)
    return deal(counts, shares=shares, rng=task.rng)[number.ravel()]


def _scenes(task: _Task) -> _Dealt:
    split, names = task.split, [scene.name for scene in task.dataset.scenes]
    if unknown := [name for name in split.test_scenes if name not in names]:
        raise DatasetError(f"data.split.test_scenes: no scene {', '.join(unknown)}; there are {listed(names)}")
    testing = np.isin(task.pixels.scene, [names.index(name) for name in split.test_scenes])
    learn = task.pixels.take(~testing)
    counts = learn.counts(len(task.dataset.classes))
    drawn = _draw(learn, wanted(counts, split), task.rng)
    rest = learn.take(~drawn)
    validation = rest.take(_draw(rest, _validated(learn.take(drawn).counts(len(counts)), split), task.rng))
    return _Dealt(
        train=learn.take(drawn),
        validation=validation,
        test=task.pixels.take(testing),
        rule=f"tested on {', '.join(split.test_scenes)}; of the other scenes {_in_words(split)} train (seed {task.seed})",
    )


def _maps(dataset: SpectralDataset, config: SpectralDataConfig, there: Pixels, *, seed: int) -> _Dealt:
    """As label maps have it, checked against each other and against the full map."""
    if len(dataset.scenes) > 1:
        raise DatasetError("data.split.method=maps is for one scene; name it with --set data.cube=FILE")
    root = folder_of(dataset.root)
    named = {"train": config.train_labels, "validation": config.validation_labels, "test": config.test_labels}
    maps = {name: dataset.map_of(str(root / path), scene=0) for name, path in named.items() if path is not None}
    _check_maps(maps, named, dataset, there if config.labels is not None else None)
    valid = _mask(there, maps["train"].shape) if config.labels is None else np.ones(maps["train"].shape, bool)
    parts = {name: labelled(np.where(valid, values, IGNORE), scene=0, none=IGNORE) for name, values in maps.items()}
    train, validation, rng = parts["train"], parts.get("validation"), np.random.default_rng(seed)
    taken = ""
    if validation is None:
        counts = train.counts(len(dataset.classes))
        held = np.minimum(np.round(counts * config.split.validation / (1 + config.split.validation) * 0.5), counts - 1)
        chosen = _draw(train, np.maximum(held, 0).astype(np.int64), rng)
        train, validation = train.take(~chosen), train.take(chosen)
        taken = f", validation taken from these at random (seed {seed})"
    rule = f"train as {config.train_labels}{taken}, test as {config.test_labels}"
    return _Dealt(train=train, validation=validation, test=parts["test"], rule=rule)


def _mask(pixels: Pixels, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    found = np.zeros(shape, bool)
    found[pixels.row, pixels.col] = True
    return found


def _check_maps(
    maps: Mapping[str, NDArray[np.uint8]], named: Mapping[str, str | None], dataset: SpectralDataset, full: Pixels | None
) -> None:
    names = [*maps]
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            both = int(((maps[one] != IGNORE) & (maps[other] != IGNORE)).sum())
            if both:
                raise LabelError(f"{named[one]} and {named[other]} both label {both} pixels; a pixel is of one part only")
    taught = np.bincount(maps["train"][maps["train"] != IGNORE], minlength=len(dataset.classes))
    asked = np.bincount(maps["test"][maps["test"] != IGNORE], minlength=len(dataset.classes))
    if not (taught[asked > 0] > 0).all():
        lost = [dataset.classes.names[i] for i in np.flatnonzero((asked > 0) & (taught == 0))]
        raise LabelError(
            f"{named['test']} has the classes {', '.join(lost)}, which {named['train']} lacks: the maps number classes "
            "differently, or are not of one split; renumber them alike"
        )
    if full is None:
        return
    whole = np.full(maps["train"].shape, IGNORE, np.uint8)
    whole[full.row, full.col] = full.label
    for name, values in maps.items():
        wrong = int(((values != IGNORE) & (values != whole)).sum())
        if wrong:
            raise LabelError(
                f"{named[name]}: {wrong} of {int((values != IGNORE).sum())} pixels are of another class, or of none, in the "
                "full label map (data.labels): another numbering of classes or another version of the map; renumber it, or "
                "leave data.labels out"
            )


def _check_parts(train: Pixels, test: Pixels, dataset: SpectralDataset, split: SpectralSplitConfig) -> None:
    if len(np.unique(train.label)) < 2:  # noqa: PLR2004 - nothing to tell apart
        found = ", ".join(dataset.classes.names[i] for i in np.unique(train.label)) or "none"
        raise EmptySplit(f"{dataset.root}: training pixels of two classes at least are needed, got {found}; label more")
    if not len(test):
        raise EmptySplit(
            f"{dataset.root}: no test pixel is more than {split.reach_px} px from training pixels; the labelled area is too "
            f"small for windows of {split.window_px} px: lower data.split.window_px (and the model's), or say "
            "data.split.method=random, which leaks"
        )


def _counted(found: _Dealt, test: Pixels) -> str:
    return f"{len(found.train)} px train, {len(found.validation)} validate, {len(test)} test"


def _dropped(split: SpectralSplitConfig, dropped: NDArray[np.int64], classes: Sequence[str]) -> str:
    if split.method not in ("block", "scene"):
        return ""
    rule = "no training pixel in a test window" if split.distance == "centre" else "no window shared"
    each = ", ".join(f"{name} {count}" for name, count in zip(classes, dropped, strict=True) if count)
    told = f" ({each})" if each else ""
    return f"; test pixels within {split.reach_px} px of a training pixel left out ({rule}): {int(dropped.sum())}{told}"


def _short(found: _Dealt, there: Pixels, dataset: SpectralDataset, split: SpectralSplitConfig) -> list[str]:
    """Classes with fewer training pixels than asked for."""
    if split.method != "block":
        return []
    names = dataset.classes.names
    asked, drawn = wanted(there.counts(len(names)), split), found.train.counts(len(names))
    lost = [f"{name} ({got} of {need})" for name, got, need in zip(names, drawn, asked, strict=True) if 0 < got < need]
    return [f"the squares for training hold fewer pixels than asked for of {', '.join(lost)}"] if lost else []


def _absent(found: _Dealt, test: Pixels, classes: Sequence[str]) -> list[str]:
    """Classes that a part lacks."""
    notes = []
    for words, part in (("training", found.train), ("validation", found.validation), ("test", test)):
        counts = part.counts(len(classes))
        if len(part) and (lost := [name for name, count in zip(classes, counts, strict=True) if not count]):
            notes.append(f"no {words} pixel of {', '.join(lost)}")
    return notes


def save_split(split: PixelSplit, path: Path) -> None:
    """Write which pixels are which: scene, row, column and class of each."""
    parts = {name: {key: getattr(split.of(name), key).tolist() for key in ("scene", "row", "col", "label")} for name in NAMES}
    values: dict[str, Any] = {
        "content": PIXELS,
        "root": split.root,
        "images": list(split.images),
        "origin": split.origin.tolist(),
        "method": split.method,
        "seed": split.seed,
        "window_px": split.window_px,
        "rule": split.rule,
        "notes": list(split.notes),
        "dropped": list(split.dropped),
        "pixels": parts,
    }
    path.write_text(json.dumps(values) + "\n")


def load_split(path: Path) -> PixelSplit:
    """The deal of a run. RunError where the file is missing."""
    if not path.is_file():
        raise RunError(f"{path} is missing beside the run's card; copy the whole run folder")
    values = json.loads(path.read_text())
    parts = {
        name: Pixels(**{key: np.array(found, np.int64) for key, found in values["pixels"][name].items()}) for name in NAMES
    }
    return PixelSplit(
        root=values["root"],
        images=tuple(values["images"]),
        origin=np.array(values["origin"], np.int64).reshape(-1, 2),
        method=values["method"],
        seed=values["seed"],
        window_px=values["window_px"],
        dropped=tuple(values["dropped"]),
        rule=values["rule"],
        notes=tuple(values["notes"]),
        **parts,
    )


def fingerprint(split: PixelSplit) -> str:
    """16 hexadecimal digits of SHA-256 over the names and sizes of the cubes and the training pixels."""
    digest = hashlib.sha256()
    for image in split.images:
        file = Path(named_part(image)[0])
        digest.update(f"{file.name} {file.stat().st_size if file.is_file() else 0} ".encode())
    for name in ("scene", "row", "col", "label"):
        digest.update(getattr(split.train, name).tobytes())
    return digest.hexdigest()[:16]


def all_pixels(dataset: SpectralDataset) -> Pixels:
    """Every labelled pixel of the dataset, whether it holds data or not."""
    found = [
        labelled(dataset.map_of(scene.labels, scene=index), scene=index, none=IGNORE)
        for index, scene in enumerate(dataset.scenes)
        if scene.labels is not None
    ]
    return joined(found)
