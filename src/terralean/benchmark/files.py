"""Files that a benchmark leaves, and reads again; each appears whole or not at all."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from terralean.errors import OutputFailed


def write_csv(rows: Sequence[Any], path: Path, *, kind: type) -> None:
    """One line a row, all fields of the dataclass `kind`; what is None is empty. Raises OutputFailed."""
    write_table([asdict(row) for row in rows], path, columns=[field.name for field in fields(kind)])


def write_table(rows: Iterable[Mapping[str, Any]], path: Path, *, columns: Iterable[str]) -> None:
    """One line a row, in which `columns` are all there is; what is None or missing is empty. Raises OutputFailed."""
    lines = io.StringIO()
    writer = csv.DictWriter(lines, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, lines.getvalue())


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a table that `write_table` left, none where there is no file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_text(path: Path, text: str) -> None:
    """In UTF-8, folders made where they are missing. Raises OutputFailed."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8", newline="")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputFailed(f"{path} could not be written: {error}; choose another path or make room") from error
