"""How a generated scene looks: materials, textures, light and air over a layout, as reflectance in four bands.

Classes share their colours on purpose (roofs, roads and soil; crops, grass and trees; shadow, tar and water), and differ
in texture, shape and surroundings: a classifier of single pixels fails where one that sees a neighbourhood does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.random import Generator
from numpy.typing import NDArray
from rasterio.features import rasterize
from scipy import ndimage
from scipy.spatial import cKDTree
from shapely.ops import substring

from terralean.data.generated_layout import BUILDING, CROP, GRASS, LANE_PX, ROAD, SOIL, TREE, WATER, Layout

Array = NDArray[np.float32]


def _reflectance(*bands: float) -> Array:
    return np.array(bands, np.float32)


# What everything is mixed from: reflectance in blue, green, red and near infrared.
LEAF = _reflectance(0.030, 0.062, 0.034, 0.40)
STRAW = _reflectance(0.080, 0.125, 0.150, 0.29)
EARTH = _reflectance(0.055, 0.075, 0.100, 0.16)
SAND = _reflectance(0.130, 0.175, 0.220, 0.30)
TAR = _reflectance(0.064, 0.069, 0.072, 0.085)
CONCRETE = _reflectance(0.170, 0.195, 0.215, 0.26)
TILE = _reflectance(0.065, 0.085, 0.150, 0.22)
POND = _reflectance(0.040, 0.050, 0.038, 0.025)
SILT = _reflectance(0.080, 0.103, 0.103, 0.100)

SKY_LIGHT = _reflectance(0.34, 0.29, 0.25, 0.20)  # share of the light that still reaches a shadow
HAZE = _reflectance(0.150, 0.125, 0.105, 0.075)  # what haze alone would look like
PIXEL, LEAVES, CLODS, PATCHES, LAND = range(5)  # the scales of noise
NOISE_SCALES_PX = (0.8, 2.2, 6.0, 20.0, 90.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Day:
    """When a scene was taken: one season, one sun and one air for all of it."""

    dryness: float  # of plants: 0 lush, 1 straw
    wetness: float  # of soil: 0 dry and light, 1 wet and dark
    silt: float  # in water: 0 clear, 1 muddy
    sun: tuple[float, float]  # direction towards the sun in the image (x, y), length 1
    rise: float  # tangent of the sun's elevation
    haze: float  # share of the light that comes from the air
    gain: Array  # (4,) what calibration left over
    slope: tuple[float, float]  # change of brightness across the scene, along x and along y


@dataclass(frozen=True, kw_only=True, slots=True)
class Pixels:
    """What a painter knows about some pixels; all arrays have one shape, that of the scene (H, W) or a choice (n,)."""

    row: NDArray[np.intp]
    col: NDArray[np.intp]
    source: NDArray[np.int32]  # of the shape a pixel belongs to, -1 outside
    edge: Array  # distance to the nearest other class, px
    noise: tuple[Array, ...]  # mean 0, std 1, one for each of NOISE_SCALES_PX

    def pick(self, here: NDArray[np.bool_]) -> Pixels:
        """Those where `here` (H, W) is True, in rows."""
        noise = tuple(noise[here] for noise in self.noise)
        return Pixels(row=self.row[here], col=self.col[here], source=self.source[here], edge=self.edge[here], noise=noise)


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What the pixels of a scene have in common. Generators are drawn from in a fixed order."""

    day: Day
    frames: Array  # (sources, 5): centre x and y, direction, length and width of what a source was drawn from
    crowns: NDArray[np.float64]  # (trees, 3): x, y and radius
    rng: Generator

    def draw(self, pixels: Pixels, low: float, high: float) -> Array:
        """A number for each source, spread evenly, as the pixels of the source have it (n,)."""
        return self.rng.uniform(low, high, len(self.frames)).astype(np.float32)[pixels.source]

    def chance(self, pixels: Pixels, share: float) -> NDArray[np.bool_]:
        """True for about a share of the sources, as their pixels have it (n,)."""
        return (self.rng.random(len(self.frames)) < share)[pixels.source]


def paint(layout: Layout, mask: NDArray[np.uint8], rng: Generator, *, day: Day | None = None) -> Array:
    """Reflectance (4, H, W) of a layout whose classes are `mask` (H, W), as a sensor sees it through the air.

    On another `day` than the generator's own the ground has the same texture.
    """
    drawn = draw_day(rng)
    look = Look(day=drawn if day is None else day, frames=_frames(layout), crowns=layout.crowns, rng=rng)
    pixels = _pixels(layout, mask, rng)
    ground, height = np.zeros((4, *mask.shape), np.float32), np.zeros(mask.shape, np.float32)
    for value, painter in PAINTERS.items():
        here = mask == value
        ground[:, here] = painter(pixels.pick(here), look)
    for value, raise_by in RISERS.items():
        here = mask == value
        height[here] = raise_by(pixels.pick(here), look)
    dashes = _dashes(layout, mask)
    ground[:, dashes] = CONCRETE[:, None]
    return _sense(ground * light(height, look.day), pixels, look)


