"""Which pixels train a model and which ones judge it: regions of images, apart from each other on the ground."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from terralean.data.config import DataConfig, SplitConfig, SplitName, SplitRule
from terralean.data.deal import NAMES, deal
from terralean.data.ground import Frame, frames, placed
from terralean.data.index import Dataset, Source
from terralean.data.lattice import Cells, Lattice, apart, cells, lattice, rectangles, settle
from terralean.data.reading import Reader
from terralean.data.words import listed
from terralean.errors import ConfigError, DatasetError, EmptySplit, MissingFile
from terralean.raster.coding import PLAIN, Coding
from terralean.raster.grid import Grid, Window
from terralean.raster.pair import Pair, find_pair
from terralean.spec import IGNORE

FORMAT = 1
FEWEST = 3  # groups or images from which whole ones are dealt: one for each split
Shares = tuple[float, float, float]  # of train, validation, test
Cut = tuple[list["Region"], str]  # and how they were made, in words


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """A window of one image that belongs to one split."""

    image: str
    label: str
    window: Window
    split: SplitName
    group: str | None = None  # a block on the ground, or what the dataset says must stay together


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Regions of the images, each in one split. Training regions of one image never overlap."""

    root: str
    regions: tuple[Region, ...]
    rule: str  # how it was made: a sentence
    method: SplitRule
    seed: int
    gap_px: float  # what training keeps from the pixels that judge, where no metres are given
    gap_m: float | None
    coding: Coding = PLAIN  # how the label files write the classes

    def of(self, name: SplitName) -> tuple[Region, ...]:
        """The regions of one split."""
        return tuple(region for region in self.regions if region.split == name)


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What the rules share."""

    sources: Sequence[Source]
    reader: Reader
    config: SplitConfig
    shares: Shares
    rng: np.random.Generator

    def grids(self) -> list[Grid]:
        return [self.reader.grid(source.image) for source in self.sources]


def make_split(dataset: Dataset, config: DataConfig, *, seed: int) -> Split:
    """Deal the dataset's labelled pixels to train, validation and test. Raises EmptySplit where one comes out empty.

    `seed` is the run's; a seed in the config goes before it.
    """
    seed = seed if config.split.seed is None else config.split.seed
    reader = Reader(classes=dataset.classes, coding=dataset.coding, config=config)
    settings = settle(config.split, [reader.grid(source.image) for source in dataset.sources])
    task = _Task(
        sources=given_sources(dataset, config),
        reader=reader,
        config=settings,
        shares=(1 - settings.validation - settings.test, settings.validation, settings.test),
        rng=np.random.default_rng(seed),
    )
    method = settings.rule or _suited(task, config)
    _check_settings(task, config, method)
    regions, words = RULES[method](task)
    needed = NAMES if method != "given" else NAMES[: 2 if settings.validation else 1]
    for name, share in zip(NAMES, task.shares, strict=True):
        if name in needed and share and not any(region.split == name for region in regions):
            raise EmptySplit(_empty(dataset, name, method, words))
    return Split(
        root=dataset.root,
        regions=tuple(regions),
        rule=words,
        method=method,
        seed=seed,
        gap_px=settings.gap_px or 0,
        gap_m=settings.gap_m,
        coding=dataset.coding,
    )


def given_sources(dataset: Dataset, config: DataConfig) -> tuple[Source, ...]:
    """The sources with the split that the recipe lists for their group, else with the one that the dataset gives.

    Raises DatasetError where groups are not listed, or listed ones not there; groups listed as unused are left out.
    """
    lists = config.split.listed
    if lists is None:
        return _scored_on_validation(dataset) if config.split.test_from == "validation" else dataset.sources
    if any(source.group is None for source in dataset.sources):
        raise ConfigError(
            "data.split.listed names groups, but the images have none; say with data.group what in a file name is the group"
        )
    place = {name: split for split in (*NAMES, "unused") for name in getattr(lists, split)}
    found = {cast("str", source.group) for source in dataset.sources}
    faults = {"are there but not listed": found - place.keys(), "are listed but not there": place.keys() - found}
    for fault, names in faults.items():
        if names:
            raise DatasetError(
                f"{dataset.root}: of the groups that data.group {config.group!r} captures, {listed(sorted(names))} {fault}; "
                "data.split.listed must name each in train, validation, test or unused, in quotes: YAML reads 2_10 as 210"
            )
    return tuple(
        replace(source, split=cast("SplitName", place[source.group]))
        for source in dataset.sources
        if source.group is not None and place[source.group] != "unused"
    )


def _scored_on_validation(dataset: Dataset) -> tuple[Source, ...]:
    """The sources with the given validation split as the test split: whoever publishes a benchmark may keep its test labels."""
    given = Counter(source.split for source in dataset.sources)
    if given["test"] or not given["validation"]:
        found = f"{given['test']} test and {given['validation']} validation images"
        raise DatasetError(
            f"{dataset.root}: data.split.test_from is validation, but the data give {found} with labels; it is for data that "
            "give validation and no test labels, so add what is missing, or --set data.split.test_from=test"
        )
    return tuple(replace(source, split="test") if source.split == "validation" else source for source in dataset.sources)


def save_split(split: Split, path: Path) -> None:
    """Write split.json; images under the data root are named relative to it."""
    content = {
        "format": FORMAT,
        "root": str(Path(split.root).resolve()),
        "rule": split.rule,
        "method": split.method,
        "seed": split.seed,
        "gap_px": split.gap_px,
        "gap_m": split.gap_m,
        **({} if split.coding == PLAIN else {"labels": asdict(split.coding)}),
        "regions": [_plain(region, Path(split.root)) for region in split.regions],
    }
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)


def load_split(path: Path, *, root: Path | None = None) -> Split:
    """Read split.json; `root` where the data have moved."""
    if not path.is_file():
        raise MissingFile(f"{path} is not there; it is written when training starts")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON ({error}); restore it from a copy, or train again") from error
    if content.get("format") != FORMAT:
        raise DatasetError(f"{path} has format {content.get('format')}, this version reads {FORMAT}; split the data again")
    base = root or Path(content["root"])
    return Split(
        root=str(base),
        regions=tuple(_region(plain, base) for plain in content["regions"]),
        rule=content["rule"],
        method=content["method"],
        seed=content["seed"],
        gap_px=content["gap_px"],
        gap_m=content["gap_m"],
        coding=Coding(**{name: _tuples(value) for name, value in content.get("labels", {}).items()}),
    )


# Which rule, and whether it can obey.


def _suited(task: _Task, config: DataConfig) -> SplitRule:
    if any(source.split for source in task.sources):
        return "given"
    return _suited_to_cut(task, config.group)


def _suited_to_cut(task: _Task, group: str | None) -> SplitRule:
    if group is not None:
        return "groups"
    few = len({_key(source) for source in task.sources}) < FEWEST
    return "blocks" if few or any(placed(grid) for grid in task.grids()) else "groups"


def _check_settings(task: _Task, config: DataConfig, method: SplitRule) -> None:
    metres = [name for name in ("block_m", "gap_m") if getattr(config.split, name) is not None]
    if metres and (method == "random" or not any(placed(grid) for grid in task.grids())):
        why = "the random rule cuts tiles in pixels" if method == "random" else "no image has coordinates"
        raise ConfigError(f"data.split.{metres[0]} is in metres, but {why}; set data.split.{metres[0][:-1]}px")
    if config.group is not None and method in ("blocks", "random"):
        raise ConfigError(f"data.group has no effect with data.split.rule {method}; take one of them out")
    if method == "given" and not any(source.split for source in task.sources):
        raise ConfigError(
            "data.split.rule is given, but neither an index.csv nor folders give a split; leave data.split.rule out"
        )


# The rules.


def _given(task: _Task) -> Cut:
    regions = [_whole(source, task, cast("SplitName", source.split)) for source in task.sources]
    words = f"split listed by group: {_groups_told(task)}" if task.config.listed else "split given by the dataset"
    words += ", its validation as test" if task.config.test_from == "validation" else ""
    if not task.config.validation or any(region.split == "validation" for region in regions):
        return regions, words
    share = task.config.validation
    training = replace(task, sources=[s for s in task.sources if s.split == "train"], shares=(1 - share, share, 0.0))
    if not training.sources:
        raise EmptySplit(
            f"none of the {len(regions)} images is given to train; give some, or set data.split.rule to blocks or groups"
        )
    grouped = any(source.group for source in training.sources)
    method = "groups" if grouped and _groups_suffice(training) else _suited_to_cut(training, None)
    carved, how = RULES[method](training)
    return carved + [
        region for region in regions if region.split != "train"
    ], f"{words}, validation taken from its training part: {how}"


def _groups_told(task: _Task) -> str:
    return tally(split for split, _ in {(source.split, source.group) for source in task.sources})


def _groups_suffice(task: _Task) -> bool:
    return len({_key(source) for source in task.sources}) > 1


def _groups(task: _Task) -> Cut:
    keys = sorted({_key(source) for source in task.sources})
    counts = np.zeros((len(keys), len(task.reader.classes)), dtype=np.int64)
    for source in task.sources:
        counts[keys.index(_key(source))] += _class_counts(source, task.reader)
    dealt = dict(zip(keys, deal(counts, shares=task.shares, rng=task.rng), strict=True))
    regions = [_whole(source, task, NAMES[dealt[_key(source)]]) for source in task.sources]
    kind = "groups" if any(source.group for source in task.sources) else "images"
    return regions, f"whole {kind}: {tally(NAMES[i] for i in dealt.values())}"


def _blocks(task: _Task) -> Cut:
    grids = task.grids()
    lattices = [lattice(frame, grids, task.config) for frame in frames(grids, reach_m=2 * _gap_m(task.config, grids) + 1)]
    regions, tally = _cut(task, lattices, lambda counts: deal(counts, shares=task.shares, rng=task.rng))
    return regions, f"blocks of {_sides(lattices)}: {tally}; training keeps {_gap(lattices)} away from the others"


def _gap_m(config: SplitConfig, grids: Sequence[Grid]) -> float:
    pixel_m = max((max(grid.pixel_m() or (0.0,)) for grid in grids if placed(grid)), default=0.0)
    return config.gap_m if config.gap_m is not None else (config.gap_px or 0) * pixel_m


def _random(task: _Task) -> Cut:
    side = task.config.block_px or task.reader.config.tile_px
    tiles = replace(task.config, block_px=side, gap_px=0)
    flat = [Frame(crs=None, metres=(1.0, 1.0), members=(i,)) for i in range(len(task.sources))]
    lattices = [lattice(frame, task.grids(), tiles) for frame in flat]
    regions, tally = _cut(task, lattices, lambda counts: task.rng.choice(3, size=len(counts), p=task.shares))
    return regions, f"tiles of {side} px at random, no distance kept: {tally}"


RULES: dict[SplitRule, Callable[[_Task], Cut]] = {"given": _given, "blocks": _blocks, "groups": _groups, "random": _random}


# Whole images.


def _whole(source: Source, task: _Task, split: SplitName) -> Region:
    window = task.reader.grid(source.image).window
    return Region(image=source.image, label=source.label, window=window, split=split, group=source.group)


def _class_counts(source: Source, reader: Reader) -> NDArray[np.int64]:
    counts = np.zeros(256, dtype=np.int64)
    for strip in reader.strips(source.image, reader.grid(source.image).window):
        counts += np.bincount(reader.labels(source.image, source.label, strip).ravel(), minlength=256)
    return counts[: len(reader.classes)]


def _key(source: Source) -> str:
    return source.group or source.image


# Blocks.


def _cut(
    task: _Task, lattices: Sequence[Lattice], dealing: Callable[[NDArray[np.int64]], NDArray[np.int64]]
) -> tuple[list[Region], str]:
    """Regions of the blocks that hold labels, as `dealing` assigns them by class counts (n, K)."""
    placements = [{i: cells(task.reader.grid(task.sources[i].image), on) for i in on.frame.members} for on in lattices]
    counted = [_count_blocks(task, on, placement) for on, placement in zip(lattices, placements, strict=True)]
    counts = np.concatenate([blocks for blocks, _ in counted])
    labelled = np.flatnonzero(counts.sum(axis=1))
    dealt = np.full(len(counts), -1)
    dealt[labelled] = dealing(counts[labelled])
    starts = np.cumsum([0, *(on.blocks for on in lattices)])
    regions = []
    for n, (on, placement, (_, seen)) in enumerate(zip(lattices, placements, counted, strict=True)):
        mine = dealt[starts[n] : starts[n + 1]]
        for i, part in placement.items():
            regions += _regions(task.sources[i], part, mine.reshape(on.shape), seen[i], prefix=f"block {n}")
    return regions, f"{len(labelled)} with labels, {tally(NAMES[i] for i in dealt[labelled])}"


def _regions(source: Source, part: Cells, dealt: NDArray[np.int64], seen: NDArray[np.int64], *, prefix: str) -> list[Region]:
    """Windows of one scene: those that judge are cut at each block, those that train run on as far as the gap allows."""
    split = np.where(part.block >= 0, dealt.ravel()[part.block], -1)
    train = apart(part, dealt > 0) & ((split == 0) | (part.block < 0))
    wanted: list[tuple[SplitName, str | None, NDArray[np.bool_]]] = [("train", None, train)]
    for block in np.unique(part.block[split > 0]):
        row, col = divmod(int(block), dealt.shape[1])
        wanted.append((NAMES[dealt[row, col]], f"{prefix}/{row}/{col}", part.block == block))
    return [
        Region(image=source.image, label=source.label, window=window, split=name, group=group)
        for name, group, where in wanted
        for window, inside in rectangles(where, part)
        if seen[inside].any()
    ]


def _count_blocks(
    task: _Task, on: Lattice, placement: dict[int, Cells]
) -> tuple[NDArray[np.int64], dict[int, NDArray[np.int64]]]:
    """Class pixels of each block (blocks, K), and labelled pixels of each scene's cells (R, C)."""
    classes = len(task.reader.classes)
    blocks, seen = np.zeros((on.blocks, classes), dtype=np.int64), {}
    for i, part in placement.items():
        seen[i] = np.zeros(part.block.shape, dtype=np.int64)
        for rows, counts in _count_cells(task.sources[i], part, task.reader):
            seen[i][rows] += counts.sum(axis=-1)
            inside = part.block[rows] >= 0
            np.add.at(blocks, part.block[rows][inside], counts[inside])
    return blocks, seen


