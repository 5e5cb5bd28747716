"""A scene recognised view by view: square views, each of which gives the class of the cell in its middle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from terralean.errors import ConfigError, SizeError
from terralean.mapping.crew import Crew, answered
from terralean.mapping.plan import starts
from terralean.mapping.reading import Batch, bytes_read
from terralean.mapping.stages import Stages
from terralean.mapping.work import CERTAINTY_STEPS, Finished, percent
from terralean.predict import Predictor
from terralean.raster.clip import Clip
from terralean.raster.cog import Content
from terralean.raster.grid import IDENTITY, Grid, Window
from terralean.raster.scene import Scene
from terralean.spec import IGNORE


@dataclass(frozen=True, kw_only=True, slots=True)
class CellPlan:
    """Views on a lattice fixed by the scene's first pixel, and the raster of their cells.

    The first views lie at the scene's edges, so that half the overlap along them is in no cell; the last ones may reach past
    the scene, and their cells as well. The map of a crop whose offset is a multiple of the cell is the crop of the map for
    the views that both have whole. Where only a part of the scene is mapped, cells are those of the whole that reach into it.
    """

    grid: Grid  # of the scene
    view_px: int
    overlap_px: int  # shared by neighbouring views; a view is as much larger than its cell
    part: Window | None = None  # what is mapped; None: all

    def __post_init__(self) -> None:
        if self.view_px < 1:
            raise ConfigError(f"tile must be at least 1 px, got {self.view_px}")
        if not 0 <= self.overlap_px < self.view_px:
            raise ConfigError(
                f"overlap must be 0 to less than the tile ({self.view_px} px), so that a cell remains, got {self.overlap_px}"
            )
        if min(self.grid.height, self.grid.width) <= self.overlap_px / 2:
            raise SizeError(
                f"the scene is {self.grid.width} x {self.grid.height} px (width, height) and the first cell begins at "
                f"{self.overlap_px / 2:g} px, in the middle of its view of {self.view_px} px; make --overlap or --tile smaller"
            )

    @property
    def side_px(self) -> int:
        """Of a view."""
        return self.view_px

    @property
    def cell_px(self) -> int:
        """Side of a cell in px of the scene."""
        return self.view_px - self.overlap_px

    @property
    def rows(self) -> list[int]:
        """First rows of the views."""
        part = self.grid.window if self.part is None else self.part
        return self._of_cells(self.grid.height, first=part.row, end=part.row + part.height)

    @property
    def cols(self) -> list[int]:
        """First columns of the views."""
        part = self.grid.window if self.part is None else self.part
        return self._of_cells(self.grid.width, first=part.col, end=part.col + part.width)

    @property
    def cells(self) -> Grid:
        """The cells as pixels, in the CRS of the scene; of a scene without a place, in px of the scene."""
        a, b, c, d, e, f = self.grid.transform
        rows, cols, side, shift = self.rows, self.cols, self.cell_px, self.overlap_px / 2
        row, col = rows[0] + shift, cols[0] + shift
        transform = (a * side, b * side, c + a * col + b * row, d * side, e * side, f + d * col + e * row)
        return Grid(width=len(cols), height=len(rows), crs=self.grid.crs, transform=transform)

    @property
    def map_grid(self) -> Grid:
        """Of the map: the cells, but without a transform where the scene has no place either."""
        cells = self.cells
        if self.grid.crs is None and self.grid.transform == IDENTITY:
            return Grid(width=cells.width, height=cells.height, crs=None)
        return cells

    def holds(self, wanted: NDArray[np.bool_]) -> bool:
        """Views whose cells have no pixel to map are not predicted, whatever lies around."""
        return bool(self._cell(wanted).any())

    def _cell(self, view: NDArray[Any]) -> NDArray[Any]:
        """The pixels of a view (V, V) that its cell touches; an odd overlap has the cell begin in the middle of a pixel."""
        low = self.overlap_px // 2
        part = slice(low, self.view_px - low)
        return view[part, part]

    def _of_cells(self, length: int, *, first: int, end: int) -> list[int]:
        """Starts of the views whose cells touch pixels of [first, end); of the nearest one where that is none."""
        low, all_starts = self.overlap_px // 2, starts(length, tile=self.view_px, overlap=self.overlap_px)
        found = [start for start in all_starts if start + low < end and start + self.view_px - low > first]
        return found or [all_starts[0] if end <= all_starts[0] + low else all_starts[-1]]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CellWork:
    """Views of a scene, recognised one by one."""

    predictor: Predictor
    scene: Scene
    lattice: CellPlan
    clip: Clip | None
    crew: Crew
    contents: Mapping[str, Content]

    @property
    def grid(self) -> Grid:
        """Of the map: pixels are cells."""
        return self.lattice.map_grid

    @property
    def place(self) -> Grid:
        """The same; without a CRS, x and y are px of the scene."""
        return self.lattice.cells

    @property
    def cell_px(self) -> int:
        """Px of the scene along a side of a cell."""
        return self.lattice.cell_px

    @property
    def heights(self) -> list[int]:
        """A row of views is a row of cells."""
        return [1] * len(self.lattice.rows)

    def with_crew(self, crew: Crew) -> CellWork:
        """The same work by others."""
        return replace(self, crew=crew)

    def predict(self, batch: Batch) -> NDArray[np.float32]:
        """Probabilities (n, K) of the classes of whole views; of a view in part without data the rest is judged."""
        images = torch.from_numpy(batch.values.astype(np.float32))
        return self.predictor.recognise(images, torch.from_numpy(batch.valid)).numpy()

    def finished(self, stages: Stages, *, done: int) -> Iterator[Finished]:
        """Rows of cells. A cell without a pixel to map has no class."""
        first_row = self.lattice.rows[done]
        answers = answered(stages, self.scene, self.lattice, self.predict, crew=self.crew, first_row=first_row, clip=self.clip)
        return stages.ahead((self._finish(row) for row in self._rows(answers, done=done)), depth=1)

    def bytes_held(self) -> int:
        """Rows read, and batches on their way; rows of cells are small."""
        row = len(self.lattice.cols) * 4 * (len(self.predictor.card.classes) + 2)
        return row + bytes_read(self.scene, self.lattice, batch=self.crew.batch, at_once=self.crew.at_once)

    def _rows(
        self, answers: Iterator[tuple[Batch, NDArray[np.float32] | None]], *, done: int
    ) -> Iterator[dict[int, NDArray[np.float32]]]:
        """The probabilities (K,) of the known cells of each row, by column."""
        cols, at, row = len(self.lattice.cols), done, dict[int, NDArray[np.float32]]()
        for batch, found in answers:
            for index, number in enumerate(batch.numbers):
                assert found is not None, "a batch with windows has an answer"
                while at < number // cols:
                    yield row
                    at, row = at + 1, {}
                if at == number // cols:
                    row[number % cols] = found[index]
            while at < batch.end // cols:
                yield row
                at, row = at + 1, {}

    def _finish(self, row: Mapping[int, NDArray[np.float32]]) -> Finished:
        probabilities = np.zeros((len(self.predictor.card.classes), len(self.lattice.cols)), np.float32)
        known = np.zeros(len(self.lattice.cols), np.bool_)
        for col, found in row.items():
            probabilities[:, col], known[col] = found, True
        highest = probabilities.max(axis=0)
        rows: dict[str, NDArray[Any]] = {"classes": np.where(known, probabilities.argmax(axis=0), IGNORE).astype(np.uint8)}
        if "confidence" in self.contents:
            rows["confidence"] = percent(highest, known)
        if "scores" in self.contents:
            rows["scores"] = np.stack([percent(scores, known) for scores in probabilities])[:, None]
        if "certainty" in self.contents:
            rows["certainty"] = np.rint(highest * CERTAINTY_STEPS).astype(np.uint16)
        return Finished(rows={name: values.reshape(-1, 1, len(known)) for name, values in rows.items()}, windows=len(row))
