"""The ledger of the paper's tables, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from terralean.benchmark.ledger import Entry
from terralean.benchmark.machine import Machine
from terralean.benchmark.table import MISSING

SOURCE = 'Jiang et al., "LeMeViT", IJCAI 2024, arXiv 2405.09789, tables 2 to 6'
COUNTED = (
    "MACs: convolutions and linear layers, one multiply-accumulate each; the products within attention are left out, as there"
)
TITLES = {
    2: "Table 2 and section 3.4: what a block costs",
    3: "Table 3: ImageNet-1K",
    4: "Table 4: MillionAID",
    5: "Table 5: detection, segmentation, change",
    6: "Table 6: number of meta tokens",
}


def as_document(entries: Sequence[Entry], machine: Machine) -> dict[str, Any]:
    """Everything as plain values, with the versions that counted."""
    return {
        "source": SOURCE,
        "counted": COUNTED,
        "versions": {name: getattr(machine, name) for name in ("terralean", "torch", "timm")},
        "entries": [asdict(entry) for entry in entries],
    }


def as_tables(entries: Sequence[Entry]) -> Group:
    """One table for each of the paper's; remarks below, by their numbers."""
    remarks = list(dict.fromkeys(entry.remark for entry in entries if entry.remark is not None))
    tables = [_table(number, [e for e in entries if e.table == number], remarks) for number in TITLES]
    notes = "\n".join(f"[{index}] {remark}" for index, remark in enumerate(remarks, start=1))
    return Group(*(part for table in tables for part in (table, "")), escape(f"{_summary(entries)}\n{COUNTED}\n{notes}"))


def _table(number: int, entries: Sequence[Entry], remarks: Sequence[str]) -> Table:
    table = Table(title=TITLES[number], title_justify="left", box=None, pad_edge=False)
    for name in ("row", "setting", "quantity"):
        table.add_column(name, no_wrap=True)
    for name in ("published", "measured", "inferred", "difference", "note"):
        table.add_column(name, justify="right", no_wrap=True)
    before: Entry | None = None
    for entry in entries:
        same = before is not None and (before.row, before.setting) == (entry.row, entry.setting)
        table.add_row(*(("", "") if same else (escape(entry.row), escape(entry.setting))), *_cells(entry, remarks))
        before = entry
    return table


def _cells(entry: Entry, remarks: Sequence[str]) -> Iterator[str]:
    yield f"{entry.quantity}, {entry.unit}"
    yield entry.published
    digits = max(len(entry.published.partition(".")[2]), 2)
    for value in (entry.measured, entry.inferred):
        yield MISSING if value is None else f"{value:.{digits + 1}f}"
    yield _verdict(entry)
    yield "" if entry.remark is None else escape(f"[{remarks.index(entry.remark) + 1}]")


def _verdict(entry: Entry) -> str:
    if entry.agrees:
        return "none"
    return MISSING if entry.difference_percent is None else f"{entry.difference_percent:+.2f} %"


def _summary(entries: Sequence[Entry]) -> str:
    measured = [entry for entry in entries if entry.agrees is not None]
    agree = sum(bool(entry.agrees) for entry in measured)
    inferred = sum(entry.measured is None and entry.inferred is not None for entry in entries)
    return (
        f"{len(entries)} published numbers: {len(measured)} counted here, {agree} of them equal to the last printed digit "
        f'("none"); {inferred} more inferred by formula; the others need a GPU, a data set or a network that is not here'
    )
