"""One picture: the scene, what each layer leaves of its tokens, and how that adds up.

Tokens that were taken out lie under a purple that land and water seldom have, and that stands apart from the scene's colours
for colour-blind eyes too; those that went on are seen as they are. Merged tokens have the mean colour of their group and a
border around them, as far as they lie together; tokens that are alone are seen as they are. In the sum, darker is sooner gone,
or together with more others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from terralean.explain.page import INK, MARGIN_PX, PLAIN_PX, WIDTH_PX, Caption, Page, Words, greyed, png

MOST = 4  # layers that have a picture; of more, some evenly spread ones
MOST_SIZES = 6  # of groups that have a shade
VEIL = (118, 32, 130)
# From the first shade to the last; "magma" without its ends, which hide what is under them.
SHADES = ((52, 16, 104), (118, 32, 130), (183, 55, 121), (236, 96, 94), (254, 170, 118))
COVER = 0.68  # of the grey scene under a colour
MEAN_COVER = 0.85  # of the scene under the mean colour of a group
BORDERS, BORDER_COVER = ((250, 250, 250), (16, 16, 20)), 0.55  # on dark ground and on light
DARK = 96  # grey up to which ground is dark
CLEAR_PX, LEAST_PX = 9, 3  # of a place in the picture: borders are fainter below the first, and not drawn below the other
SWATCH_PX, LINE_PX = (30, 16), 26  # width and height in the legend; of its lines


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenWords(Words):
    """What is written on the figure."""

    captions: tuple[Caption, ...]  # of each layer
    sum: Caption
    legend: tuple[str, ...]  # of the sum: the shades from dark to light, then what is seen as it is


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TokensShown:
    """What is drawn."""

    scene: NDArray[np.uint8]  # (H, W, 3)
    merges: bool
    codes: NDArray[np.int64]  # (layers, h, w), see `Strip`
    sizes: NDArray[np.uint16]  # (layers, h, w)
    data: NDArray[np.bool_]  # (h, w)
    box: tuple[float, float, float, float]  # left, top, right, bottom of the scene in these, as shares of their sides


class Steps(NamedTuple):
    """A number for each place: 0 where a token was the first to go, or is in one of the largest groups."""

    grid: NDArray[np.int64]  # (h, w)
    untouched: int  # the number of places to whose tokens nothing happened, or that hold no data
    doublings: int = 1  # of the size of a group from one step to the next


def draw_tokens(shown: TokensShown, words: TokenWords) -> bytes:
    """A PNG of the scene, of layers and of their sum."""
    layers, places = chosen(len(shown.codes)), legend_places(words.legend)
    summed = shown.merges or len(layers) > 1  # where one layer takes tokens out, its picture says it all
    page = Page(shown.scene, pictures=len(layers) + summed, words=words, foot_px=40 + LINE_PX * (1 + places[-1][1]))
    small, paint = page.small(), _merged if shown.merges else _veiled
    page.put((paint(small, shown, layer), words.captions[layer]) for layer in layers)
    if summed:
        page.put([(_summed(small, shown), words.sum)], first=len(layers))
    _draw_legend(page, words.legend, places)
    return png(page.sheet)


def chosen(layers: int) -> list[int]:
    """Positions of the layers that have a picture: the last, and others evenly before it."""
    shown = min(layers, MOST)
    return [round((number + 1) * layers / shown) - 1 for number in range(shown)]


def steps(shown: TokensShown) -> Steps:
    """How far each token went, or in doublings how many others it is not together with."""
    if not shown.merges:
        count = len(shown.codes)
        return Steps(np.where(shown.data, (shown.codes > 0).sum(axis=0), count), count)
    doublings = np.ceil(np.log2(np.maximum(shown.sizes[-1], 1))).astype(np.int64)
    each = max(1, -(-int(doublings.max()) // MOST_SIZES))
    found = -(-doublings // each)
    return Steps(found.max() - found, int(found.max()), each)


def shades(count: int) -> NDArray[np.float64]:
    """(count, 3) colours in even steps from dark to light; one alone is that of the veil."""
    place = np.linspace(0, len(SHADES) - 1, count) if count != 1 else np.array([SHADES.index(VEIL)])
    return np.stack([np.interp(place, range(len(SHADES)), channel) for channel in zip(*SHADES, strict=True)], axis=-1)


def zoomed(values: NDArray, *, box: tuple[float, float, float, float], width: int, height: int) -> NDArray:
    """The box of values (h, w) as (height, width): each pixel has the value at its middle."""
    left, top, right, bottom = box
    down = (top + (np.arange(height) + 0.5) / height * (bottom - top)) * values.shape[0]
    across = (left + (np.arange(width) + 0.5) / width * (right - left)) * values.shape[1]
    return values[np.ix_(down.astype(int).clip(0, values.shape[0] - 1), across.astype(int).clip(0, values.shape[1] - 1))]


def mean_colours(picture: NDArray[np.uint8], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """picture (H, W, 3) and the group of each pixel (H, W) -> the mean colour of its group, (H, W, 3)."""
    _, index = np.unique(groups, return_inverse=True)
    counts = np.bincount(index.ravel())
    channels = [np.bincount(index.ravel(), weights=picture[..., i].ravel()) / counts for i in range(picture.shape[-1])]
    return np.stack(channels, axis=-1)[index].reshape(picture.shape)


def borders(groups: NDArray[np.int64], together: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(H, W) true on the last pixels before another group, if one of the two has several members."""
    found = np.zeros(groups.shape, np.bool_)
    found[:-1] |= (groups[:-1] != groups[1:]) & (together[:-1] | together[1:])
    found[:, :-1] |= (groups[:, :-1] != groups[:, 1:]) & (together[:, :-1] | together[:, 1:])
    return found


