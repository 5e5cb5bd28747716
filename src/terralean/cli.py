"""The command line: parse, call one function, print. Progress goes to stderr, results to stdout."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import terralean
from terralean.errors import ConfigError, RunError, SomeScenesFailed, Stopped, TerraleanError

if TYPE_CHECKING:
    from terralean.explain.numbers import BlockNumbers
    from terralean.explain.token_numbers import LayerNumbers
    from terralean.train.experiments import AnyExperiment

app = typer.Typer(
    help="From overhead imagery to maps, with vision transformers whose cost follows the content of the scene.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
INTERRUPTED = 130  # what typer makes of Ctrl-C
LAYERS_TOLD = 3  # of a method of token reduction in a table
out_console = Console(width=None if sys.stdout.isatty() else 180)  # a file has no width; its tables must not be cut
err_console = Console(stderr=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """What is printed of an evaluation, by its names there."""

    overall: tuple[str, ...]
    of_class: str
    compared: tuple[str, ...]  # between runs; the first says which is ahead
    pieces: str  # that are predicted in a second


SHOWN = {
    "segmentation": Shown(
        overall=("mIoU", "OA", "mF1", "AA", "kappa"), of_class="IoU", compared=("mIoU", "OA", "mF1"), pieces="windows"
    ),
    "classification": Shown(
        overall=("OA", "top5", "AA", "mF1", "kappa"), of_class="F1", compared=("OA", "AA", "mF1"), pieces="images"
    ),
}


class Listed(StrEnum):
    """What `terralean list` knows."""

    models = "models"
    recipes = "recipes"
    tasks = "tasks"
    reducers = "reducers"


Run = Annotated[Path, typer.Argument(help="Folder of a training run.", show_default=False)]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe's value, e.g. train.lr=0.0005.")
]
Reduce = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="reduce.KEY=VALUE",
        help="Take out or merge tokens by another method than the run's, e.g. reduce.method=tome; reduce=null: not at all.",
        show_default=False,
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N. Default: CUDA where there is one.")]
Devices = Annotated[
    int | None,
    typer.Option(help="Processes that train together, each on its GPU or on the CPU. Default: one.", show_default=False),
]
Precision = Annotated[Literal["fp32", "bf16"], typer.Option(help="Of the model's arithmetic.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")]


@app.callback(invoke_without_command=True)
def start(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """Print the version where asked."""
    if version:
        out_console.print(terralean.__version__)
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for scenes, run, map and report.")] = Path("demo"),
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Train, evaluate and map on generated, georeferenced scenes; no download."""
    _configure_logging(verbose)
    from terralean.demo import run_demo

    with _training_bar() as tell:
        result = run_demo(out, tell=tell)
    if as_json:
        _print_json(asdict(result))
        return
    out_console.print(f"mIoU {result.miou:.3f} on the unseen scene in {result.minutes:.1f} min", style="bold")
    out_console.print(f"(a random forest on single pixels: {result.forest_miou:.3f})")
    out_console.print(f"open {result.report} in a browser and {result.map} in QGIS", soft_wrap=True)


