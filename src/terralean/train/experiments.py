"""The kinds of experiment, by the task that a recipe names."""

from __future__ import annotations

from terralean.train.change_config import ChangeExperiment
from terralean.train.config import Experiment
from terralean.train.detection_config import DetectionExperiment
from terralean.train.scene_config import SceneExperiment
from terralean.train.spectral_config import SpectralExperiment

AnyExperiment = Experiment | DetectionExperiment | SceneExperiment | SpectralExperiment | ChangeExperiment

EXPERIMENTS: dict[
    str,
    type[Experiment] | type[DetectionExperiment] | type[SceneExperiment] | type[SpectralExperiment] | type[ChangeExperiment],
] = {
    "segmentation": Experiment,
    "classification": SceneExperiment,
    "change": ChangeExperiment,
    "spectral": SpectralExperiment,
    "detection": DetectionExperiment,
}
