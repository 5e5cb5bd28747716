"""What labelled images a folder holds, where each image as a whole has a class."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from terralean.data.config import SplitName
from terralean.data.deliveries import folders_in
from terralean.data.index import MASK_FOLDERS, RASTERS, SPLITS, group_of, index_splits, is_there, split_words
from terralean.data.scene_config import SceneDataConfig
from terralean.data.scene_picture import read_picture
from terralean.data.table import read_table
from terralean.data.words import counted, listed
from terralean.errors import ConfigError, DatasetError, LabelError, MissingFile, UnreadableScene
from terralean.spec import Bands, Classes

log = logging.getLogger(__name__)

LABEL_COLUMNS = ("label", "class", "cls")
LIST = re.compile(r"(train|valid|val|test)_labels(?:_(\w+))?\.txt")
IMAGES = "images"  # beside masks, of pixels with a class each
# What may lie beside images: where they are on the ground, statistics, overviews, words.
BESIDE = (".tfw", ".jgw", ".pgw", ".bpw", ".wld", ".prj", ".hdr", ".xml", ".ovr", ".txt", ".csv", ".json", ".md", ".db", ".ini")
IMAGES_LISTED = "all_img"  # where the images of list files lie, if not in a folder per class
FEWEST_CLASSES = 2
UNDERSTOOD = (
    "understood are: index.csv with the columns path,label (or class) and perhaps split,group; train_labels.txt and "
    "valid_labels.txt with lines of file, class and number, their images in all_img/ or a folder per class; a folder per class "
    "with images in it, perhaps within train/ val/ test/"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneImage:
    """An image and its class."""

    path: str
    label: int  # position in the classes
    split: SplitName | None = None  # where index, list or folder say it
    group: str | None = None  # what must stay on one side of a split


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneDataset:
    """Images with a class each that make one dataset."""

    root: str
    layout: str  # what was found, in words
    images: tuple[SceneImage, ...]
    classes: Classes
    bands: Bands  # of the first image; `check_images` looks at all


@dataclass(frozen=True, kw_only=True, slots=True)
class _Named:
    """An image whose class is a name still, and where that is said."""

    path: Path
    name: str
    said: str
    split: SplitName | None = None
    group: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """What a layout holds."""

    layout: str
    images: list[_Named]
    names: tuple[str, ...]  # of the classes, in order


def find_scenes(root: Path, config: SceneDataConfig, *, classes: Classes | None = None) -> SceneDataset:
    """The images of a folder and their classes. Raises DatasetError, saying what is there and what is understood.

    With `classes`, a trained model's, labels are found in these by name, and one that has no image is no mistake.
    """
    if not root.is_dir():
        raise MissingFile(f"{root} is no folder that is there; give the one that holds the labelled images")
    root = root.absolute()
    found = _found(root, config)
    fix = "take its images out" if classes is not None else "add it to data.classes, or take its images out"
    if classes is None:
        classes = _own_classes(root, found, config)
    images = _numbered(_grouped(found.images, config.group), classes, fix=fix)
    bands = _first_bands(images, config)
    log.info("%s: %s; %d images of %s, %d classes", root, found.layout, len(images), counted(len(bands), "band"), len(classes))
    return SceneDataset(root=str(root), layout=found.layout, images=images, classes=classes, bands=bands)


def is_scene_dataset(root: Path) -> bool:
    """Whether the folder looks like images with a class each, without opening an image."""
    return root.is_dir() and any(there(root) for there, _ in LAYOUTS)


def _found(root: Path, config: SceneDataConfig) -> _Found:
    for there, read in LAYOUTS:
        if there(root):
            found = read(root, config)
            break
    else:
        raise DatasetError(_not_understood(root))
    if config.lists is not None and read is not _from_lists:
        raise ConfigError(
            f"data.lists is {config.lists!r}, but {root} is read otherwise: {found.layout}; leave data.lists out, or put the "
            "list files there and take index.csv away"
        )
    if not found.images:
        raise DatasetError(f"{root}: {found.layout}, but no image in it; put one there")
    return found


def _not_understood(root: Path) -> str:
    stray = sorted(child.name for child in root.iterdir() if _called_image(child))
    if stray and any(_has_images(root / name) for name in folders_in(root)):
        return (
            f"{root} holds folders of images, and images beside them: {listed(stray)}; move each into the folder of its class, "
            "or take it away"
        )
    names = sorted(child.name + "/" * child.is_dir() for child in root.iterdir())
    return f"{root} is no dataset: it holds {listed(names) if names else 'nothing'}; {UNDERSTOOD}"


# index.csv


def _from_index(root: Path, config: SceneDataConfig) -> _Found:
    path = root / "index.csv"
    columns, rows = read_table(path)
    column = _label_column(path, columns, rows)
    gone = [f"row {i} {row['path']!r}" for i, row in enumerate(rows, 2) if not is_there(root, row["path"])]
    if gone:
        raise DatasetError(f"{path} names files that are not there: {listed(gone)}; paths are relative to {root}")
    bare = [f"row {i} {row['path']!r}" for i, row in enumerate(rows, 2) if not row[column]]
    if bare:
        raise LabelError(f"{path} has rows without a {column}: {listed(bare)}; label them or take them out")
    _check_once(path, [row["path"] for row in rows])
    splits = index_splits(path, [row.get("split") or "" for row in rows])
    images = [
        _Named(path=root / row["path"], name=row[column], said=f"{path}, row {i}", split=split, group=row.get("group") or None)
        for i, (row, split) in enumerate(zip(rows, splits, strict=True), 2)
    ]
    return _Found(
        layout=f"index.csv with {len(rows)} rows, {split_words(splits)}", images=images, names=_sorted({i.name for i in images})
    )


def _label_column(path: Path, columns: Sequence[str], rows: Sequence[dict[str, str]]) -> str:
    """The first of the columns that may hold a class and does in any row."""
    missing = [] if "path" in columns else ["path"]
    there = [name for name in LABEL_COLUMNS if name in columns]
    if missing or not there:
        missing += [] if there else ["label"]
        raise DatasetError(
            f"{path} has no column {' and no '.join(missing)}; it needs path,label (or class) and may have split,group"
        )
    return next((name for name in there if any(row[name] for row in rows)), there[0])


def _check_once(path: Path, names: Iterable[str]) -> None:
    twice = [name for name, count in Counter(map(os.path.normpath, names)).items() if count > 1]
    if twice:
        raise DatasetError(f"{path} has rows with the same image: {listed(twice)}; keep one row for each")


# list files


def _from_lists(root: Path, config: SceneDataConfig) -> _Found:
    """Of MillionAID, and of the sets that RSP fine-tunes on (Wang et al. 2022)."""
    chosen = _chosen_lists(root, config)
    # What the publishers call valid is what their scores are of: it tests, unless there is a list for that, too.
    tested = any(kind == "test" for kind, _ in chosen)
    images, numbers = [], []
    for kind, path in chosen:
        for image, number in _lines(root, path, SPLITS[kind] if tested or kind == "train" else "test"):
            images.append(image)
            numbers.append(number)
    names = _by_number(images, numbers)
    _check_listed(root, images)
    layout = f"list files {', '.join(path.name for _, path in chosen)}, {split_words(i.split for i in images)}"
    return _Found(layout=layout, images=images, names=names)


def _chosen_lists(root: Path, config: SceneDataConfig) -> list[tuple[str, Path]]:
    """Kind and path of the list files that are meant, training first."""
    lists = {(match[1], match[2]): path for path in sorted(root.iterdir()) if (match := LIST.fullmatch(path.name))}
    variants = sorted({variant or "" for kind, variant in lists if kind == "train"})
    if config.lists is not None and variants == [""]:
        raise ConfigError(f"data.lists is {config.lists!r}, but {root} holds the lists of one split only; leave data.lists out")
    wanted = config.lists if config.lists is not None else variants[0] if len(variants) == 1 or "" in variants else None
    if wanted is None or wanted not in variants:
        asked = "" if config.lists is None else f", but none for data.lists {config.lists!r}"
        first = next(variant for variant in variants if variant)
        raise DatasetError(
            f"{root} holds list files of {len(variants)} splits, {listed([repr(v) for v in variants])}{asked}; say which is "
            f"""meant, in quotes, since YAML reads 28_0 as 280: --set "data.lists='{first}'\""""
        )
    return [
        (kind, lists[kind, variant])
        for kind in ("train", "valid", "val", "test")
        for variant in (wanted or None,)
        if (kind, variant) in lists
    ]


