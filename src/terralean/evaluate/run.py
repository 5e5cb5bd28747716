"""Score a run on labelled pixels it has not learned from: exactly the map a user gets, with intervals, cost and leakage."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from terralean.data.change_index import files_of, find_pairs
from terralean.data.config import DataConfig, SplitConfig
from terralean.data.conventions import check_labels
from terralean.data.index import find
from terralean.data.leakage import Leakage, check_leakage
from terralean.data.legend import Legend
from terralean.data.pixel_noise import CELL_PX, NoiseConfig
from terralean.data.split import Region, Split
from terralean.errors import ConfigError, EmptySplit, RunError
from terralean.evaluate import change_scores, figures, report, token_cost
from terralean.evaluate.compare import compare
from terralean.evaluate.contenders import (
    Contender,
    Ground,
    ReadRun,
    Run,
    Standing,
    check_comparable,
    check_same_pixels,
    check_same_test,
    one_task,
    open_contender,
    open_run,
    score_contender,
    with_reduction,
)
from terralean.evaluate.curve import CurveConfig, check_curve, measure_curve
from terralean.evaluate.detection_run import evaluate_detection
from terralean.evaluate.evaluation import Evaluation, write_all
from terralean.evaluate.found import Found, Other, as_document, as_report
from terralean.evaluate.noise import score_with_noise
from terralean.evaluate.rivals import Rival, score_rivals
from terralean.evaluate.scene_run import evaluate_scenes
from terralean.evaluate.spectral_run import evaluate_pixels
from terralean.predict.artefact import is_artefact
from terralean.predict.predictor import Precision
from terralean.raster.scene import open_scene
from terralean.spec import check_bands
from terralean.tokens import OrOwn
from terralean.weights.card import seed_folders, write_card
from terralean.weights.curve import KEY as CURVE
from terralean.weights.curve import entries

log = logging.getLogger(__name__)


def run_evaluation(
    folder: Path,
    *,
    read: ReadRun,
    against: Sequence[Path] = (),
    data: Path | None = None,
    out: Path | None = None,
    device: str | None = None,
    precision: Precision | None = None,
    reduce: OrOwn = "own",
    noise: NoiseConfig | None = None,
    curve: CurveConfig | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Score the test split of a run, or of one run for each seed, or all of `data`, and compare it with other runs.

    Writes evaluation.json, report.html and picture.png into `out` or the folder, and of scene recognition answers.csv; scores
    of a run's own test split also go into its card. `read` gives the experiment and the text of a run's recipe:
    `recipes.read_run`. The runs in `against` are scored on the very same pixels or images; RunError and ConfigError say why
    where they cannot be. With `reduce` the run in `folder` is used with another method of token reduction than it was trained
    with, None for none; it may then stand beside itself as it was trained, and its card stays as it is. With `noise` maps are
    scored with noisy pixels as well, beside the clean scores, which stay as they are; ConfigError for scene recognition, whose
    images are resized, and which knows no token reduction. With `curve` the validation split is mapped at several settings,
    see `curve.measure_curve`, and the card learns what accuracy they give up for speed.
    """
    if data is not None and out is None:
        raise ConfigError(f"say with --out where the report on {data} goes; without --out it would replace the run's own")
    task = one_task([folder, *against])
    if task not in EVALUATIONS:
        raise RunError(f"{folder} is a run of {task}; runs of {' and '.join(EVALUATIONS)} can be evaluated")
    if noise is not None and task == "change":
        raise ConfigError(f"{folder} is a run of change; --noise is for single images, so leave it out")
    if noise is not None and task not in ("classification", "segmentation"):
        raise ConfigError(f"{folder} is a run of {task}; --noise is for runs of segmentation, so leave it out")
    if noise is not None and task != "segmentation":
        raise ConfigError(
            f"{folder} is a run of {task}: its images are resized before they are seen, so that a number of noisy pixels in "
            f"{CELL_PX} x {CELL_PX} has no meaning; leave --noise out, or name a run of segmentation"
        )
    if reduce != "own":
        _check_reduction(folder, task=task, out=out)
    if curve is not None:
        _check_curve(folder, task=task, data=data, reduce=reduce)
    maps = EVALUATIONS[task] is _evaluate_map
    evaluate = partial(_evaluate_map, reduce=reduce, noise=noise, curve=curve) if maps else EVALUATIONS[task]
    return evaluate(
        folder,
        read=read,
        against=against,
        data=data,
        out=folder if out is None else out,
        device=device,
        precision=precision,
        progress=progress,
    )


