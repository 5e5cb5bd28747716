"""Scenes on disk: what a raster file is, and reading windows of it with the pixels that count.

Which pixels are valid. A pixel is not valid
- outside the file (or outside the window of a crop),
- where the file's mask band or alpha band is 0,
- where any chosen band is NaN or infinite,
- where any chosen band holds its nodata value, if that is not 0,
- where every chosen band is 0, if 0 is the nodata value of all of them (dark water and shadow are 0 in single bands).

An alpha band is a mask, never data. Bands that the file marks as bad (`bbl` = 0, ENVI and EnMAP) are left out unless chosen.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling, WktVersion
from rasterio.errors import CRSError
from rasterio.windows import Window as RasterioWindow

from terralean.errors import BandMismatch, SizeError, UnreadableScene
from terralean.raster.cube import span
from terralean.raster.cube_source import CubeSource, OpenCube, is_cube
from terralean.raster.grid import IDENTITY, Grid, Window
from terralean.raster.source import Source, check_there
from terralean.raster.wavelengths import numbers, told_by_gdal
from terralean.spec import Bands

log = logging.getLogger(__name__)

COLOURS = {"red", "green", "blue", "nir", "rededge", "coastal", "pan", "swir", "mwir", "lwir", "tir", "yellow"}
_told: set[tuple[str | frozenset[Path], str]] = set()  # file or folders, and reason: a thousand PNG files are worth one line


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A raster file, or a window of one. Opened when first read, once per process; `close` lets go, a later read reopens."""

    path: str
    grid: Grid
    bands: Bands
    nodata_values: tuple[float | None, ...]  # a value per band, as declared
    positions: tuple[int, ...]  # of the bands in the file, from 1
    alpha: int | None  # position of the alpha band
    masks: tuple[int, ...]  # positions whose mask band is to be read
    part: Window  # what this scene covers, in pixels of the file; may reach past its edges
    limit: Window  # what may be read, in pixels of the file
    source: Source = field(repr=False, compare=False)

    @property
    def nodata(self) -> float | None:
        """The nodata value of the first band that has one."""
        return next((value for value in self.nodata_values if value is not None), None)

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Values (C, h, w) as stored and valid (h, w). The window may reach past the edges: there 0 and False.

        Only the part inside is read from disk. Raises UnreadableScene, with file and window, where the file breaks off.
        """
        return _placed(self, _shifted(window, self.part), height=window.height, width=window.width)

    def block(self) -> tuple[int, int]:
        """Rows and columns, in px of the file, of what is read and decompressed at once: the largest block of its bands."""
        with self.source.dataset() as dataset:
            shapes = [dataset.block_shapes[i - 1] for i in self.positions]
        return max(height for height, _ in shapes), max(width for _, width in shapes)

    def has_palette(self) -> bool:
        """Whether a band holds numbers of colours, other than those of a ramp of greys, which are brightness."""
        with self.source.dataset() as dataset:
            coloured = [i for i in self.positions if dataset.colorinterp[i - 1] == ColorInterp.palette]
            tables = [dataset.colormap(i) for i in coloured]
        return any((red, green, blue) != (i, i, i) for table in tables for i, (red, green, blue, _) in table.items())

    def crop(self, window: Window) -> Scene:
        """The scene of a window of this one; reads never leave the window."""
        if window.pixels <= 0:
            raise SizeError(f"{self.path}: a crop needs at least one pixel, got {window.height} x {window.width}")
        part = _shifted(window, self.part)
        return replace(self, grid=self.grid.crop(window), part=part, limit=part.cut(self.limit))

    def close(self) -> None:
        """Let go of the file, for the crops of this scene too."""
        self.source.close()

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_scene(path: str | Path, *, bands: Sequence[int] | None = None) -> Scene:
    """Open anything GDAL reads: files, VRTs, /vsicurl/, s3://. `bands` are positions in the file, from 1.

    Raises MissingFile, UnreadableScene, BandMismatch. A scene without a CRS is read all the same, with a warning.
    """
    return _told_of(describe(path, bands=bands, expected="an image, a GeoTIFF for example"))


def scene_from(source: Source) -> Scene:
    """The scene of what a source opens, as `open_scene` gives it."""
    return _told_of(_of_file(source, bands=None))


def _told_of(scene: Scene) -> Scene:
    """Warn of what a scene lacks."""
    with scene.source.dataset() as dataset:
        lack = _lack_of_place(dataset)
    scene.close()  # thousands of scenes may be known at once, and only so many files open
    key = (frozenset(Path(file).parent for file in scene.source.files), lack)  # a pair's files may lie in two
    if lack and key not in _told and log.isEnabledFor(logging.WARNING):
        _told.add(key)
        log.warning("%s %s (said once for the files of a folder)", scene.path, lack)
    return scene


def describe(path: str | Path, *, bands: Sequence[int] | None = None, expected: str) -> Scene:
    """`open_scene` without the warning, for label rasters; the file stays open. A path BEFORE:AFTER is a pair of dates."""
    from terralean.raster import pair as pairs  # noqa: PLC0415 - it is made of what stands here

    if (pair := pairs.find_pair(str(path))) is not None:
        return pairs.open_pair(pair, bands=bands)
    check_there(str(path), expected=expected)
    if is_cube(str(path)):
        return scene_of(CubeSource(str(path)), bands=bands)
    return _of_file(Source(str(path)), bands=bands)


def _of_file(source: Source, *, bands: Sequence[int] | None) -> Scene:
    path = source.path
    with source.dataset() as dataset:
        positions = _choose(dataset, path, bands)
        nodata = dataset.nodatavals
        grid = _grid(dataset)
        alpha = _alpha(dataset)
        return Scene(
            path=path,
            grid=grid,
            bands=_bands(dataset, positions),
            nodata_values=tuple(nodata[i - 1] for i in positions),
            positions=positions,
            alpha=alpha,
            masks=() if alpha else _masks(dataset, positions),
            part=grid.window,
            limit=grid.window,
            source=source,
        )


def scene_of(source: CubeSource, *, bands: Sequence[int] | None = None) -> Scene:
    """The scene of a cube: of its good bands, unless others are asked for."""
    cube = source.cube
    positions = cube.choose(bands)
    _tell(source)
    if bands is None and len(positions) < len(cube.bands):
        _once(logging.INFO, source.path, f"bands {span(cube.bad)} of {len(cube.bands)} are marked bad and left out")
    apart = cube.partial or cube.scaling is not None  # then nodata shows in the mask, or as NaN
    return Scene(
        path=source.path,
        grid=cube.grid,
        bands=cube.bands.choose([i - 1 for i in positions]),
        nodata_values=(None if apart else cube.nodata,) * len(positions),
        positions=positions,
        alpha=None,
        masks=(1,) if cube.partial and cube.scaling is None else (),
        part=cube.grid.window,
        limit=cube.grid.window,
        source=source,
    )


def _tell(source: CubeSource) -> None:
    """What is odd about a file, once."""
    for level, texts in ((logging.WARNING, source.cube.warnings), (logging.INFO, source.cube.notes)):
        for text in texts:
            _once(level, source.path, text)


def _once(level: int, path: str, text: str) -> None:
    if (path, text) not in _told and log.isEnabledFor(level):  # else nobody was told
        _told.add((path, text))
        log.log(level, "%s: %s", path, text)


def read_preview(scene: Scene, max_px: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The whole scene with its longer side at most `max_px`: values (C, h, w), valid (h, w). Overviews are used.

    Where the file has none, the nearest pixel stands for its surroundings; a full-size array is never held.
    """
    shrink = min(1.0, max_px / max(scene.grid.height, scene.grid.width))
    height, width = max(1, round(scene.grid.height * shrink)), max(1, round(scene.grid.width * shrink))
    return _placed(scene, scene.part, height=height, width=width)


