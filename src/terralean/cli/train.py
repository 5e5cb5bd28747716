"""`terralean train`: one run, or one of each seed."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from terralean.cli.bars import training_bar
from terralean.cli.console import configure_logging, out_console, print_json
from terralean.cli.options import Changes, Device, Json, Verbose, seed_numbers
from terralean.errors import ConfigError, RunError

if TYPE_CHECKING:
    from terralean.train.experiments import AnyExperiment


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, or a .yaml file of your own.", show_default=False)],
    data: Annotated[Path, typer.Option(help="Folder of images and labels, or one scene.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder of the run; the same command again goes on.", show_default=False)],
    changes: Changes = None,
    device: Device = None,
    devices: Annotated[
        int | None,
        typer.Option(help="Processes that train together, each on its GPU or on the CPU. Default: one.", show_default=False),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same as --set seed=N.", show_default=False)] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Train once with each, e.g. 0,1,2, into OUT/seed0, OUT/seed1, ...", show_default=False)
    ] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Train a model; a killed run goes on where it was."""
    configure_logging(verbose)
    import torch

    from terralean import recipes
    from terralean.train.launch import start as start_processes
    from terralean.train.processes import check_count, find_processes
    from terralean.train.run import run

    extra = [] if seed is None else [f"seed={seed}"]
    experiment = recipes.read(recipe, changes=[*(changes or []), *extra])
    if seeds is not None and any(change.startswith("seed=") for change in [*(changes or []), *extra]):
        raise ConfigError("--seeds names every seed; leave --seed and --set seed= out")
    runs = [(experiment, out)] if seeds is None else _runs_of_seeds(experiment, seed_numbers(seeds), out=out)
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
        with training_bar() as tell:
            results.append(run(one, data=data, out=folder, device=device, tell=tell))
    if as_json:
        print_json(asdict(results[0]) if seeds is None else {"seeds": [asdict(result) for result in results]})
        return
    for result in results:
        none = result.validation is None
        score = "no validation split" if none else f"best validation {result.score} {result.validation:.3f}"
        state = "was finished before" if result.already_done else f"{result.minutes:.1f} min"
        out_console.print(f"{result.run}: {result.length}, {score}, {state}", soft_wrap=True)
    out_console.print(f"split: {results[0].split}\nleakage: {results[0].leakage}", soft_wrap=True)


def _runs_of_seeds(experiment: AnyExperiment, seeds: list[int], *, out: Path) -> list[tuple[AnyExperiment, Path]]:
    """One run for each seed, all tested on the same pixels: where nothing else is said, those that seed 0 deals.

    Of hyperspectral pixels each seed deals its own, the same for every recipe. Raises RunError where the folder holds a run of
    another recipe, with whatever seed.
    """
    from terralean.train.folder import check_folder
    from terralean.weights.card import seed_folders

    if (out / "recipe.yaml").exists():
        raise RunError(f"{out} is a run of one seed; give a new folder for --out, runs of several seeds lie side by side in it")
    for seed, folder in seed_folders(out).items():
        check_folder(folder, _with_seed(experiment, seed))
    return [(_with_seed(experiment, seed), out / f"seed{seed}") for seed in seeds]


def _with_seed(experiment: AnyExperiment, seed: int) -> AnyExperiment:
    one: Any = experiment  # all have a split with a seed
    if one.task == "spectral":  # few labels: which ones are drawn is most of what differs, and goes with the seed
        return cast("AnyExperiment", replace(one, seed=seed))
    data = replace(one.data, split=replace(one.data.split, seed=one.data.split.seed or 0))
    return cast("AnyExperiment", replace(one, seed=seed, data=data))
