"""Which datasets of oriented objects a folder may be, and what belongs to each image in them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from terralean.data.config import SplitName
from terralean.data.index import RASTERS, SPLITS, VECTORS, index_splits, is_there
from terralean.data.oriented.coco import PARTS, read_coco
from terralean.data.oriented.dota import read_labels
from terralean.data.oriented.record import Crossing, Labelled, Record, checked, class_names, to_record
from terralean.data.oriented.vector import read_vector
from terralean.data.oriented.xml import is_hrsc, read_hrsc, read_voc
from terralean.data.oriented.yolo import read_names, read_yolo
from terralean.data.table import read_table
from terralean.data.words import counted, listed
from terralean.errors import DatasetError, LabelError, MissingFile, UnreadableScene
from terralean.raster.grid import Grid
from terralean.raster.polygons import is_vector
from terralean.raster.scene import describe
from terralean.spec import Classes

UNDERSTOOD = (
    "understood are: index.csv with the columns path,label and perhaps split,group; DOTA's images/ and labelTxt/, perhaps in "
    "train/ val/ test/; a YOLO-OBB set (a YAML with names, images/ and labels/, or both in train/ valid/ test/); DIOR-R and "
    "other sets of XML files with robndbox; HRSC2016; a JSON file in COCO's form beside its images; scenes with labels.gpkg, "
    "labels.geojson or SCENE_labels.gpkg"
)
DOTA_LABELS = ("labelTxt", "labelTxt-v1.0", "labelTxt-v1.5", "labelTxt-v2.0", "annfiles")
VOC_LABELS = ("Annotations/Oriented Bounding Boxes", "Annotations")
XML_LABELS = (*VOC_LABELS, "FullDataSet/Annotations")
TEXTS = (".txt", ".xml")
VOC_IMAGES = ("JPEGImages-trainval", "JPEGImages-test", "JPEGImages", "images")
HRSC_IMAGES = ("AllImages", "JPEGImages")
NAMES_FILE = "classes.txt"
LISTS = ("ImageSets/Main", "ImageSets", "Main")


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectsConfig:
    """How labels of oriented objects are read."""

    classes: tuple[str, ...] | None = None  # names, in order; else those of the format or of classes.txt, else all, sorted
    labels: str | None = None  # the label folder or file, relative to the dataset, where it is not the usual one
    label_field: str | None = None  # attribute with the class, of polygons in a vector file
    crossing: Crossing = "order"  # a polygon that crosses itself has its corners put in order, or is refused
    hrsc_classes: Literal["ship", "id"] = "ship"  # HRSC2016: one class, or each Class_ID its own


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image and its objects."""

    record: Record
    grid: Grid
    facts: Mapping[str, str]  # what else its label file says
    split: SplitName | None = None  # where folder, list or index say it
    group: str | None = None  # what must stay on one side of a split


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Images with oriented objects that make one dataset."""

    root: str
    layout: str  # what was found, in words
    pictures: tuple[Picture, ...]
    classes: Classes


@dataclass(frozen=True, kw_only=True)
class _Found:
    """An image whose labels are known but not read."""

    image: Path
    read: Callable[[Grid], Labelled]
    split: SplitName | None = None
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """What a folder was taken for."""

    words: str
    found: list[_Found]
    names: tuple[str, ...] = ()  # of the classes, in order, where the format says them


def find_objects(root: str | Path, config: ObjectsConfig) -> Pictures:
    """The dataset in a folder: its images with all their objects. Raises DatasetError, saying what is there and understood.

    Labels are read and checked whole: LabelError names file, line, value and fix.
    """
    root = Path(root).absolute()
    if not root.is_dir():
        raise MissingFile(f"{root} is no folder; give the one that holds the images and labels")
    layout = _layout(root, config)
    if not layout.found:
        raise DatasetError(f"{root}: {layout.words}, but no image in it; put one there")
    read = [_read(one, config) for one in layout.found]
    names = config.classes or layout.names or _listed_names(root) or class_names(objects for _, objects in read)
    if not names:
        raise LabelError(f"{root}: no image has an object; give labels, or name the classes in data.classes")
    classes = Classes.named(names)
    pictures = [_picture(one, *some, classes) for one, some in zip(layout.found, read, strict=True)]
    return Pictures(root=str(root), layout=layout.words, pictures=tuple(pictures), classes=classes)


def _listed_names(root: Path) -> tuple[str, ...]:
    """The lines of classes.txt, where it is there."""
    path = root / NAMES_FILE
    lines = path.read_text(encoding="utf-8-sig").splitlines() if path.is_file() else []
    return tuple(line.strip() for line in lines if line.strip())


def _layout(root: Path, config: ObjectsConfig) -> _Layout:
    for reader in LAYOUTS:
        if (found := reader(root, config)) is not None:
            return found
    names = sorted(child.name + "/" * child.is_dir() for child in root.iterdir())
    raise DatasetError(f"{root} is no dataset of oriented objects: it holds {listed(names) or 'nothing'}; {UNDERSTOOD}")


def _read(found: _Found, config: ObjectsConfig) -> tuple[Grid, Labelled]:
    with describe(found.image, expected="an image") as scene:
        grid = scene.grid
        if scene.has_palette():
            raise UnreadableScene(
                f"{found.image} holds numbers of a palette's colours, which are no brightness; write the colours themselves: "
                "gdal_translate -expand rgb"
            )
    objects = found.read(grid)
    if objects.size is not None and objects.size != (grid.width, grid.height):
        raise LabelError(
            f"{objects.file} says that {found.image} has {objects.size[0]} x {objects.size[1]} px, it has {grid.width} x "
            f"{grid.height} px; give the image that was labelled, or correct the size in the file"
        )
    return grid, checked(objects, width=grid.width, height=grid.height, crossing=config.crossing)


def _picture(found: _Found, grid: Grid, objects: Labelled, classes: Classes) -> Picture:
    record = to_record(objects, image=str(found.image), classes=classes)
    return Picture(record=record, grid=grid, facts=objects.facts, split=found.split, group=found.group)


def is_of_objects(root: Path) -> bool:
    """Whether a folder's layout is of oriented objects for certain; polygons over scenes may be for a map as well."""
    if (root / "index.csv").is_file():
        columns, rows = read_table(root / "index.csv")
        return "label" in columns and any(Path(row["label"]).suffix.lower() in TEXTS for row in rows)
    labels = [folder / "labels" for folder in (root, *_split_folders(root))] if _yaml(root) else []
    return (
        any(map(_some_text, labels))
        or any(_some_xml(root / name) for name in XML_LABELS)
        or any(map(_has_lists, _json_files(root)))
    )


