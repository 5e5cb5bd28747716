"""What one of several that map scenes is told, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from terralean.errors import TerraleanError
from terralean.mapping.progress import Progress
from terralean.mapping.run import MapConfig, MapResult, map_scene
from terralean.mapping.scenes import SceneSource
from terralean.predict import Predictor

Outcome = MapResult | TerraleanError  # a map, or what was wrong with the scene
Outcomes = Generator[tuple[int, Outcome], None, None]  # numbers of scenes with what came of them, as they are finished
Tell = Callable[[int, Progress], None]  # number of a scene, how far its map is


class Load(Protocol):
    """Opens a model; it is called in other processes too, so it must be picklable: `partial(terralean.predict.load, RUN)`."""

    def __call__(self, *, device: str | None) -> Predictor:
        """The model on a device, None for its own choice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """How scenes are to be mapped, by whom and where."""

    load: Load
    device: str | None
    out: Path
    config: MapConfig


def outcome(
    predictor: Predictor, source: SceneSource, *, out: Path, config: MapConfig, progress: Callable[[Progress], None]
) -> Outcome:
    """Map a scene; what is wrong with it is the answer, so that others can be mapped."""
    try:
        return map_scene(predictor, source, out=out, config=config, progress=progress)
    except TerraleanError as error:
        return error
