"""Tables with a header, such as index.csv, as people's programs write them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from terralean.data.words import counted, listed
from terralean.errors import DatasetError

OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs"}  # of spreadsheets, by their language


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Names of the columns, and each row's cells by these; what a short row lacks is "".

    Raises DatasetError for a file that is empty, not UTF-8 or separated otherwise than by commas, and for rows that have more
    cells than there are columns: a name with a comma in it would be cut there.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file, restval="")
        try:
            columns, rows = list(table.fieldnames or ()), list(table)
        except UnicodeDecodeError as error:
            raise DatasetError(f"{path} is no text in UTF-8 ({error.reason}); save it as CSV in UTF-8") from error
        except csv.Error as error:
            raise DatasetError(f"{path} is no CSV: {error}") from error
    if not columns:
        raise DatasetError(f"{path} is empty; its first line names the columns")
    _check_separator(path, columns)
    if long := [f"row {i}" for i, row in enumerate(rows, 2) if None in row]:
        raise DatasetError(
            f"{path} has {counted(len(columns), 'column')}, and more cells in {listed(long)}; put what has a comma in it in "
            "double quotes"
        )
    return columns, rows


def columns_of(path: Path) -> list[str]:
    """Names of the columns; none where the file cannot be read."""
    try:
        return read_table(path)[0]
    except DatasetError:
        return []


def _check_separator(path: Path, columns: Sequence[str]) -> None:
    for mark, name in OTHER_SEPARATORS.items():
        if len(columns) == 1 and mark in columns[0]:
            raise DatasetError(f"{path} is separated by {name}; save it with commas, and points in numbers")
