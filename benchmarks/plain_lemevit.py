"""LeMeViT as a straightforward reader of the paper would write it, and how much faster ours is.

OMP_NUM_THREADS=1 python benchmarks/plain_lemevit.py                    writes benchmarks/results/plain_cpu.csv
OMP_NUM_THREADS=1 python benchmarks/plain_lemevit.py --model small --precision bf16 --rounds 5

The plain network works on maps (B, C, H, W) in channels-first memory and on tokens (B, N, C) made from them and back in every
block. Every projection is a linear layer of its own, attention is the softmax of a product, image and meta tokens pass the
feed-forward each by itself, batch norms are layers. It takes our state dict, and its logits equal ours to 1e-5.

Measured is the processor time of a forward pass in one thread, all implementations in each round, each round in another order:
`plain`; `eager`, our network as it is trained; `folded`, as `Predictor` runs it. The rate of the machine in matrix products is
measured in the same rounds, and stands beside the rate that each implementation reaches, by the published count of MACs and
the products of attention.
"""

from __future__ import annotations

import argparse
import copy
import math
import platform
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from terralean.benchmark.files import write_table
from terralean.cost.macs import count_macs_at
from terralean.cost.timing import TimingConfig, spread, time_interleaved
from terralean.models import lemevit
from terralean.models.lemevit import LeMeViT, LeMeViTConfig

RESULTS = Path(__file__).parent / "results" / "plain_cpu.csv"
SIZES = {"tiny": lemevit.tiny, "small": lemevit.small, "base": lemevit.base}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
GEMM_SIDE = 2048
TOLERANCE = 1e-5  # of the plain float32 logits against ours, relative


