"""The part of a scene that lies in the polygons of a vector file."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize

from terralean.errors import GridMismatch
from terralean.raster.grid import Grid, Window
from terralean.raster.polygons import polygons_on


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Clip:
    """Pixels whose centres lie in polygons."""

    window: Window  # the pixels' bounds, in px of the scene
    tree: shapely.STRtree  # of the polygons, x and y in px of the scene

    def inside(self, window: Window) -> NDArray[np.bool_]:
        """(h, w) which pixels of a window lie in a polygon."""
        found = self.tree.geometries[np.sort(self.tree.query(_box(window)))]
        if not len(found):
            return np.zeros((window.height, window.width), np.bool_)
        shift = rasterio.Affine.translation(window.col, window.row)
        burnt = rasterize(found, out_shape=(window.height, window.width), transform=shift, default_value=1, dtype="uint8")
        return np.asarray(burnt == 1)

    def reaches(self, window: Window) -> bool:
        """Whether a polygon may reach into a window: quick, and never wrong where it says no."""
        return bool(self.tree.query(_box(window)).size)

    @property
    def digest(self) -> str:
        """The same for the same polygons, 16 hexadecimal digits."""
        return hashlib.sha256(b"".join(shapely.to_wkb(self.tree.geometries))).hexdigest()[:16]


def read_clip(path: str, *, like: Grid, name: str) -> Clip:
    """The polygons of a file on the scene `name`, whose grid is `like`, reprojected where theirs is another CRS.

    Raises GridMismatch where the scene has no CRS or none of its pixels lies in them, LabelError where there are no polygons.
    """
    if like.crs is None:
        raise GridMismatch(
            f"{path} cannot be laid on {name}, which has no CRS; set it (gdal_edit.py -a_srs EPSG:code) or map the whole scene"
        )
    polygons = shapely.transform(polygons_on(path, like=like), lambda corners: _in_px(corners, like))
    polygons = polygons[~shapely.is_empty(polygons)]
    window = _pixels(shapely.total_bounds(polygons)) if len(polygons) else Window(row=0, col=0, height=0, width=0)
    window = window.cut(like.window)
    if not window.pixels:
        raise GridMismatch(f"no pixel of {name} lies in the polygons of {path}; give an area that the scene covers")
    return Clip(window=window, tree=shapely.STRtree(polygons))


def _in_px(corners: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    """x and y on the ground (n, 2) -> columns and rows (n, 2)."""
    a, b, c, d, e, f = grid.transform
    return np.asarray(np.linalg.solve(np.array([[a, b], [d, e]]), (corners - (c, f)).T).T)


def _pixels(bounds: NDArray[Any]) -> Window:
    """The pixels whose centres lie within."""
    left, top, right, bottom = bounds.tolist()
    col, row = math.ceil(left - 0.5), math.ceil(top - 0.5)
    return Window(row=row, col=col, height=math.floor(bottom - 0.5) - row + 1, width=math.floor(right - 0.5) - col + 1)


def _box(window: Window) -> Any:
    return shapely.box(window.col, window.row, window.col + window.width, window.row + window.height)
