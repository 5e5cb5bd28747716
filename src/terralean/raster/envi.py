"""ENVI files: a header of text beside plain numbers, as cubes.

What a header must say is told by the manual (envi_header.py); three of the eight fields it requires are often missing, and
ENVI itself opens such files with header offset 0, file type ENVI Standard and byte order 0: so do we, with a warning.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from terralean.errors import MissingFile, UnreadableScene
from terralean.raster.arrays import Layout, Mapped
from terralean.raster.coding import Colour
from terralean.raster.cube import Cube, Scaling
from terralean.raster.cube_config import CubeConfig
from terralean.raster.envi_header import Header, is_header, plain, read_header
from terralean.raster.envi_place import grid_of
from terralean.raster.known_scenes import as_known, known_cube
from terralean.raster.wavelengths import Waves, from_file, nanometres, widths_nm
from terralean.spec import Bands

TYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
COMPLEX = {6: "complex64", 9: "complex128"}
BYTE_ORDERS = {0: "<", 1: ">"}
ORDERS = {"bsq": "brc", "bil": "rbc", "bip": "rcb"}
SUFFIXES = (".img", ".dat", ".raw", ".bil", ".bsq", ".bip", ".sli", ".bin", ".cube", ".lib")
NEEDED = ("samples", "lines", "bands", "data type", "interleave")
ASSUMED = {"header offset": "0", "file type": "ENVI Standard", "byte order": "0"}
CLASSIFICATION, LIBRARY = "enviclassification", "envispectrallibrary"
OTHER_FORMATS = ("tiff", "nitf", "hdf", "jpeg", "jp2", "virtual", "meta", "hfa", "erdas", "envimeta", "envivirtual")
FOREIGN = (
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"EHFA_HEADER_TAG",
    b"\x89PNG",
    b"\x89HDF",
    b"\xff\xd8\xff",
)  # GDAL's to open


def header_of(path: Path) -> Path | None:
    """The header of a path that is one, or of the data of an ENVI file; None if it belongs to none."""
    if path.suffix.lower() == ".hdr":
        return path if is_header(path) else None
    if not path.is_file():
        return None
    beside = [path.with_name(f"{path.name}{end}") for end in (".hdr", ".HDR")]
    beside += [path.with_suffix(end) for end in (".hdr", ".HDR")]
    found = next((place for place in beside if is_header(place)), None)
    if found is not None:
        with path.open("rb") as file:
            if file.read(16).startswith(FOREIGN):
                return None
    return found


def read_envi(path: Path, config: CubeConfig) -> Cube:
    """The cube of a header or of the data beside it; a spectral library is none."""
    place = header_of(path)
    if place is None:
        raise UnreadableScene(f"{path} is no ENVI header and has none beside it; expected NAME.hdr beside NAME or NAME.img")
    header = read_header(place)
    if plain(header.text("file type") or "") == LIBRARY:
        raise UnreadableScene(
            f"{place} is a library of {header.text('lines') or '?'} spectra, not a scene; read it with "
            "terralean.raster.spectral_library.read_library"
        )
    layout, offset, assumed = stored_as(header)
    data = path if path.suffix.lower() != ".hdr" else data_of(place, needed=offset + layout.bytes)
    extra = check_size(data, header, layout, offset)
    return _cube(data, header, layout, offset, config, [*header.remarks, *assumed, *extra])


def stored_as(header: Header) -> tuple[Layout, int, list[str]]:
    """How the numbers lie in the data file, from which byte, and what had to be assumed."""
    missing = [name for name in NEEDED if name not in header and not (name == "interleave" and header.text("bands") == "1")]
    if missing:
        raise UnreadableScene(f"{header.path} does not say {', '.join(missing)}; ENVI needs {', '.join(NEEDED)}; add them")
    _check_kind(header)
    sizes = {axis: header.whole(name) or 0 for axis, name in (("b", "bands"), ("r", "lines"), ("c", "samples"))}
    if any(size < 1 for size in sizes.values()):
        raise UnreadableScene(f"{header.path}: samples, lines and bands must be 1 or more, got {sizes}; correct the header")
    interleave = (header.text("interleave") or "bsq").lower()
    if interleave not in ORDERS:
        raise header.wrong("interleave", "bsq, bil or bip")
    order = ORDERS[interleave]
    lacking = [name for name in ASSUMED if name not in header]
    assumed = (
        [f"the header lacks {', '.join(lacking)}; read as {', '.join(ASSUMED[name] for name in lacking)}"] if lacking else []
    )
    offset = header.whole("header offset") or 0
    if offset < 0:
        raise header.wrong("header offset", "0 or more bytes")
    shape = (sizes[order[0]], sizes[order[1]], sizes[order[2]])
    return Layout(order=order, shape=shape, dtype=_dtype(header)), offset, assumed


def _check_kind(header: Header) -> None:
    kind = plain(header.text("file type") or ASSUMED["file type"])
    if kind.startswith(OTHER_FORMATS):
        raise UnreadableScene(f"{header.path} describes a file of type {header.text('file type')}; open that file itself")
    if header.whole("file compression"):
        raise UnreadableScene(
            f"{header.path}: the data is compressed (file compression = 1); unpack it with gunzip, set it to 0"
        )
    if any(header.numbers("major frame offsets") + header.numbers("minor frame offsets")):
        raise UnreadableScene(f"{header.path} has frame offsets, which are not supported; save the file in ENVI without them")


def _dtype(header: Header) -> str:
    code = header.whole("data type")
    if code in COMPLEX:
        raise UnreadableScene(
            f"{header.path} holds {COMPLEX[code]} values; expected real numbers; write amplitude or intensity"
        )
    if code not in TYPES:
        raise header.wrong("data type", f"one of {', '.join(map(str, TYPES))}")
    order = header.whole("byte order") or 0
    if order not in BYTE_ORDERS:
        raise header.wrong("byte order", "0 (little-endian) or 1 (big-endian)")
    return BYTE_ORDERS[order] + TYPES[code]


def data_of(header: Path, *, needed: int) -> Path:
    """The data file of a header: of the candidates beside it the one whose size fits. Raises MissingFile."""
    bare = header.with_suffix("")  # x.img.hdr belongs to x.img, x.hdr to x, x.img, x.dat, ...
    names = [bare.name, *(bare.name + suffix for suffix in (*SUFFIXES, *map(str.upper, SUFFIXES)))]
    there = [place for name in names if (place := header.with_name(name)).is_file()]
    if not there:
        raise MissingFile(f"the data of {header} is not there; expected {names[0]} or {names[0]} with {', '.join(SUFFIXES)}")
    by_fit = sorted(there, key=lambda place: (_misfit(place.stat().st_size, needed), names.index(place.name)))
    return by_fit[0]


def _misfit(size: int, needed: int) -> tuple[bool, int]:
    """Exact fits first, then the least that is too much, then the least that is missing."""
    return size < needed, abs(size - needed)


def check_size(data: Path, header: Header, layout: Layout, offset: int) -> list[str]:
    """Raise UnreadableScene for a file that is cut off; a remark on bytes that are too many."""
    size, needed = data.stat().st_size, offset + layout.bytes
    if size < needed:
        whole = max(0, size - offset) // (layout.bytes // layout.shape[0])
        slowest = {"b": "bands", "r": "lines", "c": "samples"}[layout.order[0]]
        raise UnreadableScene(
            f"{data} has {size:,} bytes, its header {header.path} tells of {needed:,} ({_sum(layout, offset)}): it breaks off "
            f"after {whole} of {layout.shape[0]} {slowest}; copy or download it again, or correct the header"
        )
    more = size - needed
    return [f"the data file has {more:,} bytes more than the header tells of ({_sum(layout, offset)})"] if more else []


def _sum(layout: Layout, offset: int) -> str:
    sizes = " x ".join(str(layout.size(axis)) for axis in "rcb")
    return f"{offset} + {sizes} x {layout.dtype[-1]} bytes"


def _cube(data: Path, header: Header, layout: Layout, offset: int, config: CubeConfig, warnings: list[str]) -> Cube:
    count = layout.size("b")
    grid, place = grid_of(header, width=layout.size("c"), height=layout.size("r"))
    nm, fwhm, notes, odd = waves(header, count, config)
    scale, scaling, units, doubts = _scaling(header, count, config)
    good, bad_list = good_bands(header, count)
    names, colours, classes = _classes(header)
    interleave = next(name for name, order in ORDERS.items() if order == layout.order)
    dtype = "float32" if scaling else str(layout.dtype)
    cube = Cube(
        path=str(data),
        format=f"ENVI {interleave.upper()}",
        grid=grid,
        bands=Bands(
            names=band_names(header, count),
            wavelength_nm=nm,
            units=units,
            scale=scale,
            dtype=np.dtype(dtype).name,
        ),
        good=good,
        nodata=config.nodata if config.nodata is not None else header.number("data ignore value"),
        partial=config.partial == "keep",
        fwhm_nm=fwhm,
        scaling=scaling,
        class_names=names,
        colours=colours,
        warnings=tuple([*warnings, *place, *odd, *doubts, *bad_list, *classes]),
        notes=tuple(notes),
        store=Mapped(str(data), offset=offset, layout=layout),
    )
    rows, cols, bands = (layout.size(axis) for axis in "rcb")
    known = known_cube(None, rows=rows, cols=cols, bands=bands, axes_told=False, path=str(data)) if config.known else None
    return cube if known is None else as_known(cube, known)


def waves(
    header: Header, count: int, config: CubeConfig
) -> tuple[Waves | None, tuple[float, ...] | None, list[str], list[str]]:
    """Centres and widths of bands in nm, what was assumed of them, and what is wrong with them."""
    if config.wavelengths is not None:
        return from_file(config.wavelengths, count=count, scene=header.path), None, [], []
    listed, unit = header.numbers("wavelength"), header.text("wavelength units")
    if not listed:
        return None, None, [], []
    if len(listed) != count:
        return None, None, [], [f"the header has {len(listed)} wavelengths for {count} bands; they are not used"]
    nm, note = nanometres(listed, unit=unit)
    told = unit is not None and unit.lower() != "unknown"
    lost = nm is None or any(at is None and value for value, at in zip(listed, nm, strict=True))
    notes, odd = ([], [note]) if note and (told or lost) else ([note] if note else [], [])
    widths = header.numbers("fwhm")
    if nm is None or not widths:
        return nm, None, notes, odd
    if len(widths) != count:
        return nm, None, notes, [*odd, f"the header has {len(widths)} widths (fwhm) for {count} bands; they are not used"]
    return nm, widths_nm(widths, waves=listed, nm=nm), notes, odd


def band_names(header: Header, count: int) -> tuple[str, ...]:
    """Those of the header if each band has one of its own, else positions."""
    names = header.items("band names")
    if len(names) == count == len(set(names)) and all(names):
        return tuple(names)
    return tuple(f"band_{i}" for i in range(1, count + 1))


def good_bands(header: Header, count: int) -> tuple[tuple[bool, ...], list[str]]:
    """Which bands the list of bad bands leaves, and what is wrong with it."""
    listed = header.finite("bbl")
    if not listed:
        return (True,) * count, []
    if len(listed) != count:
        return (True,) * count, [f"the list of bad bands (bbl) has {len(listed)} numbers for {count} bands; it is not used"]
    good = tuple(number != 0 for number in listed)
    odd = [] if any(good) else ["the list of bad bands (bbl) marks all of them; it is not used"]
    return good if any(good) else (True,) * count, odd


def _scaling(header: Header, count: int, config: CubeConfig) -> tuple[float, Scaling | None, str, list[str]]:
    """Step of a stored value, or gains and offsets where bands differ; the units; what is odd.

    A reflectance scale factor and gains both say how stored numbers become physical ones. They are applied once: where the
    header has both, the factor counts.
    """
    units = Bands(names=("any",)).units
    if config.raw:
        return 1.0, None, units, []
    factor = header.number("reflectance scale factor")
    if factor is not None and not 0 <= factor < math.inf:
        raise header.wrong("reflectance scale factor", "a number above 0")
    gains, offsets, odd = _gains(header, count)
    if factor:
        if gains and any(abs(gain * factor - 1) > 1e-3 for gain in gains):  # noqa: PLR2004 - they are printed with few digits
            odd.append(f"it has gains and a reflectance scale factor that differ; the factor, {factor:g}, is taken")
        return 1 / factor, None, units, odd
    if not gains and not any(offsets):
        return 1.0, None, units, odd
    gains = gains or [1.0] * count
    if len(set(gains)) == 1 and not any(offsets):
        return gains[0], None, "radiance", odd
    scaling = Scaling(gains=tuple(gains), offsets=tuple(offsets or [0.0] * count))
    return 1.0, scaling, "radiance", odd


def _gains(header: Header, count: int) -> tuple[list[float], list[float], list[str]]:
    found, odd = [], []
    for name in ("data gain values", "data offset values"):
        listed = header.finite(name)
        if listed and len(listed) != count:
            odd.append(f"the header has {len(listed)} {name} for {count} bands; they are not used")
            listed = []
        found.append(listed)
    return found[0], found[1], odd


def _classes(header: Header) -> tuple[tuple[str, ...], dict[int, Colour], list[str]]:
    """Names of a classification file by value, and colours; what is wrong with them."""
    if plain(header.text("file type") or "") != CLASSIFICATION:
        return (), {}, []
    names = header.items("class names")
    count = header.whole("classes") or len(names)
    odd = []
    if names and len(names) != count:
        odd.append(f"the header has {len(names)} class names for {count} classes")
    lookup = [int(value) for value in header.numbers("class lookup")]
    if lookup and len(lookup) != 3 * count:
        odd.append(f"class lookup has {len(lookup)} numbers for {count} classes, three each are needed; it is not used")
        lookup = []
    colours = {i: (lookup[3 * i], lookup[3 * i + 1], lookup[3 * i + 2]) for i in range(len(lookup) // 3)}
    return tuple(names), colours, odd
