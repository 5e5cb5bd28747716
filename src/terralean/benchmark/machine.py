"""The machine, and how fast it multiplies matrices: what the speed of a model is measured against."""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import timm
import torch
import torch.nn.functional as F

import terralean
from terralean.benchmark.config import DTYPES, Workload
from terralean.cost.timing import Timing, spread

SQUARE = {"cpu": 1024, "cuda": 4096}  # side of matrices large enough to keep the device busy
# The widening product of LeMeViT-tiny's third stage, where most of its work is: all tokens, from 192 channels to 768.
TOKEN_PX, NARROW, WIDE = 16, 192, 768


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Where a benchmark ran."""

    device: str  # as its maker calls it
    processor: str
    instructions: str  # that PyTorch uses on the CPU, e.g. AVX512
    threads: int  # of PyTorch, on the CPU
    tf32: bool | None  # whether "fp32" convolutions may be computed with 10 bits of mantissa; None: not on CUDA
    system: str
    python: str
    torch: str  # versions
    timm: str
    terralean: str


class Product(NamedTuple):
    """One matrix product (rows x inner) @ (inner x columns)."""

    name: str  # square, or lemevit
    precision: str
    rows: int
    inner: int
    columns: int

    @property
    def label(self) -> str:
        """Its name among all that is timed."""
        return f"product {self.name} {self.precision}"


class Rate(NamedTuple):
    """How fast a product was: 2 operations for each multiply-accumulate, median and quartiles over rounds."""

    product: Product
    gflops: float
    gflops_low: float
    gflops_high: float


def describe(device: torch.device) -> Machine:
    """Facts of the machine and its software."""
    cuda = device.type == "cuda"
    return Machine(
        device=torch.cuda.get_device_name(device) if cuda else _processor(),
        processor=_processor(),
        instructions=torch.backends.cpu.get_cpu_capability(),
        threads=torch.get_num_threads(),
        tf32=torch.backends.cudnn.allow_tf32 if cuda else None,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        torch=torch.__version__,
        timm=timm.__version__,
        terralean=terralean.__version__,
    )


def threads(machine: Machine) -> str:
    """How many the CPU works with, in words."""
    return f"{machine.threads} CPU thread{'s' if machine.threads > 1 else ''}"


def products(workloads: Collection[Workload], precisions: Iterable[str], device: torch.device) -> Iterator[Product]:
    """A square product, and one of LeMeViT's shape for the largest of the workloads, in each precision; none without any."""
    if not workloads:
        return
    side = SQUARE.get(device.type, SQUARE["cpu"])
    tokens = max(batch * -(-size.height_px // TOKEN_PX) * -(-size.width_px // TOKEN_PX) for batch, size in workloads)
    for precision in precisions:
        yield Product("square", precision, side, side, side)
        yield Product("lemevit", precision, tokens, NARROW, WIDE)


def product_call(product: Product, *, device: torch.device, seed: int) -> Callable[[], object]:
    """The product on random matrices that are already on the device, as a linear layer computes it."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (
        torch.randn(shape, generator=generator).to(device, DTYPES[product.precision])
        for shape in ((product.rows, product.inner), (product.columns, product.inner))
    )

    def run() -> object:
        with torch.inference_mode():
            return F.linear(left, right)

    return run


def rate(product: Product, timing: Timing) -> Rate:
    """Operations a second of a product that was timed."""
    billions = 2 * product.rows * product.inner * product.columns / 1e9
    quick, median, slow = spread(timing.wall_s)
    return Rate(product, gflops=billions / median, gflops_low=billions / slow, gflops_high=billions / quick)


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
