"""What training images hold: the mean and spread of each band, the images of each class."""

from __future__ import annotations

from terralean.data.scene_reading import Pictures
from terralean.spec import Normalisation


def measure_scenes(pictures: Pictures, *, seed: int) -> tuple[Normalisation, tuple[int, ...]]:
    """Normalisation of the valid pixels of a bounded number of images, and the images of each class."""
    raise NotImplementedError
