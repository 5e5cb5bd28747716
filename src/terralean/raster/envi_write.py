"""ENVI files onto disk: cubes with complete headers, and classifications with the names and colours of their classes.

Both appear whole or not at all: NAME.img and NAME.hdr are written in a folder beside them and moved when all is well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from terralean.errors import ConfigError, OutputFailed
from terralean.raster.envi import ORDERS, TYPES
from terralean.raster.envi_header import write_header
from terralean.raster.envi_place import place_fields
from terralean.raster.grid import Grid
from terralean.raster.whole import whole
from terralean.spec import IGNORE, Bands, Classes, check_mappable

Interleave = Literal["bsq", "bil", "bip"]
Fields = Mapping[str, str | Sequence[str]]

CODES = {np.dtype(kind).name: code for code, kind in TYPES.items()}
AXES = {"b": 0, "r": 1, "c": 2}
DATA_SUFFIX, HEADER_SUFFIX = ".img", ".hdr"
UNCLASSIFIED = "Unclassified"  # class 0 of every ENVI classification
SCALED = ("reflectance", "digital number")  # units whose scale is the inverse of a reflectance scale factor


@dataclass(frozen=True, kw_only=True)
class CubeFormat:
    """How a cube is written, and what its header says besides bands and grid."""

    interleave: Interleave = (
        "bil"  # the bands of a line together: windows of all bands and images of one are both quick to read
    )
    big_endian: bool = False
    nodata: float | None = None
    good: tuple[bool, ...] | None = None  # which bands are good; None: not said
    fwhm_nm: tuple[float, ...] | None = None
    extra: Mapping[str, str] = field(default_factory=dict)  # further fields, as they are to be written

    def __post_init__(self) -> None:
        if self.interleave not in ORDERS:
            raise ConfigError(f"interleave is one of {', '.join(ORDERS)}, got {self.interleave!r}")


def write_cube(
    path: str | Path,
    strips: NDArray[Any] | Iterable[NDArray[Any]],
    *,
    grid: Grid,
    bands: Bands,
    how: CubeFormat | None = None,
    overwrite: bool = False,
) -> Path:
    """Values (C, H, W), or strips (C, h, W) of them from top to bottom, as NAME.img and NAME.hdr; the path of the header.

    Raises OutputFailed where the files are there already, the disk does not take them, or ENVI cannot tell of the grid or the
    type of the numbers; nothing is then left.
    """
    form = how or CubeFormat()
    if bands.dtype not in CODES:
        raise OutputFailed(f"{path}: ENVI has no numbers of type {bands.dtype}; it has {', '.join(CODES)}; convert the values")
    fields = {**_required(grid, bands, form, kind="ENVI Standard"), **_band_fields(bands, form), **form.extra}
    return _write(Path(path), _strips(strips), grid=grid, bands=bands, form=form, fields=fields, overwrite=overwrite)


def write_classification(
    path: str | Path,
    strips: NDArray[np.uint8] | Iterable[NDArray[np.uint8]],
    *,
    grid: Grid,
    classes: Classes,
    extra: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Class values (H, W), 255 where there is none, or strips (h, W), as an ENVI Classification; the path of the header.

    Class i becomes i + 1 there, under its name and in its colour, and 0 is "Unclassified", as ENVI has it.
    """
    check_mappable(classes, where=str(path))
    form = CubeFormat(interleave="bsq", extra=extra or {})
    bands = Bands(names=("class",))
    required = _required(grid, bands, form, kind="ENVI Classification")
    fields = {**required, **_class_fields(classes), "band names": ["class"], **form.extra}
    shifted = (np.where(strip == IGNORE, 0, strip + 1).astype(np.uint8) for strip in _strips(strips))
    return _write(Path(path), shifted, grid=grid, bands=bands, form=form, fields=fields, overwrite=overwrite)


