"""Oriented boxes that are there already: whether they are the ones that are asked for, and how many there are.

As a map knows by its tags what it was made of, boxes know by a small JSON file beside them, which all their formats can have.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyogrio
from numpy.typing import NDArray

from terralean.data.oriented.dota import read_results
from terralean.errors import LabelError, MissingFile
from terralean.mapping.already import JOB, WINDOWS, job_digest, newest
from terralean.raster.features import VECTOR_ERRORS
from terralean.raster.geoparquet import import_pyarrow
from terralean.spec import Classes

DAMAGED = (OSError, ValueError, LabelError, MissingFile, *VECTOR_ERRORS)  # of which ValueError is pyarrow's


class BoxesTargets(NamedTuple):
    """What is written of a scene."""

    polygons: Path
    dota: Path  # folder of DOTA's result files
    record: Path  # what both were made of; written last

    def in_the_way(self) -> list[Path]:
        """Where something may be that is not to be replaced unasked; a record that nothing belongs to is not."""
        return [self.polygons, self.dota, *([] if _told(self.record) else [self.record])]


class MadeBoxes(NamedTuple):
    """What a search has given."""

    counts: NDArray[np.int64]  # (K,) objects of each class
    windows: int  # that held something to search


def write_record(path: Path, facts: Mapping[str, Any], *, windows: int) -> None:
    """Write by what `find_made_boxes` knows the files again."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps({JOB: job_digest(facts), WINDOWS: windows}) + "\n", encoding="utf-8")
    os.replace(part, path)


def find_made_boxes(targets: BoxesTargets, facts: Mapping[str, Any], *, classes: Classes) -> MadeBoxes | None:
    """What is in these files, if all are there, whole, made of these facts and no older than the scene."""
    told = _told(targets.record)
    if not targets.polygons.is_file() or told.get(JOB) != job_digest(facts):
        return None
    if newest(facts) > targets.polygons.stat().st_mtime:
        return None
    try:
        values = _values(targets.polygons)
        labels = [one.labels for one in read_results(targets.dota, classes=classes)]
    except DAMAGED:
        return None  # they are in the way
    counts, others = (np.bincount(some, minlength=len(classes)) for some in (values, np.concatenate([*labels, values[:0]])))
    return MadeBoxes(counts, int(told[WINDOWS])) if np.array_equal(counts, others) else None


def _told(record: Path) -> dict[str, Any]:
    """What a record says; nothing where it is none of ours."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and {JOB, WINDOWS} <= found.keys() else {}


def _values(path: Path) -> NDArray[np.int64]:
    """The class (n,) of each polygon."""
    if path.suffix == ".parquet":
        import_pyarrow(path.name)
        from pyarrow import parquet  # noqa: PLC0415 - of an extra

        return np.asarray(parquet.read_table(path, columns=["value"])["value"].to_numpy(), dtype=np.int64)
    _, _, _, (values,) = pyogrio.raw.read(path, columns=["value"], read_geometry=False)
    return np.asarray(values, dtype=np.int64)
