"""What a run on one cube has to do with the bands of another, before its network learns from this."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from terralean.adapt.bands import first_layer, kinship, resampling
from terralean.adapt.lora import is_named
from terralean.errors import ConfigError
from terralean.spec import Bands
from terralean.train.config import AdaptConfig
from terralean.weights.card import NAME as CARD
from terralean.weights.card import read_card

log = logging.getLogger(__name__)

SHOWN = 5


def check_start_bands(model: nn.Module, config: AdaptConfig | None, *, start: Path, bands: Bands) -> None:
    """Tell what is made of a scene's bands by a network (built for these) that starts from a run on others.

    Raises ConfigError where they cannot be told from each other, and the layer over the bands would stay as it is.
    """
    if not (start / CARD).is_file():
        return
    stored = read_card(start).bands
    known = kinship(stored, bands)
    if known == "same":
        _tell_unknown(stored, bands, start=start)
    elif known == "wavelengths":
        _tell_beyond(stored, bands, start=start)
    elif known == "unknown":
        _check_learns(model, config, stored=stored, bands=bands, start=start)


def _tell_unknown(stored: Bands, bands: Bands, *, start: Path) -> None:
    if (stored.known_nm is None) != (bands.known_nm is None):
        which = "the scene" if bands.known_nm is None else str(start)
        log.warning(
            "%s does not tell its wavelengths; its %d bands are taken for those of %s, in the same order",
            *(which, len(bands), str(start) if bands.known_nm is None else "the scene"),
        )


def _tell_beyond(stored: Bands, bands: Bands, *, start: Path) -> None:
    found = resampling(stored, bands)
    assert found is not None
    advice = "learn the layer over the bands, too: --set adapt.train=[head, spectral]"
    if found.beyond:
        told = _waves(bands, found.beyond)
        log.warning("%s saw nothing like %s of the scene: they begin with no weight; leave them out or %s", start, told, advice)
    if found.lost:
        told = _waves(stored, found.lost)
        log.warning("the scene has nothing like %s of %s: they count as their mean; or %s", told, start, advice)


def _check_learns(model: nn.Module, config: AdaptConfig | None, *, stored: Bands, bands: Bands, start: Path) -> None:
    layer = first_layer(model, bands=len(bands))
    learns = config is None or (layer is not None and is_named(layer, config.train))
    if learns:
        log.warning("%s: what it learned of its %d bands is left out; %s", start, len(stored), _why(stored, bands))
        return
    fix = f"--set model.weights={start} in place of adapt, which trains all weights"
    if layer is not None:
        fix = f"--set 'adapt.train=[head, {layer.partition('.')[0]}]', which learns the layer over the bands anew"
    raise ConfigError(
        f"adapt.from: {start} was trained on {len(stored)} bands, the scene has {len(bands)}, and {_why(stored, bands)}; {fix}"
    )


def _why(stored: Bands, bands: Bands) -> str:
    if stored.known_nm is None or bands.known_nm is None:
        without = " and ".join(name for name, one in (("the run", stored), ("the scene", bands)) if one.known_nm is None)
        return f"{without} cannot tell the wavelengths to match them by (an ENVI header does, or #wavelengths= behind a path)"
    return f"they see little of the same wavelengths ({_range(stored)} and {_range(bands)})"


def _range(bands: Bands) -> str:
    nm = bands.known_nm or ()
    return f"{min(nm):g} to {max(nm):g} nm"


def _waves(bands: Bands, places: Sequence[int]) -> str:
    nm = bands.known_nm or ()
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    noun = "band" if len(places) == 1 else "bands"
    return f"{noun} " + ", ".join(f"{place + 1} at {nm[place]:g} nm" for place in places[:SHOWN]) + more
