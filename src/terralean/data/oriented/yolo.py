"""YOLO-OBB: a text file for each image, `class x1 y1 x2 y2 x3 y3 x4 y4` in shares of its width and height, and a YAML of names.

As Ultralytics documents it ("Oriented Bounding Box Datasets"): classes count from 0, corners may leave the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from terralean.data.oriented.record import CORNERS, Labelled, labelled
from terralean.data.words import counted
from terralean.errors import LabelError, MissingFile

LINE = "class x1 y1 x2 y2 x3 y3 x4 y4"
FAR = 2.0  # shares beyond this from the image's middle are pixels


def read_names(path: str | Path) -> tuple[str, ...]:
    """Names of classes. Raises LabelError unless `names` is a list, or a mapping from 0 on.

    The folders that the file names are not read: as datasets are handed on, these lead elsewhere as often as not.
    """
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise MissingFile(f"{path} is not there; expected the YAML file of a YOLO dataset; check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LabelError(f"{path} is no complete YAML file ({error}); copy or export it again") from error
    names = document.get("names") if isinstance(document, dict) else None
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise LabelError(f"{path}: names is {names!r}; expected a list of classes, or a mapping from 0, 1, 2 and so on")
    return tuple(map(str, names))


def read_yolo(path: str | Path, *, width: int, height: int, names: Sequence[str]) -> Labelled:
    """The objects of an image of this size in px; none where the file is not there, as the format has it."""
    rows: list[tuple[str, list[float], str, int]] = []
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
    except UnicodeDecodeError as error:
        raise LabelError(f"{path} is no text in UTF-8 ({error.reason} at byte {error.start}); export it again") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        place = f"line {number}"
        name, shares = _parsed(line, path, place, names)
        rows.append((place, (shares * [width, height]).reshape(-1).tolist(), name, 0))
    return labelled(str(path), rows)


def _parsed(line: str, path: Path, place: str, names: Sequence[str]) -> tuple[str, np.ndarray]:
    """Name of the class, corners (4, 2) in shares."""
    fields = line.split()
    if len(fields) != 1 + 2 * CORNERS:
        raise LabelError(
            f"{path}, {place}: {counted(len(fields), 'field')}, {line.strip()!r}; expected {LINE} in shares of the image's "
            "width and height; give labels of oriented boxes, or correct the line"
        )
    try:
        number, shares = int(fields[0]), np.array(fields[1:], dtype=np.float64).reshape(CORNERS, 2)
    except ValueError as error:
        raise LabelError(
            f"{path}, {place}: {line.strip()!r} has what is no number; expected {LINE}; correct the line"
        ) from error
    if not 0 <= number < len(names):
        raise LabelError(f"{path}, {place}: class {number}; the dataset has 0 to {len(names) - 1} ({', '.join(names)})")
    if not (np.abs(shares - 0.5) <= FAR).all():
        raise LabelError(
            f"{path}, {place}: corners are {' '.join(fields[1:])}; expected shares 0 to 1 of the image's width and height, "
            "not pixels; divide them"
        )
    return names[number], shares
