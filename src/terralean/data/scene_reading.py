"""Images with a class each, by their number, and a bounded memory of what was decoded last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from terralean.data.recent import Recent
from terralean.data.scene_config import SceneDataConfig
from terralean.data.scene_index import SceneImage
from terralean.data.scene_picture import Picture, read_picture
from terralean.spec import Bands, Classes


class Pictures(Protocol):
    """Images with a class each, in order: files, or what another library's dataset yields."""

    @property
    def bands(self) -> Bands:
        """Of every image."""

    @property
    def classes(self) -> Classes:
        """That labels count in."""

    def __len__(self) -> int: ...

    @property
    def labels(self) -> Sequence[int]:
        """The class of each."""

    def read(self, index: int, *, keep_px: int | None = None) -> Picture:
        """One image. With `keep_px` a larger one may come with fewer pixels, but at least so many along its shorter side."""


class SceneFiles:
    """Images of files. What was decoded last is kept, up to `cache_mb` of it."""

    def __init__(self, images: Sequence[SceneImage], *, bands: Bands, classes: Classes, config: SceneDataConfig) -> None:
        self.images, self.bands, self.classes, self.config = tuple(images), bands, classes, config
        self.recent = Recent(config.cache_mb * 1_000_000)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels(self) -> tuple[int, ...]:
        """The class of each."""
        return tuple(image.label for image in self.images)

    def read(self, index: int, *, keep_px: int | None = None) -> Picture:
        """As `Pictures` says."""
        name = (index, keep_px)
        if (kept := self.recent.get(name)) is None:
            picture = read_picture(self.images[index].path, config=self.config, keep_px=keep_px)
            kept = self.recent.put(name, (picture.values, picture.valid))
        return Picture(values=kept[0], valid=kept[1], bands=self.bands)
