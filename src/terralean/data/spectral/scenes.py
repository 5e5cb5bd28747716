"""Cubes and their labels in a folder: which files are meant, what their classes are, and that they fit together."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terralean.data.index import is_dataset
from terralean.data.spectral.config import SpectralDataConfig
from terralean.data.words import listed
from terralean.errors import BandMismatch, DatasetError, LabelError, MissingFile, TerraleanError
from terralean.raster.coding import Coding
from terralean.raster.cube_source import CubeSource, is_cube
from terralean.raster.envi import header_of
from terralean.raster.grid import Grid
from terralean.raster.known_scenes import coloured
from terralean.raster.label_map import ALL_NUMBERS, LabelledFile, Unlabelled, find_labels
from terralean.raster.label_points import SUFFIXES as TABLES
from terralean.raster.label_points import is_points
from terralean.raster.labels import count_stored, read_labels
from terralean.raster.polygons import is_vector
from terralean.raster.scene import describe, open_scene
from terralean.raster.source import check_there, named_part
from terralean.spec import SPECTRAL, Bands, Classes, check_bands

log = logging.getLogger(__name__)

CUBES = (".mat", ".npy", ".h5", ".hdf5", ".hdr", ".tif", ".tiff", ".vrt")
FOR_CUBES = (".mat", ".npy", ".h5", ".hdf5", ".hdr")  # suffixes that pictures do not have
VECTORS = (".gpkg", ".geojson", ".shp", ".fgb")
FEWEST_BANDS = 4  # of a cube that nobody names: below that it is a photograph
LABELS_NAMED = re.compile(r"[_-]?(gt|labels?|masks?|groundtruth|ground_truth)$", re.IGNORECASE)
CUBE_NAMED = re.compile(r"[_-]?(corrected|mosaic|cube|image)$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class LabelledCube:
    """A cube, and what is known of its pixels."""

    image: str  # path, perhaps with a variable behind #
    labels: str | None  # None: a cube of which nothing is known here
    grid: Grid

    @property
    def name(self) -> str:
        """Of the file, without suffix."""
        return Path(named_part(self.image)[0]).stem


@dataclass(frozen=True, kw_only=True)
class SpectralDataset:
    """Cubes of the same bands with labels of the same classes."""

    root: str
    scenes: tuple[LabelledCube, ...]
    bands: Bands
    classes: Classes
    coding: Coding
    notes: tuple[str, ...]  # what was assumed
    label_field: str | None = None  # attribute or column with the class

    def map_of(self, labels: str, *, scene: int) -> NDArray[np.uint8]:
        """Class of each pixel of a scene (H, W) by a file of labels, 255 where it says nothing."""
        grid, image = self.scenes[scene].grid, self.scenes[scene].image
        return read_labels(
            labels,
            like=grid,
            window=grid.window,
            classes=self.classes,
            coding=self.coding,
            field=self.label_field,
            name=image,
        )


def find_cubes(root: Path, config: SpectralDataConfig) -> SpectralDataset:
    """The cubes of a folder, or the one cube that is named, with their labels.

    Raises DatasetError where it cannot be told which files are meant, BandMismatch where cubes differ in bands, GridMismatch
    where cube and labels differ in size, LabelError for labels that do not go together.
    """
    pairs, notes = _pairs(root, config)
    scenes, bands = _open(pairs, config)
    known = _known_labels(pairs, config, folder=folder_of(root))
    classes, coding = _classes(known, config)
    return SpectralDataset(
        root=str(root),
        scenes=scenes,
        bands=bands,
        classes=classes,
        coding=coding,
        notes=(*notes, *dict.fromkeys(f"{Path(one.path).name}: {one.note}" for one in known)),
        label_field=config.label_field,
    )


def holds_cubes(root: Path) -> bool:
    """Whether a folder is laid out as cubes with labels, and not as pictures with a class for each pixel.

    It holds arrays or ENVI files, or rasters of many bands beside labels. Where it could be a dataset of pictures as well, its
    first array or ENVI file must have a spectrum.
    """
    if not root.is_dir():
        return False
    folder = root / "images" if (root / "images").is_dir() else root
    arrays = [str(path) for path in sorted(folder.iterdir()) if path.suffix.lower() in FOR_CUBES and is_cube(str(path))]
    if is_dataset(root):
        return bool(arrays) and _bands_of(arrays[0]) >= SPECTRAL
    if arrays or folder != root:
        return any(_bands_of(path) >= FEWEST_BANDS for path in arrays)
    cubes, labels, _ = _cubes(root)
    return bool(cubes) and bool(labels or _tables(root))


def _bands_of(path: str) -> int:
    """0 of what cannot be read."""
    try:
        with describe(path, expected="a cube") as scene:
            return len(scene.bands)
    except TerraleanError:
        return 0


Pair = tuple[str, str | None]  # a cube and its labels


def folder_of(root: str | Path) -> Path:
    """The folder that paths of a config are seen from: the data folder, or that of the cube that was named."""
    file = Path(named_part(str(root))[0])
    return file.parent if file.is_file() else Path(root)


def _pairs(root: Path, config: SpectralDataConfig) -> tuple[list[Pair], list[str]]:
    """Cubes with their labels, and what was left out."""
    file = Path(named_part(str(root))[0])
    if not file.exists():
        raise MissingFile(f"{root} is not there; name a folder with a cube and its labels, or the cube itself")
    folder = folder_of(root)
    needs = config.split.method != "maps" or config.labels is not None
    if file.is_file() or config.cube is not None:
        image = str(root) if config.cube is None else str(folder / config.cube)
        check_there(image, expected="a cube")
        if config.labels is not None:
            return [(image, str(folder / config.labels))], []
        return ([_beside(image, folder)] if needs else [(image, None)]), []
    if (root / "images").is_dir() and (root / "labels").is_dir() and config.labels is None:
        return _by_name(_cubes(root / "images")[0], _label_files(root / "labels"), root=root), []
    return _in_folder(root, config, needs=needs)


def _in_folder(root: Path, config: SpectralDataConfig, *, needs: bool) -> tuple[list[Pair], list[str]]:
    cubes, others, notes = _cubes(root)
    if not cubes:
        why = "; ".join(notes) or "name a folder with one"
        raise DatasetError(f"{root} holds no cube ({', '.join(CUBES)} of {FEWEST_BANDS} bands or more); {why}")
    if config.labels is not None:
        if len(cubes) > 1:
            raise DatasetError(f"{root} holds the cubes {listed(cubes)}; say which with --set data.cube=FILE")
        return [(cubes[0], str(root / config.labels))], notes
    if not needs:
        return [(cube, None) for cube in cubes], notes
    labels = [*others, *_tables(root)]
    return (
        [(cubes[0], _only_labels(cubes[0], labels, root))] if len(cubes) == 1 else _by_name(cubes, labels, root=root)
    ), notes


def _beside(image: str, folder: Path) -> Pair:
    """A cube that was named, with the labels of its name beside it, or in its own file; never those of another cube's name."""
    cubes, maps, _ = _cubes(folder)
    others = {_stem(cube, CUBE_NAMED) for cube in cubes} - {_stem(image, CUBE_NAMED)}
    labels = [path for path in (*maps, *_tables(folder)) if _stem(path, LABELS_NAMED) not in others]
    return image, _only_labels(image, labels, folder)


