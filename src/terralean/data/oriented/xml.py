"""XML label files: DIOR-R and others with `robndbox`, and HRSC2016.

DIOR-R (Cheng et al. 2022) names four corners; roLabelImg and MAR20 write centre, size and angle in the same element. HRSC2016
(Liu et al. 2017) has centre, size and angle of each ship in `mbox_*`. Angles are radians, clockwise on screen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from terralean.data.oriented.record import Labelled, labelled
from terralean.errors import LabelError, MissingFile

CORNER_NAMES = tuple(f"{axis}_{corner}" for corner in ("left_top", "right_top", "right_bottom", "left_bottom") for axis in "xy")
BOX_NAMES = ("cx", "cy", "w", "h", "angle")
HRSC_NAMES = tuple(f"mbox_{name}" for name in ("cx", "cy", "w", "h", "ang"))
SHIP = "ship"
VOC_ROOT, HRSC_ROOT = "annotation", "HRSC_Image"
FULL_TURN = 2 * math.pi

Row = tuple[str, list[float], str, int]


def read_voc(path: str | Path) -> Labelled:
    """Objects of an XML file in the manner of PASCAL VOC, with `robndbox`: DIOR-R's corners, or centre, size and angle.

    Raises MissingFile, and LabelError with file and object for one without `robndbox` or with what is no number.
    """
    rows: list[Row] = []
    root = _root(path, VOC_ROOT)
    for place, item in _numbered(root, "object"):
        box = item.find("robndbox")
        if box is None:
            raise LabelError(
                f"{path}, {place} has no robndbox{_has(item)}; expected {', '.join(CORNER_NAMES)} or {', '.join(BOX_NAMES)} in "
                "it; give the oriented labels of the set"
            )
        if box.find(CORNER_NAMES[0]) is not None:
            corners = [_number(box, name, path, place) for name in CORNER_NAMES]
        else:
            corners = _corners([_number(box, name, path, place) for name in BOX_NAMES], path, place)
        rows.append((place, corners, _text(item, "name", path, place), _difficult(item, path, place)))
    return labelled(str(path), rows, size=_size(root, "size/width", "size/height"))


def read_hrsc(path: str | Path, *, classes: Literal["ship", "id"]) -> Labelled:
    """Objects of an XML file of HRSC2016: all as "ship", or each by its Class_ID, 100000001 and so on."""
    rows: list[Row] = []
    root = _root(path, HRSC_ROOT)
    for place, item in _numbered(root, "HRSC_Objects/HRSC_Object"):
        corners = _corners([_number(item, name, path, place) for name in HRSC_NAMES], path, place)
        name = SHIP if classes == "ship" else _text(item, "Class_ID", path, place)
        rows.append((place, corners, name, _difficult(item, path, place)))
    return labelled(str(path), rows, size=_size(root, "Img_SizeWidth", "Img_SizeHeight"))


def is_hrsc(path: str | Path) -> bool:
    """Whether a file is of HRSC2016's form."""
    return _parsed(path).tag == HRSC_ROOT


def _root(path: str | Path, tag: str) -> Element:
    """The outermost element. Raises LabelError where it is another: its objects would not be found."""
    root = _parsed(path)
    if root.tag != tag:
        raise LabelError(f"{path} is a file of <{root.tag}>; expected <{tag}>; export the labels in that form, or take it out")
    return root


def _parsed(path: str | Path) -> Element:
    try:
        return ElementTree.parse(path).getroot()
    except FileNotFoundError as error:
        raise MissingFile(f"{path} is not there; expected an XML file of labels; check the path") from error
    except ElementTree.ParseError as error:
        raise LabelError(f"{path} is no complete XML file ({error}); copy or export it again") from error


def _numbered(root: Element, query: str) -> Iterator[tuple[str, Element]]:
    for number, item in enumerate(root.findall(query), start=1):
        yield f"object {number}", item


def _size(root: Element, *names: str) -> tuple[int, int] | None:
    """Width and height, where the file has both; 0 is written by tools that do not know."""
    width, height = ((root.findtext(name) or "").strip() for name in names)
    known = all(side.isdecimal() and int(side) > 0 for side in (width, height))
    return (int(width), int(height)) if known else None


def _number(item: Element, name: str, path: str | Path, place: str) -> float:
    text = _text(item, name, path, place)
    try:
        return float(text)
    except ValueError as error:
        raise LabelError(f"{path}, {place}: {name} is {text!r}; expected a number; correct the file") from error


def _text(item: Element, name: str, path: str | Path, place: str) -> str:
    found = item.find(name)
    if found is None or not (found.text or "").strip():
        raise LabelError(f"{path}, {place} has no {name}{_has(item)}; correct the file")
    return (found.text or "").strip()


def _difficult(item: Element, path: str | Path, place: str) -> int:
    found = item.find("difficult")
    text = "0" if found is None else (found.text or "0").strip()
    if text not in ("0", "1", "2"):
        raise LabelError(f"{path}, {place}: difficult is {text!r}; expected 0 or 1; correct the file")
    return int(text)


def _has(item: Element) -> str:
    return f" (it has {', '.join(child.tag for child in item) or 'nothing'})"


def _corners(box: list[float], path: str | Path, place: str) -> list[float]:
    """Centre, size, angle -> eight numbers, clockwise on screen from the corner that is top left at angle 0."""
    x, y, width, height, angle = box
    if abs(angle) > FULL_TURN:
        raise LabelError(f"{path}, {place}: its angle is {angle:g}; expected radians, so degrees times pi/180")
    cos, sin = math.cos(angle), math.sin(angle)
    out: list[float] = []
    for across, down in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        u, v = across * width / 2, down * height / 2
        out += [x + u * cos - v * sin, y + u * sin + v * cos]
    return out