@app.command()
def inspect(
    paths: Annotated[list[str], typer.Argument(help="Scenes, dataset folders or runs.", show_default=False)],
    changes: Changes = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Say what a scene, a dataset or a run is, and what is wrong with it. Exit status 2 where something is an error."""
    _configure_logging(verbose)
    from terralean import recipes
    from terralean.inspect.describe import describe, reads_as
    from terralean.inspect.words import tell

    reports = [describe(path, config=recipes.data_settings(reads_as(path), changes or [])) for path in paths]
    if as_json:
        _print_json([asdict(report) for report in reports])
    else:
        out_console.print("\n\n".join(tell(report) for report in reports), markup=False, highlight=False, soft_wrap=True)
    if any(finding.severity == "error" for report in reports for finding in report.findings):
        raise typer.Exit(2)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, or a .yaml file of your own.", show_default=False)],
    data: Annotated[Path, typer.Option(help="Folder of images and labels, or one scene.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder of the run; the same command again goes on.", show_default=False)],
    changes: Changes = None,
    device: Device = None,
    devices: Devices = None,
    seed: Annotated[int | None, typer.Option(help="Same as --set seed=N.", show_default=False)] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Train once with each, e.g. 0,1,2, into OUT/seed0, OUT/seed1, ...", show_default=False)
    ] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Train a model; a killed run goes on where it was."""
    _configure_logging(verbose)
    import torch

    from terralean import recipes
    from terralean.train.launch import start as start_processes
    from terralean.train.processes import check_count, find_processes
    from terralean.train.run import run

    extra = [] if seed is None else [f"seed={seed}"]
    experiment = recipes.read(recipe, changes=[*(changes or []), *extra])
    if seeds is not None and any(change.startswith("seed=") for change in [*(changes or []), *extra]):
        raise ConfigError("--seeds names every seed; leave --seed and --set seed= out")
    runs = [(experiment, out)] if seeds is None else _runs_of_seeds(experiment, _seed_numbers(seeds), out=out)
    processes = find_processes(device, devices, environment=os.environ, gpus=torch.cuda.device_count())
    if processes.to_start:
        check_count(experiment, processes.count)
        raise typer.Exit(start_processes(processes.count, sys.argv[1:]))
    if processes.rank:
        logging.getLogger("terralean").setLevel(logging.ERROR)  # the first process says the rest
        for one, folder in runs:
            run(one, data=data, out=folder, device=device)
        return
    results = []
    for one, folder in runs:
        with _training_bar() as tell:
            results.append(run(one, data=data, out=folder, device=device, tell=tell))
    if as_json:
        _print_json(asdict(results[0]) if seeds is None else {"seeds": [asdict(result) for result in results]})
        return
    for result in results:
        none = result.validation is None
        score = "no validation split" if none else f"best validation {result.score} {result.validation:.3f}"
        state = "was finished before" if result.already_done else f"{result.minutes:.1f} min"
        out_console.print(f"{result.run}: {result.length}, {score}, {state}", soft_wrap=True)
    out_console.print(f"split: {results[0].split}\nleakage: {results[0].leakage}", soft_wrap=True)


@app.command()
def evaluate(
    run: Run,
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
    changes: Reduce = None,
    device: Device = None,
    precision: Precision = "fp32",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Measure accuracy with intervals, cost and leakage, compare runs, and write report.html.

    RUN may be the folder of several seeds (train --seeds): then scores are means over them. --set is for RUN alone: with
    --against RUN it stands beside itself as it was trained.
    """
    _configure_logging(verbose)
    from terralean import recipes
    from terralean.data.pixel_noise import NoiseConfig
    from terralean.evaluate.run import run_evaluation

    given: dict[str, Any] = {"pixels": _numbers(noise, flag="--noise", example="0,100,1000")}
    given |= {"mode": noise_mode, "seed": noise_seed}
    told = {key: value for key, value in given.items() if value is not None}
    if told and noise is None:
        raise ConfigError("--noise-mode and --noise-seed are of noise; say how much with --noise 0,100,1000, or leave them out")
    with _bar("evaluating") as tell:
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
            progress=tell,
        )
    if as_json:
        _print_json(result.document)
        return
    out_console.print(_score_table(result.document))
    out_console.print()
    for asked, make in ((_is_reduced(result.document), _reduction_table), (noise is not None, _noise_table)):
        if asked:
            out_console.print(make(result.document))
            out_console.print()
    if against:
        for table in (_run_table(result.document), _cost_table(result.document)):
            out_console.print(table)
            out_console.print()
    for line in result.verdict:
        out_console.print(line, markup=False, soft_wrap=True)
    out_console.print(f"report: {result.report}", soft_wrap=True)


@app.command("map")
def map_(
    run: Run,
    scenes: Annotated[list[str], typer.Argument(help="Rasters that GDAL opens.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the maps.", show_default=False)],
    bands: Annotated[str | None, typer.Option(help="Positions of the model's bands in the scene, e.g. 3,2,1.")] = None,
    tile: Annotated[int | None, typer.Option(help="Side of a window in px. Default: the model's.")] = None,
    overlap: Annotated[int | None, typer.Option(help="Shared by neighbouring windows, px. Default: the model's.")] = None,
    batch: Annotated[int | None, typer.Option(help="Windows predicted at once.", show_default=False)] = None,
    confidence: Annotated[
        bool, typer.Option("--confidence", help="Also a raster of the class's probability, percent.")
    ] = False,
    polygons: Annotated[
        Literal["gpkg", "fgb"] | None, typer.Option(help="Also polygons of each class, in this format.", show_default=False)
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Also a CSV table of cells, of a scene classifier.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace maps that exist.")] = False,
    changes: Reduce = None,
    device: Device = None,
    precision: Precision = "fp32",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Map scenes: Cloud-Optimized GeoTIFFs with class names, colours and a QGIS style.

    A scene classifier gives each cell of a grid a class: the middle of a window, less what windows share.
    """
    _configure_logging(verbose)
    from terralean import recipes
    from terralean.mapping.run import MapConfig, map_scenes
    from terralean.predict import load

    given: dict[str, Any] = {"tile_px": tile, "overlap_px": overlap, "batch": batch, "bands": _positions(bands)}
    given |= {"polygons": polygons, "confidence": confidence, "table": table}
    config = MapConfig(overwrite=overwrite, **{key: value for key, value in given.items() if value is not None})
    with _bar("mapping") as tell:
        predictor = load(run, device=device, precision=precision, reduce=recipes.reduction(changes or []))
        results, failed = map_scenes(predictor, scenes, out=out, config=config, progress=tell)
    if as_json:
        _print_json({"maps": [asdict(result) for result in results], "failed": failed})
    else:
        for result in results:
            shares = ", ".join(f"{name} {share:.1%}" for name, share in result.class_share.items())
            files = [file for file in (result.confidence, result.polygons, result.table) if file is not None]
            lines = "".join(f"\n  {line}" for line in (shares, *files))
            out_console.print(f"{result.path}  ({result.seconds} s){lines}", markup=False, soft_wrap=True)
    if failed:
        lines = "\n".join(f"  {message}" for message in failed.values())
        raise SomeScenesFailed(f"{len(failed)} of {len(scenes)} scenes failed:\n{lines}")


@app.command()
def classify(
    run: Run,
    paths: Annotated[list[str], typer.Argument(help="Images, and folders of images at any depth.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Also write a CSV table to this file.", show_default=False)] = None,
    top: Annotated[int | None, typer.Option(help="Classes told of an image, the likeliest first.", show_default="5")] = None,
    bands: Annotated[str | None, typer.Option(help="Positions of the model's bands in the images, e.g. 3,2,1.")] = None,
    batch: Annotated[int | None, typer.Option(help="Views recognised at once.", show_default=False)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a table that exists.")] = False,
    device: Device = None,
    precision: Precision = "fp32",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Tell the class of whole images, by a scene classifier. Exit status 1 where some could not be read."""
    _configure_logging(verbose)
    from terralean import recipes
    from terralean.mapping.images import ClassifyConfig
    from terralean.mapping.images import classify as classify_images
    from terralean.predict import load

    given: dict[str, Any] = {"top": top, "batch": batch, "bands": _positions(bands)}
    config = ClassifyConfig(overwrite=overwrite, **{key: value for key, value in given.items() if value is not None})
    with _bar("classifying") as tell:
        predictor = load(run, device=device, precision=precision)
        data = recipes.read_scene_data(run)
        result = classify_images(predictor, paths, config=config, data=data, out=out, progress=tell)
    if as_json:
        _print_json(asdict(result))
    elif result.table is None:
        for image in result.images:
            told = ", ".join(f"{likely.name} {likely.probability:.1%}" for likely in image.likeliest)
            out_console.print(f"{image.path}: {told}", markup=False, highlight=False, soft_wrap=True)
    else:
        counts = Counter(image.likeliest[0].name for image in result.images)
        shares = ", ".join(f"{name} {count}" for name, count in counts.most_common())
        out_console.print(f"{result.table}: {len(result.images)} images\n  {shares}", markup=False, soft_wrap=True)
    if result.failed:
        lines = "\n".join(f"  {message}" for message in result.failed.values())
        raise SomeScenesFailed(f"{len(result.failed)} of {len(result.failed) + len(result.images)} images failed:\n{lines}")


@app.command()
def explain(
    run: Run,
    scene: Annotated[str, typer.Argument(help="A raster that GDAL opens.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for raster, figure and numbers.", show_default=False)],
    show: Annotated[
        Literal["tokens", "attention"] | None,
        typer.Option(
            help="Which tokens go on or are merged, or where meta tokens look. Default: tokens where the run, or --set, has a "
            "method for them, unless an option of meta tokens is given.",
            show_default=False,
        ),
    ] = None,
    changes: Reduce = None,
    direction: Annotated[
        Literal["meta", "image"] | None,
        typer.Option(help="Where meta tokens look, or what the image reads from them.", show_default="meta"),
    ] = None,
    stage: Annotated[int | None, typer.Option(help="0, 1 or 2. Default: the last that has this direction.")] = None,
    block: Annotated[int | None, typer.Option(help="Of the stage, from 0. Default: the last one.")] = None,
    tokens: Annotated[str | None, typer.Option(help="Meta tokens from 0, e.g. 0,3,7. Default: all.")] = None,
    head: Annotated[int | None, typer.Option(help="Of the attention, from 0. Default: the mean of all.")] = None,
    by: Annotated[
        Literal["token", "head"] | None,
        typer.Option(help="A map of each token, the mean of the heads, or of each head, of the tokens.", show_default="token"),
    ] = None,
    part: Annotated[
        str | None, typer.Option(metavar="ROW,COL,HEIGHT,WIDTH", help="What the figure shows, px. Default: the whole scene.")
    ] = None,
    bands: Annotated[str | None, typer.Option(help="Positions of the model's bands in the scene, e.g. 3,2,1.")] = None,
    tile: Annotated[int | None, typer.Option(help="Side of a window in px. Default: the model's.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    device: Device = None,
    precision: Precision = "fp32",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show which tokens a method of reduction keeps, or where the meta tokens of a LeMeViT look.

    A raster on the scene's grid, a figure, and numbers. --direction, --stage, --block, --tokens, --head and --by are of meta
    tokens.
    """
    _configure_logging(verbose)
    from terralean import recipes
    from terralean.explain.run import ExplainConfig, ExplainResult, explain_scene
    from terralean.explain.show import what_to_show
    from terralean.explain.token_run import TokensConfig, TokensResult, explain_tokens
    from terralean.predict import load

    look: dict[str, Any] = {"direction": direction, "stage": stage, "block": block, "head": head, "by": by}
    look["tokens"] = _numbers(tokens, flag="--tokens", example="0,3,7")
    cut: dict[str, Any] = {"tile_px": tile, "bands": _positions(bands)}
    cut["part"] = _numbers(part, flag="--part", example="0,0,512,512")
    look, cut = ({name: value for name, value in given.items() if value is not None} for given in (look, cut))
    attention, kept = ExplainConfig(overwrite=overwrite, **look, **cut), TokensConfig(overwrite=overwrite, **cut)
    with _bar("explaining") as tell:
        reduce = recipes.reduction(changes or [])
        predictor = load(run, device=device, precision=precision, reduce=reduce)
        what = what_to_show(predictor, show=show, asked=[f"--{name}" for name in look], reduce=reduce)
        result: ExplainResult | TokensResult
        if what == "tokens":
            result = explain_tokens(predictor, scene, out=out, config=kept, progress=tell)
        else:
            result = explain_scene(predictor, scene, out=out, config=attention, progress=tell)
    if as_json:
        _print_json(result.document)
        return
    out_console.print(_attention_table(result.shown) if isinstance(result, ExplainResult) else _layer_table(result.layers))
    out_console.print()
    for line in (
        *result.verdict,
        f"raster: {result.raster}",
        f"figure: {result.figure}",
        f"numbers: {result.csv}, {result.json}",
    ):
        out_console.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
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
    images per second, beside the same run without reduction. Exit status 1 where a row failed; its reason is in the table, and
    the other rows are measured.
    """
    _configure_logging(verbose)
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
        own = {name: given[name] for name in shared if given[name] is not None}
        _benchmark_runs(models or [], scenes, reductions or [], {**own, "images": images}, csv=csv, as_json=as_json)
        return
    if unused := [f"--{name}" for name, value in {"reduce": reductions, "images": images}.items() if value is not None]:
        raise ConfigError(f"{', '.join(unused)}: for runs on real images; name these with --on, e.g. --on scene.tif")
    chosen: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if v is not None}
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
    with _bar("measuring") as tell:
        report = run(config, progress=tell)
    if as_json:
        _print_json(table.as_document(report))
    else:
        out_console.print(table.as_table(report, width=out_console.width))
    if csv is not None:
        files.write_csv(report.rows, csv, kind=Row)
    if figure is not None:
        files.write_text(figure, scatter.draw(report, known))
    if any(row.failure is not None for row in report.rows):
        raise typer.Exit(1)


@app.command()
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
    _configure_logging(verbose)
    from terralean.export.timm_folder import export_timm

    folder = export_timm(run, out)
    if as_json:
        _print_json({"format": format_, "out": str(folder)})
        return
    out_console.print(f"{folder}: timm.create_model('local-dir:{folder}', pretrained=True)", soft_wrap=True)


@app.command("list")
def list_(what: Annotated[Listed, typer.Argument(show_default=False)], as_json: Json = False) -> None:
    """Name what there is."""
    found = _listing(what)
    if as_json:
        _print_json(found)
    else:
        out_console.print("\n".join(found))


def main() -> None:
    """Entry point: a mistake of the user is a message and status 2, some failed scenes are status 1."""
    try:
        app()
    except Stopped:
        sys.exit(2)
    except TerraleanError as error:
        err_console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1 if isinstance(error, SomeScenesFailed) else 2)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            err_console.print("stopped; nothing half-written is left, and the same command goes on with a training run")
        raise


def _benchmark_runs(
    runs: list[str], scenes: list[str], reductions: list[str], given: dict[str, Any], *, csv: Path | None, as_json: bool
) -> None:
    from terralean import recipes
    from terralean.benchmark import files, images_table
    from terralean.benchmark.on_images import ImagesConfig, ImagesRow
    from terralean.benchmark.on_images import run as measure

    if not runs:
        raise ConfigError("name the runs that --on is to measure, e.g. terralean benchmark RUN --on scene.tif")
    chosen: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if v is not None}
    others = tuple(recipes.reduction([f"reduce={text}"]) for text in reductions)
    config = ImagesConfig(runs=tuple(map(Path, runs)), scenes=tuple(scenes), reductions=("own", *others), **chosen)
    with _bar("measuring") as tell:
        report = measure(config, progress=tell)
    if as_json:
        _print_json(asdict(report))
    else:
        out_console.print(images_table.as_table(report))
    if csv is not None:
        files.write_csv(report.rows, csv, kind=ImagesRow)


def _print_ledger(*, unused: list[str], csv: Path | None, as_json: bool) -> None:
    """The paper's tables beside ours."""
    import torch

    from terralean.benchmark import files, ledger_table
    from terralean.benchmark.ledger import Entry, ledger
    from terralean.benchmark.machine import describe

    if unused:
        raise ConfigError(f"--paper counts what the paper's tables name, without timing; leave {', '.join(unused)} out")
    with _bar("counting") as tell:
        entries = ledger(progress=tell)
    if as_json:
        _print_json(ledger_table.as_document(entries, describe(torch.device("cpu"))))
    else:
        out_console.print(ledger_table.as_tables(entries))
    if csv is not None:
        files.write_csv(entries, csv, kind=Entry)


def _listing(what: Listed) -> list[str]:
    if what is Listed.recipes:
        from terralean import recipes

        return recipes.names()
    if what is Listed.models:
        from terralean.models import MODELS
        from terralean.models.timm_names import CONFIGS

        return sorted({*MODELS, *CONFIGS})
    if what is Listed.reducers:
        from terralean.tokens import REDUCERS

        return list(REDUCERS)
    from terralean.train.kinds import KINDS

    return sorted(KINDS)


def _positions(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--bands {text!r} must be positions from 1 with commas, e.g. --bands 3,2,1") from error


def _numbers(text: str | None, *, flag: str, example: str) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"{flag} {text!r} must be whole numbers with commas, e.g. {flag} {example}") from error


def _seed_numbers(text: str) -> list[int]:
    seeds = [int(part) if part.strip().isdigit() else None for part in text.split(",")]
    numbers = [seed for seed in seeds if seed is not None]
    if len(numbers) < len(seeds) or len(set(numbers)) < len(numbers) or len(numbers) < 2:  # noqa: PLR2004 - one is --seed
        raise ConfigError(f"--seeds {text!r} must be two or more different numbers from 0, e.g. --seeds 0,1,2; one is --seed")
    return numbers


def _runs_of_seeds(experiment: AnyExperiment, seeds: list[int], *, out: Path) -> list[tuple[AnyExperiment, Path]]:
    """One run for each seed, all tested on the same pixels: where nothing else is said, those that seed 0 deals."""
    if (out / "recipe.yaml").exists():
        raise RunError(f"{out} is a run of one seed; give a new folder for --out, runs of several seeds lie side by side in it")
    one: Any = experiment  # all have a split with a seed
    data = replace(one.data, split=replace(one.data.split, seed=one.data.split.seed or 0))
    return [(replace(one, seed=seed, data=data), out / f"seed{seed}") for seed in seeds]


def _configure_logging(verbose: bool) -> None:
    handler = RichHandler(console=err_console, show_time=False, show_path=False, markup=False)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], format="%(message)s", force=True)
    logging.getLogger("terralean").setLevel(logging.DEBUG if verbose else logging.INFO)


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=1, default=str) + "\n")


