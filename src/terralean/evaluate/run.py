"""Score a run on labelled pixels it has not learned from: exactly the map a user gets, with intervals, cost and leakage."""

from __future__ import annotations

import csv
import json
import logging
import math
import platform
import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray

import terralean
from terralean.data.config import DataConfig, SplitConfig
from terralean.data.conventions import check_labels
from terralean.data.index import find
from terralean.data.leakage import Leakage, check_leakage
from terralean.data.legend import Legend
from terralean.data.reading import Reader
from terralean.data.split import Region, Split, load_split
from terralean.errors import ConfigError, EmptySplit, OutputFailed
from terralean.evaluate import baselines, figures, metrics, report
from terralean.evaluate.intervals import Bootstrap, block_bootstrap, document
from terralean.evaluate.measure import Measured, measure
from terralean.predict import load
from terralean.predict.predictor import Precision
from terralean.raster.scene import open_scene
from terralean.spec import check_bands
from terralean.weights.card import Card, write_card

log = logging.getLogger(__name__)

FOREST_TRAIN_PX = 50_000
FOREST_TEST_PX = 500_000  # random pixels of the test area on which the baselines are scored


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What an evaluation found and where it was written."""

    document: dict[str, Any]  # what evaluation.json holds
    verdict: tuple[str, ...]
    report: str


def run_evaluation(
    run: Path,
    *,
    config: DataConfig,
    recipe: str,
    data: Path | None = None,
    out: Path | None = None,
    device: str | None = None,
    precision: Precision = "fp32",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Score the run's test split, or all of `data`; write evaluation.json, report.html and picture.png into `out` or the run.

    `config` says how the run's data are read. Scores of the run's own test split also go into its card.
    """
    predictor = load(run, device=device, precision=precision)
    card = predictor.card
    if data is not None and out is None:
        raise ConfigError(f"say with --out where the report on {data} goes; without --out it would replace the run's own")
    split = _test_split(run, card, data=data, config=config)
    measured = measure(predictor, split.of("test"), coding=split.coding, config=config, progress=progress)
    found = Found(
        card=card,
        run=run,
        data=data,
        recipe=recipe,
        root=split.root if data is None else str(data),
        scores=metrics.score(measured.confusion, unmapped=measured.unmapped),
        boot=block_bootstrap(measured.blocks, unmapped=measured.blocks_unmapped, generator=np.random.default_rng(0)),
        measured=measured,
        **_against_training(card, split, config=config),
    )
    return _keep(found, out=run if out is None else out)


@dataclass(frozen=True, kw_only=True)
class Found:
    """All that an evaluation found."""

    card: Card
    run: Path
    data: Path | None
    recipe: str
    root: str  # of the data that were scored
    scores: metrics.Scores
    boot: Bootstrap
    measured: Measured
    leakage: Leakage | None  # None where the training images are gone
    rivals: tuple[report.Baseline, ...]


# What is scored.


def _test_split(run: Path, card: Card, *, data: Path | None, config: DataConfig) -> Split:
    """Training and test regions, the test ones of other data where those are given."""
    own = load_split(run / "split.json")
    if data is None:
        if not own.of("test"):
            raise EmptySplit(f"{run} has no test split; name labelled data with --data, or train with data.split.test above 0")
        return own
    config = _elsewhere(config, data)
    dataset = find(data, config, legend=Legend(classes=card.classes, coding=own.coding))
    check_labels(dataset, config)
    check_bands(dataset.bands, card.bands, scene=str(data))
    test = [
        Region(
            image=source.image,
            label=source.label,
            window=open_scene(source.image).grid.window,
            split="test",
            group=source.group,
        )
        for source in dataset.sources
    ]
    return replace(own, regions=(*own.of("train"), *test), coding=dataset.coding, rule=f"all of {data}")


def _elsewhere(config: DataConfig, data: Path) -> DataConfig:
    """How other data than the run's own are read: which groups train says nothing of them, nor do folders they do not have."""
    config = replace(config, split=SplitConfig())
    if config.images is not None and not (data / config.images).is_dir():
        return replace(config, images=None, labels=None)
    return config


