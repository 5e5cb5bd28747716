"""Where things lie in a generated scene: parcels, roads, water, buildings and trees as disjoint polygons.

Coordinates are px, x to the right, y down, (0, 0) the top-left corner of the scene. Nothing is drawn here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.random import Generator
from numpy.typing import NDArray
from shapely import LineString, Point, Polygon, box
from shapely.affinity import rotate
from shapely.geometry.base import BaseGeometry

from terralean.errors import SizeError

BUILDING, ROAD, TREE, GRASS, CROP, SOIL, WATER = range(7)
MIN_SIZE_PX = 256
MIN_SHARE = 0.02  # of the footprint, for every class: above the promised 1.5 %, as borders move when rasterised
ATTEMPTS = 200
USES = {"crop": 0.28, "meadow": 0.17, "soil": 0.17}  # of the parcels that are neither village nor forest, by area
VILLAGE, FOREST = 0.26, 0.16  # of all parcels, by area
YARD, TURNED, GARDEN_TREE, HEDGE = 0.2, 0.2, 0.1, 0.35  # how often: village parcels, houses, spots in gardens, fields
LANE_PX, TWO_LANES_PX, HIGHWAY_PX = 9.0, 12.0, 15.0  # widths of roads
BETWEEN_HOUSES_PX = 7
SLIVER_PX = 0.5  # area that is no object any more
GROUND = {"village": GRASS, "yard": SOIL, "forest": GRASS, "crop": CROP, "soil": SOIL, "meadow": GRASS}


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """One labelled object and the rectangle it was drawn from: centre, direction of its long side, sides in px."""

    polygon: BaseGeometry
    value: int  # its class
    source: int = 0  # parts of one road, river or parcel that others cut apart have the same
    x: float = 0.0
    y: float = 0.0
    angle: float = 0.0  # radians, from the x axis towards the y axis
    length: float = 0.0
    width: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """A whole scene. Its shapes do not overlap and fill the footprint."""

    size_px: int
    footprint: Polygon
    shapes: tuple[Shape, ...]
    crowns: NDArray[np.float64]  # (n, 3): x, y and radius of every tree
    centrelines: tuple[BaseGeometry, ...]  # of the roads that carry a painted mark


@dataclass(frozen=True, kw_only=True, slots=True)
class Warp:
    """Bends a straight plan: a turn about the centre of the scene, then two slow waves, so that lines become curves."""

    turn: float  # radians
    amplitude_px: float
    wave: float  # radians per px
    phase: tuple[float, float]
    centre_px: float

    def __call__(self, geometry: BaseGeometry) -> BaseGeometry:
        """The same geometry where it comes to lie in the scene; long edges are cut so that they can bend."""
        return shapely.transform(shapely.segmentize(geometry, 8.0), self.move)

    def move(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (n, 2) of the plan, whose origin is its centre, as points of the scene."""
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        x, y = points[:, 0] * cos - points[:, 1] * sin, points[:, 0] * sin + points[:, 1] * cos
        dx = self.amplitude_px * np.sin(self.wave * y + self.phase[0])
        dy = self.amplitude_px * np.sin(self.wave * x + self.phase[1])
        return np.stack([x + dx, y + dy], axis=1) + self.centre_px


def lay_out(rng: Generator, *, size_px: int) -> Layout:
    """A landscape in which every class has its share; drawn again until it has."""
    if size_px < MIN_SIZE_PX:
        raise SizeError(f"a generated scene of {size_px} px has no room for every class; ask for {MIN_SIZE_PX} px or more")
    for _ in range(ATTEMPTS):
        layout = _draw(rng, size_px=size_px)
        if shares(layout).min() >= MIN_SHARE:
            return layout
    raise SizeError(f"no layout of {size_px} px held every class in {ATTEMPTS} attempts; ask for another seed or more px")


def shares(layout: Layout) -> NDArray[np.float64]:
    """Share of the footprint that each class covers, (K,)."""
    values = [shape.value for shape in layout.shapes]
    areas = shapely.area([shape.polygon for shape in layout.shapes])
    return np.bincount(values, weights=areas, minlength=WATER + 1) / layout.footprint.area


