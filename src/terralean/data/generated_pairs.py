"""Generated pairs of dates with known change: buildings appear and vanish, the season turns, the second date lies slightly off.

The landscapes are those of `data.generated`. Both dates show one ground, on another day: plants, soil, sun, air and calibration
differ. Only buildings that are there in one of the dates alone are change; the mask says where, on the grid of the first date.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.features import rasterize
from scipy import ndimage
from shapely import box
from shapely.affinity import rotate
from shapely.geometry.base import BaseGeometry

from terralean.data.generated import BANDS, CRS, NODATA, PIXEL_M
from terralean.data.generated_image import draw_day, paint
from terralean.data.generated_layout import BUILDING, CROP, GRASS, SOIL, Layout, Shape, lay_out
from terralean.errors import ConfigError
from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import Bands

MARGIN_PX = 8  # painted around a pair, so that a shifted date has pixels everywhere
TREES_PX = 2.0  # crowns that reach into a building site are left out of both dates
CHANGED = 255  # in a mask
OPEN = (GRASS, SOIL, CROP)  # ground that houses are built on
APART_PX = 5  # of a house from all else
TRIES = 20  # for each house


@dataclass(frozen=True, kw_only=True, slots=True)
class PairsConfig:
    """How generated pairs differ between their dates."""

    size_px: int = 256
    sites: int = 14  # houses at most that stand on open ground, beside those of the landscape
    appear: float = 0.3  # share of the buildings that only the later date has
    vanish: float = 0.2  # share of them that only the earlier date has
    shift_px: float = 0.7  # largest misregistration along an axis
    tint: float = 0.08  # largest change of a band's brightness that season and calibration leave, of its value

    def __post_init__(self) -> None:
        if min(self.sites, self.appear, self.vanish, self.shift_px, self.tint) < 0 or self.appear + self.vanish > 1:
            raise ConfigError(
                "sites, shares, shift and tint of generated pairs are 0 or more, and appear and vanish at most 1 together, got "
                f"{self.sites}, {self.appear:g}, {self.vanish:g}, {self.shift_px:g} px and {self.tint:g}"
            )
        if self.shift_px > MARGIN_PX / 2:
            raise ConfigError(f"dates are shifted by at most {MARGIN_PX / 2:g} px, got {self.shift_px:g}")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GeneratedPair:
    """Two dates and what has changed."""

    before: NDArray[np.uint16]  # (4, H, W), reflectance in steps of 0.0001
    after: NDArray[np.uint16]
    mask: NDArray[np.uint8]  # (H, W) 255 where something changed, else 0
    shift_px: tuple[float, float]  # by which the later date lies off, down and across
    grid: Grid


def generate_pairs(folder: str | Path, *, count: int, seed: int, config: PairsConfig | None = None) -> list[GeneratedPair]:
    """Write pairs into `A/`, `B/` and `label/` of a folder, as `00000.tif` and so on; files there are replaced.

    Pair i of a seed is the same however many there are.
    """
    folder, config = Path(folder), PairsConfig() if config is None else config
    pairs = [draw_pair(seed=seed, number=number, config=config) for number in range(count)]
    for number, pair in enumerate(pairs):
        name = f"{number:05d}.tif"
        write_scene(folder / "A" / name, pair.before, grid=pair.grid, bands=BANDS, nodata=NODATA)
        write_scene(folder / "B" / name, pair.after, grid=pair.grid, bands=BANDS, nodata=NODATA)
        write_scene(folder / "label" / name, pair.mask[None], grid=pair.grid, bands=Bands(names=("change",), dtype="uint8"))
    return pairs


def draw_pair(*, seed: int, number: int = 0, config: PairsConfig | None = None) -> GeneratedPair:
    """A pair in memory; the same seed, number and config give the same pair. Raises SizeError below 256 px."""
    config = PairsConfig() if config is None else config
    plan, place, fate, first, second, ground = np.random.default_rng([seed, number]).spawn(6)
    layout = lay_out(plan, size_px=config.size_px + 2 * MARGIN_PX)
    houses = _houses(layout, place, count=config.sites)
    buildings = [*(shape for shape in layout.shapes if shape.value == BUILDING), *houses]
    early, late = _fates(buildings, fate, config)
    both = {*map(id, early)} & {*map(id, late)}
    changed = _burnt([(shape.polygon, CHANGED) for shape in (*early, *late) if id(shape) not in both], layout)
    layout = replace(layout, crowns=_clear(layout.crowns, changed))
    texture = ground.integers(2**63)
    before, after = (
        _seen(_with_buildings(layout, houses, there), day=day, texture=int(texture), tint=config.tint)
        for there, day in ((early, first), (late, second))
    )
    down, across = (float(v) for v in second.uniform(-config.shift_px, config.shift_px, 2))
    after = np.stack([ndimage.shift(band, (down, across), order=1, mode="nearest") for band in after])
    inner = slice(MARGIN_PX, MARGIN_PX + config.size_px)
    return GeneratedPair(
        before=_stored(before[:, inner, inner]),
        after=_stored(after[:, inner, inner]),
        mask=changed[inner, inner],
        shift_px=(down, across),
        grid=_grid(seed=seed, number=number, size_px=config.size_px),
    )


def _houses(layout: Layout, rng: np.random.Generator, *, count: int) -> list[Shape]:
    """Houses on open ground that touch nothing else; fewer than `count` where there is no room."""
    source = 1 + max(shape.source for shape in layout.shapes)
    found: list[Shape] = []
    for _ in range(TRIES * count):
        x, y = rng.uniform(0, layout.size_px, 2)
        length, width, angle = rng.uniform(18, 34), rng.uniform(14, 22), rng.uniform(0, np.pi)
        flat = box(x - length / 2, y - width / 2, x + length / 2, y + width / 2)
        house = rotate(flat, angle, use_radians=True)
        apart = all(house.distance(other.polygon) > APART_PX for other in found)
        if apart and len(found) < count and _host(house.buffer(APART_PX), layout) is not None:
            shape = {"x": x, "y": y, "angle": angle, "length": length, "width": width, "source": source + len(found)}
            found.append(Shape(polygon=house, value=BUILDING, **shape))
    return found


def _host(ground: BaseGeometry, layout: Layout) -> Shape | None:
    """The open ground that holds all of it."""
    return next((shape for shape in layout.shapes if shape.value in OPEN and shape.polygon.contains(ground)), None)


def _fates(buildings: list[Shape], rng: np.random.Generator, config: PairsConfig) -> tuple[list[Shape], list[Shape]]:
    """The buildings of the earlier and of the later date."""
    draws = rng.random(len(buildings))
    new, gone = draws < config.appear, draws >= 1 - config.vanish
    early = [shape for shape, is_new in zip(buildings, new, strict=True) if not is_new]
    late = [shape for shape, is_gone in zip(buildings, gone, strict=True) if not is_gone]
    return early, late


def _with_buildings(layout: Layout, houses: list[Shape], there: list[Shape]) -> Layout:
    """The layout of a date; where a building of the landscape is not there is grass or bare soil, by its number."""
    kept = {*map(id, there)}
    shapes = [
        shape if shape.value != BUILDING or id(shape) in kept else replace(shape, value=GRASS if shape.source % 2 else SOIL)
        for shape in layout.shapes
    ]
    # Houses come last and lie over their ground. One outside the scene, with the highest number, keeps the random numbers of
    # all other textures as they are, whichever houses are there.
    last = max(shape.source for shape in (*layout.shapes, *houses)) + 1
    outside = Shape(polygon=box(-9, -9, -8, -8), value=BUILDING, source=last)
    return replace(layout, shapes=(*shapes, *(house for house in houses if id(house) in kept), outside))


def _seen(layout: Layout, *, day: np.random.Generator, texture: int, tint: float) -> NDArray[np.float32]:
    """Reflectance (4, H, W) on a day, of a ground whose texture does not depend on it."""
    mask = _burnt([(shape.polygon, shape.value) for shape in layout.shapes], layout, fill=SOIL)
    seen = paint(layout, mask, np.random.default_rng(texture), day=draw_day(day))
    return seen * day.uniform(1 - tint, 1 + tint, (len(seen), 1, 1)).astype(np.float32)


def _burnt(shapes: list[tuple[object, int]], layout: Layout, *, fill: int = 0) -> NDArray[np.uint8]:
    size = (layout.size_px, layout.size_px)
    return rasterize(shapes, out_shape=size, fill=fill, dtype="uint8") if shapes else np.full(size, fill, np.uint8)


def _clear(crowns: NDArray[np.float64], changed: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The trees that do not reach into what changes."""
    far = ndimage.distance_transform_edt(changed == 0)
    rows, cols = (np.clip(crowns[:, i].astype(int), 0, len(changed) - 1) for i in (1, 0))
    return crowns[far[rows, cols] > crowns[:, 2] + TREES_PX]


def _stored(reflectance: NDArray[np.float32]) -> NDArray[np.uint16]:
    return np.clip(np.rint(reflectance / BANDS.scale), NODATA + 1, np.iinfo(np.uint16).max).astype(np.uint16)


def _grid(*, seed: int, number: int, size_px: int) -> Grid:
    x, y = 300_000 + 1000 * (number % 300), 5_200_000 + 5000 * (seed % 100) + 1000 * (number // 300)
    return Grid(width=size_px, height=size_px, crs=CRS, transform=(PIXEL_M, 0.0, float(x), 0.0, -PIXEL_M, float(y)))