class PlainLeMeViT(nn.Module):
    """(B, bands, H, W) -> logits (B, classes)."""

    def __init__(self, config: LeMeViTConfig) -> None:
        super().__init__()
        dims = config.dims
        self.meta_tokens = nn.Parameter(torch.empty(config.meta_tokens, dims[0]))
        stem = nn.Sequential(
            nn.Conv2d(config.bands, dims[0] // 2, 3, stride=2, padding=1),
            nn.BatchNorm2d(dims[0] // 2),
            nn.GELU(),
            nn.Conv2d(dims[0] // 2, dims[0], 3, stride=2, padding=1),
            nn.BatchNorm2d(dims[0]),
        )
        halves = [
            nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after))
            for before, after in pairwise(dims[1:])
        ]
        self.downsample_layers = nn.ModuleList([stem, nn.Identity(), *halves])
        self.meta_token_downsample = nn.ModuleList(
            nn.Sequential(nn.Linear(i, 4 * i), nn.LayerNorm(4 * i), nn.GELU(), nn.Linear(4 * i, o), nn.LayerNorm(o))
            for i, o in zip((dims[0], *dims[:-1]), dims, strict=True)
        )
        kinds = (CrossAttention, DualCrossAttention, DualCrossAttention, SelfAttention, SelfAttention)
        self.stages = nn.ModuleList(
            nn.ModuleList(Block(dim, kind(dim, dim // config.head_dim)) for _ in range(depth))
            for depth, dim, kind in zip(config.depths, dims, kinds, strict=True)
        )
        self.norm, self.norm_c = nn.BatchNorm2d(dims[-1]), nn.LayerNorm(dims[-1])
        self.head = nn.Linear(dims[-1], config.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        c = self.meta_tokens.repeat(x.shape[0], 1, 1)
        for downsample, transform, blocks in zip(self.downsample_layers, self.meta_token_downsample, self.stages, strict=True):
            x, c = downsample(x), transform(c)
            for block in blocks:
                x, c = block(x, c)
        x = self.norm(x).flatten(2).mean(dim=2)
        c = self.norm_c(c).mean(dim=1)
        return self.head(x + c)


class Block(nn.Module):
    """Positional convolution, attention, feed-forward."""

    def __init__(self, dim: int, attention: nn.Module) -> None:
        super().__init__()
        self.pos_embed = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = attention
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.Identity(), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, image: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """image (B, C, H, W), c (B, M, C)."""
        batch, channels, height, width = image.shape
        x = (image + self.pos_embed(image)).flatten(2).transpose(1, 2)
        for_x, for_c = self.attn(self.norm1(x), self.norm1(c))
        c = c + for_c
        c = c + self.mlp(self.norm2(c))
        if for_x is None:
            return image, c
        x = x + for_x
        x = x + self.mlp(self.norm2(x))
        return x.transpose(1, 2).reshape(batch, channels, height, width), c


class CrossAttention(nn.Module):
    """Meta tokens read the image."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor, c: Tensor) -> tuple[None, Tensor]:
        """x (B, N, C), c (B, M, C)."""
        return None, self.proj(attend(self.q(c), self.k(x), self.v(x), heads=self.heads, scale=self.scale))


class DualCrossAttention(nn.Module):
    """The image reads meta tokens and meta tokens read the image."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, dim**-0.5
        self.q1, self.k1, self.v1, self.proj_x = (nn.Linear(dim, dim) for _ in range(4))
        self.q2, self.k2, self.v2, self.proj_c = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, N, C), c (B, M, C)."""
        ratio = math.log(c.shape[1]) / math.log(x.shape[1])
        for_x = attend(self.q1(x), self.k2(c), self.v2(c), heads=self.heads, scale=ratio * self.scale)
        for_c = attend(self.q2(c), self.k1(x), self.v1(x), heads=self.heads, scale=self.scale)
        return self.proj_x(for_x), self.proj_c(for_c)


class SelfAttention(nn.Module):
    """Image tokens read image tokens, meta tokens read meta tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, N, C), c (B, M, C)."""
        return self._read(x), self._read(c)

    def _read(self, x: Tensor) -> Tensor:
        return self.proj(attend(self.q(x), self.k(x), self.v(x), heads=self.heads, scale=self.scale))


def attend(query: Tensor, key: Tensor, value: Tensor, *, heads: int, scale: float) -> Tensor:
    """(B, N, C), (B, M, C), (B, M, C) -> (B, N, C)."""
    query, key, value = (t.reshape(*t.shape[:2], heads, -1).transpose(1, 2) for t in (query, key, value))
    weights = (query @ key.transpose(-2, -1) * scale).softmax(dim=-1)
    return (weights @ value).transpose(1, 2).reshape(query.shape[0], query.shape[2], -1)


def unpacked(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict with a layer for each projection."""
    found = {}
    for name, tensor in state.items():
        *before, layer, kind = ["", *name.split(".")]
        letters = layer.rstrip("12")
        if letters not in ("qkv", "kv"):
            found[name] = tensor
            continue
        for letter, part in zip(letters, tensor.chunk(len(letters)), strict=True):
            found[".".join([*before[1:], letter + layer.removeprefix(letters), kind])] = part
    return found


class Implementation(NamedTuple):
    """One thing to time."""

    name: str
    precision: str
    network: nn.Module

    @property
    def label(self) -> str:
        """Its name among all."""
        return f"{self.name} {self.precision}"


def implementations(config: LeMeViTConfig, *, precisions: list[str], seed: int) -> Iterator[Implementation]:
    """All of them in all precisions, with the same weights."""
    torch.manual_seed(seed)
    ours = LeMeViT(config).eval()
    for part in ours.modules():  # as after training, so that a norm that is left out would be seen
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    plain = PlainLeMeViT(config).eval()
    plain.load_state_dict(unpacked(ours.state_dict()))
    for precision in precisions:
        cast, plain_cast = (copy.deepcopy(network).to(PRECISIONS[precision]) for network in (ours, plain))
        yield Implementation("plain", precision, plain_cast)
        yield Implementation("eager", precision, cast)
        yield Implementation("folded", precision, cast.fold())


def measure(args: argparse.Namespace, model: str) -> list[dict[str, object]]:
    """Rows of the table."""
    config = SIZES[model]()
    image = torch.randn(args.batch, 3, args.px, args.px, generator=torch.Generator().manual_seed(args.seed))
    built = list(implementations(config, precisions=args.precision, seed=args.seed))
    calls = {one.label: _call(one.network, image.to(PRECISIONS[one.precision])) for one in built}
    errors = _errors(calls)
    calls |= {f"gemm {precision}": _gemm(PRECISIONS[precision]) for precision in args.precision}
    timing = TimingConfig(rounds=args.rounds, seconds=0.1, warm_up=1)
    timed = time_interleaved(calls, config=timing, order=random.Random(args.seed)).timings
    seconds = {label: timing.processor_s for label, timing in timed.items()}
    operations = 2 * args.batch * count_macs_at(LeMeViT(config), (1, *image.shape[1:])).total
    shared = {"batch": args.batch, "size_px": args.px, "device": _processor(), "threads": torch.get_num_threads()}
    return [
        {"model": f"lemevit_{model}", "implementation": one.name, "precision": one.precision}
        | shared
        | {"torch": torch.__version__, "rounds": args.rounds, "relative_error": f"{errors[one.label]:.1e}"}
        | _speeds(one, seconds, batch=args.batch, operations=operations)
        for one in built
    ]


def _speeds(one: Implementation, seconds: Mapping[str, tuple[float, ...]], *, batch: int, operations: int) -> dict[str, str]:
    """Milliseconds an image, times as fast as the plain network by round, and rates of products in 1e9 operations a second."""
    own, plain = seconds[one.label], seconds[f"plain {one.precision}"]
    low, median, high = (1e3 * value / batch for value in spread(own))
    faster = spread(tuple(p / s for p, s in zip(plain, own, strict=True)))
    machine = 2 * GEMM_SIDE**3 / spread(seconds[f"gemm {one.precision}"]).median
    return {
        **{"processor_ms": f"{median:.2f}", "processor_ms_low": f"{low:.2f}", "processor_ms_high": f"{high:.2f}"},
        **{
            "times_as_fast_as_plain": f"{faster.median:.3f}",
            "times_low": f"{faster.low:.3f}",
            "times_high": f"{faster.high:.3f}",
        },
        **{"gflops": f"{operations / spread(own).median / 1e9:.1f}", "gflops_of_products": f"{machine / 1e9:.1f}"},
    }


def _call(network: nn.Module, image: Tensor) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with torch.inference_mode():
            return network(image)

    return run


def _gemm(dtype: torch.dtype) -> Callable[[], Tensor]:
    left, right = (torch.randn(GEMM_SIDE, GEMM_SIDE).to(dtype) for _ in range(2))
    return lambda: left @ right


def _errors(calls: Mapping[str, Callable[[], Tensor]]) -> dict[str, float]:
    """Relative differences of the logits from our eager ones, in float32 if they are among them; which must be near."""
    found = {label: call().float() for label, call in calls.items()}
    expected = found.get("eager fp32", found[next(label for label in found if label.startswith("eager"))])
    errors = {label: float((logits - expected).norm() / expected.norm()) for label, logits in found.items()}
    wrong = {label: error for label, error in errors.items() if label.endswith("fp32") and error > TOLERANCE}
    if wrong:
        raise SystemExit(f"logits differ from ours: {wrong}")
    return errors


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=SIZES, default=["tiny", "small"])
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["fp32", "bf16"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--px", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csv", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for model in args.model for row in measure(args, model)]
    write_table(rows, args.csv, columns=rows[0])
    shown = ("model", "precision", "implementation", "processor_ms", "times_as_fast_as_plain", "gflops", "gflops_of_products")
    for row in [dict(zip(shown, shown, strict=True)), *rows]:
        sys.stdout.write("".join(f"{row[key]:<24}" for key in shown) + "\n")


if __name__ == "__main__":
    main()
