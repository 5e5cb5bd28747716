"""A split as label maps give it, checked against each other and against the full map."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from terralean.data.spectral.config import SpectralDataConfig
from terralean.data.spectral.deals import Dealt, draw
from terralean.data.spectral.pixels import Pixels, labelled
from terralean.data.spectral.scenes import SpectralDataset, folder_of
from terralean.errors import DatasetError, LabelError
from terralean.spec import IGNORE


def given_maps(dataset: SpectralDataset, config: SpectralDataConfig, there: Pixels, *, seed: int) -> Dealt:
    """As label maps have it, checked against each other and against the full map."""
    if len(dataset.scenes) > 1:
        raise DatasetError("data.split.method=maps is for one scene; name it with --set data.cube=FILE")
    root = folder_of(dataset.root)
    named = {"train": config.train_labels, "validation": config.validation_labels, "test": config.test_labels}
    maps = {name: dataset.map_of(str(root / path), scene=0) for name, path in named.items() if path is not None}
    _check_maps(maps, named, dataset, there if config.labels is not None else None)
    valid = _mask(there, maps["train"].shape) if config.labels is None else np.ones(maps["train"].shape, bool)
    parts = {name: labelled(np.where(valid, values, IGNORE), scene=0, none=IGNORE) for name, values in maps.items()}
    train, validation, rng = parts["train"], parts.get("validation"), np.random.default_rng(seed)
    taken = ""
    if validation is None:
        counts = train.counts(len(dataset.classes))
        held = np.minimum(np.round(counts * config.split.validation / (1 + config.split.validation) * 0.5), counts - 1)
        chosen = draw(train, np.maximum(held, 0).astype(np.int64), rng)
        train, validation = train.take(~chosen), train.take(chosen)
        taken = f", validation taken from these at random (seed {seed})"
    rule = f"train as {config.train_labels}{taken}, test as {config.test_labels}"
    return Dealt(train=train, validation=validation, test=parts["test"], rule=rule)


def _mask(pixels: Pixels, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    found = np.zeros(shape, bool)
    found[pixels.row, pixels.col] = True
    return found


def _check_maps(
    maps: Mapping[str, NDArray[np.uint8]], named: Mapping[str, str | None], dataset: SpectralDataset, full: Pixels | None
) -> None:
    names = [*maps]
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            both = int(((maps[one] != IGNORE) & (maps[other] != IGNORE)).sum())
            if both:
                raise LabelError(f"{named[one]} and {named[other]} both label {both} pixels; a pixel is of one part only")
    taught = np.bincount(maps["train"][maps["train"] != IGNORE], minlength=len(dataset.classes))
    asked = np.bincount(maps["test"][maps["test"] != IGNORE], minlength=len(dataset.classes))
    if not (taught[asked > 0] > 0).all():
        lost = [dataset.classes.names[i] for i in np.flatnonzero((asked > 0) & (taught == 0))]
        raise LabelError(
            f"{named['test']} has the classes {', '.join(lost)}, which {named['train']} lacks: the maps number classes "
            "differently, or are not of one split; renumber them alike"
        )
    if full is None:
        return
    whole = np.full(maps["train"].shape, IGNORE, np.uint8)
    whole[full.row, full.col] = full.label
    for name, values in maps.items():
        wrong = int(((values != IGNORE) & (values != whole)).sum())
        if wrong:
            raise LabelError(
                f"{named[name]}: {wrong} of {int((values != IGNORE).sum())} pixels are of another class, or of none, in the "
                "full label map (data.labels): another numbering of classes or another version of the map; renumber it, or "
                "leave data.labels out"
            )
