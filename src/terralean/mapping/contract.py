"""A scene's bands beside those that a model was trained on."""

from __future__ import annotations

import logging

from terralean.raster.cube_source import is_cube
from terralean.raster.scene import Scene
from terralean.spec import check_band_values, check_bands, is_spectral
from terralean.weights.card import Card

log = logging.getLogger(__name__)

_told: set[str] = set()  # scenes of which it was said that their wavelengths are not known


def check_contract(scene: Scene, card: Card, *, chosen: bool) -> None:
    """The scene's bands against the model's; positions given by the user count for more than names, with a warning."""
    if not chosen:
        check_bands(scene.bands, card.bands, scene=scene.path)
        _tell_unknown(scene, card)
        return
    check_band_values(scene.bands, card.bands, scene=scene.path)
    pairs = zip(scene.bands.names, card.bands.names, strict=True)
    told = ", ".join(f"{theirs} as {ours}" for theirs, ours in pairs if theirs.casefold() != ours.casefold())
    if told and scene.bands.named and card.bands.named:
        log.warning("%s: taking, as --bands says, %s", scene.path, told)


def _tell_unknown(scene: Scene, card: Card) -> None:
    """Say once of a scene that its bands are taken for the model's, where neither wavelengths nor names tell it."""
    by_name = scene.bands.named and card.bands.named
    if not is_spectral(card.bands) or scene.bands.known_nm is not None or by_name or scene.path in _told:
        return
    _told.add(scene.path)
    nm = card.bands.known_nm or ()
    file = scene.path.partition("#")[0]
    how = f"{file}#wavelengths=FILE, a line for each band, or an ENVI header" if is_cube(scene.path) else "them in the file"
    log.warning(
        "%s does not tell its wavelengths; its %d bands are taken for the model's, %g to %g nm, in the same order; to have "
        "that checked, tell %s",
        *(scene.path, len(nm), nm[0], nm[-1], how),
    )
