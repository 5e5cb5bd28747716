"""A trained model as Python sees it: `terralean.load(RUN)`, then `predict` arrays and `map` scenes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from terralean.errors import BandMismatch, ConfigError
from terralean.mapping.progress import Progress
from terralean.mapping.run import WINDOWS_AT_ONCE, MapConfig, MapResult, make_plan, map_scene
from terralean.mapping.scenes import SceneSource
from terralean.mapping.strips import strips
from terralean.predict import Predictor
from terralean.raster.grid import Grid, Window
from terralean.raster.scene import valid_pixels
from terralean.spec import Normalisation
from terralean.tasks import segmentation
from terralean.weights.card import Card

log = logging.getLogger(__name__)

FAR = 50  # times the spread of a band in training: no scenery does that in all bands, a division by 255 or 10,000 does
FEWEST_PX = 1000  # from which a spread says something
FOR_MAPS = (
    "confidence",
    "scores",
    "compute",
    "polygons",
    "min_area_m2",
    "min_score",
    "table",
    "stac",
    "envi",
    "aoi",
    "workers",
    "threads",
    "memory_bytes",
    "overwrite",
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prediction:
    """The answer for an array."""

    classes: NDArray[np.uint8]  # (H, W), 255 where there is no data
    probabilities: NDArray[np.float32]  # (K, H, W); they sum to one where there is data, and are 0 elsewhere


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Recognition:
    """The answer for an array that is one image, by a model of scene recognition."""

    name: str  # of the likeliest class
    label: int  # its number
    probabilities: NDArray[np.float32]  # (K,); they sum to one


class Model:
    """A trained model. Its bands, normalisation and classes come with it, in `card`."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    @property
    def card(self) -> Card:
        """What the model is: its bands, classes, training and scores."""
        return self._predictor.card

    def predict(
        self, values: NDArray[Any], *, valid: NDArray[np.bool_] | None = None, config: MapConfig | None = None
    ) -> Prediction | Recognition:
        """values (C, H, W) as scenes store them, in the order of `card.bands` -> the answer of the model's task.

        A model of pixels gives a Prediction. The array is cut and blended as a scene is, so that the answer is that of `map`
        for the same pixels. A model of scene recognition gives a Recognition of the largest square in the middle, resized to
        what the network sees; `config` means nothing to it and is refused.

        `valid` (H, W) is True where there is data; where it is left out, all but NaN and infinite values are. Raises
        BandMismatch and ConfigError.
        """
        if not isinstance(values, np.ndarray):
            raise ConfigError(f"values must be a numpy array (bands, height, width), got {type(values).__name__}; files: map")
        recognises = self.card.task == "classification"
        settings = _settings(config, recognises=recognises)
        scene = _Array.checked(values, valid, card=self.card)
        _warn_of_scale(scene, self.card.normalisation)
        return self._recognise(scene) if recognises else self._predict(scene, settings)

    def _predict(self, scene: _Array, config: MapConfig) -> Prediction:
        plan = make_plan(self.card, scene.grid, config=config)
        found = list(strips(self._predictor, scene, plan, batch=config.batch or WINDOWS_AT_ONCE))
        probabilities = np.concatenate([strip.probabilities for strip in found], axis=1)
        return Prediction(classes=segmentation.answer(probabilities, scene.valid), probabilities=probabilities * scene.valid)

    def _recognise(self, scene: _Array) -> Recognition:
        side = min(scene.grid.height, scene.grid.width)
        row, col = (scene.grid.height - side) // 2, (scene.grid.width - side) // 2
        image, known = scene.read(Window(row=row, col=col, height=side, width=side))
        if not known.any():
            raise ConfigError("values has no valid pixel in its middle square; give an image that holds data")
        batch = torch.from_numpy(image.astype(np.float32))[None], torch.from_numpy(known)[None]
        probabilities = self._predictor.recognise(*batch)[0].numpy()
        label = int(probabilities.argmax())
        return Recognition(name=self.card.classes.names[label], label=label, probabilities=probabilities)

    def map(
        self,
        scene: SceneSource | str | Path,
        *,
        out: str | Path,
        config: MapConfig | None = None,
        progress: Callable[[Progress], None] = lambda progress: None,
    ) -> MapResult:
        """Write the map of a raster of any size as `out/<scene>_map.tif`; see `terralean.mapping.run.map_scene`.

        What `terralean.mapping.scenes.find_scenes` finds in a STAC file can be given, too.
        """
        if not isinstance(scene, SceneSource | str | Path):
            raise ConfigError(f"scene must be the path of a raster, got {type(scene).__name__}; arrays: predict")
        return map_scene(self._predictor, scene, out=Path(out), config=config or MapConfig(), progress=progress)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Array:
    """An array that reads as a scene does."""

    values: NDArray[Any]  # (C, H, W)
    valid: NDArray[np.bool_]  # (H, W)

    @classmethod
    def checked(cls, values: NDArray[Any], valid: NDArray[np.bool_] | None, *, card: Card) -> _Array:
        """The array, if it is one that the model can read."""
        names = ", ".join(card.bands.names)
        if values.ndim != 3 or not values[0].size:  # noqa: PLR2004 - bands, rows, columns
            raise ConfigError(f"values must be an array (bands, height, width), got one of shape {values.shape}")
        if len(values) != len(card.bands):
            raise BandMismatch(f"values has {len(values)} bands, the model was trained on {len(card.bands)}: {names}")
        if values.dtype.kind not in "fiu":
            raise ConfigError(f"values must be numbers, got dtype {values.dtype}")
        known = valid_pixels(values, nodata=[None] * len(values))
        if valid is None:
            return cls(values=values, valid=known)
        if valid.shape != values.shape[1:] or valid.dtype != np.bool_:
            raise ConfigError(
                f"valid must be True or False for each of {values.shape[1]} x {values.shape[2]} px, "
                f"got {valid.dtype} of shape {valid.shape}"
            )
        return cls(values=values, valid=valid & known)

    @property
    def grid(self) -> Grid:
        return Grid(width=self.values.shape[2], height=self.values.shape[1], crs=None)

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """As Scene.read: 0 and not valid outside."""
        values = np.zeros((len(self.values), window.height, window.width), self.values.dtype)
        valid = np.zeros((window.height, window.width), np.bool_)
        inside = window.cut(self.grid.window)
        to, source = inside.slices(origin=window), inside.slices()
        valid[to] = self.valid[source]
        values[:, *to] = np.where(self.valid[source], self.values[:, *source], 0)
        return values, valid


def _settings(config: MapConfig | None, *, recognises: bool) -> MapConfig:
    if recognises and config is not None:
        raise ConfigError("an array is recognised as one image, which config cannot change; to cut a scene into cells use map")
    config = MapConfig() if config is None else config
    if not isinstance(config, MapConfig):
        raise ConfigError(f"config must be a terralean.mapping.run.MapConfig, got {type(config).__name__}")
    if config.bands is not None:
        raise ConfigError("bands are for scenes; give predict an array of the model's bands in their order: values[[3, 2, 1]]")
    usual = MapConfig()
    others = [name for name in FOR_MAPS if getattr(config, name) != getattr(usual, name)]
    if others:
        raise ConfigError(f"{others[0]} is for maps; predict writes nothing")
    return config


def _warn_of_scale(scene: _Array, normalisation: Normalisation) -> None:
    """Tell the user where values spread so differently from those of training that they must have been scaled."""
    if scene.valid.sum() < FEWEST_PX:
        return
    times = scene.values[:, scene.valid].std(axis=1, dtype=np.float64) / normalisation.std
    if (times < 1 / FAR).all() or (times > FAR).all():
        log.warning(
            "the values spread %.2g times as far as in training; give them as the scenes store them, not scaled",
            np.median(times),
        )
