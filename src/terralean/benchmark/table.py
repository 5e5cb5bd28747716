"""What one run measured, for people and for programs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.table import Table

from terralean.benchmark.config import Size
from terralean.benchmark.machine import Rate, threads
from terralean.benchmark.published import INFERENCE, TRAINING, lookup
from terralean.benchmark.run import Report, Row

MISSING = "-"
PUBLISHED_COLUMN = "4090 *"
PUBLISHED = "4090 *: images/s as the LeMeViT paper prints them, RTX 4090, fp16, batch 256 (Jiang et al. 2024, tables 3 and 4)"
COUNTED = (
    "images/s: median and quartiles over rounds. CPU ms: of one image, over all threads. MiB: weights (training: and AdamW's "
    "moments); + peak: what a batch takes beside them. GFLOP/s: 2 for each MAC that runs in this mode, training 3 times that"
)
NAMES = ("model", "mode", "prec.")
LEAST_FIRST = (
    "error",
    "CPU ms",
    "MiB",
    "+ peak",
    "+ attn",
    "of GEMM",
    "GFLOP/s",
    PUBLISHED_COLUMN,
    "ms/batch",
    "GMACs",
    "params M",
)
Cell = Callable[[Row], str]


def as_document(report: Report) -> dict[str, Any]:
    """Machine, matrix products and rows as plain values."""
    return {
        "machine": asdict(report.machine),
        "products": [{**rate.product._asdict(), **_without_product(rate)} for rate in report.products],
        "rows": [asdict(row) for row in report.rows],
    }


def as_table(report: Report, *, width: int) -> Table:
    """The fastest way to run each model in bold, failures and their reasons at the end.

    In fewer letters of width than all columns take, the least important ones are left out and named.
    """
    table = Table(title=_title(report), title_justify="left", box=None, pad_edge=False)
    names = [_name(row) for row in report.rows]
    columns = _columns(report.rows)
    cells = {title: [cell(row) for row in report.rows] for title, cell in columns.items()}
    taken = sum(_width(title, [name[index] for name in names]) for index, title in enumerate(NAMES))
    left_out = _left_out(cells, room=width - taken)
    shown = {title: texts for title, texts in cells.items() if title not in left_out}
    for title in NAMES:
        table.add_column(title, no_wrap=True)
    for title in shown:
        table.add_column(title, justify="right", no_wrap=True)
    for index, row in sorted(enumerate(report.rows), key=lambda pair: pair[1].failure is not None):
        style = "red" if row.failure is not None else "bold" if row.best else None
        table.add_row(*map(escape, names[index]), *(texts[index] for texts in shown.values()), style=style)
    table.caption, table.caption_justify = escape("\n".join(_caption(report, shown=shown, left_out=left_out))), "left"
    return table


def _left_out(cells: Mapping[str, Sequence[str]], *, room: int) -> list[str]:
    """Titles of columns for which there is no room, the least important first."""
    missing = sum(_width(title, texts) for title, texts in cells.items()) - room
    found: list[str] = []
    for title in LEAST_FIRST:
        if missing > 0 and title in cells:
            missing -= _width(title, cells[title])
            found.append(title)
    return found


def _width(title: str, texts: Sequence[str]) -> int:
    return 2 + max(map(len, (title, *texts)))


def _without_product(rate: Rate) -> dict[str, float]:
    return {name: value for name, value in rate._asdict().items() if name != "product"}


def _title(report: Report) -> str:
    if not report.rows:
        return "nothing was measured"
    row, machine = report.rows[0], report.machine
    where = f"{machine.device}, {threads(machine)}, torch {machine.torch}"
    return escape(
        f"{row.work}, {_workload(row)}, {row.bands} bands: {where}" if _alike(report.rows) else f"{row.work}: {where}"
    )


def _columns(rows: Sequence[Row]) -> dict[str, Cell]:
    columns: dict[str, Cell] = {} if _alike(rows) else {"batch": _workload}
    columns |= {
        "params M": lambda row: number(row.parameters, scale=1e6, decimals=2),
        "GMACs": lambda row: number(row.macs_layers, scale=1e9, decimals=3),
        "+ attn": lambda row: number(row.macs_attention, scale=1e9, decimals=3),
        "images/s (quartiles)": lambda row: _quartiles(row.images_per_s, row.images_per_s_low, row.images_per_s_high),
        "ms/batch": lambda row: number(row.latency_ms, decimals=1),
        "CPU ms": lambda row: number(row.processor_ms, decimals=1),
        "MiB": lambda row: number(row.held_bytes, scale=2**20, decimals=0),
        "+ peak": lambda row: number(row.peak_memory_bytes, scale=2**20, decimals=0),
        "GFLOP/s": lambda row: number(row.gflops, decimals=1),
        "of GEMM": lambda row: MISSING if row.share_of_gemm is None else f"{row.share_of_gemm:.0%}",
        "error": lambda row: MISSING if row.relative_error is None else f"{row.relative_error:.0e}",
    }
    if any(_published(row) != MISSING for row in rows):
        columns[PUBLISHED_COLUMN] = _published
    return columns


def _caption(report: Report, *, shown: Collection[str], left_out: Sequence[str]) -> Iterable[str]:
    yield COUNTED
    if left_out:
        yield f"Left out for want of room, as all else in --csv and --json: {', '.join(left_out)}"
    for rate in report.products:
        p = rate.product
        kind = "square" if p.name == "square" else "widening in LeMeViT-tiny's third stage"
        rates = f"{rate.gflops:.1f} ({rate.gflops_low:.1f} .. {rate.gflops_high:.1f}) GFLOP/s"
        yield f"GEMM of this machine, {p.precision}, {p.rows} x {p.inner} x {p.columns}, {kind}: {rates}"
    if PUBLISHED_COLUMN in shown:
        yield PUBLISHED
    yield from dict.fromkeys(line for row in report.rows for line in _remarks(row))
    for row in report.rows:
        if row.failure is not None:
            yield f"{' '.join(_name(row))} at {_workload(row)} failed: {row.failure}"


def _remarks(row: Row) -> Iterable[str]:
    if row.note is not None:
        yield f"{row.model} at {_size(row)} px: {row.note}"
    if row.norms_folded is not None and row.norms_left is not None:
        total = row.norms_folded + row.norms_left
        yield f"{row.model}: " + (f"{row.norms_folded} of {total} batch norms folded" if total else "no batch norm to fold")


def _name(row: Row) -> tuple[str, str, str]:
    return row.model, row.mode, row.precision


def _alike(rows: Sequence[Row]) -> bool:
    return len({_workload(row) for row in rows}) == 1


def _workload(row: Row) -> str:
    return f"{row.batch} x {_size(row)} px"


def _size(row: Row) -> Size:
    return Size(row.height_px, row.width_px)


def _published(row: Row) -> str:
    printed = lookup(row.model, INFERENCE if row.work == "inference" else TRAINING)
    return MISSING if printed is None else printed.text


def _quartiles(median: float | None, low: float | None, high: float | None) -> str:
    if median is None or low is None or high is None:
        return MISSING
    decimals = 1 if median < 1000 else 0  # noqa: PLR2004 - four digits tell enough
    return f"{median:.{decimals}f} ({low:.{decimals}f} .. {high:.{decimals}f})"


def number(value: float | None, *, decimals: int, scale: float = 1.0) -> str:
    """With so many decimals, in units of `scale`; a dash for None."""
    return MISSING if value is None else f"{value / scale:.{decimals}f}"
