"""What a change detector learns from: crops of pairs, what it is validated on, and all that the card will say of them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from terralean.data.change_index import find_pairs
from terralean.data.change_samples import PairCrops, shared
from terralean.data.crops import Crops, Tiles
from terralean.data.leakage import check_leakage
from terralean.data.samples import SampleCrops, Samples
from terralean.data.split import make_split, save_split
from terralean.data.statistics import check_learnable, measure
from terralean.spec import Bands, Normalisation
from terralean.train.change_config import ChangeExperiment
from terralean.train.material import Material, fingerprint, from_datasets, judging

DATES = 2


def from_pairs(experiment: ChangeExperiment, root: Path) -> Material:
    """Find, split, check and measure a folder of pairs and masks."""
    config, pairs, seed = experiment.data, experiment.pairs, experiment.seed
    dataset = find_pairs(root, config, pairs)
    split = make_split(dataset, config, seed=seed)
    train, validation = split.of("train"), judging(split, config, classes=dataset.classes)
    classes, coding = dataset.classes, dataset.coding
    statistics = measure(train, classes=classes, coding=coding, bands=dataset.bands, config=config, seed=seed)
    check_learnable(statistics, split, classes=classes, config=config)
    measured = _of_dates(statistics.normalisation, experiment)
    crops = Crops(
        train,
        classes=classes,
        coding=coding,
        config=config,
        statistics=replace(statistics, normalisation=measured),
        length=_length(experiment),
        seed=seed,
    )
    return Material(
        bands=dataset.bands,
        classes=classes,
        normalisation=_as_seen(measured, experiment),
        class_counts=statistics.class_pixels,
        crops=PairCrops(crops, swap=pairs.swap),
        training=Tiles(train, classes=classes, coding=coding, config=config),
        validation=Tiles(validation, classes=classes, coding=coding, config=config) if validation else None,
        one_size=True,
        images=len({region.image for region in train}),
        split=split.rule,
        leakage=check_leakage(split).verdict,
        fingerprint=fingerprint(train),
        save_split=partial(save_split, split),
    )


def from_pair_datasets(experiment: ChangeExperiment, train: Samples, validation: Samples | None) -> Material:
    """Measure datasets that yield dictionaries, made ready by `data.change_samples.from_pair_samples`."""
    material = from_datasets(cast("Any", experiment), train, validation)
    measured = _of_dates(material.normalisation, experiment)
    crops = SampleCrops(train, normalisation=measured, config=experiment.data, length=_length(experiment), seed=experiment.seed)
    return replace(
        material,
        crops=PairCrops(crops, swap=experiment.pairs.swap),
        normalisation=_as_seen(measured, experiment),
    )


def bands_of_one(bands: Bands) -> Bands:
    """The bands that a backbone sees, of those of a pair."""
    one = bands.choose(range(len(bands) // DATES))
    return replace(one, names=tuple(name.removesuffix(" before") for name in one.names))


def _of_dates(normalisation: Normalisation, experiment: ChangeExperiment) -> Normalisation:
    return normalisation if experiment.pairs.normalise == "each" else shared(normalisation)


def _as_seen(normalisation: Normalisation, experiment: ChangeExperiment) -> Normalisation:
    if experiment.pairs.normalise != "raw":
        return normalisation
    count = len(normalisation.mean)
    return Normalisation(mean=(0.0,) * count, std=(1.0,) * count)


def _length(experiment: ChangeExperiment) -> int:
    """Crops between two validations."""
    return 0 if experiment.train is None else experiment.train.batch * experiment.train.validate_every
