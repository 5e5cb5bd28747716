"""All that the bytes of a map depend on, so that a stopped run goes on only where nothing of it has changed."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import torch

import terralean
from terralean.mapping.work import Work
from terralean.predict import Predictor
from terralean.raster.scene import Scene

SIGNATURE = re.compile(r"\?(?=(.*&)?(sig|signature|x-amz-signature|x-goog-signature|token)=).*", re.IGNORECASE)  # it expires


def facts_of(predictor: Predictor, work: Work, *, files: Sequence[str], min_area_m2: float | None = None) -> dict[str, Any]:
    """As JSON holds it."""
    return {
        "versions": {"terralean": terralean.__version__, "torch": torch.__version__},
        "model": {
            "name": predictor.card.model,
            "fingerprint": predictor.fingerprint(),
            "precision": predictor.precision,
            "device": "cpu" if predictor.device.type != "cuda" else torch.cuda.get_device_name(predictor.device),
        },
        "scene": scene_facts(work.scene),
        "windows": {
            "side_px": work.lattice.side_px,
            "overlap_px": work.lattice.overlap_px,
            "batch": work.crew.batch,
            "threads": work.crew.threads,
            "area": None if work.clip is None else work.clip.digest,
        },
        "files": list(files),
        "min_area_m2": min_area_m2,
    }


def scene_facts(scene: Scene) -> dict[str, Any]:
    """Which files, and what of them."""
    return {
        "files": [_file(path) for path in scene.source.files],
        "width": scene.grid.width,
        "height": scene.grid.height,
        "crs": scene.grid.crs,
        "transform": list(scene.grid.transform),
        "bands": list(scene.positions),
    }


def _file(path: str) -> dict[str, Any]:
    local = os.path.exists(path)
    found = os.stat(path) if local else None
    return {
        "path": os.path.abspath(path) if local else SIGNATURE.sub("", path),
        "bytes": None if found is None else found.st_size,
        "modified": None if found is None else datetime.fromtimestamp(found.st_mtime, UTC).isoformat(),
    }
