"""COCO's JSON with polygons: one file for many images."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terralean.data.oriented.corners import four_corners, joined, upright
from terralean.data.oriented.record import Labelled, labelled
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
    images = {image["id"]: str(image["file_name"]) for image in _entries(document, "images", path, needed=("id", "file_name"))}
    names = {one["id"]: str(one["name"]) for one in _entries(document, "categories", path, needed=("id", "name"))}
    rows: dict[Any, list[tuple[str, list[float], str, int]]] = defaultdict(list)
    for item in _entries(document, "annotations", path, needed=("id", "image_id", "category_id")):
        place = f"annotation {item['id']}"
        for key, known in (("image_id", images), ("category_id", names)):
            if item[key] not in known:
                raise LabelError(f"{path}, {place}: its {key} {item[key]!r} is not in the file; correct or delete it")
        hard = int(bool(item.get("iscrowd", 0)))
        rows[item["image_id"]].append((place, _corners(item, path, place), names[item["category_id"]], hard))
    return CocoSet(
        images={file: labelled(str(path), rows[number]) for number, file in images.items()},
        names=tuple(names[number] for number in sorted(names)),
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
            return four_corners(joined(parts))
        return upright(*(float(value) for value in item["bbox"]))
    except (KeyError, TypeError, ValueError) as error:
        raise LabelError(
            f"{path}, {place} has neither a polygon nor a bbox of four numbers ({error}); correct or delete it"
        ) from error
