"""What is measured: a model by its name, in one mode and precision, ready to be called and checked."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

import timm
import torch
from torch import Tensor, nn

from terralean.cost.macs import Macs, count_macs, count_macs_at, parameters
from terralean.errors import TerraleanError, UnknownName
from terralean.models import MODELS, create
from terralean.predict.predictor import DTYPES, Precision

Mode = Literal["eager", "channels-last", "compiled"]
# Largest relative error against the plain float32 model. On CUDA "fp32" convolutions may run in TF32, hence not 1e-5.
TOLERANCES: dict[Precision, float] = {"fp32": 1e-2, "bf16": 1e-1}
# What other people's models and compilers raise when they cannot do what is asked. One model must not cost the others' hours.
FOREIGN = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError),
    *(ImportError, TerraleanError),
)


class Candidate(NamedTuple):
    """One thing to time."""

    model: str
    mode: Mode
    precision: Precision

    @property
    def label(self) -> str:
        """Its name among all candidates."""
        return f"{self.model} {self.mode} {self.precision}"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model with what it should answer."""

    model: nn.Module  # eager, float32
    image: Tensor  # (B, C, H, W), float32
    answer: Tensor
    parameters: int
    macs: Macs  # of one image


def check_names(names: Sequence[str]) -> None:
    """Raise UnknownName for a name that is neither ours nor timm's."""
    known = [*MODELS, *timm.list_models()]
    for name in names:
        if name not in MODELS and not timm.is_model(name):
            near = get_close_matches(name, known) or sorted(MODELS)
            raise UnknownName(f"no model {name!r} here or in timm; nearest: {', '.join(near)}")


def subject(name: str, image: Tensor, *, classes: int, seed: int) -> Subject:
    """The model of this name with random weights, and its answer to `image` (B, C, H, W)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _build(name, bands=image.shape[1], classes=classes, size_px=image.shape[-1])
    size, macs = parameters(model), _macs(model, (1, *image.shape[1:]))
    model = model.eval().to(image.device)
    return Subject(model=model, image=image, answer=_answer(model(image)), parameters=size, macs=macs)


def variant(of: Subject, *, mode: Mode, precision: Precision) -> Callable[[], Tensor]:
    """The call that is timed: one forward pass over the batch, which is on the device, in its precision and its layout."""
    layout = torch.channels_last if mode == "channels-last" else torch.contiguous_format
    model = copy.deepcopy(of.model).to(DTYPES[precision]).to(memory_format=layout)
    image = of.image.to(DTYPES[precision]).contiguous(memory_format=layout)
    if mode == "compiled":
        model.compile(dynamic=False)
    return lambda: model(image)


def relative_error(found: Tensor, *, of: Subject, precision: Precision) -> float | None:
    """Norm of the difference over the norm of the plain model's answer; None where that is zero. ValueError if too large."""
    norm = of.answer.norm()
    if norm == 0:
        return None
    error = float((_answer(found).float() - of.answer).norm() / norm)
    if not error <= TOLERANCES[precision]:
        raise ValueError(f"its output differs from that of the plain float32 model by {error:.2g}, relative")
    return error


def _build(name: str, *, bands: int, classes: int, size_px: int) -> nn.Module:
    if name in MODELS:
        return create(name, bands=bands, classes=classes)
    told = timm.get_pretrained_cfg(name)
    size: dict[str, Any] = {"img_size": size_px} if told is not None and told.fixed_input_size else {}
    return timm.create_model(name, in_chans=bands, num_classes=classes, **size)


def _macs(model: nn.Module, shape: tuple[int, ...]) -> Macs:
    try:
        return count_macs_at(model, shape)
    except (NotImplementedError, RuntimeError):  # an operator that works on real tensors only
        return count_macs(model, torch.zeros(shape))


def _answer(found: object) -> Tensor:
    if not isinstance(found, Tensor):
        raise TypeError(f"it gives a {type(found).__name__}, not a tensor of scores")
    return found
