"""Where pixels lie: a grid on the ground, and windows of it in pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pyproj import CRS, Geod

from terralean.errors import GridMismatch

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # what GDAL gives for "no transform"


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A rectangle of pixels; row and col are those of its top-left corner, and may lie outside a scene."""

    row: int
    col: int
    height: int
    width: int

    def cut(self, other: Window) -> Window:
        """What both cover; height or width is 0 where they do not meet."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = max(0, min(self.row + self.height, other.row + other.height) - row)
        width = max(0, min(self.col + self.width, other.col + other.width) - col)
        return Window(row=row, col=col, height=height, width=width)

    def slices(self, *, origin: Window | None = None) -> tuple[slice, slice]:
        """Rows and columns of an array whose first pixel is the top-left corner of `origin` (default: the scene's)."""
        row, col = (self.row, self.col) if origin is None else (self.row - origin.row, self.col - origin.col)
        return slice(row, row + self.height), slice(col, col + self.width)

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.height * self.width


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Size and place of a raster. `transform` is GDAL-style affine as (a, b, c, d, e, f): x = a col + b row + c."""

    width: int
    height: int
    crs: str | None  # "EPSG:32633" where it has a code, else WKT; None where unknown
    transform: tuple[float, float, float, float, float, float] = IDENTITY

    @property
    def window(self) -> Window:
        """The whole grid."""
        return Window(row=0, col=0, height=self.height, width=self.width)

    @property
    def located(self) -> bool:
        """Whether pixels have a place on the ground."""
        return self.crs is not None

    def crop(self, window: Window) -> Grid:
        """The grid of a window of this one."""
        a, b, c, d, e, f = self.transform
        x, y = a * window.col + b * window.row + c, d * window.col + e * window.row + f
        return Grid(width=window.width, height=window.height, crs=self.crs, transform=(a, b, x, d, e, y))

    def corners(self) -> list[tuple[float, float]]:
        """Ground x, y of the four corners, clockwise from the top-left, in the units of the CRS."""
        a, b, c, d, e, f = self.transform
        pixel = [(0, 0), (self.width, 0), (self.width, self.height), (0, self.height)]
        return [(a * col + b * row + c, d * col + e * row + f) for col, row in pixel]

    def pixel_m(self) -> tuple[float, float] | None:
        """Width and height of the centre pixel on the ground in metres; None without a CRS."""
        if self.crs is None:
            return None
        a, b, c, d, e, f = self.transform
        crs = CRS.from_user_input(self.crs)
        if not crs.is_geographic:
            factor = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
            return math.hypot(a, d) * factor, math.hypot(b, e) * factor
        lon, lat = a * self.width / 2 + b * self.height / 2 + c, d * self.width / 2 + e * self.height / 2 + f
        geod = crs.get_geod() or Geod(ellps="WGS84")
        wide = geod.inv(lon, lat, lon + a, lat + d)[2]
        return wide, geod.inv(lon, lat, lon + b, lat + e)[2]


def check_same_grid(image: Grid, mask: Grid, *, image_name: str, mask_name: str) -> None:
    """Raise GridMismatch unless both have one size and, where both are located, one place to a hundredth of a pixel."""
    if (image.width, image.height) != (mask.width, mask.height):
        turned = (mask.width, mask.height) == (image.height, image.width)
        raise GridMismatch(
            f"{mask_name} is {mask.width} x {mask.height} px, its image {image_name} is {image.width} x {image.height} px; "
            f"{'one of them is transposed: ' if turned else ''}write the mask on the grid of the image (gdalwarp -r near)"
            + ("" if image.located else ", or tell the axes of an array behind its path, e.g. #axes=crb or #axes=brc")
        )
    if not (image.located and mask.located):
        return
    if CRS.from_user_input(image.crs) != CRS.from_user_input(mask.crs):
        raise GridMismatch(f"{mask_name} is in {mask.crs}, its image {image_name} in {image.crs}; reproject the mask")
    shift = offset_px(image, mask)
    if shift > 0.01:  # noqa: PLR2004 - below a hundredth of a pixel it is rounding
        raise GridMismatch(
            f"{mask_name} lies {shift:.2f} px off its image {image_name}; write the mask on the grid of the image"
        )


def offset_px(image: Grid, mask: Grid) -> float:
    """Largest distance between the same corner of two grids of one CRS, in pixels of the first."""
    size = min(math.hypot(image.transform[0], image.transform[3]), math.hypot(image.transform[1], image.transform[4]))
    pairs = zip(image.corners(), mask.corners(), strict=True)
    return max(math.dist(one, two) for one, two in pairs) / size
