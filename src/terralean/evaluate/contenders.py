"""What is evaluated and what it is compared with: runs, one or one for each seed, scored on the same pixels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from terralean.cost.macs import parameters
from terralean.data.change_config import PairConfig
from terralean.data.config import DataConfig
from terralean.data.split import Region, Split, load_split
from terralean.errors import ConfigError, RunError
from terralean.evaluate import kept, metrics
from terralean.evaluate.calibration import Calibrated, calibrated
from terralean.evaluate.intervals import Bootstrap, mean_bootstrap
from terralean.evaluate.measure import Measured, See, as_it_is, measure
from terralean.evaluate.token_cost import TokenCost, pooled
from terralean.evaluate.token_count import count_tokens
from terralean.predict import load
from terralean.predict.artefact import is_artefact
from terralean.predict.predictor import Precision, choose_device
from terralean.raster.coding import Coding
from terralean.tokens import OrOwn
from terralean.weights.card import Card, read_card, seed_folders
from terralean.weights.checkpoint import load_checkpoint

log = logging.getLogger(__name__)


class HasData(Protocol):
    """An experiment, as far as an evaluation asks."""

    @property
    def data(self) -> object:
        """How its data are read, of each task in its own way."""


ReadRun = Callable[[Path], tuple[HasData, str]]  # the experiment of a run's folder, and the text of its recipe


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished training run."""

    folder: Path
    card: Card
    config: DataConfig
    recipe: str
    split: Split
    reduce: OrOwn = "own"  # a method of token reduction in place of its own, None for none; the card has what is used
    pairs: PairConfig | None = None  # how pairs are read, of a run of change


class AnyRun(Protocol):
    """A finished training run of any task."""

    @property
    def folder(self) -> Path:
        """Where it is."""

    @property
    def card(self) -> Card:
        """What its model is."""


R = TypeVar("R", bound=AnyRun)


@dataclass(frozen=True, kw_only=True)
class Contender(Generic[R]):
    """One run, or runs that differ in nothing but their seed."""

    folder: Path
    runs: tuple[R, ...]
    several: bool  # whether the folder holds one run for each seed

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of each run."""
        return tuple(run.card.training.seed for run in self.runs)

    @property
    def card(self) -> Card:
        """What all runs share; of the first where they differ."""
        return self.runs[0].card

    def __str__(self) -> str:
        return str(self.folder)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A run with the counts of the test area."""

    run: Run
    measured: Measured
    scores: metrics.Scores


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A contender with its scores, the means where it has several runs."""

    contender: Contender[Run]
    each: tuple[Scored, ...]
    scores: metrics.Scores
    spread: metrics.Scores | None  # standard deviation between runs
    boot: Bootstrap

    @property
    def tokens(self) -> TokenCost | None:
        """What windows cost with token reduction, of all runs together; None without it."""
        return pooled(scored.measured.tokens for scored in self.each)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Of every run and block (S, n, K, K + 1)."""
        return np.stack([scored.measured.counts for scored in self.each])

    @cached_property
    def calibrated(self) -> Calibrated:
        """Whether its confidence can be believed."""
        cards = [scored.run.card for scored in self.each]
        return calibrated(
            [scored.measured.reliability for scored in self.each],
            temperatures=[card.temperature for card in cards],
            not_calibrated=next(filter(None, (card.not_calibrated for card in cards)), ""),
        )

    @property
    def typical(self) -> int:
        """The place of the run whose mIoU is nearest to the mean."""
        return min(range(len(self.each)), key=lambda i: abs(self.each[i].scores.miou - self.scores.miou))


# Opening and checking: everything that can be refused is refused before anything is predicted.


def one_task(folders: Sequence[Path]) -> str:
    """The task of all these runs. ConfigError where they differ, RunError where one is not finished."""
    tasks = {folder: read_card(next(iter(seed_folders(folder).values()), folder)).task for folder in folders}
    first = tasks[folders[0]]
    if others := [folder for folder, task in tasks.items() if task != first]:
        raise ConfigError(
            f"--against {others[0]}: a run of {tasks[others[0]]}, but {folders[0]} is one of {first}; their scores do not "
            f"measure the same, so name a run of {first}"
        )
    return first


def open_contender(folder: Path, *, open_run: Callable[[Path], R], read: ReadRun) -> Contender[R]:
    """The run of a folder, or the runs of its seeds. RunError where one is not finished, ConfigError where they differ."""
    seeds = seed_folders(folder)
    runs = tuple(open_run(one) for one in (seeds.values() or [folder]))
    found = Contender(folder=folder, runs=runs, several=bool(seeds))
    for run in runs[1:]:
        _check_classes(run, runs[0])
        if _made_of(run, read) != _made_of(runs[0], read):
            raise ConfigError(f"{run.folder} and {runs[0].folder} differ in more than the seed; train both with one recipe")
    return found


