"""Which scenes are meant: paths, patterns, lists of them, and STAC files."""

from __future__ import annotations

import csv
import glob
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from terralean.errors import BandMismatch, ConfigError, MissingFile, TerraleanError, UnreadableScene
from terralean.raster.acquired import Acquired, acquired
from terralean.raster.cube_config import told
from terralean.raster.pair import Pair, find_pair
from terralean.raster.scene import Scene, open_scene
from terralean.raster.source import CONNECTION, Source, named_part
from terralean.raster.stac_item import Link
from terralean.raster.stac_search import Item, find_parts, images, is_stac, read_items
from terralean.raster.stack import open_stack, renamed
from terralean.spec import Bands

log = logging.getLogger(__name__)

BESIDE = re.compile(r"\.(aux\.xml|ovr|msk|qml|tfw|wld|prj|part)$", re.IGNORECASE)  # what lies beside rasters and is none
MAP, MODEL = re.compile(r"_(map|confidence|scores|compute)\.tif$"), "TERRALEAN_MODEL"  # names, and a tag, of maps
GEOTIFF = "image/tiff; application=geotiff"
NO_FILE_NAME = re.compile(r"[^\w.+-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScenesConfig:
    """How the assets of STAC items are used."""

    assets: tuple[str, ...] | None = None  # keys of those with the model's bands, in their order; None: found by their bands
    resample: bool = False  # have coarser bands interpolated bilinearly to the finest; else they are refused


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneSource:
    """A scene that is to be mapped: a path, or an item of a STAC file."""

    name: str  # for people
    stem: str  # its files are called by
    path: str  # what GDAL opens, or the STAC file
    item: Item | None = None
    config: ScenesConfig = ScenesConfig()

    def from_anywhere(self) -> SceneSource:
        """The same with paths that do not depend on the working directory."""
        item = None if self.item is None else replace(self.item, address=_absolute(self.item.address))
        return replace(self, path=_absolute(self.path), item=item)

    @property
    def link(self) -> Link:
        """To the scene, from what is made of it."""
        if self.item is not None:
            title = f"STAC item {self.item.id}"
            return Link(rel="derived_from", href=self.item.address, title=title, media="application/geo+json")
        media = GEOTIFF if Path(self.path).suffix.lower() in {".tif", ".tiff"} else None
        return Link(rel="derived_from", href=self.path.removeprefix("/vsicurl/"), title=Path(self.path).name, media=media)

    def open(self, need: Bands, *, bands: Sequence[int] | None = None) -> Scene:
        """The scene. `bands` are positions of those needed in its file; of an item they are found by what it says of them.

        An item's bands that lie in several files are one scene all the same, see `terralean.raster.stack`. Errors name the
        item.
        """
        if self.item is None:
            return open_scene(self.path, bands=bands)
        try:
            return self._open_item(self.item, need, bands=bands)
        except TerraleanError as error:
            said = str(error)
            raise type(error)(said if said.startswith(self.item.called) else f"{self.item.called}: {said}") from error

    def acquired(self, scene: Scene) -> Acquired:
        """When the scene, which is open, was acquired, as far as its item or its file says."""
        if self.item is not None:
            return self.item.acquired
        with scene.source.dataset() as dataset:
            return acquired(dataset)

    def _open_item(self, item: Item, need: Bands, *, bands: Sequence[int] | None) -> Scene:
        if bands is not None:
            return open_scene(self._only_image(item), bands=bands)
        found = find_parts(item, need, assets=self.config.assets)
        if isinstance(found, str):
            return open_scene(found)
        if len({part.path for part in found}) == 1:
            return renamed(open_scene(found[0].path, bands=[part.position for part in found]), need.names)
        return open_stack(self.name, found, names=need.names, resample=self.config.resample)

    def _only_image(self, item: Item) -> str:
        """The file that positions of bands are positions in."""
        found = images(item, self.config.assets)
        if len(found) > 1:
            raise BandMismatch(
                f"--bands gives positions in one file, and the item has the images {', '.join(asset.key for asset in found)}; "
                "name one of them with --assets, or the files of the model's bands with --assets and no --bands"
            )
        return found[0].path


def as_source(scene: SceneSource | str | Path) -> SceneSource:
    """A path as a scene that is to be mapped."""
    return scene if isinstance(scene, SceneSource) else _of_path(str(scene))


def find_scenes(arguments: Sequence[str | Path], *, config: ScenesConfig | None = None) -> list[SceneSource]:
    """The scenes that are meant, in order.

    An argument is a path or whatever else GDAL opens, a pattern with *, ? or [] (** at any depth), a STAC item or collection
    of items (a JSON file), or @FILE with such an argument on each line; there, empty lines and those that begin with # count
    for nothing. Paths are seen from the working directory, those in STAC files from the file.

    Raises MissingFile where a pattern or a list has nothing, UnreadableScene where a STAC file holds no items, ConfigError
    where `config` says something of items and there are none.
    """
    config = ScenesConfig() if config is None else config
    found = [source for argument in arguments for source in _expand(str(argument), config)]
    if config != ScenesConfig() and not any(source.item for source in found):
        raise ConfigError("--assets and --resample are about STAC items, and none is among the scenes; leave them out")
    return found


def find_mapped_pairs(arguments: Sequence[str | Path], *, table: Path | None, resample: bool) -> list[SceneSource]:
    """The pairs that are meant: BEFORE:AFTER each, @FILE with one on each line, and the rows of a table.

    The table is a CSV file with the columns before,after and perhaps name, which the files of a map are then called by; its
    paths are seen from its folder. Raises MissingFile for a date that is not there, ConfigError for what is no pair, and where
    two maps would have one name.
    """
    found = [_as_pair(source, resample=resample) for argument in arguments for source in _expand(str(argument), ScenesConfig())]
    found += [] if table is None else _of_table(table, resample=resample)
    if not found:
        raise ConfigError("no pair is named; give BEFORE:AFTER, or a table of pairs with --pairs")
    twice = [stem for stem, count in Counter(source.stem for source in found).items() if count > 1]
    if twice:
        raise ConfigError(
            f"{len(twice)} names would be those of several maps, {twice[0]} for one; give each pair another in the column name "
            "of a table (--pairs), or map them into different folders"
        )
    return found


def pair_stem(pair: Pair) -> str:
    """What the files of a pair's map are called by: the name that both dates share, else both names."""
    before, after = (Path(named_part(path)[0]).stem for path in (pair.before, pair.after))
    return before if before == after else f"{before}_{after}"


def _as_pair(source: SceneSource, *, resample: bool) -> SceneSource:
    pair = None if source.item is not None else find_pair(source.path)
    if pair is None:
        raise ConfigError(f"{source.name} is no pair of dates that is there; a model of change maps BEFORE:AFTER")
    return replace(source, path=str(replace(pair, resample=resample)), name=source.path)


def _of_table(table: Path, *, resample: bool) -> list[SceneSource]:
    if not table.is_file():
        raise MissingFile(f"{table} is not there; expected a CSV file with the columns before,after and perhaps name")
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    if lacking := [name for name in ("before", "after") if name not in (reader.fieldnames or ())]:
        raise ConfigError(f"{table} has no column {' and no '.join(lacking)}; it needs before,after and may have name")
    return [_of_row(row, number, table=table, resample=resample) for number, row in enumerate(rows, 2)]


def _of_row(row: Mapping[str, str], number: int, *, table: Path, resample: bool) -> SceneSource:
    dates = [row[date] if CONNECTION.match(row[date]) else str(table.parent / row[date]) for date in ("before", "after")]
    gone = [date for date in dates if not (os.path.isfile(named_part(date)[0]) or CONNECTION.match(date))]
    if gone:
        raise MissingFile(f"{table}, row {number}: {gone[0]} is not there; its paths are relative to {table.parent}")
    pair = Pair(before=dates[0], after=dates[1], resample=resample)
    stem = NO_FILE_NAME.sub("_", row["name"]) if row.get("name") else pair_stem(pair)
    return SceneSource(name=str(replace(pair, resample=False)), stem=stem, path=str(pair))


def _expand(argument: str, config: ScenesConfig) -> Iterator[SceneSource]:
    if argument.startswith("@") and not os.path.exists(argument):
        for line in _lines(argument[1:]):
            yield from _expand(line, config)
    elif is_stac(argument):
        yield from (_of_item(item, config) for item in read_items(argument))
    elif glob.has_magic(argument) and not os.path.exists(argument) and not CONNECTION.match(argument):
        yield from (_of_path(path) for path in _matching(argument))
    else:
        yield _of_path(argument)


def _lines(path: str) -> list[str]:
    """The arguments in a list."""
    if not os.path.isfile(path):
        raise MissingFile(f"{path} is not there; expected a text file with a scene on each line; check the path behind the @")
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text in UTF-8 ({error}); expected a path on each line") from error
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise MissingFile(f"{path} names no scene; expected a path on each line")
    nested = [line for line in found if line.startswith("@")]
    if nested:
        raise ConfigError(f"{path} names another list, {nested[0]}; give both to the command")
    return found


def _matching(pattern: str) -> list[str]:
    """Files of a pattern, sorted, less what only lies beside rasters, and maps that were made of them."""
    files = sorted(path for path in glob.glob(pattern, recursive=True) if not BESIDE.search(path) and os.path.isfile(path))
    found = [path for path in files if not (MAP.search(path) and _is_ours(path))]
    if not files:
        raise MissingFile(f"{pattern} matches no file; check the pattern, and that it is quoted if the list is long")
    if not found:
        raise MissingFile(f"{pattern} matches nothing but maps that were made here; give a pattern of scenes, or name them")
    if len(found) < len(files):
        log.info("%s: %d maps that were made here are left out", pattern, len(files) - len(found))
    return found


def _is_ours(path: str) -> bool:
    """Whether a raster is a map, or lies beside one."""
    source = Source(path)
    try:
        with source.dataset() as dataset:
            return MODEL in dataset.tags()
    except UnreadableScene:
        return False
    finally:
        source.close()


def _absolute(path: str) -> str:
    """A local path from the root; of a pair both; anything else as it is."""
    if (pair := find_pair(path)) is not None:
        return str(replace(pair, before=_absolute(pair.before), after=_absolute(pair.after)))
    file, said = named_part(path)
    return os.path.abspath(file) + (f"#{said}" if said else "") if os.path.exists(file) else path


def _of_path(path: str) -> SceneSource:
    """Of a variable in a file the maps are called by the file and, as it may hold several, the variable; of a pair by both."""
    if (pair := find_pair(path)) is not None:
        return SceneSource(name=path, stem=pair_stem(pair), path=path)
    file, said = named_part(path)
    key = told(path)[1].key if said else None
    stem = Path(file).stem
    return SceneSource(name=path, stem=stem if key is None else f"{stem}_{NO_FILE_NAME.sub('_', key)}", path=path)


def _of_item(item: Item, config: ScenesConfig) -> SceneSource:
    stem = NO_FILE_NAME.sub("_", item.id)
    return SceneSource(name=item.called, stem=stem, path=item.file, item=item, config=config)
