"""All that an evaluation found, as the numbers of evaluation.json and as what the page shows."""

from __future__ import annotations

import csv
import math
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray

import terralean
from terralean.data.leakage import Leakage
from terralean.data.reading import Reader
from terralean.evaluate import (
    calibration,
    calibration_page,
    change_scores,
    compare,
    curve_page,
    figures,
    intervals,
    noise,
    page,
    report,
    token_cost,
    token_page,
)
from terralean.evaluate.compare import Comparison
from terralean.evaluate.contenders import Contender, Ground, Run, Scored, Standing
from terralean.evaluate.curve import Curve
from terralean.evaluate.intervals import Bootstrap, Intervals, mean_bootstrap
from terralean.evaluate.metrics import Scores
from terralean.evaluate.rivals import Rival
from terralean.spec import Bands
from terralean.tokens import Reduction
from terralean.tokens.settings import settings, words
from terralean.weights.card import SEED, Card, read_card
from terralean.weights.curve import Row, entries, read_curve

PAPERS = {
    "lemevit": "Jiang et al. 2024: LeMeViT, Efficient Vision Transformer with Learnable Meta Tokens for Remote Sensing Image "
    "Interpretation. IJCAI 2024, arXiv:2405.09789.",
}


@dataclass(frozen=True, kw_only=True)
class Other:
    """Another run on the same pixels."""

    standing: Standing
    comparison: Comparison  # ours minus this
    leakage: Leakage | None
    itself: bool = False  # the run that is evaluated, as it was trained

    def name(self, among: Sequence[Other]) -> str:
        """As `short_name` has it; of the run itself with its method of token reduction."""
        name = short_name(self.standing.contender.folder, among=[other.standing.contender.folder for other in among])
        return f"{name} as trained ({_method(self.standing.contender.card)})" if self.itself else name


@dataclass(frozen=True, kw_only=True)
class Found:
    """All that an evaluation found."""

    mine: Standing
    data: Path | None
    root: str  # of the data that were scored
    ground: Ground
    leakage: Leakage | None  # None where the training images are gone
    rivals: tuple[Rival, ...]
    others: tuple[Other, ...]
    noise: tuple[noise.Robustness, ...] = ()  # of the run and of each other, where that was asked for
    curve: Curve | None = None  # measured now; the card may hold an older one

    @property
    def contender(self) -> Contender[Run]:
        """What was evaluated."""
        return self.mine.contender

    @property
    def as_trained(self) -> bool:
        """Whether the run is used with its own method of token reduction."""
        return self.contender.runs[0].reduce == "own"

    @property
    def curve_rows(self) -> tuple[Row, ...]:
        """What accuracy the run gives up for speed, the run's own setting first; of a single run as it was trained."""
        if self.contender.several or not self.as_trained:
            return ()
        folder, card = self.contender.folder, self.contender.card
        return read_curve(card, run=folder) if self.curve is None else self.curve.rows

    @property
    def shown(self) -> Scored:
        """The run whose map is drawn: of several the one nearest to the mean."""
        return self.mine.each[self.mine.typical]


def short_name(folder: Path, *, among: Sequence[Path]) -> str:
    """A folder's name where that is enough to tell it from the others, else the whole path; of one seed with its run's."""
    names = [f"{one.parent.name}/{one.name}" if SEED.fullmatch(one.name) else one.name for one in (folder, *among)]
    return names[0] if folder.name and names.count(names[0]) == 2 else str(folder)  # noqa: PLR2004 - itself, and among them


# Numbers.


