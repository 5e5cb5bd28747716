"""Glue the parts of one tile of the Dubai set into a mosaic: parts 1 2 3 are its first row, 4 5 6 its second.

python benchmarks/dubai_mosaic.py DUBAI_FOLDER TILE OUT.tif
"""

import sys
from pathlib import Path

import numpy as np

from terralean.raster.grid import Grid
from terralean.raster.scene import open_scene
from terralean.raster.write import write_scene

ROWS = ((1, 2, 3), (4, 5, 6))


def mosaic(folder: Path, tile: int) -> tuple[np.ndarray, object]:
    """Values (3, H, W) and bands. Sizes differ by a pixel within a tile: each row is cut to its lowest part."""
    rows, bands = [], None
    for parts in ROWS:
        scenes = [open_scene(folder / "images" / f"tile{tile}_part{part:03d}.jpg") for part in parts]
        height = min(scene.grid.height for scene in scenes)
        rows.append(np.concatenate([scene.read(scene.grid.window)[0][:, :height] for scene in scenes], axis=2))
        bands = scenes[0].bands
    width = min(row.shape[2] for row in rows)
    return np.concatenate([row[:, :, :width] for row in rows], axis=1), bands


if __name__ == "__main__":
    values, bands = mosaic(Path(sys.argv[1]), int(sys.argv[2]))
    grid = Grid(width=values.shape[2], height=values.shape[1], crs=None)
    write_scene(sys.argv[3], values, grid=grid, bands=bands)