def draw_day(rng: Generator) -> Day:
    """A day of the growing season, some hours around noon; north is up and the sun in the south."""
    azimuth = math.radians(rng.uniform(110, 250))  # clockwise from north
    return Day(
        dryness=rng.uniform(0.2, 0.6),
        wetness=rng.uniform(0.1, 0.7),
        silt=rng.uniform(0.3, 0.7),
        sun=(math.sin(azimuth), -math.cos(azimuth)),
        rise=math.tan(math.radians(rng.uniform(34, 52))),
        haze=rng.uniform(0.03, 0.13),
        gain=rng.uniform(0.93, 1.07, 4).astype(np.float32),
        slope=(rng.uniform(-0.08, 0.08), rng.uniform(-0.08, 0.08)),
    )


def _frames(layout: Layout) -> Array:
    frames = np.zeros((1 + max(shape.source for shape in layout.shapes), 5), np.float32)
    for shape in layout.shapes:
        frames[shape.source] = shape.x, shape.y, shape.angle, shape.length, shape.width
    return frames


def _pixels(layout: Layout, mask: NDArray[np.uint8], rng: Generator) -> Pixels:
    index = np.indices(mask.shape)
    border = ndimage.maximum_filter(mask, 3) != ndimage.minimum_filter(mask, 3)
    return Pixels(
        row=index[0],
        col=index[1],
        source=rasterize([(s.polygon, s.source) for s in layout.shapes], out_shape=mask.shape, fill=-1, dtype="int32"),
        edge=ndimage.distance_transform_edt(~border).astype(np.float32),
        noise=tuple(_noise(rng, size_px=layout.size_px, scale_px=scale) for scale in NOISE_SCALES_PX),
    )


