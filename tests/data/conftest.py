"""Small images and datasets on disk."""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import Affine

WriteImage = Callable[..., str]


@pytest.fixture
def write_image(tmp_path: Path) -> WriteImage:
    """Write values (C, H, W) or (H, W) to a file under the test's folder; returns its path."""

    def write(
        name: str, values: NDArray, *, crs: str | None = None, transform: Affine | None = None, nodata=None, **creation
    ) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        values = values[None] if values.ndim == 2 else values
        driver = {".tif": "GTiff", ".png": "PNG", ".jpg": "JPEG"}[path.suffix]
        profile = {"count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype}
        place = {"crs": crs, "transform": transform} if crs else {}
        with rasterio.open(path, "w", driver=driver, nodata=nodata, **profile, **place, **creation) as file:
            file.write(values)
        return str(path)

    return write


@pytest.fixture
def make_folder(write_image: WriteImage, tmp_path: Path) -> Callable[..., Path]:
    """A folder of images/ and labels/ with random texture; labels are `classes` values in quarters of the image."""

    def make(sizes: dict[str, tuple[int, int]], *, classes: int = 2, seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        for stem, (height, width) in sizes.items():
            write_image(f"images/{stem}.tif", rng.integers(1, 255, (3, height, width), dtype=np.uint8))
            write_image(
                f"labels/{stem}.tif", np.add.outer(np.arange(height) // 8, np.arange(width) // 8).astype(np.uint8) % classes
            )
        return tmp_path

    return make


@pytest.fixture
def paint(tmp_path: Path) -> Callable[..., Path]:
    """Save a picture with Pillow under the test's folder: texture of its own seed in any of Pillow's modes."""

    def save(name: str, *, size: tuple[int, int] = (24, 20), mode: str = "RGB", seed: int | None = None, **options) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(zlib.crc32(name.encode()) if seed is None else seed)
        picture = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
        picture.convert(mode).save(path, **options)
        return path

    return save


@pytest.fixture
def class_folders(paint: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """A folder per class with so many small PNG images, each of its own texture; `within` names a folder in between."""

    def make(counts: dict[str, int], *, within: str = "") -> Path:
        for name, count in counts.items():
            (tmp_path / within / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                paint(f"{within}/{name}/{name}_{i}.png".lstrip("/"))
        return tmp_path

    return make