# index.csv


def _index(root: Path, config: ObjectsConfig) -> _Layout | None:
    path = root / "index.csv"
    if not path.is_file():
        return None
    columns, rows = read_table(path)
    if lacking := [name for name in ("path", "label") if name not in columns]:
        raise DatasetError(f"{path} has no column {' and no '.join(lacking)}; it needs path,label and may have split,group")
    gone = [
        f"row {i} {row[name]!r}" for i, row in enumerate(rows, 2) for name in ("path", "label") if not is_there(root, row[name])
    ]
    if gone:
        raise DatasetError(f"{path} names files that are not there: {listed(gone)}; paths are relative to {root}")
    if twice := [name for name, count in Counter(row["path"] for row in rows).items() if count > 1]:
        raise DatasetError(f"{path} has rows with the same image: {listed(twice)}; keep one row for each")
    splits = index_splits(path, [row.get("split") or "" for row in rows])
    found = [
        _Found(
            image=root / row["path"],
            read=_reader(root, root / row["path"], root / row["label"], config),
            split=split,
            group=row.get("group") or None,
        )
        for row, split in zip(rows, splits, strict=True)
    ]
    yaml = _yaml(root)
    names = read_names(yaml) if yaml else ()
    return _Layout(words=f"index.csv with {len(rows)} rows", found=found, names=names)


def _reader(root: Path, image: Path, label: Path, config: ObjectsConfig) -> Callable[[Grid], Labelled]:
    """How a label file is read, by its suffix; YOLO's text beside a YAML of names, else DOTA's."""
    suffix = label.suffix.lower()
    if is_vector(label):
        return lambda grid: read_vector(label, like=grid, image=str(image), field=config.label_field)
    if suffix == ".xml":
        return lambda _: read_hrsc(label, classes=config.hrsc_classes) if is_hrsc(label) else read_voc(label)
    if suffix == ".txt":
        if yaml := _yaml(root):
            names = read_names(yaml)
            return lambda grid: read_yolo(label, width=grid.width, height=grid.height, names=names)
        return lambda _: read_labels(label)
    raise LabelError(f"{label} is no label file of oriented objects; expected .txt, .xml, or a vector file (.gpkg, .geojson)")