def _check_reduction(folder: Path, *, task: str, out: Path | None) -> None:
    if task != "segmentation":
        raise ConfigError(f"{folder} is a run of {task}, whose networks keep all tokens; leave --set reduce... out")
    if out is None:
        raise ConfigError(
            f"with --set reduce... the scores are not those of {folder} as it was trained; say with --out where the report "
            "goes, which would replace the run's own"
        )


def _check_curve(folder: Path, *, task: str, data: Path | None, reduce: OrOwn) -> None:
    if task != "segmentation":
        raise ConfigError(f"{folder} is a run of {task}, whose views are not blended; --curve is for runs of segmentation")
    if is_artefact(folder):
        raise ConfigError(f"{folder} is an exported graph, made for one precision and one method; give --curve the run itself")
    if seeds := seed_folders(folder):
        raise ConfigError(
            f"{folder} holds a run for each of the seeds {', '.join(map(str, seeds))}, and each has a curve of its own; name "
            f"one of them, e.g. {seeds[min(seeds)]}"
        )
    if data is not None or reduce != "own":
        told = f"--data {data}" if data is not None else "--set reduce..."
        raise ConfigError(f"--curve is of the run as it was trained, on its own validation split; leave {told} out")


def _evaluate_map(
    folder: Path,
    *,
    read: ReadRun,
    against: Sequence[Path],
    data: Path | None,
    out: Path,
    device: str | None,
    precision: Precision | None,
    reduce: OrOwn,
    noise: NoiseConfig | None,
    curve: CurveConfig | None,
    progress: Callable[[int, int], None],
) -> Evaluation:
    contenders = [open_contender(one, open_run=partial(open_run, read=read), read=read) for one in (folder, *against)]
    mine = contenders[0] = with_reduction(contenders[0], reduce)
    check_comparable(mine, contenders[1:])
    split = _test_split(mine.runs[0], data=data)
    if curve is not None:
        check_curve(split, mine.card, run=folder)
    if data is None:
        for run in (run for contender in contenders for run in contender.runs):
            check_same_test(run, mine.runs[0])
    ground = Ground(regions=split.of("test"), coding=split.coding, config=mine.runs[0].config, own=data is None)
    standings = [
        score_contender(one, ground, keep=i == 0, device=device, precision=precision, progress=progress)
        for i, one in enumerate(contenders)
    ]
    found = _found(standings, ground, split, data=data)
    if noise is not None:
        root = Path(split.root if data is None else data.parent if data.is_file() else data)
        score = partial(score_with_noise, ground=ground, config=noise, root=root, device=device, precision=precision)
        found = replace(found, noise=tuple(score(standing, progress=progress) for standing in standings))
    if curve is not None:
        run = mine.runs[0]
        measured = measure_curve(
            run.folder, run.card, run.split, data=run.config, config=curve, device=device, progress=progress
        )
        found = replace(found, curve=measured)
    return _keep(found, out=out)


EVALUATIONS: dict[str, Callable[..., Evaluation]] = {
    "segmentation": _evaluate_map,
    "change": _evaluate_map,
    "classification": evaluate_scenes,
    "detection": evaluate_detection,
    "spectral": evaluate_pixels,
}


def _found(standings: Sequence[Standing], ground: Ground, split: Split, *, data: Path | None) -> Found:
    mine = standings[0]
    for other in standings[1:]:
        check_same_pixels(mine.each[0], other.each[0])
    seen: dict[tuple[Region, ...], Leakage] = {}
    leakage = [_leakage(one.contender, split, own=i == 0 and data is None, seen=seen) for i, one in enumerate(standings)]
    return Found(
        mine=mine,
        data=data,
        root=split.root if data is None else str(data),
        ground=ground,
        leakage=leakage[0],
        rivals=() if leakage[0] is None else _rivals(mine, ground, split),
        others=tuple(
            Other(
                standing=other,
                comparison=compare(mine.counts, other.counts, generator=np.random.default_rng(0)),
                leakage=leak,
                itself=other.contender.folder.resolve() == mine.contender.folder.resolve(),
            )
            for other, leak in zip(standings[1:], leakage[1:], strict=True)
        ),
    )


