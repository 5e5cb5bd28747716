"""What an evaluation found, and its files: all of them appear, or none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terralean.errors import OutputFailed


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What an evaluation found and where it was written."""

    document: dict[str, Any]  # what evaluation.json holds
    verdict: tuple[str, ...]
    report: str


def write_all(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files by name; no name is taken before all of them are on disk. OutputFailed where one cannot be written."""
    parts = {folder / f"{name}.part": folder / name for name in files}
    part = folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part, content in zip(parts, files.values(), strict=True):
            part.write_bytes(content)
        for part, path in parts.items():
            part.replace(path)
    except OSError as error:
        for left in parts:
            left.unlink(missing_ok=True)
        raise OutputFailed(
            f"{parts.get(part, folder)} could not be written: {error}; make room or choose another --out"
        ) from error
