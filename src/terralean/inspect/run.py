"""What a training run is, or a folder that was exported, and whether it is whole."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from terralean.data.oriented.split import CONTENT as OBJECTS
from terralean.data.oriented.split import SavedSplit, load_objects_split
from terralean.data.scene_split import CONTENT, SceneSplit, load_scene_split
from terralean.data.spectral.parts import PIXELS, PixelSplit
from terralean.data.spectral.parts import load_split as load_pixel_split
from terralean.data.spectral.scenes import folder_of
from terralean.data.split import Split, load_split
from terralean.errors import TerraleanError
from terralean.inspect.finding import Finding, worst_first
from terralean.predict.artefact import Manifest, is_artefact, read_artefact
from terralean.weights.card import NAME as CARD
from terralean.weights.card import Card, read_card

RECIPE, SPLIT, WEIGHTS = "recipe.yaml", "split.json", "weights.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunReport:
    """What is known of a run."""

    path: str
    finished: bool
    card: Card | None
    weights_mb: float | None
    data: str | None  # the folder that it was trained on
    splits: dict[str, int] | None  # regions of each split; images, where each as a whole has a class; or pixels of cubes
    exported: Manifest | None = None  # of a folder that was exported: for what, and how near it comes to the run
    findings: tuple[Finding, ...]
    kind: Literal["run"] = "run"


def is_run(path: Path) -> bool:
    """Whether a folder is a run, finished or begun."""
    return (path / CARD).is_file() or ((path / RECIPE).is_file() and (path / SPLIT).is_file())


def describe_run(path: Path) -> RunReport:
    """Read card and split, and see whether all files are there."""
    findings: list[Finding] = []
    card, split, exported = _card(path, findings), _split(path, findings), _exported(path, findings)
    findings += [*_whole(path, card), *_told(card), *_moved(split)]
    weights = [path / name for name in ((WEIGHTS,) if exported is None else exported.files) if (path / name).is_file()]
    return RunReport(
        path=str(path),
        finished=card is not None and bool(weights),
        card=card,
        exported=exported,
        weights_mb=round(sum(file.stat().st_size for file in weights) / 1e6, 1) if weights else None,
        data=split.root if split else None,
        splits={name: len(split.of(name)) for name in ("train", "validation", "test")} if split else None,
        findings=worst_first(findings),
    )


def _card(path: Path, findings: list[Finding]) -> Card | None:
    if not (path / CARD).is_file():
        message = f"the run is not finished: it has no {CARD}"
        findings.append(Finding(severity="error", message=message, fix="give the same train command again; it goes on"))
        return None
    try:
        return read_card(path)
    except TerraleanError as error:
        findings.append(Finding(severity="error", message=str(error), fix="restore the card from a copy, or train again"))
        return None


def _exported(path: Path, findings: list[Finding]) -> Manifest | None:
    """What was exported into a folder that has a manifest, whole and with its own card."""
    if not is_artefact(path):
        return None
    try:
        return read_artefact(path).manifest
    except TerraleanError as error:
        findings.append(Finding(severity="error", message=str(error), fix="export the run again"))
        return None


def _split(path: Path, findings: list[Finding]) -> Split | SceneSplit | PixelSplit | SavedSplit | None:
    if not (path / SPLIT).is_file():
        return None
    try:
        content = json.loads((path / SPLIT).read_text(encoding="utf-8"))
        if content.get("content") == PIXELS:
            return load_pixel_split(path / SPLIT)
        if content.get("content") == OBJECTS:
            return load_objects_split(path / SPLIT)
        return load_scene_split(path / SPLIT) if content.get("content") == CONTENT else load_split(path / SPLIT)
    except (TerraleanError, ValueError, KeyError) as error:
        message = f"{path / SPLIT} cannot be read: {error}"
        findings.append(Finding(severity="error", message=message, fix="restore it from a copy; evaluate needs it"))
        return None


def _whole(path: Path, card: Card | None) -> Iterable[Finding]:
    if card is not None and not (path / WEIGHTS).is_file() and not is_artefact(path):
        yield Finding(
            severity="error", message=f"{WEIGHTS} is missing beside the card", fix="copy the whole folder, or train again"
        )
    for name, use in ((SPLIT, "evaluate cannot tell test pixels"), (RECIPE, "it cannot go on")):
        if not (path / name).is_file():
            message = f"{name} is missing: {use}; mapping works all the same"
            yield Finding(severity="note", message=message, fix="copy it from the folder of the training")


def _told(card: Card | None) -> Iterable[Finding]:
    """What the card itself says against the run."""
    if card is None:
        return
    if card.training.leakage.startswith("LEAKS"):
        how = "split by groups" if card.task == "classification" else "split by blocks or groups"
        fix = f"{how} and train again; until then its scores are too good"
        yield Finding(severity="warning", message=card.training.leakage, fix=fix)
    if "test" not in card.metrics:
        yield Finding(severity="note", message="it has not been evaluated on its test split", fix="terralean evaluate RUN")


def _moved(split: Split | SceneSplit | PixelSplit | SavedSplit | None) -> Iterable[Finding]:
    if split is not None and not folder_of(split.root).is_dir():
        message = f"its data are no longer at {split.root}"
        yield Finding(severity="note", message=message, fix="evaluate with --data DIR; mapping does not need them")
