"""Training crops of labelled images, and the fixed views by which each of them is judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from terralean.data.sample import Sample
from terralean.data.scene_augment import Variation, drawn
from terralean.data.scene_config import SceneDataConfig
from terralean.data.scene_reading import Pictures
from terralean.data.scene_views import keep_px, views
from terralean.errors import EmptySplit
from terralean.spec import Normalisation


class SceneCrops(Dataset[Sample]):
    """Random crops of images in turn, varied, as many as asked for: the same for the same seed, epoch and index.

    Each is image (C, S, S) in the units of the files, valid (S, S) and label (). Each turn through the images is in another
    order, and goes on over the end of an epoch.
    """

    def __init__(
        self, pictures: Pictures, *, normalisation: Normalisation, config: SceneDataConfig, length: int, seed: int
    ) -> None:
        if not len(pictures):
            raise EmptySplit("crops need images to be cut from, got none; give some to train, or split the data otherwise")
        self.pictures, self.length, self.seed = pictures, length, seed
        self.vary = Variation(config.augment, size_px=config.size_px, bands=pictures.bands, normalisation=normalisation)
        self.labels = np.asarray(pictures.labels, dtype=np.int64)
        self._orders: dict[int, NDArray[np.int64]] = {}
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers that outlive an epoch see it change

    def set_epoch(self, epoch: int) -> None:
        """Another epoch has other crops."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.length:
            raise IndexError(f"crop {index} of {self.length}")
        epoch = int(self._epoch)
        turn, place = divmod(epoch * self.length + index, len(self.pictures))
        number = int(self._order(turn)[place])
        picture = self.pictures.read(number, keep_px=self.vary.keep_px)
        with drawn(np.random.SeedSequence([self.seed, epoch, index]).generate_state(4)):
            sample = self.vary(picture)
        return {**sample, "label": torch.tensor(self.labels[number])}

    def _order(self, turn: int) -> NDArray[np.int64]:
        if turn not in self._orders:
            latest = dict(list(self._orders.items())[-1:])  # where one turn ends within an epoch the next begins
            order = np.random.default_rng([self.seed, turn]).permutation(len(self.pictures))
            self._orders = {**latest, turn: order}
        return self._orders[turn]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_orders": {}}


class SceneViews(Dataset[Sample]):
    """What is judged of each image: image (V, C, S, S) in the units of the files, valid (V, S, S), label ().

    V is 1 for the centre; where many views are wanted it differs between images.
    """

    def __init__(self, pictures: Pictures, *, config: SceneDataConfig) -> None:
        self.pictures, self.config = pictures, config
        self.labels = np.asarray(pictures.labels, dtype=np.int64)

    @property
    def one_size(self) -> bool:
        """Whether all samples have the same number of views."""
        return self.config.views == "centre"

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        sample = views(self.pictures.read(index, keep_px=keep_px(self.config)), self.config)
        return {**sample, "label": torch.tensor(self.labels[index])}
