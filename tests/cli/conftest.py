"""A scene that several verbs take."""

import numpy as np
import pytest

from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import Bands

GRID = Grid(width=90, height=70, crs="EPSG:32633", transform=(0.5, 0.0, 3e5, 0.0, -0.5, 5.2e6))


@pytest.fixture
def scene(tmp_path):
    values = np.random.default_rng(0).integers(1, 255, (3, 70, 90)).astype(np.uint8)
    write_scene(tmp_path / "scene.tif", values, grid=GRID, bands=Bands(names=("red", "green", "blue")), nodata=0)
    return tmp_path / "scene.tif"
