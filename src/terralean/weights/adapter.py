"""Adapters alone, apart from the network they are for: a folder as the library peft writes and reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from terralean.adapt.freezing import learning
from terralean.adapt.lora import adapters
from terralean.adapt.peft_names import adapter_state, add_adapter_state
from terralean.errors import MissingFile, WeightsDoNotFit
from terralean.weights.checkpoint import read_tensors, save_weights

TENSORS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
# Settings of peft's that make of the same tensors something else than W + (alpha / r) B A, and what they must be.
PLAIN: dict[str, Any] = {
    "use_rslora": False,
    "use_dora": False,
    "fan_in_fan_out": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "lora_bias": False,
}


def save_adapter(model: nn.Module, folder: Path, *, base: str) -> None:
    """Write the adapters of a network and what else learns, and of which checkpoint `base` it is to be added to."""
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(adapter_state(model), folder / TENSORS)
    layers = dict(adapters(model))
    first = next(iter(layers.values()))
    rank = first.lora_A.out_features
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": first.scale * rank,
        "lora_dropout": first.dropout.p,
        "target_modules": sorted(layers),
        "modules_to_save": sorted({name.rpartition(".")[0] or name for name in learning(model).names}) or None,
        "bias": "none",
        **PLAIN,
    }
    part = folder / f"{CONFIG}.part"
    part.write_text(json.dumps(config, indent=1) + "\n")
    part.replace(folder / CONFIG)


def load_adapter(model: nn.Module, folder: Path) -> None:
    """Give a plain network the adapters of a folder, ours or peft's, in place.

    Raises WeightsDoNotFit where they are not for this network, or of another kind than Hu et al. 2022.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise MissingFile(f"{folder} holds no {CONFIG}; give a folder with adapters, such as the folder adapter of a run")
    try:
        config = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise WeightsDoNotFit(f"{path} is not JSON ({error}); copy it again") from error
    if config.get("peft_type") != "LORA":
        raise WeightsDoNotFit(f"{path} has peft_type {config.get('peft_type')!r}, expected LORA")
    if other := [f"{name}={config[name]}" for name, plain in PLAIN.items() if config.get(name, plain) not in (plain, None)]:
        raise WeightsDoNotFit(f"{path} has {', '.join(other)}; only adapters W + (alpha / r) B A of one rank can be read")
    add_adapter_state(model, read_tensors(folder / TENSORS), alpha=float(config["lora_alpha"]), source=str(folder))