# What it is compared with.


def _against_training(card: Card, split: Split, *, config: DataConfig) -> dict[str, Any]:
    """Leakage and baselines, which need the training images."""
    gone = sorted({region.image for region in split.of("train") if not _is_there(region.image)})
    if gone:
        log.warning("%d training images are gone (%s): leakage and baselines are left out", len(gone), gone[0])
        return {"leakage": None, "rivals": ()}
    return {"leakage": check_leakage(split), "rivals": _baselines(card, split, config=config)}


def _is_there(image: str) -> bool:
    return "://" in image or image.startswith("/vsi") or Path(image).exists()


def _baselines(card: Card, split: Split, *, config: DataConfig) -> tuple[report.Baseline, ...]:
    """The commonest class and a random forest on single pixels, on random test pixels."""
    reader = Reader(classes=card.classes, coding=split.coding, config=config)
    train_values, train_labels = _pixels(reader, split.of("train"), count=FOREST_TRAIN_PX, seed=0)
    values, labels = _pixels(reader, split.of("test"), count=FOREST_TEST_PX, seed=1)
    forest = baselines.pixel_forest(train_values, train_labels, seed=0)
    common = baselines.majority(train_labels)
    where = f"scored on {len(labels):,} random test pixels"
    told = {
        common.name: f"What a map of one colour would reach; {where}.",
        forest.name: f"Sees the {len(card.bands)} values of a pixel and nothing around it; {where}.",
    }
    everywhere = np.ones((1, len(labels)), np.bool_)
    out = []
    for method in (common, forest):
        answer = method.predict(values.T[:, None], everywhere)
        table = metrics.confusion(labels[None], answer, classes=len(card.classes))
        scores = metrics.score(table, unmapped=np.zeros(len(card.classes), np.int64))
        out.append(report.Baseline(name=method.name, explanation=told[method.name], scores=scores))
    return tuple(out)


