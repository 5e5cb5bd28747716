"""`terralean benchmark`: what models and runs cost."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from terralean.cli.bars import bar
from terralean.cli.console import configure_logging, out_console, print_json
from terralean.cli.options import Device, Json, Verbose, only_given
from terralean.errors import ConfigError


def benchmark(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Ours, any that timm builds, or the groups lemevit, imagenet-peers, scene-peers, more-peers; with --on runs.",
            show_default=False,
        ),
    ] = None,
    batches: Annotated[list[int] | None, typer.Option("--batch", help="Images at once; repeatable.", show_default="8")] = None,
    sizes: Annotated[
        list[str] | None,
        typer.Option("--size", metavar="PX", help="Side of an image, or HEIGHTxWIDTH; repeatable.", show_default="224"),
    ] = None,
    bands: Annotated[int | None, typer.Option(help="Of an image.", show_default="3")] = None,
    classes: Annotated[int | None, typer.Option(help="That the models tell apart.", show_default="1000")] = None,
    train: Annotated[bool, typer.Option("--train", help="Measure steps of training instead of inference.")] = False,
    rounds: Annotated[int | None, typer.Option(help="Measurements of each candidate.", show_default="9")] = None,
    precisions: Annotated[
        list[str] | None,
        typer.Option("--precision", help="fp32, bf16, on CUDA fp16; repeatable. Default: fp32 and bf16."),
    ] = None,
    modes: Annotated[
        list[str] | None,
        typer.Option("--mode", help="eager, or folded, channels-last, compiled, frozen joined by +; repeatable."),
    ] = None,
    scenes: Annotated[
        list[str] | None,
        typer.Option("--on", metavar="SCENE", help="Measure runs on windows of this raster; repeatable.", show_default=False),
    ] = None,
    reductions: Annotated[
        list[str] | None,
        typer.Option(
            "--reduce",
            metavar="SETTINGS",
            help="With --on: token reduction other than a run's own, e.g. '{method: tome, r: 40}'; repeatable.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[int | None, typer.Option(help="With --on: windows that are measured.", show_default="16")] = None,
    runtimes: Annotated[
        bool, typer.Option("--runtimes", help="With --on: a run as PyTorch runs it, compiled, in onnxruntime and OpenVINO.")
    ] = False,
    device: Device = None,
    csv: Annotated[Path | None, typer.Option(help="Also write all rows to this file.", show_default=False)] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Also draw accuracy against speed into this .svg file.", show_default=False)
    ] = None,
    accuracies: Annotated[
        list[str] | None,
        typer.Option(
            "--accuracy",
            metavar="MODEL=PERCENT",
            help="For --figure: MODEL=PERCENT, MODEL=RUN, published (ImageNet-1K) or published-scenes; repeatable.",
            show_default="published",
        ),
    ] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="Tables 2 to 6 of the LeMeViT paper beside what is counted here; no timing.")
    ] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Measure parameters, multiply-adds, images per second, latency and memory, all models in one interleaved run.

    With --on it measures runs on real images, since the cost of token reduction depends on them: tokens left, operations,
    images per second, beside the same run without reduction; with --runtimes as well one run in every runtime. Exit status 1
    where a row failed; its reason is in the table, and the other rows are measured.
    """
    configure_logging(verbose)
    from terralean.benchmark import accuracy, files, groups, table
    from terralean.benchmark import figure as scatter
    from terralean.benchmark.config import BenchmarkConfig, read_size
    from terralean.benchmark.run import Row, run

    given: dict[str, Any] = {
        **{"batches": batches, "sizes": sizes and [read_size(size) for size in sizes], "bands": bands, "classes": classes},
        **{"work": "training" if train else None, "rounds": rounds, "precisions": precisions, "modes": modes},
        "device": device,
    }
    if scenes:
        shared = ("batches", "precisions", "rounds", "device")
        others = {**given, "figure": figure, "accuracy": accuracies, "paper": paper or None}
        if unused := [name for name, value in others.items() if value is not None and name not in shared]:
            raise ConfigError(f"{', '.join(unused)}: of no meaning with --on, which takes runs as they are; leave it out")
        own = only_given({name: given[name] for name in shared})
        measure = _benchmark_runtimes if runtimes else _benchmark_runs
        measure(models or [], scenes, reductions or [], {**own, "images": images}, csv=csv, as_json=as_json)
        return
    for_runs = {"reduce": reductions, "images": images, "runtimes": runtimes or None}
    if unused := [f"--{name}" for name, value in for_runs.items() if value is not None]:
        raise ConfigError(f"{', '.join(unused)}: for runs on real images; name these with --on, e.g. --on scene.tif")
    chosen = _as_tuples(only_given(given))
    if paper:
        _print_ledger(
            unused=[*(models or []), *chosen, *(["figure"] if figure else []), *(accuracies or [])], csv=csv, as_json=as_json
        )
        return
    if not models:
        raise ConfigError(f"name models, or groups of them ({', '.join(groups.GROUPS)}), or give --paper")
    config = BenchmarkConfig(models=groups.expand(models), **chosen)
    if figure is not None:
        scatter.check_figure(config, figure)
    elif accuracies:
        raise ConfigError("--accuracy is for a figure; give --figure FILE.svg, too, or leave it out")
    known = accuracy.read_accuracies(accuracies or [], models=config.models) if figure else {}
    with bar("measuring") as tell:
        report = run(config, progress=tell)
    if as_json:
        print_json(table.as_document(report))
    else:
        out_console.print(table.as_table(report, width=out_console.width))
    if csv is not None:
        files.write_csv(report.rows, csv, kind=Row)
    if figure is not None:
        files.write_text(figure, scatter.draw(report, known))
    if any(row.failure is not None for row in report.rows):
        raise typer.Exit(1)