def _draw(rng: Generator, *, size_px: int) -> Layout:
    footprint = _footprint(rng, size_px=size_px)
    warp = _warp(rng, size_px=size_px)
    leaves, cuts = _split(rng, size_px=size_px)
    roads = [_road(line, width, warp=warp) for line, width in cuts]
    road_area = shapely.union_all([road.polygon for road in roads])
    water = _water(rng, road_area, turn=warp.turn, size_px=size_px)
    parcels = _parcels(leaves, warp=warp, within=footprint)
    uses = _uses(rng, parcels)
    off = shapely.union_all([road_area, water])
    buildings = _buildings(rng, parcels, uses, off=off.buffer(4))
    off = shapely.union_all([road_area.buffer(3), water.buffer(3), *(b.polygon.buffer(3) for b in buildings)])
    crowns = _crowns(rng, parcels, uses, off=off, size_px=size_px)
    woods = shapely.union_all(shapely.buffer(shapely.points(crowns[:, :2]), crowns[:, 2] * 0.96, quad_segs=6))
    woods = woods.buffer(2.5).buffer(-2.5)  # the gaps between the crowns of a wood are wood
    ground = [replace(parcel, value=GROUND[use]) for parcel, use in zip(parcels, uses, strict=True)]
    layers = [*roads, *buildings, *_shapes(woods.difference(off.buffer(-2)), TREE), *_shapes(water, WATER), *ground]
    marked = tuple(warp(line) for line, width in cuts if width >= TWO_LANES_PX)
    return Layout(
        size_px=size_px, footprint=footprint, shapes=tuple(_stack(layers, footprint)), crowns=crowns, centrelines=marked
    )


def _footprint(rng: Generator, *, size_px: int) -> Polygon:
    """A turned square that leaves out the corners of the scene, as the swath of a satellite does."""
    angle = rng.choice([-1, 1]) * rng.uniform(5, 11)
    reach = size_px / 2 * (math.cos(math.radians(angle)) + math.sin(math.radians(abs(angle)))) * 0.92
    centre = size_px / 2
    square = rotate(box(centre - reach, centre - reach, centre + reach, centre + reach), angle)
    return square.intersection(box(0, 0, size_px, size_px))


def _warp(rng: Generator, *, size_px: int) -> Warp:
    return Warp(
        turn=rng.uniform(0, math.pi),
        amplitude_px=0.045 * size_px,
        wave=2 * math.pi / (rng.uniform(0.9, 1.3) * size_px),
        phase=(rng.uniform(0, 2 * math.pi), rng.uniform(0, 2 * math.pi)),
        centre_px=size_px / 2,
    )


def _split(rng: Generator, *, size_px: int) -> tuple[list[Polygon], list[tuple[LineString, float]]]:
    """A plan cut in two again and again: its parcels, and those cuts that are roads with their width in px."""
    half = 0.8 * size_px
    todo, leaves, cuts = [(-half, -half, half, half)], [], []
    while todo:
        x0, y0, x1, y1 = todo.pop()
        long = max(x1 - x0, y1 - y0)
        if long < min(max(size_px / 5, 110), 190) * rng.uniform(0.8, 1.3):
            leaves.append(box(x0, y0, x1, y1))
            continue
        at = rng.uniform(0.36, 0.64)
        if x1 - x0 > y1 - y0:
            x = x0 + at * (x1 - x0)
            todo += [(x0, y0, x, y1), (x, y0, x1, y1)]
            line = LineString([(x, y0), (x, y1)])
        else:
            y = y0 + at * (y1 - y0)
            todo += [(x0, y0, x1, y), (x0, y, x1, y1)]
            line = LineString([(x0, y), (x1, y)])
        if long > rng.uniform(280, 400):
            cuts.append((line, _road_width(line.length)))
    return leaves, cuts


def _road_width(length: float) -> float:
    """The longer a road, the wider; both px."""
    if length > 900:  # noqa: PLR2004 - a road through half the scene
        return HIGHWAY_PX
    return TWO_LANES_PX if length > 450 else LANE_PX  # noqa: PLR2004 - between blocks


def _road(line: LineString, width: float, *, warp: Warp) -> Shape:
    return Shape(polygon=warp(line).buffer(width / 2), value=ROAD, length=line.length, width=width)


def _water(rng: Generator, roads: BaseGeometry, *, turn: float, size_px: int) -> BaseGeometry:
    """A river askew of the roads, which cross it on bridges, and a lake where roads are far."""
    river = _river(rng, turn=turn + rng.choice([-1, 1]) * math.pi / 4, size_px=size_px)
    return river.union(_lake(rng, roads, size_px=size_px))


