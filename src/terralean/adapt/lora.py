"""Low-rank adapters: a trained network learns something new through a few weights beside its own, and takes them in at the end.

Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models" (ICLR), eq. 3: y = W x + b + (alpha / r) B A x, where W
and b stay as they are, A (r, inputs) is drawn and B (outputs, r) begins at zero. Their strength may go in cycles while they
learn, after an idea of Zidi et al. 2025 (arXiv 2506.17759); it begins and ends at 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import torch
from torch import Tensor, nn

from terralean.errors import ConfigError

Part = Literal["query", "key", "value"]
PARTS: dict[str, Part] = {"q": "query", "k": "key", "v": "value"}
# What networks call layers that project to queries, keys and values, fused or not; LeMeViT numbers its two.
PROJECTION = re.compile(r"(q?k?v?)\d*")


@dataclass(frozen=True, kw_only=True, slots=True)
class CycleConfig:
    """How the strength of adapters goes down and up again while they learn: cosines between 1 and `floor`, 1 at both ends."""

    cycles: int = 3
    floor: float = 0.1

    def __post_init__(self) -> None:
        if self.cycles < 1:
            raise ConfigError(f"adapt.schedule.cycles must be 1 or more, got {self.cycles}")
        if not 0 <= self.floor <= 1:
            raise ConfigError(f"adapt.schedule.floor must be 0 to 1, got {self.floor}")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoRAConfig:
    """Which layers are adapted, and how."""

    rank: int = 8
    alpha: float | None = None  # the update is multiplied by alpha / rank; None: twice the rank
    targets: tuple[str, ...] = ("attn", "mlp")  # linear layers whose dotted name has one of these in it, as "attn.qkv"
    parts: tuple[Part, ...] = ("query", "key", "value")  # of layers that project to these, fused ones included
    train: tuple[str, ...] = ("head",)  # modules or parameters that learn in full beside the adapters
    dropout: float = 0.0  # of what the adapters see, in training
    schedule: CycleConfig | None = None  # of their strength; None: always 1

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"adapt.rank must be 1 or more, got {self.rank}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"adapt.dropout must be 0 up to below 1, got {self.dropout}")
        if not self.targets or not self.parts:
            raise ConfigError("adapt.targets and adapt.parts name at least one each; leave adapt: out to train all weights")

    @property
    def scaled_by(self) -> float:
        """What alpha is, given or not."""
        return 2.0 * self.rank if self.alpha is None else self.alpha


class LoRALinear(nn.Module):
    """A linear layer with an adapter beside it; `rows` of its outputs are adapted, None: all.

    `weight` and `bias` are those of the layer that it amounts to, for networks that read them; only dropout is not in them.
    """

    strength: Tensor  # (), what a schedule multiplies the update by
    rows: Tensor | None  # (n,) in order

    def __init__(self, base: nn.Linear, *, rank: int, alpha: float, dropout: float, rows: Tensor | None) -> None:
        super().__init__()
        device, dtype = base.weight.device, base.weight.dtype
        outputs = base.out_features if rows is None else len(rows)
        self.base_layer = base
        self.lora_A = nn.Linear(base.in_features, rank, bias=False, device=device, dtype=dtype)
        self.lora_B = nn.Linear(rank, outputs, bias=False, device=device, dtype=dtype)
        nn.init.zeros_(self.lora_B.weight)
        self.dropout = nn.Dropout(dropout)
        self.scale = alpha / rank
        self.register_buffer("strength", torch.ones((), device=device, dtype=dtype))
        self.register_buffer("rows", None if rows is None else rows.to(device), persistent=False)
        self.before_merge: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """x (..., inputs) -> (..., outputs)."""
        y: Tensor = self.base_layer(x)
        if self.merged:
            return y
        update = self.scale * self.strength * self.lora_B(self.lora_A(self.dropout(x)))
        return y + update if self.rows is None else y.index_add(-1, self.rows, update)

    @property
    def merged(self) -> bool:
        """Whether the layer's own weight holds the adapter's."""
        return self.before_merge is not None

    @property
    def in_features(self) -> int:
        """As of the layer."""
        return self.base_layer.in_features

    @property
    def out_features(self) -> int:
        """As of the layer."""
        return self.base_layer.out_features

    @property
    def bias(self) -> Tensor | None:
        """As of the layer."""
        return self.base_layer.bias

    @property
    def weight(self) -> Tensor:
        """W + (alpha / r) * strength * B A, (outputs, inputs); gradients reach A and B through it."""
        own = self.base_layer.weight
        return own if self.merged else own + self._update(own.dtype)

    def merge(self) -> None:
        """Take the adapter into the layer's own weight, rounded once."""
        if not self.merged:
            own = self.base_layer.weight
            kept = own.detach().clone()
            with torch.no_grad():
                own.copy_(own.double() + self._update(torch.float64))
            self.before_merge = kept

    def unmerge(self) -> None:
        """Give the layer its own weight back, to the last bit."""
        if self.before_merge is not None:
            with torch.no_grad():
                self.base_layer.weight.copy_(self.before_merge)
            self.before_merge = None

    def _update(self, dtype: torch.dtype) -> Tensor:
        """(outputs, inputs)."""
        b, a, strength = (t.to(dtype) for t in (self.lora_B.weight, self.lora_A.weight, self.strength))
        update = self.scale * strength * (b @ a)
        return update if self.rows is None else update.new_zeros(self.out_features, a.shape[1]).index_copy(0, self.rows, update)


