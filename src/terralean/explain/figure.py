"""One picture: the scene, and beside it where each meta token looks.

Tokens (or heads) that look at the same places share a picture; in a model that has learned little, most tokens do. Colours
tell how many times the average attention a place has: grey as the scene where it is the average, orange to yellow above, blue
below, on a scale of ratios that all pictures share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from terralean.explain.numbers import BlockNumbers, alike, percent
from terralean.explain.page import INK, MARGIN_PX, PLAIN_PX, SMALL_PX, Caption, Page, Words, greyed, named, png, write

ALIKE = 0.995  # cosine from which maps share a picture: side by side nobody sees a difference
ENDS = (1.1, 1.25, 1.5, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0, 1024.0)  # of the scale, times the average
WITHIN = 0.995  # of all places are below the upper end of the scale; those above have its colour
# Colours along the scale, and how much of the grey scene they cover.
STOPS = (-1.0, -0.5, 0.0, 0.5, 1.0)
COLOURS = ((8, 29, 88), (34, 94, 168), (150, 150, 150), (236, 112, 20), (255, 237, 120))
COVER = (0.88, 0.66, 0.0, 0.72, 0.94)
MANY = 16.0  # times the average: a longer scale has marks at powers of four
SCALE_PX = (420, 14)  # width and height of the colour scale


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleWords(Words):
    """What is written on the figure, with what the colours are."""

    scale: str  # beside the colours


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Shown:
    """What is drawn."""

    scene: NDArray[np.uint8]  # (H, W, 3)
    maps: NDArray[np.float32]  # (K, h, w), 1 = average, NaN where there is no data
    box: tuple[float, float, float, float]  # left, top, right, bottom of the scene in the maps, as shares of their sides


def draw(shown: Shown, *, numbers: BlockNumbers, words: ScaleWords, share: bool) -> bytes:
    """A PNG of the scene and the maps; with `share`, maps that are alike share a picture, their mean."""
    groups = alike(np.array(numbers.cosine), least=ALIKE) if share else [[place] for place in range(len(shown.maps))]
    ends, page = scale_ends(shown.maps), Page(shown.scene, pictures=len(groups), words=words, foot_px=90)
    grey = page.scene.convert("L").resize((page.layout.width, page.layout.height), Image.Resampling.LANCZOS)
    page.put(
        (tint(grey, shown.maps[group].mean(axis=0), box=shown.box, ends=ends), _captions(group, numbers)) for group in groups
    )
    _draw_scale(page.sheet, page.pen, ends=ends, top=page.foot + 14, text=words.scale)
    return png(page.sheet)


def scale_ends(maps: NDArray[np.float32]) -> float:
    """The ratio at the upper end of the scale, 1 over it at the lower: the smallest round one that few places are beyond."""
    known = maps[np.isfinite(maps)]
    needed = float(np.quantile(known, WITHIN)) if known.size else 1.0
    return next((end for end in ENDS if end >= needed), ENDS[-1])


def ticks(ends: float) -> list[tuple[float, str]]:
    """Places along the scale (-1 to 1) and what is written there: its ends, 1, and powers of two or four between."""
    base = 2.0 if ends <= MANY else 4.0
    powers = [base**i for i in range(1, 10) if base**i <= ends] or [ends]
    above = [(math.log(ratio) / math.log(ends), f"{ratio:g}") for ratio in powers]
    return [*((-at, f"1/{label}") for at, label in reversed(above)), (0.0, "1"), *above]


def tint(
    grey: Image.Image, attention: NDArray[np.float32], *, box: tuple[float, float, float, float], ends: float
) -> Image.Image:
    """The grey scene under the colours of its part of the attention (h, w); left grey where there is no data."""
    height, width = attention.shape
    part = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    known = Image.fromarray(np.nan_to_num(attention, nan=1.0).astype(np.float32))
    shown = known.resize(grey.size, Image.Resampling.BOX, box=part)
    place = np.clip(np.log(np.maximum(np.asarray(shown), 1e-6)) / math.log(ends), -1, 1)
    return Image.fromarray(_over(greyed(grey), place))


def _captions(group: Sequence[int], numbers: BlockNumbers) -> Caption:
    """Whose picture it is, and how even and how wide their look is (the mean of several), or how much they are read."""
    found = [numbers.maps[place] for place in group]
    name = f"{numbers.by}{'s' if len(found) > 1 else ''} {named([one.number for one in found])}"
    bits, share, half = (
        sum(getattr(one, key) for one in found) / len(found) for key in ("entropy_bits", "entropy_share", "half")
    )
    how = f"entropy {bits:.1f} bits ({percent(share)})"
    if numbers.without_data is None:
        how = f"{percent(sum(one.read or 0 for one in found))} of what is read"
    return Caption(name, f"{how}, half in {percent(half)}")


def _over(ground: NDArray[np.float64], place: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Colours of places on the scale (-1 to 1) over grey ground, (h, w, 3)."""
    colour = np.stack([np.interp(place, STOPS, channel) for channel in zip(*COLOURS, strict=True)], axis=-1)
    cover = np.interp(place, STOPS, COVER)[..., None]
    return np.rint(cover * colour + (1 - cover) * ground[..., None]).astype(np.uint8)


def _draw_scale(page: Image.Image, pen: ImageDraw.ImageDraw, *, ends: float, top: int, text: str) -> None:
    width, height = SCALE_PX
    place = np.linspace(-1, 1, width)[None].repeat(height, axis=0)
    page.paste(Image.fromarray(_over(np.full(place.shape, 150.0), place)), (MARGIN_PX, top))
    for at, label in ticks(ends):
        x = MARGIN_PX + (at + 1) / 2 * (width - 1)
        pen.line([(x, top + height), (x, top + height + 4)], fill=INK)
        pen.text((x, top + height + 6), label, font=ImageFont.load_default(SMALL_PX), fill=INK, anchor="ma")
    write(pen, (MARGIN_PX + width + 18, top - 2), text, size=PLAIN_PX)
