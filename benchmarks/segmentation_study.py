"""LeMeViT beside its rivals on small real data sets: the same pixels, splits, crops and minutes, three seeds each.

OMP_NUM_THREADS=1 python benchmarks/segmentation_study.py speed dubai DATA    processor seconds a step of each method
OMP_NUM_THREADS=1 python benchmarks/segmentation_study.py train dubai DATA RUNS   whatever is missing; a killed run goes on
python benchmarks/segmentation_study.py score dubai DATA RUNS                     looks at the test images
terralean evaluate RUNS/lemevit_tiny_light --against RUNS/unet_resnet18           the paired differences

DATA is the folder of the data set, with its index.csv. Each method has the same time on two cores for each of its three seeds,
10 minutes on Dubai, 5 on the smaller Sentinel-2 set. That is counted in processor time, as steps times seconds a step in one
thread, so that what else the machine does changes nothing; two runs side by side keep two cores busy. `--method NAME` and
`--seed N` pick a part.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch

from terralean import recipes
from terralean.benchmark.files import read_table, write_table
from terralean.evaluate.run import run_evaluation
from terralean.train.run import run

CORES = 2
SEEDS = (0, 1, 2)
RESULTS = Path(__file__).parent / "results"
NETWORKS = ("lemevit_tiny_light", "lemevit_tiny_upernet", "unet_resnet18", "unetformer_resnet18", "factseg_resnet50")
FOREST = "random_forest"
WARM_STEPS, TIMED_STEPS, ROUNDS = 2, 6, 3


@dataclass(frozen=True, kw_only=True)
class Study:
    """What all methods share on one data set. Chosen on parts of the training images (docs/experiments.md)."""

    minutes: int  # of two cores, for each seed
    data: tuple[str, ...]
    train: tuple[str, ...]
    own: dict[str, tuple[str, ...]]  # what a method needs beside its recipe


STUDIES = {
    "dubai": Study(
        minutes=10,
        data=(
            "data.classes=[building, land, road, vegetation, water]",
            "data.group=tile[0-9]+",
            "data.split.validation=0",
        ),
        train=(
            "model.shrink=2",
            "data.augment.zoom=[0.7, 1.4]",
            "data.augment.brightness=0",
            "data.augment.contrast=0",
            "train.precision=bf16",
        ),
        own={"factseg_resnet50": ("model.sizes.background=1",)},  # land
    ),
    "s2_india": Study(
        minutes=5,
        data=("data.classes=[built-up, vegetation, water]", "data.split.validation=0"),
        train=("model.shrink=2", "data.augment.zoom=[0.7, 1.4]", "train.precision=bf16"),
        own={"factseg_resnet50": ("model.sizes.background=0",)},  # built-up, the commonest
    ),
}


def measure_speed(name: str, data: Path, methods: tuple[str, ...]) -> None:
    """Processor seconds a step, all methods in turn, several rounds; the median gives the steps of the time."""
    seconds: dict[str, list[float]] = {method: [] for method in methods}
    for _ in range(ROUNDS):
        for method in methods:
            seconds[method] += _step_seconds(name, data, method)
    path = RESULTS / f"segmentation_{name}_steps.csv"
    rows: list[dict[str, object]] = [row for row in read_table(path) if row["method"] not in methods]
    for method, values in seconds.items():
        low, median, high = statistics.quantiles(values, n=4)
        rows.append(
            {
                "data": name,
                "method": method,
                "cpu_seconds_a_step": round(median, 3),
                "low": round(low, 3),
                "high": round(high, 3),
                "steps": int(round(60 * STUDIES[name].minutes * CORES / median, -1)),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
            }
        )
        print(rows[-1])  # noqa: T201 - a script's result
    write_table(rows, path, columns=rows[0])


def train(name: str, data: Path, runs: Path, methods: tuple[str, ...], seeds: tuple[int, ...]) -> None:
    """Seed by seed, so that what is finished can be compared."""
    for seed in seeds:
        for method in methods:
            steps = () if method == FOREST else _schedule(name, method)
            run(
                recipes.read(method, changes=_changes(name, method, seed, *steps)), data=data, out=runs / method / f"seed{seed}"
            )


def score(name: str, runs: Path, methods: tuple[str, ...], seeds: tuple[int, ...]) -> None:
    """The test images, once for each run; rows of a run that was scored before are taken from its evaluation.json."""
    rows = []
    for method in methods:
        for seed in seeds:
            folder = runs / method / f"seed{seed}"
            if not (folder / "card.json").is_file():
                continue
            if not (folder / "evaluation.json").is_file():
                run_evaluation(folder, read=recipes.read_run, precision="fp32" if method == FOREST else "bf16")
            rows.append(_row(method, seed, folder))
            print(rows[-1])  # noqa: T201 - a script's result
    write_table(rows, RESULTS / f"segmentation_{name}.csv", columns=rows[0])


def _step_seconds(name: str, data: Path, method: str) -> list[float]:
    times: list[float] = []
    steps = WARM_STEPS + TIMED_STEPS
    changes = _changes(name, method, 0, f"train.steps={steps}", f"train.validate_every={steps}", "train.warmup_steps=1")
    with tempfile.TemporaryDirectory() as folder:
        run(
            recipes.read(method, changes=changes),
            data=data,
            out=Path(folder) / "run",
            tell=lambda progress: times.append(time.process_time()),
        )
    return [after - before for before, after in pairwise(times)][WARM_STEPS - 1 :]


def _changes(name: str, method: str, seed: int, *more: str) -> list[str]:
    study = STUDIES[name]
    network = () if method == FOREST else study.train
    return [*study.data, *network, *study.own.get(method, ()), f"seed={seed}", *more]


def _schedule(name: str, method: str) -> tuple[str, str, str]:
    """Steps as measured. Nothing is validated: an epoch is only where a killed run goes on."""
    measured = read_table(RESULTS / f"segmentation_{name}_steps.csv")
    steps = next(int(row["steps"]) for row in measured if row["method"] == method)
    return f"train.steps={steps}", f"train.warmup_steps={min(50, max(1, steps // 10))}", f"train.validate_every={steps // 10}"


def _row(method: str, seed: int, folder: Path) -> dict[str, object]:
    found = json.loads((folder / "evaluation.json").read_text())
    card = json.loads((folder / "card.json").read_text())
    row: dict[str, object] = {"method": method, "seed": seed, "steps": card["training"]["steps"]}
    for key in ("mIoU", "OA", "mF1"):
        row |= {key: round(found[key]["value"], 4), f"{key}_low": round(found[key]["low"], 4)}
        row |= {f"{key}_high": round(found[key]["high"], 4)}
    return row | {f"IoU {entry['name']}": round(entry["IoU"]["value"], 4) for entry in found["classes"]}


def main() -> None:
    """Parse and call."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "train", "score"))
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path, nargs="?")
    parser.add_argument("--method", choices=(*NETWORKS, FOREST), action="append")
    parser.add_argument("--seed", type=int, choices=SEEDS, action="append")
    given = parser.parse_args()
    seeds = tuple(given.seed or SEEDS)
    if given.what == "speed":
        measure_speed(given.study, given.data, tuple(given.method or NETWORKS))
    elif given.runs is None:
        parser.error("RUNS is missing: the folder in which the runs lie")
    elif given.what == "train":
        train(given.study, given.data, given.runs, tuple(given.method or (*NETWORKS, FOREST)), seeds)
    else:
        score(given.study, given.runs, tuple(given.method or (*NETWORKS, FOREST)), seeds)


if __name__ == "__main__":
    main()