def _river(rng: Generator, *, turn: float, size_px: int) -> BaseGeometry:
    along = np.linspace(-0.8, 0.8, 90)
    bends = zip((0.05, 0.035, 0.01), (4, 9, 23), rng.uniform(0, 2 * math.pi, 3), strict=True)
    aside = rng.uniform(-0.2, 0.2) + sum(reach * np.sin(along * wave + phase) for reach, wave, phase in bends)
    line = LineString(np.stack([along, aside], axis=1) * size_px + size_px / 2)
    line = rotate(line, turn, origin=(size_px / 2, size_px / 2), use_radians=True)
    radius = max(0.018 * size_px, 8) * (1 + 0.3 * np.sin(along * 14 + rng.uniform(0, 2 * math.pi)))
    return shapely.union_all(shapely.buffer(shapely.points(line.coords), radius)).union(line.buffer(radius.min()))


def _lake(rng: Generator, roads: BaseGeometry, *, size_px: int) -> BaseGeometry:
    spots = shapely.points(rng.uniform(0.15, 0.85, (40, 2)) * size_px)
    away = shapely.distance(spots, roads)
    radius = np.clip(away.max(), 0.06 * size_px, 0.11 * size_px)
    return _blob(rng, spots[int(np.argmax(away))], radius=radius, ripple=0.2)


def _blob(rng: Generator, centre: Point, *, radius: float, ripple: float) -> Polygon:
    angle = np.linspace(0, 2 * math.pi, 72, endpoint=False)
    waves = sum(rng.uniform(0.3, 1) / k * np.sin(k * angle + rng.uniform(0, 2 * math.pi)) for k in (2, 3, 5))
    r = radius * (1 + ripple * waves)
    return Polygon(np.stack([centre.x + r * np.cos(angle), centre.y + r * np.sin(angle)], axis=1)).buffer(0)


def _parcels(leaves: Iterable[Polygon], *, warp: Warp, within: BaseGeometry) -> list[Shape]:
    """Parcels that reach into the footprint, with their centre and the direction of their long side."""
    parcels = []
    for leaf in leaves:
        x0, y0, x1, y1 = leaf.bounds
        ends = [(x0, (y0 + y1) / 2), (x1, (y0 + y1) / 2)] if x1 - x0 > y1 - y0 else [((x0 + x1) / 2, y0), ((x0 + x1) / 2, y1)]
        (ax, ay), (bx, by) = warp.move(np.array(ends))
        polygon = warp(leaf).buffer(0.1)  # neighbours bend at different points; where they overlap the first one stays
        if polygon.intersection(within).area > 1:
            angle = math.atan2(by - ay, bx - ax)
            parcels.append(Shape(polygon=polygon, value=GRASS, x=(ax + bx) / 2, y=(ay + by) / 2, angle=angle))
    return parcels


def _uses(rng: Generator, parcels: Sequence[Shape]) -> list[str]:
    """What each parcel is used for: one village, one forest, and fields around them in their shares."""
    uses = [""] * len(parcels)
    area = np.array([parcel.polygon.area for parcel in parcels])
    for index in _nearest(rng, parcels, uses, share=VILLAGE):
        uses[index] = "yard" if rng.random() < YARD else "village"
    for index in _nearest(rng, parcels, uses, share=FOREST):
        uses[index] = "forest"
    given = dict.fromkeys(USES, 0.0)
    for index in rng.permutation([i for i, use in enumerate(uses) if not use]):
        uses[index] = min(USES, key=lambda use: given[use] / USES[use])
        given[uses[index]] += area[index]
    return uses


def _nearest(rng: Generator, parcels: Sequence[Shape], uses: Sequence[str], *, share: float) -> list[int]:
    """Free parcels around a random one, nearest first, until they make up a share of the area of all."""
    free = [i for i, use in enumerate(uses) if not use]
    area = np.array([parcel.polygon.area for parcel in parcels])
    first = parcels[rng.choice(free)]
    free.sort(key=lambda i: math.hypot(parcels[i].x - first.x, parcels[i].y - first.y))
    before = np.cumsum(area[free]) - area[free]
    return [i for i, reached in zip(free, before, strict=True) if reached < share * area.sum()]


def _buildings(rng: Generator, parcels: Sequence[Shape], uses: Sequence[str], *, off: BaseGeometry) -> list[Shape]:
    """Houses in rows along the borders of village parcels, halls in yards; none touches another."""
    built: list[Shape] = []
    for parcel, use in zip(parcels, uses, strict=True):
        if use not in ("village", "yard"):
            continue
        sides = (44.0, 62.0, 30.0, 40.0) if use == "yard" else (22.0, 36.0, 16.0, 24.0)
        here: list[Shape] = []
        ground = parcel.polygon.difference(off)
        for house in _rows(rng, parcel.polygon, sides=sides):
            clear = all(house.polygon.distance(other.polygon) > BETWEEN_HOUSES_PX for other in here)
            if clear and ground.contains(house.polygon):
                here.append(house)
        built += here
    return built