def _only_labels(image: str, labels: Sequence[str], root: Path) -> str:
    """The file of labels by the cube's name, the label map in the cube's own file, or the one file of labels of a folder."""
    named = [path for path in labels if _stem(path, LABELS_NAMED) == _stem(image, CUBE_NAMED)]
    if len(named) == 1:
        return named[0]
    if not named and _holds_labels(image):
        return named_part(image)[0]
    if len(labels) == 1:
        return labels[0]
    what = f"the labels {listed(labels)}" if labels else "no labels beside it"
    raise DatasetError(
        f"{root}: the cube {image} has {what}; say which label map, polygons or table of points with --set data.labels=FILE"
    )


def _holds_labels(image: str) -> bool:
    try:
        return is_cube(image) and len(CubeSource(named_part(image)[0], labels=True).cube.bands) == 1
    except TerraleanError:
        return False


def _by_name(cubes: Sequence[str], labels: Sequence[str], *, root: Path) -> list[Pair]:
    """Cubes and labels of the same name, but for endings such as _gt."""
    by_stem = {_stem(path, LABELS_NAMED): path for path in labels}
    if twice := [path for path in labels if by_stem[_stem(path, LABELS_NAMED)] != path]:
        raise DatasetError(
            f"{root}: {twice[0]} and {by_stem[_stem(twice[0], LABELS_NAMED)]} are labels of one name; move one of them away, "
            "or say which cube and labels are meant with --set data.cube=FILE --set data.labels=FILE"
        )
    if lost := [cube for cube in cubes if _stem(cube, CUBE_NAMED) not in by_stem]:
        raise DatasetError(
            f"{root}: no labels for {listed(lost)}; expected a file of the same name, or with _gt behind it, or say which cube "
            "and labels are meant with --set data.cube=FILE --set data.labels=FILE"
        )
    return [(cube, by_stem[_stem(cube, CUBE_NAMED)]) for cube in cubes]