def as_document(found: Found) -> dict[str, Any]:
    """What evaluation.json holds.

    `reduction`, of runs that take tokens out or merge them, is as `token_cost.document` has it: beside the scores of the run,
    in each entry of `against`, and in each level of `noise`. `run.reduce` holds the settings of the method, null without one;
    `run.as_trained` is false where it is not the run's own.
    """
    card, names = found.contender.card, found.contender.card.classes.names
    training = card.training
    return {
        "task": card.task,
        **intervals.document(found.mine.scores, found.mine.boot, names=names, spread=found.mine.spread),
        **({"change": change_scores.document(found.mine)} if card.task == "change" else {}),
        "calibration": calibration.document(found.mine.calibrated),
        "seeds": [_seed_document(found, scored) for scored in found.mine.each] if found.contender.several else [],
        "verdict": list(verdict(found)),
        "leakage": {
            "leaks": None if found.leakage is None else found.leakage.leaks,
            "verdict": leakage_words(found.leakage),
            "findings": [] if found.leakage is None else list(found.leakage.findings),
        },
        "baselines": {rival.name: _rival_document(rival, names) for rival in found.rivals},
        "against": [
            _other_document(found, other) | token_cost.key(other.standing.tokens) | {"noise": noise.document(robust)}
            for other, robust in zip_longest(found.others, found.noise[1:])
        ],
        "noise": noise.document(found.noise[0]) if found.noise else None,
        "curve": _curve_document(found),
        "cost": cost_document(found.mine),
        **token_cost.key(found.mine.tokens),
        "run": {
            "folder": str(found.contender),
            "model": card.model,
            "reduce": _reduce_document(card),
            "as_trained": found.as_trained,
            "training_data": training.data,
            "split": training.split,
        },
        "scored_on": "test split" if found.data is None else str(found.data),
        "version": terralean.__version__,
    }


def _curve_document(found: Found) -> dict[str, Any] | None:
    """`rows` as a card holds them, and of a curve that was measured now what they rest on."""
    told = {} if found.curve is None else {key: value for key, value in asdict(found.curve).items() if key != "rows"}
    return {"rows": entries(found.curve_rows), **told} if found.curve_rows else None


def cost_document(standing: Standing) -> dict[str, Any]:
    """What a run costs; speed and minutes are means over seeds, with token reduction multiply-adds are means over windows."""
    card, cost = standing.contender.card, _cost(standing)
    return {
        "parameters": cost.parameters,
        "nodes": cost.nodes,
        "macs": cost.macs,
        "windows_per_s": round(cost.images_per_s or math.nan, 3),
        "training_minutes": round(cost.training_minutes or 0.0, 2),
        "window_px": card.tile_px,
        "block_px": standing.each[0].measured.block_px,
        "device": cost.device,
        "peak_bytes": cost.peak_memory_bytes,
    }


def _seed_document(found: Found, scored: Scored) -> dict[str, Any]:
    training = scored.run.card.training
    names = scored.run.card.classes.names
    return {
        "seed": training.seed,
        "folder": str(scored.run.folder),
        "training_minutes": training.minutes,
        "ECE": float(calibration.error(scored.measured.reliability.now.bins.sum(axis=0))),
        **intervals.document(scored.scores, _alone(scored), names=names),
    }


def _rival_document(rival: Rival, names: Sequence[str]) -> dict[str, Any]:
    differs = None if rival.comparison is None else compare.document(rival.comparison, names=names)
    return {"mIoU": round(rival.scores.miou, 6), "OA": round(rival.scores.oa, 6), "difference": differs}


def _other_document(found: Found, other: Other) -> dict[str, Any]:
    standing, names = other.standing, found.contender.card.classes.names
    return {
        "folder": str(standing.contender),
        "model": standing.contender.card.model,
        "reduce": _reduce_document(standing.contender.card),
        "verdict": compare.verdict(other.comparison, other=other.name(found.others)),
        "difference": compare.document(other.comparison, names=names),
        "leaks": None if other.leakage is None else other.leakage.leaks,
        "cost": cost_document(standing),
        "calibration": calibration.document(standing.calibrated),
        **({"change": change_scores.document(standing)} if standing.contender.card.task == "change" else {}),
        **intervals.document(standing.scores, standing.boot, names=names, spread=standing.spread),
    }


def _reduce_document(card: Card) -> dict[str, Any] | None:
    return None if card.reduce is None else asdict(card.reduce)


def _alone(scored: Scored) -> Bootstrap:
    return mean_bootstrap(scored.measured.counts[None], generator=np.random.default_rng(0))


# Words.


