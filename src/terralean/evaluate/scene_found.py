"""All that an evaluation of scene recognition found: as numbers, as what the page shows, as a table and as a picture."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import terralean
from terralean.evaluate import calibration, calibration_page, compare, figures, page
from terralean.evaluate.calibration import Calibrated, calibrated
from terralean.evaluate.contenders import Contender
from terralean.evaluate.found import citation, short_name, training_rows, versions
from terralean.evaluate.intervals import FIELD_NAMES, entry
from terralean.evaluate.report import Figures
from terralean.evaluate.scene_calibration import Calibration, calibrate
from terralean.evaluate.scene_calibration import sentence as calibration_sentence
from terralean.evaluate.scene_contenders import SceneGround, SceneRun, SceneScored, SceneStanding, within
from terralean.evaluate.scene_figures import Told, photograph, sheet
from terralean.evaluate.scene_intervals import SceneBootstrap, SceneComparison, bootstrap, verdict
from terralean.evaluate.scene_metrics import FIVE, PER_CLASS, PER_RUN, SceneScores, confusion
from terralean.evaluate.scene_report import SceneBaseline, ScenePeer, SceneReport, SceneSeed
from terralean.evaluate.scene_rivals import SceneRival

NAMES = {**FIELD_NAMES, "top5": "top5"}
PHOTOS = 16  # of mistakes, and of right answers, on the page
SHEET = 24  # images on the sheet
LEAKS = "LEAKS"  # first word of a verdict on leakage that found some
UNCHECKED = "not checked: the training images are no longer where they were"


@dataclass(frozen=True, kw_only=True)
class SceneOther:
    """Another run on the same images."""

    standing: SceneStanding
    name: str
    comparison: SceneComparison  # ours minus this
    leakage: str | None


@dataclass(frozen=True, kw_only=True)
class SceneFound:
    """All that an evaluation found."""

    mine: SceneStanding
    data: Path | None
    ground: SceneGround
    leakage: str | None  # a sentence; None where the training images are gone
    rivals: tuple[SceneRival, ...]
    others: tuple[SceneOther, ...]

    @property
    def contender(self) -> Contender[SceneRun]:
        """What was evaluated."""
        return self.mine.contender

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes."""
        return self.contender.card.classes.names

    @property
    def counts(self) -> NDArray[np.int64]:
        """Confusion matrix (K, K) of all runs together."""
        return np.sum([confusion(one, classes=len(self.names)) for one in self.mine.answers], axis=0)

    @cached_property
    def calibration(self) -> Calibration:
        """Of the run whose answers are shown."""
        return calibrate(self.mine.typical.answers, generator=np.random.default_rng(0))

    @cached_property
    def calibrated(self) -> Calibrated:
        """Of the same run, with intervals, and without the temperature."""
        return _calibrated(self.mine.typical, self.ground)


def _calibrated(scored: SceneScored, ground: SceneGround) -> Calibrated:
    card, units = scored.run.card, ground.units
    sums = scored.measured.reliability.grouped(units.number, count=units.count)
    return calibrated([sums], temperatures=[card.temperature], not_calibrated=card.not_calibrated)


def leaks(leakage: str | None) -> bool | None:
    """What a verdict says; None where there is none."""
    return None if leakage is None else leakage.startswith(LEAKS)


# Numbers.


def as_document(found: SceneFound) -> dict[str, Any]:
    """What evaluation.json holds."""
    card, mine = found.contender.card, found.mine
    return {
        "task": card.task,
        **_scores(mine.scores, mine.boot, names=found.names, spread=mine.spread),
        "images": len(found.ground.images),
        "confusion": found.counts.tolist(),
        "calibration": calibration.document(found.calibrated) | {"ECE_by_chance": found.calibration.by_chance},
        "seeds": [_seed_document(found, scored) for scored in mine.each] if found.contender.several else [],
        "verdict": list(sentences(found)),
        "leakage": {"leaks": leaks(found.leakage), "verdict": found.leakage or UNCHECKED},
        "baselines": {rival.name: _rival_document(rival, found) for rival in found.rivals},
        "against": [_other_document(found, other) for other in found.others],
        "cost": cost_document(mine),
        "run": {
            "folder": str(found.contender),
            "model": card.model,
            "training_data": card.training.data,
            "split": card.training.split,
        },
        "scored_on": "test split" if found.data is None else str(found.data),
        "version": terralean.__version__,
    }


