"""Images to lay objects on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import Bands

UTM = "EPSG:32633"


@pytest.fixture
def picture(tmp_path: Path) -> Callable[..., Path]:
    """A PNG or JPEG of 60 x 40 px, or of another size, under the test's folder."""

    def paint(name: str, *, width: int = 60, height: int = 40) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.arange(height * width * 3, dtype=np.uint32).reshape(height, width, 3) % 251
        Image.fromarray(values.astype(np.uint8)).save(path)
        return path

    return paint


@pytest.fixture
def scene(tmp_path: Path) -> Callable[..., Path]:
    """A GeoTIFF on the ground, pixels of 2 m, in which every value of the first band is its row, of the second its column."""

    def write(name: str, *, width: int = 60, height: int = 40, nodata: float | None = None, left_m: float = 5e5) -> Path:
        grid = Grid(width=width, height=height, crs=UTM, transform=(2.0, 0.0, left_m, 0.0, -2.0, 5e6))
        rows, cols = np.mgrid[:height, :width].astype(np.uint16)
        bands = Bands(names=("row", "column"), dtype="uint16")
        path = tmp_path / name
        write_scene(path, np.stack([rows + 1, cols + 1]), grid=grid, bands=bands, nodata=nodata)
        return path

    return write
