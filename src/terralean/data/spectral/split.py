"""Labelled pixels dealt to training, validation and test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from terralean.data.spectral.config import SpectralDataConfig, SpectralSplitConfig
from terralean.data.spectral.deals import Dealt, Task, random_pixels, squares, wanted, whole_scenes
from terralean.data.spectral.given_maps import given_maps
from terralean.data.spectral.parts import PixelSplit
from terralean.data.spectral.pixels import Pixels, joined, labelled
from terralean.data.spectral.places import nearest_px, origins, places
from terralean.data.spectral.scenes import SpectralDataset, folder_of
from terralean.data.words import listed
from terralean.errors import EmptySplit
from terralean.spec import IGNORE


def deal_pixels(dataset: SpectralDataset, config: SpectralDataConfig, there: Pixels, *, seed: int) -> PixelSplit:
    """Deal the labelled pixels that hold data; of label maps, those of `there` that the maps name.

    The same seed and labels give the same deal. Raises EmptySplit where nothing is left to train or to test on.
    """
    split = config.split
    seed = seed if split.seed is None else split.seed
    origin = origins([scene.grid for scene in dataset.scenes])
    classes = dataset.classes.names
    ways = {"block": squares, "random": random_pixels, "scene": whole_scenes}
    if split.method == "maps":
        found = given_maps(dataset, config, there, seed=seed)
    else:
        found = ways[split.method](Task(dataset=dataset, split=split, pixels=there, origin=origin, seed=seed))
    kept, dropped = found.test, np.zeros(len(classes), np.int64)
    if split.method in ("block", "scene"):
        near = nearest_px(places(found.test, origin), places(found.train, origin)) <= split.reach_px
        kept, dropped = found.test.take(~near), found.test.take(near).counts(len(classes))
    _check_parts(found.train, kept, dataset, split)
    return PixelSplit(
        root=dataset.root,
        images=tuple(scene.image for scene in dataset.scenes),
        origin=origin,
        method=split.method,
        seed=seed,
        window_px=split.window_px,
        train=found.train,
        validation=found.validation,
        test=kept,
        dropped=tuple(dropped.tolist()),
        rule=f"{found.rule}; {_counted(found, kept)}{_dropped(split, dropped, classes)}",
        notes=(*found.notes, *_short(found, there, dataset, split), *_absent(found, kept, classes)),
    )


def known_pixels(dataset: SpectralDataset, config: SpectralDataConfig) -> Pixels:
    """All labelled pixels; of label maps alone, those that any of them names."""
    if config.split.method != "maps" or config.labels is not None:
        return all_pixels(dataset)
    root = folder_of(dataset.root)
    paths = [path for path in (config.train_labels, config.validation_labels, config.test_labels) if path is not None]
    maps = np.stack([dataset.map_of(str(root / path), scene=0) for path in paths])
    return labelled(maps.min(axis=0), scene=0, none=IGNORE)


def all_pixels(dataset: SpectralDataset) -> Pixels:
    """Every labelled pixel of the dataset, whether it holds data or not."""
    found = [
        labelled(dataset.map_of(scene.labels, scene=index), scene=index, none=IGNORE)
        for index, scene in enumerate(dataset.scenes)
        if scene.labels is not None
    ]
    pixels = joined(found)
    if not len(pixels):
        files = listed([scene.labels for scene in dataset.scenes if scene.labels is not None])
        raise EmptySplit(f"{dataset.root}: no label of {files} lies in its cube; give labels of the same ground")
    return pixels


def _check_parts(train: Pixels, test: Pixels, dataset: SpectralDataset, split: SpectralSplitConfig) -> None:
    if len(np.unique(train.label)) < 2:  # noqa: PLR2004 - nothing to tell apart
        found = ", ".join(dataset.classes.names[i] for i in np.unique(train.label)) or "none"
        raise EmptySplit(f"{dataset.root}: training pixels of two classes at least are needed, got {found}; label more")
    if not len(test):
        raise EmptySplit(
            f"{dataset.root}: no test pixel is more than {split.reach_px} px from training pixels; the labelled area is too "
            f"small for windows of {split.window_px} px: lower data.split.window_px (and the model's), or say "
            "data.split.method=random, which leaks"
        )


def _counted(found: Dealt, test: Pixels) -> str:
    return f"{len(found.train)} px train, {len(found.validation)} validate, {len(test)} test"


def _dropped(split: SpectralSplitConfig, dropped: NDArray[np.int64], classes: Sequence[str]) -> str:
    if split.method not in ("block", "scene"):
        return ""
    rule = "no training pixel in a test window" if split.distance == "centre" else "no window shared"
    each = ", ".join(f"{name} {count}" for name, count in zip(classes, dropped, strict=True) if count)
    told = f" ({each})" if each else ""
    return f"; test pixels within {split.reach_px} px of a training pixel left out ({rule}): {int(dropped.sum())}{told}"


def _short(found: Dealt, there: Pixels, dataset: SpectralDataset, split: SpectralSplitConfig) -> list[str]:
    """Classes with fewer training pixels than asked for."""
    if split.method != "block":
        return []
    names = dataset.classes.names
    asked, drawn = wanted(there.counts(len(names)), split), found.train.counts(len(names))
    lost = [f"{name} ({got} of {need})" for name, got, need in zip(names, drawn, asked, strict=True) if 0 < got < need]
    return [f"the squares for training hold fewer pixels than asked for of {', '.join(lost)}"] if lost else []


def _absent(found: Dealt, test: Pixels, classes: Sequence[str]) -> list[str]:
    """Classes that a part lacks."""
    notes = []
    for words, part in (("training", found.train), ("validation", found.validation), ("test", test)):
        counts = part.counts(len(classes))
        if len(part) and (lost := [name for name, count in zip(classes, counts, strict=True) if not count]):
            notes.append(f"no {words} pixel of {', '.join(lost)}")
    return notes