def _lines(root: Path, path: Path, split: SplitName) -> Iterator[tuple[_Named, int]]:
    """The image of each line, and the number of its class."""
    for line, text in enumerate(_text(path).splitlines(), 1):
        if not (row := text.split()):
            continue
        if len(row) != 3 or not row[2].isdecimal():  # noqa: PLR2004 - file, class, number
            raise DatasetError(
                f"{path}, line {line}, is {text!r}; expected a file, the name of its class and the number of that, from 0"
            )
        file, name = row[:2]
        places = (root / IMAGES_LISTED / file, root / name / file, root / file)
        there = next((place for place in places if place.is_file()), places[0])
        yield _Named(path=there, name=name, said=f"{path}, line {line}", split=split), int(row[2])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is no text in UTF-8 ({error.reason}); save it as that") from error


def _by_number(images: Sequence[_Named], numbers: Sequence[int]) -> tuple[str, ...]:
    """Names of the classes in the order of their numbers. Raises LabelError where a class or a number is said twice."""
    number_of: dict[str, int] = {}
    name_of: dict[int, str] = {}
    for image, number in zip(images, numbers, strict=True):
        if number_of.setdefault(image.name, number) != number:
            was = f"{image.name} is {number_of[image.name]}"
        elif name_of.setdefault(number, image.name) != image.name:
            was = f"{number} is {name_of[number]}"
        else:
            continue
        raise LabelError(f"{image.said}, says that {image.name} is {number}, before {was}; a class has one number in all lists")
    return tuple(name_of[number] for number in sorted(name_of))