def _count_cells(source: Source, part: Cells, reader: Reader) -> list[tuple[slice, NDArray[np.int64]]]:
    """Class pixels (r, C, K) of the rows of cells that each strip of the image meets."""
    classes, out = len(reader.classes), []
    col = np.repeat(np.arange(len(part.cols) - 1), np.diff(part.cols))
    row = np.repeat(np.arange(len(part.rows) - 1), np.diff(part.rows))
    for strip in reader.strips(source.image, reader.grid(source.image).window):
        labels = reader.labels(source.image, source.label, strip)
        here = row[strip.row : strip.row + strip.height]
        shape = (int(here[-1] - here[0]) + 1, len(part.cols) - 1, classes)
        flat = ((here - here[0])[:, None] * shape[1] + col) * classes + labels
        counts = np.bincount(flat[labels != IGNORE], minlength=int(np.prod(shape)))
        out.append((slice(int(here[0]), int(here[-1]) + 1), counts.reshape(shape)))
    return out


# Words.


def tally(names: Iterable[str | None]) -> str:
    """How many there are of each split."""
    counts = Counter(names)
    return ", ".join(f"{counts[name]} {name}" for name in NAMES if counts[name])


def _sides(lattices: Sequence[Lattice]) -> str:
    return _lengths([(abs(on.side[0]) * on.frame.metres[0], on.frame.crs) for on in lattices])


