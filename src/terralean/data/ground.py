"""Where images lie relative to each other: scenes close to one another share a frame, a plane with known metres."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from terralean.raster.grid import Grid, Window

EARTH_RADIUS_M = 6_371_000.0
WGS84 = "EPSG:4326"
UTM_LATITUDES = (-80, 84)
PIXELS = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # columns and rows as x and y; also what a file without a transform says


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """A plane for scenes that may share ground. Without a CRS it is the pixels of one image: x = column, y = row, in px."""

    crs: str | None
    metres: tuple[float, float]  # that one unit of x and of y measures, where it measures least; 1 in a frame of pixels
    members: tuple[int, ...]  # positions in the list of grids that the frame was made from


def frames(grids: Sequence[Grid], *, reach_m: float) -> list[Frame]:
    """One frame for each set of scenes that lie within `reach_m` of one another, and one for each image without a place."""
    out, on_earth, elsewhere = [], [], defaultdict[str, list[int]](list)
    for i, grid in enumerate(grids):
        if not placed(grid):
            out.append(Frame(crs=None, metres=(1.0, 1.0), members=(i,)))
        elif np.isfinite(_lonlat(grid)).all():
            on_earth.append(i)
        else:
            elsewhere[str(grid.crs)].append(i)  # another planet, or an engineering CRS: only its own kind can be near
    sets = _neighbours([grids[i] for i in on_earth], on_earth, reach_m=reach_m) + list(elsewhere.values())
    return [_ground_frame(grids, members) for members in sets] + out


def placed(grid: Grid) -> bool:
    """Whether pixels have coordinates: a CRS, and a transform into it."""
    return grid.crs is not None and grid.transform != PIXELS


def aligned(grid: Grid, frame: Frame) -> bool:
    """Whether rows and columns of the grid run along the axes of the frame."""
    _, b, _, d, _, _ = plane(grid, frame)
    return b == 0 and d == 0 and (frame.crs is None or same_crs(grid.crs, frame.crs))


def to_frame(grid: Grid, frame: Frame, cols: NDArray[np.float64], rows: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    """Frame x, y of points given in columns and rows of the grid (0, 0 is the outer corner of the first pixel)."""
    a, b, c, d, e, f = plane(grid, frame)
    x, y = a * cols + b * rows + c, d * cols + e * rows + f
    return (x, y) if frame.crs is None else _transform(str(grid.crs), frame.crs, x, y)


def plane(grid: Grid, frame: Frame) -> tuple[float, float, float, float, float, float]:
    """The affine transform to use in this frame: of an image without a place, its pixels."""
    return PIXELS if frame.crs is None else grid.transform


def outline_m(grid: Grid, frame: Frame, window: Window) -> shapely.Polygon:
    """The window's outline in metres of the frame (px in a frame of pixels)."""
    steps = 1 if aligned(grid, frame) else 16  # a straight edge is a curve in another projection
    along = np.linspace(0, 1, steps, endpoint=False)
    top, left, bottom, right = window.row, window.col, window.row + window.height, window.col + window.width
    cols = np.concatenate(
        [left + along * window.width, np.full(steps, right), right - along * window.width, np.full(steps, left)]
    )
    rows = np.concatenate(
        [np.full(steps, top), top + along * window.height, np.full(steps, bottom), bottom - along * window.height]
    )
    x, y = to_frame(grid, frame, cols.astype(float), rows.astype(float))
    return shapely.Polygon(np.stack([x * frame.metres[0], y * frame.metres[1]], axis=-1))


def pixel_units(grid: Grid, frame: Frame) -> tuple[float, float]:
    """Width and height of a pixel in units of the frame."""
    if aligned(grid, frame):
        a, _, _, _, e, _ = plane(grid, frame)
        return abs(a), abs(e)
    wide, high = grid.pixel_m() or (1.0, 1.0)
    side = max(wide, high)  # the axes may be turned against each other
    return side / frame.metres[0], side / frame.metres[1]


@lru_cache(maxsize=256)
def same_crs(one: str | None, other: str | None) -> bool:
    """Whether two CRS strings mean the same."""
    return one == other or (one is not None and other is not None and CRS.from_user_input(one) == CRS.from_user_input(other))


@lru_cache(maxsize=256)
def _transformer(source: str, target: str) -> Transformer:
    return Transformer.from_crs(source, target, always_xy=True)


