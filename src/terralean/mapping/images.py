"""Image files to a table of their classes, each image seen as it would be judged in training."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from terralean.data.index import is_raster
from terralean.data.sample import Sample
from terralean.data.scene_config import SceneDataConfig
from terralean.data.scene_picture import read_picture
from terralean.data.scene_views import keep_px, views
from terralean.data.words import listed
from terralean.errors import BandMismatch, ConfigError, DatasetError, MissingFile, SizeError, TerraleanError, UnreadableScene
from terralean.predict import Predictor
from terralean.raster.source import check_there
from terralean.raster.whole import whole
from terralean.spec import check_band_values, check_bands
from terralean.weights.card import Card

THREADS = 8  # at most, that decode images


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifyConfig:
    """How images are read and what is told of them."""

    top: int = 5  # classes told of an image, the likeliest first
    batch: int = 32  # views recognised at once
    bands: tuple[int, ...] | None = None  # positions from 1 of the model's bands in the images; None: as in training
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name, what in (("top", "class"), ("batch", "view")):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1 {what}, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Likely:
    """A class, and how likely it is."""

    name: str
    probability: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageResult:
    """What an image was taken for."""

    path: str
    likeliest: tuple[Likely, ...]  # the first is the image's class
    views: int  # that were judged; probabilities are means over them


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifyResult:
    """What came of all images."""

    images: tuple[ImageResult, ...]
    failed: dict[str, str]  # by path what was wrong
    table: str | None  # where it was written


def classify(
    predictor: Predictor,
    paths: Sequence[str | Path],
    *,
    config: ClassifyConfig,
    data: SceneDataConfig | None = None,
    out: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ClassifyResult:
    """The classes of images and of those in folders, at any depth; with `out` as a CSV table, too.

    `data` is how the run read its images; None: one view, the centre, as is usual. An image that cannot be read or used is
    told in `failed`, unless it is the only one, or all of them have other bands than the model: then its error is raised.
    """
    card = predictor.card
    if card.task != "classification":
        raise ConfigError(f"{card.model} was trained for {card.task}, it tells no class of a whole image; use terralean map")
    how, found = _reading(card, config, data), find_images(paths)
    failed: dict[str, TerraleanError] = {}
    results = []
    with _table(out, top=min(config.top, len(card.classes)), overwrite=config.overwrite) as write:
        for path, result in _results(predictor, found, how, config):
            if isinstance(result, TerraleanError):
                failed[path] = result
            else:
                results.append(result)
                write(result)
            progress(len(results) + len(failed), len(found))
        if failed and not results and (len(found) == 1 or all(isinstance(error, BandMismatch) for error in failed.values())):
            raise next(iter(failed.values()))
    told = {path: str(error) for path, error in failed.items()}
    return ClassifyResult(images=tuple(results), failed=told, table=None if out is None else str(out))


def find_images(paths: Sequence[str | Path]) -> list[str]:
    """Files as they are given and the images in folders, each once. Raises DatasetError for a folder without an image."""
    found: list[str] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(str(path))
            continue
        images = sorted(str(file) for file in path.rglob("*") if is_raster(file) and not _hidden(file.relative_to(path)))
        if not images:
            names = sorted(child.name for child in path.iterdir())
            raise DatasetError(f"{path} holds no image, but {listed(names) or 'nothing'}; give images, or folders of them")
        found += images
    return list(dict.fromkeys(found))


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


@contextmanager
def _table(path: Path | None, *, top: int, overwrite: bool) -> Iterator[Callable[[ImageResult], object]]:
    """What writes a line for each image: its path, class and confidence, then the next classes with theirs."""
    if path is None:
        yield lambda result: None
        return
    columns = ["path", "class", "confidence", *(f"{what}_{i}" for i in range(2, top + 1) for what in ("class", "confidence"))]
    with (
        whole(path.parent, [path.name], overwrite=overwrite) as folder,
        (folder / path.name).open("w", encoding="utf-8", newline="") as file,
    ):
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(columns)
        yield lambda result: lines.writerow(
            [result.path, *(cell for one in result.likeliest for cell in (one.name, f"{one.probability:.4f}"))]
        )


def _reading(card: Card, config: ClassifyConfig, data: SceneDataConfig | None) -> SceneDataConfig:
    """How images are read and seen."""
    if data is None:
        usual = SceneDataConfig()
        side = card.seen_px or usual.size_px
        data = replace(usual, size_px=side, resize_px=round(side * usual.resize_px / usual.size_px))
    return data if config.bands is None else replace(data, bands=config.bands)


def _results(
    predictor: Predictor, paths: Sequence[str], how: SceneDataConfig, config: ClassifyConfig
) -> Iterator[tuple[str, ImageResult | TerraleanError]]:
    """Each path with what came of it, in order. Some images are decoded at once, so many that their views make a batch."""
    some = max(1, config.batch // (1 if how.views == "centre" else how.most_views))
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(paths), some):
            part = paths[start : start + some]
            looks = list(pool.map(lambda path: _look(path, predictor.card, how, chosen=config.bands is not None), part))
            samples = [look for look in looks if not isinstance(look, TerraleanError)]
            judged = iter(judge(predictor, samples, batch=config.batch))
            for path, look in zip(part, looks, strict=True):
                yield path, look if isinstance(look, TerraleanError) else _result(path, *next(judged), predictor.card, config)


def _look(path: str, card: Card, how: SceneDataConfig, *, chosen: bool) -> Sample | TerraleanError:
    """The views of an image, or why there are none."""
    try:
        check_there(path, expected="an image or a folder of images")
        if not Path(path).is_file():
            raise MissingFile(f"{path} is no file on this machine; download it, or map it as a scene")
        picture = read_picture(path, config=how, keep_px=keep_px(how))
        (check_band_values if chosen else check_bands)(picture.bands, card.bands, scene=path)
        if min(picture.valid.shape) < how.least_px:
            height, width = picture.valid.shape
            raise SizeError(
                f"{path} is {width} x {height} px (width, height); the model was trained on images of {how.least_px} px or "
                "more along both (data.least_px)"
            )
        if not picture.valid.any():
            raise UnreadableScene(f"{path} has no valid pixel: all are nodata, masked or transparent; expected an image")
        return views(picture, how)
    except TerraleanError as error:
        return error


def judge(predictor: Predictor, samples: Sequence[Sample], *, batch: int) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Of each image its probabilities (K,), means over its views, and the number of these."""
    if not samples:
        return
    images, valid = (torch.cat([sample[key] for sample in samples]) for key in ("image", "valid"))
    parts = [predictor.recognise(images[i : i + batch], valid[i : i + batch]) for i in range(0, len(images), batch)]
    counts = [len(sample["image"]) for sample in samples]
    for probabilities, count in zip(torch.cat(parts).split(counts), counts, strict=True):
        yield probabilities.mean(dim=0).numpy(), count


def _result(path: str, probabilities: NDArray[np.float32], count: int, card: Card, config: ClassifyConfig) -> ImageResult:
    order = np.argsort(-probabilities, kind="stable")[: config.top].tolist()
    likeliest = tuple(Likely(name=card.classes.names[i], probability=round(float(probabilities[i]), 6)) for i in order)
    return ImageResult(path=path, likeliest=likeliest, views=count)
