"""What the variants of LeMeViT's ablations cost: parameters, MACs, time.

OMP_NUM_THREADS=1 python benchmarks/ablation_costs.py       writes benchmarks/results/ablation_costs_cpu.csv

Each variant is a setting of `lemevit_tiny` and `lemevit_small`; `first block` is the first after S0 at 224 px, whose
costs section 3.4 of the paper compares. Times are processor time of one thread in float32, by the networks as they are trained
(eager) and as `Predictor` runs them (folded), all in each round, each round in another order. MACs of a folded network are what
it computes; by layers and products they are split otherwise, since products take the place of projections.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from terralean.benchmark.files import write_table
from terralean.cost.macs import Macs, count_macs, count_macs_at, parameters
from terralean.cost.timing import TimingConfig, spread, time_interleaved
from terralean.models import create

RESULTS = Path(__file__).parent / "results" / "ablation_costs_cpu.csv"
SIZES = ("tiny", "small")
SETTINGS: tuple[dict[str, int | str], ...] = (
    {},
    {"meta_tokens": 64},
    {"meta_tokens": 32},
    {"meta_tokens": 8},
    {"stages": "-DDSS"},
    {"stages": "CSSSS"},
    {"meta_stem": "none"},
    {"fusion": "mean"},
    {"fusion": "tokens"},
)
META_TOKENS = 16
GRID = 56  # side of the first block's map at 224 px


class Variant(NamedTuple):
    """One row of the table, eager or folded."""

    model: str
    setting: str
    mode: str
    macs: Macs
    parameters: int
    run: Callable[[], object]

    @property
    def label(self) -> str:
        """Its name among all."""
        return f"{self.model} {self.setting} {self.mode}"


def variants(size: str, *, batch: int) -> Iterator[Variant]:
    """Whole networks with each setting, then first blocks with dual attention and with self-attention."""
    image = torch.randn(batch, 3, 4 * GRID, 4 * GRID, generator=torch.Generator().manual_seed(0))
    for setting in SETTINGS:
        told = ", ".join(f"{name}={value}" for name, value in setting.items()) or "as published"
        model = create(f"lemevit_{size}", bands=3, classes=1000, **setting).eval()
        for mode, network in (("eager", model), ("folded", model.fold())):
            macs = count_macs_at(network, (1, *image.shape[1:]))
            yield Variant(f"lemevit_{size}", told, mode, macs, parameters(model), _call(network, image))
    for stages in ("CDDSS", "CSSSS"):
        model = create(f"lemevit_{size}", bands=3, classes=0, stages=stages).eval()
        for mode, network in (("eager", model), ("folded", model.fold())):
            yield _first_block(f"lemevit_{size}", stages, mode, network, plain=model, batch=batch)


def _first_block(name: str, stages: str, mode: str, network: nn.Module, *, plain: nn.Module, batch: int) -> Variant:
    width = plain.config.dims[1]
    image = torch.randn(batch, width, GRID, GRID).contiguous(memory_format=torch.channels_last)
    meta = torch.randn(batch, META_TOKENS, width)
    block, told = network.stages[1][0], f"first block, stages={stages}"
    macs = count_macs(block, image[:1], meta[:1])
    return Variant(name, told, mode, macs, parameters(plain.stages[1][0]), _call(block, image, meta))


def _call(network: nn.Module, *inputs: Tensor) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return network(*inputs)

    return run


def rows(size: str, *, batch: int, rounds: int) -> list[dict[str, object]]:
    """Measured."""
    built = list(variants(size, batch=batch))
    timing = TimingConfig(rounds=rounds, seconds=0.1, warm_up=1)
    timings = time_interleaved({one.label: one.run for one in built}, config=timing, order=random.Random(0)).timings
    table: list[dict[str, object]] = []
    for one in built:
        low, median, high = (f"{1e3 * value / batch:.2f}" for value in spread(timings[one.label].processor_s))
        table.append(
            {"model": one.model, "setting": one.setting, "mode": one.mode, "parameters": one.parameters}
            | {"macs_layers": one.macs.layers, "macs_attention": one.macs.attention}
            | {"processor_ms": median, "processor_ms_low": low, "processor_ms_high": high}
            | {"batch": batch, "size_px": 4 * GRID, "precision": "fp32", "threads": 1, "rounds": rounds}
            | {"torch": torch.__version__}
        )
    return table


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=SIZES, default=SIZES)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--csv", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    table = [row for size in args.model for row in rows(size, batch=args.batch, rounds=args.rounds)]
    write_table(table, args.csv, columns=table[0])
    for row in table:
        sys.stdout.write(f"{row['model']:<16}{row['setting']:<30}{row['mode']:<8}{row['processor_ms']:>10} ms\n")


if __name__ == "__main__":
    main()
