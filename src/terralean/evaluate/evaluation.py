"""What an evaluation found, and its files: all of them appear, or none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terralean.raster.whole import whole


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What an evaluation found and where it was written."""

    document: dict[str, Any]  # what evaluation.json holds
    verdict: tuple[str, ...]
    report: str


def write_all(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files by name, in place of older ones: all of them, or OutputFailed and none."""
    with whole(folder, list(files), overwrite=True) as part:
        for name, content in files.items():
            (part / name).write_bytes(content)
