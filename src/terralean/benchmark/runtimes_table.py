"""A run in every runtime, as a table."""

from __future__ import annotations

from collections.abc import Iterable

from rich.markup import escape
from rich.table import Table

from terralean.benchmark.machine import threads
from terralean.benchmark.runtimes import RuntimesReport, RuntimesRow
from terralean.benchmark.table import MISSING, number

TOLD = (
    "From raw values to probabilities. images/s: median (quartiles) over rounds; speed: times that of the network as it is in "
    "fp32 (eager); same: share of valid pixels, or of images, with its class; differs: largest difference of a probability"
)


def as_table(report: RuntimesReport) -> Table:
    """A row for each runtime, precision and batch; by batch, the fastest first."""
    first, machine = report.rows[0], report.machine
    title = f"{first.model}, {report.source}, {first.tile_px} px: {machine.device}, {threads(machine)}, torch {machine.torch}"
    table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False)
    for name in ("batch", "runtime", "prec."):
        table.add_column(name, no_wrap=True)
    for name in ("images/s", "speed", "ms of CPU", "same", "differs", "MiB"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in report.rows:
        table.add_row(*map(escape, _cells(row)))
    table.caption, table.caption_justify = escape("\n".join((TOLD, *_remarks(report)))), "left"
    return table


def _cells(row: RuntimesRow) -> Iterable[str]:
    yield str(row.batch)
    yield f"{row.runtime} {row.version}".strip()
    yield row.precision
    if row.images_per_s is None:
        yield "failed"
    else:
        yield f"{row.images_per_s:.2f} ({row.images_per_s_low:.2f} .. {row.images_per_s_high:.2f})"
    yield number(row.speed, decimals=2)
    yield number(row.processor_ms, decimals=1)
    yield MISSING if row.same is None else f"{row.same:.2%}"
    yield MISSING if row.difference is None else f"{row.difference:.1e}"
    yield number(row.graph_bytes, scale=2**20, decimals=1)


def _remarks(report: RuntimesReport) -> Iterable[str]:
    said = [
        *(f"{row.runtime} {row.precision} failed: {row.failure}" for row in report.rows if row.failure is not None),
        *(f"{row.runtime} {row.precision}: {row.fixed} are fixed" for row in report.rows if row.fixed),
    ]
    yield from dict.fromkeys(said)