def verdict(found: Found) -> tuple[str, ...]:
    """What the scores say: how right the map is, how it stands to other runs and to simple methods, and where it is weak."""
    mine, names = found.mine, found.contender.card.classes.names
    told = (
        *(change_scores.sentences(change_scores.document(mine)) if found.contender.card.task == "change" else ()),
        accuracy_sentence(mine.scores, mine.boot.intervals, seeds=len(mine.each)),
        *(compare.verdict(other.comparison, other=other.name(found.others)) for other in found.others),
        rival_sentence({rival.name: rival.comparison for rival in found.rivals if rival.comparison is not None}),
        weakness_sentence(mine.scores, names),
        calibration.sentence(mine.calibrated),
        token_page.sentence(mine.tokens, reduce=found.contender.card.reduce),
        noise.sentence(found.noise[0]) if found.noise else "",
    )
    return tuple(sentence for sentence in told if sentence)


def accuracy_sentence(scores: Scores, known: Intervals | None, *, seeds: int) -> str:
    """How right the map is."""
    sure = "" if known is None or known.oa is None else f" (95 % interval {page.bounds(known.oa)} %)"
    start = "The" if seeds == 1 else f"Over {seeds} seeds the"
    return f"{start} map is right for {page.percent(scores.oa)} of the labelled test pixels{sure}."


def rival_sentence(comparisons: Mapping[str, Comparison]) -> str:
    """How it stands to the best simple method, by mIoU; nothing where there is none."""
    known = {name: found for name, found in comparisons.items() if not math.isnan(found.miou.value)}
    if not known:
        return ""
    name, best = min(known.items(), key=lambda item: item[1].miou.value)
    told = compare.verdict(best, other=f"the best simple method ({name[0].lower()}{name[1:]})")
    return f"{told} It is the better choice here." if told.startswith("Behind") else told


def weakness_sentence(scores: Scores, names: Sequence[str]) -> str:
    """Where it is weak; nothing of a single class."""
    held = [(iou, name) for iou, name, n in zip(scores.iou, names, scores.support, strict=True) if n and not math.isnan(iou)]
    if len(held) < 2:  # noqa: PLR2004 - of one class none is the weakest
        return ""
    iou, name = min(held)
    return f"Mean IoU is {page.percent(scores.miou)}; the weakest class is {name} (IoU {page.percent(iou)})."


def leakage_words(leakage: Leakage | None) -> str:
    """The verdict, or why there is none."""
    return "not checked: the training images are no longer where they were" if leakage is None else leakage.verdict


# The page.


def as_report(found: Found) -> report.Report:
    """What the page shows."""
    card, mine = found.contender.card, found.mine
    return report.Report(
        title=f"{card.model} on {Path(found.root).name}",
        about=_about(found),
        date=date.today().isoformat(),
        verdict=verdict(found),
        classes=card.classes,
        scores=mine.scores,
        spread=mine.spread,
        intervals=mine.boot.intervals,
        intervals_note=mine.boot.note,
        counts=mine.counts.sum(axis=(0, 1)),
        leaks=None if found.leakage is None else found.leakage.leaks,
        leakage=leakage_words(found.leakage),
        baselines=_baselines(found),
        peers=tuple(_peer(other, found) for other in found.others),
        seeds=tuple(_seed(scored) for scored in mine.each) if found.contender.several else (),
        shown_seed=found.shown.run.card.training.seed if found.contender.several else None,
        cost=_cost(mine),
        figures=_figures(found),
        facts=_facts(found),
        recipe=found.contender.runs[0].recipe,
        versions=versions(),
        commands=_commands(found),
        citation=citation(card),
        calibration=_calibration(found),
        curve=curve_page.section(found.curve_rows, curve=found.curve),
        noise=_noise(found),
        tokens=_tokens(found),
    )


def _calibration(found: Found) -> calibration_page.CalibrationSection:
    calibrated = found.mine.calibrated
    together = " The drawing shows all seeds together." if found.contender.several else ""
    overlap = "" if calibrated.before is None else " Without the temperature: where windows overlap, of their mean."
    note = f"Small print is the 95 % interval, from draws of the test blocks.{overlap}{together}"
    return calibration_page.section(calibrated, what="pixels", sentence=calibration.sentence(calibrated), note=note)


