"""The card beside every checkpoint: what the model is, which bands it needs, what its classes mean, how good it is."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from terralean.errors import RunError
from terralean.spec import Bands, Classes, Normalisation
from terralean.tokens import Reduction

FORMAT = 1
FOREST, SVM = "forest", "svm"  # the models that are fitted, not trained
MIN_TILE_PX = 32  # side of a window: the coarsest map of a pyramid is then at least one pixel
UNITS = {FOREST: "trees", SVM: "support vectors", "change_vector": "pixels"}  # of what they learned
NAME = "card.json"
CALIBRATION = "calibration"  # key in the metrics: how the temperature was fitted, or why not; absent where never tried
OF_A_FOREST = "the shares of the votes of a forest's trees are taken as they are"
NEVER_TRIED = "trained before temperatures were fitted; run its training command again to fit one, it does not train again"
SEED = re.compile(r"seed(0|[1-9][0-9]*)")  # folder of one of several seeds


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a model learned from."""

    data: str  # fingerprint of the training data: its first 16 hexadecimal digits of SHA-256 over files and windows
    images: int
    split: str  # the rule, in words
    leakage: str  # the verdict, in words
    steps: int  # of the optimiser; trees of a random forest, support vectors of a machine that has them
    minutes: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """How a model was made from another by low-rank adapters, which its weights now hold."""

    start: str  # what it was made from, as it was named
    rank: int
    alpha: float
    layers: int  # that had an adapter
    learned: int  # parameters, those of adapters and those that learned in full
    of: int  # parameters with the adapters'


@dataclass(frozen=True, kw_only=True)
class Card:
    """Everything needed to use a checkpoint, without the recipe or the data it came from."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    format: int = FORMAT
    version: str  # of terralean
    task: str
    model: str
    sizes: dict[str, bool | int | float | str] = field(default_factory=dict)
    reduce: Reduction | None = None  # how the model takes tokens out or merges them; None: not at all
    shrink: int = 1  # the model sees means over squares of so many pixels
    seen_px: int | None = None  # side that tiles are resized to for the model; None: not resized
    bands: Bands
    normalisation: Normalisation
    classes: Classes
    tile_px: int
    overlap_px: int
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0  # scores are divided by it before the softmax
    training: Training
    adapted: Adapted | None = None  # None: all weights were trained
    metrics: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    licence: str = "unstated"

    @property
    def length(self) -> str:
        """How much training the model had, in words."""
        return f"{self.training.steps} {UNITS.get(self.model, 'steps')}"

    def shared_px(self, *, tile_px: int) -> int:
        """What neighbouring windows of this side share: the card's overlap, or half a window where that is less."""
        return min(self.overlap_px, tile_px // 2)

    @property
    def not_calibrated(self) -> str:
        """Why the confidence is as the network gives it, in words; nothing where a temperature was fitted."""
        told = self.metrics.get(CALIBRATION)
        if told is None:
            return "" if self.temperature != 1 else OF_A_FOREST if self.model == FOREST else NEVER_TRIED
        return str(told.get("not_fitted", ""))


def write_card(card: Card, folder: Path) -> None:
    """Write `card.json`; it appears whole. A score that is no number is null there, as JSON has no other word for it."""
    part = folder / f"{NAME}.part"
    part.write_text(json.dumps(_numbers(asdict(card)), indent=1, allow_nan=False) + "\n")
    part.replace(folder / NAME)


def _numbers(value: Any) -> Any:
    """The value with None for what is not finite, at any depth."""
    if isinstance(value, Mapping):
        return {key: _numbers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def seed_folders(folder: Path) -> dict[int, Path]:
    """The runs in a folder that was trained with several seeds, by seed in order; empty where it is a run of its own."""
    if (folder / NAME).exists() or (folder / "recipe.yaml").exists() or not folder.is_dir():
        return {}
    found = {int(path.name[4:]): path for path in folder.iterdir() if SEED.fullmatch(path.name) and path.is_dir()}
    return dict(sorted(found.items()))


def read_card(folder: Path) -> Card:
    """The card of a checkpoint folder. Raises RunError where there is none, or one of another format."""
    path = folder / NAME
    if seeds := seed_folders(folder):
        several = ", ".join(map(str, seeds))
        raise RunError(f"{folder} holds a run for each of the seeds {several}; name one of them, e.g. {seeds[min(seeds)]}")
    if not folder.exists():
        raise RunError(f"{folder} is not there; give the folder named with --out in training")
    if not path.is_file():
        raise RunError(f"{folder} is not a finished run: it has no {NAME}; train it to the end, or give the run's own folder")
    try:
        values = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise RunError(f"{path} is not JSON ({error}); restore it from a copy, or train again") from error
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        raise RunError(f"{path} has format {found}, this version of terralean reads format {FORMAT}")
    try:
        return TypeAdapter(Card).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RunError(f"{path}: {where}: {first['msg']}; restore it from a copy, or train again") from error
