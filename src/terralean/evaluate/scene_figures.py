"""Pictures of a report on scene recognition: small photographs, a sheet of them with answers, and large matrices as cells."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from terralean.data.scene_config import SceneDataConfig
from terralean.data.scene_picture import Picture as Scene
from terralean.data.scene_picture import read_picture
from terralean.evaluate.figures import LEAST, RIGHT_RGB, WRONG_RGB, Photo
from terralean.raster.display import display_bands, hatch, stretch

PHOTO_PX = 144  # side of a photograph in the page: sharp as it is shown, and thirty take 300 kB
QUALITY = 88  # of its JPEG
COLUMNS = 6  # of the sheet
CELL_PX = (176, 176)  # side of a photograph of the sheet, and height of the words below it that is added
WORDS_PX = 46
GAP_PX = 10
TEXT_PX = 14
INK_RGB = (27, 30, 34)


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """A photograph with what is said of it."""

    photo: Photo
    label: str  # its class
    answer: str
    confidence: float

    @property
    def right(self) -> bool:
        """Whether the answer is its class."""
        return self.label == self.answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A cell of a matrix that holds something."""

    row: int
    col: int
    images: int
    share: float  # of the row
    depth: float  # of its colour, 0..1, by the root of the share: small ones count here

    @property
    def right(self) -> bool:
        """Whether it lies on the diagonal."""
        return self.row == self.col


def photograph(path: str, *, config: SceneDataConfig) -> Photo:
    """The central square of an image as a person would see it; hatched where it is not valid."""
    picture = read_picture(path, config=config, keep_px=PHOTO_PX)
    image = Image.fromarray(_square(colours(picture)))
    if image.width > PHOTO_PX:
        image = image.resize((PHOTO_PX, PHOTO_PX), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY, subsampling=0)
    return Photo(jpeg=out.getvalue())


def colours(picture: Scene) -> NDArray[np.uint8]:
    """Colours for the screen (H, W, 3): those of a photograph are as they are, other values are stretched."""
    shown = display_bands(picture.bands)
    if picture.bands.dtype != "uint8" or len(shown) == 1:
        return stretch(picture.values, picture.valid, bands=picture.bands)
    return np.where(picture.valid[..., None], np.moveaxis(picture.values[list(shown)], 0, -1), hatch(*picture.valid.shape))


def cells(counts: NDArray[np.int64]) -> list[Cell]:
    """The cells of a confusion matrix (K, K) that are not empty; a share of one in a thousand can still be seen."""
    support = counts.sum(axis=1)
    return [
        Cell(
            row=int(i),
            col=int(j),
            images=int(counts[i, j]),
            share=float(counts[i, j] / support[i]),
            depth=round(LEAST + (1 - LEAST) * math.sqrt(counts[i, j] / support[i]), 3),
        )
        for i, j in zip(*np.nonzero(counts), strict=True)
    ]


def sheet(examples: Sequence[Told]) -> bytes:
    """One PNG of photographs with their answers below, and the class where that is another."""
    columns = min(COLUMNS, len(examples))
    rows = -(-len(examples) // columns)
    wide, high = CELL_PX[0] + GAP_PX, CELL_PX[1] + WORDS_PX + GAP_PX
    page = Image.new("RGB", (columns * wide + GAP_PX, rows * high + GAP_PX), "white")
    for number, told in enumerate(examples):
        row, col = divmod(number, columns)
        _put(page, told, left=GAP_PX + col * wide, top=GAP_PX + row * high)
    out = io.BytesIO()
    page.quantize(256).save(out, "PNG", optimize=True)  # a palette is a third of the bytes and looks the same
    return out.getvalue()


def _square(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    side = min(rgb.shape[:2])
    row, col = ((length - side) // 2 for length in rgb.shape[:2])
    return np.ascontiguousarray(rgb[row : row + side, col : col + side])


def _put(page: Image.Image, told: Told, *, left: int, top: int) -> None:
    photo = Image.open(io.BytesIO(told.photo.jpeg)).resize(CELL_PX, Image.Resampling.LANCZOS)
    page.paste(photo, (left, top))
    draw = ImageDraw.Draw(page)
    colour = RIGHT_RGB if told.right else WRONG_RGB
    draw.rectangle((left, top + CELL_PX[1], left + CELL_PX[0] - 1, top + CELL_PX[1] + 3), fill=colour)
    font = ImageFont.load_default(size=TEXT_PX)
    first = top + CELL_PX[1] + 7
    sure = f" {100 * told.confidence:.0f} %"
    name = _fitted(told.answer, font, room=CELL_PX[0] - font.getlength(sure))
    draw.text((left, first), name + sure, fill=colour, font=font)
    if not told.right:
        draw.text((left, first + TEXT_PX + 5), _fitted(f"is {told.label}", font, room=CELL_PX[0]), fill=INK_RGB, font=font)


def _fitted(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, *, room: float) -> str:
    """The text, or as much of it as there is room for, px."""
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}…") > room:
        text = text[:-1]
    return f"{text}…"