def add_adapters(model: nn.Module, config: LoRAConfig) -> tuple[str, ...]:
    """Put an adapter beside every linear layer that the config names, in place; their names. The outputs stay what they were.

    Layers within what learns in full get none. Raises ConfigError where a target or a part finds no layer.
    """
    chosen = targets(model, config)
    wrap(
        model,
        {name: rows_of(name, layer, config.parts) for name, layer in chosen.items()},
        rank=config.rank,
        alpha=config.scaled_by,
        dropout=config.dropout,
    )
    return tuple(chosen)


def wrap(model: nn.Module, rows: dict[str, Tensor | None], *, rank: int, alpha: float, dropout: float) -> None:
    """Put adapters beside these linear layers, in place; of each the rows of its outputs that are adapted, None: all."""
    if any(True for _ in adapters(model)):
        raise ConfigError("the network has adapters already; merge them before others are added")
    for name, chosen in rows.items():
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        model.set_submodule(name, LoRALinear(layer, rank=rank, alpha=alpha, dropout=dropout, rows=chosen))


def targets(model: nn.Module, config: LoRAConfig) -> dict[str, nn.Linear]:
    """The linear layers that a config names, by their names."""
    linear = {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    free = {name: part for name, part in linear.items() if not is_named(name, config.train)}
    for target in config.targets:
        if not any(is_named(name, [target]) for name in free):
            known = sorted({part for name in free for part in name.split(".") if not part.isdigit()})
            near = get_close_matches(target, known) or known
            raise ConfigError(f"adapt.targets: the network has no linear layer named {target!r}; nearest: {', '.join(near)}")
    chosen = {name: part for name, part in free.items() if is_named(name, config.targets)}
    chosen = {name: part for name, part in chosen.items() if _has_part(name, config.parts)}
    if not chosen:
        raise ConfigError(f"adapt.parts: no layer of adapt.targets projects to {' or '.join(config.parts)}; name other targets")
    return chosen


def is_named(name: str, wanted: Sequence[str]) -> bool:
    """Whether one of these stands in a dotted name, element by element: "attn.qkv" in "blocks.3.attn.qkv", no "blocks.1"."""
    return any(f".{part}." in f".{name}." for part in wanted)


def rows_of(name: str, layer: nn.Linear, parts: Sequence[Part]) -> Tensor | None:
    """Outputs of a layer that are adapted where it projects to queries, keys and values at once; None: all of them."""
    inside = _projects_to(name)
    if not inside or all(part in parts for part in inside):
        return None
    size = layer.out_features // len(inside)
    return torch.cat([torch.arange(at * size, (at + 1) * size) for at, part in enumerate(inside) if part in parts])


def adapters(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """The adapted layers of a network, by the names of the layers."""
    return ((name, part) for name, part in model.named_modules() if isinstance(part, LoRALinear))


def merge(model: nn.Module) -> None:
    """Take all adapters into the weights beside them. The outputs stay what they were, to 1e-5 in relative norm in float32."""
    for _, layer in adapters(model):
        layer.merge()


def unmerge(model: nn.Module) -> None:
    """Undo `merge`, to the last bit."""
    for _, layer in adapters(model):
        layer.unmerge()


def unwrap(model: nn.Module) -> None:
    """Merge, and make of adapted layers plain linear ones, in place: the network as it was before, with new weights."""
    for name, layer in list(adapters(model)):
        layer.merge()
        model.set_submodule(name, layer.base_layer)


def set_strength(model: nn.Module, value: float) -> None:
    """Multiply the updates of all adapters by this from now on; merging keeps to it."""
    for _, layer in adapters(model):
        layer.strength.fill_(value)


def strength_at(step: int, *, steps: int, config: CycleConfig) -> float:
    """The strength in a step, counted from 0, of so many: 1 in the first and the last."""
    if step >= steps - 1:
        return 1.0
    turned = 2 * math.pi * config.cycles * step / (steps - 1)
    return config.floor + (1 - config.floor) * (1 + math.cos(turned)) / 2


def plain_name(name: str) -> str:
    """The name that a parameter has without adapters."""
    return name.replace(".base_layer.", ".")


def _projects_to(name: str) -> list[Part]:
    found = PROJECTION.fullmatch(name.rpartition(".")[2])
    return [PARTS[letter] for letter in found[1]] if found else []


def _has_part(name: str, parts: Sequence[Part]) -> bool:
    inside = _projects_to(name)
    return not inside or any(part in parts for part in inside)
