"""Methods of token reduction on small real data: what each costs, what it spares, beside random pruning at the same cost.

OMP_NUM_THREADS=1 python benchmarks/reduction_study.py train vit DATA RUNS     whatever is missing; a killed run goes on
python benchmarks/reduction_study.py score vit DATA RUNS                       looks at the test images
python benchmarks/reduction_study.py speed vit DATA RUNS                       images/s, interleaved; keep the machine quiet

DATA is the folder of the Dubai set, with its index.csv; vit, swin or lemevit is the network. One network is trained dense. From
it every method is fine-tuned with the same steps and seeds, and so is the dense network itself. Methods that are not MATP get
the strength at which they take as many operations on training images as MATP's first row, but DToP, which has its published
confidence; random pruning has MATP's own counts of tokens, image by image, and no heads to grade them. Nothing is chosen by
accuracy.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from terralean import recipes
from terralean.benchmark.files import write_table
from terralean.benchmark.on_images import Images, ImagesConfig, count, read_images
from terralean.benchmark.on_images import run as measure
from terralean.evaluate.run import run_evaluation
from terralean.predict import load
from terralean.tokens import Reduction
from terralean.tokens.algm import ALGMConfig
from terralean.tokens.chance import RandomConfig
from terralean.tokens.dtop import DToPConfig
from terralean.tokens.elvit import ELViTConfig
from terralean.tokens.matp import MATPConfig
from terralean.tokens.sparsevit import SparseViTConfig
from terralean.tokens.tome import ToMeConfig
from terralean.train.run import run

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1, 2)
DATA = (
    "data.classes=[building, land, road, vegetation, water]",
    "data.group=tile[0-9]+",
    "data.split.validation=0",
    *("data.tile_px=512", "tiling.tile_px=512", "tiling.overlap_px=128", "model.shrink=2"),
    *("data.augment.zoom=[0.7, 1.4]", "data.augment.brightness=0", "data.augment.contrast=0", "train.precision=bf16"),
)
COUNTED_IMAGES = 12  # training windows on which strengths are matched
CLOSE = 0.01  # of operations, where a strength can be set that finely


@dataclass(frozen=True, kw_only=True)
class Network:
    """What is trained dense, and what is tried on it."""

    recipe: str
    changes: tuple[str, ...]
    steps: int  # dense
    fine_tuning: int
    target: MATPConfig
    other: MATPConfig
    methods: dict[str, Callable[[float], Reduction]]  # by name, from strength in 0 to 1


def after_two_shares(strength: float) -> tuple[float, ...]:
    """Of windows left out, for Swin-T: as published, scaled."""
    return tuple(min(0.8, round(strength * ratio, 1)) for ratio in (0.6, 0.0, 0.4, 0.8, 1.0, 0.0))


NETWORKS = {
    "vit": Network(
        recipe="vit_tiny_segvit",
        changes=("train.lr=0.0005",),
        steps=1500,
        fine_tuning=200,
        target=MATPConfig(after=(6, 8)),
        other=MATPConfig(after=(3, 6, 8)),
        methods={
            "tome": lambda strength: ToMeConfig(r=round(40 * strength)),
            "dtop": lambda strength: DToPConfig(
                after=(6, 8)
            ),  # how sure its heads will be is not known before they have learned
            "algm": lambda strength: ALGMConfig(threshold=1 - strength),
            "elvit": lambda strength: ELViTConfig(after=(5,), side=1 - 0.9 * strength),
        },
    ),
    "swin": Network(
        recipe="lemevit_tiny_light",
        changes=("model.name=light", "model.sizes={backbone: swin_tiny_patch4_window7_224, drop_path: 0.1}", "train.lr=0.0005"),
        steps=500,
        fine_tuning=80,
        target=MATPConfig(after=(6, 11)),
        other=MATPConfig(after=(3, 6, 8)),
        methods={
            "sparsevit": lambda strength: SparseViTConfig(ratios=after_two_shares(strength)),
            "elvit": lambda strength: ELViTConfig(after=(5,), side=1 - 0.9 * strength),
        },
    ),
    "lemevit": Network(
        recipe="lemevit_tiny_light",
        changes=(),
        steps=900,
        fine_tuning=120,
        target=MATPConfig(after=(3, 5)),
        other=MATPConfig(after=(2, 4, 6)),
        methods={"tome": lambda strength: ToMeConfig(r=round(60 * strength))},
    ),
}


def train(network: Network, data: Path, runs: Path, seeds: tuple[int, ...]) -> None:
    """Dense, then each method from it; what others are matched with comes first."""
    dense = runs / "dense"
    run(_experiment(network, steps=network.steps), data=data, out=dense)
    for seed in seeds:
        for name, reduce in _methods(network, dense, data, runs):
            changes = [f"model.weights={dense}", "train.lr=0.0001", "train.warmup_steps=10", f"seed={seed}"]
            experiment = _experiment(network, steps=network.fine_tuning, changes=changes)
            run(replace(experiment, reduce=reduce), data=data, out=runs / name / f"seed{seed}")


def score(name: str, runs: Path, seeds: tuple[int, ...]) -> None:
    """The test images, once for each run; what was scored before is taken from its evaluation.json."""
    rows = []
    for folder in sorted(path for path in runs.glob("*/seed*") if int(path.name[4:]) in seeds):
        if not (folder / "evaluation.json").is_file():
            run_evaluation(folder, read=recipes.read_run, precision="bf16")
        found = json.loads((folder / "evaluation.json").read_text())
        values = {f"{key}{end}": round(found[key][part], 4) for key in ("mIoU", "OA", "mF1") for part, end in PARTS.items()}
        rows.append({"network": name, "method": folder.parent.name, "seed": int(folder.name[4:]), **values})
        print(rows[-1])  # noqa: T201 - a script's result
    write_table(rows, RESULTS / f"reduction_{name}.csv", columns=rows[0])


PARTS = {"value": "", "low": "_low", "high": "_high"}


def speed(name: str, data: Path, runs: Path) -> None:
    """Operations, tokens left, images/s and memory on the test images, seed 0 of each method, all interleaved."""
    folders = tuple(sorted(path.parent / "seed0" for path in runs.glob("*/seed0")))
    config = ImagesConfig(runs=folders, scenes=tuple(_images(data, "test")), images=16, batches=(1, 8), device="cpu")
    rows = [asdict(row) for row in measure(config).rows]
    named = [{**row, "run": Path(row["run"]).parent.name} for row in rows]
    own = [row for row in named if row["method"] != "none" or row["run"] == "dense_on"]
    write_table(own, RESULTS / f"reduction_{name}_speed.csv", columns=own[0])


def _methods(network: Network, dense: Path, data: Path, runs: Path) -> Iterator[tuple[str, Reduction | None]]:
    """Names and configs in the order in which they can be known."""
    yield "dense_on", None
    yield "matp", network.target
    yield "matp_early", network.other
    images = read_images(dense, ImagesConfig(runs=(dense,), scenes=tuple(_images(data, "train")), images=COUNTED_IMAGES))
    for name, like in (("random", "matp"), ("random_early", "matp_early")):
        yield name, _by_chance(runs / like / "seed0", images)
    wanted = float(np.mean(count(load(runs / "matp" / "seed0", device="cpu"), images).operations))
    for name, of in network.methods.items():
        yield name, _matched(dense, of, images, wanted=wanted)


def _by_chance(folder: Path, images: Images) -> RandomConfig:
    """As many tokens as another run leaves, image by image."""
    left = count(load(folder, device="cpu"), images).left
    lines = tuple(tuple(round(share, 6) for share in line) for line in zip(*left.values(), strict=True))
    return RandomConfig(after=tuple(left), images=lines)


def _matched(dense: Path, of: Callable[[float], Reduction], images: Images, *, wanted: float) -> Reduction:
    """The strength at which a method takes so many operations, found by halving."""
    low, high, best, error = 0.0, 1.0, of(0.5), float("inf")
    for _ in range(8):
        reduce = of((low + high) / 2)
        if isinstance(reduce, DToPConfig):
            return reduce
        found = float(np.mean(count(load(dense, device="cpu", reduce=reduce), images).operations))
        if abs(found / wanted - 1) < error:
            best, error = reduce, abs(found / wanted - 1)
        if error < CLOSE:
            break
        low, high = ((low + high) / 2, high) if found > wanted else (low, (low + high) / 2)
    return best


def _experiment(network: Network, *, steps: int, changes: list[str] | None = None) -> Any:
    schedule = [f"train.steps={steps}", f"train.validate_every={max(1, steps // 5)}"]
    return recipes.read(network.recipe, changes=[*DATA, *network.changes, *schedule, *(changes or [])])


def _images(data: Path, split: str) -> list[str]:
    with (data / "index.csv").open(newline="") as file:
        return [str(data / row["path"]) for row in csv.DictReader(file) if row["split"] == split]


def main() -> None:
    """Parse and call."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "score", "speed"))
    parser.add_argument("network", choices=sorted(NETWORKS))
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--seed", type=int, choices=SEEDS, action="append")
    given = parser.parse_args()
    seeds = tuple(given.seed or SEEDS)
    if given.what == "train":
        train(NETWORKS[given.network], given.data, given.runs, seeds)
    elif given.what == "score":
        score(given.network, given.runs, seeds)
    else:
        speed(given.network, given.data, given.runs)


if __name__ == "__main__":
    main()
