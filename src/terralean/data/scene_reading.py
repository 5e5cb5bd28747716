"""Pictures of any format, band count and type, with a bounded memory of what was decoded last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from terralean.data.scene_config import SceneDataConfig
from terralean.data.scene_index import SceneImage
from terralean.spec import Bands, Classes


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A decoded image, perhaps with fewer pixels than its file has."""

    values: NDArray  # (C, H, W) as stored
    valid: NDArray[np.bool_]  # (H, W)


class Pictures(Protocol):
    """Images with a class each, in order: files, or what another library's dataset yields."""

    bands: Bands
    classes: Classes

    def __len__(self) -> int: ...  # noqa: D105

    @property
    def labels(self) -> Sequence[int]:
        """The class of each."""

    def read(self, index: int, *, keep_px: int | None = None) -> Picture:
        """One image. With `keep_px` a larger one may come with fewer pixels, but at least so many along its shorter side."""


class SceneFiles:
    """Images of files."""

    def __init__(self, images: Sequence[SceneImage], *, bands: Bands, classes: Classes, config: SceneDataConfig) -> None:
        self.images, self.bands, self.classes, self.config = tuple(images), bands, classes, config

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels(self) -> tuple[int, ...]:
        """The class of each."""
        return tuple(image.label for image in self.images)

    def read(self, index: int, *, keep_px: int | None = None) -> Picture:
        """As `Pictures` says."""
        raise NotImplementedError