def with_reduction(contender: Contender[Run], reduce: OrOwn) -> Contender[Run]:
    """The same weights with another method of token reduction, or with none. ConfigError where they cannot be used so."""
    return contender if reduce == "own" else replace(contender, runs=tuple(_with(run, reduce) for run in contender.runs))


def _with(run: Run, reduce: OrOwn) -> Run:
    model, card = load_checkpoint(run.folder, reduce=reduce)
    return replace(run, card=replace(card, cost={**card.cost, "parameters": parameters(model)}), reduce=reduce)


def _made_of(run: AnyRun, read: ReadRun) -> tuple[object, ...]:
    """The recipe of a run, of whatever task, as it is with any seed, and what the data made of it."""
    experiment: Any = read(run.folder)[0]
    return replace(experiment, seed=0), run.card.model, run.card.bands, run.card.reduce


def check_comparable(contender: Contender[R], others: Sequence[Contender[R]]) -> None:
    """Raise ConfigError where others have other classes or other seeds, or one is named twice.

    A run may stand beside itself where it is used with another method of token reduction than it was trained with.
    """
    for other in others:
        _check_classes(other.runs[0], contender.runs[0])
        if contender.several != other.several or (contender.several and contender.seeds != other.seeds):
            raise ConfigError(
                f"--against {other}: {_seeds(other)}, but {contender} has {_seeds(contender)}; runs are paired by seed, so "
                "both need the same seeds, or name one run of each"
            )
    folders = [other.folder.resolve() for other in others]
    itself = [other for other in others if other.folder.resolve() == contender.folder.resolve()]
    if any(other.card.reduce == contender.card.reduce for other in itself):
        raise ConfigError(
            f"--against {contender} is the run itself; name another one, or give RUN another method of token reduction with "
            "--set reduce.method=..., none with --set reduce=null"
        )
    if twice := sorted({str(other) for other in others if folders.count(other.folder.resolve()) > 1}):
        raise ConfigError(f"--against {twice[0]} is given twice; name each run once")


def check_same_test(run: Run, reference: Run) -> None:
    """Raise ConfigError unless the run keeps the very test regions of another: else it may have learned from them."""
    mine, theirs = (_places(one.split) for one in (run, reference))
    if mine == theirs:
        return
    only = sorted(mine - theirs) or sorted(theirs - mine)
    first, window = only[0][0], only[0][2]
    raise ConfigError(
        f"{run.folder} and {reference.folder} were not tested on the same pixels: {len(mine & theirs)} test regions are the "
        f"same, {len(mine - theirs)} only the first has, {len(theirs - mine)} only the second (row {window[0]}, column "
        f"{window[1]} of {first}, say); train them on the same data with the same data.split, its seed included, or score them "
        "on other data with --data DIR --out DIR"
    )


def check_same_pixels(one: Scored, other: Scored) -> None:
    """Raise ConfigError unless the same pixels of every block were labelled and had data for both."""
    mine, theirs = one.measured, other.measured
    same = np.array_equal(mine.places, theirs.places) and np.array_equal(mine.counts.sum(axis=2), theirs.counts.sum(axis=2))
    if not same:
        raise ConfigError(
            f"{one.run.folder} and {other.run.folder} see data in different pixels of the test area "
            f"({mine.counts.sum():,} and {theirs.counts.sum():,} labelled ones); "
            "give both bands with the same nodata (data.bands)"
        )


def open_run(folder: Path, *, read: ReadRun) -> Run:
    """A run that maps pixels. RunError where it is not finished, or answers something else."""
    card = read_card(folder)
    experiment, recipe = read(folder)
    if not isinstance(experiment.data, DataConfig):
        raise RunError(f"{folder} is a run of {card.task}; name a run that maps pixels")
    return Run(
        folder=folder,
        card=card,
        config=experiment.data,
        recipe=recipe,
        split=load_split(folder / "split.json"),
        pairs=getattr(experiment, "pairs", None),
    )


def _check_classes(run: AnyRun, reference: AnyRun) -> None:
    mine, theirs = run.card.classes.names, reference.card.classes.names
    if mine != theirs:
        raise ConfigError(
            f"{run.folder} and {reference.folder} cannot be compared: their classes differ\n  {run.folder}: {', '.join(mine)}\n"
            f"  {reference.folder}: {', '.join(theirs)}\ntrain both with the same data.classes in the same order"
        )


