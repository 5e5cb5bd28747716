"""Counts of a test area, kept beside the run they belong to, so that comparing it later needs no second prediction.

They are used again only where nothing that they depend on has changed: weights, bands, normalisation, tiling, temperature,
precision, kind of device, version, the test regions, and size and time of every file of image and label.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import terralean
from terralean.data.config import DataConfig
from terralean.data.split import Region
from terralean.evaluate.measure import Measured, Shown
from terralean.evaluate.reliability import Reliability, Sums
from terralean.evaluate.token_cost import Left, TokenCost
from terralean.predict.artefact import is_artefact, read_manifest
from terralean.raster.coding import Coding
from terralean.raster.grid import Window
from terralean.weights.card import Card
from terralean.weights.checkpoint import NAME as WEIGHTS

log = logging.getLogger(__name__)

NAME = "blocks.npz"
ARRAYS = ("places", "blocks", "blocks_unmapped")
SUMS = ("bins", "losses", "classes", "cells")
NUMBERS = ("block_px", "windows", "seconds", "device", "peak_bytes")
# What a prediction depends on.
CARD = (
    *("model", "sizes", "reduce", "shrink", "seen_px", "bands", "normalisation", "classes", "tile_px", "overlap_px"),
    "temperature",
)


def fingerprint(
    folder: Path, card: Card, regions: Sequence[Region], *, coding: Coding, config: DataConfig, precision: str, device: str
) -> str:
    """64 hexadecimal digits of all that the counts of a run on these regions depend on."""
    files = sorted({path for region in regions for path in (region.image, region.label)})
    told = {
        "version": terralean.__version__,
        "weights": _weights(folder),
        "card": {name: asdict(card)[name] for name in CARD},
        "coding": asdict(coding),
        "config": [config.bands, config.label_field],
        "precision": precision,
        "device": device,
        "files": [[path, *_state(path)] for path in files],
        "regions": [[region.image, region.label, asdict(region.window)] for region in regions],
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def keep(measured: Measured, folder: Path, *, fingerprint: str) -> None:
    """Write `blocks.npz`; it appears whole. A folder that cannot be written to keeps nothing."""
    shown = measured.shown
    told = {name: getattr(measured, name) for name in NUMBERS}
    told |= {"fingerprint": fingerprint, "region": shown.region, "window": asdict(shown.window)}
    told["tokens"] = None if measured.tokens is None else asdict(measured.tokens)
    arrays: dict[str, Any] = {name: getattr(measured, name) for name in ARRAYS} | _sums(measured.reliability)
    content = io.BytesIO()
    np.savez_compressed(content, reference=shown.reference, map=shown.map, told=np.array(json.dumps(told)), **arrays)
    part = folder / f"{NAME}.part"
    try:
        part.write_bytes(content.getvalue())
        part.replace(folder / NAME)
    except OSError as error:
        part.unlink(missing_ok=True)
        log.warning("%s could not be written (%s), so the next evaluation predicts again", folder / NAME, error)


def recall(folder: Path, *, fingerprint: str) -> Measured | None:
    """What `keep` wrote there with the same fingerprint; None where there is nothing, something else, or a broken file."""
    try:
        with np.load(folder / NAME, allow_pickle=False) as kept:
            told = json.loads(str(kept["told"]))
            if told.pop("fingerprint") != fingerprint:
                return None
            window = Window(**told.pop("window"))
            shown = Shown(region=told.pop("region"), window=window, reference=kept["reference"], map=kept["map"])
            tokens = _tokens(told.pop("tokens"))
            before = _read_sums(kept, "before") if "before_bins" in kept else None
            reliability = Reliability(now=_read_sums(kept, "now"), before=before)
            arrays = {name: kept[name] for name in ARRAYS}
            return Measured(shown=shown, tokens=tokens, reliability=reliability, **arrays, **told)
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error):
        return None


def _sums(reliability: Reliability) -> dict[str, NDArray[np.float64]]:
    """Arrays by name, of probabilities as they are and, where there is a temperature, without it."""
    found = {"now": reliability.now, "before": reliability.before}
    return {f"{when}_{name}": getattr(one, name) for when, one in found.items() if one is not None for name in SUMS}


def _read_sums(kept: Mapping[str, NDArray[np.float64]], when: str) -> Sums:
    return Sums(**{name: kept[f"{when}_{name}"] for name in SUMS})


def _tokens(told: dict[str, Any] | None) -> TokenCost | None:
    if told is None:
        return None
    left = tuple(Left(layer=one["layer"], shares=tuple(one["shares"])) for one in told.pop("left"))
    return TokenCost(operations=tuple(told.pop("operations")), macs=tuple(told.pop("macs")), left=left, **told)


def _weights(folder: Path) -> str:
    """64 hexadecimal digits, of each file of an exported graph."""
    if is_artefact(folder):
        return " ".join(read_manifest(folder).files.values())
    with (folder / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state(path: str) -> tuple[int, int]:
    """Size in bytes and time of the last change; zeros of what is not on a local disk."""
    place = Path(path)
    if not place.is_file():
        return 0, 0
    found = place.stat()
    return found.st_size, found.st_mtime_ns