# DOTA


def _dota(root: Path, config: ObjectsConfig) -> _Layout | None:
    """images/ and labelTxt/, here or in folders named after the splits."""
    folders = [root] if _dota_labels(root, config) else _split_folders(root)
    folders = [folder for folder in folders if (folder / "images").is_dir()]
    parts = [(folder, labels) for folder in folders if (labels := _dota_labels(folder, config))]
    if not parts:
        return None
    _check_labelled(folders, [labels for _, labels in parts])
    found = []
    for folder, labels in parts:
        split = SPLITS.get(folder.name.lower()) if folder != root else None
        found += [
            _Found(image=image, read=_reading(read_labels, label), split=split)
            for image, label in _pairs(folder / "images", labels, ".txt")
        ]
    names = ", ".join(sorted({labels.name for _, labels in parts}))
    return _Layout(words=f"DOTA's images/ and {names}/, {counted(len(found), 'image')}", found=found)


def _check_labelled(folders: list[Path], labels: list[Path]) -> None:
    """Raise DatasetError where one of these folders has no label folder; a test part need not have one."""
    labelled = {path.parent for path in labels}
    if lacking := [folder for folder in folders if folder not in labelled and SPLITS[folder.name.lower()] != "test"]:
        raise DatasetError(
            f"{lacking[0]} has images and no {labels[0].name}/, which {labels[0].parent.name}/ has; add the labels, or take "
            "the folder out"
        )


def _dota_labels(folder: Path, config: ObjectsConfig) -> Path | None:
    names = DOTA_LABELS if config.labels is None else (config.labels,)
    there = [folder / name for name in names if (folder / name).is_dir()]
    if len(there) > 1:
        raise DatasetError(
            f"{folder} has {listed([path.name for path in there])}; say which labels are meant: "
            f"--set data.labels={there[0].name}"
        )
    return there[0] if there else None


def _reading(read: Callable[[Path], Labelled], label: Path) -> Callable[[Grid], Labelled]:
    return lambda _: read(label)


def _pairs(images: Path, labels: Path, suffix: str) -> list[tuple[Path, Path]]:
    """Images and label files of one stem. Raises where one has no partner, or two images share a stem."""
    here = _by_stem(images)
    there = {path.stem: path for path in sorted(labels.iterdir()) if path.suffix.lower() == suffix}
    alone = [f"{here[stem].name} has no label" for stem in here.keys() - there.keys()]
    alone += [f"{there[stem].name} has no image" for stem in there.keys() - here.keys()]
    if alone:
        raise DatasetError(
            f"{images} and {labels} do not pair: {listed(sorted(alone))}; give each image a label file of its name, an empty "
            "one where it has no object, or take it out"
        )
    return [(here[stem], there[stem]) for stem in sorted(here)]


def _by_stem(folder: Path) -> dict[str, Path]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in RASTERS)
    if twice := [stem for stem, count in Counter(path.stem for path in paths).items() if count > 1]:
        raise DatasetError(f"{folder} has several images named {listed(twice)}; keep one of each name")
    return {path.stem: path for path in paths}


def _split_folders(root: Path) -> list[Path]:
    return sorted(child for child in root.iterdir() if child.is_dir() and child.name.lower() in SPLITS)


# YOLO


def _yaml(root: Path) -> Path | None:
    found = sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
    return found[0] if len(found) == 1 else None


def _some_text(folder: Path) -> bool:
    return next(folder.rglob("*.txt"), None) is not None


def _yolo(root: Path, config: ObjectsConfig) -> _Layout | None:
    """The YAML says the names, folders the splits."""
    yaml = _yaml(root)
    parts = [] if yaml is None else _yolo_parts(root)
    if yaml is None or not parts:
        return None
    names, found = read_names(yaml), []
    for folder, labels, split in parts:
        images = _by_stem(folder)
        if alone := sorted(path.name for path in labels.glob("*.txt") if path.stem not in images and path.name != NAMES_FILE):
            raise DatasetError(f"{labels} has {listed(alone)} without an image in {folder}; add it, or take the label out")
        found += [
            _Found(image=image, read=_yolo_reading(labels / f"{stem}.txt", names), split=split)
            for stem, image in images.items()
        ]
    return _Layout(words=f"YOLO-OBB with {yaml.name}, {counted(len(found), 'image')}", found=found, names=names)