def read_reduced(scene: Scene, *, height: int, width: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """A whole file on fewer pixels: means over what each covers, values (C, height, width) and valid (height, width).

    Overviews are used, and of a JPEG the coarser of its coefficients, so that a full-size array is never held. A pixel is
    valid where the pixel in its middle is; what the file marks as nodata or masks is left out of the means.
    """
    window, shape = scene.part, (height, width)
    part = RasterioWindow(window.col, window.row, window.width, window.height)
    with scene.source.reading(window) as dataset:
        values = _read_bands(dataset, scene, part, shape, resampling=Resampling.average)
    valid = read_part(scene, window, shape=shape)[1]
    return values, valid & np.isfinite(values).all(axis=0)


def valid_pixels(values: NDArray[Any], *, nodata: Sequence[float | None]) -> NDArray[np.bool_]:
    """(h, w) of values (C, h, w) and a nodata value (or None) per band, by the rule at the top of this file."""
    valid = np.ones(values.shape[1:], dtype=bool)
    if values.dtype.kind == "f":
        valid &= np.isfinite(values).all(axis=0)
    for band, value in zip(values, (_as_stored(value, values.dtype) for value in nodata), strict=True):
        if value:
            valid &= band != value
    if all(value == 0 for value in nodata):
        valid &= (values != 0).any(axis=0)
    return valid


def _as_stored(value: float | None, dtype: np.dtype[Any]) -> Any:
    """A nodata value as pixels hold it; None where no pixel can (NaN and infinity are never valid anyway)."""
    if value is None or not math.isfinite(value):
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return dtype.type(value)
    info = np.iinfo(dtype)
    return dtype.type(value) if value == int(value) and info.min <= value <= info.max else None


def _shifted(window: Window, origin: Window) -> Window:
    return replace(window, row=window.row + origin.row, col=window.col + origin.col)


def _placed(scene: Scene, wanted: Window, *, height: int, width: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """What the file has of `wanted` (pixels of the file), shrunk to height x width; 0 and not valid elsewhere."""
    values = np.zeros((len(scene.positions), height, width), dtype=scene.bands.dtype)
    valid = np.zeros((height, width), dtype=bool)
    inside = wanted.cut(scene.limit)
    if inside.pixels:
        rows, cols = inside.slices(origin=wanted)
        target = _shrunk(rows, height / wanted.height), _shrunk(cols, width / wanted.width)
        values[:, *target], valid[target] = read_part(scene, inside, shape=valid[target].shape)
    return values, valid


def _shrunk(extent: slice, factor: float) -> slice:
    start = math.floor(extent.start * factor)
    return slice(start, max(start + 1, round(extent.stop * factor)))


def read_part(
    scene: Scene, window: Window, *, shape: tuple[int, int], resampling: Resampling = Resampling.nearest
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Values (C, h, w) and valid (h, w) of a window inside the file, in pixels of the file, on a grid of `shape`."""
    part = RasterioWindow(window.col, window.row, window.width, window.height)
    with scene.source.reading(window) as dataset:
        values = _read_bands(dataset, scene, part, shape, resampling=resampling)
        valid = valid_pixels(values, nodata=scene.nodata_values)
        if scene.alpha:
            valid &= dataset.read(scene.alpha, window=part, out_shape=shape) != 0
        for position in scene.masks:
            valid &= dataset.read_masks(position, window=part, out_shape=shape) != 0
    return values, valid


def _read_bands(
    dataset: Any,
    scene: Scene,
    part: RasterioWindow,
    shape: tuple[int, int],
    *,
    resampling: Resampling = Resampling.nearest,
) -> NDArray[Any]:
    dtypes, positions, how = dataset.dtypes, list(scene.positions), {"window": part, "resampling": resampling}
    if len({dtypes[i - 1] for i in positions}) == 1:
        return dataset.read(positions, out_shape=(len(positions), *shape), **how)
    bands = [dataset.read(i, out_shape=shape, **how) for i in positions]  # one call needs one type
    return np.stack([band.astype(scene.bands.dtype) for band in bands])


# What the file says of itself.


def _choose(dataset: Any, path: str, bands: Sequence[int] | None) -> tuple[int, ...]:
    """Positions of the bands to read, checked."""
    data = [i for i, colour in enumerate(dataset.colorinterp, start=1) if colour != ColorInterp.alpha]
    if not data:
        raise UnreadableScene(f"{path} has no image bands; expected at least one{_subdatasets(dataset)}")
    chosen = tuple(bands) if bands is not None else _not_bad(dataset, path, data)
    wrong = [i for i in chosen if i not in data]
    if wrong or not chosen or len(set(chosen)) != len(chosen):
        alpha = f", band {_alpha(dataset)} is alpha, a mask" if _alpha(dataset) else ""
        raise BandMismatch(
            f"{path} has bands {data[0]} to {data[-1]}{alpha}; got {', '.join(map(str, chosen)) or 'none'}; choose different "
            "ones of these (if a band of data is marked as alpha: gdal_edit.py -colorinterp_N undefined)"
        )
    odd = [dtype for i, dtype in enumerate(dataset.dtypes, start=1) if i in chosen and dtype.startswith("complex")]
    if odd:
        raise UnreadableScene(f"{path} holds {odd[0]} values; expected real numbers; write amplitude or intensity instead")
    return chosen


def _not_bad(dataset: Any, path: str, data: list[int]) -> tuple[int, ...]:
    listed = numbers(dataset.tags(ns="ENVI").get("bbl", ""))
    bad = {i for i, good in enumerate(listed, start=1) if good == 0} | {
        i for i in data if _number(_tag(dataset, i, "bbl")) == 0
    }
    good = tuple(i for i in data if i not in bad)
    if not good:
        return tuple(data)
    if len(good) < len(data):
        _once(logging.INFO, path, f"{len(data) - len(good)} of {len(data)} bands are marked bad (bbl) and left out")
    return good


def _alpha(dataset: Any) -> int | None:
    return next((i for i, colour in enumerate(dataset.colorinterp, start=1) if colour == ColorInterp.alpha), None)


def _masks(dataset: Any, positions: tuple[int, ...]) -> tuple[int, ...]:
    flags = {i: set(flags) for i, flags in enumerate(dataset.mask_flag_enums, start=1) if i in positions}
    real = [i for i in positions if not flags[i] & {MaskFlags.all_valid, MaskFlags.nodata, MaskFlags.alpha}]
    shared = [i for i in real if MaskFlags.per_dataset in flags[i]]
    return tuple(shared[:1] + [i for i in real if i not in shared])


def _grid(dataset: Any) -> Grid:
    a, b, c, d, e, f = tuple(dataset.transform)[:6]
    return Grid(width=dataset.width, height=dataset.height, crs=_crs(dataset), transform=(a, b, c, d, e, f))


def _crs(dataset: Any) -> str | None:
    """EPSG:n only if that is the file's CRS exactly, else its WKT; None where pixels have no transform to the ground."""
    if not dataset.crs or _placed_by_points(dataset):
        return None
    try:
        code = dataset.crs.to_epsg()
        if code is not None and CRS.from_epsg(code) == dataset.crs:
            return f"EPSG:{code}"
    except CRSError:
        log.debug("%s: no EPSG code for its CRS", dataset.name)
    return dataset.crs.to_wkt(version=WktVersion.WKT2_2019)


def _placed_by_points(dataset: Any) -> bool:
    """Whether only ground control points or a sensor model (RPC) place the image."""
    return tuple(dataset.transform)[:6] == IDENTITY and bool(dataset.gcps[0] or dataset.rpcs)


def _lack_of_place(dataset: Any) -> str:
    """What to say of a file whose pixels have no place on the ground; empty if they have."""
    if _placed_by_points(dataset):
        how = "ground control points" if dataset.gcps[0] else "a sensor model (RPC)"
        return f"is placed by {how} only: maps of it will have no CRS; to have one, warp it first with gdalwarp"
    if not dataset.crs and isinstance(dataset, OpenCube):
        return "has no CRS: maps of it will have none either; ENVI headers tell it with map info, arrays cannot"
    if not dataset.crs:
        return "has no CRS: maps of it will have none either; if you know it, set it with gdal_edit.py -a_srs EPSG:code"
    if tuple(dataset.transform)[:6] == IDENTITY:
        return "has a CRS but no transform: maps of it will not lie on the ground; set it with gdal_edit.py -a_ullr"
    return ""


def _bands(dataset: Any, positions: tuple[int, ...]) -> Bands:
    def chosen(per_band: Sequence[Any]) -> list[Any]:
        return [per_band[i - 1] for i in positions]

    units = set(chosen(dataset.units))
    return Bands(
        names=_names(chosen(dataset.descriptions), [colour.name for colour in chosen(dataset.colorinterp)], positions),
        wavelength_nm=_wavelengths_nm(dataset, positions),
        units=(next(iter(units)) if len(units) == 1 else None) or "digital number",
        scale=_scale(dataset, set(chosen(dataset.scales))),
        dtype=str(np.result_type(*chosen(dataset.dtypes))),
    )


def _names(descriptions: list[str | None], colours: list[str], positions: tuple[int, ...]) -> tuple[str, ...]:
    """Descriptions if every band has its own, else colours if every band has its own, else positions."""
    described = [(text or "").strip() for text in descriptions]
    for names in (described, colours if set(colours) <= COLOURS else []):
        if all(names) and len(set(names)) == len(positions):
            return tuple(names)
    return tuple(f"band_{i}" for i in positions)


def _scale(dataset: Any, scales: set[float]) -> float:
    """The step of a stored value where all bands share it, else 1. ENVI's factor is the inverse, and GDAL leaves it aside."""
    factor = _number(dataset.tags(ns="ENVI").get("reflectance_scale_factor"))
    if factor and scales == {1.0}:
        return 1 / factor
    return scales.pop() if len(scales) == 1 else 1.0


def _wavelengths_nm(dataset: Any, positions: tuple[int, ...]) -> tuple[float | None, ...] | None:
    found = told_by_gdal(dataset)
    nm = tuple(found[i - 1] for i in positions) if found is not None else ()
    return nm if any(nm) else None


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _tag(dataset: Any, position: int, name: str) -> str | None:
    return next((value for key, value in dataset.tags(position).items() if key.lower() == name), None)


def _subdatasets(dataset: Any) -> str:
    names: Iterable[str] = dataset.subdatasets
    listed = "\n  ".join(names)
    return f"; name one of the images in it:\n  {listed}" if listed else ""
