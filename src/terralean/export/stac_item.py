"""A STAC item of an exported model, by the Machine Learning Model extension (stac-extensions/mlm) version 1.5.1."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from terralean.predict.artefact import JUDGE, Manifest, RuntimeName, files_of, parts_of
from terralean.weights.card import Card

NAME = "model.stac.json"
MLM = "https://stac-extensions.github.io/mlm/v1.5.1/schema.json"
CLASSIFICATION = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"
FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
EO = "https://stac-extensions.github.io/eo/v2.0.0/schema.json"
TASKS = {"segmentation": "semantic-segmentation", "classification": "scene-classification", "detection": "object-detection"}
FRAMEWORKS: Mapping[RuntimeName, str] = {"onnxruntime": "ONNX", "openvino": "OpenVINO", "torch": "PyTorch"}
ARTIFACTS: Mapping[RuntimeName, str] = {
    "onnxruntime": "onnx.save",
    "openvino": "openvino.save_model",
    "torch": "torch.export.save",
}
ARCHITECTURES = {
    "lemevit": "LeMeViT",
    "swin": "Swin Transformer",
    "vit": "Vision Transformer",
    "unetformer": "UNetFormer",
    "factseg": "FactSeg",
    "unet": "U-Net",
    "resnet": "ResNet",
}


def item(card: Card, manifest: Manifest, *, parameters: int, sizes: Mapping[str, int], when: datetime) -> dict[str, Any]:
    """The item. It has no place: a model is not an image. `sizes` in bytes by file."""
    eo = [EO] if card.bands.wavelength_nm else []
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [MLM, CLASSIFICATION, FILE, *eo],
        "id": f"{card.model}-{card.training.data}-{manifest.target}-{manifest.precision}",
        "geometry": None,
        "properties": {
            "datetime": when.isoformat().replace("+00:00", "Z"),
            "title": f"{card.model}, {TASKS[card.task]}",
            "description": f"{_description(card, manifest)}. Trained on {card.training.images} images; split: "
            f"{card.training.split}; leakage: {card.training.leakage}",
            "license": "other" if card.licence == "unstated" else card.licence,
            "bands": _bands(card),
            **_properties(card, manifest, parameters=parameters),
        },
        "links": [],
        "assets": _assets(card, manifest, sizes=sizes),
    }


def write_item(content: Mapping[str, Any], folder: Path) -> None:
    """Write `model.stac.json`."""
    (folder / NAME).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _description(card: Card, manifest: Manifest) -> str:
    given = "values divided by 255, NaN for nodata," if manifest.target == "deepness" else "values as stored"
    takes = f"Takes {given} of the bands {', '.join(card.bands.names)}; normalisation is inside the graph"
    if card.task != "detection":
        return f"{takes}. Gives probabilities of {len(card.classes)} classes"
    return (
        f"{takes}. Two graphs: propose gives candidates, of which those that no better one suppresses go to judge with "
        f"the maps of their image; judge gives probabilities of {len(card.classes)} classes and oriented boxes, to be "
        "suppressed in turn. The hyperparameters say by what"
    )


def _bands(card: Card) -> list[dict[str, Any]]:
    nm = card.bands.wavelength_nm or (None,) * len(card.bands)
    return [
        {"name": name, "data_type": card.bands.dtype, **({} if at is None else {"eo:center_wavelength": round(at / 1000, 6)})}
        for name, at in zip(card.bands.names, nm, strict=True)
    ]


def _properties(card: Card, manifest: Manifest, *, parameters: int) -> dict[str, Any]:
    task = TASKS[card.task]
    framework = FRAMEWORKS[manifest.runtime]
    version = manifest.versions[manifest.runtime]
    return {
        "mlm:name": _plain(f"{card.model} {manifest.target} {manifest.precision}"),
        "mlm:architecture": architecture(card),
        "mlm:tasks": [task],
        "mlm:framework": framework,
        "mlm:framework_version": ".".join((*re.findall(r"\d+", version), "0", "0")[:3]),
        "mlm:total_parameters": parameters,
        "mlm:accelerator": None,
        "mlm:accelerator_constrained": False,
        "mlm:input": _inputs(card, manifest),
        "mlm:output": _found(card, task=task) if card.task == "detection" else [_output(card, manifest, task=task)],
        "mlm:hyperparameters": _hyperparameters(card, manifest),
    }


def architecture(card: Card) -> str:
    """The name of the literature, where there is one."""
    body = str(card.sizes.get("backbone", card.model))
    name = next((name for start, name in ARCHITECTURES.items() if body.startswith(start)), body)
    return f"Oriented R-CNN on {name}" if card.task == "detection" else name


def _inputs(card: Card, manifest: Manifest) -> list[dict[str, Any]]:
    """value_scaling and resize_type are of what is left to do before the graph: nothing."""
    batch, height, width = (manifest.fixed.get(axis, -1) for axis in ("batch", "height", "width"))
    image: dict[str, Any] = {
        "name": "image",
        "bands": list(card.bands.names),
        "input": {
            "shape": [batch, len(card.bands), height, width],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": [{"type": "scale", "value": 255}] if manifest.target == "deepness" else None,
        "resize_type": None,
        "pre_processing_function": None,
    }
    valid: dict[str, Any] = {
        "name": "valid",
        "bands": [],
        "description": "boolean, true where a pixel holds data; the others count as the mean of the training data",
        "input": {"shape": [batch, height, width], "dim_order": ["batch", "height", "width"], "data_type": "other"},
        "value_scaling": None,
        "resize_type": None,
        "pre_processing_function": None,
    }
    return [image] if manifest.target == "deepness" else [image, valid]


def _output(card: Card, manifest: Manifest, *, task: str) -> dict[str, Any]:
    batch, height, width = (manifest.fixed.get(axis, -1) for axis in ("batch", "height", "width"))
    pixels = card.task == "segmentation"
    return {
        "name": "probabilities",
        "tasks": [task],
        "result": {
            "shape": [batch, len(card.classes), *((height, width) if pixels else ())],
            "dim_order": ["batch", "class", *(("height", "width") if pixels else ())],
            "data_type": "float32",
        },
        "classification:classes": _classes(card),
        "post_processing_function": None,
    }


def _found(card: Card, *, task: str) -> list[dict[str, Any]]:
    """Of a detector: what the second graph gives of each proposal, and what makes objects of it."""
    last = {"format": "python", "expression": "terralean.predict:Predictor.detect"}
    sizes, classes = {"probabilities": len(card.classes), "boxes": 5}, {"probabilities": _classes(card), "boxes": []}
    words = {
        "probabilities": "of each proposal and class",
        "boxes": "centre x, centre y, width, height in px, and the angle in radians from x towards y, y down; long edge first",
    }
    return [
        {
            "name": name,
            "description": words[name],
            "tasks": [task],
            "result": {
                "shape": [-1, sizes[name]],
                "dim_order": ["proposal", "class" if name == "probabilities" else "box"],
                "data_type": "float32",
            },
            "classification:classes": classes[name],
            "post_processing_function": last,
        }
        for name in JUDGE.outputs
    ]


def _classes(card: Card) -> list[dict[str, Any]]:
    """`name` may hold letters, digits, - and _ only; the class's own name is its description."""
    return [
        {
            "value": value,
            "name": f"{value}_{_slug(name)}" if _slug(name) != name else name,
            "description": name,
            "color_hint": "{:02X}{:02X}{:02X}".format(*colour),
        }
        for value, (name, colour) in enumerate(zip(card.classes.names, card.classes.colours, strict=True))
    ]