def _stem(path: str, ending: re.Pattern[str]) -> str:
    file = Path(named_part(path)[0])
    return ending.sub("", file.stem if file.suffix.lower() in (*CUBES, *TABLES, *VECTORS) else file.name).lower()


def _cubes(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Rasters of many bands, rasters of one band, and what was left out and why."""
    cubes: dict[str, str] = {}
    labels, notes = [], []
    for path in sorted(folder.iterdir()):
        odd = path.suffix.lower() == ".hdr" and header_of(path) is None
        if path.suffix.lower() not in CUBES or not path.is_file() or odd:
            continue
        try:
            with describe(path, expected="a cube") as scene:
                count = len(scene.bands)
        except TerraleanError as error:
            notes.append(f"left out: {error}")
            continue
        if count >= FEWEST_BANDS:
            if path.stem in cubes:
                notes.append(f"{path.name} has the name of {Path(cubes[path.stem]).name}, which is taken")
            cubes.setdefault(path.stem, str(path))
        elif count == 1:
            labels.append(str(path))
    for note in notes:
        log.info("%s", note)
    return list(cubes.values()), labels, notes


def _label_files(folder: Path) -> list[str]:
    return [*_cubes(folder)[1], *_tables(folder)]


def _tables(folder: Path) -> list[str]:
    """Tables of points, and polygons."""
    return [str(path) for path in sorted(folder.iterdir()) if path.suffix.lower() in (*TABLES, *VECTORS)]


def _open(pairs: Sequence[Pair], config: SpectralDataConfig) -> tuple[tuple[LabelledCube, ...], Bands]:
    scenes, bands = [], None
    for image, labels in pairs:
        with open_scene(image, bands=config.bands) as scene:
            if bands is None:
                bands = scene.bands
            check_bands(scene.bands, bands, scene=image)
            if isinstance(scene.source, CubeSource) and scene.source.cube.scene is not None:
                log.info("%s is %s", image, scene.source.cube.scene)
            scenes.append(LabelledCube(image=image, labels=labels, grid=scene.grid))
    assert bands is not None
    if len(bands) == 1:
        raise BandMismatch(f"{scenes[0].image} has one band; a spectrum has several; name the cube with --set data.cube=FILE")
    return tuple(scenes), bands


def _known_labels(pairs: Sequence[Pair], config: SpectralDataConfig, *, folder: Path) -> list[LabelledFile]:
    """What each file of labels is; of several scenes some may have none."""
    maps = (config.train_labels, config.validation_labels, config.test_labels)
    paths = [labels for _, labels in pairs if labels is not None] or [str(folder / path) for path in maps if path is not None]
    found = []
    for path in paths:
        try:
            found.append(_find(path, config))
        except LabelError as error:
            if len(paths) == 1 or "no labelled pixel" not in str(error):
                raise
            log.info("%s", error)
    if not found:
        raise LabelError(f"none of the {len(paths)} label maps holds a labelled pixel; check {listed(paths)}")
    return found


def _find(path: str, config: SpectralDataConfig) -> LabelledFile:
    """Of plain rasters 0 is no label, either, unless another value says so: where few are labelled the rest is written so."""
    plain = not (is_cube(path) or is_vector(path) or is_points(path))
    if not plain or config.unlabelled != "auto":
        found = find_labels(path, unlabelled=config.unlabelled, field=config.label_field)
    else:
        how: Unlabelled = "none" if _has_nodata(path) else "zero"
        why = "a class, as pixels without label are nodata" if how == "none" else "no label, as no pixel is nodata"
        found = replace(find_labels(path, unlabelled=how), note=f"0 is {why}; say otherwise with data.unlabelled")
    log.info("%s: %s", path, found.note)
    return found


def _has_nodata(path: str) -> bool:
    """Whether a raster says of some pixels that they hold nothing, or a number below 0."""
    counts = count_stored(path, coding=ALL_NUMBERS)
    with describe(path, expected="a label map") as scene:
        return sum(counts.values()) < scene.grid.window.pixels or any(number < 0 for number in counts)


def _classes(known: Sequence[LabelledFile], config: SpectralDataConfig) -> tuple[Classes, Coding]:
    """The classes of all files together, by number, or by name where these are written out."""
    by_name = [one for one in known if one.coding.values is None]
    if by_name and len(by_name) < len(known):
        raise LabelError(
            f"{by_name[0].path} writes the names of classes and {next(o for o in known if o.coding.values is not None).path} "
            "numbers; write all labels in one way"
        )
    named: dict[int | str, tuple[str, tuple[int, int, int]]] = {}
    for one in known:
        keys: tuple[int | str, ...] = one.coding.values or one.classes.names
        for key, name, colour in zip(keys, one.classes.names, one.classes.colours, strict=True):
            if key in named and named[key][0] != name:
                raise LabelError(f"{one.path}: class {key} is {name}, elsewhere {named[key][0]}; number the classes alike")
            named.setdefault(key, (name, colour))
    order = sorted(named, key=lambda key: (str(key) if by_name else "", key if isinstance(key, int) else 0))
    classes = _renamed([named[key] for key in order], config, numbers=order)
    ignored = tuple(sorted({number for one in known for number in one.coding.ignored}))
    return classes, Coding() if by_name else Coding(values=tuple(int(key) for key in order), ignored=ignored)


def _renamed(
    found: Sequence[tuple[str, tuple[int, int, int]]], config: SpectralDataConfig, *, numbers: Sequence[int | str]
) -> Classes:
    names = tuple(name for name, _ in found)
    if config.classes is None:
        alike = len({colour for _, colour in found}) < len(found)
        return coloured(names) if alike else Classes(names=names, colours=tuple(colour for _, colour in found))
    if len(config.classes) != len(found):
        raise LabelError(
            f"data.classes names {len(config.classes)} classes, the labels have {len(found)}: {', '.join(map(str, numbers))}; "
            "name each, in this order"
        )
    if isinstance(numbers[0], str):
        if set(config.classes) != set(names):
            raise LabelError(f"data.classes names {', '.join(config.classes)}, the labels {', '.join(names)}; name the same")
        return coloured(names)
    return coloured(config.classes)
