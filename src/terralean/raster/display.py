"""Values of any bands as colours that a person can look at."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terralean.spec import Bands

DISPLAY_NM = (660.0, 560.0, 480.0)
NEAR_NM = 60.0
SPECTRUM = 32  # bands from which they are a spectrum
HATCH_RGB = ((226, 228, 231), (186, 190, 195))  # no label, no data: ground and stripes


def display_bands(bands: Bands) -> tuple[int, ...]:
    """Positions shown as red, green and blue: by name, else by wavelength, else the first three; one band is shown grey.

    Of a spectrum of unknown wavelengths, whose ends are mostly noise, a half, a quarter and an eighth of the way along.
    """
    names = [name.lower() for name in bands.names]
    if all(colour in names for colour in ("red", "green", "blue")):
        return tuple(names.index(colour) for colour in ("red", "green", "blue"))
    near = _by_wavelength(bands)
    if near is not None:
        return near
    if len(bands) >= SPECTRUM:
        return tuple(len(bands) // part for part in (2, 4, 8))
    return (0, 1, 2) if len(bands) >= 3 else (0,)  # noqa: PLR2004 - red, green, blue


def stretch(values: NDArray[Any], valid: NDArray[np.bool_], *, bands: Bands) -> NDArray[np.uint8]:
    """Colours for the screen (H, W, 3): each shown band from its 2nd to its 98th percentile over valid pixels."""
    shown = [_stretch_band(values[i], valid) for i in display_bands(bands)]
    rgb = np.stack(shown * 3 if len(shown) == 1 else shown, axis=-1)
    return np.where(valid[..., None], rgb, hatch(*valid.shape)).astype(np.uint8)


def hatch(height: int, width: int) -> NDArray[np.uint8]:
    """Diagonal stripes (H, W, 3) that no class colour looks like, about 60 over the longer side."""
    period = max(4, max(height, width) // 60)
    place = np.add.outer(np.arange(height), np.arange(width)) % period
    return np.where((place < max(1, period // 4))[..., None], HATCH_RGB[1], HATCH_RGB[0]).astype(np.uint8)


def _by_wavelength(bands: Bands) -> tuple[int, ...] | None:
    nm = [math.inf if w is None else w for w in bands.wavelength_nm or ()]
    if not nm:
        return None
    near = [min(range(len(nm)), key=lambda i: abs(nm[i] - wanted)) for wanted in DISPLAY_NM]
    close = all(abs(nm[i] - wanted) <= NEAR_NM for i, wanted in zip(near, DISPLAY_NM, strict=True))
    return tuple(near) if close and len(set(near)) == len(near) else None


def _stretch_band(band: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    known = band[valid].astype(np.float64)
    if not known.size:
        return np.zeros(band.shape)
    low, high = np.percentile(known, [2, 98])
    if high == low:
        return np.full(band.shape, 128.0)
    return 255 * np.clip((np.where(valid, band, low) - low) / (high - low), 0, 1)
