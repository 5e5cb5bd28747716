"""Generated harbours and car parks with oriented boxes: boats at piers, ships at the quay, cars and trucks in rows.

What is no object is there, too: buildings, containers, trees, painted bays, empty berths, buoys, shadows. All of a scene lies
along one direction, drawn at random, and is painted in red, green and blue as a camera might see it at 0.3 m.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.features import rasterize
from scipy import ndimage
from shapely import Point, Polygon, box
from shapely.affinity import affine_transform

from terralean.data.oriented.dota import write_labels
from terralean.errors import ConfigError, SizeError
from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import Bands

CLASSES = ("boat", "car", "ship", "truck")
BANDS = Bands(names=("red", "green", "blue"), dtype="uint8")
CRS = "EPSG:32631"
PIXEL_M = 0.3
MIN_SIZE_PX = 128
FINER = 2  # painted so many times as fine along each axis
SEEN = 0.2  # share of an object inside the scene from which on it is labelled
TRIES = 40  # for what is strewn
APART_PX = 3  # of that from all else
GRASS_ROWS, TRUCK_ROWS, TRUCKS = 0.15, 0.25, 0.3  # of a car park's rows, and of what is on the way
LANES_PX, HOUSES_PX = 26.0, 48.0  # how wide a lane is; how deep a strip with houses
Kind = Literal["boat", "car", "ship", "truck"]
Colour = tuple[float, float, float]

# Lengths and widths in px, and what they are painted with: 0..255.
SIZES: dict[Kind, tuple[tuple[float, float], tuple[float, float]]] = {
    "boat": ((26, 36), (9, 13)),
    "car": ((21, 26), (10, 12)),
    "ship": ((80, 130), (20, 28)),
    "truck": ((44, 60), (13, 16)),
}
PALE: tuple[Colour, ...] = ((235, 235, 232), (200, 202, 205), (150, 152, 155))
PAINTS: tuple[Colour, ...] = (*PALE, (60, 62, 66), (30, 30, 34), (150, 40, 36), (40, 70, 130), (190, 170, 120))
HULLS: tuple[Colour, ...] = ((120, 60, 50), (70, 80, 92), (50, 90, 80), (150, 150, 150))
ROOFS: tuple[Colour, ...] = ((150, 90, 70), (170, 168, 160), (110, 112, 116), (200, 195, 180))
BOXES: tuple[Colour, ...] = ((160, 70, 50), (60, 90, 140), (90, 130, 80), (180, 150, 70), (200, 200, 198))
WATER, ASPHALT, CONCRETE, PIER = (42, 66, 74), (92, 92, 94), (142, 138, 130), (128, 110, 90)
DECKS: tuple[Colour, ...] = ((90, 80, 66), (38, 44, 50), (170, 160, 140))
GRASS, TREE, MARK, GLASS, BUOY = (84, 100, 58), (48, 70, 38), (205, 205, 198), (38, 44, 50), (214, 96, 40)


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectScenesConfig:
    """How generated scenes with objects differ."""

    size_px: int = 256
    harbours: float = 0.5  # share of scenes with water; the others are car parks
    taken: float = 0.6  # share of berths and bays that hold something
    clutter: int = 14  # things strewn over a scene that are no objects

    def __post_init__(self) -> None:
        if self.size_px < MIN_SIZE_PX:
            raise SizeError(f"a generated scene of {self.size_px} px has no room for a ship; ask for {MIN_SIZE_PX} px or more")
        if not (0 <= self.harbours <= 1 and 0 < self.taken <= 1 and self.clutter >= 0):
            raise ConfigError(
                "harbours is a share, taken a share above 0, clutter 0 or more, got "
                f"{self.harbours:g}, {self.taken:g} and {self.clutter}"
            )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GeneratedObjects:
    """A scene and the objects in it."""

    values: NDArray[np.uint8]  # (3, H, W)
    polygons: NDArray[np.float64]  # (n, 8) x1 y1 .. x4 y4 in px, the two that follow the first along its long side
    names: tuple[str, ...]  # (n,) of CLASSES
    grid: Grid


@dataclass(kw_only=True, slots=True)
class _Site:
    """A scene in the making. Shapes are in px along and across its direction, (0, 0) in the middle."""

    rng: np.random.Generator
    half: float  # of the side of a square that holds the scene, whichever way it is turned
    config: ObjectScenesConfig
    ground: list[tuple[Polygon, Colour]] = field(default_factory=list)
    above: list[tuple[Polygon, Colour]] = field(default_factory=list)  # what stands on it, in order
    standing: list[Polygon] = field(default_factory=list)  # footprints of what stands there; they cast shadows
    objects: list[tuple[Kind, Polygon]] = field(default_factory=list)

    def one_of(self, colours: tuple[Colour, ...]) -> Colour:
        return colours[int(self.rng.integers(len(colours)))]


def generate_objects(
    folder: str | Path, *, count: int, seed: int, config: ObjectScenesConfig | None = None
) -> list[GeneratedObjects]:
    """Write scenes into `images/` and `labelTxt/` of a folder, as `00000.tif` and so on; files there are replaced.

    Scene i of a seed is the same however many there are.
    """
    folder, config = Path(folder), ObjectScenesConfig() if config is None else config
    scenes = [draw_objects(seed=seed, number=number, config=config) for number in range(count)]
    for number, scene in enumerate(scenes):
        write_scene(folder / "images" / f"{number:05d}.tif", scene.values, grid=scene.grid, bands=BANDS, nodata=None)
        easy = np.zeros(len(scene.names), np.uint8)
        write_labels(folder / "labelTxt" / f"{number:05d}.txt", scene.polygons, scene.names, easy)
    return scenes


def draw_objects(*, seed: int, number: int = 0, config: ObjectScenesConfig | None = None) -> GeneratedObjects:
    """A scene in memory; the same seed, number and config give the same scene."""
    config = ObjectScenesConfig() if config is None else config
    plan, brush = np.random.default_rng([seed, number]).spawn(2)
    site = _Site(rng=plan, half=config.size_px * 0.72, config=config)
    turn = float(plan.uniform(-math.pi, math.pi))
    if plan.random() < config.harbours:
        _harbour(site)
    else:
        _car_park(site)
    objects = [(name, _in_scene(shape, turn, config.size_px)) for name, shape in site.objects]
    seen = [(name, shape) for name, shape in objects if _share_inside(shape, config.size_px) >= SEEN]
    corners = [np.asarray(shape.exterior.coords[:4]).ravel() for _, shape in seen]
    x, y = 300_000 + 1000 * (number % 300), 5_200_000 + 5000 * (seed % 100) + 1000 * (number // 300)
    transform = (PIXEL_M, 0.0, float(x), 0.0, -PIXEL_M, float(y))
    return GeneratedObjects(
        values=_painted(site, brush, turn=turn),
        polygons=np.array(corners, dtype=np.float64).reshape(len(seen), 8),
        names=tuple(name for name, _ in seen),
        grid=Grid(width=config.size_px, height=config.size_px, crs=CRS, transform=transform),
    )


# Where things stand.

Clutter = Callable[[_Site, float, float], list[tuple[Polygon, Colour]]]  # what stands at a place, its footprint first


def _harbour(site: _Site) -> None:
    """Water beyond a quay: boats at piers on one side, ships along the quay on the other, traffic behind it."""
    rng, half = site.rng, site.half
    quay, parting = rng.uniform(-0.3, 0.0) * half, rng.uniform(-0.4, 0.4) * half
    site.ground += [(box(-half, -half, half, half), WATER), (box(-half, -half, half, quay), CONCRETE)]
    site.ground.append((box(-half, quay - 52, half, quay - 22), ASPHALT))
    pitch = rng.uniform(88, 108)
    for along in np.arange(-half, parting - pitch / 2, pitch):
        _pier(site, along + pitch / 2, quay)
    along = parting + 10
    while along < half:
        length, width = _size(site, "ship")
        if rng.random() < site.config.taken:
            _place(site, "ship", along + length / 2, quay + width / 2 + 3, 0.0, (length, width))
        along += length + rng.uniform(8, 20)
    for across in (quay - 30, quay - 44):
        _traffic(site, across)
    _strewn(site, (-half, quay - 76), (_building, _containers, _tree))
    _strewn(site, (quay + 40, half), (_buoy,), share=0.5)


def _pier(site: _Site, along: float, quay: float) -> None:
    """A pier into the water with berths on both sides."""
    length, rng = site.rng.uniform(0.5, 0.9) * site.half, site.rng
    site.ground.append((box(along - 4, quay, along + 4, quay + length), PIER))
    for side in (-1, 1):
        for across in np.arange(quay + 14, quay + length - 8, rng.uniform(16, 20)):
            if rng.random() < site.config.taken:
                size = _size(site, "boat")
                _place(site, "boat", along + side * (6 + size[0] / 2), across, 0.0 if side > 0 else math.pi, size)


def _car_park(site: _Site) -> None:
    """Rows of bays with a lane after each; some are for trucks, some are grass."""
    rng, half = site.rng, site.half
    site.ground.append((box(-half, -half, half, half), ASPHALT))
    slant, across = float(rng.choice([0.0, 0.0, 0.5])), -half
    while across < half:
        draw = rng.random()
        if draw < GRASS_ROWS:
            depth = _green(site, across)
        else:
            depth = _row(site, "truck" if draw < GRASS_ROWS + TRUCK_ROWS else "car", across, slant=slant)
        _traffic(site, across + depth + LANES_PX / 2)
        across += depth + LANES_PX
    _strewn(site, (-half, half), (_containers, _tree), share=0.5)


def _green(site: _Site, across: float) -> float:
    """A strip of grass with trees, and with houses where it is deep; how deep it is."""
    depth = float(site.rng.uniform(30, 70))
    site.ground.append((box(-site.half, across, site.half, across + depth), GRASS))
    inset, what = (12.0, (_tree,)) if depth < HOUSES_PX else (HOUSES_PX / 2, (_tree, _building))
    _strewn(site, (across + inset, across + depth - inset), what, share=0.4)
    return depth


def _row(site: _Site, kind: Kind, across: float, *, slant: float) -> float:
    """Bays side by side; how deep they are."""
    (_, longest), (_, widest) = SIZES[kind]
    rng, depth, angle = site.rng, longest + 4, math.pi / 2 + slant
    pitch = (widest + rng.uniform(3, 5)) / math.cos(slant)
    for along in np.arange(-site.half, site.half, pitch):
        line = _rectangle(along - pitch / 2, across + depth / 2, depth / math.cos(slant), 1.4, angle)
        site.ground.append((line, MARK))
        if rng.random() < site.config.taken:
            jitter = rng.uniform(-1.2, 1.2, 2)
            turned = angle + rng.normal(0, 0.03) + math.pi * (rng.random() < 1 / 2)
            _place(site, kind, along + jitter[0], across + depth / 2 + jitter[1], turned, _size(site, kind))
    return depth


def _traffic(site: _Site, across: float) -> None:
    """Now and then a car or a truck on a lane."""
    along = -site.half + site.rng.uniform(0, 80)
    while along < site.half:
        kind: Kind = "truck" if site.rng.random() < TRUCKS else "car"
        size = _size(site, kind)
        turned = site.rng.normal(0, 0.06) + math.pi * (site.rng.random() < 1 / 2)
        _place(site, kind, along + size[0] / 2, across, turned, size)
        along += size[0] + site.rng.uniform(40, 160)


def _strewn(site: _Site, band: tuple[float, float], what: tuple[Clutter, ...], *, share: float = 1.0) -> None:
    """A share of the clutter at random places of a band across, apart from all else."""
    wanted = round(share * site.config.clutter)
    for _ in range(TRIES * (band[0] < band[1])):
        x, y = float(site.rng.uniform(-site.half, site.half)), float(site.rng.uniform(*band))
        things = what[int(site.rng.integers(len(what)))](site, x, y)
        if wanted and all(_free(site, shape) for shape, _ in things[:1]):
            site.above += things
            site.standing.append(things[0][0])
            wanted -= 1


def _building(site: _Site, x: float, y: float) -> list[tuple[Polygon, Colour]]:
    """A roof, one half of it in the sun."""
    length, width, roof = site.rng.uniform(36, 80), site.rng.uniform(24, 44), site.one_of(ROOFS)
    sunny = (min(1.15 * roof[0], 255), min(1.15 * roof[1], 255), min(1.15 * roof[2], 255))
    return [(_rectangle(x, y, length, width, 0.0), roof), (_rectangle(x, y - width / 4, length, width / 2, 0.0), sunny)]


def _containers(site: _Site, x: float, y: float) -> list[tuple[Polygon, Colour]]:
    """A stack of boxes: as large as trucks are, side by side and without a cab."""
    count, angle = int(site.rng.integers(2, 5)), float(site.rng.choice([0.0, math.pi / 2]))
    stack = _rectangle(x, y, 30, 11 * count, angle)
    steps = 11 * (np.arange(count) - (count - 1) / 2)
    places = [(x - step * math.sin(angle), y + step * math.cos(angle)) for step in steps]
    return [(stack, MARK), *((_rectangle(*place, 29, 10.4, angle), site.one_of(BOXES)) for place in places)]


def _tree(site: _Site, x: float, y: float) -> list[tuple[Polygon, Colour]]:
    radius = site.rng.uniform(5, 11)
    return [(Point(x, y).buffer(radius, quad_segs=4), TREE), (Point(x - 1, y - 1).buffer(radius / 2, quad_segs=4), GRASS)]


def _buoy(site: _Site, x: float, y: float) -> list[tuple[Polygon, Colour]]:
    return [(Point(x, y).buffer(site.rng.uniform(1.6, 2.6), quad_segs=3), BUOY)]


def _free(site: _Site, shape: Polygon) -> bool:
    return all(shape.distance(other) > APART_PX for other in site.standing)


# What objects look like.


def _place(site: _Site, kind: Kind, x: float, y: float, angle: float, size: tuple[float, float]) -> None:
    """An object, if there is room for it."""
    shape = _rectangle(x, y, *size, angle)
    if any(shape.distance(other) < 1 for _, other in site.objects):
        return
    site.objects.append((kind, shape))
    site.standing.append(shape)
    for part, colour in _parts(site, kind, size):
        site.above.append((_moved(part, x, y, angle), colour))


def _size(site: _Site, kind: Kind) -> tuple[float, float]:
    length, width = SIZES[kind]
    return float(site.rng.uniform(*length)), float(site.rng.uniform(*width))


def _parts(site: _Site, kind: Kind, size: tuple[float, float]) -> list[tuple[Polygon, Colour]]:
    """Shapes of an object whose middle is (0, 0) and whose bow points along x, from below upwards."""
    length, width = size[0] / 2, size[1] / 2
    return PARTS[kind](site, length, width)


def _car(site: _Site, length: float, width: float) -> list[tuple[Polygon, Colour]]:
    return [
        (box(-length, -width, length, width), site.one_of(PAINTS)),
        (box(0.1 * length, -0.8 * width, 0.45 * length, 0.8 * width), GLASS),
        (box(-0.8 * length, -0.75 * width, -0.55 * length, 0.75 * width), GLASS),
    ]


def _truck(site: _Site, length: float, width: float) -> list[tuple[Polygon, Colour]]:
    return [
        (box(-length, -width, length - 13, width), site.one_of(BOXES)),
        (box(length - 11, -0.92 * width, length, 0.92 * width), site.one_of(PAINTS)),
        (box(length - 5, -0.8 * width, length - 2, 0.8 * width), GLASS),
    ]


def _boat(site: _Site, length: float, width: float) -> list[tuple[Polygon, Colour]]:
    cabin = box(-0.4 * length, -0.5 * width, 0.25 * length, 0.5 * width)
    return [(_hull(length, width, bow=0.45), site.one_of(PALE)), (cabin, site.one_of(DECKS))]


def _ship(site: _Site, length: float, width: float) -> list[tuple[Polygon, Colour]]:
    bridge = box(-0.92 * length, -0.8 * width, -0.72 * length, 0.8 * width)
    hatches = [box(start * length, -0.6 * width, (start + 0.26) * length, 0.6 * width) for start in (-0.6, -0.25, 0.1, 0.45)]
    hull = (_hull(length, width, bow=0.75), site.one_of(HULLS))
    return [hull, (bridge, PALE[0]), *((hatch, site.one_of(BOXES)) for hatch in hatches)]


def _hull(length: float, width: float, *, bow: float) -> Polygon:
    return Polygon([(-length, -width), (bow * length, -width), (length, 0), (bow * length, width), (-length, width)])


PARTS: dict[Kind, Callable[[_Site, float, float], list[tuple[Polygon, Colour]]]] = {
    "boat": _boat,
    "car": _car,
    "ship": _ship,
    "truck": _truck,
}


# From shapes to pixels.


def _painted(site: _Site, rng: np.random.Generator, *, turn: float) -> NDArray[np.uint8]:
    """Red, green and blue (3, H, W) of a site that is turned."""
    size, sun = site.config.size_px, rng.uniform(-math.pi, math.pi)
    colours = np.array([ASPHALT, *(colour for _, colour in (*site.ground, *site.above))], dtype=np.float32)
    tones = colours * rng.normal(1, 0.04, (len(colours), 1)).astype(np.float32)
    below = _burnt([(_in_scene(shape, turn, size), i) for i, (shape, _) in enumerate(site.ground, 1)], size)
    first = 1 + len(site.ground)
    above = _burnt([(_in_scene(shape, turn, size), i) for i, (shape, _) in enumerate(site.above, first)], size)
    reach = rng.uniform(2, 5) * np.array([math.cos(sun), math.sin(sun)])
    shadows = [(affine_transform(_in_scene(shape, turn, size), [1, 0, 0, 1, *reach]), 1) for shape in site.standing]
    dark = ndimage.gaussian_filter(_burnt(shadows, size).astype(np.float32), 0.8)
    seen = np.where(above > 0, 1, 1 - 0.45 * dark)[..., None] * tones[np.where(above > 0, above, below)]
    return _sensed(np.moveaxis(seen, -1, 0), rng)


def _sensed(fine: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A finer picture (3, H', W') as a camera has it: grain of the ground, haze, optics, noise."""
    side = fine.shape[-1]
    grain = sum(
        ndimage.gaussian_filter(rng.standard_normal((side, side), dtype=np.float32), scale) * scale * weight
        for scale, weight in ((1.0, 0.06), (6.0, 0.12))
    )
    light = rng.uniform(0.8, 1.15) * np.array([1, rng.uniform(0.96, 1.04), rng.uniform(0.92, 1.08)])[:, None, None]
    haze = rng.uniform(0, 30)
    seen = fine * (1 + grain) * light * (1 - haze / 255) + haze
    seen = ndimage.gaussian_filter(seen, (0, 1.1, 1.1)).reshape(3, side // FINER, FINER, side // FINER, FINER).mean(axis=(2, 4))
    return np.clip(np.rint(seen + rng.normal(0, 2.5, seen.shape)), 0, 255).astype(np.uint8)


def _burnt(shapes: list[tuple[Polygon, int]], size_px: int) -> NDArray[np.int32]:
    """Numbers (H', W') of shapes in px of the scene on the finer grid, the last where several lie; 0 where none does."""
    finer = [(affine_transform(shape, [FINER, 0, 0, FINER, 0, 0]), number) for shape, number in shapes]
    side = size_px * FINER
    return rasterize(finer, out_shape=(side, side), fill=0, dtype="int32") if finer else np.zeros((side, side), np.int32)


def _in_scene(shape: Polygon, turn: float, size_px: int) -> Polygon:
    """Where a shape of a site lies in the scene, in px."""
    return _moved(shape, size_px / 2, size_px / 2, turn)


def _rectangle(x: float, y: float, length: float, width: float, angle: float) -> Polygon:
    half, side = length / 2, width / 2
    return _moved(Polygon([(-half, -side), (half, -side), (half, side), (-half, side)]), x, y, angle)


def _moved(shape: Polygon, x: float, y: float, angle: float) -> Polygon:
    """Turned by an angle from the x axis towards the y axis about (0, 0), then shifted."""
    cos, sin = math.cos(angle), math.sin(angle)
    return affine_transform(shape, [cos, -sin, sin, cos, x, y])


def _share_inside(shape: Polygon, size_px: int) -> float:
    return shape.intersection(box(0, 0, size_px, size_px)).area / shape.area
