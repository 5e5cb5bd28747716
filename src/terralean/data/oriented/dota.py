"""DOTA's text files: one of labels for each image, and one of results for each class.

A line of labels is `x1 y1 x2 y2 x3 y3 x4 y4 class difficult`, the last of these optional; up to two lines before say
`imagesource:` and `gsd:` (Xia et al. 2018; versions 1.0, 1.5 and 2.0 alike). A line of `Task1_<class>.txt` is
`image score x1 y1 .. x4 y4`, the image without its suffix, as the test server takes it.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terralean.data.oriented.record import CORNERS, Detections, Labelled, labelled
from terralean.data.words import counted, listed
from terralean.errors import LabelError, MissingFile
from terralean.raster.cog import failed
from terralean.spec import Classes

NUMBERS = 2 * CORNERS
LINE = "x1 y1 x2 y2 x3 y3 x4 y4 class difficult"
RESULT = "image score x1 y1 x2 y2 x3 y3 x4 y4"
TASK1 = "Task1_"
DIFFICULT = ("0", "1", "2")
FACT = re.compile(r"\s*([A-Za-z][\w -]*?)\s*:\s*(.*?)\s*")
CLASSES_10 = (
    "plane",
    "baseball-diamond",
    "bridge",
    "ground-track-field",
    "small-vehicle",
    "large-vehicle",
    "ship",
    "tennis-court",
    "basketball-court",
    "storage-tank",
    "soccer-ball-field",
    "roundabout",
    "harbor",
    "swimming-pool",
    "helicopter",
)
CLASSES_15 = (*CLASSES_10, "container-crane")
CLASSES_20 = (*CLASSES_15, "airport", "helipad")


# Labels.


def read_labels(path: str | Path) -> Labelled:
    """The objects of one image. Raises MissingFile, and LabelError with file and line for what is not such a line."""
    rows: list[tuple[str, Sequence[float], str, int]] = []
    facts: dict[str, str] = {}
    for place, line in _lines(path):
        if not rows and (fact := FACT.fullmatch(line)):
            facts[fact[1].lower()] = fact[2]
            continue
        fields = line.split()
        _check_form(fields, path, place)
        corners = _numbers(fields[:NUMBERS], path, place, expected=LINE)
        rows.append((place, corners, fields[NUMBERS], _difficult(fields[NUMBERS + 1 :], path, place)))
    found = labelled(str(path), rows, facts)
    _check_px(found)
    return found


def write_labels(
    path: str | Path,
    polygons: NDArray[np.float64],
    names: Sequence[str],
    difficult: NDArray[np.uint8],
    *,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Objects as `read_labels` reads them, numbers to a thousandth of a pixel; whole or not at all."""
    lines = [f"{key}:{value}" for key, value in (facts or {}).items()]
    for corners, name, hard in zip(polygons.tolist(), names, difficult.tolist(), strict=True):
        lines.append(f"{_text(corners)} {_hyphened(name)} {hard}")
    _write(Path(path), lines)


# Results.


def write_results(folder: str | Path, found: Sequence[Detections], *, classes: Classes) -> list[Path]:
    """A file for each class, empty for one that was not found; images by their names without suffix. Best first."""
    if odd := [name for name in classes.names if "/" in name or "\\" in name]:
        raise LabelError(f"{folder}: the class {odd[0]!r} cannot be part of a file name; rename it")
    files = Counter(_hyphened(name) for name in classes.names)
    if same := [name for name in classes.names if files[_hyphened(name)] > 1]:
        raise LabelError(f"{folder}: the classes {listed(same)} would share one file; rename all but one")
    lines: dict[int, list[tuple[float, str]]] = defaultdict(list)
    for one in found:
        image = Path(one.image).stem
        for corners, score, label in zip(one.polygons.tolist(), one.scores.tolist(), one.labels.tolist(), strict=True):
            lines[label].append((score, f"{image} {score:.6g} {_text(corners)}"))
    paths = []
    for label, name in enumerate(classes.names):
        ordered = [text for _, text in sorted(lines[label], key=lambda line: -line[0])]
        paths.append(Path(folder) / f"{TASK1}{_hyphened(name)}.txt")
        _write(paths[-1], ordered)
    return paths


def read_results(folder: str | Path, *, classes: Classes) -> list[Detections]:
    """What the files of all classes say of each image, in order of their names. Raises LabelError with file and line.

    Raises MissingFile unless each class has its file (an empty one says that none was found), and LabelError for a file of
    a class that is not among them.
    """
    folder = Path(folder)
    found: dict[str, list[tuple[list[float], float, int]]] = defaultdict(list)
    for label, path in enumerate(_result_files(folder, classes)):
        for place, line in _lines(path):
            fields = line.split()
            if len(fields) != NUMBERS + 2:
                raise LabelError(
                    f"{path}, {place}: {counted(len(fields), 'field')}, {line.strip()!r}; expected {RESULT}; correct or delete "
                    "the line"
                )
            score, *corners = _numbers(fields[1:], path, place, expected=RESULT)
            found[fields[0]].append((corners, score, label))
    return [_detections(image, found[image]) for image in sorted(found)]