def _score_table(document: dict[str, Any]) -> Table:
    """Overall scores and those of classes, with intervals, and the spread between seeds where there are several."""
    several, shown = len(document["seeds"]) > 1, SHOWN[document["task"]]
    table = Table("score", "value", *(["± seeds"] if several else []), "95 % interval", box=None, pad_edge=False)
    named = [(name, document[name]) for name in shown.overall if name in document]
    classes = [(f"{shown.of_class} {escape(entry['name'])}", entry[shown.of_class]) for entry in document["classes"]]
    for name, entry in [*named, *classes]:
        spread = [] if not several else ["-" if entry["sd"] is None else f"{entry['sd']:.3f}"]
        table.add_row(name, _value(entry), *spread, _range(entry))
    first = shown.compared[0]
    for seed in document["seeds"]:
        table.add_row(f"{first} seed {seed['seed']}", _value(seed[first]), *([""] if several else []), _range(seed[first]))
    return table


def _run_table(document: dict[str, Any]) -> Table:
    """Runs on the same pixels or images, and by how much the first one is ahead of each."""
    names = SHOWN[document["task"]].compared
    table = Table("run", *names, f"ahead in {names[0]} by", "95 % interval", box=None, pad_edge=False)
    for entry in [document | document["run"], *document["against"]]:
        ahead = entry.get("difference", {}).get(names[0])
        table.add_row(
            escape(entry["folder"]),
            *(_value(entry[name]) for name in names),
            *(("", "") if ahead is None or ahead["value"] is None else (f"{ahead['value']:+.3f}", _range(ahead))),
        )
    return table


