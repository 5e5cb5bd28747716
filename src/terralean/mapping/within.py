"""A map within a budget: a short trial on the scene, then the setting that the run's accuracy-cost curve has for it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from terralean.errors import ConfigError, RunError, TerraleanError
from terralean.mapping.budget import Budget, BudgetConfig, Choice, choose, duration
from terralean.mapping.job import CARD as JOB
from terralean.mapping.many import check_targets
from terralean.mapping.progress import Progress
from terralean.mapping.run import MapConfig, MapResult, map_path, map_scene
from terralean.mapping.scenes import SceneSource, as_source
from terralean.mapping.trial import TrialConfig, try_out
from terralean.predict import Predictor
from terralean.predict.artefact import is_artefact
from terralean.predict.predictor import Precision
from terralean.weights.card import Card
from terralean.weights.curve import Row, own_row, read_curve

log = logging.getLogger(__name__)


class LoadRun(Protocol):
    """Opens a run: `partial(terralean.predict.load, RUN, device=...)`."""

    def __call__(self, *, precision: Precision, reduce: object) -> Predictor:
        """The run with a precision and a method of token reduction, `own` for its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """How a scene is to be mapped."""

    predictor: Predictor
    config: MapConfig
    choice: Choice | None  # None where a map goes on that was begun before, or where the scene seems to hold nothing
    told: str  # a sentence or two


@dataclass(frozen=True, kw_only=True, slots=True)
class Within:
    """A map that was made within a budget."""

    result: MapResult
    choice: Choice | None
    told: str


def map_within(
    load: LoadRun,
    scenes: Sequence[SceneSource | str | Path],
    *,
    run: Path,
    out: Path,
    budget: Budget,
    config: MapConfig,
    trial: TrialConfig | None = None,
    choosing: BudgetConfig | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> tuple[list[Within], dict[str, str]]:
    """Map one scene after the other, each with the setting that `fit_budget` finds for it, as `many.map_scenes` does.

    ConfigError for several scenes and a budget that does not go by area, which would be for all of them or for each.
    """
    sources = [as_source(scene) for scene in scenes]
    if len(sources) > 1 and not budget.per_km2:
        raise ConfigError(
            f"--budget {budget.text} is for one scene, got {len(sources)}; give a budget by area, e.g. 2s/km2, or one scene"
        )
    check_targets(sources, out=out, config=config)
    made: list[Within] = []
    failed: dict[str, str] = {}
    fit = partial(fit_budget, load, run=run, out=out, budget=budget, config=config, trial=trial, choosing=choosing)
    for index, source in enumerate(sources):
        try:
            made.append(_made(fit(source), source, out=out, progress=partial(_of_all, progress, index, len(sources))))
        except TerraleanError as error:
            if len(sources) == 1:
                raise
            failed[source.name] = str(error)
    return made, failed


def _made(found: Fitted, source: SceneSource, *, out: Path, progress: Callable[[Progress], None]) -> Within:
    log.info("%s: %s", source.name, found.told)
    result = map_scene(found.predictor, source, out=out, config=found.config, progress=progress)
    return Within(result=result, choice=found.choice, told=found.told)


def _of_all(progress: Callable[[Progress], None], index: int, scenes: int, told: Progress) -> None:
    progress(replace(told, index=index, scenes=scenes))


def fit_budget(
    load: LoadRun,
    scene: SceneSource | str | Path,
    *,
    run: Path,
    out: Path,
    budget: Budget,
    config: MapConfig,
    trial: TrialConfig | None = None,
    choosing: BudgetConfig | None = None,
) -> Fitted:
    """The setting that meets a budget with the least loss of accuracy, and what was given up.

    A map that was stopped goes on with the setting that it was begun with. Raises RunError where the run has no curve,
    ConfigError with the least possible time where nothing meets the budget, or where the overlap is given as well.
    """
    if config.overlap_px is not None or config.tile_px is not None:
        raise ConfigError("--budget chooses how far windows overlap; leave --overlap and --tile out")
    if is_artefact(run):
        raise ConfigError(
            f"{run} is an exported model, whose precision and token reduction are built in, and --budget chooses them; name "
            "the run that it was made of, or leave --budget out"
        )
    source, predictor = as_source(scene), load(precision="fp32", reduce="own")
    rows = curve_of(predictor.card, run=run)
    begun = None if config.overwrite else _begun(load, rows, predictor.card, job=map_path(source, out=out).with_suffix(".part"))
    if begun is not None:
        row, predictor = begun
        told = f"going on as it was begun, with {_setting(row)}"
        return Fitted(predictor=predictor, config=replace(config, overlap_px=row.overlap_px), choice=None, told=told)
    found = try_out(predictor, source, budget=budget, config=config, trial=trial or TrialConfig())
    if found is None:
        return Fitted(predictor=predictor, config=config, choice=None, told="no part of the scene seems to hold data")
    own, how = own_row(rows, predictor.card), choosing or BudgetConfig()
    choice = choose(rows, own=own, budget=budget, calibration=found.calibration, extent=found.extent, config=how)
    if choice.row != own:
        predictor = _opened(load, choice.row, predictor.card)
    config = replace(config, overlap_px=choice.row.overlap_px)
    return Fitted(predictor=predictor, config=config, choice=choice, told=_told(choice))


def curve_of(card: Card, *, run: Path) -> tuple[Row, ...]:
    """The accuracy-cost curve of a run. ConfigError and RunError say what to do where there is none."""
    if card.task != "segmentation":
        raise ConfigError(f"{run} is a run of {card.task}; a budget is for maps of pixels, whose windows overlap")
    rows = read_curve(card, run=run)
    if not rows:
        raise RunError(
            f"{run} has no accuracy-cost curve, by which a budget chooses; measure it once: terralean evaluate {run} --curve"
        )
    return rows


def _opened(load: LoadRun, row: Row, card: Card) -> Predictor:
    return load(precision=row.precision, reduce="own" if row.reduce == card.reduce else row.reduce)


def _begun(load: LoadRun, rows: Sequence[Row], card: Card, *, job: Path) -> tuple[Row, Predictor] | None:
    """The setting of a map that was begun, with the run opened so; None where there is none, or one of something else."""
    try:
        facts = json.loads((job / JOB).read_text())
        overlap_px, model = facts["windows"]["overlap_px"], facts["model"]
        precision, fingerprint = model["precision"], model["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    for row in rows:
        if (row.overlap_px, row.precision) == (overlap_px, precision):
            predictor = _opened(load, row, card)
            if predictor.fingerprint() == fingerprint:
                return row, predictor
    return None


def _setting(row: Row) -> str:
    return f"overlap {row.overlap_px} px, {row.precision}, token reduction {row.method}"


def _told(choice: Choice) -> str:
    times = f"about {duration(choice.seconds)} of {duration(choice.budget_s)}"
    if not choice.given_up:
        return f"{times}, with the run's own setting: nothing is given up"
    return f"{times}, where the run's own setting would take {duration(choice.own_seconds)}; given up: {choice.given_up}"