def _result_files(folder: Path, classes: Classes) -> list[Path]:
    if not folder.is_dir():
        raise MissingFile(f"{folder} is not there; expected a folder of {TASK1}<class>.txt")
    paths = [folder / f"{TASK1}{_hyphened(name)}.txt" for name in classes.names]
    if lacking := [path.name for path in paths if not path.is_file()]:
        raise MissingFile(f"{folder} lacks {listed(lacking)}; each class has its file, an empty one where none was found")
    strange = sorted(path.name for path in folder.glob(f"{TASK1}*.txt") if path not in paths)
    if strange:
        near = get_close_matches(strange[0], [path.name for path in paths], n=1)
        raise LabelError(
            f"{folder} has {listed(strange)}, of no class of {', '.join(classes.names)}"
            + (f" (nearest: {near[0]})" if near else "")
            + "; take it out, or add the class"
        )
    return paths


def _detections(image: str, rows: Sequence[tuple[list[float], float, int]]) -> Detections:
    return Detections(
        image=image,
        polygons=np.array([row[0] for row in rows], dtype=np.float64).reshape(len(rows), NUMBERS),
        scores=np.array([row[1] for row in rows], dtype=np.float64),
        labels=np.array([row[2] for row in rows], dtype=np.int64),
    )


# Lines.


def _lines(path: str | Path) -> Iterator[tuple[str, str]]:
    """Lines that are not empty, each with its place."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise MissingFile(f"{path} is not there; expected a text file of DOTA; check the path") from error
    except UnicodeDecodeError as error:
        raise LabelError(f"{path} is no text in UTF-8 ({error.reason} at byte {error.start}); export it again") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield f"line {number}", line


def _numbers(fields: Sequence[str], path: str | Path, place: str, *, expected: str) -> list[float]:
    out = []
    for field in fields:
        try:
            out.append(float(field))
        except ValueError as error:
            raise LabelError(
                f"{path}, {place}: {field!r} is no number; expected {expected}; correct or delete the line"
            ) from error
    if not np.isfinite(out).all():
        raise LabelError(f"{path}, {place}: {' '.join(fields)!r} has a number that is not finite; expected {expected}")
    return out


def _check_form(fields: Sequence[str], path: str | Path, place: str) -> None:
    """Raise LabelError unless eight numbers come before the class, and one thing at most after it.

    A class may be a number where the line is complete, as HRSC2016's are.
    """
    if len(fields) == NUMBERS + 2 and fields[NUMBERS].isdecimal() and fields[-1] in DIFFICULT:
        return
    numbers = next((count for count, field in enumerate(fields) if not _is_number(field)), len(fields))
    if numbers != NUMBERS or numbers == len(fields):
        before = f"before {fields[numbers]!r}" if numbers < len(fields) else "and no class"
        raise LabelError(f"{path}, {place}: {counted(numbers, 'number')} {before}; expected {LINE}; correct or delete the line")
    if len(fields) > NUMBERS + 2:
        raise LabelError(
            f"{path}, {place}: {' '.join(fields[NUMBERS:])!r} after the corners; expected {LINE}; write spaces in names of "
            "classes as hyphens, or delete the line"
        )


def _check_px(found: Labelled) -> None:
    """Raise LabelError where all corners are shares of the image's sides, as YOLO writes them."""
    corners = found.polygons
    if corners.size and corners.min() >= 0 and corners.max() <= 1 and (corners % 1 != 0).any():
        raise LabelError(
            f"{found.file}: all corners lie between 0 and 1, the first at {_text(corners[0])}; expected px, not shares of the "
            "image's width and height; multiply them, or give labels of YOLO-OBB with its YAML of names"
        )


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _difficult(fields: Sequence[str], path: str | Path, place: str) -> int:
    if not fields:
        return 0
    if fields[0] not in DIFFICULT:
        raise LabelError(
            f"{path}, {place}: difficult is {fields[0]!r}; expected 0, 1 (hard to see) or 2 (cut by the edge of a tile)"
        )
    return int(fields[0])


def _text(corners: Sequence[float]) -> str:
    return " ".join(f"{value:.3f}".rstrip("0").rstrip(".") for value in corners)


def _hyphened(name: str) -> str:
    return "-".join(name.split())


def _write(path: Path, lines: Sequence[str]) -> None:
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        with suppress(OSError):  # it may never have been made
            part.unlink()
        raise failed(path, error) from error
