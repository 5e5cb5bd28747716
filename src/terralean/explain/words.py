"""What is said of attention: on the figure and on the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from terralean.explain.attention import Look, Watcher
from terralean.explain.figure import Words
from terralean.explain.numbers import BlockNumbers, percent
from terralean.explain.strips import REDUCTION, Lattice
from terralean.raster.grid import Window
from terralean.raster.scene import Scene

LEAST = 0.005  # share of attention on places without data that is worth a line
ONE_PX = 2048  # longest side of a scene that a model can be expected to see as one
COARSEST_PX = max(REDUCTION)
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
    head = "" if look.head is None else f"h{look.head}"
    return f"{look.direction}_s{look.shown.stage}b{look.shown.block}{head}"


def words(watcher: Watcher, scene: Scene, lattice: Lattice, *, part: Window, shown: BlockNumbers) -> Words:
    """What is written on the figure of a part of the scene."""
    look = watcher.look
    what = "Where meta tokens look" if look.direction == "meta" else "Which meta tokens the image reads"
    size = f"{Path(scene.path).name}, {part.width} x {part.height} px"
    everything = part == scene.grid.window
    numbers = f"{differences(shown)}; {CAPTIONS[look.direction]}{'' if everything else ', of the whole scene'}"
    return Words(
        heading=f"{what}: stage S{look.shown.stage}, block {look.shown.block}",
        lines=(_model(watcher, scene, lattice, heads=shown.heads), numbers),
        scene=size if everything else f"{size} from row {part.row}, column {part.col}",
        scale=SCALE[look.direction],
    )


def verdict(watcher: Watcher, lattice: Lattice, blocks: Sequence[BlockNumbers]) -> tuple[str, ...]:
    """A line for each block, the shown one named; one where attention goes to places without data, one for many windows."""
    place = watcher.look.shown
    lines = [_block(block, shown=(block.stage, block.block) == place) for block in blocks]
    without = next(block.without_data for block in blocks if (block.stage, block.block) == place) or 0.0
    if without > LEAST:
        lines.append(f"{percent(without)} of the attention is on places without data, which no number here counts")
    return (*lines, *_windows(watcher, lattice))


def differences(block: BlockNumbers) -> str:
    """How many different maps there are."""
    heads = "" if block.distinct_heads is None else f", {block.heads} heads {block.distinct_heads:.1f}"
    many = (
        "1 token has its map"
        if len(block.tokens) == 1
        else f"{len(block.tokens)} tokens have {block.distinct_tokens:.1f} different maps"
    )
    return f"{many}{heads}"


def _block(block: BlockNumbers, *, shown: bool) -> str:
    entropy, half = (sum(getattr(one, key) for one in block.tokens) / len(block.tokens) for key in ("entropy_share", "half"))
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


def _model(watcher: Watcher, scene: Scene, lattice: Lattice, *, heads: int) -> str:
    look, pixel = watcher.look, scene.grid.pixel_m()
    px, count = lattice.plan.tile_px / lattice.side, len(lattice.plan.rows) * len(lattice.plan.cols)
    windows = f"{count} window{'s' if count > 1 else ''} of {lattice.plan.tile_px} px"
    metres = "" if pixel is None else f" ({px * pixel[0]:.3g} m)"
    kind = "cross-attention" if look.shown.stage == 0 else "dual cross-attention"
    head = f"head {look.head}" if look.head is not None else f"mean of {heads} head{'s' if heads > 1 else ''}"
    return (
        f"{watcher.predictor.card.model}, {kind}, {head}; {windows}, "
        f"{lattice.side} x {lattice.side} places of {px:.3g} px{metres}"
    )
