"""How far a map is, on the ground."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from terralean.raster.area import row_area_m2
from terralean.raster.grid import Grid


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How much of a scene is mapped, pixels without data included."""

    scene: str
    done: float
    total: float
    unit: Literal["km2", "px"]  # px of the map where the ground is not known
    resumed: float = 0.0  # of what is done, from a run that was stopped
    index: int = 0  # of the scene among all of them
    scenes: int = 1
    together: int = 1  # scenes that are mapped side by side, whose amounts these are


class Meter:
    """Tells how far a map is from its finished rows."""

    def __init__(self, grid: Grid, *, scene: str, resumed_rows: int) -> None:
        area_m2 = row_area_m2(grid)
        self._scene, self._resumed_rows = scene, resumed_rows
        self._unit: Literal["km2", "px"] = "px" if area_m2 is None else "km2"
        rows = np.ones(grid.height) if area_m2 is None else area_m2 / 1e6
        self._above = np.concatenate([[0.0], np.cumsum(rows * grid.width)])

    def at(self, rows: int) -> Progress:
        """When so many rows are finished."""
        return Progress(
            scene=self._scene,
            done=float(self._above[rows]),
            total=float(self._above[-1]),
            unit=self._unit,
            resumed=float(self._above[self._resumed_rows]),
        )
