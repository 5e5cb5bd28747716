"""Which images train a model and which ones judge it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from terralean.data.config import SplitName
from terralean.data.scene_config import SceneDataConfig, SceneSplitRule
from terralean.data.scene_index import SceneDataset, SceneImage


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneSplit:
    """Images, each in one split."""

    root: str
    images: tuple[SceneImage, ...]
    classes: tuple[str, ...]
    rule: str  # how it was made: a sentence
    method: SceneSplitRule
    seed: int

    def of(self, name: SplitName) -> tuple[SceneImage, ...]:
        """The images of one split."""
        return tuple(image for image in self.images if image.split == name)


def deal_scenes(dataset: SceneDataset, config: SceneDataConfig, *, seed: int) -> SceneSplit:
    """Deal the images to train, validation and test. Raises EmptySplit where one comes out empty.

    `seed` is the run's; a seed in the config goes before it.
    """
    raise NotImplementedError


def save_scene_split(split: SceneSplit, path: Path) -> None:
    """Write split.json; images under the data root are named relative to it."""
    raise NotImplementedError


def load_scene_split(path: Path, *, root: Path | None = None) -> SceneSplit:
    """Read split.json; `root` where the data have moved."""
    raise NotImplementedError