def cost_document(standing: SceneStanding) -> dict[str, Any]:
    """What a run costs; speeds and minutes are means over seeds."""
    cost, measured = _cost(standing), [scored.measured for scored in standing.each]
    return {
        "parameters": cost.parameters,
        "nodes": None,
        "macs": cost.macs,
        "seen_px": cost.window_px,
        "views_per_image": round(_views(standing), 3),
        "images_per_s": round(cost.images_per_s or math.nan, 3),
        "views_per_s": round(float(np.mean([one.views_per_s for one in measured])), 3),
        "training_minutes": round(cost.training_minutes or 0.0, 2),
        "device": cost.device,
        "peak_bytes": cost.peak_memory_bytes,
    }


def _scores(
    scores: SceneScores, boot: SceneBootstrap, *, names: Sequence[str], spread: SceneScores | None = None
) -> dict[str, Any]:
    """Scores with intervals, and spreads of several trainings, by the names of the field; null where one has no meaning."""
    known = boot.intervals
    shown = [name for name in PER_RUN if name != "top5" or len(names) > FIVE]
    overall = {
        NAMES[name]: entry(
            getattr(scores, name),
            None if known is None else getattr(known, name),
            None if spread is None else getattr(spread, name),
        )
        for name in shown
    }
    classes = [
        {"name": of, "images": scores.support[i]}
        | {
            NAMES[name]: entry(
                getattr(scores, name)[i],
                None if known is None else getattr(known, name)[i],
                None if spread is None else getattr(spread, name)[i],
            )
            for name in PER_CLASS
        }
        for i, of in enumerate(names)
    ]
    return {**overall, "classes": classes, "intervals": boot.note}


def _comparison(found: SceneComparison, names: Sequence[str]) -> dict[str, Any]:
    shown = [name for name in PER_RUN if name != "top5" or len(names) > FIVE]
    overall: dict[str, Any] = {NAMES[name]: compare.difference_entry(found.overall[name]) for name in shown}
    classes = [{"name": of, "F1": compare.difference_entry(apart)} for of, apart in zip(names, found.f1, strict=True)]
    return overall | {"classes": classes, "only_this": found.only_mine, "only_other": found.only_theirs}


def _alone(found: SceneFound, scored: SceneScored) -> SceneBootstrap:
    return bootstrap([scored.answers], units=found.ground.units, classes=len(found.names), generator=np.random.default_rng(0))


def _seed_document(found: SceneFound, scored: SceneScored) -> dict[str, Any]:
    training = scored.run.card.training
    return {
        "seed": training.seed,
        "folder": str(scored.run.folder),
        "training_minutes": training.minutes,
        "ECE": _calibrated(scored, found.ground).now.ece,
        **_scores(scored.scores, _alone(found, scored), names=found.names),
    }


def _rival_document(rival: SceneRival, found: SceneFound) -> dict[str, Any]:
    return {
        **{NAMES[name]: round(getattr(rival.scores, name), 6) for name in ("oa", "aa", "mf1")},
        "difference": None if rival.comparison is None else _comparison(rival.comparison, found.names),
    }


def _other_document(found: SceneFound, other: SceneOther) -> dict[str, Any]:
    standing = other.standing
    return {
        "folder": str(standing.contender),
        "model": standing.contender.card.model,
        "verdict": verdict(other.comparison, other=other.name),
        "difference": _comparison(other.comparison, found.names),
        "leaks": leaks(other.leakage),
        "cost": cost_document(standing),
        **_scores(standing.scores, standing.boot, names=found.names, spread=standing.spread),
    }


