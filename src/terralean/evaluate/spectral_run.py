"""Score runs on hyperspectral pixels: OA, AA, kappa and classes over seeds, beside the position-only floor and other runs."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from terralean.data.spectral.config import SpectralDataConfig, SpectralSplitConfig
from terralean.data.spectral.leakage import check_leakage
from terralean.data.spectral.parts import NAMES, PixelSplit, fingerprint, load_split
from terralean.data.spectral.places import origins
from terralean.data.spectral.position_floor import position_floor
from terralean.data.spectral.scenes import find_cubes
from terralean.data.spectral.split import all_pixels
from terralean.errors import ConfigError, LabelError, RunError
from terralean.evaluate import compare, metrics
from terralean.evaluate.compare import Comparison
from terralean.evaluate.contenders import ReadRun, check_comparable, open_contender, part_of
from terralean.evaluate.evaluation import Evaluation, write_all
from terralean.evaluate.report import render
from terralean.evaluate.spectral_found import Rival, SpectralFound, SpectralOther, as_document, as_report, picture
from terralean.evaluate.spectral_score import (
    Blocks,
    PixelStanding,
    SpectralRun,
    ask,
    count_blocks,
    same_test,
    score_run,
    stand,
)
from terralean.predict.predictor import Precision
from terralean.raster.scene import describe
from terralean.weights.card import read_card, write_card

log = logging.getLogger(__name__)


def evaluate_pixels(
    folder: Path,
    *,
    read: ReadRun,
    against: Sequence[Path],
    data: Path | None,
    out: Path,
    device: str | None,
    precision: Precision | None,
    progress: Callable[[int, int], None],
) -> Evaluation:
    """As `run.run_evaluation`, of runs on hyperspectral pixels; each seed is scored on the test pixels of its own deal."""
    opened = partial(_open_run, read=read, data=data)
    contenders = [open_contender(one, open_run=opened, read=read) for one in (folder, *against)]
    mine, others = contenders[0], contenders[1:]
    check_comparable(mine, others)
    for other in others:
        for one, run in zip(mine.runs, other.runs, strict=True):
            if not same_test(one.split, run.split):
                raise ConfigError(
                    f"{run.folder} and {one.folder} were not tested on the same pixels; train both on the same data with the "
                    "same data.split (window_px included) and seed, or score them on other data with --data DIR --out DIR"
                )
    blocks = Blocks.over([run.split for run in mine.runs])
    leakages = [None if data is not None else check_leakage(run.split, classes=len(run.card.classes)) for run in mine.runs]
    count = sum(len(contender.runs) for contender in contenders)
    standings, done = [], 0
    for contender in contenders:
        each = []
        for run, leakage in zip(contender.runs, leakages, strict=True):
            told = part_of(progress, done, count)
            answers = ask(run, device=device, precision=precision, progress=told)
            each.append(score_run(run, answers, blocks, leakage=leakage))
            done += 1
        standings.append(stand(contender, each))
    found = SpectralFound(
        mine=standings[0],
        data=data,
        blocks=blocks,
        floor=None if data is not None else _floor(standings[0], blocks),
        others=tuple(
            SpectralOther(standing=other, comparison=_compared(standings[0], other.counts)) for other in standings[1:]
        ),
    )
    return _keep(found, out=out)


def _open_run(folder: Path, *, read: ReadRun, data: Path | None) -> SpectralRun:
    card = read_card(folder)
    experiment, recipe = read(folder)
    config: Any = experiment.data
    if not isinstance(config, SpectralDataConfig):
        raise RunError(f"{folder} is a run of {card.task}; name a run on hyperspectral pixels")
    split = load_split(folder / "split.json")
    run = SpectralRun(folder=folder, card=card, config=config, recipe=recipe, split=split)
    if data is not None:
        return replace(run, split=_elsewhere(run, data))
    _check_unchanged(run)
    return run


def _check_unchanged(run: SpectralRun) -> None:
    """Raise RunError where a cube no longer has the run's pixels; warn where its file is another than the run learned from."""
    split = run.split
    if fingerprint(split) != run.card.training.data:
        log.warning("%s: the files of %s changed since %s was trained", run.folder, split.root, run.folder)
    for index, image in enumerate(split.images):
        with describe(image, expected="the cube of the run") as scene:
            grid = scene.grid
        for name in NAMES:
            mine = split.of(name).take(split.of(name).scene == index)
            if len(mine) and (mine.row.max() >= grid.height or mine.col.max() >= grid.width):
                raise RunError(
                    f"{image} is {grid.width} x {grid.height} px, and {run.folder} has {name} pixels beyond that: it is "
                    "another file than the run was trained on; bring that back, or score other data with --data DIR --out DIR"
                )