def _noise_table(document: dict[str, Any]) -> Table:
    """Scores of each run at every amount of noise, and how they differ from those of clean images."""
    names, reduced = SHOWN[document["task"]].compared, _is_reduced(document)
    more = ("G operations", "tokens left") if reduced else ()
    table = Table("run", "noisy pixels", *names, f"change of {names[0]}", "95 % interval", *more, box=None, pad_edge=False)
    for entry in [document | document["run"], *document["against"]]:
        for level in entry["noise"]["levels"]:
            change, found = None if level["change"] is None else level["change"][names[0]], level.get("reduction")
            cost = ("", "") if found is None else (f"{found['operations']['mean'] / 1e9:.4g}", _left(found))
            table.add_row(
                escape(entry["folder"]),
                str(level["pixels"]),
                *(_value(level[name]) for name in names),
                *(("", "") if change is None or change["value"] is None else (f"{change['value']:+.3f}", _range(change))),
                *(cost if reduced else ()),
            )
    return table


def _is_reduced(document: dict[str, Any]) -> bool:
    return any("reduction" in entry for entry in (document, *document["against"]))


def _reduction_table(document: dict[str, Any]) -> Table:
    """What windows cost in runs that take tokens out or merge them, and in the same networks without that."""
    table = Table("run", box=None, pad_edge=False)
    for name in ("reduce", "windows", "G operations", "p5 .. p95", "without", "share", "tokens left", "windows/s"):
        table.add_column(name, no_wrap=True)
    for entry in [document | document["run"], *document["against"]]:
        found, speed = entry.get("reduction"), f"{entry['cost']['windows_per_s']:.3g}"
        if found is None:
            table.add_row(escape(entry["folder"]), "none", "", "", "", "", "", "", speed)
            continue
        mean, low, high, dense = (found["operations"][key] / 1e9 for key in ("mean", "p5", "p95", "dense"))
        table.add_row(
            escape(entry["folder"]),
            entry["reduce"]["method"],
            str(found["windows"]),
            f"{mean:.4g}",
            f"{low:.4g} .. {high:.4g}",
            f"{dense:.4g}",
            f"{mean / dense:.1%}",
            _left(found),
            speed,
        )
    return table


