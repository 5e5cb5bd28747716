"""What opening files warns of is in what inspect says; it is not said a second time beside it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

OPENING = ("terralean.raster.scene", "terralean.data.spectral.scenes", "terralean.data.spectral.patches")


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing is logged by what opens scenes, and nothing of it counts as said."""
    levels = {logger: logger.level for logger in map(logging.getLogger, OPENING)}
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