def _gap(lattices: Sequence[Lattice]) -> str:
    return _lengths([(on.gap[0] * abs(on.side[0]) * on.frame.metres[0], on.frame.crs) for on in lattices])


def _lengths(found: Sequence[tuple[float, str | None]]) -> str:
    """A length in m or px, the least and the largest where frames differ."""
    words = []
    for unit, mine in (("m", [v for v, crs in found if crs]), ("px", [v for v, crs in found if not crs])):
        if mine:
            low, high = f"{min(mine):,.4g}", f"{max(mine):,.4g}"
            words.append(f"{low} {unit}" if low == high else f"{low} to {high} {unit}")
    return " and ".join(words)


def _empty(dataset: Dataset, name: str, method: SplitRule, words: str) -> str:
    fix = {
        "given": "give some images to it, or leave the column out",
        "groups": "give more groups (data.group), or cut the images with data.split.rule=blocks",
        "blocks": "make the blocks or the gap smaller (data.split.block_px and gap_px, or in metres block_m and gap_m)",
        "random": "make the tiles smaller (data.split.block_px)",
    }[method]
    zero = "" if name == "train" else f", or do without: data.split.{name}=0"
    return f"{dataset.root}: the {name} split is empty ({words}); {fix}{zero}"


# JSON.


def _plain(region: Region, root: Path) -> dict[str, object]:
    w = region.window
    return {
        "image": _stored(region.image, root),
        "label": relative(region.label, root),
        "window": [w.row, w.col, w.height, w.width],
        "split": region.split,
        "group": region.group,
    }


def _stored(image: str, root: Path) -> str | list[str]:
    """The path of an image; of a pair those of both dates, and whether the later is resampled."""
    pair = find_pair(image)
    if pair is None:
        return relative(image, root)
    return [relative(pair.before, root), relative(pair.after, root), *(["resample"] if pair.resample else [])]


def _image(stored: str | list[str], root: Path) -> str:
    """What `_stored` wrote."""
    if isinstance(stored, str):
        return str(root / stored)
    before, after, *how = stored
    return str(Pair(before=str(root / before), after=str(root / after), resample=bool(how)))


def relative(path: str, root: Path) -> str:
    """A path as split.json has it: from the data root where it lies under that."""
    return Path(path).relative_to(root).as_posix() if Path(path).is_relative_to(root) else str(Path(path).resolve())


def _tuples(value: object) -> Any:
    """JSON's lists as tuples, at any depth."""
    return tuple(_tuples(inner) for inner in value) if isinstance(value, list) else value


def _region(plain: dict, root: Path) -> Region:
    row, col, height, width = plain["window"]
    return Region(
        image=_image(plain["image"], root),
        label=str(root / plain["label"]),
        window=Window(row=row, col=col, height=height, width=width),
        split=plain["split"],
        group=plain["group"],
    )