def _benchmark_runs(
    runs: list[str], scenes: list[str], reductions: list[str], given: dict[str, Any], *, csv: Path | None, as_json: bool
) -> None:
    from terralean import recipes
    from terralean.benchmark import files, images_table
    from terralean.benchmark.on_images import ImagesConfig, ImagesRow
    from terralean.benchmark.on_images import run as measure

    if not runs:
        raise ConfigError("name the runs that --on is to measure, e.g. terralean benchmark RUN --on scene.tif")
    chosen = _as_tuples(only_given(given))
    others = tuple(recipes.reduction([f"reduce={text}"]) for text in reductions)
    config = ImagesConfig(runs=tuple(map(Path, runs)), scenes=tuple(scenes), reductions=("own", *others), **chosen)
    with bar("measuring") as tell:
        report = measure(config, progress=tell)
    if as_json:
        print_json(asdict(report))
    else:
        out_console.print(images_table.as_table(report))
    if csv is not None:
        files.write_csv(report.rows, csv, kind=ImagesRow)


def _benchmark_runtimes(
    runs: list[str], scenes: list[str], reductions: list[str], given: dict[str, Any], *, csv: Path | None, as_json: bool
) -> None:
    """One run, in every runtime that can execute it."""
    from terralean import recipes
    from terralean.benchmark import files, runtimes_table
    from terralean.benchmark.runtimes import RuntimesConfig, RuntimesRow
    from terralean.benchmark.runtimes import run as measure

    if reductions or "precisions" in given:
        raise ConfigError("--runtimes measures every precision of a run as it is; leave --precision and --reduce out")
    if len(runs) != 1:
        raise ConfigError("--runtimes is of one run, e.g. terralean benchmark RUN --runtimes --on scene.tif")
    config = RuntimesConfig(run=Path(runs[0]), scenes=tuple(scenes), **_as_tuples(only_given(given)))
    with bar("measuring") as tell:
        report = measure(config, read=lambda folder: recipes.read_run(folder)[0].data, progress=tell)
    if as_json:
        print_json(asdict(report))
    else:
        out_console.print(runtimes_table.as_table(report))
    if csv is not None:
        files.write_csv(report.rows, csv, kind=RuntimesRow)
    if any(row.failure is not None for row in report.rows):
        raise typer.Exit(1)


def _print_ledger(*, unused: list[str], csv: Path | None, as_json: bool) -> None:
    """The paper's tables beside ours."""
    import torch

    from terralean.benchmark import files, ledger_table
    from terralean.benchmark.ledger import Entry, ledger
    from terralean.benchmark.machine import describe

    if unused:
        raise ConfigError(f"--paper counts what the paper's tables name, without timing; leave {', '.join(unused)} out")
    with bar("counting") as tell:
        entries = ledger(progress=tell)
    if as_json:
        print_json(ledger_table.as_document(entries, describe(torch.device("cpu"))))
    else:
        out_console.print(ledger_table.as_tables(entries))
    if csv is not None:
        files.write_csv(entries, csv, kind=Entry)


def _as_tuples(options: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
