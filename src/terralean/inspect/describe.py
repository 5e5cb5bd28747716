"""One answer for any path: what it is, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

from terralean.data.change_index import holds_pairs
from terralean.data.config import DataConfig
from terralean.data.oriented.config import DetectionDataConfig
from terralean.data.scene_config import SceneDataConfig
from terralean.data.spectral.config import SpectralDataConfig
from terralean.data.spectral.scenes import holds_cubes
from terralean.errors import MissingFile, RunError
from terralean.inspect.cubes import CubesReport, describe_cubes
from terralean.inspect.dataset import DatasetReport, describe_dataset
from terralean.inspect.labelled import LabelledReport, describe_labelled, holds_labelled_images
from terralean.inspect.library import LibraryReport, describe_library
from terralean.inspect.objects import ObjectsReport, describe_objects, holds_objects
from terralean.inspect.pairs import describe_pair, describe_pairs
from terralean.inspect.quiet import quiet
from terralean.inspect.run import RunReport, describe_run, is_run
from terralean.inspect.scene import SceneReport, describe_scene
from terralean.raster.pair import find_pair
from terralean.raster.source import check_there, named_part
from terralean.raster.spectral_library import is_library
from terralean.weights.card import seed_folders

Config = DataConfig | SceneDataConfig | DetectionDataConfig | SpectralDataConfig
Report = SceneReport | DatasetReport | LabelledReport | CubesReport | LibraryReport | ObjectsReport | RunReport


def reads_as(path: str) -> type[Config]:
    """What says how a path is read: for images with a class each or with objects, and for cubes, other configs than for all
    else.
    """
    if holds_objects(path):
        return DetectionDataConfig
    if holds_labelled_images(path) and not holds_pairs(Path(path)):
        return SceneDataConfig
    with quiet():
        return SpectralDataConfig if holds_cubes(Path(path)) else DataConfig


def describe(path: str, *, config: Config | None = None, seed: int = 0) -> Report:
    """A run has a card (or a recipe and a split); any other folder is a dataset; a file is a scene, or a
    spectral library.

    A folder holds images with a class each, with a class for each pixel, or with oriented objects, or cubes with labels, as
    its layout tells; a config of a kind says it for certain. A scene file is a dataset where the config names its labels.
    Raises MissingFile, RunError for a folder of several runs, and UnreadableScene for a file that is no image; all else that is
    wrong is a finding.
    """
    place = Path(path)
    settings = reads_as(path)() if config is None else config
    if place.is_dir():
        if runs := [folder for folder in seed_folders(place).values() if is_run(folder)]:
            raise RunError(f"{path} holds {len(runs)} runs that differ in their seed; name one of them, e.g. {runs[0]}")
        if is_run(place):
            return describe_run(place)
        return _folder(place, settings, seed=seed)
    if not (is_pair := find_pair(path) is not None):
        check_there(path, expected="a scene, a folder of images and labels, a pair BEFORE:AFTER, or a run")
    if isinstance(settings, DataConfig) and settings.labels is not None:
        if not Path(named_part(path)[0]).is_file():
            raise MissingFile(f"{path} is no local file; a dataset with data.labels needs one")
        return describe_dataset(place, settings, seed=seed)
    if is_library(path):
        return describe_library(path)
    return describe_pair(path, bands=settings.bands) if is_pair else describe_scene(path, bands=settings.bands)


def _folder(place: Path, settings: Config, *, seed: int) -> Report:
    """A dataset."""
    if isinstance(settings, DetectionDataConfig):
        return describe_objects(place, settings)
    if isinstance(settings, SceneDataConfig):
        return describe_labelled(place, settings, seed=seed)
    if isinstance(settings, SpectralDataConfig):
        return describe_cubes(place, settings, seed=seed)
    describes = describe_pairs if holds_pairs(place) else describe_dataset
    return describes(place, settings, seed=seed)
