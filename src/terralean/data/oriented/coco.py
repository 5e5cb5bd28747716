"""COCO's JSON with polygons: one file for many images."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from terralean.data.oriented.corners import four_corners, joined, upright
from terralean.data.oriented.record import Labelled, labelled
from terralean.data.words import listed
from terralean.errors import LabelError, MissingFile

PARTS = ("images", "annotations", "categories")
LEAST = 6  # numbers of a polygon: three corners


@dataclass(frozen=True, kw_only=True)
class CocoSet:
    """What a file says."""

    images: dict[str, Labelled]  # by file name, as the file has it; images without objects included
    names: tuple[str, ...]  # of the categories, in order of their ids


def read_coco(path: str | Path) -> CocoSet:
    """The objects of each image.

    A polygon of four corners is kept, of another number the smallest rectangle round it is taken, and of several parts the one
    round them all. Without a polygon the `bbox` is taken, upright. `iscrowd` counts as difficult. Raises MissingFile, and
    LabelError with file and annotation, also for run-length masks.
    """
    document = _document(path)
    images = {image["id"]: image for image in _named(document, "images", path, name="file_name")}
    names = {one["id"]: str(one["name"]) for one in _named(document, "categories", path, name="name")}
    if twice := [file for file, count in Counter(image["file_name"] for image in images.values()).items() if count > 1]:
        raise LabelError(f"{path} has several images called {listed(twice)}; give each file one entry")
    rows: dict[Any, list[tuple[str, list[float], str, int]]] = defaultdict(list)
    for item in _entries(document, "annotations", path, needed=("id", "image_id", "category_id")):
        place = f"annotation {item['id']}"
        for key, known in (("image_id", images), ("category_id", names)):
            if not isinstance(item[key], Hashable) or item[key] not in known:
                raise LabelError(f"{path}, {place}: its {key} {item[key]!r} is not in the file; correct or delete it")
        hard = int(bool(item.get("iscrowd", 0)))
        rows[item["image_id"]].append((place, _corners(item, path, place), names[item["category_id"]], hard))
    return CocoSet(
        images={str(one["file_name"]): labelled(str(path), rows[i], size=_size(one)) for i, one in images.items()},
        names=tuple(names[number] for number in sorted(names, key=_in_order)),
    )


def _document(path: str | Path) -> dict[str, Any]:
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise MissingFile(f"{path} is not there; expected a JSON file in COCO's form; check the path") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise LabelError(f"{path} is no complete JSON file ({error}); copy or export it again") from error
    if not isinstance(document, dict) or any(not isinstance(document.get(part), list) for part in PARTS):
        found = ", ".join(document) if isinstance(document, dict) else type(document).__name__
        raise LabelError(f"{path} is not in COCO's form: it holds {found or 'nothing'}; expected lists {', '.join(PARTS)}")
    return document


def _entries(document: dict[str, Any], part: str, path: str | Path, *, needed: tuple[str, ...]) -> list[Mapping[str, Any]]:
    for number, entry in enumerate(document[part]):
        lacking = [key for key in needed if not isinstance(entry, dict) or key not in entry]
        if lacking:
            raise LabelError(f"{path}: entry {number} of {part} has no {lacking[0]}; expected {', '.join(needed)}")
    return document[part]


def _named(document: dict[str, Any], part: str, path: str | Path, *, name: str) -> list[Mapping[str, Any]]:
    """Entries with an id of their own and a name."""
    entries, seen = _entries(document, part, path, needed=("id", name)), set()
    for entry in entries:
        if not isinstance(entry["id"], int | str) or entry["id"] in seen:
            what = "twice" if isinstance(entry["id"], int | str) else "no number"
            raise LabelError(f"{path}: the id {entry['id']!r} of {part} is {what}; give each entry a number of its own")
        if not isinstance(entry[name], int | str) or entry[name] == "":
            raise LabelError(f"{path}: the {name} of entry {entry['id']} of {part} is {entry[name]!r}; expected a text")
        seen.add(entry["id"])
    return entries


def _in_order(number: int | str) -> tuple[bool, int | str]:
    """Numbers before texts."""
    return isinstance(number, str), number


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """Width and height, where an image has both; 0 is written by tools that do not know."""
    width, height = image.get("width"), image.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) and min(width, height) > 0 else None


def _corners(item: Mapping[str, Any], path: str | Path, place: str) -> list[float]:
    outline = item.get("segmentation")
    try:
        if isinstance(outline, dict):
            raise LabelError(f"{path}, {place} is a run-length mask; expected polygons; export outlines instead")
        if outline:
            parts = outline if isinstance(outline[0], list) else [outline]
            if any(len(part) < LEAST or len(part) % 2 for part in parts):
                raise LabelError(
                    f"{path}, {place}: a polygon has {len(parts[0])} numbers; expected x y of three corners or more"
                )
            points = joined(parts)
            if not np.isfinite(points).all():
                raise LabelError(f"{path}, {place}: a corner of its polygon is no number; correct or delete it")
            return four_corners(points)
        return upright(*(float(value) for value in item["bbox"]))
    except (KeyError, TypeError, ValueError) as error:
        raise LabelError(
            f"{path}, {place} has neither a polygon nor a bbox of four numbers ({error}); correct or delete it"
        ) from error
