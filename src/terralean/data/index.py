"""What images and labels a folder holds."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, get_args

from terralean.data.config import DataConfig, SplitName
from terralean.data.deliveries import (
    IMAGES_DELIVERED,
    LABELS_DELIVERED,
    LOVEDA_IMAGES,
    LOVEDA_MASKS,
    check_band_order,
    folders_in,
    is_delivery,
    loveda_parts,
    pairing_name,
)
from terralean.data.legend import Legend, known_legend, read_legend
from terralean.data.table import read_table
from terralean.data.words import counted, listed
from terralean.errors import BandMismatch, DatasetError, MissingFile
from terralean.raster.coding import Coding
from terralean.raster.scene import open_scene
from terralean.raster.source import named_part
from terralean.spec import Bands, Classes

log = logging.getLogger(__name__)

RASTERS = (".tif", ".tiff", ".vrt", ".jp2", ".img", ".jpg", ".jpeg", ".png", ".bmp", ".dat")
VECTORS = (".gpkg", ".geojson", ".json", ".shp", ".fgb")
MASK_FOLDERS = ("masks", "labels")
SPLITS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
UNDERSTOOD = (
    "understood are: index.csv with the columns path,label and perhaps split,group; images/ and masks/ (or labels/) with "
    "files of the same name, perhaps in train/ val/ test/; mmseg's img_dir/ and ann_dir/; the folders in which ISPRS Potsdam, "
    "LoveDA and Five-Billion-Pixels are delivered; any two folders named by data.images and data.labels; one scene with "
    "labels.gpkg, labels.tif or SCENE_labels.*; or a scene file with data.labels=FILE"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """An image and its labels, by path."""

    image: str
    label: str
    split: SplitName | None = None  # where index or folder say it
    group: str | None = None  # what must stay on one side of a split


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """Images and labels that make one dataset."""

    root: str
    layout: str  # what was found, in words
    sources: tuple[Source, ...]
    classes: Classes
    coding: Coding  # how the label files write them
    bands: Bands


def find(root: Path, config: DataConfig, *, legend: Legend | None = None) -> Dataset:
    """The dataset in a folder (or of one scene file). Raises DatasetError, saying what is there and what is understood.

    With a `legend`, a trained model's, classes and how labels write them are taken from it and not from the settings.
    """
    if not (root.exists() or _is_file(root)):
        raise MissingFile(f"{root} is not there; give the folder that holds the images and labels")
    root = root.absolute()
    layout, sources = _sources(root, config)
    if not sources:
        raise DatasetError(f"{root}: {layout}, but no image in it; put one there")
    sources = [_grouped(source, config.group) for source in sources]
    folder = root if root.is_dir() else root.parent
    bands = _common_bands(sources, config)
    labels = sorted({source.label for source in sources})
    legend = read_legend(folder, labels, config) if legend is None else known_legend(legend, labels, config)
    names = ", ".join(legend.classes.names)
    log.info("%s: %s; %d images of %d bands, classes %s", root, layout, len(sources), len(bands), names)
    return Dataset(
        root=str(folder),
        layout=layout,
        sources=tuple(sources),
        classes=legend.classes,
        coding=legend.coding,
        bands=bands,
    )


def is_dataset(root: Path) -> bool:
    """Whether the folder looks like a dataset, without opening a file."""
    return root.is_dir() and any(there(root) for there, _ in LAYOUTS)


def _sources(root: Path, config: DataConfig) -> tuple[str, list[Source]]:
    if _is_file(root):
        return _one_scene(root, root.parent, config)
    if config.images is not None or (config.labels is not None and (root / config.labels).is_dir()):
        return _named_folders(root, config)
    for there, read in LAYOUTS:
        if there(root):
            return read(root, config)
    names = sorted(child.name + "/" * child.is_dir() for child in root.iterdir())
    raise DatasetError(f"{root} is no dataset: it holds {listed(names) if names else 'nothing'}; {UNDERSTOOD}")


# index.csv


def _from_index(root: Path, config: DataConfig) -> tuple[str, list[Source]]:
    path = root / "index.csv"
    columns, rows = read_table(path)
    missing = [name for name in ("path", "label") if name not in columns]
    if missing:
        raise DatasetError(f"{path} has no column {' and no '.join(missing)}; it needs path,label and may have split,group")
    gone = [
        f"row {i} {row[name]!r}" for i, row in enumerate(rows, 2) for name in ("path", "label") if not is_there(root, row[name])
    ]
    if gone:
        raise DatasetError(f"{path} names files that are not there: {listed(gone)}; paths are relative to {root}")
    twice = [name for name, count in Counter(row["path"] for row in rows).items() if count > 1]
    if twice:
        raise DatasetError(f"{path} has rows with the same image: {listed(twice)}; keep one row for each")
    splits = index_splits(path, [row.get("split") or "" for row in rows])
    sources = [
        Source(image=str(root / row["path"]), label=str(root / row["label"]), split=split, group=row.get("group") or None)
        for row, split in zip(rows, splits, strict=True)
    ]
    return f"index.csv with {len(rows)} rows, {split_words(source.split for source in sources)}", sources


def is_there(root: Path, name: str | None) -> bool:
    """Whether a row of an index names a file."""
    return bool(name) and _is_file(root / cast("str", name))


def index_splits(path: Path, names: Sequence[str]) -> list[SplitName | None]:
    """The splits that the rows of an index name, all of them or none. Raises DatasetError naming the rows that do not."""
    if not any(names):
        return [None] * len(names)
    unknown = [f"row {i} {name!r}" for i, name in enumerate(names, 2) if name.lower() not in SPLITS]
    if unknown:
        raise DatasetError(f"{path} has splits other than train, val (or validation) and test: {listed(unknown)}")
    return [SPLITS[name.lower()] for name in names]


# folders


def _images_and_masks(root: Path, config: DataConfig) -> tuple[str, list[Source]]:
    masks = _mask_folder(root)
    return _two_folders(root / "images", masks, f"images/ and {masks.name}/", group=config.group)


def _mmseg(root: Path, config: DataConfig) -> tuple[str, list[Source]]:
    return _two_folders(root / "img_dir", root / "ann_dir", "mmseg's img_dir/ and ann_dir/", group=config.group)


def _named_folders(root: Path, config: DataConfig) -> tuple[str, list[Source]]:
    images = _folder(root, config.images, setting="data.images", usual=IMAGES_DELIVERED)
    labels = _folder(root, config.labels, setting="data.labels", usual=LABELS_DELIVERED)
    check_band_order(images, config.bands)
    return _two_folders(images, labels, f"{images.name}/ and {labels.name}/", group=config.group)


def _folder(root: Path, name: str | None, *, setting: str, usual: re.Pattern[str]) -> Path:
    """The folder that the setting names, else the only one that is called as publishers do."""
    if name is not None:
        if not (root / name).is_dir():
            raise MissingFile(
                f"{root} has no folder {name}, which {setting} names; it has {listed(folders_in(root)) or 'none'}"
            )
        return root / name
    found = [folder for folder in folders_in(root) if usual.fullmatch(folder)]
    if len(found) != 1:
        there = found or folders_in(root)
        raise DatasetError(
            f"{root} holds {listed(there) or 'no folder'}: say which is meant, --set {setting}={(there or ['FOLDER'])[0]}"
        )
    return root / found[0]


def _loveda(root: Path, config: DataConfig) -> tuple[str, list[Source]]:
    parts = [part for part in loveda_parts(root) if part.parent.name.lower() in SPLITS]
    sources, unlabelled = [], 0
    for part in parts:
        images, masks, split = part / LOVEDA_IMAGES, part / LOVEDA_MASKS, SPLITS[part.parent.name.lower()]
        if _keeps_labels_back(masks, split):
            unlabelled += len(_by_stem(images))
        else:
            sources += _pairs(images, masks, split)
    how = split_words(source.split for source in sources)
    return f"LoveDA's folders paired by file name, {len(sources)} pairs, {how}{_left_out(unlabelled)}", sources


def _keeps_labels_back(masks: Path, split: SplitName) -> bool:
    """Whether a test split has no folder of labels at all: who publishes a benchmark may keep them."""
    return split == "test" and not masks.is_dir()


def _left_out(unlabelled: int) -> str:
    return f"; {counted(unlabelled, 'test image')} without labels left out" if unlabelled else ""


def _two_folders(images: Path, masks: Path, name: str, *, group: str | None) -> tuple[str, list[Source]]:
    splits = [child.name for child in sorted(images.iterdir()) if child.is_dir() and child.name.lower() in SPLITS]
    if splits:
        kept = [split for split in splits if not _keeps_labels_back(masks / split, SPLITS[split.lower()])]
        sources = [s for split in kept for s in _pairs(images / split, masks / split, SPLITS[split.lower()])]
        left = _left_out(sum(len(_by_stem(images / split)) for split in splits if split not in kept))
        how = split_words(source.split for source in sources)
        return f"{name} paired by file name, {len(sources)} pairs, {how}{left}", sources
    sources, how = _pairs_of_any_name(images, masks, group)
    return f"{name} paired by {how}, {len(sources)} pairs, {split_words(source.split for source in sources)}", sources


def _pairs_of_any_name(images: Path, masks: Path, group: str | None) -> tuple[list[Source], str]:
    """By equal names; where those differ by what data.group captures, if it is another in each file of a folder."""
    here, there = _by_stem(images), _by_stem(masks)
    if group is None or here.keys() == there.keys():
        return _pairs(images, masks, None), "file name"
    mine, theirs = ({group_of(path.name, group): path for path in found.values()} for found in (here, there))
    if len(mine) < len(here) or len(theirs) < len(there):
        raise DatasetError(
            f"{images} and {masks} do not pair: their files have other names, and data.group {group!r} captures the same in "
            "several of one folder; give each image a mask with its name, or capture what tells them apart"
        )
    alone = [f"{mine[key].name} has no label" for key in mine.keys() - theirs.keys()]
    alone += [f"{theirs[key].name} has no image" for key in theirs.keys() - mine.keys()]
    if alone:
        raise DatasetError(
            f"{images} and {masks} do not pair by data.group {group!r}: {listed(sorted(alone))}; add what is missing, or take "
            "the other out"
        )
    return [Source(image=str(mine[key]), label=str(theirs[key])) for key in sorted(mine)], "data.group"


def _split_folders(root: Path, config: DataConfig) -> tuple[str, list[Source]]:
    sources, names = [], [child.name for child in sorted(root.iterdir()) if child.name.lower() in SPLITS]
    for name in names:
        folder = root / name
        if not ((folder / "images").is_dir() and _has_masks(folder)):
            raise DatasetError(f"{folder} lacks images/ or masks/ (or labels/), which the other splits have; add them")
        sources += _pairs(folder / "images", _mask_folder(folder), SPLITS[name.lower()])
    how = split_words(source.split for source in sources)
    return f"folders {', '.join(names)} with images and masks, {len(sources)} pairs, {how}", sources


def _pairs(images: Path, masks: Path, split: SplitName | None) -> list[Source]:
    """Images and masks of the same stem. Raises where one has no partner, or two share a stem."""
    here, there = _by_stem(images), _by_stem(masks) if masks.is_dir() else {}
    alone = [str(here[stem].relative_to(images.parent)) + " has no mask" for stem in here.keys() - there.keys()]
    alone += [str(there[stem].relative_to(masks.parent)) + " has no image" for stem in there.keys() - here.keys()]
    if alone:
        raise DatasetError(
            f"{images} and {masks} do not pair: {listed(sorted(alone))}; give each image a mask with its name, or take it out; "
            "what else their names share can be captured by data.group"
        )
    return [Source(image=str(here[stem]), label=str(there[stem]), split=split) for stem in sorted(here)]


def _by_stem(folder: Path) -> dict[str, Path]:
    paths = sorted(path for path in folder.iterdir() if is_raster(path))
    twice = [stem for stem, count in Counter(map(pairing_name, paths)).items() if count > 1]
    if twice:
        raise DatasetError(f"{folder} has several files named {listed(twice)}; keep one of each name")
    return {pairing_name(path): path for path in paths}


# one scene, or some, with labels beside


def _scenes_with_labels(root: Path, config: DataConfig) -> tuple[str, list[Source]]:
    rasters, labels = _scenes_in(root), _labels_in(root)
    if config.labels is not None:
        if len(rasters) != 1:
            raise DatasetError(
                f"{root} holds {len(rasters)} scenes: {listed([p.name for p in rasters])}; data.labels needs one"
            )
        return _one_scene(rasters[0], root, config)
    own = {scene: [label for label in labels if label.stem == f"{scene.stem}_labels"] for scene in rasters}
    if all(len(found) == 1 for found in own.values()):
        sources = [Source(image=str(scene), label=str(found[0])) for scene, found in own.items()]
        return f"{counted(len(rasters), 'scene')} with labels of the same name", sources
    if len(labels) == 1 and (len(rasters) == 1 or labels[0].suffix.lower() in VECTORS):
        sources = [Source(image=str(scene), label=str(labels[0])) for scene in rasters]
        return f"{counted(len(rasters), 'scene')} and {labels[0].name}", sources
    raise DatasetError(
        f"{root} holds {counted(len(rasters), 'scene')} ({listed([p.name for p in rasters])}) and "
        f"{counted(len(labels), 'label file')} ({listed([p.name for p in labels])}); name the labels of X.tif X_labels.tif or "
        "X_labels.gpkg, one for each"
    )


def _one_scene(scene: Path, folder: Path, config: DataConfig) -> tuple[str, list[Source]]:
    if config.labels is None:
        beside = [label for label in _labels_in(folder) if label.stem in (f"{scene.stem}_labels", "labels")]
        if len(beside) != 1:
            raise DatasetError(f"{scene} is one scene and its labels are not named; say where they are: data.labels=FILE")
        return f"one scene, {scene.name}, and {beside[0].name}", [Source(image=str(scene), label=str(beside[0]))]
    label = folder / config.labels
    if not _is_file(label):
        raise MissingFile(f"{label} is not there; data.labels is a file, relative to {folder}")
    return f"one scene, {scene.name}, and {label.name}", [Source(image=str(scene), label=str(label))]


def _is_file(path: Path) -> bool:
    """Whether a file is there; a variable of it may be named behind (`scene.mat#key=X`)."""
    return Path(named_part(str(path))[0]).is_file()


def _scenes_in(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if is_raster(path) and not _names_labels(path))


def _labels_in(root: Path) -> list[Path]:
    return sorted(
        path for path in root.iterdir() if (is_raster(path) or path.suffix.lower() in VECTORS) and _names_labels(path)
    )


def _names_labels(path: Path) -> bool:
    return path.stem == "labels" or path.stem.endswith("_labels")


def is_raster(path: Path) -> bool:
    """Whether a file is an image, by its name."""
    return path.is_file() and path.suffix.lower() in RASTERS and not path.name.startswith(".")


def _mask_folder(root: Path) -> Path:
    return next(root / name for name in MASK_FOLDERS if (root / name).is_dir())


def _has_masks(root: Path) -> bool:
    return any((root / name).is_dir() for name in MASK_FOLDERS)


# The first that is there is taken, so an index always has the last word on what belongs to the dataset.
LAYOUTS: tuple[tuple[Callable[[Path], bool], Callable[[Path, DataConfig], tuple[str, list[Source]]]], ...] = (
    (lambda root: (root / "index.csv").is_file(), _from_index),
    (lambda root: (root / "img_dir").is_dir() and (root / "ann_dir").is_dir(), _mmseg),
    (is_delivery, _named_folders),
    (lambda root: bool(loveda_parts(root)), _loveda),
    (lambda root: (root / "images").is_dir() and _has_masks(root), _images_and_masks),
    (lambda root: any((root / name / "images").is_dir() for name in SPLITS), _split_folders),
    (lambda root: bool(_scenes_in(root) and _labels_in(root)), _scenes_with_labels),
)


# groups and bands


def _grouped(source: Source, expression: str | None) -> Source:
    if expression is None:
        return source
    return replace(source, group=group_of(Path(source.image).name, expression))


def group_of(name: str, expression: str) -> str:
    """What data.group captures in a file name."""
    if (match := re.search(expression, name)) is None:
        raise DatasetError(f"data.group {expression!r} is not found in the file name {name}; it must fit every image")
    return "/".join(match.groups(default="")) or match.group()


def _common_bands(sources: Sequence[Source], config: DataConfig) -> Bands:
    """The bands of all images. Raises BandMismatch naming the two that differ."""
    first: Bands | None = None
    for source in sources:
        with open_scene(source.image, bands=config.bands) as scene:
            bands = scene.bands
        first = first or bands
        if bands_differ(bands, first):
            raise BandMismatch(
                f"images of one dataset must have the same bands, stored alike\n  {sources[0].image}: {bands_words(first)}\n"
                f"  {source.image}: {bands_words(bands)}\nchoose common bands with data.bands, or convert the images"
            )
    return cast("Bands", first)


def bands_differ(one: Bands, other: Bands) -> bool:
    """Names count only where both have some, as in `spec.check_bands`."""
    names = one.named and other.named and one.names != other.names
    stored = [(len(bands), bands.dtype, bands.units, bands.scale) for bands in (one, other)]
    return names or stored[0] != stored[1]


def bands_words(bands: Bands) -> str:
    """Bands as errors tell them."""
    return f"{len(bands)} x {bands.dtype} ({', '.join(bands.names)}), {bands.units} in steps of {bands.scale:g}"


# words


def split_words(splits: Iterable[SplitName | None]) -> str:
    """How many images each split is given, as a layout tells it."""
    counts = Counter(splits)
    if None in counts or not counts:
        return "no split given"
    return "split given: " + ", ".join(f"{counts[name]} {name}" for name in get_args(SplitName) if counts[name])
