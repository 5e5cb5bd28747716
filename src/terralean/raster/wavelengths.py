"""Wavelengths of bands in nanometres, from all the units and places in which files tell them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from terralean.errors import ConfigError, MissingFile

OPTICAL_NM = (200.0, 20_000.0)  # what a band centre can be
MICRO_BELOW = 100.0  # where no unit is told, smaller numbers are micrometres
SHOWN = 5  # numbers in a remark
NOT_A_LENGTH = ("index", "band", "none", "date", "time")
LENGTH_NM = {  # the first letters of a unit of length, in nm; m alone must come last
    "nanom": 1.0,
    "nm": 1.0,
    "microm": 1e3,
    "micron": 1e3,
    "um": 1e3,
    "\u00b5m": 1e3,  # micro sign
    "\u03bcm": 1e3,  # Greek mu
    "\u00b5": 1e3,
    "angstrom": 0.1,
    "millim": 1e6,
    "mm": 1e6,
    "centim": 1e7,
    "cm": 1e7,
    "meter": 1e9,
    "metre": 1e9,
}
SPEED_NM = {"ghz": 299_792_458.0, "mhz": 299_792_458.0e3, "thz": 299_792.458}  # light's, in nm times that unit
TAGS = ("wavelength", "wavelengths", "center_wavelength", "centre_wavelength", "central_wavelength", "wavelength_nm")
UNIT_TAGS = ("wavelength_units", "wavelength_unit", "wavelengthunits", "wavelengths_units")
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
WITH_UNIT = re.compile(rf"({NUMBER})\s*(nanomet\w*|nm|micromet\w*|microns?|um|\u00b5m|\u03bcm)(?![a-z])", re.IGNORECASE)
IN_BRACKETS = re.compile(rf"\(({NUMBER})\)\s*$")

Waves = tuple[float | None, ...]


def nanometres(values: Sequence[float], *, unit: str | None) -> tuple[Waves | None, str | None]:
    """Band centres in nm, None where a number cannot be one; None in all if the numbers are no wavelengths; what was assumed.

    Where no unit is told, numbers below 100 are micrometres, others nanometres. Where the unit that is told puts all bands
    outside 200 to 20,000 nm and micrometres or nanometres put all of them inside, that is taken.
    """
    factors, told = _reading(unit)
    if factors is None or not values:
        return None, None
    if told is None:
        if len(values) > 1 and any(all(v == k + i for i, v in enumerate(values)) for k in (0, 1)):
            return None, "the wavelengths are the numbers of the bands, and not used"
        micro = max(values) < MICRO_BELOW
        note = f"the wavelengths have no unit; from their size they are {'micrometres' if micro else 'nanometres'}"
        factor = 1e3 if micro else 1.0
        nm = [v * factor for v in values]
        return _inside(nm), note + (f"; {strays}" if (strays := _strays(values, nm)) else "")
    nm = [factors(v) for v in values]
    if not any(map(_optical, nm)):
        for name, factor in (("micrometres", 1e3), ("nanometres", 1.0)):
            if all(_optical(v * factor) for v in values):
                note = f"the wavelengths are said to be in {unit}, but {_span(values)} can only be {name}; read as these"
                return _inside([v * factor for v in values]), note
        return None, f"the wavelengths, {_span(values)} {unit}, are not those of light, 200 to 20,000 nm, and not used"
    return _inside(nm), _strays(values, nm)


def widths_nm(values: Sequence[float], *, waves: Sequence[float], nm: Waves) -> tuple[float, ...]:
    """Widths of bands (fwhm), told in the unit of the `waves` that were read as `nm`."""
    pairs = [(wave, at) for wave, at in zip(waves, nm, strict=True) if at is not None and wave > 0]
    factor = pairs[0][1] / pairs[0][0] if pairs else 1.0
    return tuple(round(value * factor, 4) for value in values)


def from_file(path: str, *, count: int, scene: str) -> Waves:
    """The first number of each line that begins with one. Raises ConfigError unless there are as many as bands."""
    place = Path(path)
    if not place.is_file():
        raise MissingFile(f"{path} is not there; expected a text file with the wavelengths of {scene}")
    found = [
        float(match[1]) for line in place.read_text(encoding="utf-8", errors="replace").splitlines() if (match := _first(line))
    ]
    if len(found) != count:
        raise ConfigError(f"{path} has {len(found)} lines that begin with a number, {scene} has {count} bands; give one each")
    nm, _ = nanometres(found, unit=None)
    if nm is None:
        raise ConfigError(f"{path} holds {_span(found)}, which are no wavelengths in nm or um")
    return nm


def told_by_gdal(dataset: Any) -> Waves | None:
    """Centres in nm of all bands of an open rasterio dataset, by the first convention that tells any.

    Looked for: tags of each band (wavelength, wavelength_units; GDAL's IMAGERY domain), lists in tags of the file or its
    ENVI domain, and names of bands that hold a number with a unit, as in "band 1 (418.24 Nanometers)".
    """
    tags = [_lower(dataset.tags(i)) for i in range(1, dataset.count + 1)]
    whole = [_lower(dataset.tags(ns="ENVI")), _lower(dataset.tags())]
    found = _in_band_tags(tags) or _in_imagery(dataset) or _in_lists(whole, dataset.count) or _in_names(dataset.descriptions)
    if found is None:
        return None
    values, unit = found
    nm, _ = nanometres([v for v in values if v is not None], unit=unit)
    if nm is None:
        return None
    known = iter(nm)
    return tuple(None if v is None else next(known) for v in values)


def _in_band_tags(tags: Sequence[Mapping[str, str]]) -> tuple[list[float | None], str | None] | None:
    values = [_number(next((tag[name] for name in TAGS if name in tag), None)) for tag in tags]
    if not any(v is not None for v in values):
        return None
    units = [tag[name] for tag in tags for name in UNIT_TAGS if name in tag]
    if not units and any("wavelength_nm" in tag for tag in tags):
        units = ["nm"]
    return values, units[0] if units else None


def _in_imagery(dataset: Any) -> tuple[list[float | None], str | None] | None:
    values = [_number(dataset.tags(i, ns="IMAGERY").get("CENTRAL_WAVELENGTH_UM")) for i in range(1, dataset.count + 1)]
    return (values, "um") if any(v is not None for v in values) else None


def _in_lists(tags: Sequence[Mapping[str, str]], count: int) -> tuple[list[float | None], str | None] | None:
    for tag in tags:
        values = next((numbers(tag[name]) for name in TAGS if name in tag), [])
        if len(values) == count:
            return list(values), next((tag[name] for name in UNIT_TAGS if name in tag), None)
    return None


def _in_names(names: Sequence[str | None]) -> tuple[list[float | None], str | None] | None:
    if not names or not all(names):
        return None
    texts = [name or "" for name in names]
    found = [WITH_UNIT.search(text) for text in texts]
    if all(found):
        return [float(match[1]) for match in found if match], next(match[2] for match in found if match)
    bare = [IN_BRACKETS.search(text) for text in texts]
    return ([float(match[1]) for match in bare if match], None) if all(bare) and len(bare) > 1 else None


def numbers(text: str) -> list[float]:
    """All numbers of a list in braces, brackets or none."""
    return [float(found) for found in re.findall(NUMBER, text)]


def _reading(unit: str | None) -> tuple[Any, str | None]:
    """What makes nm of a number, and the unit; None and None for a unit that is no length; a function and None if untold."""
    name = (unit or "").strip().lower()
    if not name or name == "unknown":
        return (lambda v: v), None
    if name.startswith(NOT_A_LENGTH):
        return None, None
    if name.startswith("wavenumber") or re.fullmatch(r"(1/cm|cm\^?-1|cm\*\*-1|cm\u207b\u00b9)", name):
        return (lambda v: 1e7 / v if v > 0 else 0.0), name
    for start, speed in SPEED_NM.items():
        if name.startswith(start):
            return (lambda v, c=speed: c / v if v > 0 else 0.0), name
    for start, factor in LENGTH_NM.items():
        if name.startswith(start) or (name == "m" and start == "meter"):
            return (lambda v, f=factor: v * f), name
    return (lambda v: v), None


def _inside(nm: Sequence[float]) -> Waves | None:
    found = tuple(round(v, 4) if _optical(v) else None for v in nm)
    return found if any(found) else None


def _strays(values: Sequence[float], nm: Sequence[float]) -> str | None:
    """What to say of numbers that are none beside others that are; 0 is written where a band has no wavelength."""
    lost = [f"{v:g}" for v, at in zip(values, nm, strict=True) if v and not _optical(at)]
    if not lost or len(lost) == len(values):
        return None
    shown = ", ".join(lost[:SHOWN]) + (f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else "")
    return f"{len(lost)} of {len(values)} wavelengths, {shown}, are not those of light in that unit: these bands have none"


def _optical(nm: float) -> bool:
    return OPTICAL_NM[0] <= nm <= OPTICAL_NM[1]


def _span(values: Sequence[float]) -> str:
    return f"{min(values):g} to {max(values):g}"


def _first(line: str) -> re.Match[str] | None:
    return re.match(rf"\s*({NUMBER})(?=[\s,;]|$)", line)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _lower(tags: Mapping[str, str]) -> dict[str, str]:
    return {name.lower().replace(" ", "_"): value for name, value in tags.items()}
