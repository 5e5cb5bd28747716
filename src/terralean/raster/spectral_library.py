"""ENVI spectral libraries (.sli): spectra with names, from spectrometers or from pixels that somebody named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terralean.errors import UnreadableScene
from terralean.raster.arrays import Mapped, read
from terralean.raster.cube_config import CubeConfig
from terralean.raster.envi import LIBRARY, check_size, data_of, header_of, stored_as, waves
from terralean.raster.envi_header import plain, read_header
from terralean.raster.wavelengths import Waves


@dataclass(frozen=True, kw_only=True)
class SpectralLibrary:
    """Spectra on common wavelengths."""

    path: str
    names: tuple[str, ...]
    spectra: NDArray[np.floating]  # (spectra, bands), as stored
    wavelength_nm: Waves | None
    scale: float  # stored value times this is reflectance, where the file says so, else 1
    warnings: tuple[str, ...] = ()


def is_library(path: str | Path) -> bool:
    """Whether a file is the header or the data of a spectral library."""
    header = header_of(Path(path))
    return header is not None and plain(read_header(header).text("file type") or "") == LIBRARY


def read_library(path: str | Path) -> SpectralLibrary:
    """The library of a header or of the data beside it. Raises UnreadableScene where it is none, or cut off."""
    place = header_of(Path(path))
    if place is None or not is_library(place):
        raise UnreadableScene(f"{path} is no spectral library; expected an ENVI header of file type ENVI Spectral Library")
    header = read_header(place)
    layout, offset, assumed = stored_as(header)
    data = Path(path) if Path(path).suffix.lower() != ".hdr" else data_of(place, needed=offset + layout.bytes)
    extra = check_size(data, header, layout, offset)
    count, bands = layout.size("r"), layout.size("c")  # a library lies as an image of one band, a spectrum a line
    nm, _, notes, odd = waves(header, bands, CubeConfig())
    values = read(Mapped(str(data), offset=offset, layout=layout), bands=[0], rows=range(count), cols=range(bands))[0]
    names = header.items("spectra names")
    if len(names) != count:
        odd = [*odd, *([f"the header has {len(names)} names for {count} spectra; they are not used"] if names else [])]
        names = [f"spectrum {i}" for i in range(1, count + 1)]
    factor = header.number("reflectance scale factor")
    return SpectralLibrary(
        path=str(data),
        names=tuple(names),
        spectra=values,
        wavelength_nm=nm,
        scale=1 / factor if factor else 1.0,
        warnings=tuple([*header.remarks, *assumed, *extra, *notes, *odd]),
    )
