"""Where the pixels of several scenes lie to each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from terralean.data.ground import same_crs
from terralean.data.spectral.pixels import Pixels
from terralean.raster.grid import Grid

APART_PX = 10_000_000  # between scenes of which it is not known where they lie to each other
NEAR_PX = 0.05  # of a whole number of pixels, scenes lie on one lattice


def origins(grids: Sequence[Grid]) -> NDArray[np.int64]:
    """(scenes, 2): row and column of each scene's first pixel on one lattice; far apart where they lie on none together."""
    found = np.zeros((len(grids), 2), np.int64)
    for index, grid in enumerate(grids[1:], start=1):
        shift = _shift(grid, grids[0])
        found[index] = (index * APART_PX, 0) if shift is None else shift
    return found


def places(pixels: Pixels, origin: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n, 2): row and column of pixels on that lattice."""
    return origin[pixels.scene] + np.stack([pixels.row, pixels.col], axis=1)


def nearest_px(from_: NDArray[np.int64], to: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of places (n, 2) the distance to the nearest of others (m, 2), the larger of rows and columns; infinite without one."""
    if not len(to) or not len(from_):
        return np.full(len(from_), np.inf)
    return np.asarray(cKDTree(to).query(from_, p=np.inf)[0], np.float64)


def _shift(grid: Grid, first: Grid) -> tuple[int, int] | None:
    """Rows and columns from one grid's corner to another's, None unless both have the same pixels."""
    if grid.crs is None or first.crs is None or not same_crs(grid.crs, first.crs):
        return None
    a, b, c, d, e, f = first.transform
    if not np.allclose(np.array(grid.transform)[[0, 1, 3, 4]], (a, b, d, e), rtol=1e-4, atol=1e-12):
        return None
    col, row = np.linalg.solve([[a, b], [d, e]], [grid.transform[2] - c, grid.transform[5] - f])
    off = max(abs(col - round(col)), abs(row - round(row)))
    return (round(row), round(col)) if off < NEAR_PX else None
