"""Which labelled pixels train, validate and test, and the file that says so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terralean.data.spectral.pixels import Pixels
from terralean.data.spectral.places import places
from terralean.errors import RunError
from terralean.raster.source import named_part

NAMES = ("train", "validation", "test")
PIXELS = "pixels of cubes"  # what a split.json with this `content` is of


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelSplit:
    """Which pixels train, validate and test."""

    root: str
    images: tuple[str, ...]
    origin: NDArray[np.int64]  # (scenes, 2), see places.origins
    method: str
    seed: int
    window_px: int
    train: Pixels
    validation: Pixels
    test: Pixels
    dropped: tuple[int, ...]  # test pixels of each class that were too near to a training pixel
    rule: str  # in words
    notes: tuple[str, ...]  # what could not be had

    def of(self, name: str) -> Pixels:
        """The pixels of a part."""
        found: Pixels = getattr(self, name)
        return found

    def counts(self, classes: Sequence[str]) -> dict[str, dict[str, int]]:
        """Pixels of each class in each part, and those left out of the test."""
        each = {name: self.of(name).counts(len(classes)) for name in NAMES} | {"dropped": np.array(self.dropped)}
        return {cls: {name: int(counts[i]) for name, counts in each.items()} for i, cls in enumerate(classes)}

    def places(self, name: str) -> NDArray[np.int64]:
        """Where they lie (n, 2), row and column."""
        return places(self.of(name), self.origin)


def save_split(split: PixelSplit, path: Path) -> None:
    """Write which pixels are which: scene, row, column and class of each."""
    parts = {name: {key: getattr(split.of(name), key).tolist() for key in ("scene", "row", "col", "label")} for name in NAMES}
    values: dict[str, Any] = {
        "content": PIXELS,
        "root": split.root,
        "images": list(split.images),
        "origin": split.origin.tolist(),
        "method": split.method,
        "seed": split.seed,
        "window_px": split.window_px,
        "rule": split.rule,
        "notes": list(split.notes),
        "dropped": list(split.dropped),
        "pixels": parts,
    }
    path.write_text(json.dumps(values) + "\n")


def load_split(path: Path) -> PixelSplit:
    """The deal of a run. RunError where the file is missing or damaged."""
    if not path.is_file():
        raise RunError(f"{path} is missing beside the run's card; copy the whole run folder")
    try:
        return _split_of(json.loads(path.read_text()))
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged ({error}); copy the whole run folder again, or train anew") from error


def _split_of(values: Mapping[str, Any]) -> PixelSplit:
    parts = {
        name: Pixels(**{key: np.array(found, np.int64) for key, found in values["pixels"][name].items()}) for name in NAMES
    }
    return PixelSplit(
        root=values["root"],
        images=tuple(values["images"]),
        origin=np.array(values["origin"], np.int64).reshape(-1, 2),
        method=values["method"],
        seed=values["seed"],
        window_px=values["window_px"],
        dropped=tuple(values["dropped"]),
        rule=values["rule"],
        notes=tuple(values["notes"]),
        **parts,
    )


def fingerprint(split: PixelSplit) -> str:
    """16 hexadecimal digits of SHA-256 over the names and sizes of the cubes and the training pixels."""
    digest = hashlib.sha256()
    for image in split.images:
        file = Path(named_part(image)[0])
        digest.update(f"{file.name} {file.stat().st_size if file.is_file() else 0} ".encode())
    for name in ("scene", "row", "col", "label"):
        digest.update(getattr(split.train, name).tobytes())
    return digest.hexdigest()[:16]
