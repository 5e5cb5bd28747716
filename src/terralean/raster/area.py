"""How much ground a pixel covers."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Geod, Proj, Transformer

from terralean.raster.grid import Grid

TRUSTED = 0.01  # a projection that keeps areas to 1 % is taken at its word, as any GIS does


def row_area_m2(grid: Grid) -> NDArray[np.float64] | None:
    """Ground area of one pixel of each row, in m2, (height,); None without a CRS or where it cannot be told.

    In a projection that keeps areas (UTM, national grids, equal-area) that is the area on the plane. In degrees, and in
    projections that do not (Web Mercator), it is the area on the ellipsoid at the middle of the row.
    """
    if grid.crs is None:
        return None
    crs = CRS.from_user_input(grid.crs)
    a, b, _, d, e, _ = grid.transform
    plane = abs(a * e - b * d)
    if crs.is_geographic:
        return plane * _square_unit_m2(crs, lat=_middle(grid)[1])
    if not crs.axis_info:
        return None
    in_metres = np.full(grid.height, plane * crs.axis_info[0].unit_conversion_factor ** 2)
    if not crs.is_projected:
        return in_metres
    stretch = _areal_scale(crs, *_middle(grid))
    if not np.isfinite(stretch).all():
        return None
    return in_metres if abs(stretch - 1).max() < TRUSTED else in_metres / stretch


def _middle(grid: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ground x and y of the middle of each row."""
    a, b, c, d, e, f = grid.transform
    col, row = grid.width / 2, np.arange(grid.height) + 0.5
    return np.asarray(a * col + b * row + c), np.asarray(d * col + e * row + f)


def _square_unit_m2(crs: CRS, *, lat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area of one unit of longitude by one of latitude: the product of the two radii of curvature."""
    unit = crs.axis_info[0].unit_conversion_factor if crs.axis_info else math.pi / 180
    geod = crs.get_geod() or Geod(ellps="WGS84")
    angle = lat * unit
    bend = 1 - geod.es * np.sin(angle) ** 2
    return unit**2 * geod.a**2 * (1 - geod.es) * np.abs(np.cos(angle)) / bend**2


def _areal_scale(crs: CRS, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many times larger an area is on the plane than on the ground; inf or NaN off the projection."""
    geographic = crs.geodetic_crs
    if geographic is None:
        return np.full(len(x), np.nan)
    lon, lat = Transformer.from_crs(crs, geographic, always_xy=True).transform(x, y)
    return np.asarray(Proj(crs).get_factors(lon, lat).areal_scale)
