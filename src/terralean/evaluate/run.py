"""Score a run on labelled pixels it has not learned from: exactly the map a user gets, with intervals, cost and leakage."""

from __future__ import annotations

import csv
import json
import logging
import math
import platform
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray

import terralean
from terralean.data.config import DataConfig
from terralean.data.index import find
from terralean.data.leakage import Leakage, check_leakage
from terralean.data.reading import Reader
from terralean.data.split import Region, Split, load_split
from terralean.errors import ConfigError, EmptySplit, LabelError
from terralean.evaluate import baselines, figures, metrics, report
from terralean.evaluate.intervals import Bootstrap, block_bootstrap, document
from terralean.mapping.plan import Plan
from terralean.mapping.strips import Strip, strips
from terralean.predict import Predictor, load
from terralean.raster.grid import Window
from terralean.raster.scene import open_scene
from terralean.spec import IGNORE, check_bands
from terralean.tasks import segmentation
from terralean.weights.card import Card, write_card

log = logging.getLogger(__name__)

BLOCKS = 100  # into about so many is the test area cut for the intervals
FIGURE_PX = 1024  # side of the piece of the test area that the report shows
FOREST_TRAIN_PX = 50_000
FOREST_TEST_PX = 500_000  # random pixels of the test area on which the baselines are scored
BATCH = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What an evaluation found and where it was written."""

    document: dict[str, Any]  # what evaluation.json holds
    verdict: tuple[str, ...]
    report: str


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The piece of the test area that the report draws."""

    values: NDArray[Any]
    valid: NDArray[np.bool_]
    reference: NDArray[np.uint8]
    map: NDArray[np.uint8]


