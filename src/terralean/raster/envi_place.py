"""Where an ENVI file lies on the ground: `map info` and `coordinate system string`, to a grid and back."""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import pyproj
import rasterio
from rasterio.crs import CRS
from rasterio.enums import WktVersion
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError

from terralean.errors import OutputFailed
from terralean.raster.envi_header import Header, plain, write_header
from terralean.raster.grid import Grid

WGS84, NAD83, NAD27, ETRS89 = "wgs84", "nad83", "nad27", "etrs89"
DATUMS = {  # as ENVI and others write them, compared without punctuation
    "wgs84": WGS84,
    "wgs1984": WGS84,
    "worldgeodeticsystem1984": WGS84,
    "northamerica1983": NAD83,
    "northamericandatum1983": NAD83,
    "nad83": NAD83,
    "northamerica1927": NAD27,
    "northamericandatum1927": NAD27,
    "nad27": NAD27,
    "etrs89": ETRS89,
    "etrs1989": ETRS89,
    "europeanterrestrialreferencesystem1989": ETRS89,
}
GEOGRAPHIC = {WGS84: 4326, NAD83: 4269, NAD27: 4267, ETRS89: 4258}
UTM_NORTH = {
    WGS84: (32600, 1, 60),
    NAD83: (26900, 1, 23),
    NAD27: (26700, 1, 22),
    ETRS89: (25800, 28, 38),
}  # EPSG, first, last zone
WGS84_SOUTH = 32700
UTM_ZONES = 60
MAP_NUMBERS = 7  # name, reference pixel, its place, size of a pixel
NOWHERE = ("arbitrary", "pixel", "none", "unknown")
TURN_TOLERANCE = 1e-6  # of a pixel, below which a grid is a turned one and not a sheared one


def grid_of(header: Header, *, width: int, height: int) -> tuple[Grid, list[str]]:
    """The grid of a header, and what is odd about it. Where the two differ, `coordinate system string` gives the CRS."""
    info = header.items("map info")
    wkt = header.text("coordinate system string")
    if not info:
        remarks = ["it has a coordinate system, but no map info: its pixels have no place"] if wkt else []
        return Grid(width=width, height=height, crs=None), remarks
    if len(info) < MAP_NUMBERS:
        raise header.wrong("map info", "projection, reference pixel x and y (from 1), easting, northing, pixel size x and y")
    crs, remarks = _crs(header, info, wkt)
    return Grid(width=width, height=height, crs=crs, transform=_transform(header, info)), remarks


def _transform(header: Header, info: Sequence[str]) -> tuple[float, float, float, float, float, float]:
    """The affine of a grid. Pixel 1.0 is the corner of the first one; rotation turns counter-clockwise about the reference."""
    try:
        ref_x, ref_y, east, north, size_x, size_y = (float(text) for text in info[1:MAP_NUMBERS])
        turned = next((float(text.partition("=")[2]) for text in info if plain(text).startswith("rotation=")), 0.0)
    except ValueError as error:
        raise header.wrong("map info", "numbers for pixel, place and size") from error
    if not all(map(math.isfinite, (ref_x, ref_y, east, north, size_x, size_y, turned))):
        raise header.wrong("map info", "finite numbers for pixel, place and size")
    if not size_x or not size_y:
        raise header.wrong("map info", "a pixel size other than 0")
    cos, sin = (1.0, 0.0) if not turned else (math.cos(math.radians(turned)), math.sin(math.radians(turned)))
    a, d = size_x * cos, size_x * sin
    b, e = size_y * sin, -size_y * cos
    cols, rows = ref_x - 1, ref_y - 1
    return a, b or 0.0, east - a * cols - b * rows, d or 0.0, e, north - d * cols - e * rows


def _crs(header: Header, info: Sequence[str], wkt: str | None) -> tuple[str | None, list[str]]:
    if wkt:
        try:
            return as_text(CRS.from_wkt(wkt, morph_from_esri_dialect="AUTHORITY" not in wkt)), []
        except CRSError:
            remark = ["its coordinate system string cannot be understood; map info is taken instead"]
            crs, remarks = _crs(header, info, None)
            return crs, remark + remarks
    name = plain(info[0])
    if name.startswith(NOWHERE):
        return None, []
    code = _code(name, info)
    if code is not None:
        return f"EPSG:{code}", []
    crs = _by_gdal(header)
    if crs is None:
        return None, [f"its projection {info[0]!r} cannot be understood; add a coordinate system string (WKT) to the header"]
    return as_text(crs), []


