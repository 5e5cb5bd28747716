"""What each task brings to a training run: its data, its network's loss and scores, and how the model will be used."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
from torch import nn

from terralean.train.config import Experiment
from terralean.train.course import MIOU, TOP, Course, Score
from terralean.train.material import Material, from_datasets, from_folder
from terralean.train.module import SegmentationModule
from terralean.train.scene_config import SceneExperiment
from terralean.train.scene_material import from_pictures, from_scenes
from terralean.train.scene_module import SceneModule

AnyExperiment = Experiment | SceneExperiment


@dataclass(frozen=True, kw_only=True, slots=True)
class Use:
    """How scenes are cut for the model; in px of a scene but for the last."""

    tile_px: int
    overlap_px: int
    seen_px: int  # side of a tile as the network sees it
    resized: bool = False  # whether tiles are resized to that side, whatever they are


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """What a task brings."""

    score: Score
    gather: Callable[[Any, Path], Material]  # from a folder
    gather_samples: Callable[[Any, Any, Any], Material]  # from datasets that train and validate
    course: Callable[[Any, Material], Course]
    module: Callable[[Any, Material, Course, nn.Module], lightning.LightningModule]
    use: Callable[[Any, Material], Use]


def _pixels(experiment: Experiment, material: Material, course: Course, model: nn.Module) -> SegmentationModule:
    return SegmentationModule(
        model,
        experiment.training,
        normalisation=material.normalisation,
        shrink=experiment.model.shrink,
        class_pixels=material.class_counts,
        seed=experiment.seed,
    )


def _images(experiment: SceneExperiment, material: Material, course: Course, model: nn.Module) -> SceneModule:
    return SceneModule(
        model,
        experiment.train,
        course,
        normalisation=material.normalisation,
        classes=len(material.classes),
        seed=experiment.seed,
    )


def _use_on_pixels(experiment: Experiment, material: Material) -> Use:
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


KINDS: dict[str, Kind] = {
    "segmentation": Kind(
        score=MIOU,
        gather=from_folder,
        gather_samples=from_datasets,
        course=lambda experiment, material: experiment.training,
        module=_pixels,
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
}
