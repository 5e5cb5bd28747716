"""What runs cost on real images, as a table."""

from __future__ import annotations

from collections.abc import Iterable

from rich.markup import escape
from rich.table import Table

from terralean.benchmark.machine import threads
from terralean.benchmark.on_images import ImagesReport, ImagesRow
from terralean.benchmark.table import MISSING, number

TOLD = (
    "G operations: of one image, as fvcore counts, mean (5th .. 95th percentile of the images). left: share of tokens after "
    "each point. same: share of pixels with the class that the run gives without reduction. images/s: median (quartiles) over "
    "rounds; speed: times that of the run without reduction"
)


def as_table(report: ImagesReport) -> Table:
    """A row for each run, method, precision and batch; without reduction first."""
    first, machine = report.rows[0], report.machine
    title = f"{first.images} images of {first.tile_px} px: {machine.device}, {threads(machine)}, torch {machine.torch}"
    table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False)
    for name in ("run", "method", "prec."):
        table.add_column(name, overflow="fold")
    for name in ("batch", "params M", "G operations", "left", "same", "images/s", "speed", "+ MiB"):
        table.add_column(name, justify="right", no_wrap=name not in ("left",))
    several = len({row.run for row in report.rows}) > 1
    for row in report.rows:
        table.add_row(*map(escape, _cells(row, several=several)))
    table.caption, table.caption_justify = escape(TOLD), "left"
    return table


def _cells(row: ImagesRow, *, several: bool) -> Iterable[str]:
    yield row.run if several else row.model
    yield f"{row.method} {row.settings}".strip()
    yield row.precision
    yield str(row.batch)
    yield number(row.parameters, scale=1e6, decimals=2)
    yield f"{row.operations_g:.2f} ({row.operations_g_p5:.2f} .. {row.operations_g_p95:.2f})"
    yield row.tokens_left or MISSING
    yield f"{row.same:.1%}"
    yield f"{row.images_per_s:.2f} ({row.images_per_s_low:.2f} .. {row.images_per_s_high:.2f})"
    yield f"{row.speed:.2f}"
    yield number(row.peak_memory_bytes, scale=2**20, decimals=0)
