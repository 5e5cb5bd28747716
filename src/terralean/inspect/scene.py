"""What a scene is: size, bands, place, layout on disk, a look at its values; and what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS

from terralean.errors import UnreadableScene
from terralean.inspect.finding import Finding, worst_first
from terralean.inspect.quiet import quiet
from terralean.inspect.spectral import SpectralFacts, is_array, label_findings, spectral_facts, spectral_findings
from terralean.raster.area import row_area_m2
from terralean.raster.cube_source import CubeSource
from terralean.raster.grid import IDENTITY, Grid
from terralean.raster.scene import Scene, open_scene, read_preview
from terralean.spec import Bands

VIEW_PX = 1024  # longer side of the look at the values
VIEW_VALUES = 2**26  # in it at most, so that many bands are seen on fewer pixels
LARGE_PX = 2048  # a side from which the layout on disk decides how fast windows are read
WIDE_STRIP = 8  # a block so many times wider than high is a strip
UNDECLARED = 0.01  # share of all-zero pixels from which they look like nodata that nobody declared
SQUARE = 0.01  # relative difference of the sides of a pixel


@dataclass(frozen=True, kw_only=True, slots=True)
class BandValues:
    """Of the valid pixels in view."""

    name: str
    minimum: float
    maximum: float
    mean: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneReport:
    """What is known of a scene without reading all of it."""

    path: str
    driver: str
    width: int
    height: int
    bands: Bands
    crs: str | None
    crs_name: str | None
    pixel_m: tuple[float, float] | None  # width and height of the centre pixel
    area_km2: float | None
    nodata: str | None  # as text, since JSON has no NaN
    nodata_share: float | None  # of the pixels in view; None where nothing can be read
    block_px: tuple[int, int]  # height and width of what is read at once
    overviews: tuple[int, ...]  # factors
    compression: str | None
    values: tuple[BandValues, ...]
    findings: tuple[Finding, ...]
    spectral: SpectralFacts | None = None
    kind: Literal["scene"] = "scene"


def describe_scene(path: str, *, bands: Sequence[int] | None = None) -> SceneReport:
    """Look at a scene, its values through a view of at most 1024 px. What cannot be read is a finding."""
    with quiet():
        opened = open_scene(path, bands=bands)
    with opened as scene:
        with scene.source.dataset() as file:
            layout = _Layout.of(file)
        found = [*_place(scene, layout), *_disk(scene, layout), *label_findings(scene)]
        values: tuple[BandValues, ...] = ()
        share = None
        try:
            view, valid = read_preview(scene, view_px(scene))
        except UnreadableScene as error:
            found += [Finding(severity="error", message=str(error)), *spectral_findings(scene, None, None)]
        else:
            share = float(1 - valid.mean())
            values = band_values(view, valid, scene.bands)
            found += [*look(view, valid, scene), *spectral_findings(scene, view, valid)]
        spectral = spectral_facts(scene)
    crs = CRS.from_user_input(scene.grid.crs) if scene.grid.crs else None
    return SceneReport(
        path=path,
        driver=layout.driver,
        width=scene.grid.width,
        height=scene.grid.height,
        bands=scene.bands,
        crs=scene.grid.crs,
        crs_name=crs.name if crs else None,
        pixel_m=scene.grid.pixel_m(),
        area_km2=_area_km2(scene.grid),
        nodata=None if scene.nodata is None else f"{scene.nodata:g}",
        nodata_share=share,
        block_px=layout.block,
        overviews=layout.overviews,
        compression=layout.compression,
        values=values,
        findings=worst_first(found),
        spectral=spectral,
    )


def view_px(scene: Scene) -> int:
    """Longer side of the look at the values of a scene, smaller where it has many bands."""
    return max(1, min(VIEW_PX, math.isqrt(VIEW_VALUES // len(scene.bands))))


def band_values(view: NDArray[Any], valid: NDArray[np.bool_], bands: Bands) -> tuple[BandValues, ...]:
    """Least, largest and mean value of each band of (C, h, w); nothing where no pixel is valid."""
    if not valid.any():
        return ()
    return tuple(
        BandValues(name=name, minimum=float(band.min()), maximum=float(band.max()), mean=float(band.mean(dtype=np.float64)))
        for name, band in zip(bands.names, view[:, valid], strict=True)
    )


def look(view: NDArray[Any], valid: NDArray[np.bool_], scene: Scene) -> list[Finding]:
    """What the values (C, h, w) in view say."""
    return [*_missing(view, valid, scene), *_constant(view, valid, scene)]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    """How the file is stored and placed."""

    driver: str
    block: tuple[int, int]
    overviews: tuple[int, ...]
    compression: str | None
    points: bool  # ground control points or a sensor model

    @classmethod
    def of(cls, file: Any) -> _Layout:
        height, width = file.block_shapes[0]
        return cls(
            driver=file.driver,
            block=(int(height), int(width)),
            overviews=tuple(int(factor) for factor in file.overviews(1)),
            compression=file.compression.value if file.compression else None,
            points=bool(file.gcps[0] or file.rpcs),
        )


def _for_gdal(scene: Scene) -> str:
    """The file that GDAL's programs take: of a cube the data, as they do not open headers."""
    return scene.source.cube.path if isinstance(scene.source, CubeSource) else scene.path


