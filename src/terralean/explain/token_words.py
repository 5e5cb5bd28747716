"""What is said of tokens that are left: on the figure and on the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from terralean.explain.numbers import percent
from terralean.explain.page import Caption
from terralean.explain.strips import Lattice
from terralean.explain.token_figure import TokensShown, TokenWords, chosen, steps
from terralean.explain.token_numbers import LayerNumbers, TokenTally
from terralean.explain.tokens import Decisions, Tracer
from terralean.models.lemevit import LeMeViTPyramid
from terralean.raster.grid import Window
from terralean.raster.scene import Scene


def token_words(
    tracer: Tracer, scene: Scene, lattice: Lattice, *, part: Window, shown: TokensShown, tally: TokenTally, sample: Decisions
) -> TokenWords:
    """What is written on the figure of a part of the scene."""
    layers, out = tally.layers(), tracer.stays_out(sample)
    size = f"{Path(scene.path).name}, {part.width} x {part.height} px"
    everything = part == scene.grid.window
    what = "Which tokens are merged" if shown.merges else "Which tokens go on"
    return TokenWords(
        heading=f"{what}: {tracer.reduce.method} in {tracer.predictor.card.model}",
        lines=(_model(tracer, scene, lattice), _meaning(shown, _shares(tally, everything=everything), out=out)),
        scene=size if everything else f"{size} from row {part.row}, column {part.col}",
        captions=tuple(_caption(one) for one in layers),
        sum=_sum(shown, layers, out=out),
        legend=_legend(shown, layers, out=out),
    )


def token_verdict(
    tracer: Tracer, lattice: Lattice, tally: TokenTally, *, sample: Decisions, overlap_px: int
) -> tuple[str, ...]:
    """How many tokens each layer leaves, and what several windows mean; `overlap_px` is that of a map."""
    first, *others = tally.layers()
    verb = "leaves" if sample.merges else "keeps"
    told = [f"layer {first.layer} {verb} {_share(first)} of the tokens"]
    told = [", ".join([*told, *(f"layer {one.layer} {_share(one)}" for one in others)]), *_notes(tracer, sample)]
    if tally.in_part:
        told.append(f"in {tally.in_part} of {tally.windows} windows some places hold no data; shares leave their tokens out")
    if tally.windows > 1:
        told.append(
            f"{tally.windows} windows of {lattice.plan.tile_px} px, each with decisions of its own: where they meet, what "
            f"{'is merged' if sample.merges else 'goes on'} may change"
        )
    if lattice.plan.overlap_px != overlap_px:
        told.append(
            f"windows overlap by {lattice.plan.overlap_px} px here, in a map by {overlap_px} px: only so do all tokens lie on "
            "one grid"
        )
    return tuple(told)


def _share(one: LayerNumbers) -> str:
    spread = "" if one.p5 == one.p95 else f" (p5 {percent(one.p5)}, p95 {percent(one.p95)})"
    return f"{percent(one.share)}{spread}"


def _notes(tracer: Tracer, sample: Decisions) -> Iterator[str]:
    if tracer.reduce.method == "sparsevit":
        yield "windows that a block leaves out are passed on as they are; those of the next block lie elsewhere"
    elif not tracer.stays_out(sample):
        yield "every stage of the network begins with all of its tokens, and shares are of these"
    if _in_s3(tracer):
        yield "layers are the blocks of S3, counted from 1"


def _model(tracer: Tracer, scene: Scene, lattice: Lattice) -> str:
    pixel, px = scene.grid.pixel_m(), lattice.plan.tile_px / lattice.side
    count = len(lattice.plan.rows) * len(lattice.plan.cols)
    metres = "" if pixel is None else f" ({px * pixel[0]:.3g} m)"
    return (
        f"{count} window{'s' if count > 1 else ''} of {lattice.plan.tile_px} px, each of {lattice.side} x {lattice.side} "
        f"tokens of {px:.3g} px{metres}{'; layers are the blocks of S3' if _in_s3(tracer) else ''}"
    )


def _in_s3(tracer: Tracer) -> bool:
    return any(isinstance(part, LeMeViTPyramid) for part in tracer.predictor.model.modules())


def _meaning(shown: TokensShown, shares: str, *, out: bool) -> str:
    layers = len(shown.codes)
    some = "" if len(chosen(layers)) == layers else f"{len(chosen(layers))} of {layers} layers are shown; "
    if shown.merges:
        return f"{some}merged tokens have the mean colour of their group, those that are alone are as they are{shares}"
    return f"{some}under purple, tokens that {'were taken out up to' if out else 'are left out at'} this layer{shares}"


def _shares(tally: TokenTally, *, everything: bool) -> str:
    """What shares are of, where that is not plain."""
    of = [*([] if everything else ["of the whole scene"]), *(["of tokens with data"] if tally.in_part else [])]
    return f"; shares are {' and '.join(of)}" if of else ""


def _caption(one: LayerNumbers) -> Caption:
    spread = "" if one.p5 == one.p95 else f"; p5 {percent(one.p5)}, p95 {percent(one.p95)}"
    return Caption(
        f"after layer {one.layer}: {percent(one.share)} of the tokens", f"{_count(one)} of {one.grid**2} a window{spread}"
    )


def _count(one: LayerNumbers) -> str:
    return f"{one.left:.0f}" if one.left >= 100 else f"{one.left:.1f}".removesuffix(".0")  # noqa: PLR2004 - below, a decimal


def _sum(shown: TokensShown, layers: Sequence[LayerNumbers], *, out: bool) -> Caption:
    if shown.merges:
        return Caption("how many tokens are together", f"after layer {layers[-1].layer}")
    if out:
        return Caption("how far each token went", f"{percent(layers[-1].share)} of the tokens go through all layers")
    return Caption("at how many layers each token went on", "what one leaves out, a later one may work on")


def _legend(shown: TokensShown, layers: Sequence[LayerNumbers], *, out: bool) -> tuple[str, ...]:
    _, count, each = steps(shown)
    if shown.merges:
        sizes = (_between(2 ** (each * (step - 1)) + 1, 2 ** (each * step)) for step in range(count, 0, -1))
        return (*(f"{size} together" for size in sizes), "alone, as it is")
    if out:
        return (*(f"taken out after layer {one.layer}" for one in layers), "goes through all, as it is")
    return (*(f"goes on at {number} of {count} layers" for number in range(count)), "at all of them, as it is")


def _between(low: int, high: int) -> str:
    return f"{high}" if low == high else f"{low} to {high}"