def _code(name: str, info: Sequence[str]) -> int | None:
    """The EPSG code of UTM zones and of longitude and latitude on common datums."""
    rest = [plain(text) for text in info[MAP_NUMBERS:]]
    if any(text.startswith("units=") and text[6:9] not in ("met", "deg", "m") for text in rest):
        return None
    datum = next((DATUMS[found] for text in rest if (found := "".join(filter(str.isalnum, text))) in DATUMS), None)
    if datum is None:
        return None
    if name.startswith("geographic"):
        return GEOGRAPHIC[datum]
    zone = next((int(text) for text in rest if text.isdigit()), 0)
    if name != "utm" or not 1 <= zone <= UTM_ZONES:
        return None
    base, first, last = UTM_NORTH[datum]
    if "south" in rest:
        return WGS84_SOUTH + zone if datum == WGS84 else None
    return base + zone if first <= zone <= last else None


def _by_gdal(header: Header) -> CRS | None:
    """What GDAL makes of other projections: it reads a few pixels with the same map and projection info."""
    names = ("map info", "projection info")
    told = {name: f"{{{text}}}" for name in names if (text := header.text(name))}
    sizes = {"samples": "4", "lines": "4", "bands": "1", "data type": "1", "interleave": "bsq", "byte order": "0"}
    text = write_header({**sizes, "header offset": "0", "file type": "ENVI Standard", **told})
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        pixel = Path(folder) / "pixel.img"
        pixel.write_bytes(bytes(16))
        pixel.with_suffix(".hdr").write_text(text, encoding="utf-8")
        try:
            with rasterio.open(pixel, driver="ENVI") as dataset:
                found = dataset.crs
        except RasterioError:
            return None
    return found if found and (found.is_geographic or found.is_projected) else None


def as_text(crs: CRS) -> str:
    """EPSG:n where that is the CRS but for names and the order of axes, which ESRI writes otherwise; else its WKT."""
    code = crs.to_epsg()
    if code is not None and pyproj.CRS.from_epsg(code).equals(pyproj.CRS.from_wkt(crs.to_wkt()), ignore_axis_order=True):
        return f"EPSG:{code}"
    return str(crs.to_wkt(version=WktVersion.WKT2_2019))


# And back.


def place_fields(grid: Grid, *, path: str) -> dict[str, str | Sequence[str]]:
    """`map info` and `coordinate system string` of a grid. Raises OutputFailed for one that is sheared."""
    if not grid.located and grid.transform == Grid(width=1, height=1, crs=None).transform:
        return {}
    a, b, c, d, e, f = grid.transform
    wide = math.hypot(a, d)
    high = math.copysign(math.hypot(b, e), b * d - a * e)
    turned = math.degrees(math.atan2(d, a))
    if max(abs(b - high * d / wide), abs(e + high * a / wide)) > TURN_TOLERANCE * max(wide, abs(high)):
        raise OutputFailed(
            f"{path}: an ENVI header cannot tell of a sheared grid, {grid.transform}; write a GeoTIFF, or warp it"
        )
    numbers = ["1.0", "1.0", *(f"{value:.15g}" for value in (c, f, wide, high))]
    turn = [f"rotation={turned:.12g}"] if turned else []
    if grid.crs is None:
        return {"map info": ["Arbitrary", *numbers, *turn]}
    crs = CRS.from_user_input(grid.crs)
    named, units = _named(crs)
    wkt = crs.to_wkt(version=WktVersion.WKT1_ESRI).replace("\n", "")
    return {"map info": [named[0], *numbers, *named[1:], f"units={units}", *turn], "coordinate system string": f"{{{wkt}}}"}


def _named(crs: CRS) -> tuple[list[str], str]:
    """What map info calls a CRS: name, zone and hemisphere, datum; and its unit."""
    code = crs.to_epsg() or 0
    for datum, (base, first, last) in UTM_NORTH.items():
        if first <= code - base <= last:
            return ["UTM", str(code - base), "North", _datum_name(datum)], "Meters"
    if 1 <= code - WGS84_SOUTH <= UTM_ZONES:
        return ["UTM", str(code - WGS84_SOUTH), "South", _datum_name(WGS84)], "Meters"
    if crs.is_geographic:
        known = next((datum for datum, number in GEOGRAPHIC.items() if number == code), None)
        return ["Geographic Lat/Lon", *([_datum_name(known)] if known else [])], "Degrees"
    unit = (crs.linear_units or "metre").lower()
    return [_projection_name(crs)], "Feet" if "f" in unit and "t" in unit and "met" not in unit else "Meters"


def _datum_name(datum: str) -> str:
    return {WGS84: "WGS-84", NAD83: "North America 1983", NAD27: "North America 1927", ETRS89: "ETRS89"}[datum]


def _projection_name(crs: CRS) -> str:
    return str(crs.to_wkt(version=WktVersion.WKT1_ESRI).split('"')[1]).replace(",", " ")