def _seeds(contender: Contender[R]) -> str:
    return f"the seeds {', '.join(map(str, contender.seeds))}" if contender.several else "one run"


def _places(split: Split) -> set[tuple[str, str, tuple[int, int, int, int]]]:
    """Test regions by the names of their files within the data folder, so that a copy of the data is the same."""
    return {
        (_within(region.image, split), _within(region.label, split), (w.row, w.col, w.height, w.width))
        for region in split.of("test")
        for w in (region.window,)
    }


def _within(path: str, split: Split) -> str:
    return Path(path).relative_to(split.root).as_posix() if Path(path).is_relative_to(split.root) else path


# Scoring.


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What all are scored on."""

    regions: tuple[Region, ...]
    coding: Coding
    config: DataConfig  # how its labels are read
    own: bool  # the runs' own test split, whose counts are worth keeping


def score_contender(
    contender: Contender[Run],
    ground: Ground,
    *,
    keep: bool,
    device: str | None,
    precision: Precision | None,
    progress: Callable[[int, int], None],
) -> Standing:
    """Score every run; with `keep` the counts stay in its folder."""
    each = tuple(
        _score_run(
            run, ground, keep=keep, device=device, precision=precision, progress=part_of(progress, i, len(contender.runs))
        )
        for i, run in enumerate(contender.runs)
    )
    for scored in each[1:]:
        check_same_pixels(each[0], scored)
    scores = [scored.scores for scored in each]
    several = len(each) > 1
    counts = np.stack([scored.measured.counts for scored in each])
    return Standing(
        contender=contender,
        each=each,
        scores=metrics.mean(scores) if several else scores[0],
        spread=metrics.spread(scores) if several else None,
        boot=mean_bootstrap(counts, generator=np.random.default_rng(0)),
    )


def _score_run(
    run: Run,
    ground: Ground,
    *,
    keep: bool,
    device: str | None,
    precision: Precision | None,
    progress: Callable[[int, int], None],
) -> Scored:
    config = replace(ground.config, bands=run.config.bands)
    mark = kept.fingerprint(
        run.folder,
        run.card,
        ground.regions,
        coding=ground.coding,
        config=config,
        precision=precision or "fp32",
        device=choose_device(device).type,
    )
    measured = kept.recall(run.folder, fingerprint=mark) if ground.own else None
    if measured is not None:
        log.info("%s: nothing has changed since it was scored, so its counts are those of %s", run.folder, kept.NAME)
    else:
        measured = Measurement(run, ground, device=device, precision=precision)(progress=progress)
        if not measured.reliability.finite:
            raise RunError(
                f"{run.folder}: the model's probabilities are no numbers; its training has diverged: train again with a lower "
                "train.lr, or name another run"
            )
        if keep and ground.own and run.reduce == "own":
            kept.keep(measured, run.folder, fingerprint=mark)
    return Scored(run=run, measured=measured, scores=metrics.score(measured.confusion, unmapped=measured.unmapped))


class Measurement:
    """A run on the regions of a ground: scores of all of them and, with token reduction, what some windows cost."""

    def __init__(self, run: Run, ground: Ground, *, device: str | None, precision: Precision | None) -> None:
        self.ground, self.config = ground, replace(ground.config, bands=run.config.bands)
        self.predictor = load(run.folder, device=device, precision=precision, reduce=run.reduce)
        reduced = run.card.reduce is not None and not is_artefact(run.folder)  # a graph does not tell its tokens
        self.dense = load(run.folder, device=device, precision=precision, reduce=None) if reduced else None

    def __call__(self, *, progress: Callable[[int, int], None], see: See = as_it_is) -> Measured:
        """As `measure` and `count_tokens` do it; `see` is how scenes are read."""
        ground, config, dense = self.ground, self.config, self.dense
        first, second = (progress, progress) if dense is None else (part_of(progress, i, 2) for i in range(2))
        measured = measure(self.predictor, ground.regions, coding=ground.coding, config=config, progress=first, see=see)
        if dense is None:
            return measured
        tokens = count_tokens(self.predictor, dense, ground.regions, config=config, progress=second, see=see)
        return replace(measured, tokens=tokens)


def part_of(progress: Callable[[int, int], None], index: int, count: int) -> Callable[[int, int], None]:
    """Progress of one of several equal parts."""
    return lambda done, total: progress(index * total + done, count * total)
