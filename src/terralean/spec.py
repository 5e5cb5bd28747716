"""Values that cross rooms: what a band is, how values are normalised, what the classes are. No torch."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from terralean.errors import BandMismatch, ConfigError, LabelError

IGNORE = 255  # the mask value that is neither trained on nor scored, and the nodata value of a class map
SPECTRAL = 10  # bands of known wavelengths, from which these say which bands they are, and names do not
MAX_CLASSES = 254  # of a class map or a mask, which hold a byte a pixel

# Ten hues that stay apart under the common colour-vision deficiencies (after Okabe and Ito 2008, extended by lightness).
PALETTE = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
    (120, 94, 60),
    (170, 170, 170),
    (60, 60, 60),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bands:
    """The bands of a scene or of a model, in order."""

    names: tuple[str, ...]
    wavelength_nm: tuple[float | None, ...] | None = None  # band centres; None where unknown
    units: str = "digital number"  # what a stored value times `scale` means: "digital number", "reflectance", "dB", ...
    scale: float = 1.0
    dtype: str = "uint8"  # numpy name of the stored values

    def __post_init__(self) -> None:
        if not self.names:
            raise ConfigError("Bands needs at least one band name, got none")
        if len(set(self.names)) != len(self.names):
            raise ConfigError(f"band names must differ, got {', '.join(self.names)}")
        if self.wavelength_nm is not None:
            _check_wavelengths_nm(self.wavelength_nm, count=len(self.names))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def named(self) -> bool:
        """Whether the names say something: False where any is only the position, `band_1`, `band_2`, ..."""
        return not any(_is_position(name) for name in self.names)

    @property
    def known_nm(self) -> tuple[float, ...] | None:
        """Wavelengths, where all of several bands have one of their own."""
        nm = [w for w in self.wavelength_nm or () if w is not None]
        return tuple(nm) if len(set(nm)) == len(self.names) > 1 else None

    def choose(self, index: Sequence[int]) -> Bands:
        """The bands at these positions (from 0), in this order."""
        nm = None if self.wavelength_nm is None else tuple(self.wavelength_nm[i] for i in index)
        names = tuple(self.names[i] for i in index)
        return Bands(names=names, wavelength_nm=nm, units=self.units, scale=self.scale, dtype=self.dtype)


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalisation:
    """Per-band statistics of valid training pixels, in the units the scene stores. Values become (v - mean) / std."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ConfigError(f"a mean and a std per band, got {len(self.mean)} and {len(self.std)}")
        if any(not s > 0 for s in self.std):
            raise ConfigError(f"std must be above 0 in every band, got {list(self.std)}; leave constant bands out")


@dataclass(frozen=True, kw_only=True, slots=True)
class Classes:
    """The classes that a model tells apart: number i is `names[i]`, drawn in `colours[i]`. In a map, 255 is no class."""

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]  # red, green, blue, 0..255

    def __post_init__(self) -> None:
        if not self.names:
            raise LabelError("Classes needs at least one class name, got none")
        if len(set(self.names)) != len(self.names):
            raise LabelError(f"class names must differ, got {', '.join(self.names)}")
        if len(self.colours) != len(self.names):
            raise LabelError(f"{len(self.names)} classes need as many colours, got {len(self.colours)}")
        for name, colour in zip(self.names, self.colours, strict=True):
            if len(colour) != 3 or any(not 0 <= c <= 255 for c in colour):  # noqa: PLR2004 - red, green, blue in bytes
                raise LabelError(f"colour of class {name!r} must be three numbers 0..255, got {colour}")

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def named(cls, names: Sequence[str]) -> Classes:
        """Classes of these names in the default palette, colour-blind safe for the first ten."""
        return cls(names=tuple(names), colours=tuple(_colour(i) for i in range(len(names))))


def check_mappable(classes: Classes, *, where: str) -> None:
    """Raise LabelError where there are more classes than a pixel of a map or of a mask can name."""
    if len(classes) > MAX_CLASSES:
        raise LabelError(f"{where}: 1 to {MAX_CLASSES} classes, a byte a pixel, got {len(classes)}; map fewer")