def _place(scene: Scene, layout: _Layout) -> Iterable[Finding]:
    grid, path = scene.grid, _for_gdal(scene)
    if grid.crs is None and is_array(scene):
        message = "it has no CRS, as no such file has: a map of it will lie nowhere on the ground"
        yield Finding(severity="note", message=message)
        return
    if grid.crs is None:
        message = "only ground control points or a sensor model place it" if layout.points else "it has no CRS"
        fix = f"gdalwarp {path} warped.tif" if layout.points else f"if you know it: gdal_edit.py -a_srs EPSG:CODE {path}"
        yield Finding(severity="warning", message=f"{message}: a map of it will lie nowhere on the ground", fix=fix)
        return
    _, b, _, d, e, _ = grid.transform
    if grid.transform == IDENTITY:
        fix = f"gdal_edit.py -a_ullr WEST NORTH EAST SOUTH {path}"
        yield Finding(severity="warning", message="it has a CRS but no transform: pixels have no place in it", fix=fix)
    elif b or d:
        yield Finding(severity="note", message="rows do not run east: it is rotated, which GIS may draw slowly")
    elif e > 0:
        yield Finding(severity="note", message="the first row is the southernmost; maps of it will be alike")
    wide, high = grid.pixel_m() or (1.0, 1.0)
    if abs(wide / high - 1) > SQUARE:
        fix = "gdalwarp to a projected CRS, if models are to see true shapes"
        yield Finding(severity="note", message=f"pixels are not square on the ground: {wide:.4g} m x {high:.4g} m", fix=fix)


def _disk(scene: Scene, layout: _Layout) -> Iterable[Finding]:
    if isinstance(scene.source, CubeSource):
        return  # a plain file is mapped: no block is read for a pixel
    grid, (high, wide) = scene.grid, layout.block
    fix = f"gdal_translate -of COG -co COMPRESS=ZSTD {scene.path} tiled.tif"
    large = max(grid.width, grid.height) > LARGE_PX
    if large and wide >= grid.width and wide > WIDE_STRIP * high:
        message = f"stored in strips of {_rows(high)}, not in tiles: windows are read slowly"
        yield Finding(severity="warning", message=message, fix=fix)
    if large and not layout.overviews:
        yield Finding(severity="note", message="it has no overviews: looking at all of it reads all of it", fix=fix)


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _missing(view: NDArray[Any], valid: NDArray[np.bool_], scene: Scene) -> Iterable[Finding]:
    if not valid.any():
        what = "is not finite" if view.dtype.kind == "f" and not np.isfinite(view).any() else "is nodata"
        fix = "check the nodata value and the mask with gdalinfo"
        yield Finding(severity="error", message=f"every pixel in view {what}: there is nothing to map", fix=fix)
        return
    if view.dtype.kind == "f" and (strange := 1 - float(np.isfinite(view).all(axis=0).mean())) > 0:
        message = f"{percent(strange)} of the pixels in view are NaN or infinite in some band, and treated as nodata"
        yield Finding(severity="note", message=message)
    for value, share in undeclared(view, valid, scene):
        message = f"{percent(share)} of the pixels in view are {value} in every band, but {value} is not declared as nodata"
        how = f"#nodata={value} behind the path" if is_array(scene) else f"gdal_edit.py -a_nodata {value} {_for_gdal(scene)}"
        fix = f"if they are no data: {how}"
        yield Finding(severity="warning" if len(view) > 1 else "note", message=message, fix=fix)


def undeclared(view: NDArray[Any], valid: NDArray[np.bool_], scene: Scene) -> list[tuple[int, float]]:
    """Values that fill all bands of many valid pixels, as nodata does, and their share of (C, h, w): 0, and the largest."""
    if scene.nodata is not None:
        return []
    ends = [0, np.iinfo(view.dtype).max] if view.dtype.kind in "iu" and len(view) > 1 else [0]
    shares = [(int(end), float(((view == end).all(axis=0) & valid).mean())) for end in ends]
    return [(end, share) for end, share in shares if share > UNDECLARED]


def _constant(view: NDArray[Any], valid: NDArray[np.bool_], scene: Scene) -> Iterable[Finding]:
    if np.count_nonzero(valid) < 2:  # noqa: PLR2004 - one pixel says nothing about a band
        return
    pixels = view[:, valid]
    still = [name for name, band in zip(scene.bands.names, pixels, strict=True) if band.min() == band.max()]
    if still:
        message = f"constant in all valid pixels in view: {', '.join(still)}"
        yield Finding(
            severity="warning", message=message, fix="leave such bands out with data.bands; they cannot be normalised"
        )


def _area_km2(grid: Grid) -> float | None:
    rows = row_area_m2(grid) if grid.transform != IDENTITY else None
    return None if rows is None else float(rows.sum() * grid.width / 1e6)


def percent(share: float) -> str:
    """A share in words; a small one is not nothing."""
    return "under 0.1%" if 0 < share < 1e-3 else f"{share:.1%}"  # noqa: PLR2004 - what one decimal can show
