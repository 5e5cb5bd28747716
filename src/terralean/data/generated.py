"""Generated scenes: an overhead image with labels, georeferenced, another landscape and another day for every seed.

What `terralean demo` and many tests run on. Written as a user would have it: a GeoTIFF of four bands in reflectance, labels as
polygons with the name of their class (or as a raster), and `classes.csv`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyogrio
import rasterio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataSourceError
from rasterio.features import rasterize
from shapely import Polygon

from terralean.data.generated_image import paint
from terralean.data.generated_layout import BUILDING, CROP, GRASS, ROAD, SOIL, TREE, WATER, lay_out
from terralean.errors import ConfigError
from terralean.raster.cog import failed
from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import IGNORE, Bands, Classes

LOOKS = {  # name and colour of each class value
    BUILDING: ("building", (214, 69, 65)),
    ROAD: ("road", (128, 128, 136)),
    TREE: ("tree", (27, 94, 58)),
    GRASS: ("grass", (140, 198, 99)),
    CROP: ("crop", (240, 205, 84)),
    SOIL: ("soil", (160, 110, 70)),
    WATER: ("water", (58, 124, 196)),
}
CLASSES = Classes(names=tuple(name for name, _ in LOOKS.values()), colours=tuple(colour for _, colour in LOOKS.values()))
BANDS = Bands(
    names=("blue", "green", "red", "nir"),
    wavelength_nm=(490, 560, 665, 842),
    units="reflectance",
    scale=0.0001,
    dtype="uint16",
)
NODATA = 0
CRS = "EPSG:32633"
PIXEL_M = 0.5

Labels = Literal["polygons", "raster"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedScene:
    """An image and what is in it."""

    values: NDArray[np.uint16]  # (4, H, W), reflectance in steps of 0.0001, 0 where not valid
    valid: NDArray[np.bool_]  # (H, W)
    mask: NDArray[np.uint8]  # (H, W) class values, 255 where not valid
    polygons: tuple[tuple[str, Polygon], ...]  # class name and ground, in the units of the CRS; none overlaps another
    grid: Grid


def generate(folder: str | Path, *, seed: int, size_px: int = 1024, labels: Labels = "polygons") -> GeneratedScene:
    """Write a scene into a folder: `image.tif`, `labels.gpkg` (or `labels.tif`) and `classes.csv`; files there are replaced.

    Scenes of different seeds lie at different places. Raises SizeError below 256 px, OutputFailed, and ConfigError.
    """
    if labels not in ("polygons", "raster"):
        raise ConfigError(f"labels of a generated scene are 'polygons' or 'raster', got {labels!r}")
    folder = Path(folder)
    scene = draw_scene(seed=seed, size_px=size_px)
    write_scene(folder / "image.tif", scene.values, grid=scene.grid, bands=BANDS, nodata=NODATA)
    if labels == "polygons":
        _write_whole(folder / "labels.gpkg", lambda path: _write_polygons(path, scene))
    else:
        bands = Bands(names=("class",), dtype="uint8")
        write_scene(folder / "labels.tif", scene.mask[None], grid=scene.grid, bands=bands, nodata=IGNORE)
    _write_whole(folder / "classes.csv", _write_classes)
    return scene


def draw_scene(*, seed: int, size_px: int = 1024) -> GeneratedScene:
    """The scene of a seed in memory; the same seed and size give the same scene. Raises SizeError below 256 px."""
    plan, brush = np.random.default_rng(seed).spawn(2)
    layout = lay_out(plan, size_px=size_px)
    grid = _grid(seed=seed, size_px=size_px)
    ground = [(shape.value, _on_ground(shape.polygon, grid)) for shape in layout.shapes]
    mask = _burn([(polygon, value) for value, polygon in ground], grid, fill=IGNORE)
    reflectance = paint(layout, mask, brush)
    valid = _burn([(_on_ground(layout.footprint, grid), 1)], grid, fill=0) == 1
    mask[~valid] = IGNORE
    values = np.clip(np.rint(reflectance / BANDS.scale), NODATA + 1, np.iinfo(np.uint16).max).astype(np.uint16)
    values[:, ~valid] = NODATA
    polygons = tuple((CLASSES.names[value], polygon) for value, polygon in ground)
    return GeneratedScene(values=values, valid=valid, mask=mask, polygons=polygons, grid=grid)


def _grid(*, seed: int, size_px: int) -> Grid:
    x, y = 300_000 + 5000 * (seed % 80), 5_200_000 + 5000 * (seed // 80 % 100)  # within the zone, 5 km apart
    return Grid(width=size_px, height=size_px, crs=CRS, transform=(PIXEL_M, 0.0, float(x), 0.0, -PIXEL_M, float(y)))


def _on_ground(polygon: Polygon, grid: Grid) -> Polygon:
    """A polygon in px as it lies on the ground."""
    _, _, x, _, _, y = grid.transform
    return shapely.transform(polygon, lambda points: points * (PIXEL_M, -PIXEL_M) + (x, y))


def _burn(shapes: list[tuple[Polygon, int]], grid: Grid, *, fill: int) -> NDArray[np.uint8]:
    """Values (H, W) of the polygons that hold the centres of pixels."""
    transform = rasterio.Affine(*grid.transform)
    return rasterize(shapes, out_shape=(grid.height, grid.width), transform=transform, fill=fill, dtype="uint8")


def _write_polygons(path: Path, scene: GeneratedScene) -> None:
    names, polygons = zip(*scene.polygons, strict=True)
    pyogrio.raw.write(
        path,
        geometry=shapely.to_wkb(polygons),
        field_data=[np.array(names, dtype=object)],
        fields=["class"],
        layer="labels",
        driver="GPKG",
        geometry_type="Polygon",
        crs=scene.grid.crs,
    )


def _write_classes(path: Path) -> None:
    rows = [f"{value},{name},#{bytes(colour).hex()}" for value, (name, colour) in LOOKS.items()]
    path.write_text("\n".join(["value,name,colour", *rows, ""]), encoding="utf-8")


def _write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file under another name and rename it, so that no half of it ever has its name."""
    folder = path.with_name(f"{path.name}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / path.name)
        os.replace(folder / path.name, path)
    except (OSError, DataSourceError) as error:
        raise failed(path, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
