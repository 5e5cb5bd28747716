"""One picture: the scene, and beside it where each meta token looks.

Tokens (or heads) that look at the same places share a picture; in a model that has learned little, most tokens do. Colours
tell how many times the average attention a place has: grey as the scene where it is the average, orange to yellow above, blue
below, on a scale of ratios that all pictures share.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from terralean.explain.numbers import BlockNumbers, alike, percent

ALIKE = 0.995  # cosine from which maps share a picture: side by side nobody sees a difference
ENDS = (1.1, 1.25, 1.5, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0, 1024.0)  # of the scale, times the average
WITHIN = 0.995  # of all places are below the upper end of the scale; those above have its colour
WIDTH_PX, MARGIN_PX, GAP_PX, CAPTION_PX = 1400, 28, 14, 48
LARGE_PX, PLAIN_PX, SMALL_PX = 25, 16, 14  # of letters
INK, FAINT, PAPER = (32, 33, 36), (95, 99, 104), (255, 255, 255)
# Colours along the scale, and how much of the grey scene they cover.
STOPS = (-1.0, -0.5, 0.0, 0.5, 1.0)
COLOURS = ((8, 29, 88), (34, 94, 168), (150, 150, 150), (236, 112, 20), (255, 237, 120))
COVER = (0.88, 0.66, 0.0, 0.72, 0.94)
GREYS = (92, 212)  # of the darkest and the lightest place under the colours: neither black nor white hides them
AS_LARGE = 3  # pictures up to which all are as large as the scene
TALLEST_PX = 800  # of the scene's picture
PAPER_INDEX = 255  # the place of white in the palette
MANY = 16.0  # times the average: a longer scale has marks at powers of four
SCALE_PX = (420, 14)  # width and height of the colour scale


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """What is written on the figure."""

    heading: str
    lines: tuple[str, ...]
    scene: str  # under the scene
    scale: str  # beside the colours


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Shown:
    """What is drawn."""

    scene: NDArray[np.uint8]  # (H, W, 3)
    maps: NDArray[np.float32]  # (K, h, w), 1 = average, NaN where there is no data
    box: tuple[float, float, float, float]  # left, top, right, bottom of the scene in the maps, as shares of their sides


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Pictures in a grid of columns; the scene takes a square of `image` x `image` of its cells, top left."""

    columns: int
    rows: int
    image: int
    column: int  # width of a cell, px
    width: int  # of a small picture, px
    height: int

    def scene(self) -> tuple[int, int]:
        """Width and height of the scene's picture in px: as large as its cells allow."""
        across = self.image * self.column + (self.image - 1) * GAP_PX
        down = self.image * self.height + (self.image - 1) * (CAPTION_PX + GAP_PX)
        scale = min(across / self.width, down / self.height)
        return round(scale * self.width), round(scale * self.height)

    def corners(self) -> Iterator[tuple[int, int]]:
        """Left and top of the small pictures by rows, without those that the scene covers."""
        for row, column in product(range(self.rows), range(self.columns)):
            if row >= self.image or column >= self.image:
                yield MARGIN_PX + column * (self.column + GAP_PX), row * (self.height + CAPTION_PX + GAP_PX)

    @property
    def depth(self) -> int:
        """Height of all rows in px."""
        return self.rows * (self.height + CAPTION_PX + GAP_PX)


def draw(shown: Shown, *, numbers: BlockNumbers, words: Words, share: bool) -> bytes:
    """A PNG of the scene and the maps; with `share`, maps that are alike share a picture, their mean."""
    groups = alike(np.array(numbers.cosine), least=ALIKE) if share else [[place] for place in range(len(shown.maps))]
    layout = arrange(len(groups), shape=shown.scene.shape[1] / shown.scene.shape[0])
    ends, top = scale_ends(shown.maps), MARGIN_PX + 40 + 22 * len(words.lines) + 10
    page = Image.new("RGB", (WIDTH_PX, top + layout.depth + 90), PAPER)
    pen = ImageDraw.Draw(page)
    _write(pen, (MARGIN_PX, MARGIN_PX), words.heading, size=LARGE_PX)
    for index, line in enumerate(words.lines):
        _write(pen, (MARGIN_PX, MARGIN_PX + 40 + 22 * index), line, size=PLAIN_PX, fill=FAINT)
    scene = Image.fromarray(shown.scene).resize(layout.scene(), Image.Resampling.LANCZOS)
    page.paste(scene, (MARGIN_PX, top))
    _write(pen, (MARGIN_PX, top + scene.height + 6), words.scene, size=PLAIN_PX, width=layout.image * layout.column)
    grey = scene.convert("L").resize((layout.width, layout.height), Image.Resampling.LANCZOS)
    for group, (left, down) in zip(groups, layout.corners(), strict=False):
        page.paste(tint(grey, shown.maps[group].mean(axis=0), box=shown.box, ends=ends), (left, top + down))
        name, said = _captions(group, numbers)
        _write(pen, (left, top + down + layout.height + 5), name, size=PLAIN_PX, width=layout.column)
        _write(pen, (left, top + down + layout.height + 25), said, size=SMALL_PX, fill=FAINT, width=layout.column)
    _draw_scale(page, pen, ends=ends, top=top + layout.depth + 14, text=words.scale)
    return _png(page)