def _tokens(found: Found) -> token_page.TokenSection | None:
    named = [("This run", found.mine), *((other.name(found.others), other.standing) for other in found.others)]
    return token_page.section(
        [
            token_page.Costed(
                name=name,
                method=words(standing.contender.card.reduce),
                cost=standing.tokens,
                windows_per_s=_cost(standing).images_per_s,
            )
            for name, standing in named
        ]
    )


def _noise(found: Found) -> report.NoiseTable | None:
    if not found.noise:
        return None
    names = ["This map", *(other.name(found.others) for other in found.others)]
    return report.NoiseTable(
        mode=found.noise[0].config.mode,
        range=noise.range_words(found.noise[0]),
        rows=tuple(noise.rows(list(zip(names, found.noise, strict=True)))),
        reduced=any(level.tokens is not None for robust in found.noise for level in robust.levels),
    )


def _about(found: Found) -> tuple[tuple[str, str], ...]:
    card, training = found.contender.card, found.contender.card.training
    labelled = sum(found.mine.scores.support)
    scored = "the run's own test split" if found.data is None else str(found.data)
    return (
        ("Model", model_words(card)),
        *(() if found.as_trained else (("Trained with", _method(read_card(found.contender.runs[0].folder))),)),
        ("Bands", ", ".join(card.bands.names)),
        ("Trained on", f"{training.images} image{'' if training.images == 1 else 's'}, {card.length}"),
        ("Scored on", f"{scored}: {page.spaced(labelled)} labelled pixels"),
        ("Run", str(found.contender)),
    )


def _baselines(found: Found) -> tuple[report.Baseline, ...]:
    return tuple(
        report.Baseline(
            name=rival.name,
            explanation=f"{rival.explanation}; scored on {page.spaced(int(rival.counts.sum()))} random test pixels.",
            scores=rival.scores,
            comparison=rival.comparison,
        )
        for rival in sorted(found.rivals, key=lambda rival: -rival.scores.miou)
        if rival.comparison is not None
    )


def _peer(other: Other, found: Found) -> report.Peer:
    standing, name = other.standing, other.name(found.others)
    return report.Peer(
        name=name,
        model=model_words(standing.contender.card),
        scores=standing.scores,
        intervals=standing.boot.intervals,
        cost=_cost(standing),
        comparison=other.comparison,
        verdict=compare.verdict(other.comparison, other=name),
        leaks=None if other.leakage is None else other.leakage.leaks,
    )


def _seed(scored: Scored) -> report.SeedScores:
    training = scored.run.card.training
    return report.SeedScores(
        seed=training.seed, scores=scored.scores, intervals=_alone(scored).intervals, training_minutes=training.minutes
    )


def _cost(standing: Standing) -> page.Cost:
    card, measured = standing.contender.card, standing.each[0].measured
    return page.Cost(
        parameters=card.cost["parameters"],
        nodes=card.cost.get("nodes"),
        macs=_macs(standing),
        dense_macs=None if standing.tokens is None else standing.tokens.dense_macs,
        window_px=card.tile_px,
        images_per_s=float(np.mean([scored.measured.windows_per_s for scored in standing.each])),
        training_minutes=float(np.mean([scored.run.card.training.minutes for scored in standing.each])),
        peak_memory_bytes=measured.peak_bytes,
        device=measured.device,
    )


def _macs(standing: Standing) -> float | None:
    """Of a window, of the mean one where they differ."""
    cost, tokens = standing.contender.card.cost, standing.tokens
    return (cost["macs_layers"] + cost["macs_attention"] or None) if tokens is None else float(np.mean(tokens.macs))


def model_words(card: Card) -> str:
    """A model and how it takes tokens out or merges them, if it does."""
    return card.model if card.reduce is None else f"{card.model}, {words(card.reduce)}"


def _method(card: Card) -> str:
    return "no token reduction" if card.reduce is None else words(card.reduce)


