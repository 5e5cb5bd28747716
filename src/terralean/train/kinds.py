"""What each task brings to a training run: its data, its network's loss and scores, and how the model will be used."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
from torch import nn

from terralean.errors import ConfigError
from terralean.train.change_config import ChangeExperiment
from terralean.train.change_material import from_pair_datasets, from_pairs
from terralean.train.change_module import ChangeModule
from terralean.train.config import Experiment
from terralean.train.course import CHANGE, MAP50, MIOU, SURE, TOP, Course, Score
from terralean.train.detection_config import DetectionExperiment
from terralean.train.detection_material import from_object_datasets, from_objects
from terralean.train.detection_module import DetectionModule
from terralean.train.material import Material, from_datasets, from_folder
from terralean.train.module import SegmentationModule
from terralean.train.scene_config import SceneExperiment
from terralean.train.scene_material import from_pictures, from_scenes
from terralean.train.scene_module import SceneModule, check_size
from terralean.train.spectral_config import SpectralExperiment
from terralean.train.spectral_material import from_cubes, from_no_samples
from terralean.train.spectral_module import SpectralModule

AnyExperiment = Experiment | DetectionExperiment | SceneExperiment | SpectralExperiment | ChangeExperiment


@dataclass(frozen=True, kw_only=True, slots=True)
class Use:
    """How scenes are cut for the model; in px of a scene but for the last."""

    tile_px: int
    overlap_px: int
    seen_px: int  # side of a tile as the network sees it
    resized: bool = False  # whether tiles are resized to that side, whatever they are
    in_patches: bool = False  # whether the network sees a patch of that side around each pixel of a tile


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """What a task brings."""

    score: Score
    gather: Callable[[Any, Path], Material]  # from a folder
    gather_samples: Callable[[Any, Any, Any], Material]  # from datasets that train and validate
    course: Callable[[Any, Material], Course]
    module: Callable[[Any, Material, Course, nn.Module], lightning.LightningModule]
    use: Callable[[Any, Material], Use]
    not_calibrated: str = ""  # why its scores have no temperature; nothing where they have one


def _pixels(experiment: Experiment, material: Material, course: Course, model: nn.Module) -> SegmentationModule:
    return SegmentationModule(
        model,
        experiment.training,
        normalisation=material.normalisation,
        shrink=experiment.model.shrink,
        class_pixels=material.class_counts,
        seed=experiment.seed,
    )


def _pairs(experiment: ChangeExperiment, material: Material, course: Course, model: nn.Module) -> ChangeModule:
    return ChangeModule(
        model,
        experiment.training,
        normalisation=material.normalisation,
        shrink=experiment.model.shrink,
        class_pixels=material.class_counts,
        seed=experiment.seed,
    )


def _images(experiment: SceneExperiment, material: Material, course: Course, model: nn.Module) -> SceneModule:
    batch = experiment.train.batch // experiment.train.accumulate
    check_size(model, bands=len(material.bands), size_px=experiment.data.size_px, batch=batch)
    return SceneModule(
        model,
        experiment.train,
        course,
        normalisation=material.normalisation,
        classes=len(material.classes),
        seed=experiment.seed,
    )


def _cubes(experiment: SpectralExperiment, material: Material, course: Course, model: nn.Module) -> SpectralModule:
    return SpectralModule(
        model,
        experiment.training,
        normalisation=material.normalisation,
        classes=len(material.classes),
        seed=experiment.seed,
    )


def _objects(experiment: DetectionExperiment, material: Material, course: Course, model: nn.Module) -> DetectionModule:
    return DetectionModule(
        model,
        course,
        normalisation=material.normalisation,
        classes=len(material.classes),
        freeze_norms=experiment.train.freeze_norms,
        seed=experiment.seed,
    )


def _use_on_objects(experiment: DetectionExperiment, material: Material) -> Use:
    side, overlap_px = experiment.data.tile_px, experiment.data.overlap_px
    return Use(tile_px=side, overlap_px=min(overlap_px, side // 2), seen_px=side)


def _use_on_pixels(experiment: Experiment | ChangeExperiment, material: Material) -> Use:
    tiling = experiment.tiling
    return Use(
        tile_px=tiling.tile_px,
        overlap_px=tiling.overlap_px,
        seen_px=math.ceil(tiling.tile_px / experiment.model.shrink),
    )


def _use_on_images(experiment: SceneExperiment, material: Material) -> Use:
    view_px = experiment.grid.view_px or material.side_px
    return Use(
        tile_px=view_px,
        overlap_px=view_px - min(experiment.grid.cell_px or view_px, view_px),
        seen_px=experiment.data.size_px,
        resized=True,
    )


def _use_on_cubes(experiment: SpectralExperiment, material: Material) -> Use:
    tiling, needed = experiment.tiling, material.side_px - 1
    overlap_px = needed if tiling.overlap_px is None else tiling.overlap_px
    if overlap_px < needed or tiling.tile_px < 2 * overlap_px:
        raise ConfigError(
            f"tiling.tile_px {tiling.tile_px} and tiling.overlap_px {overlap_px} do not do for patches of {material.side_px} "
            f"px: tiles share {needed} px at least, and are twice as wide as what they share"
        )
    return Use(tile_px=tiling.tile_px, overlap_px=overlap_px, seen_px=material.side_px, in_patches=True)


KINDS: dict[str, Kind] = {
    "segmentation": Kind(
        score=MIOU,
        gather=from_folder,
        gather_samples=from_datasets,
        course=lambda experiment, material: experiment.training,
        module=_pixels,
        use=_use_on_pixels,
    ),
    "change": Kind(
        score=CHANGE,
        gather=from_pairs,
        gather_samples=from_pair_datasets,
        course=lambda experiment, material: experiment.training,
        module=_pairs,
        use=_use_on_pixels,
    ),
    "classification": Kind(
        score=TOP,
        gather=from_scenes,
        gather_samples=from_pictures,
        course=lambda experiment, material: experiment.train.course(images=material.images),
        module=_images,
        use=_use_on_images,
    ),
    "spectral": Kind(
        score=SURE,
        gather=from_cubes,
        gather_samples=from_no_samples,
        course=lambda experiment, material: experiment.training,
        module=_cubes,
        use=_use_on_cubes,
    ),
    "detection": Kind(
        score=MAP50,
        gather=from_objects,
        gather_samples=from_object_datasets,
        course=lambda experiment, material: experiment.train.course(tiles=material.tiles),
        module=_objects,
        use=_use_on_objects,
        not_calibrated="the scores of detections are taken as the network gives them",
    ),
}
