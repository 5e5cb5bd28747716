"""Where on the Earth a map has data, as GeoJSON says it: longitude and latitude on WGS 84."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError
from shapely.geometry import mapping
from shapely.geometry.polygon import orient

from terralean.raster.grid import Grid
from terralean.spec import IGNORE

WGS84 = CRS.from_string("OGC:CRS84")
POINTS = 16  # along the longer side of a map: a straight line there is none on the Earth
DIGITS = 7  # of a degree: a centimetre
TURN = 360.0
WORLD = shapely.box(-TURN / 2, -90, TURN / 2, 90)


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """A geometry of GeoJSON and its bounds; None both where the place is not known. West is above east across 180 degrees."""

    geometry: dict[str, Any] | None
    bbox: tuple[float, float, float, float] | None  # west, south, east, north


class Extent:
    """Takes the rows of a map from top to bottom and knows the convex hull of the pixels with data."""

    def __init__(self) -> None:
        self._rows = 0
        self.hull: Any = shapely.Point()  # in px of the map

    def write(self, labels: NDArray[np.uint8]) -> None:
        """Class values (h, w) of the next rows, 255 where there is none."""
        known = labels != IGNORE
        rows = np.flatnonzero(known.any(axis=1))
        first, last = known[rows].argmax(axis=1), known.shape[1] - known[rows, ::-1].argmax(axis=1)
        rows = rows + self._rows
        corners = [np.stack([col, row], axis=1) for col in (first, last) for row in (rows, rows + 1)]
        self._rows += len(labels)
        if rows.size:
            self.hull = shapely.union(self.hull, shapely.MultiPoint(np.concatenate(corners))).convex_hull


def footprint(hull: Any, grid: Grid) -> Footprint:
    """The place of a part of a grid, given in px."""
    nowhere = Footprint(geometry=None, bbox=None)
    if grid.crs is None or hull.is_empty:
        return nowhere
    try:
        to_earth = Transformer.from_crs(CRS.from_user_input(grid.crs), WGS84, always_xy=True)
    except ProjError:
        return nowhere
    a, b, c, d, e, f = grid.transform
    line = shapely.segmentize(hull.exterior, max(grid.width, grid.height) / POINTS)
    col, row = shapely.get_coordinates(line)[:-1].T
    lon, lat = to_earth.transform(a * col + b * row + c, d * col + e * row + f)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return nowhere
    return _around_the_earth(np.asarray(lon), np.asarray(lat))


def whole(grid: Grid) -> Any:
    """All of a grid in px."""
    return shapely.box(0, 0, grid.width, grid.height)


def _around_the_earth(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> Footprint:
    """A ring of places (n,), which may cross 180 degrees or go round a pole."""
    way = np.unwrap(np.append(lon, lon[0]), period=TURN)
    if abs(way[-1] - way[0]) > TURN / 2:
        north = lat.mean() > 0
        return _said(shapely.box(-TURN / 2, lat.min() if north else -90, TURN / 2, 90 if north else lat.max()))
    way = way[:-1] - TURN * math.floor((way[:-1].min() + TURN / 2) / TURN)  # begins between -180 and 180
    ring = shapely.Polygon(np.stack([way, lat], axis=1))
    if way.max() <= TURN / 2:
        return _said(ring)
    beyond = shapely.transform(ring, lambda places: places - [TURN, 0])
    parts = [shapely.intersection(part, WORLD) for part in (ring, beyond)]
    bounds = (float(way.min()), float(lat.min()), float(way.max() - TURN), float(lat.max()))
    return _said(shapely.MultiPolygon(parts), bounds)


def _said(place: Any, bounds: tuple[float, float, float, float] | None = None) -> Footprint:
    """Rings counterclockwise, numbers rounded."""
    parts = [orient(part) for part in getattr(place, "geoms", [place])]
    turned = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
    rounded = shapely.transform(turned, lambda places: places.round(DIGITS))
    west, south, east, north = (round(side, DIGITS) for side in (bounds or place.bounds))
    return Footprint(geometry=_lists(mapping(rounded)), bbox=(west, south, east, north))


def _lists(geometry: dict[str, Any]) -> dict[str, Any]:
    """As JSON has it."""

    def listed(value: Any) -> Any:
        return [listed(part) for part in value] if isinstance(value, tuple | list) else value

    return {"type": geometry["type"], "coordinates": listed(geometry["coordinates"])}
