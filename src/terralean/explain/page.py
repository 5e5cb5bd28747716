"""The page of a figure: a heading, the scene at the top left, small pictures around it, and what is written of them."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

WIDTH_PX, MARGIN_PX, GAP_PX, CAPTION_PX = 1400, 28, 14, 48
LARGE_PX, PLAIN_PX, SMALL_PX = 25, 16, 14  # of letters
INK, FAINT, PAPER = (32, 33, 36), (95, 99, 104), (255, 255, 255)
GREYS = (92, 212)  # of the darkest and the lightest place under colours: neither black nor white hides them
AS_LARGE = 3  # pictures up to which all are as large as the scene
TALLEST_PX = 800  # of the scene's picture
PAPER_INDEX = 255  # the place of white in the palette


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """What is written on the figure."""

    heading: str
    lines: tuple[str, ...]
    scene: str  # under the scene


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


class Caption(NamedTuple):
    """Two lines under a picture."""

    name: str
    said: str


class Page:
    """A sheet with its heading and the scene; pictures, captions and what explains the colours are put onto it."""

    def __init__(self, scene: NDArray[np.uint8], *, pictures: int, words: Words, foot_px: int) -> None:
        self.layout = arrange(pictures, shape=scene.shape[1] / scene.shape[0])
        self._top = MARGIN_PX + 40 + 22 * len(words.lines) + 10
        self.foot = self._top + self.layout.depth  # below it the sheet is free
        self.sheet = Image.new("RGB", (WIDTH_PX, self.foot + foot_px), PAPER)
        self.pen = ImageDraw.Draw(self.sheet)
        write(self.pen, (MARGIN_PX, MARGIN_PX), words.heading, size=LARGE_PX)
        for index, line in enumerate(words.lines):
            write(self.pen, (MARGIN_PX, MARGIN_PX + 40 + 22 * index), line, size=PLAIN_PX, fill=FAINT)
        self.scene = Image.fromarray(scene).resize(self.layout.scene(), Image.Resampling.LANCZOS)
        self.sheet.paste(self.scene, (MARGIN_PX, self._top))
        below = self._top + self.scene.height + 6
        write(self.pen, (MARGIN_PX, below), words.scene, size=PLAIN_PX, width=self.layout.image * self.layout.column)

    def small(self) -> Image.Image:
        """The scene as large as the other pictures."""
        return self.scene.resize((self.layout.width, self.layout.height), Image.Resampling.LANCZOS)

    def put(self, pictures: Iterable[tuple[Image.Image, Caption]], *, first: int = 0) -> None:
        """Pictures in their cells from the first one on, with their captions."""
        width, height = self.layout.column, self.layout.height
        for (picture, caption), (left, down) in zip(pictures, islice(self.layout.corners(), first, None), strict=False):
            top = self._top + down
            self.sheet.paste(picture, (left, top))
            write(self.pen, (left, top + height + 5), caption.name, size=PLAIN_PX, width=width)
            write(self.pen, (left, top + height + 25), caption.said, size=SMALL_PX, fill=FAINT, width=width)


def arrange(pictures: int, *, shape: float) -> Layout:
    """A layout for so many pictures of this ratio of width to height, with few empty cells and neither flat nor tall."""
    image = 1 if pictures <= AS_LARGE else 2
    able = [_layout(columns, pictures, image=image, shape=shape) for columns in range(image, 13)]
    return min(able, key=lambda one: _waste(one, pictures))


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


def write(
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


def png(page: Image.Image) -> bytes:
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


def greyed(picture: Image.Image) -> NDArray[np.float64]:
    """The grey values (h, w) of a picture, as ground under colours."""
    low, high = GREYS
    return low + np.asarray(picture.convert("L"), np.float64) / 255 * (high - low)
