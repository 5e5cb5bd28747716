"""A trained network as a folder that timm reads: `timm.create_model("local-dir:FOLDER", pretrained=True)`.

Our own networks need `import terralean.models` before, which makes timm know their names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
from torch import Tensor

from terralean.data.scene_config import SceneDataConfig
from terralean.errors import ConfigError, OutputFailed, RunError
from terralean.models.timm_names import CONFIGS
from terralean.weights.card import Card, read_card
from terralean.weights.checkpoint import NAME, read_tensors, save_weights

WEIGHTS, CONFIG = "model.safetensors", "config.json"  # as timm names them
# Of LeMeViT, beside its name.
SIZES = ("meta_tokens", "stages", "meta_stem", "fusion", "attention_scale", "s3_attention", "s3_window_px")
BYTE = 255  # timm's mean and std are of values from 0 to 1


def export_timm(run: Path, out: Path, *, data: SceneDataConfig | None = None) -> Path:
    """Write the network of a run into the folder `out`: a classifier whole, of a segmenter on LeMeViT the backbone.

    A backbone is read with `features_only=True`. What timm cannot know (bands beyond red, green and blue, units, colours) is in
    the key `terralean` of its config. `data`, how the run reads whole images, makes timm's transforms the same. Raises RunError
    where the folder is not empty, ConfigError for what timm cannot build.
    """
    card = read_card(run)
    architecture = _architecture(card)
    tensors = _tensors(card, read_tensors(run / NAME))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} is not an empty folder; name a new one with --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        save_weights(tensors, out / WEIGHTS)
        part = out / f"{CONFIG}.part"
        part.write_text(json.dumps(_config(card, architecture, data=data), indent=1) + "\n")
        part.replace(out / CONFIG)
    except OSError as error:
        raise OutputFailed(f"{out} could not be written: {error}; make room or choose another --out") from error
    return out


def _architecture(card: Card) -> str:
    """timm's name of what is exported."""
    if card.task == "detection":
        raise ConfigError(f"{card.model} finds oriented boxes, which timm cannot build; export it with --format onnx")
    if card.task == "classification":
        found = str(card.sizes["backbone"]) if card.model == "classifier" else card.model
    else:
        found = next((name for name in CONFIGS if card.model.startswith(f"{name}_")), "")
    if not timm.is_model(found):
        raise ConfigError(
            f"model {card.model} is none that timm can build: only LeMeViT and timm's own classifiers, and segmenters on "
            f"LeMeViT as backbones; its weights are in {NAME} by the names of terralean.models.create"
        )
    return found


def _tensors(card: Card, state: dict[str, Tensor]) -> dict[str, Tensor]:
    if card.task == "classification":
        return state
    prefix = "backbone."
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _config(card: Card, architecture: str, *, data: SceneDataConfig | None) -> dict[str, Any]:
    """timm's config.json. Mean and std are of values from 0 to 1 where the bands hold bytes, else of the stored values."""
    classifies, side = card.task == "classification", card.seen_px or card.tile_px
    sizes = {key: value for key, value in card.sizes.items() if key in SIZES}  # timm's own configs know no such key
    unit = BYTE if card.bands.dtype == "uint8" else 1
    return {
        "architecture": architecture,
        "num_classes": len(card.classes) if classifies else 0,
        "pretrained_cfg": {
            "num_classes": len(card.classes) if classifies else 0,
            "label_names": list(card.classes.names) if classifies else None,
            "input_size": [len(card.bands), side, side],
            "mean": [value / unit for value in card.normalisation.mean],
            "std": [value / unit for value in card.normalisation.std],
            "interpolation": "bicubic" if data is None else data.augment.interpolation,
            "crop_pct": 1.0 if data is None else data.size_px / data.resize_px,
            "license": card.licence,
            **({"sizes": sizes} if sizes else {}),
        },
        "terralean": {
            "version": card.version,
            "task": card.task,
            "bands": list(card.bands.names),
            "units": card.bands.units,
            "scale": card.bands.scale,
            "dtype": card.bands.dtype,
            "colours": [list(colour) for colour in card.classes.colours],
        },
    }