def arrange(pictures: int, *, shape: float) -> Layout:
    """A layout for so many pictures of this ratio of width to height, with few empty cells and neither flat nor tall."""
    image = 1 if pictures <= AS_LARGE else 2
    able = [_layout(columns, pictures, image=image, shape=shape) for columns in range(image, 13)]
    return min(able, key=lambda one: _waste(one, pictures))


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
    low, high = GREYS
    ground = low + np.asarray(grey, np.float64) / 255 * (high - low)
    return Image.fromarray(_over(ground, place))


def named(numbers: Sequence[int]) -> str:
    """Numbers in words: runs of three and more as a range, "0-4, 7, 8"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = [f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]  # noqa: PLR2004 - 3, 4 is shorter
    return ", ".join(parts)


def _layout(columns: int, pictures: int, *, image: int, shape: float) -> Layout:
    rows = max(image, -(-(pictures + image**2) // columns))
    column = (WIDTH_PX - 2 * MARGIN_PX - (columns - 1) * GAP_PX) // columns
    height = max(1, min(TALLEST_PX // image, round(column / shape)))
    width = max(1, min(column, round(height * shape)))
    return Layout(columns=columns, rows=rows, image=image, column=column, width=width, height=height)


def _waste(layout: Layout, pictures: int) -> float:
    """How much of the page is empty, and how far its pictures are from seven tenths as high as wide."""
    cells = layout.columns * layout.rows
    empty = 1 - (pictures + layout.image**2) * layout.width / (cells * layout.column)
    return 4 * empty + abs(math.log(layout.depth / (0.7 * WIDTH_PX)))


def _captions(group: Sequence[int], numbers: BlockNumbers) -> tuple[str, str]:
    """Whose picture it is, and how even and how wide their look is (the mean of several), or how much they are read."""
    found = [numbers.maps[place] for place in group]
    name = f"{numbers.by}{'s' if len(found) > 1 else ''} {named([one.number for one in found])}"
    bits, share, half = (
        sum(getattr(one, key) for one in found) / len(found) for key in ("entropy_bits", "entropy_share", "half")
    )
    how = f"entropy {bits:.1f} bits ({percent(share)})"
    if numbers.without_data is None:
        how = f"{percent(sum(one.read or 0 for one in found))} of what is read"
    return name, f"{how}, half in {percent(half)}"


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
    _write(pen, (MARGIN_PX + width + 18, top - 2), text, size=PLAIN_PX)


def _write(
    pen: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    *,
    size: int,
    fill: tuple[int, int, int] = INK,
    width: int = WIDTH_PX - 2 * MARGIN_PX,
) -> None:
    """One line, cut where it would leave its width."""
    font = ImageFont.load_default(size)
    if font.getlength(text) > width:
        while text and font.getlength(f"{text}...") > width:
            text = text[:-1]
        text = f"{text}..."
    pen.text(corner, text, font=font, fill=fill)


def _png(page: Image.Image) -> bytes:
    """With a palette, a third of the bytes; this kind, refined, keeps the rare yellow and gives the grey no tint.

    It is found from every sixteenth pixel: from all of them it takes up to a hundred times as long.
    """
    few = page.resize((page.width // 4, page.height // 4), Image.Resampling.NEAREST)
    palette = few.quantize(255, method=Image.Quantize.MAXCOVERAGE, kmeans=4, dither=Image.Dither.NONE)
    colours = (palette.getpalette() or [])[: 255 * 3]
    index = np.asarray(page.quantize(palette=palette, dither=Image.Dither.NONE)).copy()
    index[(np.asarray(page) == PAPER).all(axis=-1)] = PAPER_INDEX  # what is nearest to white there may be a cloud's grey
    small = Image.fromarray(index)
    small.putpalette([*colours, *[0] * (255 * 3 - len(colours)), *PAPER])
    out = io.BytesIO()
    small.save(out, "PNG", optimize=True)
    return out.getvalue()
