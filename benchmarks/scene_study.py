"""Scene recognition from few images, each network from scratch in the same time; and what the parts of LeMeViT are worth.

OMP_NUM_THREADS=1 python benchmarks/scene_study.py speed DATA          processor seconds a step of each network
OMP_NUM_THREADS=1 python benchmarks/scene_study.py train DATA RUNS     30 minutes of two cores each; a killed run goes on
python benchmarks/scene_study.py score DATA RUNS                       looks at the test images
OMP_NUM_THREADS=1 python benchmarks/scene_study.py ablations DATA RUNS  variants of LeMeViT-tiny by validation images

DATA is the folder of EuroSAT's images with its index.csv. Time is counted as steps times the processor seconds of a step in
one thread, so that what else the machine does changes nothing; runs side by side keep the cores busy. The networks share
recipe, crops, schedule and batch; what these are was chosen on parts of the training images (docs/experiments.md).
`--method NAME` picks one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch

from terralean import recipes
from terralean.benchmark.files import read_table, write_table
from terralean.evaluate.run import run_evaluation
from terralean.train.run import run

RECIPE = "eurosat_lemevit_tiny"
MINUTES, CORES = 30, 2
RESULTS = Path(__file__).parent / "results"
NETWORKS: dict[str, tuple[str, ...]] = {
    "lemevit_tiny": (),
    "resnet18": ("model.name=classifier", "model.sizes={backbone: resnet18}"),
    "small_cnn": ("model.name=small_cnn", "model.sizes={}"),
}
ABLATIONS: dict[str, tuple[str, ...]] = {
    "as published": (),
    "64 meta tokens": ("model.sizes.meta_tokens=64",),
    "32 meta tokens": ("model.sizes.meta_tokens=32",),
    "8 meta tokens": ("model.sizes.meta_tokens=8",),
    "no cross-attention stage": ("model.sizes.stages=-DDSS",),
    "self-attention for dual": ("model.sizes.stages=CSSSS",),
    "no meta stem": ("model.sizes.meta_stem=none",),
    "fusion by mean": ("model.sizes.fusion=mean",),
    "fusion over tokens": ("model.sizes.fusion=tokens",),
}
ABLATION_EPOCHS = 12
WARM_STEPS = 3


def measure_speed(data: Path, names: tuple[str, ...]) -> None:
    """Processor seconds a step over one epoch of each; the median gives the epochs of the time."""
    path = RESULTS / "eurosat_steps.csv"
    rows: list[dict[str, object]] = [row for row in read_table(path) if row["network"] not in names]
    for name in names:
        seconds = _step_seconds(data, name)
        low, median, high = statistics.quantiles(seconds, n=4)
        rows.append(
            {
                "network": name,
                "cpu_seconds_a_step": round(median, 4),
                "low": round(low, 4),
                "high": round(high, 4),
                "epochs": round(60 * MINUTES * CORES / (median * (len(seconds) + WARM_STEPS))),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
            }
        )
        print(rows[-1])  # noqa: T201 - a script's result
    write_table(rows, path, columns=rows[0])


def train(data: Path, runs: Path, names: tuple[str, ...]) -> None:
    """A tenth of the training images chooses the averaged weights that are kept."""
    epochs = {row["network"]: row["epochs"] for row in read_table(RESULTS / "eurosat_steps.csv")}
    for name in names:
        run(_recipe(*NETWORKS[name], f"train.epochs={epochs[name]}"), data=data, out=runs / name)


def score(runs: Path, names: tuple[str, ...]) -> None:
    """The test images, once for each run; a run that was scored before is read from its evaluation.json."""
    rows = []
    for name in names:
        folder = runs / name
        if not (folder / "card.json").is_file():
            continue
        if not (folder / "evaluation.json").is_file():
            run_evaluation(folder, read=recipes.read_run)
        rows.append({"network": name} | _scores(folder))
        print(rows[-1])  # noqa: T201 - a script's result
    write_table(rows, RESULTS / "eurosat.csv", columns=rows[0])


def ablate(data: Path, runs: Path) -> None:
    """Each variant for as many steps, judged by the validation images."""
    rows = []
    for number, (name, changes) in enumerate(ABLATIONS.items()):
        folder = runs / "ablations" / str(number)
        run(_recipe(*changes, f"train.epochs={ABLATION_EPOCHS}"), data=data, out=folder)
        best = _card(folder)["metrics"]["validation"]
        rows.append({"variant": name, "validation_top1": round(best["top1"], 4), **_cost(folder)})
        print(rows[-1])  # noqa: T201 - a script's result
        write_table(rows, RESULTS / "eurosat_ablations.csv", columns=rows[0])


def _recipe(*changes: str):
    return recipes.read(RECIPE, changes=list(changes))


def _step_seconds(data: Path, name: str) -> list[float]:
    times: list[float] = []
    changes = ("train.epochs=1", "train.warmup_epochs=0", "train.validate_every=1")
    with tempfile.TemporaryDirectory() as folder:
        run(
            _recipe(*NETWORKS[name], *changes),
            data=data,
            out=Path(folder) / "run",
            tell=lambda progress: times.append(time.process_time()),
        )
    return [after - before for before, after in pairwise(times)][WARM_STEPS - 1 :]


def _scores(folder: Path) -> dict[str, object]:
    found = json.loads((folder / "evaluation.json").read_text())
    row: dict[str, object] = {"steps": _card(folder)["training"]["steps"], **_cost(folder)}
    for key in ("OA", "top5", "mF1"):
        row |= {key: round(found[key]["value"], 4), f"{key}_low": round(found[key]["low"], 4)}
        row |= {f"{key}_high": round(found[key]["high"], 4)}
    return row


def _cost(folder: Path) -> dict[str, object]:
    cost = _card(folder)["cost"]
    return {"parameters": cost["parameters"], "macs": cost["macs_layers"] + cost["macs_attention"], "px": cost["macs_at_px"]}


def _card(folder: Path) -> dict:  # type: ignore[type-arg] - a JSON document
    return json.loads((folder / "card.json").read_text())


def main() -> None:
    """Parse and call."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "train", "score", "ablations"))
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path, nargs="?")
    parser.add_argument("--method", choices=NETWORKS, action="append")
    given = parser.parse_args()
    names = tuple(given.method or NETWORKS)
    if given.what == "speed":
        measure_speed(given.data, names)
    elif given.runs is None:
        parser.error("RUNS is missing: the folder in which the runs lie")
    elif given.what == "train":
        train(given.data, given.runs, names)
    elif given.what == "score":
        score(given.runs, names)
    else:
        ablate(given.data, given.runs)


if __name__ == "__main__":
    main()
