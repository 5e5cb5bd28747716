"""What pairs of dates and masks a folder holds. A pair is an image whose path is BEFORE:AFTER, see `raster.pair`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from terralean.data.change_config import CHANGED, PairConfig
from terralean.data.change_masks import mask_coding
from terralean.data.config import DataConfig, SplitName
from terralean.data.deliveries import pairing_name
from terralean.data.index import (
    SPLITS,
    Dataset,
    Source,
    bands_differ,
    bands_words,
    group_of,
    index_splits,
    is_raster,
    is_there,
    split_words,
)
from terralean.data.table import columns_of, read_table
from terralean.data.words import listed
from terralean.errors import BandMismatch, DatasetError, MissingFile
from terralean.raster.pair import Pair, find_pair
from terralean.raster.scene import open_scene
from terralean.spec import Bands

log = logging.getLogger(__name__)

BEFORE = ("A", "T1", "Image1", "im1", "before")
AFTER = ("B", "T2", "Image2", "im2", "after")
MASKS = ("label", "labels", "OUT", "mask", "masks", "GT", "change")
COLUMNS = {"before": ("before", "path", "image_a", "image1"), "after": ("after", "image_b", "image2")}
LISTS = ("list", "lists")  # of text files with the names of a split
UNDERSTOOD = (
    "understood are: index.csv with the columns before,after,label and perhaps split,group; A/ B/ and label/ (or OUT/, mask/) "
    "with files of the same names, perhaps in train/ val/ test/, or with list/train.txt and so on beside them"
)


def find_pairs(root: Path, config: DataConfig, pairs: PairConfig) -> Dataset:
    """The pairs in a folder. Raises DatasetError, saying what is there and what is understood, and MissingFile.

    Every pair is opened, so that dates that do not fit each other are refused before anything is trained.
    """
    if not root.is_dir():
        raise MissingFile(f"{root} is not a folder; give the one that holds the pairs and masks")
    root = root.absolute()
    layout, found = _found(root)
    if not found:
        raise DatasetError(f"{root}: {layout}, but no pair in it; put one there")
    sources = tuple(_source(one, config, pairs) for one in found)
    bands = _common_bands(sources, config)
    coding = mask_coding(sorted({source.label for source in sources}), pairs)
    log.info("%s: %s; %d pairs, %d bands of both dates", root, layout, len(sources), len(bands))
    return Dataset(root=str(root), layout=layout, sources=sources, classes=CHANGED, coding=coding, bands=bands)


def files_of(image: str) -> tuple[str, ...]:
    """The file of an image, or those of both dates of a pair."""
    pair = find_pair(image)
    return (image,) if pair is None else (pair.before, pair.after)


def holds_pairs(root: Path) -> bool:
    """Whether a folder looks like pairs of dates, by its folders or the columns of its index."""
    if not root.is_dir():
        return False
    folders = (root, *(child for child in _inside(root) if child.name.lower() in SPLITS))
    return _is_index(root) or any(_is_pair_folder(one) and _one_of(one, MASKS) is not None for one in folders)


Found = tuple[Source, Path]  # of the earlier date, and the path of the later one


def _source(found: Found, config: DataConfig, pairs: PairConfig) -> Source:
    source, after = found
    group = source.group if config.group is None else group_of(Path(source.image).name, config.group)
    return replace(source, image=str(Pair(before=source.image, after=str(after), resample=pairs.resample)), group=group)


def _found(root: Path) -> tuple[str, list[Found]]:
    for there, read in LAYOUTS:
        if there(root):
            return read(root)
    names = sorted(child.name + "/" * child.is_dir() for child in root.iterdir())
    raise DatasetError(f"{root} holds no pairs of dates but {listed(names) if names else 'nothing'}; {UNDERSTOOD}")


# index.csv


def _columns(names: Sequence[str]) -> dict[str, str]:
    """The column of the earlier and of the later date, as far as there are some."""
    chosen = {date: next((name for name in known if name in names), "") for date, known in COLUMNS.items()}
    return {date: name for date, name in chosen.items() if name}


def _is_index(root: Path) -> bool:
    path = root / "index.csv"
    return path.is_file() and "after" in _columns(columns_of(path))


def _from_index(root: Path) -> tuple[str, list[Found]]:
    path = root / "index.csv"
    names, rows = read_table(path)
    columns = _columns(names) | {"label": "label"}
    if lacking := [name for name in ("before", "after", "label") if columns.get(name) not in names]:
        raise DatasetError(f"{path} has no column {' and no '.join(lacking)}; it needs before,after,label")
    gone = [
        f"row {i} {name} {row[columns[name]]!r}"
        for i, row in enumerate(rows, 2)
        for name in columns
        if not is_there(root, row[columns[name]])
    ]
    if gone:
        raise MissingFile(f"{path} names files that are not there: {listed(gone)}; a pair is two images and a mask")
    splits = _splits(path, rows)
    found = [
        (
            Source(
                image=str(root / row[columns["before"]]),
                label=str(root / row["label"]),
                split=split,
                group=row.get("group") or None,
            ),
            root / row[columns["after"]],
        )
        for row, split in zip(rows, splits, strict=True)
    ]
    return f"index.csv with {len(rows)} pairs, {split_words(splits)}", found


def _splits(path: Path, rows: Sequence[Mapping[str, str]]) -> list[SplitName | None]:
    """As the index says; where it has one name for all of them, that is no split."""
    names = [row.get("split") or "" for row in rows]
    if len(set(names)) == 1 and names[0].lower() not in SPLITS:
        return [None] * len(names)
    return index_splits(path, names)


# folders


def _is_pair_folder(root: Path) -> bool:
    return _one_of(root, BEFORE) is not None and _one_of(root, AFTER) is not None


def _one_of(root: Path, names: Sequence[str]) -> Path | None:
    there = {child.name: child for child in root.iterdir() if child.is_dir()}
    return next((there[name] for name in names if name in there), None)


def _folders(root: Path) -> tuple[str, list[Found]]:
    triples = _triples(root, None)
    if not (lists := _one_of(root, LISTS)):
        return f"folders {_told(root)} paired by file name, no split given", triples
    split_of: dict[str, SplitName] = {}
    for path in sorted(lists.glob("*.txt")):
        if (split := SPLITS.get(path.stem.lower())) is not None:
            split_of |= {Path(line.strip()).stem: split for line in path.read_text().splitlines() if line.strip()}
    named = [(replace(s, split=split_of[Path(s.image).stem]), after) for s, after in triples if Path(s.image).stem in split_of]
    if gone := sorted(split_of.keys() - {Path(source.image).stem for source, _ in named}):
        raise MissingFile(f"{lists} names pairs that are not there: {listed(gone)}; add them, or take them off the lists")
    return f"folders {_told(root)} with {lists.name}/, {split_words(s.split for s, _ in named)}", named


def _split_folders(root: Path) -> tuple[str, list[Found]]:
    names = [child.name for child in sorted(root.iterdir()) if child.is_dir() and child.name.lower() in SPLITS]
    lacking = [name for name in names if not _is_pair_folder(root / name)]
    if lacking:
        raise DatasetError(f"{root / lacking[0]} lacks A/ or B/, which the other splits have; add them")
    found = [one for name in names for one in _triples(root / name, SPLITS[name.lower()])]
    told = split_words(source.split for source, _ in found)
    return f"{', '.join(names)} with {_told(root / names[0])} paired by file name, {told}", found


def _told(root: Path) -> str:
    return " ".join(f"{folder.name}/" for names in (BEFORE, AFTER, MASKS) if (folder := _one_of(root, names)) is not None)


def _triples(root: Path, split: SplitName | None) -> list[Found]:
    """Both dates and mask of one name. Raises MissingFile where one has no partner."""
    folders = [_one_of(root, names) for names in (BEFORE, AFTER, MASKS)]
    if folders[2] is None:
        raise DatasetError(f"{root} has both dates but no masks; put them into label/ (or OUT/, mask/), named as the images")
    before, after, masks = (_by_stem(folder) for folder in folders if folder is not None)
    everything = before.keys() | after.keys() | masks.keys()
    parts = [(folder.name, files) for folder, files in zip(folders, (before, after, masks), strict=True) if folder is not None]
    gone = [f"{name}/{stem}.*" for stem in sorted(everything) for name, files in parts if stem not in files]
    if gone:
        raise MissingFile(
            f"{root}: pairs lack files: {listed(gone)}; a pair is two images and a mask of one name, so add these or take the "
            "others out"
        )
    return [(Source(image=str(before[stem]), label=str(masks[stem]), split=split), after[stem]) for stem in sorted(everything)]


def _by_stem(folder: Path) -> dict[str, Path]:
    paths = sorted(path for path in folder.iterdir() if is_raster(path))
    found = {pairing_name(path): path for path in paths}
    if len(found) < len(paths):
        raise DatasetError(f"{folder} has several files of one name beside their endings; keep one of each")
    return found


LAYOUTS: tuple[tuple[Callable[[Path], bool], Callable[[Path], tuple[str, list[Found]]]], ...] = (
    (_is_index, _from_index),
    (_is_pair_folder, _folders),
    (lambda root: any(name.name.lower() in SPLITS and _is_pair_folder(name) for name in _inside(root)), _split_folders),
)


def _inside(root: Path) -> list[Path]:
    return [child for child in root.iterdir() if child.is_dir()]


# bands


def _common_bands(sources: Sequence[Source], config: DataConfig) -> Bands:
    """The bands of all pairs. Raises BandMismatch naming the two that differ."""
    first: Bands | None = None
    for source in sources:
        with open_scene(source.image, bands=config.bands) as scene:
            bands = scene.bands
        first = first or bands
        if bands_differ(bands, first):
            raise BandMismatch(
                f"pairs of one dataset must have the same bands, stored alike\n  {sources[0].image}: {bands_words(first)}\n"
                f"  {source.image}: {bands_words(bands)}\nchoose common bands with data.bands, or convert the images"
            )
    assert first is not None
    return first