def check_bands(found: Bands, need: Bands, *, scene: str) -> None:
    """Raise BandMismatch unless a scene's bands are what a model was trained on, in count, order, kind and scale.

    Names are compared without regard to case; where either side has no real names only the count can be checked. The bands of
    a spectrometer are known by their wavelengths instead, whatever they are called: each to half the usual step between them.
    """
    if is_spectral(found) and is_spectral(need):
        check_band_values(found, need, scene=scene)
        _check_same_wavelengths(found, need, scene=scene)
        return
    ours, theirs = ([name.casefold().strip() for name in bands.names] for bands in (need, found))
    if found.named and need.named and ours != theirs:
        what = "other bands than the model, or another order" if set(ours) & set(theirs) else "none of the model's bands"
        raise BandMismatch(f"{scene} has {what}{_lists(found, need)}\n{_fix(ours, theirs)}")
    check_band_values(found, need, scene=scene)


def check_band_values(found: Bands, need: Bands, *, scene: str) -> None:
    """`check_bands` where the user has said which bands are meant: names may differ, count and values may not."""
    if len(found) != len(need):
        many = ",".join(str(i + 1) for i in range(len(need)))
        fix = f"choose them by position with --bands, e.g. --bands {many}" if len(found) > len(need) else "it needs all of them"
        raise BandMismatch(
            f"{scene}: {len(found)} band{'' if len(found) == 1 else 's'}, the model was trained on {len(need)}"
            f"{_lists(found, need)}\n{fix}"
        )
    if (found.units, found.scale) != (need.units, need.scale):
        raise BandMismatch(
            f"{scene} stores {found.units} in steps of {found.scale:g}, the model was trained on {need.units} in steps of "
            f"{need.scale:g}; convert the scene so that its values mean the same"
        )
    if found.dtype != need.dtype and "uint8" in (found.dtype, need.dtype):  # what is stretched to 8 bits means something else
        raise BandMismatch(
            f"{scene} holds {found.dtype} values, the model was trained on {need.dtype}; convert it so that its values mean "
            "the same"
        )


def is_spectral(bands: Bands) -> bool:
    """Whether there are many bands, each of a known wavelength of its own."""
    return len(bands) >= SPECTRAL and bands.known_nm is not None


def half_step_nm(nm: Sequence[float]) -> float:
    """Half the usual step from one of several wavelengths to the next: so far apart two are still the same band."""
    steps = sorted(abs(b - a) for a, b in pairwise(nm))
    return steps[len(steps) // 2] / 2


def _check_same_wavelengths(found: Bands, need: Bands, *, scene: str) -> None:
    theirs, ours = (bands.known_nm or () for bands in (found, need))
    tolerance = half_step_nm(ours)
    apart = [i for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) if abs(a - b) > tolerance]
    if not apart:
        return
    shown = ", ".join(f"band {i + 1} at {theirs[i]:g} nm for {ours[i]:g} nm" for i in apart[:5])
    more = f" and {len(apart) - 5} more" if len(apart) > 5 else ""  # noqa: PLR2004 - as many as are shown
    raise BandMismatch(
        f"{scene} has {len(apart)} of {len(ours)} bands at other wavelengths than the model was trained on (more than "
        f"{tolerance:g} nm away): {shown}{more}\n  scene: {_waves(theirs)}\n  model: {_waves(ours)}\n"
        "map a scene of the same sensor, or resample its spectra to the wavelengths of the model"
    )


def _waves(nm: Sequence[float]) -> str:
    return ", ".join(f"{w:g}" for w in nm) + " nm"


def _lists(found: Bands, need: Bands) -> str:
    return f"\n  scene: {', '.join(found.names)}\n  model: {', '.join(need.names)}"


def _fix(ours: Sequence[str], theirs: Sequence[str]) -> str:
    if set(ours) <= set(theirs):
        return f"choose them with --bands {','.join(str(theirs.index(name) + 1) for name in ours)}"
    missing = ", ".join(name for name in ours if name not in theirs)
    return f"missing: {missing}; if the scene has them under other names, give their positions with --bands"


def _is_position(name: str) -> bool:
    return name.startswith("band_") and name[5:].isdigit()


def _check_wavelengths_nm(nm: Sequence[float | None], *, count: int) -> None:
    if len(nm) != count:
        raise ConfigError(f"a wavelength (or None) per band, got {len(nm)} for {count} bands")
    if not all(w is None or 200 <= w <= 20_000 for w in nm):  # noqa: PLR2004 - the optical range
        raise ConfigError(f"wavelengths in nm, 200..20000, got {list(nm)}; from micrometres, multiply by 1000")


def _colour(index: int) -> tuple[int, int, int]:
    if index < len(PALETTE):
        return PALETTE[index]
    hue = index * 0.618034 % 1  # the golden ratio spreads any number of hues evenly
    red, green, blue = colorsys.hls_to_rgb(hue, 0.35 + 0.3 * (index % 2), 0.6)
    return round(red * 255), round(green * 255), round(blue * 255)