def _pixels(
    reader: Reader, regions: Sequence[Region], *, count: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """About `count` labelled valid pixels, evenly over the area of the regions: (n, C) and (n,)."""
    generator = np.random.default_rng(seed)
    total = sum(region.window.pixels for region in regions)
    found = []
    for region in regions:
        for strip in reader.strips(region.image, region.window):
            wanted = math.ceil(count * strip.pixels / total)
            values, valid = reader.values(region.image, strip)
            labels = reader.labels(region.image, region.label, strip)
            found.append(baselines.sample_pixels(values, valid, labels, count=wanted, generator=generator))
    return np.concatenate([values for values, _ in found]), np.concatenate([labels for _, labels in found])


# What is written.


def _keep(found: Found, *, out: Path) -> Evaluation:
    """Write report, numbers and picture, and the scores of the run's own test split into its card."""
    card, content = found.card, _document(found)
    page = _report(found)
    out.mkdir(parents=True, exist_ok=True)
    pictures = [page.figures.image, page.figures.reference, page.figures.map]
    _write(out / "report.html", report.render(page).encode())
    _write(out / "picture.png", figures.side_by_side([picture for picture in pictures if picture is not None]))
    _write(out / "evaluation.json", (json.dumps(content, indent=1) + "\n").encode())
    if found.data is None:
        overall = {key: content[key] for key in ("OA", "AA", "kappa", "mIoU", "mF1")}
        card = replace(card, metrics={**card.metrics, "test": overall}, cost={**card.cost, **content["cost"]})
        write_card(card, found.run)
    return Evaluation(document=content, verdict=(*page.verdict, page.leakage), report=str(out / "report.html"))


def _document(found: Found) -> dict[str, Any]:
    measured, leakage = found.measured, found.leakage
    scored = {item.name: {"mIoU": round(item.scores.miou, 6), "OA": round(item.scores.oa, 6)} for item in found.rivals}
    return {
        **document(found.scores, found.boot, names=found.card.classes.names),
        "leakage": {
            "leaks": None if leakage is None else leakage.leaks,
            "verdict": _leakage_words(leakage),
            "findings": [] if leakage is None else list(leakage.findings),
        },
        "baselines": scored,
        "cost": {
            "windows_per_s": round(measured.windows / measured.seconds, 3),
            "window_px": found.card.tile_px,
            "block_px": measured.block_px,
        },
    }


def _report(found: Found) -> report.Report:
    card, leakage = found.card, found.leakage
    rivals = {item.name: item.scores for item in found.rivals}
    return report.Report(
        title=f"{card.model} on {Path(found.root).name}",
        about=_about(found),
        date=date.today().isoformat(),
        verdict=report.verdict(found.scores, intervals=found.boot.intervals, names=card.classes.names, baselines=rivals),
        classes=card.classes,
        scores=found.scores,
        intervals=found.boot.intervals,
        intervals_note=found.boot.note,
        leaks=None if leakage is None else leakage.leaks,
        leakage=_leakage_words(leakage),
        leakage_findings=(),  # the verdict holds them
        baselines=found.rivals,
        cost=_cost(card, found.measured),
        figures=_figures(found, rivals=rivals),
        recipe=found.recipe,
        versions=_versions(),
        commands=_commands(found.run, found.data),
    )


def _leakage_words(leakage: Leakage | None) -> str:
    return "not checked: the training images are no longer where they were" if leakage is None else leakage.verdict


def _about(found: Found) -> tuple[tuple[str, str], ...]:
    card, training = found.card, found.card.training
    return (
        ("Model", card.model),
        ("Bands", ", ".join(card.bands.names)),
        ("Trained on", f"{training.images} image{'' if training.images == 1 else 's'}, {training.steps} steps"),
        ("Scored on", "the run's own test split" if found.data is None else str(found.data)),
        ("Split", training.split),
        ("Run", str(found.run)),
    )


def _cost(card: Card, measured: Measured) -> report.Cost:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)
    return report.Cost(
        parameters=card.cost["parameters"],
        macs=card.cost["macs_layers"] + card.cost["macs_attention"],
        window_px=card.tile_px,
        images_per_s=measured.windows / measured.seconds,
        training_minutes=card.training.minutes,
        peak_memory_bytes=peak,
        device=f"{platform.machine()}, {torch.get_num_threads()} threads",
    )


def _figures(found: Found, *, rivals: Mapping[str, metrics.Scores]) -> report.Figures:
    classes, shown, measured = found.card.classes, found.measured.shown, found.measured
    bars = figures.draw_class_bars(found.scores, intervals=found.boot.intervals, names=classes.names, baselines=rivals)
    losses = {"train_loss": "training loss", "val_loss": "validation loss"}
    return report.Figures(
        image=figures.draw_image(shown.values, shown.valid, bands=found.card.bands),
        reference=figures.draw_classes(shown.reference, classes=classes),
        map=figures.draw_classes(shown.map, classes=classes),
        errors=figures.draw_errors(shown.reference, shown.map, classes=classes),
        bars=bars,
        confusion=figures.draw_confusion(measured.confusion, unmapped=measured.unmapped, names=classes.names),
        curves=figures.draw_curves(_training_rows(found.run), losses=losses, score="val_miou"),
    )


def _training_rows(run: Path) -> list[dict[str, str]]:
    path = run / "metrics.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _versions() -> tuple[tuple[str, str], ...]:
    return (
        ("terralean", terralean.__version__),
        ("torch", torch.__version__),
        ("rasterio", rasterio.__version__),
        ("GDAL", rasterio.__gdal_version__),
        ("Python", platform.python_version()),
    )


def _commands(run: Path, data: Path | None) -> tuple[str, ...]:
    extra = "" if data is None else f" --data {data} --out DIR"
    return (f"terralean evaluate {run}{extra}", f"terralean map {run} SCENE.tif --out DIR")


def _write(path: Path, content: bytes) -> None:
    part = path.with_suffix(path.suffix + ".part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputFailed(f"{path} could not be written: {error}; make room or choose another --out") from error
