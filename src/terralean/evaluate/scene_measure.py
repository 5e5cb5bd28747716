"""Ask a model about every test image exactly as `terralean classify` does, and note what that took."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from rasterio.errors import NotGeoreferencedWarning

from terralean.cost.device import device_words
from terralean.cost.memory import peak_since, restart_peak
from terralean.data.sample import Sample
from terralean.data.scene_config import SceneDataConfig
from terralean.data.scene_index import SceneImage
from terralean.data.scene_picture import read_picture
from terralean.data.scene_views import keep_px, views
from terralean.evaluate import reliability
from terralean.evaluate.reliability import Reliability, of_images
from terralean.evaluate.scene_metrics import Answers, answers, joined
from terralean.mapping.images import THREADS, judge
from terralean.predict import Predictor
from terralean.spec import check_bands
from terralean.weights.card import Card

BATCH = 32  # views that are judged at once


@dataclass(frozen=True, kw_only=True)
class SceneMeasured:
    """What a model answered, and what asking it took."""

    answers: Answers
    views: int  # judged in all
    seconds: float  # from files to answers
    network_s: float  # of these, within the predictor
    device: str  # in words
    peak_bytes: int | None  # the most memory held at once, by tensors on a GPU, else by the process; None where unknown
    reliability: Reliability  # of the probabilities, an image a block

    @property
    def images_per_s(self) -> float:
        """Images answered in a second, reading them included."""
        return len(self.answers.label) / self.seconds

    @property
    def views_per_s(self) -> float:
        """Views judged in a second by the predictor alone."""
        return self.views / self.network_s


def measure_scenes(
    predictor: Predictor, images: Sequence[SceneImage], *, config: SceneDataConfig, progress: Callable[[int, int], None]
) -> SceneMeasured:
    """Judge each image by the views that the config says, the mean of their probabilities."""
    told = restart_peak(predictor.device)
    began = time.perf_counter()
    label = np.array([image.label for image in images])
    found: list[Answers] = []
    sums: list[Reliability] = []
    done = count = 0
    network_s = 0.0
    for samples in _samples(images, predictor.card, config=config):
        started = time.perf_counter()
        judged = list(judge(predictor, samples, batch=BATCH))
        network_s += time.perf_counter() - started
        probabilities, labels = np.stack([each for each, _ in judged]), label[done : done + len(judged)]
        found.append(answers(probabilities, labels))
        sums.append(of_images(probabilities, labels, temperature=predictor.card.temperature))
        count += sum(views for _, views in judged)
        done += len(judged)
        progress(done, len(images))
    return SceneMeasured(
        answers=joined(found),
        views=count,
        seconds=time.perf_counter() - began,
        network_s=network_s,
        device=device_words(predictor.device),
        peak_bytes=peak_since(predictor.device) if told else None,
        reliability=reliability.joined(sums),
    )


def _samples(images: Sequence[SceneImage], card: Card, *, config: SceneDataConfig) -> Iterator[list[Sample]]:
    """The views of the images in order, of some that are decoded at once."""
    some = max(1, BATCH // (1 if config.views == "centre" else config.most_views))
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(images), some):
            # Said here once: threads that each ignore a warning for a while undo each other's ignoring.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                samples = list(pool.map(lambda image: _look(image, card, config), images[start : start + some]))
            yield samples


def _look(image: SceneImage, card: Card, config: SceneDataConfig) -> Sample:
    picture = read_picture(image.path, config=config, keep_px=keep_px(config))
    check_bands(picture.bands, card.bands, scene=image.path)
    return views(picture, config)