def _hyperparameters(card: Card, manifest: Manifest) -> dict[str, Any]:
    return {
        "normalisation_mean": list(card.normalisation.mean),
        "normalisation_std": list(card.normalisation.std),
        "units": card.bands.units,
        "scale": card.bands.scale,
        "shrink": card.shrink,
        "seen_px": card.seen_px,
        "tile_px": manifest.tile_px,
        "overlap_px": card.overlap_px,
        "temperature": card.temperature,
        "precision": manifest.precision,
        "reduce": None if card.reduce is None else asdict(card.reduce),
        **({} if manifest.suppression is None else {"suppression": asdict(manifest.suppression)}),
    }


def _assets(card: Card, manifest: Manifest, *, sizes: Mapping[str, int]) -> dict[str, Any]:
    """A graph is called by its part, the file of its weights by its own name."""
    found: dict[str, Any] = {}
    for part in parts_of(card.task):
        first, *others = (name for name in files_of(card.task, manifest.runtime) if Path(name).stem == part.name)
        title = "Graph of the second look" if part is JUDGE else "Graph with preprocessing"
        found[part.name] = _asset(first, manifest, sizes, title=title, roles=["mlm:model", "mlm:compiled"])
        found[part.name]["mlm:artifact_type"] = ARTIFACTS[manifest.runtime]
        found |= {name: _asset(name, manifest, sizes, title="Weights", roles=["mlm:weights"]) for name in others}
    found["card"] = {"href": "./card.json", "title": "Card of the model", "type": "application/json", "roles": ["metadata"]}
    return found


def _asset(name: str, manifest: Manifest, sizes: Mapping[str, int], *, title: str, roles: list[str]) -> dict[str, Any]:
    return {
        "href": f"./{name}",
        "title": title,
        "type": f"application/octet-stream; framework={FRAMEWORKS[manifest.runtime].lower()}",
        "roles": roles,
        "file:size": sizes[name],
        "file:checksum": f"1220{manifest.files[name]}",  # multihash: SHA-256 of 32 bytes
    }


def _plain(text: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_.\-\s]", "_", text)


def _slug(text: str) -> str:
    return re.sub(r"[^0-9A-Za-z\-_]+", "_", text)