def _figures(found: Found) -> report.Figures:
    shown, run = found.shown.measured.shown, found.shown.run
    region, classes = found.ground.regions[shown.region], run.card.classes
    reader = Reader(classes=classes, coding=found.ground.coding, config=replace(found.ground.config, bands=run.config.bands))
    values, valid = reader.values(region.image, shown.window)
    rows = training_rows(run.folder)
    counts = found.mine.counts.sum(axis=(0, 1))
    seen, *later = _dates(values, run.card)
    return report.Figures(
        image=figures.draw_image(seen[0], valid, bands=seen[1]),
        later=figures.draw_image(later[0][0], valid, bands=later[0][1]) if later else None,
        reference=figures.draw_classes(shown.reference, classes=classes),
        map=figures.draw_classes(shown.map, classes=classes),
        errors=figures.draw_errors(shown.reference, shown.map, classes=classes),
        matrix=figures.draw_matrix(counts) if len(classes) > report.NUMBERS_UP_TO else None,
        losses=figures.draw_losses(rows, columns={"train_loss": "training", "val_loss": "validation"}),
        validation=_validation_chart(rows, task=run.card.task),
    )


def _dates(values: NDArray[Any], card: Card) -> list[tuple[NDArray[Any], Bands]]:
    """What a model saw (C, H, W) with its bands; of one that tells change, each date by itself."""
    if card.task != "change":
        return [(values, card.bands)]
    each = len(card.bands) // 2
    dates = [card.bands.choose(range(i, i + each)) for i in (0, each)]
    named = [replace(bands, names=tuple(name.rpartition(" ")[0] or name for name in bands.names)) for bands in dates]
    return [(values[:each], named[0]), (values[each:], named[1])]


def _validation_chart(rows: Sequence[Mapping[str, Any]], *, task: str) -> figures.Chart | None:
    """The score by which the weights were kept."""
    column, label = ("val_f1", "Validation F1 of change") if task == "change" else ("val_miou", "Validation mIoU")
    return figures.draw_score(rows, column=column, label=label)


def training_rows(run: Path) -> list[dict[str, str]]:
    """Rows of a run's metrics.csv, none where there is no file."""
    path = run / "metrics.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _facts(found: Found) -> tuple[tuple[str, str], ...]:
    training, contender = found.contender.card.training, found.contender
    split = contender.runs[0].split
    seeds = ", ".join(map(str, contender.seeds))
    return (
        ("Training data", f"{split.root}, fingerprint {training.data}"),
        ("Split", f"{training.split} (rule {split.method}, seed {split.seed})"),
        ("Seed" if len(contender.seeds) == 1 else "Seeds", seeds),
        (
            "Test blocks",
            f"{found.mine.each[0].measured.block_px} px wide, {len(found.mine.each[0].measured.places)} with labels",
        ),
    )


def versions() -> tuple[tuple[str, str], ...]:
    """Of what the scores depend on."""
    return (
        ("terralean", terralean.__version__),
        ("torch", torch.__version__),
        ("rasterio", rasterio.__version__),
        ("GDAL", rasterio.__gdal_version__),
        ("Python", platform.python_version()),
    )


def _commands(found: Found) -> tuple[str, ...]:
    contender = found.contender
    first = contender.runs[0]
    seeds = f" --seeds {','.join(map(str, contender.seeds))}" if contender.several else ""
    against = "".join(f" --against {other.standing.contender}" for other in found.others)
    elsewhere = "" if found.data is None else f" --data {found.data} --out DIR"
    elsewhere += noise.flags(found.noise[0].config) if found.noise else ""
    reduce = "" if found.as_trained else _reduce_flags(contender.card.reduce)
    elsewhere += " --out DIR" if reduce and found.data is None else ""
    return (
        f"terralean train {first.folder}/recipe.yaml --data {first.split.root}{seeds} --out DIR",
        f"terralean evaluate {contender}{against}{elsewhere}{reduce}",
        f"terralean map {found.shown.run.folder} SCENE.tif --out DIR{reduce}",
    )


def _reduce_flags(reduce: Reduction | None) -> str:
    """How the command line asks for a method."""
    given = ["reduce=null"] if reduce is None else [f"reduce.{one}" for one in (f"method={reduce.method}", *settings(reduce))]
    return "".join(f" --set {shlex.quote(one)}" for one in given)


def citation(card: Card) -> tuple[str, ...]:
    """What to cite for a model."""
    own = f"The Terralean maintainers: Terralean, version {terralean.__version__} (software)."
    return (own, *(paper for name, paper in PAPERS.items() if card.model.startswith(name)))
