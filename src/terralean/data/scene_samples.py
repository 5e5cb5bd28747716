"""Any dataset that yields torchgeo's dictionaries with an image and a label."""

from __future__ import annotations

from collections.abc import Sequence

from terralean.data.samples import Indexed
from terralean.data.scene_reading import Pictures
from terralean.spec import Bands, Classes


def from_scene_samples(
    dataset: Indexed, *, bands: Bands, classes: Classes | None = None, queries: Sequence[int] | None = None
) -> Pictures:
    """Accept a dataset that yields dictionaries with `image` and `label`, such as torchgeo's EuroSAT.

    Classes are the dataset's own where they are not given.
    """
    raise NotImplementedError
