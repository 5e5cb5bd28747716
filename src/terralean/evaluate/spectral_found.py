"""What an evaluation of hyperspectral pixels found, as numbers, sentences and a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from terralean.data.spectral.leakage import PixelLeakage
from terralean.evaluate import calibration, calibration_page, compare, figures, intervals, page, report
from terralean.evaluate.compare import Comparison
from terralean.evaluate.found import citation, short_name, training_rows, versions
from terralean.evaluate.metrics import Scores
from terralean.evaluate.spectral_score import Blocks, PixelStanding, ScoredPixels
from terralean.raster.scene import open_scene, read_preview
from terralean.spec import IGNORE

FLOOR = "Position alone"
FLOOR_TOLD = "the class of the nearest training pixel, without an image: a score near this proves nothing about spectra"
PICTURE_PX = 640


@dataclass(frozen=True, kw_only=True)
class Rival:
    """Scores of what sees no image."""

    scores: Scores
    spread: Scores | None
    comparison: Comparison  # the run minus this


@dataclass(frozen=True, kw_only=True)
class SpectralOther:
    """Another contender on the same pixels."""

    standing: PixelStanding
    comparison: Comparison

    def name(self, among: Sequence[SpectralOther]) -> str:
        """Its folder, as far as it is needed to tell it from others."""
        return short_name(self.standing.contender.folder, among=[other.standing.contender.folder for other in among])


@dataclass(frozen=True, kw_only=True)
class SpectralFound:
    """All that an evaluation found."""

    mine: PixelStanding
    data: Path | None
    blocks: Blocks
    floor: Rival | None  # None on other data than the run's own
    others: tuple[SpectralOther, ...]

    @property
    def leakage(self) -> PixelLeakage | None:
        """Of the seeds the deal that gives away most."""
        known = [scored.leakage for scored in self.mine.each if scored.leakage is not None]
        return max(known, key=lambda one: (one.inside, one.sharing), default=None)


# Numbers.


def as_document(found: SpectralFound) -> dict[str, Any]:
    """What evaluation.json holds."""
    mine, card = found.mine, found.mine.contender.card
    names, leak = card.classes.names, found.leakage
    return {
        "task": card.task,
        **intervals.document(mine.scores, mine.boot, names=names, spread=mine.spread),
        "calibration": calibration.document(mine.calibrated),
        "seeds": [_seed_document(scored) for scored in mine.each] if mine.contender.several else [],
        "verdict": list(verdict(found)),
        "leakage": {
            "leaks": None if leak is None else leak.leaks,
            "verdict": leakage_words(found),
            "training_pixel_inside": None if leak is None else leak.inside,
            "windows_sharing": None if leak is None else leak.sharing,
            "window_px": mine.each[0].run.split.window_px,
        },
        "position_only": None if found.floor is None else _floor_document(found.floor),
        "pixels": mine.each[0].run.split.counts(names) if found.data is None else None,  # of the first seed
        "against": [_other_document(other, found) for other in found.others],
        "cost": cost_document(mine),
        "run": {"folder": str(mine.contender), "model": card.model, "split": card.training.split},
        "model": card.model,
    }


def cost_document(standing: PixelStanding) -> dict[str, Any]:
    """What a run costs; speed and minutes are means over seeds."""
    cost = _cost(standing)
    return {
        "parameters": cost.parameters,
        "nodes": cost.nodes,
        "macs": cost.macs,
        "pixels_per_s": round(cost.images_per_s or 0.0, 1),
        "training_minutes": round(cost.training_minutes or 0.0, 2),
        "window_px": cost.window_px,
        "device": cost.device,
        "peak_bytes": cost.peak_memory_bytes,
    }


def _seed_document(scored: ScoredPixels) -> dict[str, Any]:
    names, floor = scored.run.card.classes.names, scored.leakage
    return {
        "seed": scored.run.card.training.seed,
        "folder": str(scored.run.folder),
        "position_only": None if floor is None else floor.floor,
        "leaks": None if floor is None else floor.leaks,
        **intervals.document(scored.scores, scored.boot, names=names),
    }


def _floor_document(floor: Rival) -> dict[str, Any]:
    names = {"OA": "oa", "AA": "aa", "kappa": "kappa"}
    return {
        name: {"value": getattr(floor.scores, key), "sd": None if floor.spread is None else getattr(floor.spread, key)}
        for name, key in names.items()
    }


def _other_document(other: SpectralOther, found: SpectralFound) -> dict[str, Any]:
    standing, names = other.standing, found.mine.contender.card.classes.names
    return {
        "folder": str(standing.contender),
        "model": standing.contender.card.model,
        "verdict": _ahead(other.comparison, other.name(found.others), found),
        "difference": compare.document(other.comparison, names=names),
        "cost": cost_document(standing),
        **intervals.document(standing.scores, standing.boot, names=names, spread=standing.spread),
    }


# Words.


def verdict(found: SpectralFound) -> tuple[str, ...]:
    """How right it is, how position alone does, and how it stands to other runs."""
    mine = found.mine
    over = f"Over {len(mine.each)} seeds OA" if len(mine.each) > 1 else "OA"
    told = [
        f"{over} is {_spread(mine.scores, mine.spread, 'oa')}, AA {_spread(mine.scores, mine.spread, 'aa')}, kappa "
        f"{_spread(mine.scores, mine.spread, 'kappa')}."
    ]
    if found.floor is not None:
        floor = found.floor
        told.append(
            f"Position alone, seeing no image: OA {_spread(floor.scores, floor.spread, 'oa')}, AA "
            f"{_spread(floor.scores, floor.spread, 'aa')}, kappa {_spread(floor.scores, floor.spread, 'kappa')}."
        )
        told.append(_ahead(floor.comparison, "position alone", found))
    told += [_ahead(other.comparison, other.name(found.others), found) for other in found.others]
    if absent := [name for name, n in zip(mine.contender.card.classes.names, mine.scores.support, strict=True) if not n]:
        told.append(f"Without a test pixel, and not in AA: {', '.join(absent)}.")
    return (*told, calibration.sentence(mine.calibrated))


def _spread(scores: Scores, spread: Scores | None, key: str) -> str:
    """In percent with two decimals, as the field has it."""
    value, more = getattr(scores, key), math.nan if spread is None else getattr(spread, key)
    return f"{100 * value:.2f}" + ("" if math.isnan(more) else f" \N{PLUS-MINUS SIGN} {100 * more:.2f}") + " %"


def _ahead(comparison: Comparison, other: str, found: SpectralFound) -> str:
    return compare.sentence(
        comparison.overall["oa"], other=other, score="OA", drawn="test squares", count=len(found.blocks.squares)
    )


def leakage_words(found: SpectralFound) -> str:
    """The verdict on the deal, or why there is none."""
    leak = found.leakage
    if leak is None:
        return f"not checked: {found.data} may show the ground that the run was trained on"
    return leak.verdict if len(found.mine.each) == 1 else f"the worst of {len(found.mine.each)} seeds: {leak.verdict}"


# The page.


def as_report(found: SpectralFound) -> report.Report:
    """What the page shows."""
    mine, card = found.mine, found.mine.contender.card
    shown = mine.each[0]
    return report.Report(
        title=f"{card.model} on {Path(shown.run.split.root).name}",
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
        leakage=leakage_words(found),
        baselines=() if found.floor is None else (_baseline(found.floor),),
        peers=tuple(_peer(other, found) for other in found.others),
        seeds=tuple(_seed(scored) for scored in mine.each) if mine.contender.several else (),
        shown_seed=shown.run.card.training.seed if mine.contender.several else None,
        cost=_cost(mine),
        figures=_figures(found, shown),
        facts=_facts(found),
        recipe=shown.run.recipe,
        versions=versions(),
        commands=_commands(found),
        citation=citation(card),
        calibration=calibration_page.section(
            mine.calibrated,
            what="pixels",
            sentence=calibration.sentence(mine.calibrated),
            note="Small print is the 95 % interval, from draws of squares of the test pixels.",
        ),
    )


def _about(found: SpectralFound) -> tuple[tuple[str, str], ...]:
    card, run = found.mine.contender.card, found.mine.each[0].run
    nm = [w for w in card.bands.wavelength_nm or () if w is not None]
    span = f", {min(nm):g} to {max(nm):g} nm" if nm else ""
    test = page.spaced(sum(found.mine.scores.support))
    return (
        ("Model", card.model),
        ("Bands", f"{len(card.bands)}{span}"),
        ("Trained on", f"{len(run.split.train)} pixels of {len(card.classes)} classes, {card.length}"),
        ("Scored on", f"{test} pixels{'' if found.data is None else f' of {found.data}'}"),
        ("Run", str(found.mine.contender)),
    )


def _baseline(floor: Rival) -> report.Baseline:
    return report.Baseline(name=FLOOR, explanation=f"{FLOOR_TOLD}.", scores=floor.scores, comparison=floor.comparison)


def _peer(other: SpectralOther, found: SpectralFound) -> report.Peer:
    standing, name = other.standing, other.name(found.others)
    return report.Peer(
        name=name,
        model=standing.contender.card.model,
        scores=standing.scores,
        intervals=standing.boot.intervals,
        cost=_cost(standing),
        comparison=other.comparison,
        verdict=_ahead(other.comparison, name, found),
        leaks=None if found.leakage is None else found.leakage.leaks,
    )


def _seed(scored: ScoredPixels) -> report.SeedScores:
    training = scored.run.card.training
    return report.SeedScores(
        seed=training.seed, scores=scored.scores, intervals=scored.boot.intervals, training_minutes=training.minutes
    )


def _cost(standing: PixelStanding) -> page.Cost:
    card, answers = standing.contender.card, standing.each[0].answers
    return page.Cost(
        parameters=card.cost["parameters"],
        macs=(card.cost["macs_layers"] + card.cost["macs_attention"]) or None,
        window_px=card.cost["macs_at_px"],
        images_per_s=float(np.mean([scored.answers.pixels / scored.answers.seconds for scored in standing.each])),
        training_minutes=float(np.mean([scored.run.card.training.minutes for scored in standing.each])),
        peak_memory_bytes=answers.peak_bytes,
        device=answers.device,
    )


def _figures(found: SpectralFound, shown: ScoredPixels) -> report.Figures:
    """The scene with most test pixels: what is known of it, what the run says there, and where it is wrong."""
    test, card = shown.run.split.test, shown.run.card
    scene = int(np.bincount(test.scene).argmax())
    mine = test.scene == scene
    with open_scene(shown.run.split.images[scene], bands=shown.run.config.bands) as opened:
        height, width = opened.grid.height, opened.grid.width
        values, valid = read_preview(opened, PICTURE_PX)
    step = max(1, math.ceil(max(height, width) / PICTURE_PX))
    reference = np.full((height, width), IGNORE, np.uint8)
    answer = reference.copy()
    reference[test.row[mine], test.col[mine]] = test.label[mine]
    answer[test.row[mine], test.col[mine]] = shown.answers.answer[mine]
    reference, answer = reference[::step, ::step], answer[::step, ::step]
    rows, counts = training_rows(shown.run.folder), found.mine.counts.sum(axis=(0, 1))
    return report.Figures(
        image=figures.draw_image(values, valid, bands=card.bands),
        reference=figures.draw_classes(reference, classes=card.classes),
        map=figures.draw_classes(answer, classes=card.classes),
        errors=figures.draw_errors(reference, answer, classes=card.classes),
        matrix=figures.draw_matrix(counts) if len(card.classes) > report.NUMBERS_UP_TO else None,
        losses=figures.draw_losses(rows, columns={"train_loss": "training", "val_loss": "validation"}),
        validation=figures.draw_score(rows, column="val_probability", label="Validation: probability of the true class"),
    )


def _facts(found: SpectralFound) -> tuple[tuple[str, str], ...]:
    contender, training = found.mine.contender, found.mine.contender.card.training
    return (
        ("Training data", f"{found.mine.each[0].run.split.root}, fingerprint {training.data}"),
        ("Split", training.split),
        ("Seed" if len(contender.seeds) == 1 else "Seeds", ", ".join(map(str, contender.seeds))),
        ("Test squares", f"{found.blocks.side_px} px wide, {len(found.blocks.squares)} with test pixels"),
    )


def _commands(found: SpectralFound) -> tuple[str, ...]:
    contender, run = found.mine.contender, found.mine.each[0].run
    seeds = f" --seeds {','.join(map(str, contender.seeds))}" if contender.several else ""
    against = "".join(f" --against {other.standing.contender}" for other in found.others)
    return (
        f"terralean train {run.folder}/recipe.yaml --data {run.split.root}{seeds} --out DIR",
        f"terralean evaluate {contender}{against}{'' if found.data is None else f' --data {found.data} --out DIR'}",
        f"terralean map {run.folder} {run.split.images[0]} --out DIR --confidence",
    )


def picture(page_: report.Report) -> bytes:
    """Image, reference and answers side by side."""
    shown = (page_.figures.image, page_.figures.reference, page_.figures.map)
    return figures.side_by_side([one for one in shown if one is not None])
