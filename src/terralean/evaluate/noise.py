"""How scores stand up to noise in single pixels: every run maps the test area again with each amount of it.

The noise of an image is the same for every run and every window, so that differences are paired; the clean scores are those
of the evaluation itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from terralean.data.pixel_noise import CELL_PX, Noise, NoiseConfig, NoisyScene, Range, data_range
from terralean.data.split import Region, relative
from terralean.evaluate import metrics, token_cost, token_page
from terralean.evaluate.compare import Comparison, Difference, compare, difference_entry, points, span
from terralean.evaluate.contenders import Ground, Measurement, Run, Scored, Standing, part_of
from terralean.evaluate.intervals import FIELD_NAMES, Bootstrap, entry, mean_bootstrap
from terralean.evaluate.measure import Measured, See
from terralean.evaluate.token_cost import TokenCost, pooled
from terralean.predict.predictor import Precision
from terralean.raster.scene import Scene

TOLD = ("miou", "oa", "mf1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """Scores at one amount of noise."""

    pixels: int  # replaced in CELL_PX x CELL_PX
    scores: metrics.Scores  # means over the seeds where there are several
    boot: Bootstrap
    change: Comparison | None  # from the clean scores; None of these themselves
    tokens: TokenCost | None  # noise changes what a method of token reduction leaves; None without one


@dataclass(frozen=True, kw_only=True, slots=True)
class Robustness:
    """Scores of a contender at every amount of noise, in the order asked for."""

    config: NoiseConfig
    range: Range
    levels: tuple[Level, ...]


def score_with_noise(
    standing: Standing,
    *,
    ground: Ground,
    config: NoiseConfig,
    root: Path,
    device: str | None,
    precision: Precision | None,
    progress: Callable[[int, int], None],
) -> Robustness:
    """Score every run of a contender at every amount of noise; nothing is written, and its clean scores are used as they are.

    `root` is the folder of the data: a copy of them elsewhere has the same noise.
    """
    amounts = [pixels for pixels in config.pixels if pixels]
    found: dict[int, list[Measured]] = {pixels: [] for pixels in amounts}
    for i, scored in enumerate(standing.each):
        measure = Measurement(scored.run, ground, device=device, precision=precision)
        for j, pixels in enumerate(amounts):
            see = noisy(scored.run, config, pixels=pixels, root=root)
            part = part_of(progress, i * len(amounts) + j, len(standing.each) * len(amounts))
            found[pixels].append(measure(progress=part, see=see))
    return Robustness(
        config=config,
        range=_range(standing.each[0]),
        levels=tuple(_level(pixels, standing, found.get(pixels)) for pixels in config.pixels),
    )


def noisy(run: Run, config: NoiseConfig, *, pixels: int, root: Path) -> See:
    """How a run sees a scene whose pixels are partly noise."""
    card = run.card

    def see(scene: Scene, region: Region) -> NoisyScene:
        noise = Noise(
            name=relative(region.image, root.absolute()),
            height=scene.grid.height,
            width=scene.grid.width,
            pixels=pixels,
            mode=config.mode,
            seed=config.seed,
            range=data_range(card.normalisation, dtype=card.bands.dtype),
            whole=np.dtype(card.bands.dtype).kind != "f",
        )
        return NoisyScene(scene=scene.crop(region.window), part=region.window, noise=noise)

    return see


def _range(scored: Scored) -> Range:
    return data_range(scored.run.card.normalisation, dtype=scored.run.card.bands.dtype)


def _level(pixels: int, standing: Standing, measured: Sequence[Measured] | None) -> Level:
    """Of what each run measured; of none the clean scores."""
    if measured is None:
        return Level(pixels=pixels, scores=standing.scores, boot=standing.boot, change=None, tokens=standing.tokens)
    counts = np.stack([one.counts for one in measured])
    each = [metrics.score(one[..., :-1].sum(axis=0), unmapped=one[..., -1].sum(axis=0)) for one in counts]
    return Level(
        pixels=pixels,
        scores=metrics.mean(each) if len(each) > 1 else each[0],
        boot=mean_bootstrap(counts, generator=np.random.default_rng(0)),
        change=compare(counts, standing.counts, generator=np.random.default_rng(0)),
        tokens=pooled(one.tokens for one in measured),
    )


# Numbers and words.


def document(robustness: Robustness | None) -> dict[str, Any] | None:
    """What evaluation.json holds of it, null where there was no noise."""
    if robustness is None:
        return None
    config = robustness.config
    return {
        "mode": config.mode,
        "seed": config.seed,
        "of_px": [CELL_PX, CELL_PX],
        "range": [list(ends) for ends in robustness.range],
        "levels": [_level_document(level) for level in robustness.levels],
    }


def _level_document(level: Level) -> dict[str, Any]:
    known = level.boot.intervals
    scores = {
        FIELD_NAMES[name]: entry(getattr(level.scores, name), None if known is None else getattr(known, name), None)
        for name in TOLD
    }
    change = None if level.change is None else {FIELD_NAMES[n]: difference_entry(level.change.overall[n]) for n in TOLD}
    return {"pixels": level.pixels, **scores, "change": change, **token_cost.key(level.tokens)}


def sentence(robustness: Robustness | None) -> str:
    """What the most noise does to mean IoU; nothing where there was none."""
    changed = [] if robustness is None else [level for level in robustness.levels if level.change is not None]
    if not changed:
        return ""
    most = max(changed, key=lambda level: level.pixels)
    assert most.change is not None
    return (
        f"With {most.pixels} of {CELL_PX} x {CELL_PX} pixels replaced by noise mean IoU changes by "
        f"{change_words(most.change.miou)} points."
    )


def change_words(found: Difference) -> str:
    """A change in points with its interval, where there is one."""
    value = points(found.value, signed=True, like=found.interval)
    return value if found.interval is None else f"{value} ({span(found.interval)})"


def flags(config: NoiseConfig) -> str:
    """How the command line asks for this noise."""
    default = NoiseConfig(pixels=config.pixels)
    mode = "" if config.mode == default.mode else f" --noise-mode {config.mode}"
    seed = "" if config.seed == default.seed else f" --noise-seed {config.seed}"
    return f" --noise {','.join(map(str, config.pixels))}{mode}{seed}"


def range_words(robustness: Robustness) -> str:
    """Between what values noise lies, of all bands together."""
    low, high = min(low for low, _ in robustness.range), max(high for _, high in robustness.range)
    return f"{low:.4g} to {high:.4g}"


def rows(named: Sequence[tuple[str, Robustness | None]]) -> list[dict[str, object]]:
    """Rows of a table: run, pixels, scores and changes."""
    return [
        {
            "run": name if i == 0 else "",
            "pixels": level.pixels,
            **{key: getattr(level.scores, key) for key in TOLD},
            "change": "" if level.change is None else change_words(level.change.miou),
            **token_page.cells(level.tokens),
        }
        for name, robustness in named
        if robustness is not None
        for i, level in enumerate(robustness.levels)
    ]
