"""The tensors that adapting changes, by the names that the library peft gives them in its checkpoints.

An adapter of the layer `blocks.0.attn.qkv` is `base_model.model.blocks.0.attn.qkv.lora_A.weight` and `.lora_B.weight`; what was
trained in full has `base_model.model.` before its own name (PEFT checkpoint format, developer guide of peft 0.20).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from terralean.adapt.freezing import learning
from terralean.adapt.lora import LoRALinear, adapters, plain_name, wrap
from terralean.errors import WeightsDoNotFit

PREFIX = "base_model.model."
A, B = ".lora_A.weight", ".lora_B.weight"


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """Adapters and what else learns, copied, with the statistics of norms that do.

    B (outputs, r) has a row for every output and holds the strength.
    """
    found = {}
    for name, layer in adapters(model):
        found[f"{PREFIX}{name}{A}"] = layer.lora_A.weight.detach().clone()
        found[f"{PREFIX}{name}{B}"] = _all_rows(layer)
    full = learning(model).names
    own = {plain_name(name): tensor for name, tensor in model.named_parameters()} | dict(model.named_buffers())
    names = [*full, *_statistics(model, {name.rpartition(".")[0] for name in full})]
    return found | {PREFIX + name: own[name].detach().clone() for name in names}


def add_adapter_state(model: nn.Module, state: Mapping[str, Tensor], *, alpha: float, source: str) -> None:
    """Give a plain network the adapters of a state, and what was trained in full, in place.

    Raises WeightsDoNotFit where a tensor has no place in it; the network is then unchanged.
    """
    names = [name.removeprefix(PREFIX).removesuffix(A) for name in state if name.endswith(A)]
    full = {name.removeprefix(PREFIX): tensor for name, tensor in state.items() if not name.endswith((A, B))}
    _check(model, state, names, full, source=source)
    with torch.no_grad():
        own = _tensors(model)
        for name, tensor in full.items():
            own[name].copy_(tensor)
        wrap(model, dict.fromkeys(names), rank=len(state[f"{PREFIX}{names[0]}{A}"]), alpha=alpha, dropout=0.0)
        for name, layer in adapters(model):
            layer.lora_A.weight.copy_(state[f"{PREFIX}{name}{A}"])
            layer.lora_B.weight.copy_(state[f"{PREFIX}{name}{B}"])


def _statistics(model: nn.Module, parts: Iterable[str]) -> list[str]:
    """Names of the buffers that stand beside parameters of these parts."""
    modules = {name: part for name in sorted(parts) if not isinstance(part := model.get_submodule(name), LoRALinear)}
    return [f"{name}.{own}" for name, part in modules.items() for own, _ in part.named_buffers(recurse=False)]


def _all_rows(layer: LoRALinear) -> Tensor:
    b = layer.strength * layer.lora_B.weight.detach()
    return b if layer.rows is None else b.new_zeros(layer.out_features, b.shape[1]).index_copy(0, layer.rows, b)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


def _check(model: nn.Module, state: Mapping[str, Tensor], names: list[str], full: Mapping[str, Tensor], *, source: str) -> None:
    own = _tensors(model)
    linear = {name for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    wrong = [f"{name}: the network has no such linear layer" for name in names if name not in linear]
    wrong += [f"{name}: the network has no such parameter" for name in full if name not in own]
    wrong += [
        f"{name}: {tuple(tensor.shape)}, expected {tuple(own[name].shape)}"
        for name, tensor in full.items()
        if name in own and tensor.shape != own[name].shape
    ]
    ranks = {len(tensor) for name, tensor in state.items() if name.endswith(A)}
    for name in linear.intersection(names):
        outputs, inputs = own[f"{name}.weight"].shape
        a, b = state[f"{PREFIX}{name}{A}"], state.get(f"{PREFIX}{name}{B}")
        if b is None or a.shape[1:] != (inputs,) or b.shape != (outputs, len(a)):
            shapes = f"{tuple(a.shape)} and {'nothing' if b is None else tuple(b.shape)}"
            wrong.append(f"{name}: A and B are {shapes}, the layer takes {inputs} and gives {outputs}")
    if len(ranks) > 1:
        wrong.append(f"adapters of ranks {sorted(ranks)}; one rank for all is expected")
    if not names or wrong:
        told = "; ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")  # noqa: PLR2004
        raise WeightsDoNotFit(
            f"{source} does not fit the network: {told or 'it holds no adapters'}; take the network it is for"
        )