def _veiled(picture: Image.Image, shown: TokensShown, layer: int) -> Image.Image:
    gone = shown.data & (shown.codes[layer] == 0)
    return _tinted(picture, zoomed(np.where(gone, 0, 1), box=shown.box, width=picture.width, height=picture.height), shades(1))


def _summed(picture: Image.Image, shown: TokensShown) -> Image.Image:
    grid, untouched, _ = steps(shown)
    return _tinted(picture, zoomed(grid, box=shown.box, width=picture.width, height=picture.height), shades(untouched))


def _tinted(picture: Image.Image, step: NDArray[np.int64], colours: NDArray[np.float64]) -> Image.Image:
    """Colours by step (H, W) over the grey scene; the picture itself where there is no colour for a step."""
    own = np.asarray(picture)
    inside = step < len(colours)
    colour = np.append(colours, [[0, 0, 0]], axis=0)[step.clip(max=len(colours))]
    mixed = COVER * colour + (1 - COVER) * greyed(picture)[..., None]
    return Image.fromarray(np.where(inside[..., None], np.rint(mixed), own).astype(np.uint8))


def _merged(picture: Image.Image, shown: TokensShown, layer: int) -> Image.Image:
    fitted = partial(zoomed, box=shown.box, width=picture.width, height=picture.height)
    own, groups = np.asarray(picture), fitted(np.where(shown.data, shown.codes[layer], -1))
    together = fitted(shown.data & (shown.sizes[layer] > 1))
    mixed = np.where(together[..., None], MEAN_COVER * mean_colours(own, groups) + (1 - MEAN_COVER) * own, own)
    place_px = picture.width / ((shown.box[2] - shown.box[0]) * shown.data.shape[1])
    if place_px >= LEAST_PX:
        cover = BORDER_COVER * min(1.0, place_px / CLEAR_PX)
        colour = np.array(BORDERS)[(mixed.mean(axis=-1) > DARK).astype(int)]
        line = borders(groups, together)[..., None]
        mixed = np.where(line, cover * colour + (1 - cover) * mixed, mixed)
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def legend_places(labels: Sequence[str]) -> list[tuple[float, int]]:
    """Left end of each entry of the legend in px, and its line from 0: as many on a line as it takes."""
    font, found, left, line = ImageFont.load_default(PLAIN_PX), [], float(MARGIN_PX), 0
    for label in labels:
        width = SWATCH_PX[0] + 8 + font.getlength(label)
        if left + width > WIDTH_PX - MARGIN_PX and left > MARGIN_PX:
            left, line = float(MARGIN_PX), line + 1
        found.append((left, line))
        left += width + 28
    return found


def _draw_legend(page: Page, labels: Sequence[str], places: Sequence[tuple[float, int]]) -> None:
    """Swatches of the shades, and one of the scene."""
    font, (width, height) = ImageFont.load_default(PLAIN_PX), SWATCH_PX
    for picture, label, (left, line) in zip(_swatches(page, count=len(labels) - 1), labels, places, strict=True):
        top = page.foot + 16 + LINE_PX * line
        page.sheet.paste(picture, (round(left), top))
        page.pen.text((left + width + 8, top + height / 2), label, font=font, fill=INK, anchor="lm")


def _swatches(page: Page, *, count: int) -> Iterator[Image.Image]:
    width, height = SWATCH_PX
    flat = Image.new("RGB", SWATCH_PX, (128, 128, 128))
    for number in range(count):
        yield _tinted(flat, np.full((height, width), number), shades(count))
    middle = page.scene.resize(SWATCH_PX, Image.Resampling.LANCZOS)
    ImageDraw.Draw(middle).rectangle([0, 0, width - 1, height - 1], outline=INK)
    yield middle