def _check_listed(root: Path, images: Sequence[_Named]) -> None:
    gone = [f"{image.path.name} ({image.said.rsplit('/', 1)[-1]})" for image in images if not image.path.is_file()]
    if gone:
        raise DatasetError(
            f"{root}: images are listed that are not there: {listed(gone)}; they are looked for in {IMAGES_LISTED}/, in the "
            "folder of their class and beside the lists"
        )
    twice = [path.name for path, count in Counter(image.path for image in images).items() if count > 1]
    if twice:
        raise DatasetError(f"{root}: images are listed more than once: {listed(twice)}; keep one line for each")


# folders


def _split_folders(root: Path, config: SceneDataConfig) -> _Found:
    names = [name for name in folders_in(root) if name.lower() in SPLITS]
    images = [image for name in names for image in _in_folders(root / name, SPLITS[name.lower()])]
    layout = f"folders {', '.join(names)} with a folder per class, {split_words(image.split for image in images)}"
    return _Found(layout=layout, images=images, names=_sorted({image.name for image in images}))


def _class_folders(root: Path, config: SceneDataConfig) -> _Found:
    if (names := folders_in(root)) in ([IMAGES, masks] for masks in MASK_FOLDERS):
        raise DatasetError(
            f"{root} holds {' and '.join(names)}, so that pixels have classes and not images: use a recipe of segmentation, "
            "lemevit_tiny_light for one; if these are two classes of images, call their folders otherwise"
        )
    images = _in_folders(root, None)
    return _Found(layout="a folder per class, no split given", images=images, names=_sorted({image.name for image in images}))


def _in_folders(root: Path, split: SplitName | None) -> list[_Named]:
    """The images of each folder. Raises DatasetError where one has none, or has some within a folder of its own."""
    images, others = [], Counter[str]()
    for name in folders_in(root):
        own = sorted(path for path in (root / name).iterdir() if _called_image(path))
        if not own:
            raise DatasetError(
                f"{root / name} {_instead(root / name)}; put images of class {name} there, or take the folder away"
            )
        if deeper := [inner for inner in folders_in(root / name) if _has_images(root / name / inner)]:
            raise DatasetError(
                f"{root / name} holds images, and more of them in {listed(deeper)}; images of a class lie in its folder "
                "itself: move them there, or take those folders away"
            )
        images += [_Named(path=path, name=name, said=str(path.parent), split=split) for path in own]
        others.update(_left_aside(root / name))
    if others:
        kinds = listed([f"{count} of {suffix}" for suffix, count in others.items()])
        log.warning("%s: files that are no images by their names are left aside: %s", root, kinds)
    return images


