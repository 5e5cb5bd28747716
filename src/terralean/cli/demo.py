"""`terralean demo`: the whole journey on generated scenes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from terralean.cli.bars import training_bar
from terralean.cli.console import configure_logging, out_console, print_json
from terralean.cli.options import Json, Verbose


def demo(
    out: Annotated[Path, typer.Option(help="Folder for scenes, run, map and report.")] = Path("demo"),
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Train, evaluate and map on generated, georeferenced scenes; no download."""
    configure_logging(verbose)
    from terralean.demo import run_demo

    with training_bar() as tell:
        result = run_demo(out, tell=tell)
    if as_json:
        print_json(asdict(result))
        return
    out_console.print(f"mIoU {result.miou:.3f} on the unseen scene in {result.minutes:.1f} min", style="bold")
    out_console.print(f"(a random forest on single pixels: {result.forest_miou:.3f})")
    out_console.print(f"open {result.report} in a browser and {result.map} in QGIS", soft_wrap=True)