# Words.


def sentences(found: SceneFound) -> tuple[str, ...]:
    """What the scores say: how right it is, how it stands to other runs and to simple methods, where it is weak, how sure."""
    mine = found.mine
    told = (
        accuracy_sentence(mine, seeds=len(mine.each)),
        *(verdict(other.comparison, other=other.name) for other in found.others),
        rival_sentence(found.rivals),
        weakness_sentence(mine.scores, found.counts, found.names),
        _believed(found),
    )
    return tuple(sentence for sentence in told if sentence)


def _believed(found: SceneFound) -> str:
    """Whether its confidence can be believed; of several seeds, that whose answers are shown."""
    told = calibration_sentence(found.calibration)
    seed = found.mine.typical.run.card.training.seed
    start = f"Of seed {seed}: {told[0].lower()}{told[1:]}" if found.contender.several else told
    return f"{start} {calibration.remark(found.calibrated)}"


def accuracy_sentence(standing: SceneStanding, *, seeds: int) -> str:
    """How right it is."""
    known = standing.boot.intervals
    sure = "" if known is None or known.oa is None else f" (95 % interval {page.bounds(known.oa)} %)"
    start = "The" if seeds == 1 else f"Over {seeds} seeds the"
    return f"{start} model recognises {page.percent(standing.scores.oa)} of the test images{sure}."


def rival_sentence(rivals: Iterable[SceneRival]) -> str:
    """How it stands to the best simple method, by overall accuracy; nothing where there is none."""
    known = [(rival.comparison, rival.name) for rival in rivals if rival.comparison is not None]
    if not known:
        return ""
    best, name = min(known, key=lambda pair: pair[0].overall["oa"].value)
    told = verdict(best, other=f"the best simple method ({name[0].lower()}{name[1:]})")
    return f"{told} It is the better choice here." if told.startswith("Behind") else told


def weakness_sentence(scores: SceneScores, counts: NDArray[np.int64], names: Sequence[str]) -> str:
    """The class with the least F1, and what it is taken for; nothing where every image is recognised."""
    held = [(f1, i) for i, (f1, support) in enumerate(zip(scores.f1, scores.support, strict=True)) if support]
    f1, weakest = min(held)
    if f1 == 1:
        return ""
    others = np.where(np.arange(len(names)) == weakest, 0, counts[weakest])
    taken = f", taken for {names[int(others.argmax())]} most often" if others.any() else ""
    return f"The weakest class is {names[weakest]} (F1 {page.percent(f1)}{taken})."


# The page.


def as_report(found: SceneFound) -> SceneReport:
    """What the page shows."""
    card, mine = found.contender.card, found.mine
    several = found.contender.several
    return SceneReport(
        title=f"{card.model} on {Path(found.ground.root).name}",
        about=_about(found),
        date=date.today().isoformat(),
        verdict=sentences(found),
        classes=card.classes,
        scores=mine.scores,
        spread=mine.spread,
        intervals=mine.boot.intervals,
        intervals_note=mine.boot.note,
        counts=found.counts,
        leaks=leaks(found.leakage),
        apart=found.ground.units.name == "groups",
        leakage=found.leakage or UNCHECKED,
        baselines=_baselines(found),
        peers=tuple(_peer(other) for other in found.others),
        seeds=tuple(_seed(found, scored) for scored in mine.each) if several else (),
        shown_seed=mine.typical.run.card.training.seed if several else None,
        calibration=_calibration(found),
        mistakes=photographed(found, surest_mistakes(mine.typical)),
        right=photographed(found, some_right(mine.typical)),
        cost=_cost(mine),
        views=_views(mine),
        views_per_s=float(np.mean([scored.measured.views_per_s for scored in mine.each])),
        figures=_curves(mine.typical.run.folder),
        facts=_facts(found),
        recipe=found.contender.runs[0].recipe,
        versions=versions(),
        commands=_commands(found),
        citation=citation(card),
    )