def _left_aside(folder: Path) -> Iterator[str]:
    """The suffix of each file that is not read as an image, nor known to go with one."""
    for path in folder.iterdir():
        suffix = path.suffix.lower()
        if path.is_file() and not path.name.startswith(".") and not _called_image(path) and suffix not in BESIDE:
            yield suffix or "no suffix"


def _instead(folder: Path) -> str:
    """What an empty class folder holds instead of images."""
    if inner := folders_in(folder):
        return f"has no image, but folders ({listed(inner)}), and images of a class lie in its folder itself"
    names = sorted(child.name for child in folder.iterdir())
    return f"has no image, but {listed(names)}" if names else "is empty"


def _has_classes(folder: Path) -> bool:
    """Whether there are folders in it, an image in one of them, and none beside them."""
    return any(_has_images(folder / name) for name in folders_in(folder)) and not _has_images(folder)


def _has_images(folder: Path) -> bool:
    return any(_called_image(path) for path in folder.iterdir())


def _called_image(path: Path) -> bool:
    """Whether it is an image by its name; a link that leads nowhere, too, so that it is not passed over."""
    return path.suffix.lower() in RASTERS and not path.name.startswith(".") and not path.is_dir()


def _has_lists(root: Path) -> bool:
    return any((match := LIST.fullmatch(path.name)) and match[1] == "train" for path in root.iterdir())


# The first that is there is taken, so an index always has the last word on what belongs to the dataset.
LAYOUTS: tuple[tuple[Callable[[Path], bool], Callable[[Path, SceneDataConfig], _Found]], ...] = (
    (lambda root: (root / "index.csv").is_file(), _from_index),
    (_has_lists, _from_lists),
    (lambda root: any(_has_classes(root / name) for name in folders_in(root) if name.lower() in SPLITS), _split_folders),
    (_has_classes, _class_folders),
)


# classes and groups


def _own_classes(root: Path, found: _Found, config: SceneDataConfig) -> Classes:
    """Those that the config names, else those that were found. Raises LabelError where the two differ."""
    names = config.classes or found.names
    if len(names) < FEWEST_CLASSES:
        raise DatasetError(
            f"{root}: {found.layout}, but one class only, {names[0]}; expected two or more, each in a folder (or with a label) "
            "of its own"
        )
    if empty := [name for name in names if name not in found.names]:
        raise LabelError(
            f"{root} has no image of {listed(empty)}, which data.classes names; it has {listed(found.names)}; give some, or "
            "take the name out"
        )
    return Classes.named(names)


def _numbered(images: Iterable[_Named], classes: Classes, *, fix: str) -> tuple[SceneImage, ...]:
    """Raises LabelError for a class that is not among them; `fix` mends it where no name is nearly the same."""
    number = {name: i for i, name in enumerate(classes.names)}
    out = []
    for image in images:
        if image.name not in number:
            near = get_close_matches(image.name, classes.names, n=1)
            mend = f"write it as {near[0]!r}" if near else fix
            raise LabelError(f"{image.said}: class {image.name!r} is none of {listed(classes.names)}; {mend}")
        out.append(SceneImage(path=str(image.path), label=number[image.name], split=image.split, group=image.group))
    return tuple(out)


def _grouped(images: Sequence[_Named], expression: str | None) -> Sequence[_Named]:
    if expression is None:
        return images
    return [replace(image, group=group_of(image.path.name, expression)) for image in images]


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    """By number where all are numbers."""
    found = sorted(names)
    return tuple(sorted(found, key=int) if all(name.isdecimal() for name in found) else found)


def _first_bands(images: Sequence[SceneImage], config: SceneDataConfig) -> Bands:
    """Of the first image that can be read; the broken ones before it are named when all are checked."""
    for image in images:
        try:
            return read_picture(image.path, config=config, keep_px=config.least_px).bands
        except (MissingFile, UnreadableScene) as error:
            broken = error
    raise broken