def _strips(values: NDArray[Any] | Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """(C, h, W) each."""
    for strip in (values,) if isinstance(values, np.ndarray) else values:
        yield strip[None] if strip.ndim == 2 else strip  # noqa: PLR2004 - rows and columns


def _write(
    path: Path, strips: Iterator[NDArray[Any]], *, grid: Grid, bands: Bands, form: CubeFormat, fields: Fields, overwrite: bool
) -> Path:
    base = path.with_suffix("") if path.suffix.lower() in (DATA_SUFFIX, HEADER_SUFFIX) else path
    header, data = (base.with_name(base.name + suffix) for suffix in (HEADER_SUFFIX, DATA_SUFFIX))
    text = write_header({**fields, **place_fields(grid, path=str(header))})
    dtype = np.dtype(bands.dtype).newbyteorder(">" if form.big_endian else "<")
    with whole(header.parent, [header.name, data.name], overwrite=overwrite) as folder:
        with (folder / data.name).open("wb") as file:
            rows = 0
            for strip in strips:
                expected = (len(bands), strip.shape[1], grid.width)
                assert strip.shape == expected and strip.dtype == bands.dtype, f"{strip.dtype} {strip.shape}, not {expected}"
                _write_strip(file, strip.astype(dtype, copy=False), row=rows, height=grid.height, interleave=form.interleave)
                rows += strip.shape[1]
        if rows != grid.height:
            raise OutputFailed(f"{data}: {rows} of {grid.height} rows were written; write them all")
        (folder / header.name).write_text(text, encoding="utf-8")
    return header


def _write_strip(file: BinaryIO, strip: NDArray[Any], *, row: int, height: int, interleave: str) -> None:
    if interleave == "bsq":
        row_bytes = strip.shape[2] * strip.itemsize
        for position, band in enumerate(strip):
            file.seek((position * height + row) * row_bytes)
            file.write(np.ascontiguousarray(band).tobytes())
        return
    file.write(strip.transpose([AXES[axis] for axis in ORDERS[interleave]]).tobytes())


# Fields.


def _required(grid: Grid, bands: Bands, form: CubeFormat, *, kind: str) -> dict[str, str]:
    """The eight fields that every header must have."""
    return {
        "samples": str(grid.width),
        "lines": str(grid.height),
        "bands": str(len(bands)),
        "header offset": "0",
        "file type": kind,
        "data type": str(CODES[bands.dtype]),
        "interleave": form.interleave,
        "byte order": str(int(form.big_endian)),
    }


def _band_fields(bands: Bands, form: CubeFormat) -> dict[str, str | list[str]]:
    out: dict[str, str | list[str]] = {}
    if bands.wavelength_nm is not None:
        out["wavelength units"] = "Nanometers"
        out["wavelength"] = [f"{nm or 0:.10g}" for nm in bands.wavelength_nm]  # 0: not known
    for name, listed in (("fwhm", form.fwhm_nm), ("bbl", form.good)):
        if listed is not None:
            assert len(listed) == len(bands), f"{len(listed)} {name} for {len(bands)} bands"
            out[name] = [f"{value:g}" for value in listed]
    if bands.named:
        out["band names"] = [_in_a_list(name) for name in bands.names]
    if form.nodata is not None:
        out["data ignore value"] = f"{form.nodata:.17g}"
    if bands.scale != 1 and bands.units in SCALED:
        out["reflectance scale factor"] = f"{1 / bands.scale:.10g}"
    elif bands.scale != 1:
        out["data gain values"] = [f"{bands.scale:.10g}"] * len(bands)
    return out


def _class_fields(classes: Classes) -> dict[str, str | list[str]]:
    lookup = [0, 0, 0, *(part for colour in classes.colours for part in colour)]
    return {
        "classes": str(len(classes) + 1),
        "class names": [UNCLASSIFIED, *map(_in_a_list, classes.names)],
        "class lookup": [str(part) for part in lookup],
    }


def _in_a_list(name: str) -> str:
    """A name without the characters that end names and lists in a header."""
    return " ".join(name.replace(",", ";").replace("{", "(").replace("}", ")").split())
