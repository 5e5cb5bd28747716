"""Training crops of labelled images, and the fixed views by which each of them is judged."""

from __future__ import annotations

from torch.utils.data import Dataset

from terralean.data.sample import Sample
from terralean.data.scene_config import SceneDataConfig
from terralean.data.scene_reading import Pictures
from terralean.spec import Normalisation


class SceneCrops(Dataset[Sample]):
    """Random crops of images in turn, varied, as many as asked for: the same for the same seed, epoch and index.

    Each is image (C, S, S) in the units of the files, valid (S, S) and label (). Each turn through the images is in another
    order, and goes on over the end of an epoch.
    """

    def __init__(
        self, pictures: Pictures, *, normalisation: Normalisation, config: SceneDataConfig, length: int, seed: int
    ) -> None:
        raise NotImplementedError

    def set_epoch(self, epoch: int) -> None:
        """Another epoch has other crops."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Sample:
        raise NotImplementedError


class SceneViews(Dataset[Sample]):
    """What is judged of each image: image (V, C, S, S) in the units of the files, valid (V, S, S), label ().

    V is 1 for the centre; where many views are wanted it differs between images.
    """

    def __init__(self, pictures: Pictures, *, config: SceneDataConfig) -> None:
        raise NotImplementedError

    @property
    def one_size(self) -> bool:
        """Whether all samples have the same number of views."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Sample:
        raise NotImplementedError