def _left(reduction: dict[str, Any]) -> str:
    """Tokens after each layer, mean and percentiles where windows differ; of many layers the first and the last one."""
    layers = reduction["left"]
    shown = layers if len(layers) <= LAYERS_TOLD else [layers[0], layers[-1]]
    ranges = ["" if one["p5"] == one["p95"] else f" ({one['p5']:.1%} .. {one['p95']:.1%})" for one in shown]
    return ", ".join(f"{one['mean']:.1%}{between} after {one['layer']}" for one, between in zip(shown, ranges, strict=True))


def _cost_table(document: dict[str, Any]) -> Table:
    """What the runs cost."""
    pieces = SHOWN[document["task"]].pieces
    table = Table("run", "model", "parameters", "GMACs", f"{pieces}/s", "training", box=None, pad_edge=False)
    for entry in [document | document["run"], *document["against"]]:
        cost = entry["cost"]
        table.add_row(
            escape(entry["folder"]),
            entry["model"],
            f"{cost['nodes'] / 1e6:.3g} M nodes" if cost["nodes"] else f"{cost['parameters'] / 1e6:.3g} M",
            "-" if cost["macs"] is None else f"{cost['macs'] / 1e9:.3g}",
            f"{cost[f'{pieces}_per_s']:.3g}",
            f"{cost['training_minutes']:.1f} min",
        )
    return table


