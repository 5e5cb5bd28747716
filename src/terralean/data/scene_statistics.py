"""What training images hold: the mean and spread of each band, the images of each class."""

from __future__ import annotations

import numpy as np

from terralean.data.scene_reading import Pictures
from terralean.data.statistics import moments_of, no_moments, normalise
from terralean.spec import Normalisation

MEASURED = 2000  # images, drawn without regard to class
MEASURED_PX = 256  # along a side: of larger images a lattice of so many pixels counts


def measure_scenes(pictures: Pictures, *, seed: int) -> tuple[Normalisation, tuple[int, ...]]:
    """Normalisation of the valid pixels of a bounded number of images, and the images of each class.

    Raises DatasetError where nothing is valid or a band is constant.
    """
    moments = no_moments(len(pictures.bands))
    order = np.random.default_rng(seed).permutation(len(pictures))[:MEASURED]
    for index in np.sort(order):
        # Twice as many pixels as are counted, so that averages of a huge image hardly narrow the spread.
        picture = pictures.read(int(index), keep_px=2 * MEASURED_PX)
        rows, cols = (_lattice(length) for length in picture.valid.shape)
        values = picture.values[:, rows, cols]
        moments = moments.merge(moments_of(values, picture.valid[rows, cols]))
    where = f"{len(order)} of {len(pictures)} training images"
    counts = np.bincount(np.asarray(pictures.labels, dtype=np.int64), minlength=len(pictures.classes))
    return normalise(moments, bands=pictures.bands, where=where), tuple(counts.tolist())


def _lattice(length: int) -> slice:
    step = max(1, length // MEASURED_PX)
    return slice((length - 1) % step // 2, None, step)
