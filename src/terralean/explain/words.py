"""What is said of attention: on the figure and on the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from terralean.explain.attention import Look, Watcher
from terralean.explain.figure import ScaleWords
from terralean.explain.numbers import BlockNumbers, percent
from terralean.explain.page import named
from terralean.explain.strips import REDUCTION, Lattice
from terralean.raster.grid import Window
from terralean.raster.scene import Scene

LEAST = 0.005  # share of attention on places without data that is worth a line
MORE = 0.5  # different maps of heads beyond those of tokens that are worth a line
ONE_PX = 2048  # longest side of a scene that a model can be expected to see as one
COARSEST_PX = max(REDUCTION)
OTHER = {"token": "head", "head": "token"}
SCALE = {
    "meta": "times the average attention of its window",
    "image": "times what each token would have if all were read alike",
}
CAPTIONS = {
    "meta": "entropy, in percent of that of even attention, and the smallest share of a window with half of the attention",
    "image": "share of all that is read, and the smallest share of a window where half of that is read",
}


def suffix(look: Look) -> str:
    """What tells the files of one look from those of another."""
    of = "_heads" if look.by == "head" else "" if look.head is None else f"_head{look.head}"
    return f"{look.direction}_s{look.shown.stage}b{look.shown.block}{of}"


def words(watcher: Watcher, scene: Scene, lattice: Lattice, *, part: Window, shown: BlockNumbers) -> ScaleWords:
    """What is written on the figure of a part of the scene."""
    look = watcher.look
    what = "Where meta tokens look" if look.direction == "meta" else "Which meta tokens the image reads"
    size = f"{Path(scene.path).name}, {part.width} x {part.height} px"
    everything = part == scene.grid.window
    numbers = f"{differences(shown)}; {CAPTIONS[look.direction]}{'' if everything else ', of the whole scene'}"
    return ScaleWords(
        heading=f"{what}: stage S{look.shown.stage}, block {look.shown.block}",
        lines=(_model(watcher, scene, lattice, averaged=shown.averaged), numbers),
        scene=size if everything else f"{size} from row {part.row}, column {part.col}",
        scale=SCALE[look.direction],
    )


def verdict(watcher: Watcher, lattice: Lattice, blocks: Sequence[BlockNumbers]) -> tuple[str, ...]:
    """A line for each block, the shown one named; one where attention goes to places without data, one for many windows."""
    place = watcher.look.shown
    lines = [_block(block, shown=(block.stage, block.block) == place) for block in blocks]
    shown = next(block for block in blocks if (block.stage, block.block) == place)
    if look_at_heads(shown):
        lines.append(f"heads differ more than tokens in S{place.stage} block {place.block}: --by head shows them")
    if (shown.without_data or 0) > LEAST:
        lines.append(
            f"{percent(shown.without_data or 0)} of the attention is on places without data, which no number here counts"
        )
    return (*lines, *_windows(watcher, lattice))


def look_at_heads(block: BlockNumbers) -> bool:
    """Whether a mean over the heads hides more than the tokens show."""
    return block.by == "token" and block.without_data is not None and (block.distinct_averaged or 0) > block.distinct + MORE


def differences(block: BlockNumbers) -> str:
    """How many different maps there are."""
    other = "" if block.distinct_averaged is None else f", {block.averaged} {OTHER[block.by]}s {block.distinct_averaged:.1f}"
    if len(block.maps) == 1:
        return f"1 {block.by} has its map{other}"
    return f"{len(block.maps)} {block.by}s have {block.distinct:.1f} different maps{other}"


def _block(block: BlockNumbers, *, shown: bool) -> str:
    entropy, half = (sum(getattr(one, key) for one in block.maps) / len(block.maps) for key in ("entropy_share", "half"))
    return (
        f"S{block.stage} block {block.block}{' (shown)' if shown else ''}: {differences(block)}; entropy {percent(entropy)} of "
        f"even, half in {percent(half)}"
    )


def _windows(watcher: Watcher, lattice: Lattice) -> Iterator[str]:
    """What several windows mean, and how a small scene is seen as one."""
    plan, card = lattice.plan, watcher.predictor.card
    count, side = len(plan.rows) * len(plan.cols), max(plan.grid.width, plan.grid.height)
    if count == 1 or watcher.look.direction == "image":
        return
    step = COARSEST_PX * card.shrink
    whole = f"; --tile {-(-side // step) * step} would see the scene as one" if side <= ONE_PX and card.seen_px is None else ""
    yield f"{count} windows of {plan.tile_px} px, each compared with its own average{whole}"


def _model(watcher: Watcher, scene: Scene, lattice: Lattice, *, averaged: int) -> str:
    look, pixel = watcher.look, scene.grid.pixel_m()
    px, count = lattice.plan.tile_px / lattice.side, len(lattice.plan.rows) * len(lattice.plan.cols)
    windows = f"{count} window{'s' if count > 1 else ''} of {lattice.plan.tile_px} px"
    metres = "" if pixel is None else f" ({px * pixel[0]:.3g} m)"
    kind = "cross-attention" if look.shown.stage == 0 else "dual cross-attention"
    return (
        f"{watcher.predictor.card.model}, {kind}, {_mean(look, averaged=averaged)}; {windows}, "
        f"{lattice.side} x {lattice.side} places of {px:.3g} px{metres}"
    )


def _mean(look: Look, *, averaged: int) -> str:
    """What each map is the mean of."""
    if look.by == "head":
        return f"mean of the tokens {named(look.tokens)}" if averaged > 1 else f"token {look.tokens[0]}"
    if look.head is not None:
        return f"head {look.head}"
    return f"mean of {averaged} heads" if averaged > 1 else "its one head"
