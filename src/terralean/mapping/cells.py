"""A scene recognised view by view: square views, each of which gives the class of the cell in its middle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from terralean.errors import ConfigError, SizeError
from terralean.mapping.outputs import Answer
from terralean.mapping.plan import starts
from terralean.mapping.strips import Readable
from terralean.predict import Predictor
from terralean.raster.grid import IDENTITY, Grid, Window
from terralean.spec import IGNORE


@dataclass(frozen=True, kw_only=True, slots=True)
class CellPlan:
    """Views on a lattice fixed by the scene's first pixel, and the raster of their cells.

    The first views lie at the scene's edges, so that half the overlap along them is in no cell; the last ones may reach past
    the scene, and their cells as well. The map of a crop whose offset is a multiple of the cell is the crop of the map for
    the views that both have whole.
    """

    scene: Grid
    view_px: int
    overlap_px: int  # shared by neighbouring views; a view is as much larger than its cell

    def __post_init__(self) -> None:
        if self.view_px < 1:
            raise ConfigError(f"tile must be at least 1 px, got {self.view_px}")
        if not 0 <= self.overlap_px < self.view_px:
            raise ConfigError(
                f"overlap must be 0 to less than the tile ({self.view_px} px), so that a cell remains, got {self.overlap_px}"
            )
        if min(self.scene.height, self.scene.width) <= self.overlap_px / 2:
            raise SizeError(
                f"the scene is {self.scene.width} x {self.scene.height} px (width, height) and the first cell begins at "
                f"{self.overlap_px / 2:g} px, in the middle of its view of {self.view_px} px; make --overlap or --tile smaller"
            )

    @property
    def cell_px(self) -> int:
        """Side of a cell in px of the scene."""
        return self.view_px - self.overlap_px

    @property
    def rows(self) -> list[int]:
        """First rows of the views."""
        return starts(self.scene.height, tile=self.view_px, overlap=self.overlap_px)

    @property
    def cols(self) -> list[int]:
        """First columns of the views."""
        return starts(self.scene.width, tile=self.view_px, overlap=self.overlap_px)

    @property
    def cells(self) -> Grid:
        """The cells as pixels, in the CRS of the scene; of a scene without a place, in px of the scene."""
        a, b, c, d, e, f = self.scene.transform
        side, shift = self.cell_px, self.overlap_px / 2
        transform = (a * side, b * side, c + (a + b) * shift, d * side, e * side, f + (d + e) * shift)
        return Grid(width=len(self.cols), height=len(self.rows), crs=self.scene.crs, transform=transform)

    @property
    def grid(self) -> Grid:
        """Of the map: the cells, but without a transform where the scene has no place either."""
        cells = self.cells
        if self.scene.crs is None and self.scene.transform == IDENTITY:
            return Grid(width=cells.width, height=cells.height, crs=None)
        return cells

    def bytes_needed(self, *, bands: int, classes: int, batch: int, seen_px: int) -> int:
        """Peak bytes of the arrays held at once: what is read for a batch, its views, what the network sees, a row of cells."""
        read = self.view_px * (self.view_px + (batch - 1) * self.cell_px) * (4 * bands + 1)
        views = batch * self.view_px**2 * (2 * 4 * bands + 1)
        return read + views + batch * seen_px**2 * 4 * bands + len(self.cols) * 4 * (classes + 2)


def recognised(predictor: Predictor, scene: Readable, plan: CellPlan, *, batch: int) -> Iterator[Answer]:
    """The map row by row. A cell without a valid pixel has no class; of a view in part without data the rest is judged."""
    for index, row in enumerate(plan.rows):
        cols = plan.cols
        classes = np.full((1, len(cols)), IGNORE, dtype=np.uint8)
        confidence = np.full((1, len(cols)), np.nan, dtype=np.float32)
        for first in range(0, len(cols), batch):
            known, probabilities = _recognise(predictor, scene, plan, row=row, cols=cols[first : first + batch])
            classes[0, first + known] = probabilities.argmax(axis=1)
            confidence[0, first + known] = probabilities.max(axis=1)
        yield Answer(window=Window(row=index, col=0, height=1, width=len(cols)), classes=classes, confidence=confidence)


def _recognise(
    predictor: Predictor, scene: Readable, plan: CellPlan, *, row: int, cols: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Of neighbouring views those whose cells hold data (n,), and their probabilities (n, K). The scene is read once."""
    side = plan.view_px
    values, valid = scene.read(Window(row=row, col=cols[0], height=side, width=cols[-1] - cols[0] + side))
    views = [slice(col - cols[0], col - cols[0] + side) for col in cols]
    known = np.array([i for i, view in enumerate(views) if _cell(valid[:, view], plan).any()], dtype=np.int64)
    if not known.size:
        return known, np.zeros((0, len(predictor.card.classes)), np.float32)
    images = np.stack([values[:, :, views[i]] for i in known]).astype(np.float32)
    masks = np.stack([valid[:, views[i]] for i in known])
    return known, predictor.recognise(torch.from_numpy(images), torch.from_numpy(masks)).numpy()


def _cell(view: NDArray[Any], plan: CellPlan) -> NDArray[Any]:
    """The pixels of a view (V, V) that its cell touches; an odd overlap has the cell begin in the middle of a pixel."""
    low = plan.overlap_px // 2
    part = slice(low, plan.view_px - low)
    return view[part, part]
