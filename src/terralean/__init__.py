"""Terralean: from overhead imagery to maps, with vision transformers whose cost follows the content of the scene."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from terralean.mapping.model import Model
    from terralean.predict.predictor import Precision

__version__ = "0.1.0"


def load(run: str | Path, *, device: str | None = None, precision: Precision | None = None) -> Model:
    """The model of a training run or of a folder that was exported, to `predict` arrays and `map` scenes.

    `device` None: CUDA where there is one, else the CPU. `precision` None: fp32, or what was exported.

    Raises RunError where the folder holds no finished run, ConfigError where the device is not there.
    """
    from terralean import predict  # noqa: PLC0415 - torch is loaded when a model is, so that the import stays quick
    from terralean.mapping.model import Model  # noqa: PLC0415

    return Model(predict.load(run, device=device, precision=precision))
