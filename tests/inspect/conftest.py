"""Small files to inspect."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

PLACE = Affine(10, 0, 500_000, 0, -10, 5_000_000)


@pytest.fixture
def write_image(tmp_path: Path) -> Callable[..., str]:
    """Write values (C, H, W) or (H, W) under the test's folder, 10 m pixels of UTM zone 33 unless told otherwise."""

    def write(
        name: str, values: NDArray, *, crs: str | None = "EPSG:32633", transform: Affine = PLACE, nodata=None, **creation
    ) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        values = values[None] if values.ndim == 2 else values
        profile = {"count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype}
        place = {"crs": crs, "transform": transform} if crs else {}
        driver = {".tif": "GTiff", ".png": "PNG"}[path.suffix]
        with rasterio.open(path, "w", driver=driver, nodata=nodata, **profile, **place, **creation) as file:
            file.write(values)
        return str(path)

    return write


@pytest.fixture
def make_dataset(write_image, tmp_path: Path) -> Callable[..., Path]:
    """A folder of `count` images and labels side by side on the ground, 40 x 40 px, two classes, another texture each."""

    def make(count: int = 10, *, crs: str | None = None) -> Path:
        rng = np.random.default_rng(0)
        for i in range(count):
            transform = Affine(10, 0, 500_000 + 2000 * i, 0, -10, 5_000_000)
            image = rng.integers(1, 250, (3, 40, 40), dtype=np.uint8)
            labels = (np.arange(1600).reshape(40, 40) // 200 % 2).astype(np.uint8)
            write_image(f"images/i{i}.tif", image, crs=crs, transform=transform)
            write_image(f"labels/i{i}.tif", labels, crs=crs, transform=transform)
        return tmp_path

    return make