def _calibration(found: SceneFound) -> calibration_page.CalibrationSection:
    chance = found.calibration.by_chance
    note = (
        f"A model whose confidence is perfect would have an expected calibration error below {page.percent(chance)} in 95 of "
        f"100 such samples. Small print is the 95 % interval, from draws of the test {found.ground.units.name}."
    )
    return calibration_page.section(found.calibrated, what="images", sentence=_believed(found), note=note)


def _about(found: SceneFound) -> tuple[tuple[str, str], ...]:
    card, training, config = found.contender.card, found.contender.card.training, found.contender.runs[0].config
    scored = "the run's own test split" if found.data is None else str(found.data)
    whole = config.size_px == config.resize_px
    centre = f"the central square of an image, {config.size_px} px wide{'' if whole else f' of {config.resize_px}'}"
    return (
        ("Model", card.model),
        ("Bands", ", ".join(card.bands.names)),
        ("Trained on", f"{page.spaced(training.images)} images, {training.steps} steps"),
        ("Scored on", f"{scored}: {page.spaced(len(found.ground.images))} images, {len(found.names)} classes"),
        ("Looks at", centre if config.views == "centre" else f"{_views(found.mine):.3g} views of an image, their mean"),
        ("Run", str(found.contender)),
    )


def _baselines(found: SceneFound) -> tuple[SceneBaseline, ...]:
    return tuple(
        SceneBaseline(name=rival.name, explanation=rival.explanation, scores=rival.scores, comparison=rival.comparison)
        for rival in sorted(found.rivals, key=lambda rival: -rival.scores.oa)
        if rival.comparison is not None
    )


def _peer(other: SceneOther) -> ScenePeer:
    standing = other.standing
    return ScenePeer(
        name=other.name,
        model=standing.contender.card.model,
        scores=standing.scores,
        intervals=standing.boot.intervals,
        cost=_cost(standing),
        comparison=other.comparison,
        verdict=verdict(other.comparison, other=other.name),
        leaks=leaks(other.leakage),
    )


def _seed(found: SceneFound, scored: SceneScored) -> SceneSeed:
    training = scored.run.card.training
    return SceneSeed(
        seed=training.seed,
        scores=scored.scores,
        intervals=_alone(found, scored).intervals,
        training_minutes=training.minutes,
    )


def _cost(standing: SceneStanding) -> page.Cost:
    card, measured = standing.contender.card, standing.each[0].measured
    return page.Cost(
        parameters=card.cost["parameters"],
        macs=card.cost["macs_layers"] + card.cost["macs_attention"] or None,
        window_px=card.seen_px,
        images_per_s=float(np.mean([scored.measured.images_per_s for scored in standing.each])),
        training_minutes=float(np.mean([scored.run.card.training.minutes for scored in standing.each])),
        peak_memory_bytes=measured.peak_bytes,
        device=measured.device,
    )


def _views(standing: SceneStanding) -> float:
    """Of an image, on average."""
    measured = standing.each[0].measured
    return measured.views / len(measured.answers.label)


def _curves(run: Path) -> Figures:
    rows = training_rows(run)
    return Figures(
        losses=figures.draw_losses(rows, columns={"train_loss": "training", "val_loss": "validation"}),
        validation=figures.draw_score(rows, column="val_top1", label="Validation accuracy"),
    )


def _facts(found: SceneFound) -> tuple[tuple[str, str], ...]:
    training, contender, units = found.contender.card.training, found.contender, found.ground.units
    split, seeds = contender.runs[0].split, ", ".join(map(str, contender.seeds))
    return (
        ("Training data", f"{split.root}, fingerprint {training.data}"),
        ("Split", f"{training.split} (rule {split.method}, seed {split.seed})"),
        ("Seed" if len(contender.seeds) == 1 else "Seeds", seeds),
        ("Drawn for intervals", f"{units.count} test {units.name}"),
    )


