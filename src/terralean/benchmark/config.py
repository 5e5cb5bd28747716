"""What a benchmark measures, and for how long."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import combinations
from typing import Literal, NamedTuple

import torch

from terralean.errors import ConfigError

Work = Literal["inference", "training"]
Precision = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
EAGER = "eager"
# What may be done to a model before it is timed. A mode is one or more of them in this order, joined by "+", or "eager".
TREATMENTS = {
    "folded": "batch norms become part of the convolutions before them",
    "channels-last": "weights of convolutions and images in that memory layout",
    "compiled": "torch.compile for one shape",
    "frozen": "torch.compile for one shape, with weights as constants that it may repack",
}
COMPILED = ("compiled", "frozen")
# The plain model, and what makes models faster on the devices known; any other mode can be asked for.
DEFAULT_MODES: dict[str, tuple[str, ...]] = {
    "inference": (EAGER, "folded", "folded+channels-last", "folded+compiled"),
    "training": (EAGER, "channels-last", "compiled"),
}


class Size(NamedTuple):
    """Of an image, in px."""

    height_px: int
    width_px: int

    def __str__(self) -> str:
        """As it is given: one number for a square."""
        return str(self.height_px) if self.height_px == self.width_px else f"{self.height_px}x{self.width_px}"


class Workload(NamedTuple):
    """What a model gets at once."""

    batch: int
    size: Size


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkConfig:
    """What to measure, and for how long. Every model meets every size, batch, precision and mode."""

    models: tuple[str, ...]  # ours, or any that timm builds
    work: Work = "inference"  # training: forward, backward and a step of AdamW with cross-entropy
    batches: tuple[int, ...] = (8,)
    sizes: tuple[Size, ...] = (Size(224, 224),)
    bands: int = 3
    classes: int = 1000
    device: str | None = None  # None: CUDA where there is one
    precisions: tuple[str, ...] = ("fp32", "bf16")
    modes: tuple[str, ...] | None = None  # None: DEFAULT_MODES
    rounds: int = 9  # in each, every candidate is measured once
    seconds: float = 0.5  # least time of one measurement
    seed: int = 0  # of weights, images and the order within rounds

    def __post_init__(self) -> None:
        for name in ("bands", "classes", "rounds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.seconds < 0:
            raise ConfigError(f"seconds must not be negative, got {self.seconds}")
        for batch in self.batches:
            if batch < 1:
                raise ConfigError(f"batch must be at least 1, got {batch}")
        for size in self.sizes:
            if min(size) < 1:
                raise ConfigError(f"size must be at least 1 px, got {size}")
        _check_chosen("work", (self.work,), known=DEFAULT_MODES)
        _check_chosen("precisions", self.precisions, known=DTYPES)
        for name in ("models", "batches", "sizes", "chosen_modes"):
            _check_different(name.removeprefix("chosen_"), getattr(self, name))
        for mode in self.chosen_modes:
            check_mode(mode, work=self.work)

    @property
    def chosen_modes(self) -> tuple[str, ...]:
        """The modes asked for, or the usual ones."""
        return DEFAULT_MODES[self.work] if self.modes is None else self.modes

    @property
    def workloads(self) -> tuple[Workload, ...]:
        """Every batch at every size."""
        return tuple(Workload(batch, size) for size in self.sizes for batch in self.batches)

    @property
    def candidates(self) -> int:
        """How many things are timed."""
        return len(self.models) * len(self.workloads) * len(self.precisions) * len(self.chosen_modes)


def read_size(text: str) -> Size:
    """Of a square by its side, "224", or height first, "256x320". Raises ConfigError."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):  # noqa: PLR2004 - height and width
        raise ConfigError(f"size must be a side in px, or HEIGHTxWIDTH, e.g. 224 or 256x320, got {text!r}")
    return Size(int(parts[0]), int(parts[-1]))


def treatments(mode: str) -> tuple[str, ...]:
    """What a mode does to a model, in order; nothing in eager mode."""
    return () if mode == EAGER else tuple(mode.split("+"))


def check_mode(mode: str, *, work: Work) -> None:
    """Raise ConfigError for a mode that cannot be, with the nearest that can."""
    known = [EAGER, *(mode for mode in _all_modes() if work == "inference" or _can_train(mode))]
    if mode in known:
        return
    if mode in _all_modes():
        raise ConfigError(f"mode {mode!r} is for inference: batch norms and constants do not learn; leave it out with --train")
    parts = mode.split("+")
    meant = "+".join(name for name in TREATMENTS if name in parts)
    near = [meant] if meant in known else get_close_matches(mode, known)
    raise ConfigError(
        f"no mode {mode!r}; nearest: {', '.join(near) or EAGER}. A mode is eager, or one or more of {', '.join(TREATMENTS)} "
        f"joined by + in this order, of {' and '.join(COMPILED)} one at most"
    )


def _all_modes() -> list[str]:
    chosen = (names for count in range(1, len(TREATMENTS)) for names in combinations(TREATMENTS, count))
    return ["+".join(names) for names in chosen if not set(COMPILED) <= set(names)]


def _can_train(mode: str) -> bool:
    return not {"folded", "frozen"} & set(treatments(mode))


def _check_chosen(setting: str, chosen: tuple[str, ...], *, known: Collection[str]) -> None:
    wrong = [name for name in chosen if name not in known]
    if wrong:
        raise ConfigError(f"{setting} must be of {', '.join(known)}, got {', '.join(wrong)}")
    _check_different(setting, chosen)


def _check_different(setting: str, chosen: tuple[object, ...]) -> None:
    if not chosen or len(set(chosen)) < len(chosen):
        raise ConfigError(f"{setting} must be one or more different ones, got {', '.join(map(str, chosen)) or 'none'}")
