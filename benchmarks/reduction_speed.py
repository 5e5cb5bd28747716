"""Does taking tokens out save time? ViT-B/16 with an attention-to-mask head at 512 px, dense and by MATP, on real images.

python benchmarks/reduction_speed.py IMAGE...     rows of results/reduction_speed_cpu.csv; keep the machine quiet meanwhile

Weights are random: what matters for time is how many tokens are left. At the `--alpha` and `--beta` that stand here as defaults
these are about as many as in the publication's trained networks (34 G; Zhang & Yao 2025, table 3). MATP runs in the three ways
that there are, and with a fixed number of tokens; random pruning has the counts of MATP's own images.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import torch

from terralean.benchmark.files import write_table
from terralean.benchmark.on_images import ImagesConfig, count, read_images, run
from terralean.models import create
from terralean.predict import load
from terralean.spec import Bands, Classes, Normalisation
from terralean.tokens.chance import RandomConfig
from terralean.tokens.matp import MATPConfig
from terralean.tokens.topk import TopKConfig
from terralean.weights.card import Card, Training
from terralean.weights.checkpoint import save_checkpoint

RESULTS = Path(__file__).parent / "results"
CLASSES = tuple("abcdef")
COUNTS = (205, 41, 8)  # tokens of the fixed form after each point


def untrained(folder: Path, *, execution: str, matp: MATPConfig) -> Path:
    """A checkpoint with random weights, the same for every way of running."""
    torch.manual_seed(0)
    sizes = {"execution": execution}
    model = create("vit_base_segvit", bands=3, classes=len(CLASSES), reduce=matp, **sizes)
    card = Card(
        version="0",
        task="segmentation",
        model="vit_base_segvit",
        sizes=sizes,
        reduce=matp,
        bands=Bands(names=("red", "green", "blue")),
        normalisation=Normalisation(mean=(127.5,) * 3, std=(127.5,) * 3),
        classes=Classes.named(CLASSES),
        tile_px=512,
        overlap_px=0,
        training=Training(data="none", images=0, split="none", leakage="none", steps=0, minutes=0.0, seed=0),
    )
    save_checkpoint(model, card, folder)
    return folder


def measure(given: argparse.Namespace, folder: Path) -> list[dict[str, object]]:
    """Rows, named by the way of running."""
    matp = MATPConfig(after=tuple(given.after), alpha=given.alpha, beta=given.beta)
    runs = {way: untrained(folder / way, execution=way, matp=matp) for way in ("packed", "padded", "masked")}
    config = ImagesConfig(
        runs=tuple(runs.values()),
        scenes=tuple(given.scenes),
        images=given.images,
        batches=tuple(given.batch),
        precisions=tuple(given.precision),
        rounds=given.rounds,
        device=given.device,
    )
    found = count(load(runs["packed"], device=given.device), read_images(runs["packed"], config))
    fixed = TopKConfig(after=matp.after, counts=COUNTS[-len(matp.after) :], by="both")
    chance = RandomConfig(after=matp.after, images=tuple(zip(*found.left.values(), strict=True)))
    report = run(replace(config, reductions=("own", fixed, chance)), progress=lambda done, total: print(done, total, end="\r"))  # noqa: T201
    return [
        {**asdict(row), "run": Path(row.run).name, "settings": "" if row.method == "random" else row.settings}
        for row in report.rows
        if Path(row.run).name == "packed" or row.method == "matp"
    ]


def main() -> None:
    """Parse, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", nargs="+")
    parser.add_argument("--after", type=int, nargs="+", default=[3, 6, 8])
    parser.add_argument("--alpha", type=float, default=0.9)
    parser.add_argument("--beta", type=float, default=2.0)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(given, Path(folder))
    path = RESULTS / f"reduction_speed_{given.device.partition(':')[0]}.csv"
    write_table(rows, path, columns=rows[0])
    for row in rows:
        told = ("run", "method", "precision", "batch", "operations_g", "tokens_left", "images_per_s", "speed")
        print(*(row[name] for name in told))  # noqa: T201 - a script's result


if __name__ == "__main__":
    main()
