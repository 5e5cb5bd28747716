"""What a spectral library is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from terralean.inspect.finding import Finding
from terralean.raster.spectral_library import read_library


@dataclass(frozen=True, kw_only=True, slots=True)
class LibraryReport:
    """What is known of a library of spectra."""

    path: str
    spectra: int
    bands: int
    range_nm: tuple[float, float] | None
    names: tuple[str, ...]
    value_range: tuple[float, float]  # as stored
    scale: float
    findings: tuple[Finding, ...]
    kind: Literal["library"] = "library"


def describe_library(path: str) -> LibraryReport:
    """Look at a library. Raises UnreadableScene where it is cut off."""
    library = read_library(path)
    nm = [w for w in library.wavelength_nm or () if w is not None]
    return LibraryReport(
        path=path,
        spectra=len(library.names),
        bands=library.spectra.shape[1],
        range_nm=(min(nm), max(nm)) if nm else None,
        names=library.names,
        value_range=(float(library.spectra.min()), float(library.spectra.max())),
        scale=library.scale,
        findings=tuple(Finding(severity="warning", message=text) for text in library.warnings),
    )