def _value(entry: dict[str, Any]) -> str:
    return "-" if entry["value"] is None else f"{entry['value']:.3f}"


def _layer_table(layers: Sequence[LayerNumbers]) -> Table:
    """How many tokens each layer leaves."""
    table = Table("layer", "tokens", "left", "share", "p5", "p95", box=None, pad_edge=False)
    for one in layers:
        shares = (f"{share:.1%}" for share in (one.share, one.p5, one.p95))
        table.add_row(str(one.layer), str(one.grid**2), f"{one.left:.4g}", *shares)
    return table


def _attention_table(block: BlockNumbers) -> Table:
    """How even each map is and how much of the image it covers, or how much of what is read is from its token."""
    read = block.without_data is None
    names = (block.by, *(["read"] if read else []), "entropy", "of even", "half in", "90 % in", "most like", "cosine")
    table = Table(*names, box=None, pad_edge=False)
    for one in block.maps:
        table.add_row(
            str(one.number),
            *([f"{one.read:.1%}"] if one.read is not None else []),
            f"{one.entropy_bits:.2f} bits",
            *(f"{share:.1%}" for share in (one.entropy_share, one.half, one.ninety)),
            *(("-", "-") if one.cosine is None else (f"{block.by} {one.closest}", f"{one.cosine:.3f}")),
        )
    return table


def _range(entry: dict[str, Any]) -> str:
    return f"{entry['low']:.3f} .. {entry['high']:.3f}" if "low" in entry else "-"


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None]]:
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=err_console, transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def _training_bar() -> Iterator[Callable[[Any], None]]:
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=err_console, transient=True) as bar:
        task = bar.add_task("training", total=None)

        def tell(progress: Any) -> None:
            best = "" if progress.best is None else f", best {progress.score} {progress.best:.3f}"
            loss = "" if progress.loss is None else f"loss {progress.loss:.3f}"
            text = f"step {progress.step}/{progress.steps} {loss}{best}"
            bar.update(task, completed=progress.step, total=progress.steps, description=text)

        yield tell


if __name__ == "__main__":
    main()
