"""Rows of a benchmark for people and for files."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from rich.table import Table

from terralean.benchmark.published import PUBLISHED
from terralean.benchmark.run import Row
from terralean.errors import OutputFailed

MISSING = "-"


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """One line a row, all fields; what was not measured is empty. Raises OutputFailed."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputFailed(f"{path} could not be written: {error}; choose another path or make room") from error


def as_table(rows: Sequence[Row]) -> Table:
    """The fastest way to run each model in bold, failures and their reasons at the end."""
    table = Table(title=_title(rows), title_justify="left", box=None, pad_edge=False)
    columns = ("params M", "GMACs", "+ attention", "images/s", "quartiles", "CPU ms/image", "peak MiB", "error", "RTX 4090 *")
    for name in ("model", "mode", "precision"):
        table.add_column(name, no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right")
    for row in rows:
        if row.failure is None:
            table.add_row(*_cells(row), style="bold" if row.best else None)
    for row in rows:
        if row.failure is not None:
            table.add_row(row.model, row.mode, row.precision, *[MISSING] * len(columns), style="red")
    failures = [f"{row.model} {row.mode} {row.precision} failed: {row.failure}" for row in rows if row.failure is not None]
    table.caption = "\n".join(["* images/s as published, fp16, batch 256 (Jiang et al. 2024, table 3)", *failures])
    table.caption_justify = "left"
    return table


def _title(rows: Sequence[Row]) -> str:
    if not rows:
        return "nothing was measured"
    row = rows[0]
    shape = f"{row.batch} x {row.bands} x {row.size_px} x {row.size_px}"
    return f"{row.device}, {row.threads} CPU threads, batches of {shape}, torch {row.torch}"


def _cells(row: Row) -> list[str]:
    published = PUBLISHED.get(row.model)
    return [
        row.model,
        row.mode,
        row.precision,
        _number(row.parameters, scale=1e6, decimals=2),
        _number(row.macs_layers, scale=1e9, decimals=3),
        _number(row.macs_attention, scale=1e9, decimals=3),
        _number(row.images_per_s, decimals=1),
        f"{_number(row.images_per_s_low, decimals=1)} .. {_number(row.images_per_s_high, decimals=1)}",
        _number(row.processor_ms, decimals=1),
        _number(row.peak_memory_bytes, scale=2**20, decimals=0),
        MISSING if row.relative_error is None else f"{row.relative_error:.0e}",
        MISSING if published is None else str(published.images_per_s),
    ]


def _number(value: float | None, *, decimals: int, scale: float = 1.0) -> str:
    return MISSING if value is None else f"{value / scale:.{decimals}f}"