def _yolo_parts(root: Path) -> list[tuple[Path, Path, SplitName | None]]:
    """Images, labels and split of each part: images/train and labels/train as Ultralytics has them, train/images and
    train/labels as Roboflow writes them, or one images/ and labels/.
    """
    images, labels = root / "images", root / "labels"
    if images.is_dir() and labels.is_dir():
        inner = _split_folders(images)
        return [(one, labels / one.name, SPLITS[one.name.lower()]) for one in inner] or [(images, labels, None)]
    folders = [folder for folder in _split_folders(root) if (folder / "images").is_dir()]
    labelled = [folder for folder in folders if (folder / "labels").is_dir()]
    if labelled:
        _check_labelled(folders, [folder / "labels" for folder in labelled])
    return [(one / "images", one / "labels", SPLITS[one.name.lower()]) for one in labelled]


def _yolo_reading(label: Path, names: tuple[str, ...]) -> Callable[[Grid], Labelled]:
    return lambda grid: read_yolo(label, width=grid.width, height=grid.height, names=names)


# XML


def _hrsc(root: Path, config: ObjectsConfig) -> _Layout | None:
    folder = next((root / name for name in ("FullDataSet", ".") if (root / name / "Annotations").is_dir()), None)
    if folder is None or not any("<HRSC_Image" in _head(path) for path in _some_xml(folder / "Annotations")):
        return None
    images = next((folder / name for name in HRSC_IMAGES if (folder / name).is_dir()), None)
    if images is None:
        raise DatasetError(f"{folder} has labels of HRSC2016 and no images; expected {' or '.join(HRSC_IMAGES)}")
    read = lambda path: read_hrsc(path, classes=config.hrsc_classes)  # noqa: E731 - one setting bound
    found = _listed_xml([images], folder / "Annotations", _lists(root) or _lists(folder), read)
    return _Layout(words=f"HRSC2016, {counted(len(found), 'image')}", found=found)


def _voc(root: Path, config: ObjectsConfig) -> _Layout | None:
    names = VOC_LABELS if config.labels is None else (config.labels,)
    labels = next((root / name for name in names if _some_xml(root / name)), None)
    images = [root / name for name in VOC_IMAGES if (root / name).is_dir()]
    if labels is None or not images:
        return None
    found = _listed_xml(images, labels, _lists(root), read_voc)
    return _Layout(words=f"XML files with robndbox in {labels.relative_to(root)}/, {counted(len(found), 'image')}", found=found)


def _listed_xml(
    folders: list[Path], labels: Path, splits: dict[str, SplitName], read: Callable[[Path], Labelled]
) -> list[_Found]:
    """Images that have an XML file; those in no list have no split, unless no list is there, when none has."""
    parts = [_by_stem(folder) for folder in folders]
    if twice := [stem for stem, count in Counter(stem for part in parts for stem in part).items() if count > 1]:
        raise DatasetError(f"{labels.parent}: images named {listed(twice)} are in several folders; keep one of each name")
    images = {stem: path for part in parts for stem, path in part.items()}
    there = {path.stem: path for path in sorted(labels.glob("*.xml"))}
    if lacking := sorted(splits.keys() - (images.keys() & there.keys())):
        raise DatasetError(f"{labels.parent}: the lists of splits name {listed(lacking)}, without image or label; add them")
    alone = [f"{images[stem].name} has no label" for stem in images.keys() - there.keys()]
    alone += [f"{there[stem].name} has no image" for stem in there.keys() - images.keys()]
    if alone:
        raise DatasetError(
            f"images and {labels} do not pair: {listed(sorted(alone))}; add what is missing, or take the other out"
        )
    stems = sorted(splits) if splits else sorted(images)
    return [_Found(image=images[stem], read=_reading(read, there[stem]), split=splits.get(stem)) for stem in stems]


def _lists(root: Path) -> dict[str, SplitName]:
    """The split of each image, from lists train.txt, val.txt and test.txt."""
    folder = next((root / name for name in LISTS if list((root / name).glob("*.txt"))), None)
    if folder is None:
        return {}
    splits: dict[str, SplitName] = {}
    lists = {path: SPLITS[path.stem.lower()] for path in sorted(folder.glob("*.txt")) if path.stem.lower() in SPLITS}
    if not {"train", "validation"} & {*lists.values()}:  # else it repeats them
        lists |= {path: "train" for path in folder.glob("trainval.txt")}
    for path, split in lists.items():
        for stem in path.read_text(encoding="utf-8-sig").split():
            if splits.setdefault(stem, split) != split:
                raise DatasetError(f"{path}: {stem} is in the {splits[stem]} split too; keep it in one list")
    return splits


