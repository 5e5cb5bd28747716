"""Arrays in MATLAB, HDF5 and NumPy files as cubes.

A cube is (row, column, band) unless something says otherwise: the user; a list of wavelengths or of bad bands in the file whose
length is that of one axis only; or a label map in the file with the size of two of them. An array of two axes is a cube of
(band, pixel) where the file or the user says how many rows and columns there are, else one band. What such files cannot say of
themselves is taken from what lies beside the array: wavelengths, bad bands, or an ENVI header that was kept as a struct.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from terralean.errors import UnreadableScene
from terralean.raster.arrays import Layout
from terralean.raster.axes import Axes, find_axes
from terralean.raster.cube import Cube
from terralean.raster.cube_config import CubeConfig
from terralean.raster.envi import good_bands, waves
from terralean.raster.envi_header import Header
from terralean.raster.envi_place import grid_of
from terralean.raster.known_scenes import KnownCube, as_known, cube_keys, known_cube, label_keys
from terralean.raster.mat import CUBE_DIMS, Contents, contents, the_cube, the_labels
from terralean.raster.mat5 import Variable
from terralean.raster.wavelengths import Waves
from terralean.spec import Bands

WAVELENGTHS = ("wavelength", "wavelengths", "wl", "lambda", "wavelength_nm", "wavelengths_nm", "bands_nm")
WIDTHS = ("fwhm",)
BAD_LISTS = ("bbl", "bad_bands_list", "goodbands")
HEADERS = ("params", "info", "hdr", "header", "envi_header")
STORED = frozenset(np.dtype(kind).name for kind in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"))


def read_array(path: Path, config: CubeConfig, *, labels: bool = False, size: tuple[int, int] | None = None) -> Cube:
    """The cube of a file, or with `labels` its label map; of several label maps the one of this many rows and columns."""
    found = contents(path)
    if labels:
        variable = the_labels(found, config.key, known=label_keys(), sizes=(size,) if size else ())
    else:
        variable = the_cube(found, config.key, known=cube_keys())
    header = _header_beside(found)
    listed = next((len(values) for name in ("wavelength", "bbl") if (values := header.numbers(name))), None)
    axes = find_axes(found, variable, config, bands=listed)
    return _cube(found, variable, axes, header, config)


def _header_beside(found: Contents) -> Header:
    """What the file says of its bands and place, as an ENVI header would: that of a struct, then lists of their own."""
    fields: dict[str, str] = {}
    for name in HEADERS:
        fields |= _of_struct(found.small((name,)))
    for name, names in (("wavelength", WAVELENGTHS), ("fwhm", WIDTHS), ("bbl", BAD_LISTS)):
        if name not in fields and (values := found.list_of(names)):
            fields[name] = ", ".join(f"{value:.10g}" for value in values)
    return Header(path=found.path, fields=fields)


def _of_struct(value: Any) -> dict[str, str]:
    """Texts and lists of a MATLAB struct, under their names with spaces."""
    names = getattr(getattr(value, "dtype", None), "names", None)
    if not names or value.size != 1:
        return {}
    record = value.ravel()[0]
    return {name.replace("_", " ").lower(): text for name in names if (text := _text(record[name]))}


def _text(value: Any) -> str:
    flat = np.ravel(value)
    if flat.dtype.kind in "iuf":
        return ", ".join(f"{number:.10g}" for number in flat)
    return str(flat[0]).strip().strip("{}").strip() if flat.dtype.kind == "U" and flat.size == 1 else ""


def _cube(found: Contents, variable: Variable, axes: Axes, header: Header, config: CubeConfig) -> Cube:
    layout = layout_of(variable, axes=axes.order, size=axes.size)
    count = layout.size("b")
    known = _known(variable, layout, found, config)
    nm, fwhm, notes, odd = waves(header, count, config) if count > 1 else (None, None, [], [])
    good, bad_list = good_bands(header, count) if count > 1 else ((True,), [])
    grid, place = grid_of(header, width=layout.size("c"), height=layout.size("r"))
    cube = Cube(
        path=found.path,
        format=found.kind if len(found.variables) == 1 else f"{found.kind}, variable {variable.name}",
        variable=variable.name,
        grid=grid,
        bands=_bands(count, nm, layout),
        good=good,
        nodata=config.nodata,
        partial=config.partial == "keep",
        fwhm_nm=fwhm,
        warnings=tuple([*odd, *bad_list, *place]),
        notes=tuple([*notes, *([axes.note] if axes.note else [])]),
        store=_store(variable, layout, found),
    )
    return cube if known is None else as_known(cube, known)


def _known(variable: Variable, layout: Layout, found: Contents, config: CubeConfig) -> KnownCube | None:
    if not config.known or layout.size("b") == 1:
        return None
    rows, cols, bands = (layout.size(axis) for axis in "rcb")
    told = config.axes is not None
    return known_cube(variable.name, rows=rows, cols=cols, bands=bands, axes_told=told, path=found.path)


def _bands(count: int, nm: Waves | None, layout: Layout) -> Bands:
    dtype = np.dtype(layout.dtype).newbyteorder("=").name
    return Bands(names=tuple(f"band_{i}" for i in range(1, count + 1)), wavelength_nm=nm, dtype=dtype)


def _store(variable: Variable, layout: Layout, found: Contents) -> Any:
    if variable.store is None or np.dtype(layout.dtype).name not in STORED:
        raise UnreadableScene(
            f"{found.path}: {variable.name} holds {variable.kind}; expected real numbers of 8 to 64 bits; write it as single"
        )
    return variable.store(layout)


def layout_of(variable: Variable, *, axes: str, size: tuple[int, int] | None) -> Layout:
    """How an array lies on disk, told its axes, and for (band, pixel) the number of rows and columns."""
    lengths = dict(zip(axes, variable.shape, strict=True)) if len(variable.shape) == CUBE_DIMS else {}
    tokens = list(axes)
    if not lengths and size is None:  # one band
        lengths = {"b": 1, **dict(zip(axes.replace("b", ""), variable.shape, strict=True))}
        tokens = ["b", *axes.replace("b", "")] if not variable.reversed_axes else [*axes.replace("b", ""), "b"]
    elif not lengths and size is not None:
        bands = math.prod(variable.shape) // (size[0] * size[1])
        lengths = {"b": bands, "r": size[0], "c": size[1]}
        tokens = ["b", axes.replace("b", "")] if axes[0] == "b" else [axes.replace("b", ""), "b"]
    order = "".join(reversed(tokens) if variable.reversed_axes else tokens)
    shape = (lengths[order[0]], lengths[order[1]], lengths[order[2]])
    return Layout(order=order, shape=shape, dtype=variable.dtype)
