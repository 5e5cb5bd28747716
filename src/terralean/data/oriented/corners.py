"""Polygons of any number of corners as four: what oriented detection takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
import torch
from numpy.typing import NDArray

from terralean.boxes.form import to_polygons
from terralean.boxes.rectangle import smallest_rectangle
from terralean.data.oriented.record import CORNERS


def four_corners(points: NDArray[np.float64]) -> list[float]:
    """Points (V, 2) of an outline -> eight numbers: themselves if they are four, else the smallest rectangle round them.

    All must be finite.
    """
    if len(points) > 1 and np.array_equal(points[0], points[-1]):
        points = points[:-1]  # a ring that is closed
    if len(points) == CORNERS:
        return points.reshape(-1).tolist()
    hull = np.unique(shapely.get_coordinates(shapely.convex_hull(shapely.multipoints(points))), axis=0)
    if len(hull) == 1:
        return np.tile(hull[0], CORNERS).tolist()
    return to_polygons(smallest_rectangle(torch.from_numpy(hull))).tolist()


def upright(left: float, top: float, width: float, height: float) -> list[float]:
    """Eight numbers of an upright rectangle, clockwise on screen from the top left."""
    right, bottom = left + width, top + height
    return [left, top, right, top, right, bottom, left, bottom]


def joined(parts: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """x1 y1 x2 y2 ... of one or several outlines -> all their points (V, 2)."""
    return np.concatenate([np.asarray(part, dtype=np.float64).reshape(-1, 2) for part in parts])
