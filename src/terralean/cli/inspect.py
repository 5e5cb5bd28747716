"""`terralean inspect`: what scenes, datasets and runs are."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from terralean.cli.console import configure_logging, out_console, print_json
from terralean.cli.options import Changes, Json, Verbose


def inspect(
    paths: Annotated[list[str], typer.Argument(help="Scenes, dataset folders or runs.", show_default=False)],
    changes: Changes = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Say what a scene, a dataset or a run is, and what is wrong with it. Exit status 2 where something is an error."""
    configure_logging(verbose)
    from terralean import recipes
    from terralean.inspect.describe import describe, reads_as
    from terralean.inspect.words import tell

    reports = [describe(path, config=recipes.data_settings(reads_as(path), changes or [])) for path in paths]
    if as_json:
        print_json([asdict(report) for report in reports])
    else:
        out_console.print("\n\n".join(tell(report) for report in reports), markup=False, highlight=False, soft_wrap=True)
    if any(finding.severity == "error" for report in reports for finding in report.findings):
        raise typer.Exit(2)
