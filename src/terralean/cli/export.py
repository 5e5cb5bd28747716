"""`terralean export`: a trained model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from terralean.cli.console import configure_logging, out_console, print_json
from terralean.cli.options import Json, Run, Verbose


def export(
    run: Run,
    format_: Annotated[
        Literal["timm"], typer.Option("--format", help="timm: a folder that timm.create_model('local-dir:OUT') reads.")
    ],
    out: Annotated[Path, typer.Option(help="A new folder.", show_default=False)],
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write a trained model for other programs."""
    configure_logging(verbose)
    from terralean.export.timm_folder import export_timm

    folder = export_timm(run, out)
    if as_json:
        print_json({"format": format_, "out": str(folder)})
        return
    out_console.print(f"{folder}: timm.create_model('local-dir:{folder}', pretrained=True)", soft_wrap=True)