def _commands(found: SceneFound) -> tuple[str, ...]:
    contender = found.contender
    first = contender.runs[0]
    seeds = f" --seeds {','.join(map(str, contender.seeds))}" if contender.several else ""
    against = "".join(f" --against {other.standing.contender}" for other in found.others)
    elsewhere = "" if found.data is None else f" --data {found.data} --out DIR"
    return (
        f"terralean train {first.folder}/recipe.yaml --data {first.split.root}{seeds} --out DIR",
        f"terralean evaluate {contender}{against}{elsewhere}",
        f"terralean classify {found.mine.typical.run.folder} IMAGE...",
    )


def named(others: Sequence[SceneStanding]) -> list[str]:
    """A name for each, by which it can be told from the rest."""
    folders = [other.contender.folder for other in others]
    return [short_name(folder, among=folders) for folder in folders]


# Examples.


def surest_mistakes(scored: SceneScored) -> list[int]:
    """Numbers of the images whose wrong answers the model is surest of, the surest first."""
    wrong = np.flatnonzero(~scored.answers.right)
    return wrong[np.argsort(-scored.answers.confidence[wrong], kind="stable")][:PHOTOS].tolist()


def some_right(scored: SceneScored) -> list[int]:
    """Numbers of images that are recognised, at random, of as many classes as there is room for."""
    right = np.random.default_rng(0).permutation(np.flatnonzero(scored.answers.right)).tolist()
    label = scored.answers.label
    first = {label[i]: i for i in reversed(right)}
    rest = [i for i in right if first[label[i]] != i]
    firsts = [i for i in right if first[label[i]] == i]
    return sorted([*firsts, *rest][:PHOTOS], key=lambda i: label[i])


def photographed(found: SceneFound, numbers: Iterable[int]) -> tuple[Told, ...]:
    """Photographs of test images with what the shown run says of them."""
    answers, config = found.mine.typical.answers, found.mine.typical.run.config
    return tuple(
        Told(
            photo=photograph(found.ground.images[i].path, config=config),
            label=found.names[answers.label[i]],
            answer=found.names[answers.answer[i]],
            confidence=float(answers.confidence[i]),
        )
        for i in numbers
    )


def as_sheet(found: SceneFound) -> bytes:
    """A PNG of test images at random with their answers."""
    count = len(found.ground.images)
    numbers = np.random.default_rng(0).permutation(count)[:SHEET].tolist()
    return sheet(photographed(found, numbers))


# The table.


def as_csv(found: SceneFound) -> str:
    """answers.csv: a line for each image, and for each seed where there are several.

    Its path within the data, its class, the answer, how sure that is, whether it is right, and the next likeliest classes.
    """
    target = io.StringIO()
    lines = csv.writer(target, lineterminator="\n")
    most = min(FIVE, len(found.names))
    others = [f"{what}_{i}" for i in range(2, most + 1) for what in ("answer", "confidence")]
    several = found.contender.several
    lines.writerow([*(["seed"] if several else []), "path", "class", "answer", "confidence", "right", *others])
    for scored in found.mine.each:
        seed = [scored.run.card.training.seed] if several else []
        for image, line in zip(found.ground.images, _lines(scored, found.names), strict=True):
            lines.writerow([*seed, within(image.path, found.ground.root), *line])
    return target.getvalue()


def _lines(scored: SceneScored, names: Sequence[str]) -> Iterable[list[str | int]]:
    answers = scored.answers
    for label, likeliest, sure, rank in zip(
        answers.label.tolist(), answers.likeliest.tolist(), answers.probability.tolist(), answers.rank.tolist(), strict=True
    ):
        told = [cell for of, p in zip(likeliest, sure, strict=True) for cell in (names[of], f"{p:.4f}")]
        yield [names[label], *told[:2], int(rank == 0), *told[2:]]