def _rows(rng: Generator, parcel: BaseGeometry, *, sides: tuple[float, float, float, float]) -> Iterator[Shape]:
    """Places for rectangles along rings inside a parcel; sides are least and greatest length, then width, in px."""
    low, high, narrow, wide = sides
    for inset in np.arange(wide / 2 + 11, 200, wide + 22):
        inner = parcel.buffer(-float(inset), join_style="mitre")
        if inner.is_empty or inner.geom_type != "Polygon":
            return
        ring, at = inner.exterior, rng.uniform(0, high)
        while at < ring.length:
            length, width = rng.uniform(low, high), rng.uniform(narrow, wide)
            one, two = ring.interpolate(at), ring.interpolate(at + 2)
            angle = math.atan2(two.y - one.y, two.x - one.x) + (math.pi / 2 if rng.random() < TURNED else 0)
            yield _rectangle(one, angle=angle + rng.normal(0, 0.04), length=length, width=width)
            at += length + rng.uniform(9, 26)


def _rectangle(centre: Point, *, angle: float, length: float, width: float) -> Shape:
    x, y = centre.x, centre.y
    flat = box(x - length / 2, y - width / 2, x + length / 2, y + width / 2)
    polygon = rotate(flat, angle, use_radians=True)
    return Shape(polygon=polygon, value=BUILDING, x=x, y=y, angle=angle, length=length, width=width)


def _crowns(
    rng: Generator, parcels: Sequence[Shape], uses: Sequence[str], *, off: BaseGeometry, size_px: int
) -> NDArray[np.float64]:
    """Every tree as x, y and radius in px: close together in forests, scattered in villages, in a row along some fields."""
    lattice = _lattice(rng, size_px=size_px, pitch_px=10.0)
    forest = shapely.union_all([p.polygon for p, use in zip(parcels, uses, strict=True) if use == "forest"]).buffer(-6)
    found = [lattice[shapely.contains_xy(forest, lattice)]]
    for parcel, use in zip(parcels, uses, strict=True):
        if use == "village":
            garden = lattice[shapely.contains_xy(parcel.polygon.buffer(-8), lattice)]
            found.append(garden[rng.random(len(garden)) < GARDEN_TREE])
        elif use != "forest" and rng.random() < HEDGE:
            found.append(_hedge(rng, parcel.polygon))
    points = np.concatenate(found)
    crowns = np.column_stack([points, rng.uniform(5.5, 8.5, len(points))])
    clear = shapely.distance(shapely.points(points), off) > crowns[:, 2] * 0.7
    return crowns[clear]


def _lattice(rng: Generator, *, size_px: int, pitch_px: float) -> NDArray[np.float64]:
    """Points (n, 2) over the scene, about a pitch apart and in no visible order."""
    side = np.arange(-pitch_px, size_px + pitch_px, pitch_px)
    grid = np.stack(np.meshgrid(side, side), axis=-1)
    grid[1::2, :, 0] += pitch_px / 2
    return (grid + rng.uniform(-0.32, 0.32, grid.shape) * pitch_px).reshape(-1, 2)


def _hedge(rng: Generator, parcel: BaseGeometry) -> NDArray[np.float64]:
    """Trees in a row along one stretch of a parcel's border, (n, 2)."""
    ring = parcel.exterior
    start, length = rng.uniform(0, ring.length), rng.uniform(0.15, 0.4) * ring.length
    steps = np.arange(start, start + length, 9.0) % ring.length
    return shapely.get_coordinates(shapely.line_interpolate_point(ring, steps)) + rng.normal(0, 1.0, (len(steps), 2))


def _shapes(area: BaseGeometry, value: int) -> list[Shape]:
    return [Shape(polygon=part, value=value) for part in _polygons(area)]


def _stack(layers: Sequence[Shape], footprint: BaseGeometry) -> Iterator[Shape]:
    """Shapes cut by all that come before them and by the footprint, so that none overlaps another."""
    tree = shapely.STRtree([shape.polygon for shape in layers])
    for index, shape in enumerate(layers):
        above = [layers[i].polygon for i in tree.query(shape.polygon) if i < index]
        rest = shape.polygon.intersection(footprint).difference(shapely.union_all(above))
        for part in _polygons(rest):
            yield replace(shape, polygon=part, source=index)


def _polygons(area: BaseGeometry) -> list[Polygon]:
    """The polygons of any geometry, without slivers."""
    return [part for part in shapely.get_parts(area) if part.geom_type == "Polygon" and part.area > SLIVER_PX]
