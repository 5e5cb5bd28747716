"""What accuracy a run gives up for speed: its validation split mapped at settings that maps can be made with.

The test split is never looked at, so that a choice by this curve leaves the scores of the test split what they are.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from terralean.cost.device import device_name
from terralean.data.config import DataConfig
from terralean.data.reading import Reader
from terralean.data.split import Region, Split
from terralean.errors import ConfigError, EmptySplit, LabelError
from terralean.evaluate import metrics
from terralean.evaluate.compare import compare
from terralean.evaluate.intervals import join, mean_bootstrap
from terralean.evaluate.measure import BATCH, Tally, Took, block_side, judge
from terralean.mapping.plan import Plan
from terralean.mapping.strips import strips
from terralean.predict import Predictor, load
from terralean.predict.predictor import Precision
from terralean.raster.grid import Window
from terralean.raster.scene import open_scene
from terralean.tokens import Reduction
from terralean.tokens.settings import words
from terralean.tokens.topk import TopKConfig
from terralean.weights.card import FOREST, Card
from terralean.weights.curve import Change, Row, Setting, default

log = logging.getLogger(__name__)

_Network = tuple[Precision, Reduction | None]
SCORE = "mIoU"
TIMED_TILES = 4  # windows along a side of what is timed


@dataclass(frozen=True, kw_only=True, slots=True)
class CurveConfig:
    """Which settings are tried, on how much of the validation split."""

    overlaps: tuple[float, ...] = (0.0, 0.5, 1.0)  # shares of the run's own overlap
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    kept: tuple[float, ...] = (0.7, 0.5)  # of the tokens that reach a point, how many stay; of networks that can leave some out
    rounds: int = 3  # in which settings are timed in turn
    most_mpx: float = 50.0  # of whole regions, drawn at random; one region at least
    seed: int = 0  # of that draw

    def __post_init__(self) -> None:
        if not all(0 <= share <= 1 for share in self.overlaps):
            raise ConfigError(f"overlaps are shares of the run's own overlap, 0 to 1, got {list(self.overlaps)}")
        if not all(0 < share < 1 for share in self.kept):
            raise ConfigError(f"kept are shares of tokens, above 0 and below 1, got {list(self.kept)}")
        if self.rounds < 1 or not self.most_mpx > 0:
            raise ConfigError(f"rounds and most_mpx must be above 0, got {self.rounds} and {self.most_mpx}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Rows of a run's card, the run's own setting first, and what they rest on."""

    rows: tuple[Row, ...]
    regions: int  # of the validation split that were mapped
    of_regions: int
    mpx: float  # that they hold
    rounds: int
    left_out: tuple[str, ...]  # what could not be tried, in sentences


@dataclass(kw_only=True)
class _Trial:
    """A setting while it is tried."""

    setting: Setting
    predictor: Predictor
    tally: Tally
    window_s: list[float] = field(default_factory=list)  # of a window, in each round

    @property
    def network(self) -> _Network:
        """What a window goes through."""
        return self.setting.precision, self.setting.reduce

    def score(self, region: Region, number: int, *, reader: Reader) -> None:
        """Map a region and count what is right."""
        for judged in judge(self.predictor, region, reader=reader, overlap_px=self.setting.overlap_px, took=Took()):
            self.tally.add(judged.reference, judged.map, region=number, window=judged.strip.window)

    def time(self, region: Region, *, bands: tuple[int, ...] | None) -> None:
        """Map the middle of a region, and nothing else."""
        tile_px = self.predictor.card.tile_px
        with open_scene(region.image, bands=bands) as scene:
            part = scene.crop(_middle(region.window, side_px=TIMED_TILES * tile_px))
            plan = Plan(grid=part.grid, tile_px=tile_px, overlap_px=self.setting.overlap_px)
            began = time.perf_counter()
            for _ in strips(self.predictor, part, plan, batch=BATCH):
                pass
        self.window_s.append((time.perf_counter() - began) / (len(plan.rows) * len(plan.cols)))

    def counts(self) -> NDArray[np.int64]:
        """Of each block (1, n, K, K + 1)."""
        _, blocks, unmapped = self.tally.arrays()
        return join(blocks, unmapped)[None]


