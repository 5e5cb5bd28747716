"""What a scene says of its spectrum: wavelengths and their spacing, bad bands, which public scene it is; and what is odd."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terralean.errors import TerraleanError
from terralean.inspect.finding import Finding
from terralean.raster.cube import Cube, span
from terralean.raster.cube_config import told
from terralean.raster.cube_source import CubeSource
from terralean.raster.known_scenes import published_file
from terralean.raster.label_map import find_labels
from terralean.raster.scene import Scene

MANY = 10  # bands, from which a scene without wavelengths is spectral, too
GAP = 3.0  # times the usual spacing, from which bands are missing between two
HASHED_BYTES = 2**30  # a larger file is not compared with published ones
SMOOTHER = 0.5  # times as rough, at which another byte order is more likely than the one that is told
MOST_SHARE, FAR = 0.5, 5.0  # of the variance along an axis, at which it looks more like the bands than the one that is read so


@dataclass(frozen=True, kw_only=True, slots=True)
class SpectralFacts:
    """Of a scene with wavelengths, with many bands, or in a format of such scenes."""

    bands_in_file: int
    bad: tuple[int, ...]  # positions from 1, left out unless chosen
    range_nm: tuple[float, float] | None
    spacing_nm: float | None  # the median
    gaps_nm: tuple[tuple[float, float], ...]  # between which bands are missing
    fwhm_nm: tuple[float, float] | None  # least and largest width
    scene: str | None  # the public scene that it is
    labels: str | None  # the published label map that it is
    file: str | None  # the published file that it is, byte for byte


def spectral_facts(scene: Scene) -> SpectralFacts | None:
    """None for a picture of a few bands without wavelengths."""
    cube = _cube(scene)
    nm = [w for w in scene.bands.wavelength_nm or () if w is not None]
    if cube is None and not nm and len(scene.bands) < MANY:
        return None
    count, bad = _all_bands(scene, cube)
    steps = np.diff(sorted(nm))
    spacing = float(np.median(steps)) if len(steps) else None
    widths = cube.fwhm_nm if cube is not None else None
    return SpectralFacts(
        bands_in_file=count,
        bad=bad,
        range_nm=(min(nm), max(nm)) if nm else None,
        spacing_nm=None if spacing is None else round(spacing, 4),
        gaps_nm=_gaps(sorted(nm), spacing),
        fwhm_nm=(min(widths), max(widths)) if widths else None,
        scene=cube.scene if cube is not None else None,
        labels=_labels(scene, cube),
        file=_published(cube),
    )


def spectral_findings(scene: Scene, view: NDArray[Any] | None, valid: NDArray[np.bool_] | None) -> Iterable[Finding]:
    """What the file says wrong, and what its values (C, h, w) in view show."""
    cube = _cube(scene)
    for text in cube.warnings if cube is not None else ():
        yield Finding(severity="warning", message=text)
    for text in cube.notes if cube is not None else ():
        yield Finding(severity="note", message=text)
    yield from _order(scene)
    if view is not None and valid is not None:
        yield from _dead_bands(scene, view, valid)
        if cube is not None:
            yield from _other_axes(scene, cube, view)
            yield from _other_byte_order(cube, view, valid)


def is_array(scene: Scene) -> bool:
    """Whether a scene is an array that cannot say where it lies."""
    cube = _cube(scene)
    return cube is not None and not cube.format.startswith("ENVI")


def _cube(scene: Scene) -> Cube | None:
    return scene.source.cube if isinstance(scene.source, CubeSource) else None


def _all_bands(scene: Scene, cube: Cube | None) -> tuple[int, tuple[int, ...]]:
    if cube is not None:
        return len(cube.bands), cube.bad
    with scene.source.dataset() as file:
        missing = sorted(set(range(1, file.count + 1)) - {*scene.positions, scene.alpha})
        return file.count, tuple(missing)


def _gaps(nm: Sequence[float], spacing: float | None) -> tuple[tuple[float, float], ...]:
    pairs = itertools.pairwise(nm)
    return tuple((low, high) for low, high in pairs if spacing and high - low > GAP * spacing)


def _labels(scene: Scene, cube: Cube | None) -> str | None:
    """The published label map that one band of whole numbers is; None for any other."""
    if cube is None or len(cube.bands) != 1 or np.dtype(cube.bands.dtype).kind not in "iu":
        return None
    try:
        known = find_labels(scene.path).known
    except TerraleanError:
        return None  # it is a finding, or no label map
    return None if known is None else known.words


def _published(cube: Cube | None) -> str | None:
    if cube is None or Path(cube.path).stat().st_size > HASHED_BYTES:
        return None
    return published_file(Path(cube.path))


def label_findings(scene: Scene) -> Iterable[Finding]:
    """What is wrong with one band of whole numbers that goes by the name of a published label map."""
    cube = _cube(scene)
    if cube is not None and len(cube.bands) == 1 and cube.variable is not None and np.dtype(cube.bands.dtype).kind in "iu":
        try:
            find_labels(scene.path)
        except TerraleanError as error:
            yield Finding(severity="error", message=str(error))


def _order(scene: Scene) -> Iterable[Finding]:
    nm = scene.bands.wavelength_nm or ()
    known = [(position, w) for position, w in zip(scene.positions, nm, strict=False) if w is not None]
    back = [f"{two[0]} ({one[1]:g} to {two[1]:g} nm)" for one, two in itertools.pairwise(known) if two[1] < one[1]]
    if len(back) == len(known) - 1 and back:
        yield Finding(severity="note", message="the bands go from long to short wavelengths")
    elif back:
        message = f"wavelengths step back at band {', '.join(back)}: two detectors overlap there, or bands are not in order"
        yield Finding(severity="note", message=message)


def _dead_bands(scene: Scene, view: NDArray[Any], valid: NDArray[np.bool_]) -> Iterable[Finding]:
    """Bands that hold nothing but NaN or the nodata value where others hold data: with them in use no pixel is valid."""
    if valid.any() or len(view) == 1 or (scene.nodata is None and view.dtype.kind != "f"):
        return
    empty = (view == scene.nodata) | ~np.isfinite(view)
    some = ~empty.all(axis=0)
    dead = [position for position, band in zip(scene.positions, empty, strict=True) if some.any() and band[some].all()]
    if dead:
        alive = span([position for position in scene.positions if position not in dead])
        message = f"bands {span(dead)} hold nothing but nodata, and are not marked bad: with them no pixel counts"
        yield Finding(severity="error", message=message, fix=f"mark them in the header (bbl), or choose the others, {alive}")


def _other_axes(scene: Scene, cube: Cube, view: NDArray[Any]) -> Iterable[Finding]:
    """An array whose axes are read as is usual, though along another one values differ most."""
    if cube.format.startswith("ENVI") or cube.scene is not None or len(view) == 1 or told(scene.path)[1].axes is not None:
        return
    if any("axes are" in note or "list of pixels" in note for note in cube.notes):
        return
    values = np.nan_to_num(view.astype(np.float64))
    shares = [float(values.mean(axis=tuple({0, 1, 2} - {axis})).var() / max(values.var(), 1e-30)) for axis in range(3)]
    band, row, col = shares
    if max(row, col) > MOST_SHARE and max(row, col) > FAR * band:
        name, order = ("first", "brc") if row > col else ("second", "rbc")
        message = f"the {name} axis looks more like the bands than the last, which is read so"
        yield Finding(severity="warning", message=message, fix=f"if so, say #axes={order} behind the path")


def _other_byte_order(cube: Cube, view: NDArray[Any], valid: NDArray[np.bool_]) -> Iterable[Finding]:
    """An ENVI file in which neighbours would be far more alike if its bytes were read the other way round."""
    if not cube.format.startswith("ENVI") or cube.scaling is not None or view.dtype.itemsize == 1 or view.shape[2] == 1:
        return
    told, other = ("1", "0") if cube.store.layout.dtype.startswith(">") else ("0", "1")
    if _roughness(view.byteswap(), valid) < SMOOTHER * _roughness(view, valid):
        message = f"neighbouring pixels would be far more alike in the other byte order than in the header's, {told}"
        fix = f"if the values make no sense, correct the header: byte order = {other}"
        yield Finding(severity="warning", message=message, fix=fix)


def _roughness(view: NDArray[Any], valid: NDArray[np.bool_]) -> float:
    """How far neighbours along the rows lie apart, in mean deviations of all values; infinite where nothing varies."""
    with np.errstate(invalid="ignore", over="ignore"):
        known = np.where(valid & np.isfinite(view), view, np.nan).astype(np.float64)
        beside = np.isfinite(known[..., 1:]) & np.isfinite(known[..., :-1])
        steps = np.abs(np.diff(known, axis=2))[beside]
        values = known[np.isfinite(known)]
        spread = float(np.abs(values - values.mean()).mean()) if values.size else 0.0
        return float(steps.mean()) / spread if spread and steps.size else np.inf
