"""Ask runs about their test pixels exactly as `terralean map` does, and score what they say."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terralean.cost.device import device_words
from terralean.cost.memory import peak_since, restart_peak
from terralean.data.spectral.config import SpectralDataConfig
from terralean.data.spectral.leakage import PixelLeakage
from terralean.data.spectral.parts import PixelSplit
from terralean.data.spectral.pixels import Pixels
from terralean.data.spectral.places import places
from terralean.errors import RunError
from terralean.evaluate import metrics
from terralean.evaluate.calibration import Calibrated, calibrated
from terralean.evaluate.contenders import Contender
from terralean.evaluate.intervals import Bootstrap, mean_bootstrap
from terralean.evaluate.reliability import Reliability, sums, without
from terralean.mapping.contract import check_contract
from terralean.mapping.run import WINDOWS_AT_ONCE, MapConfig, make_plan
from terralean.mapping.strips import strips
from terralean.predict import Predictor, load
from terralean.predict.predictor import Precision
from terralean.raster.scene import open_scene
from terralean.spec import IGNORE
from terralean.weights.card import Card

BLOCKS = 100  # into about so many is the labelled ground cut for the intervals


@dataclass(frozen=True, kw_only=True)
class SpectralRun:
    """A finished training run."""

    folder: Path
    card: Card
    config: SpectralDataConfig
    recipe: str
    split: PixelSplit  # with the pixels that it is scored on as test


@dataclass(frozen=True, kw_only=True)
class PixelAnswers:
    """What a run says of n test pixels, and what asking it took."""

    probabilities: NDArray[np.float32]  # (n, K)
    answer: NDArray[np.uint8]  # (n,) class, 255 where the map has none
    pixels: int  # predicted in all
    seconds: float
    device: str
    peak_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class ScoredPixels:
    """A run with its scores."""

    run: SpectralRun
    answers: PixelAnswers
    scores: metrics.Scores
    counts: NDArray[np.int64]  # (blocks, K, K + 1), blocks of all runs that stand together
    reliability: Reliability
    leakage: PixelLeakage | None  # None where other data than the run's own are scored

    @property
    def boot(self) -> Bootstrap:
        """Intervals of this run alone."""
        return mean_bootstrap(self.counts[None], generator=np.random.default_rng(0))


@dataclass(frozen=True, kw_only=True)
class PixelStanding:
    """A contender with its scores, the means where it has several runs."""

    contender: Contender[SpectralRun]
    each: tuple[ScoredPixels, ...]
    scores: metrics.Scores
    spread: metrics.Scores | None  # standard deviation between runs
    boot: Bootstrap

    @property
    def counts(self) -> NDArray[np.int64]:
        """(S, blocks, K, K + 1)."""
        return np.stack([scored.counts for scored in self.each])

    @property
    def calibrated(self) -> Calibrated:
        """Whether its confidence can be believed."""
        cards = [scored.run.card for scored in self.each]
        return calibrated(
            [scored.reliability for scored in self.each],
            temperatures=[card.temperature for card in cards],
            not_calibrated=next(filter(None, (card.not_calibrated for card in cards)), ""),
        )


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Squares of the ground that intervals are drawn from, alike for all runs."""

    side_px: int
    squares: NDArray[np.int64]  # (blocks, 2)

    @classmethod
    def over(cls, splits: Sequence[PixelSplit]) -> Blocks:
        """Squares as wide as a window at least, about a hundred of the test pixels' ground."""
        found = np.concatenate([split.places("test") for split in splits])
        side = max(splits[0].window_px, round((len(np.unique(found, axis=0)) / BLOCKS) ** 0.5))
        return cls(side_px=side, squares=np.unique(found // side, axis=0))

    def number(self, split: PixelSplit) -> NDArray[np.int64]:
        """(n,) of the square of each test pixel."""
        both = np.concatenate([self.squares, split.places("test") // self.side_px])
        return np.unique(both, axis=0, return_inverse=True)[1].ravel()[len(self.squares) :]


def ask(
    run: SpectralRun, *, device: str | None, precision: Precision | None, progress: Callable[[int, int], None]
) -> PixelAnswers:
    """Map the scenes that hold test pixels, and keep what is said of these."""
    predictor = load(run.folder, device=device, precision=precision)
    told = restart_peak(predictor.device)
    test, classes = run.split.test, len(run.card.classes)
    probabilities = np.zeros((len(test), classes), np.float32)
    valid = np.zeros(len(test), bool)
    began, done, scenes = time.perf_counter(), 0, np.unique(test.scene)
    for index, scene in enumerate(scenes):
        mine = np.flatnonzero(test.scene == scene)
        done += _ask_scene(predictor, run, run.split.images[scene], test.take(mine), mine, probabilities, valid)
        progress(index + 1, len(scenes))
    if not np.isfinite(probabilities).all():
        raise RunError(f"{run.folder}: the model's probabilities are no numbers; train again with a lower train.lr")
    return PixelAnswers(
        probabilities=probabilities,
        answer=np.where(valid, probabilities.argmax(axis=1), IGNORE).astype(np.uint8),
        pixels=done,
        seconds=time.perf_counter() - began,
        device=device_words(predictor.device),
        peak_bytes=peak_since(predictor.device) if told else None,
    )


def _ask_scene(
    predictor: Predictor,
    run: SpectralRun,
    image: str,
    pixels: Pixels,
    places_: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    valid: NDArray[np.bool_],
) -> int:
    with open_scene(image, bands=run.config.bands) as scene:
        check_contract(scene, run.card, chosen=run.config.bands is not None)
        plan = make_plan(run.card, scene.grid, config=MapConfig())
        for strip in strips(predictor, scene, plan, batch=WINDOWS_AT_ONCE):
            rows = pixels.row - strip.window.row
            here = np.flatnonzero((rows >= 0) & (rows < strip.window.height))
            probabilities[places_[here]] = strip.probabilities[:, rows[here], pixels.col[here]].T
            valid[places_[here]] = strip.valid[rows[here], pixels.col[here]]
        return scene.grid.window.pixels


def score_run(run: SpectralRun, answers: PixelAnswers, blocks: Blocks, *, leakage: PixelLeakage | None) -> ScoredPixels:
    """Counts by block, scores and reliability of answers."""
    label, number = run.split.test.label, blocks.number(run.split)
    counts = count_blocks(label, answers.answer, number, blocks=len(blocks.squares), classes=len(run.card.classes))
    total = counts.sum(axis=0)
    return ScoredPixels(
        run=run,
        answers=answers,
        scores=metrics.score(total[:, :-1], unmapped=total[:, -1]),
        counts=counts,
        reliability=_reliability(answers.probabilities.T, label, number, count=len(blocks.squares), card=run.card),
        leakage=leakage,
    )


def count_blocks(
    label: NDArray[np.int64], answer: NDArray[np.uint8], number: NDArray[np.int64], *, blocks: int, classes: int
) -> NDArray[np.int64]:
    """(blocks, K, K + 1): pixels by square, class and answer; the last column is of those without an answer."""
    said = np.minimum(answer.astype(np.int64), classes)
    flat = (number * classes + label) * (classes + 1) + said
    return np.bincount(flat, minlength=blocks * classes * (classes + 1)).reshape(blocks, classes, classes + 1)


def _reliability(
    probabilities: NDArray[np.float32], label: NDArray[np.int64], number: NDArray[np.int64], *, count: int, card: Card
) -> Reliability:
    before = None if card.temperature == 1 else without(probabilities, temperature=card.temperature)
    return Reliability(
        now=sums(probabilities, label, number, count=count),
        before=None if before is None else sums(before, label, number, count=count),
    )


def stand(contender: Contender[SpectralRun], each: Sequence[ScoredPixels]) -> PixelStanding:
    """A contender's runs together."""
    scores, several = [scored.scores for scored in each], len(each) > 1
    return PixelStanding(
        contender=contender,
        each=tuple(each),
        scores=metrics.mean(scores) if several else scores[0],
        spread=metrics.spread(scores) if several else None,
        boot=mean_bootstrap(np.stack([scored.counts for scored in each]), generator=np.random.default_rng(0)),
    )


def same_test(one: PixelSplit, other: PixelSplit) -> bool:
    """Whether two runs are tested on the very same pixels of files of the same names."""

    def told(split: PixelSplit) -> Mapping[str, object]:
        test = places(split.test, split.origin)
        return {
            "images": [Path(image).name for image in split.images],
            "test": test.tolist(),
            "label": split.test.label.tolist(),
        }

    return told(one) == told(other)
