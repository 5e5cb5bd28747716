"""What labelled images a folder holds, where each image as a whole has a class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from terralean.data.config import SplitName
from terralean.data.scene_config import SceneDataConfig
from terralean.spec import Bands, Classes


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneImage:
    """An image and its class."""

    path: str
    label: int  # position in the classes
    split: SplitName | None = None  # where index, list or folder say it
    group: str | None = None  # what must stay on one side of a split


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneDataset:
    """Images with a class each that make one dataset."""

    root: str
    layout: str  # what was found, in words
    images: tuple[SceneImage, ...]
    classes: Classes
    bands: Bands


def find_scenes(root: Path, config: SceneDataConfig, *, classes: Classes | None = None) -> SceneDataset:
    """The images of a folder and their classes. Raises DatasetError, saying what is there and what is understood.

    With `classes`, a trained model's, labels are found in these by name, and one that has no image is no mistake.
    """
    raise NotImplementedError