def check_curve(split: Split, card: Card, *, run: Path) -> tuple[Region, ...]:
    """The validation regions of a run that a curve can be measured on. ConfigError and EmptySplit say why it cannot."""
    if card.task != "segmentation":
        raise ConfigError(f"{run} is a run of {card.task}, whose views are not blended: --curve is for runs of segmentation")
    regions = split.of("validation")
    if not regions:
        raise EmptySplit(
            f"{run} has no validation split, and the test split must not choose a setting; train with data.split.validation "
            "above 0, or with images of the index marked validation"
        )
    return regions


def measure_curve(
    run: Path,
    card: Card,
    split: Split,
    *,
    data: DataConfig,
    config: CurveConfig,
    device: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Curve:
    """Map the validation split of a run at every setting.

    The cost of a window is the median over rounds of its time against that of the run's own network in the same round, means
    over the overlaps; that of a scene follows from how many windows a large one takes.
    """
    every = check_curve(split, card, run=run)
    regions = sample(every, config)
    settings, left_out = _overlaps(card, regions, config)
    predictors, more = _predictors(run, card, config, device=device)
    side = block_side(sum(region.window.pixels for region in regions))
    trials = [
        _Trial(
            setting=Setting(overlap_px=overlap_px, precision=precision, reduce=predictor.card.reduce),
            predictor=predictor,
            tally=Tally(classes=len(card.classes), side=side),
        )
        for (precision, predictor) in predictors
        for overlap_px in settings
    ]
    reader = Reader(classes=card.classes, coding=split.coding, config=data)
    _try(trials, regions, reader=reader, rounds=config.rounds, progress=progress)
    return Curve(
        rows=tuple(_rows(trials, card)),
        regions=len(regions),
        of_regions=len(every),
        mpx=sum(region.window.pixels for region in regions) / 1e6,
        rounds=config.rounds,
        left_out=(*left_out, *more),
    )


def sample(regions: Sequence[Region], config: CurveConfig) -> tuple[Region, ...]:
    """Whole regions drawn at random as far as they fit, one at least, in the order of the split."""
    order = np.random.default_rng(config.seed).permutation(len(regions))
    chosen, pixels = [int(order[0])], regions[order[0]].window.pixels
    for i in order[1:].tolist():
        if pixels + regions[i].window.pixels <= config.most_mpx * 1e6:
            chosen.append(i)
            pixels += regions[i].window.pixels
    return tuple(regions[i] for i in sorted(chosen))


def _overlaps(card: Card, regions: Sequence[Region], config: CurveConfig) -> tuple[list[int], tuple[str, ...]]:
    """Overlaps in px, the run's own first; it alone where no region is larger than a window."""
    if max(max(region.window.height, region.window.width) for region in regions) <= card.tile_px:
        why = f"no validation region is larger than a window of {card.tile_px} px, so that overlap cannot be judged."
        log.info(why)
        return [card.overlap_px], (f"{why[0].upper()}{why[1:]}",)
    found = [card.overlap_px, *(round(share * card.overlap_px) for share in sorted(config.overlaps, reverse=True))]
    return list(dict.fromkeys(found)), ()


def _predictors(
    run: Path, card: Card, config: CurveConfig, *, device: str | None
) -> tuple[list[tuple[Precision, Predictor]], tuple[str, ...]]:
    """The run's own first, each with the run's own card but for the method of token reduction."""
    found: list[tuple[Precision, Predictor]] = []
    left_out: tuple[str, ...] = ()
    precisions: tuple[Precision, ...] = ("fp32", *(() if card.model == FOREST else config.precisions))
    for reduce in _reductions(card, config):
        try:
            for precision in dict.fromkeys(precisions):
                predictor = load(run, device=device, precision=precision, reduce="own" if reduce == card.reduce else reduce)
                _warm_up(predictor)
                found.append((precision, predictor))
        except ConfigError as error:
            log.info("%s is left out: %s", words(reduce), error)
            left_out = (*left_out, f"Left out: {words(reduce)} ({error}).")
    return found, left_out


def _reductions(card: Card, config: CurveConfig) -> list[Reduction | None]:
    """The run's own, none, and fixed numbers of tokens by relation, which needs no parameters."""
    if card.model == FOREST:
        return [None]
    after = getattr(card.reduce, "after", TopKConfig(shares=(0.5, 0.5)).after)
    fixed = [TopKConfig(after=after, shares=(share,) * len(after)) for share in config.kept]
    return list(dict.fromkeys([card.reduce, None, *fixed]))


def _warm_up(predictor: Predictor) -> None:
    """What the first window takes longer than others is nobody's cost."""
    card = predictor.card
    image = torch.zeros(1, len(card.bands), card.tile_px, card.tile_px)
    predictor(image, torch.ones(1, card.tile_px, card.tile_px, dtype=torch.bool))


def _try(
    trials: Sequence[_Trial],
    regions: Sequence[Region],
    *,
    reader: Reader,
    rounds: int,
    progress: Callable[[int, int], None],
) -> None:
    """Time every setting in turn, so that a busy machine is busy for all, then score each on every region."""
    bands, total, done = reader.config.bands, len(trials) * (rounds + len(regions)), 0
    for turn in range(rounds):
        for i in range(len(trials)):
            trials[(turn + i) % len(trials)].time(regions[turn % len(regions)], bands=bands)  # none is always first
            done += 1
            progress(done, total)
    for number, region in enumerate(regions):
        for trial in trials:
            trial.score(region, number, reader=reader)
            done += 1
            progress(done, total)
    if not trials[0].tally.counts:
        raise LabelError(f"none of the {len(regions)} validation regions holds a labelled valid pixel; label some of them")


def _middle(window: Window, *, side_px: int) -> Window:
    height, width = min(window.height, side_px), min(window.width, side_px)
    row, col = window.row + (window.height - height) // 2, window.col + (window.width - width) // 2
    return Window(row=row, col=col, height=height, width=width)


def _rows(trials: Sequence[_Trial], card: Card) -> list[Row]:
    own = next(trial for trial in trials if trial.setting == default(card))
    window_s = {trial.network: _window_s(trials, trial.network) for trial in trials}
    relative = {network: float(np.median(times / window_s[own.network])) for network, times in window_s.items()}
    ordered = sorted(trials, key=lambda trial: trial is not own)
    return [_row(trial, own, card, window=relative[trial.network]) for trial in ordered]


def _window_s(trials: Sequence[_Trial], network: _Network) -> NDArray[np.float64]:
    """Of each round (R,) what a window took, the mean over overlaps: a window costs the same however far it overlaps."""
    return np.mean([trial.window_s for trial in trials if trial.network == network], axis=0)


def _row(trial: _Trial, own: _Trial, card: Card, *, window: float) -> Row:
    counts, generator = trial.counts(), np.random.default_rng(0)
    total = counts.sum(axis=(0, 1))
    value = metrics.score(total[:, :-1], unmapped=total[:, -1]).miou
    known = mean_bootstrap(counts, generator=generator).intervals
    sure = None if known is None else known.miou
    strides = (card.tile_px - own.setting.overlap_px) / (card.tile_px - trial.setting.overlap_px)
    return Row(
        **{name: getattr(trial.setting, name) for name in ("overlap_px", "precision", "reduce")},
        score=SCORE,
        value=round(value, 6),
        low=None if sure is None else round(sure.low, 6),
        high=None if sure is None else round(sure.high, 6),
        change=_change(counts, own.counts()),
        relative_cost=round(window * strides**2, 4),
        relative_window_cost=round(window, 4),
        device=device_name(trial.predictor.device),
    )


def _change(counts: NDArray[np.int64], own: NDArray[np.int64]) -> Change:
    found = compare(counts, own, generator=np.random.default_rng(0)).miou
    if found.interval is None or math.isnan(found.value):
        return Change(value=round(found.value, 6))
    return Change(value=round(found.value, 6), low=round(found.interval.low, 6), high=round(found.interval.high, 6))


def document(curve: Curve) -> dict[str, Any]:
    """What evaluation.json holds."""
    return asdict(curve)
