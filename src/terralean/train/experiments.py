"""The kinds of experiment, by the task that a recipe names."""

from __future__ import annotations

from terralean.train.config import Experiment
from terralean.train.scene_config import SceneExperiment

AnyExperiment = Experiment | SceneExperiment

EXPERIMENTS: dict[str, type[Experiment] | type[SceneExperiment]] = {
    "segmentation": Experiment,
    "classification": SceneExperiment,
}
