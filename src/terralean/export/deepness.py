"""What the QGIS plugin Deepness reads from an ONNX file.

Facts about its reader (PUTvision/qgis-plugin-deepness, processing/models/model_base.py and segmentor.py): one input, values
divided by 255 and then standardised; an output as high as wide; the keys below, values in JSON. Its documentation says
`tiles_size` where its code reads `tile_size`.
"""

from __future__ import annotations

import json

from terralean.errors import ConfigError
from terralean.weights.card import Card

FORMAT_VERSION = 8  # of ONNX files, what onnxruntime 1.14 reads


def check_task(card: Card) -> None:
    """ConfigError for a model that tells no class of a pixel."""
    if card.task != "segmentation":
        raise ConfigError(
            f"Deepness maps pixels, {card.model} was trained for {card.task}; export it with --format onnx, or name another run"
        )


def metadata(card: Card, *, tile_px: int, pixel_m: float | None) -> dict[str, str]:
    """By key. `resolution` is left out where the size of a pixel is not known: then the plugin asks the user.

    Nothing is standardised, for that is in the graph; no class is suppressed and no small segment removed, so that the plugin's
    map is the graph's own.
    """
    bands = len(card.bands)
    told: dict[str, object] = {
        "model_type": "Segmentor",
        "class_names": dict(enumerate(card.classes.names)),
        "tile_size": tile_px,
        "tiles_size": tile_px,
        "tiles_overlap": round(100 * card.overlap_px / card.tile_px),
        "standardization_mean": [0.0] * bands,
        "standardization_std": [1.0] * bands,
        "seg_thresh": 0.0,
        "seg_small_segment": 0,
    }
    if pixel_m is not None:
        told["resolution"] = round(100 * pixel_m, 4)  # cm
    return {key: json.dumps(value) for key, value in told.items()}