def _noise(rng: Generator, *, size_px: int, scale_px: float) -> Array:
    """Smooth noise (size, size) with blobs of a scale, mean 0 and std 1; large blobs are drawn small and enlarged."""
    step = max(1, int(scale_px / 2.5))
    small = ndimage.gaussian_filter(rng.standard_normal((size_px // step + 8,) * 2, dtype=np.float32), scale_px / step)
    large = small if step == 1 else ndimage.zoom(small, step, order=3)
    large = large[:size_px, :size_px]
    return (large - large.mean()) / large.std()


def _mix(one: Array, two: Array, share: NDArray[np.floating] | float) -> Array:
    """One material with a share of another, limited to 0..1: shares (n,) give (4, n), a number gives (4, 1)."""
    part = np.atleast_1d(np.clip(share, 0, 1)).astype(np.float32)
    return _blend(one[:, None], two[:, None], part)


def _blend(one: Array, two: Array, share: Array) -> Array:
    share = np.clip(share, 0, 1)
    return one * (1 - share) + two * share


def _building(pixels: Pixels, look: Look) -> Array:
    """Roofs in the colours of roads and of soil, tiled in courses along the ridge."""
    kind = look.draw(pixels, 0, 3).astype(int)
    pale = look.draw(pixels, -0.2, 0.9) + 0.05 * pixels.noise[CLODS]
    tone = np.choose(kind, [_mix(TAR, CONCRETE, pale), _mix(EARTH, SAND, pale), _mix(TILE, SAND, pale)])
    courses = np.sin(2 * math.pi * _across(pixels, look) / 4.2)
    return tone * (1 + 0.17 * courses + 0.04 * pixels.noise[PIXEL])


def _road(pixels: Pixels, look: Look) -> Array:
    """Paved with a pale kerb, or of gravel with weeds between the wheels; smooth otherwise."""
    pale = look.draw(pixels, -0.3, 0.8) + 0.05 * pixels.noise[PATCHES]
    kerb, middle = pixels.edge < 1.0, np.abs(_across_road(pixels, look)) < 1.2  # noqa: PLR2004 - px
    gravel = _mix(EARTH, SAND, pale + 0.3)
    paved = _blend(_mix(TAR, CONCRETE, pale), gravel, look.draw(pixels, 0.0, 0.7))  # dust
    paved = _blend(paved, CONCRETE[:, None], 0.5 * kerb)
    gravel = _blend(gravel, _mix(LEAF, STRAW, look.day.dryness + 0.2), 0.5 * middle)
    unpaved = look.chance(pixels, 0.6) & (look.frames[pixels.source, 4] == LANE_PX)
    return np.where(unpaved, gravel, paved) * (1 + 0.02 * pixels.noise[PIXEL])


def _tree(pixels: Pixels, look: Look) -> Array:
    """Leaves, each tree a little more or less green than the next."""
    _, crown = _nearest_tree(pixels, look)
    each = look.rng.normal(0, 0.22, len(look.crowns)).astype(np.float32)[crown]
    dry = 0.6 * look.day.dryness + each + 0.12 * pixels.noise[PATCHES]
    return _mix(LEAF, STRAW, dry) * (1 + 0.10 * pixels.noise[PIXEL])


def _grass(pixels: Pixels, look: Look) -> Array:
    """Meadows and lawns, patchy, with a fine grain."""
    dry = look.draw(pixels, -0.45, 0.35) + look.day.dryness + 0.12 * pixels.noise[CLODS] + 0.1 * pixels.noise[PATCHES]
    bare = look.draw(pixels, 0.0, 0.3) + 0.05 * pixels.noise[CLODS]
    turf = _blend(_mix(LEAF, STRAW, dry), _mix(SAND, EARTH, look.day.wetness), bare)
    return turf * (look.draw(pixels, 0.7, 1.1) + 0.07 * pixels.noise[PIXEL] + 0.05 * pixels.noise[LEAVES])


def _crop(pixels: Pixels, look: Look) -> Array:
    """Rows of plants on soil, in a direction that each field has, with the tracks of the tractor."""
    angle = look.frames[pixels.source, 2] + math.pi / 2 * look.chance(pixels, 0.5) + look.draw(pixels, -0.15, 0.15)
    aside = pixels.col * np.cos(angle) + pixels.row * np.sin(angle) + pixels.noise[PATCHES]
    rows = np.sin(2 * math.pi * aside / look.draw(pixels, 5.5, 8.5))
    cover = look.draw(pixels, 0.35, 0.7) + 0.36 * rows + 0.1 * pixels.noise[LEAVES] + 0.1 * pixels.noise[CLODS]
    tracks = np.minimum(aside % 56, (aside - 12) % 56) < 3  # noqa: PLR2004 - px
    ripe = look.draw(pixels, -0.25, 0.4) + look.day.dryness + 0.08 * pixels.noise[CLODS]
    soil = _mix(SAND, EARTH, look.draw(pixels, -0.3, 0.3) + look.day.wetness)
    return _blend(soil, _mix(LEAF, STRAW, ripe), np.where(tracks, 0.1, cover)) * (look.draw(pixels, 0.8, 1.1) + 0.18 * rows)


def _soil(pixels: Pixels, look: Look) -> Array:
    """Clods and stones, blotches of moisture, weeds here and there."""
    blotches = 0.12 * pixels.noise[CLODS] + 0.12 * pixels.noise[PATCHES]
    wet = look.draw(pixels, -0.4, 0.4) + look.day.wetness + blotches
    weeds = np.clip(0.8 * (pixels.noise[CLODS] - 0.9) + 0.3 * pixels.noise[PATCHES], 0, 0.7)
    clods = np.clip(1 + 0.14 * pixels.noise[LEAVES] + 0.05 * pixels.noise[PIXEL], 0.4, 1.6)
    bare = _blend(_mix(SAND, EARTH, wet), _mix(CONCRETE, TAR, wet), look.draw(pixels, 0.0, 0.6))  # red soils and grey ones
    return _blend(bare, _mix(LEAF, STRAW, look.day.dryness), weeds) * clods


def _water(pixels: Pixels, look: Look) -> Array:
    """Smooth, clear where deep and muddy near the shore, with patches of sky and the ripples of a breeze."""
    silt = look.day.silt + look.draw(pixels, -0.15, 0.15) + 0.25 * pixels.noise[LAND] + 0.3 * np.exp(-pixels.edge / 8)
    sky = np.clip(0.012 + 0.012 * pixels.noise[PATCHES], 0, 0.05)
    bend = pixels.noise[CLODS] + 2 * pixels.noise[PATCHES]
    ripples = np.sin(2 * math.pi * (pixels.col * look.day.sun[0] + pixels.row * look.day.sun[1] + bend) / 5.0)
    return (_mix(POND, SILT, silt) + sky) * (1 + 0.06 * ripples + 0.03 * pixels.noise[PIXEL])


def _across(pixels: Pixels, look: Look) -> Array:
    """Distance (n,) from the long axis of the rectangle that a pixel's source was drawn from, px, negative on one side."""
    x, y, angle = look.frames[pixels.source, :3].T
    return (pixels.row + 0.5 - y) * np.cos(angle) - (pixels.col + 0.5 - x) * np.sin(angle)


def _across_road(pixels: Pixels, look: Look) -> Array:
    """Distance (n,) from the middle of a road, px; roads bend, so it is taken from the edge."""
    return look.frames[pixels.source, 4] / 2 - pixels.edge


def _nearest_tree(pixels: Pixels, look: Look) -> tuple[Array, NDArray[np.intp]]:
    """Distance (n,) to the middle of the nearest tree, px, and which tree it is (n,)."""
    return cKDTree(look.crowns[:, :2]).query(np.column_stack([pixels.col, pixels.row]) + 0.5)


def _roof_height(pixels: Pixels, look: Look) -> Array:
    """Height (n,) of gabled roofs, and of flat ones on some houses and all halls, px."""
    width = look.frames[pixels.source, 4]
    flat = look.chance(pixels, 0.25) | (width > 27)  # noqa: PLR2004 - px, wider than any house
    gable = 0.45 * (width / 2 - np.abs(_across(pixels, look)))
    return look.draw(pixels, 8, 13) + np.where(flat, 0, gable)


def _crown_height(pixels: Pixels, look: Look) -> Array:
    """Height (n,) of trees as domes, px."""
    distance, crown = _nearest_tree(pixels, look)
    radius = look.crowns[crown, 2]
    dome = np.sqrt(np.maximum(radius**2 - np.minimum(distance, radius) ** 2, 0))
    return look.rng.uniform(8, 15, len(look.crowns))[crown] + 0.9 * dome + 0.3 * pixels.noise[PIXEL]


Painter = Callable[[Pixels, Look], Array]
PAINTERS: dict[int, Painter] = {
    BUILDING: _building,
    ROAD: _road,
    TREE: _tree,
    GRASS: _grass,
    CROP: _crop,
    SOIL: _soil,
    WATER: _water,
}
RISERS: dict[int, Painter] = {BUILDING: _roof_height, TREE: _crown_height}


def _dashes(layout: Layout, mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where marks are painted along the middle of wide roads, (H, W)."""
    dashes = [dash.buffer(0.8) for line in layout.centrelines for dash in _cut(line, length=10, gap=14)]
    if not dashes:
        return np.zeros(mask.shape, bool)
    return (rasterize(dashes, out_shape=mask.shape, dtype="uint8") == 1) & (mask == ROAD)


def _cut(line: shapely.LineString, *, length: float, gap: float) -> Iterable[shapely.LineString]:
    return (substring(line, start, start + length) for start in np.arange(0, line.length - length, length + gap))


def light(height: Array, day: Day) -> Array:
    """What part of the light on open ground reaches each pixel, (4, H, W): by its slope, and by what stands in the sun."""
    down, right = np.gradient(ndimage.gaussian_filter(height, 0.7))
    rise = np.clip(-(right * day.sun[0] + down * day.sun[1]), -1.2, 1.2) * (height > 0)  # walls lean on no ground
    direct = np.clip(1 + rise / day.rise, 0.15, 1.7) * (1 - cast_shadow(height, day))
    sky = SKY_LIGHT[:, None, None]
    return sky + (1 - sky) * direct.astype(np.float32)


def cast_shadow(height: Array, day: Day) -> Array:
    """1 where something towards the sun stands in the way, 0 where not, (H, W)."""
    size, reach = height.shape[0], math.ceil(float(height.max()) / day.rise)
    padded = np.pad(height, reach)
    above = np.zeros_like(height)
    for step in range(1, reach + 1):
        row, col = reach + round(step * day.sun[1]), reach + round(step * day.sun[0])
        np.maximum(above, padded[row : row + size, col : col + size] - step * day.rise, out=above)
    return np.clip((above - height) / 1.5, 0, 1)  # half shadow at its rim


def _sense(scene: Array, pixels: Pixels, look: Look) -> Array:
    """The scene through haze, optics and detector, (4, H, W)."""
    day, noise = look.day, pixels.noise[LAND]
    ramp = np.linspace(-0.5, 0.5, scene.shape[1], dtype=np.float32)
    shade = 1 + day.slope[0] * ramp[None, :] + day.slope[1] * ramp[:, None] + 0.02 * noise
    haze = np.clip(day.haze * (1 + 0.35 * noise), 0, 0.3)
    seen = scene * shade * (1 - haze) + HAZE[:, None, None] * haze
    seen = ndimage.gaussian_filter(seen, (0, 0.6, 0.6)) * day.gain[:, None, None]
    return seen + (0.002 + 0.015 * seen) * look.rng.standard_normal(seen.shape, dtype=np.float32)
