"""A scene's bands beside those that a model was trained on."""

from __future__ import annotations

import logging

from terralean.raster.scene import Scene
from terralean.spec import check_band_values, check_bands
from terralean.weights.card import Card

log = logging.getLogger(__name__)


def check_contract(scene: Scene, card: Card, *, chosen: bool) -> None:
    """The scene's bands against the model's; positions given by the user count for more than names, with a warning."""
    if not chosen:
        check_bands(scene.bands, card.bands, scene=scene.path)
        return
    check_band_values(scene.bands, card.bands, scene=scene.path)
    pairs = zip(scene.bands.names, card.bands.names, strict=True)
    told = ", ".join(f"{theirs} as {ours}" for theirs, ours in pairs if theirs.casefold() != ours.casefold())
    if told and scene.bands.named and card.bands.named:
        log.warning("%s: taking, as --bands says, %s", scene.path, told)