def _transform(source: str, target: str, x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
    if same_crs(source, target):
        return x, y
    x, y = _transformer(source, target).transform(x, y)
    return np.asarray(x), np.asarray(y)


def _neighbours(grids: Sequence[Grid], index: Sequence[int], *, reach_m: float) -> list[list[int]]:
    """Sets of scenes linked by circles round them that come within `reach_m`; on the sphere, so the date line is no edge."""
    if not grids:
        return []
    centre, radius = zip(*(_circle(grid) for grid in grids), strict=True)
    points, radii = np.stack(centre), np.array(radius)
    near = KDTree(points).query_pairs(2 * radii.max() + reach_m, output_type="ndarray")
    apart = np.linalg.norm(points[near[:, 0]] - points[near[:, 1]], axis=1)
    near = near[apart <= radii[near].sum(axis=1) + reach_m]
    links = coo_array((np.ones(len(near)), (near[:, 0], near[:, 1])), shape=(len(grids), len(grids)))
    labels = connected_components(links, directed=False)[1]
    return [[index[int(i)] for i in np.flatnonzero(labels == label)] for label in range(labels.max() + 1)]


def _circle(grid: Grid) -> tuple[NDArray[np.float64], float]:
    """Centre (3,) of the scene on the sphere, and the distance to its farthest corner, both in metres."""
    lon, lat = _lonlat(grid)
    points = _on_sphere(lon, lat)
    middle = points.mean(axis=0)
    return middle, float(np.linalg.norm(points - middle, axis=1).max())


def _on_sphere(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.float64]:
    lon, lat = np.radians(lon), np.radians(lat)
    return EARTH_RADIUS_M * np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def _lonlat(grid: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitudes and latitudes (4,) of the corners; infinite where the CRS has no place on Earth."""
    x, y = np.array(grid.corners()).T
    try:
        return _transform(str(grid.crs), WGS84, x, y)
    except ProjError:
        return np.full(4, np.inf), np.full(4, np.inf)


def _ground_frame(grids: Sequence[Grid], members: Sequence[int]) -> Frame:
    first = str(grids[members[0]].crs)
    shared = all(same_crs(grids[i].crs, first) for i in members)
    crs = first if shared else _utm(np.concatenate([np.stack(_lonlat(grids[i])) for i in members], axis=1))
    corners = [_transform(str(grids[i].crs), crs, *np.array(grids[i].corners()).T) for i in members]
    return Frame(crs=crs, metres=_metres(crs, np.concatenate(corners, axis=1)), members=tuple(members))


def _utm(lonlat: NDArray[np.float64]) -> str:
    """The UTM zone (or polar plane) at the middle of points (2, n) in degrees."""
    x, y, z = _on_sphere(*lonlat).mean(axis=0)
    lon, lat = math.degrees(math.atan2(y, x)), math.degrees(math.atan2(z, math.hypot(x, y)))
    if lat > UTM_LATITUDES[1]:
        return "EPSG:32661"
    if lat < UTM_LATITUDES[0]:
        return "EPSG:32761"
    zone = int((lon + 180) // 6) % 60 + 1
    return f"EPSG:{(32600 if lat >= 0 else 32700) + zone}"


def _metres(crs: str, points: NDArray[np.float64]) -> tuple[float, float]:
    """Metres that a unit of x and of y measures on the ground, least of the points (2, n).

    A projection that is true to a hundredth keeps its nominal unit, so that blocks of so many metres are whole pixels;
    degrees and the web's Mercator, far from true, are measured.
    """
    system = CRS.from_user_input(crs)
    nominal = system.axis_info[0].unit_conversion_factor if system.axis_info else 1.0
    geod, degrees = system.get_geod(), system.geodetic_crs
    if geod is None or degrees is None:
        return nominal, nominal
    step = 1e-3 if system.is_geographic else 100.0 / nominal
    bounds = [[axis.min(), axis.mean(), axis.max()] for axis in points]
    x, y = (axis.ravel() for axis in np.meshgrid(*bounds))
    to_degrees = Transformer.from_crs(system, degrees, always_xy=True)
    lon, lat = to_degrees.transform(x, y)
    wide = geod.inv(lon, lat, *to_degrees.transform(x + step, y))[2] / step
    high = geod.inv(lon, lat, *to_degrees.transform(x, y + step))[2] / step
    least = (float(wide.min()), float(high.min()))
    true = not system.is_geographic and all(abs(m / nominal - 1) < 0.01 for m in least)  # noqa: PLR2004 - a hundredth
    return (nominal, nominal) if true else least