def _some_xml(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.xml"))[:1] if folder.is_dir() else []


def _head(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(500)


# COCO


def _coco(root: Path, config: ObjectsConfig) -> _Layout | None:
    files = [root / config.labels] if config.labels else _json_files(root)
    files = [path for path in files if path.suffix.lower() == ".json" and path.is_file() and _has_lists(path) is not False]
    if not files:
        return None
    sets = [read_coco(path) for path in files]
    found = [one for path, content in zip(files, sets, strict=True) for one in _of_coco(root, path, content.images)]
    if twice := [name for name, count in Counter(str(one.image) for one in found).items() if count > 1]:
        raise DatasetError(f"{root}: {listed(twice)} is in several of {listed([path.name for path in files])}; keep it in one")
    names = tuple(dict.fromkeys(name for content in sets for name in content.names))
    words = f"COCO's {listed([path.name for path in files])}, {counted(len(found), 'image')}"
    return _Layout(words=words, found=found, names=names)


def _json_files(root: Path) -> list[Path]:
    return sorted([*root.glob("*.json"), *root.glob("annotations/*.json")])


def _has_lists(path: Path) -> bool | None:
    """Whether a file has COCO's lists, which a GeoJSON has not; None where it breaks off, which reading it tells of."""
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError:
        return None
    return isinstance(document, dict) and all(part in document for part in PARTS)


def _of_coco(root: Path, path: Path, images: Mapping[str, Labelled]) -> Iterator[_Found]:
    words = re.findall("[a-z]+", path.stem.lower())  # instances_train2017
    split = next((split for name, split in SPLITS.items() if name in words), None)
    for name, objects in images.items():
        places = [
            folder / name for folder in (root, root / "images", path.parent, root / path.stem, root / "images" / path.stem)
        ]
        image = next((place for place in places if place.is_file()), None)
        if image is None:
            raise DatasetError(f"{path} names the image {name}, which is not in {root} or {root / 'images'}; put it there")
        yield _Found(image=image, read=_given(objects), split=split)


def _given(objects: Labelled) -> Callable[[Grid], Labelled]:
    return lambda _: objects


# Scenes with vector files


def _scenes(root: Path, config: ObjectsConfig) -> _Layout | None:
    labels = [path for path in sorted(root.iterdir()) if path.suffix.lower() in VECTORS]
    if config.labels is not None:
        labels = [root / config.labels]
        if not labels[0].is_file():
            raise MissingFile(f"{labels[0]} is not there, which data.labels names; check the path")
    scenes = [path for path in sorted(root.iterdir()) if path.suffix.lower() in RASTERS]
    if not labels or not scenes:
        return None
    own = {scene: [label for label in labels if label.stem == f"{scene.stem}_labels"] for scene in scenes}
    if all(len(found) == 1 for found in own.values()):
        pairs = [(scene, found[0]) for scene, found in own.items()]
    elif len(labels) == 1 and not any(own.values()):
        pairs = [(scene, labels[0]) for scene in scenes]
    else:
        raise DatasetError(
            f"{root} holds {counted(len(scenes), 'scene')} and {listed([path.name for path in labels])}; name the labels of "
            "X.tif X_labels.gpkg, one for each, or give one file for all"
        )
    found = [_Found(image=scene, read=_vector_reading(label, scene, config.label_field)) for scene, label in pairs]
    return _Layout(
        words=f"{counted(len(scenes), 'scene')} with polygons of {listed(sorted({label.name for _, label in pairs}))}",
        found=found,
    )


def _vector_reading(label: Path, scene: Path, field: str | None) -> Callable[[Grid], Labelled]:
    return lambda grid: read_vector(label, like=grid, image=str(scene), field=field)


# The first that is there is taken, so an index always has the last word.
LAYOUTS: tuple[Callable[[Path, ObjectsConfig], _Layout | None], ...] = (
    _index,
    _dota,
    _yolo,
    _hrsc,
    _voc,
    _coco,
    _scenes,
)
