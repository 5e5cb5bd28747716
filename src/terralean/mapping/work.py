"""What making a map of a scene consists of, whatever the task: rows that are finished one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from terralean.mapping.crew import Crew
from terralean.mapping.plan import Lattice
from terralean.mapping.reading import Batch
from terralean.mapping.stages import Stages
from terralean.predict import Predictor
from terralean.raster.clip import Clip
from terralean.raster.cog import Content
from terralean.raster.grid import Grid
from terralean.raster.scene import Scene
from terralean.spec import IGNORE, Classes

CONFIDENCE = Content(bands=("confidence_percent",), dtype="uint8", nodata=IGNORE, overviews="AVERAGE", bits=8)
COMPUTE = Content(bands=("tokens_kept_percent",), dtype="uint8", nodata=IGNORE, overviews="AVERAGE", bits=8)
CERTAINTY_STEPS = 10_000  # of a probability in a table
CERTAINTY = Content(bands=("certainty",), dtype="uint16", nodata=2**16 - 1, overviews="AVERAGE", bits=16)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Finished:
    """Full-width rows of a map that nothing changes any more, and what they took."""

    rows: Mapping[str, NDArray[Any]]  # by what they say: "classes", "confidence", ...; each (C, h, w)
    windows: int  # that were predicted
    kept_sum: float = 0.0  # over these, the share of tokens kept


class Work(Protocol):
    """A scene and how it becomes a map."""

    @property
    def scene(self) -> Scene:
        """What is mapped."""

    @property
    def lattice(self) -> Lattice:
        """Its windows."""

    @property
    def clip(self) -> Clip | None:
        """The part of it that is mapped; None: all."""

    @property
    def crew(self) -> Crew:
        """Who predicts."""

    @property
    def contents(self) -> Mapping[str, Content]:
        """Of the rows that are made, by what they say."""

    @property
    def grid(self) -> Grid:
        """Of the map."""

    @property
    def place(self) -> Grid:
        """The same with coordinates even where the scene has none: px of the scene."""

    @property
    def cell_px(self) -> int:
        """Px of the scene along a side of a pixel of the map."""

    @property
    def heights(self) -> list[int]:
        """Rows of the map in each of the pieces that `finished` gives; the windows of one row make a piece."""

    @property
    def predictor(self) -> Predictor:
        """The model."""

    def with_crew(self, crew: Crew) -> Work:
        """The same work by others."""

    def predict(self, batch: Batch) -> Any:
        """What the network says of a batch."""

    def finished(self, stages: Stages, *, done: int) -> Iterator[Finished]:
        """The pieces in order, but for the first `done`: the same bytes for any `done` and any number of workers."""

    def bytes_held(self) -> int:
        """Of the arrays that are held at once, beside the network's own."""


def scores_content(classes: Classes) -> Content:
    """A band for each class."""
    return Content(bands=classes.names, dtype="uint8", nodata=IGNORE, overviews="AVERAGE", bits=8)


def percent(shares: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Shares 0..1 in whole percent, 255 where not valid."""
    return np.where(valid, np.where(valid, shares, 0).clip(0, 1) * 100 + 0.5, IGNORE).astype(np.uint8)
