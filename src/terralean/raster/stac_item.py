"""A STAC item of a map: what it is, where and of when, its files, and what it was made from (STAC 1.1, stacspec.org)."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pyproj import CRS

from terralean.raster.acquired import Acquired
from terralean.raster.cog import Content
from terralean.raster.footprint import Footprint
from terralean.raster.grid import Grid
from terralean.raster.source import CONNECTION
from terralean.spec import IGNORE, Classes

EXTENSIONS = tuple(
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in ("projection/v2.0.0", "classification/v2.0.0", "file/v2.1.0", "processing/v1.2.0")
)
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
MEDIA = {
    ".tif": COG,
    ".gpkg": "application/geopackage+sqlite3",
    ".fgb": "application/vnd.flatgeobuf",
    ".parquet": "application/vnd.apache.parquet",
    ".csv": "text/csv",
    ".qml": "application/xml",
    ".xml": "application/xml",
    ".json": "application/geo+json",
}
SHA256 = "1220"  # how a multihash begins: the number of the function, and 32 bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class MapFile:
    """A file of a map."""

    path: Path  # where it is now
    title: str
    roles: tuple[str, ...]
    content: Content | None = None  # of a raster


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """What the map comes from or is explained by."""

    rel: str
    href: str  # a path, or what GDAL or a browser opens
    title: str
    media: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MapFacts:
    """What is told of a map beside its files."""

    name: str  # of the item
    title: str
    grid: Grid
    classes: Classes
    counts: Sequence[int]  # pixels of each class
    footprint: Footprint
    acquired: Acquired
    software: Mapping[str, str]  # versions by name
    lineage: str
    links: Sequence[Link]
    sensor: Mapping[str, Any] = field(default_factory=dict)  # platform, instruments, ... where the scene's own item says


def map_item(facts: MapFacts, files: Mapping[str, MapFile], *, out: Path) -> dict[str, Any]:
    """The item, to be put into the folder `out`, where its files will lie too; their names in it are relative to it."""
    place = facts.footprint
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(EXTENSIONS),
        "id": facts.name,
        "geometry": place.geometry,
        **({} if place.bbox is None else {"bbox": list(place.bbox)}),
        "properties": _properties(facts),
        "links": [_link(link, out=out) for link in facts.links],
        "assets": {key: _asset(file, facts) for key, file in files.items()},
    }


def write_item(path: Path, item: Mapping[str, Any]) -> None:
    """Write it; the same item gives the same bytes."""
    path.write_text(json.dumps(item, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def multihash(path: Path) -> str:
    """SHA-256 of a file, as STAC writes it."""
    with path.open("rb") as file:
        return SHA256 + hashlib.file_digest(file, "sha256").hexdigest()


def _properties(facts: MapFacts) -> dict[str, Any]:
    size = facts.grid.pixel_m()
    return {
        "title": facts.title,
        **facts.acquired.properties(),
        "terralean:datetime_from": facts.acquired.told_by,
        **facts.sensor,
        **({} if size is None else {"gsd": float(f"{max(size):.6g}")}),
        **_projection(facts.grid),
        "processing:software": dict(facts.software),
        "processing:lineage": facts.lineage,
    }


def _projection(grid: Grid) -> dict[str, Any]:
    code = grid.crs if grid.crs and grid.crs.startswith("EPSG:") else None
    corners = grid.corners()
    said: dict[str, Any] = {"proj:code": code, "proj:shape": [grid.height, grid.width], "proj:transform": list(grid.transform)}
    if grid.crs is not None:
        across, down = zip(*corners, strict=True)
        said["proj:bbox"] = [min(across), min(down), max(across), max(down)]
        if code is None:
            said["proj:wkt2"] = CRS.from_user_input(grid.crs).to_wkt()
    return said


def _asset(file: MapFile, facts: MapFacts) -> dict[str, Any]:
    said: dict[str, Any] = {
        "href": f"./{quote(file.path.name)}",
        "type": MEDIA[file.path.suffix],
        "title": file.title,
        "roles": list(file.roles),
        "file:size": file.path.stat().st_size,
        "file:checksum": multihash(file.path),
    }
    if file.content is not None:
        said |= {"data_type": file.content.dtype, "nodata": file.content.nodata}
        said["bands"] = [{"name": name} for name in file.content.bands]
        if file.content.colours is not None:
            said["classification:classes"] = _classes(facts)
    return said


def _classes(facts: MapFacts) -> list[dict[str, Any]]:
    """Each class and nodata, with the share of all pixels."""
    pixels = facts.grid.window.pixels
    counts = {**dict(enumerate(facts.counts)), IGNORE: pixels - sum(facts.counts)}
    said: list[dict[str, Any]] = [
        {"value": value, "name": name, "title": title, "color_hint": "{:02X}{:02X}{:02X}".format(*colour)}
        for value, (name, title, colour) in enumerate(
            zip(_plain(facts.classes.names), facts.classes.names, facts.classes.colours, strict=True)
        )
    ]
    said.append({"value": IGNORE, "name": "nodata", "title": "no data", "nodata": True})
    shares = {value: {"count": count, "percentage": round(100 * count / pixels, 6)} for value, count in counts.items()}
    return [entry | shares[entry["value"]] for entry in said]


def _plain(names: Sequence[str]) -> list[str]:
    """Different names of letters, digits, - and _ alone."""
    plain = [re.sub(r"[^0-9A-Za-z_-]+", "-", name).strip("-") or "class" for name in names]
    taken = {"nodata", "class", *(name for name in plain if plain.count(name) > 1)}
    for value in range(len(plain)):
        while plain[value] in taken:
            plain[value] += f"-{value}"
        taken.add(plain[value])
    return plain


def _link(link: Link, *, out: Path) -> dict[str, str]:
    """A local path becomes one relative to the item, where there is one."""
    href = link.href if CONNECTION.match(link.href) else _relative(Path(link.href), out)
    return {"rel": link.rel, "href": href, **({} if link.media is None else {"type": link.media}), "title": link.title}


def _relative(path: Path, out: Path) -> str:
    try:
        way = os.path.relpath(path, out)
    except ValueError:  # on another drive
        return path.absolute().as_uri()
    return quote(Path(way).as_posix())
