"""`terralean evaluate`: accuracy, cost and leakage of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from terralean.cli.bars import bar
from terralean.cli.console import configure_logging, out_console, print_json
from terralean.cli.evaluation_tables import (
    cost_table,
    curve_table,
    is_reduced,
    noise_table,
    reduction_table,
    run_table,
    score_table,
)
from terralean.cli.options import Device, Json, Precision, Reduce, RunOrExport, Verbose, numbers, only_given
from terralean.errors import ConfigError


def evaluate(
    run: RunOrExport,
    data: Annotated[
        Path | None, typer.Option(help="Other labelled data, all of it scored. Default: the run's own test split.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the report. Default: the run.")] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            help="Another run, scored on the same pixels or images; may be repeated. Differences are paired.",
            show_default=False,
        ),
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(metavar="PIXELS", help="Also score images with so many noisy pixels in 512 x 512, e.g. 0,100,1000."),
    ] = None,
    noise_mode: Annotated[
        Literal["uniform", "saltpepper"] | None,
        typer.Option(help="Values drawn evenly over their range, or its ends.", show_default="uniform"),
    ] = None,
    noise_seed: Annotated[int | None, typer.Option(help="Another seed, other noise.", show_default="0")] = None,
    curve: Annotated[
        bool,
        typer.Option(
            "--curve",
            help="Also map the validation split with less overlap, bf16 and fewer tokens: what map --budget chooses by.",
        ),
    ] = False,
    changes: Reduce = None,
    device: Device = None,
    precision: Precision = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Measure accuracy with intervals, cost and leakage, compare runs, and write report.html.

    RUN may be the folder of several seeds (train --seeds): then scores are means over them. --set is for RUN alone: with
    --against RUN it stands beside itself as it was trained.
    """
    configure_logging(verbose)
    from terralean import recipes
    from terralean.data.pixel_noise import NoiseConfig
    from terralean.evaluate.curve import CurveConfig
    from terralean.evaluate.run import run_evaluation

    given: dict[str, Any] = {"pixels": numbers(noise, flag="--noise", example="0,100,1000")}
    given |= {"mode": noise_mode, "seed": noise_seed}
    told = only_given(given)
    if told and noise is None:
        raise ConfigError("--noise-mode and --noise-seed are of noise; say how much with --noise 0,100,1000, or leave them out")
    with bar("evaluating") as tell:
        result = run_evaluation(
            run,
            read=recipes.read_run,
            against=against or [],
            data=data,
            out=out,
            device=device,
            precision=precision,
            reduce=recipes.reduction(changes or []),
            noise=NoiseConfig(**told) if told else None,
            curve=CurveConfig() if curve else None,
            progress=tell,
        )
    if as_json:
        print_json(result.document)
        return
    out_console.print(score_table(result.document))
    out_console.print()
    tables = ((is_reduced(result.document), reduction_table), (noise is not None, noise_table), (curve, curve_table))
    for asked, make in tables:
        if asked:
            out_console.print(make(result.document))
            out_console.print()
    if against:
        for table in (run_table(result.document), cost_table(result.document)):
            out_console.print(table)
            out_console.print()
    for line in result.verdict:
        out_console.print(line, markup=False, soft_wrap=True)
    out_console.print(f"report: {result.report}", soft_wrap=True)