def run_evaluation(
    run: Path,
    *,
    config: DataConfig,
    recipe: str,
    data: Path | None = None,
    out: Path | None = None,
    device: str | None = None,
    precision: str = "fp32",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Score the run's test split, or all of `data`; write evaluation.json, report.html and picture.png into `out` or the run.

    `config` says how the run's data are read. Scores of the run's own test split also go into its card.
    """
    predictor = load(run, device=device, precision=precision)  # type: ignore[arg-type]
    card = predictor.card
    if data is not None and out is None:
        raise ConfigError(f"say with --out where the report on {data} goes; without --out it would replace the run's own")
    split = _test_split(run, card, data=data, config=config)
    folder = run if out is None else out
    test = split.of("test")
    measured = _measure(predictor, test, config=config, progress=progress)
    found = _baselines(card, split, config=config)
    scores = metrics.score(measured.confusion, unmapped=measured.unmapped)
    boot = block_bootstrap(measured.blocks, unmapped=measured.blocks_unmapped, generator=np.random.default_rng(0))
    leakage = check_leakage(split)
    page = _report(
        card, run=run, data=data, recipe=recipe, scores=scores, boot=boot, leakage=leakage, found=found, measured=measured
    )
    content = _document(card, scores=scores, boot=boot, leakage=leakage, found=found, measured=measured)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "report.html", report.render(page))
    pictures = [page.figures.image, page.figures.reference, page.figures.map]
    (folder / "picture.png").write_bytes(figures.side_by_side([picture for picture in pictures if picture is not None]))
    _write(folder / "evaluation.json", json.dumps(content, indent=1) + "\n")
    if data is None:
        overall = {key: content[key] for key in ("OA", "AA", "kappa", "mIoU", "mF1")}
        write_card(replace(card, metrics={**card.metrics, "test": overall}, cost={**card.cost, **content["cost"]}), run)
    return Evaluation(document=content, verdict=(*page.verdict, page.leakage), report=str(folder / "report.html"))


# What is scored.


def _test_split(run: Path, card: Card, *, data: Path | None, config: DataConfig) -> Split:
    """Training and test regions, the test ones of other data where those are given."""
    own = load_split(run / "split.json")
    if data is None:
        if not own.of("test"):
            raise EmptySplit(f"{run} has no test split; name labelled data with --data, or train with data.split.test above 0")
        return own
    names, colours = card.classes.names, tuple(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in card.classes.colours)
    dataset = find(data, replace(config, classes=names, colours=colours))
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
    return replace(own, regions=(*own.of("train"), *test), rule=f"all of {data}")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Counts of the test area, and what predicting it took."""

    blocks: NDArray[np.int64]  # (n, K, K) confusion of each block
    blocks_unmapped: NDArray[np.int64]  # (n, K)
    block_px: int
    shown: Shown
    windows: int
    seconds: float

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Of the whole test area (K, K)."""
        return self.blocks.sum(axis=0)

    @property
    def unmapped(self) -> NDArray[np.int64]:
        """Of the whole test area (K,)."""
        return self.blocks_unmapped.sum(axis=0)


def _measure(
    predictor: Predictor, regions: Sequence[Region], *, config: DataConfig, progress: Callable[[int, int], None]
) -> Measured:
    """Map every region as `terralean map` would and count."""
    card = predictor.card
    reader = Reader(classes=card.classes, config=config)
    total = sum(region.window.pixels for region in regions)
    tally = _Tally(classes=len(card.classes), side=_block_side(total))
    picture = _Picture(max(regions, key=lambda region: region.window.pixels))
    done = windows = 0
    seconds = 0.0
    for index, region in enumerate(regions):
        with open_scene(region.image, bands=config.bands) as scene:
            part = scene.crop(region.window)
            plan = Plan(grid=part.grid, tile_px=card.tile_px, overlap_px=card.overlap_px)
            windows += len(plan.rows) * len(plan.cols)
            began = time.perf_counter()
            for strip in strips(predictor, part, plan, batch=BATCH):
                seconds += time.perf_counter() - began
                place = _moved(strip.window, region.window)
                labels = segmentation.answer(strip.probabilities, strip.valid)
                reference = reader.labels(region.image, region.label, place)
                reference[~strip.valid] = IGNORE  # where the image has no data there is nothing to be right about
                tally.add(reference, labels, region=index, window=strip.window)
                picture.add(region, strip, labels, reference)
                done += strip.window.pixels
                progress(done, total)
                began = time.perf_counter()
    if not tally.counts:
        raise LabelError(f"none of the {len(regions)} test regions holds a labelled valid pixel; label some of the test area")
    blocks, unmapped = tally.arrays()
    values, valid = reader.values(picture.region.image, picture.place)
    shown = Shown(values=values, valid=valid, reference=picture.reference, map=picture.map)
    return Measured(blocks=blocks, blocks_unmapped=unmapped, block_px=tally.side, shown=shown, windows=windows, seconds=seconds)


class _Tally:
    """Confusion matrices of square blocks of each region."""

    def __init__(self, *, classes: int, side: int) -> None:
        self.classes, self.side = classes, side
        self.counts: dict[tuple[int, int, int], tuple[NDArray[np.int64], NDArray[np.int64]]] = {}

    def add(self, reference: NDArray[np.uint8], labels: NDArray[np.uint8], *, region: int, window: Window) -> None:
        """Count a strip, cut along the lines between blocks."""
        for row in _steps(window.row, window.row + window.height, self.side):
            for col in _steps(window.col, window.col + window.width, self.side):
                place = row.start - window.row, row.stop - window.row, col.start - window.col, col.stop - window.col
                piece = (slice(place[0], place[1]), slice(place[2], place[3]))
                if (reference[piece] == IGNORE).all():
                    continue
                key = (region, row.start // self.side, col.start // self.side)
                old = self.counts.get(key, (np.zeros((self.classes, self.classes), np.int64), np.zeros(self.classes, np.int64)))
                self.counts[key] = (
                    old[0] + metrics.confusion(reference[piece], labels[piece], classes=self.classes),
                    old[1] + metrics.unmapped(reference[piece], labels[piece], classes=self.classes),
                )

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Confusions (n, K, K) and unmapped (n, K)."""
        return np.stack([c for c, _ in self.counts.values()]), np.stack([u for _, u in self.counts.values()])


class _Picture:
    """Collects reference and map of the middle of one region while strips pass by."""

    def __init__(self, region: Region) -> None:
        window = region.window
        height, width = min(FIGURE_PX, window.height), min(FIGURE_PX, window.width)
        self.region = region
        self.inner = Window(row=(window.height - height) // 2, col=(window.width - width) // 2, height=height, width=width)
        self.place = _moved(self.inner, window)
        self.reference = np.full((height, width), IGNORE, np.uint8)
        self.map = np.full((height, width), IGNORE, np.uint8)

    def add(self, region: Region, strip: Strip, labels: NDArray[np.uint8], reference: NDArray[np.uint8]) -> None:
        """Keep what lies inside."""
        both = self.inner.cut(strip.window)
        if region is not self.region or not both.pixels:
            return
        here, there = both.slices(origin=self.inner), both.slices(origin=strip.window)
        self.reference[here], self.map[here] = reference[there], labels[there]


def _moved(window: Window, outer: Window) -> Window:
    return replace(window, row=window.row + outer.row, col=window.col + outer.col)


def _steps(start: int, stop: int, side: int) -> list[slice]:
    """[start, stop) cut at multiples of `side`."""
    edges = [start, *range((start // side + 1) * side, stop, side), stop]
    return [slice(low, high) for low, high in pairwise(edges)]


def _block_side(pixels: int) -> int:
    return max(32, round(math.sqrt(pixels / BLOCKS)))


# What it is compared with.


def _baselines(card: Card, split: Split, *, config: DataConfig) -> tuple[report.Baseline, ...]:
    """The commonest class and a random forest on single pixels, on random test pixels."""
    reader = Reader(classes=card.classes, config=config)
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


def _document(
    card: Card,
    *,
    scores: metrics.Scores,
    boot: Bootstrap,
    leakage: Leakage,
    found: Sequence[report.Baseline],
    measured: Measured,
) -> dict[str, Any]:
    return {
        **document(scores, boot, names=card.classes.names),
        "leakage": {"leaks": leakage.leaks, "verdict": leakage.verdict, "findings": list(leakage.findings)},
        "baselines": {item.name: {"mIoU": round(item.scores.miou, 6), "OA": round(item.scores.oa, 6)} for item in found},
        "cost": {
            "windows_per_s": round(measured.windows / measured.seconds, 3),
            "window_px": card.tile_px,
            "block_px": measured.block_px,
        },
    }


def _report(
    card: Card,
    *,
    run: Path,
    data: Path | None,
    root: str,
    recipe: str,
    scores: metrics.Scores,
    boot: Bootstrap,
    leakage: Leakage,
    found: tuple[report.Baseline, ...],
    measured: Measured,
) -> report.Report:
    rivals = {item.name: item.scores for item in found}
    return report.Report(
        title=f"{card.model} on {Path(root).name}",
        about=_about(card, run=run, data=data),
        date=date.today().isoformat(),
        verdict=report.verdict(scores, intervals=boot.intervals, names=card.classes.names, baselines=rivals),
        classes=card.classes,
        scores=scores,
        intervals=boot.intervals,
        intervals_note=boot.note,
        leaks=leakage.leaks,
        leakage=leakage.verdict,
        leakage_findings=leakage.findings,
        baselines=found,
        cost=_cost(card, measured),
        figures=_figures(card, run=run, scores=scores, boot=boot, rivals=rivals, measured=measured),
        recipe=recipe,
        versions=_versions(),
        commands=_commands(run, data),
    )


def _about(card: Card, *, run: Path, data: Path | None) -> tuple[tuple[str, str], ...]:
    training = card.training
    return (
        ("Model", card.model),
        ("Bands", ", ".join(card.bands.names)),
        ("Trained on", f"{training.images} image{'' if training.images == 1 else 's'}, {training.steps} steps"),
        ("Scored on", "the run's own test split" if data is None else str(data)),
        ("Split", training.split),
        ("Run", str(run)),
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


def _figures(
    card: Card,
    *,
    run: Path,
    scores: metrics.Scores,
    boot: Bootstrap,
    rivals: dict[str, metrics.Scores],
    measured: Measured,
) -> report.Figures:
    shown, names = measured.shown, card.classes.names
    losses = {"train_loss": "training loss", "val_loss": "validation loss"}
    return report.Figures(
        image=figures.draw_image(shown.values, shown.valid, bands=card.bands),
        reference=figures.draw_classes(shown.reference, classes=card.classes),
        map=figures.draw_classes(shown.map, classes=card.classes),
        errors=figures.draw_errors(shown.reference, shown.map, classes=card.classes),
        bars=figures.draw_class_bars(scores, intervals=boot.intervals, names=names, baselines=rivals),
        confusion=figures.draw_confusion(measured.confusion, unmapped=measured.unmapped, names=names),
        curves=figures.draw_curves(_training_rows(run), losses=losses, score="val_miou"),
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


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
