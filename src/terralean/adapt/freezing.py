"""What of a network learns: its adapters and what is named beside them; and how much that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from terralean.adapt.lora import LoRAConfig, adapters, add_adapters, is_named, plain_name
from terralean.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Learning:
    """How many parameters of a network learn."""

    total: int  # the adapters' included
    learning: int
    adapters: int  # of those that learn
    names: tuple[str, ...]  # of parameters that learn in full

    @property
    def share(self) -> float:
        """Of all parameters those that learn."""
        return self.learning / self.total

    def __str__(self) -> str:
        """In words."""
        full = self.learning - self.adapters
        return (
            f"{self.learning:,} of {self.total:,} parameters learn ({100 * self.share:.2f} %): {self.adapters:,} of adapters, "
            f"{full:,} in full"
        )


def adapt(model: nn.Module, config: LoRAConfig) -> tuple[str, ...]:
    """Add adapters to a trained network, in place, and freeze the rest of it; names of the adapted layers."""
    names = add_adapters(model, config)
    freeze(model, config.train)
    return names


def freeze(model: nn.Module, train: Sequence[str]) -> None:
    """Let only adapters learn, and parameters whose dotted names have one of `train` in it.

    Batch norms of which nothing learns go on with the statistics that they have: they are set to evaluation, and stay so until
    somebody calls `model.train()`. Raises ConfigError where a name finds no parameter.
    """
    names = [plain_name(name) for name, _ in model.named_parameters()]
    for wanted in train:
        if not any(is_named(name, [wanted]) for name in names):
            known = ", ".join(name for name, part in model.named_children() if any(True for _ in part.parameters()))
            raise ConfigError(f"adapt.train: the network has no parameter named {wanted!r}; its parts are {known}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_named(plain_name(name), [*train, "lora_A", "lora_B"]))
    for part in model.modules():
        if isinstance(part, _BatchNorm) and not any(parameter.requires_grad for parameter in part.parameters()):
            part.eval()


def learning(model: nn.Module) -> Learning:
    """Count what learns."""
    counts = {name: parameter.numel() for name, parameter in model.named_parameters() if parameter.requires_grad}
    of_adapters = {f"{name}.{part}.weight" for name, _ in adapters(model) for part in ("lora_A", "lora_B")}
    full = tuple(plain_name(name) for name in counts if name not in of_adapters)
    return Learning(
        total=sum(parameter.numel() for parameter in model.parameters()),
        learning=sum(counts.values()),
        adapters=sum(count for name, count in counts.items() if name in of_adapters),
        names=full,
    )