def _rivals(mine: Standing, ground: Ground, split: Split) -> tuple[Rival, ...]:
    classes, measured = mine.contender.card.classes, mine.each[0].measured
    found = score_rivals(split.of("train"), ground, classes=classes, places=measured.places, block_px=measured.block_px)
    return tuple(
        replace(rival, comparison=compare(mine.counts, rival.counts[None], generator=np.random.default_rng(0)))
        for rival in found
    )


# What is scored.


def _test_split(run: Run, *, data: Path | None) -> Split:
    """Training and test regions, the test ones of other data where those are given."""
    own, card = run.split, run.card
    if data is None:
        if not own.of("test"):
            raise EmptySplit(
                f"{run.folder} has no test split; name labelled data with --data, or train with data.split.test above 0 "
                "(data.split.test_from=validation where the data give a validation split only)"
            )
        return own
    config = _elsewhere(run.config, data)
    if run.pairs is not None:
        dataset = find_pairs(data, config, run.pairs)
    else:
        dataset = find(data, config, legend=Legend(classes=card.classes, coding=own.coding))
        check_labels(dataset, config)
    check_bands(dataset.bands, card.bands, scene=str(data))
    test = [
        Region(
            image=source.image,
            label=source.label,
            window=open_scene(source.image, bands=config.bands).grid.window,
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


# Whether training has seen it.


def _leakage(contender: Contender[Run], split: Split, *, own: bool, seen: dict[tuple[Region, ...], Leakage]) -> Leakage | None:
    """What training shares with the test regions of `split`, of all seeds the worst; None where training images are gone.

    `seen` remembers what was found for the same regions.
    """
    found = []
    for run in contender.runs:
        both = run.split if own else replace(run.split, regions=(*run.split.of("train"), *split.of("test")))
        if gone := sorted({region.image for region in both.of("train") if not _is_there(region.image)}):
            log.warning(
                "%s: %d training images are gone (%s): leakage and baselines are left out", run.folder, len(gone), gone[0]
            )
            return None
        if both.regions not in seen:
            seen[both.regions] = check_leakage(both)
        found.append(seen[both.regions])
    return max(found, key=lambda leakage: (leakage.leaks, leakage.share or 0))


def _is_there(image: str) -> bool:
    return all("://" in file or file.startswith("/vsi") or Path(file).exists() for file in files_of(image))


# What is written.


def _keep(found: Found, *, out: Path) -> Evaluation:
    """Write report, numbers and picture, and the scores of a run's own test split into its card."""
    content, page = as_document(found), as_report(found)
    pictures = [page.figures.image, page.figures.later, page.figures.reference, page.figures.map]
    files = {
        "report.html": report.render(page).encode(),
        "picture.png": figures.side_by_side([picture for picture in pictures if picture is not None]),
        "evaluation.json": (json.dumps(content, indent=1) + "\n").encode(),
    }
    write_all(files, out)
    if found.data is None:
        _tell_cards(found, content)
    return Evaluation(document=content, verdict=(*page.verdict, page.leakage), report=str(out / "report.html"))


def _tell_cards(found: Found, content: dict[str, Any]) -> None:
    numbers = content["seeds"] or [content]
    for scored, own in zip(found.mine.each, numbers, strict=True):
        if scored.run.reduce != "own":
            continue  # the card is of the run as it was trained
        card = scored.run.card
        overall = {key: own[key] for key in ("OA", "AA", "kappa", "mIoU", "mF1")}
        speed = {"windows_per_s": round(scored.measured.windows_per_s, 3), "window_px": card.tile_px}
        told = card.cost | speed | {"device": scored.measured.device, "block_px": scored.measured.block_px}
        told |= token_cost.key(scored.measured.tokens)
        if card.task == "change":
            overall |= change_scores.mean([change_scores.of_measured(scored.measured)])
        scores = {**card.metrics, "test": overall}
        if found.curve is not None:
            scores[CURVE] = entries(found.curve.rows)
        write_card(replace(card, metrics=scores, cost=told), scored.run.folder)