def _elsewhere(run: SpectralRun, data: Path) -> PixelSplit:
    """All labelled pixels of other data, by the names of the run's classes."""
    config = replace(
        run.config,
        cube=None,
        labels=None,
        train_labels=None,
        validation_labels=None,
        test_labels=None,
        split=SpectralSplitConfig(window_px=run.split.window_px),
    )
    dataset = find_cubes(data, config)
    mine, theirs = run.card.classes.names, dataset.classes.names
    if unknown := [name for name in theirs if name not in mine]:
        raise LabelError(
            f"{data} has the classes {', '.join(unknown)}, which {run.folder} was not trained on ({', '.join(mine)}); give "
            "both the same names with data.classes"
        )
    pixels = all_pixels(dataset)
    known = replace(pixels, label=np.array([mine.index(name) for name in theirs], np.int64)[pixels.label])
    return replace(
        run.split,
        root=str(data),
        images=tuple(scene.image for scene in dataset.scenes),
        origin=origins([scene.grid for scene in dataset.scenes]),
        test=known,
        rule=f"all labelled pixels of {data}",
    )


def _floor(mine: PixelStanding, blocks: Blocks) -> Rival:
    """The class of the nearest training pixel, on the very test pixels of each run."""
    counts = []
    for scored in mine.each:
        split = scored.run.split
        answer = position_floor(split.places("train"), split.train.label, split.places("test")).astype(np.uint8)
        number, classes = blocks.number(split), len(scored.run.card.classes)
        counts.append(count_blocks(split.test.label, answer, number, blocks=len(blocks.squares), classes=classes))
    each = [metrics.score(one.sum(axis=0)[:, :-1], unmapped=one.sum(axis=0)[:, -1]) for one in counts]
    several = len(each) > 1
    return Rival(
        scores=metrics.mean(each) if several else each[0],
        spread=metrics.spread(each) if several else None,
        comparison=_compared(mine, np.stack(counts)),
    )


def _compared(mine: PixelStanding, counts: Any) -> Comparison:
    return compare.compare(mine.counts, counts, generator=np.random.default_rng(0))


def _keep(found: SpectralFound, *, out: Path) -> Evaluation:
    content, page = as_document(found), as_report(found)
    files = {
        "report.html": render(page).encode(),
        "picture.png": picture(page),
        "evaluation.json": (json.dumps(content, indent=1) + "\n").encode(),
    }
    write_all(files, out)
    if found.data is None:
        _tell_cards(found)
    return Evaluation(document=content, verdict=(*page.verdict, page.leakage), report=str(out / "report.html"))


def _tell_cards(found: SpectralFound) -> None:
    for scored in found.mine.each:
        card, floor = scored.run.card, scored.leakage
        test = {"OA": scored.scores.oa, "AA": scored.scores.aa, "kappa": scored.scores.kappa}
        told: dict[str, Any] = {key: round(value, 6) for key, value in test.items()}
        told |= {} if floor is None else {"position_only": {key: round(value, 6) for key, value in floor.floor.items()}}
        speed = {"pixels_per_s": round(scored.answers.pixels / scored.answers.seconds, 1), "device": scored.answers.device}
        write_card(replace(card, metrics={**card.metrics, "test": told}, cost=card.cost | speed), scored.run.folder)
