"""Cubes as scenes: which paths are cubes, and a cube that answers like a file that GDAL has open."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.windows import Window as RasterioWindow

from terralean.errors import UnreadableScene
from terralean.raster.array_cube import read_array
from terralean.raster.cube import Cube
from terralean.raster.cube_config import told
from terralean.raster.envi import header_of, read_envi
from terralean.raster.grid import Window
from terralean.raster.source import Source

ARRAYS = (".mat", ".npy", ".h5", ".hdf5")
OPAQUE = 255  # of a mask


def is_cube(path: str) -> bool:
    """Whether a local file is read as a cube: an ENVI header or data beside one, an array of MATLAB, HDF5 or NumPy."""
    name = told(path)[0]
    if not os.path.isfile(name):  # no Path.is_file: it fails on the long text of a VRT
        return False
    file = Path(name)
    return file.suffix.lower() in ARRAYS or header_of(file) is not None


def read_cube(path: str, *, labels: bool = False, size: tuple[int, int] | None = None) -> Cube:
    """The cube of a path and of what is said behind it (see `CubeConfig`); with `labels` the label map in it."""
    name, config = told(path)
    file = Path(name)
    if file.suffix.lower() in ARRAYS:
        return read_array(file, config, labels=labels, size=size)
    return read_envi(file, config)


class CubeSource(Source):
    """A cube in the place of a file that GDAL opens. Pickled by its path."""

    def __init__(self, path: str, *, labels: bool = False, size: tuple[int, int] | None = None) -> None:
        super().__init__(path)
        self.cube = read_cube(path, labels=labels, size=size)
        self._how = {"labels": labels, "size": size}

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.path, self._how)

    @property
    def files(self) -> tuple[str, ...]:
        """The data, and the header of an ENVI file."""
        header = header_of(Path(self.cube.path)) if self.cube.variable is None else None
        return (self.cube.path,) if header is None else (self.cube.path, str(header))

    @contextmanager
    def dataset(self) -> Iterator[Any]:
        """What answers like a rasterio dataset, as far as scenes ask."""
        yield OpenCube(self.cube)

    @contextmanager
    def reading(self, window: Window) -> Iterator[Any]:
        """`dataset`; what the disk says becomes an error that names the file and the window."""
        try:
            yield OpenCube(self.cube)
        except (OSError, MemoryError) as error:
            last_row, last_col = window.row + window.height - 1, window.col + window.width - 1
            raise UnreadableScene(
                f"{self.path} cannot be read at rows {window.row} to {last_row}, columns {window.col} to {last_col}: {error}; "
                "expected a complete file, copy or download it again"
            ) from error

    def close(self) -> None:
        """Let go of what was unpacked or opened; the next read does it again."""
        self.cube.store.close()


def _again(path: str, how: dict[str, Any]) -> CubeSource:
    return CubeSource(path, **how)


class OpenCube:
    """A cube with the part of a rasterio dataset's interface that scenes, labels and inspect use."""

    compression = None
    gcps: tuple[list[Any], None] = ([], None)
    rpcs = None

    def __init__(self, cube: Cube) -> None:
        self.cube, self.driver = cube, cube.format

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Of each band."""
        return (self.cube.bands.dtype,) * len(self.cube.bands)

    @property
    def crs(self) -> CRS | None:
        """As rasterio has it."""
        return CRS.from_user_input(self.cube.grid.crs) if self.cube.grid.crs else None

    @property
    def transform(self) -> Affine:
        """As rasterio has it."""
        return Affine(*self.cube.grid.transform)

    @property
    def colorinterp(self) -> tuple[ColorInterp, ...]:
        """A palette for classes with colours."""
        kind = ColorInterp.palette if self.cube.colours else ColorInterp.undefined
        return (kind,) * len(self.cube.bands)

    @property
    def block_shapes(self) -> list[tuple[int, int]]:
        """A row: what lies together on disk."""
        return [(1, self.cube.grid.width)] * len(self.cube.bands)

    def colormap(self, position: int) -> dict[int, tuple[int, int, int, int]]:
        """Colours of classes by number, opaque."""
        return {number: (*colour, OPAQUE) for number, colour in self.cube.colours.items()}

    def overviews(self, position: int) -> list[int]:
        """None."""
        return []

    def tags(self, position: int = 0, ns: str | None = None) -> dict[str, str]:
        """None: what a cube says is in its bands."""
        return {}

    def read(
        self,
        positions: int | Sequence[int],
        *,
        window: RasterioWindow,
        out_shape: Sequence[int],
        resampling: Resampling = Resampling.nearest,
    ) -> NDArray[Any]:
        """Values of bands (from 1) in a window, on as many pixels as the last two of `out_shape`."""
        wanted = [positions] if isinstance(positions, int) else list(positions)
        height, width = out_shape[-2:]
        rows, cols = range(window.row_off, window.row_off + window.height), range(window.col_off, window.col_off + window.width)
        if resampling == Resampling.average and (height, width) != (len(rows), len(cols)):
            found = self._means(wanted, rows, cols, height=height, width=width)
        else:
            found = self.cube.values(wanted, rows=_nearest(rows, height), cols=_nearest(cols, width))
        return found[0] if isinstance(positions, int) else found

    def read_masks(self, position: int, *, window: RasterioWindow, out_shape: Sequence[int]) -> NDArray[np.uint8]:
        """255 where there is data in some good band."""
        rows = _nearest(range(window.row_off, window.row_off + window.height), out_shape[-2])
        cols = _nearest(range(window.col_off, window.col_off + window.width), out_shape[-1])
        stored = self.cube.values(self.cube.positions, rows=rows, cols=cols)
        hidden = np.isnan(stored).all(axis=0) if self.cube.scaling else self.cube.hidden(stored)
        return np.where(hidden, 0, OPAQUE).astype(np.uint8)

    def _means(self, positions: list[int], rows: range, cols: range, *, height: int, width: int) -> NDArray[Any]:
        """Means over whole pixels, (C, height, width); what is no data is left out of them."""
        out = np.zeros((len(positions), height, width), dtype=self.cube.bands.dtype)
        col_edges = np.linspace(0, len(cols), width, endpoint=False).astype(int)
        row_edges = [*np.linspace(0, len(rows), height, endpoint=False).astype(int).tolist(), len(rows)]
        for place in range(height):
            strip = rows[row_edges[place] : max(row_edges[place + 1], row_edges[place] + 1)]
            values = self.cube.values(positions, rows=strip, cols=cols)
            known = ~self.cube.hidden(values) & np.isfinite(values).all(axis=0)
            sums = np.add.reduceat(np.where(known, values, 0).sum(axis=1, dtype=np.float64), col_edges, axis=1)
            counts = np.add.reduceat(known.sum(axis=0), col_edges)
            mean = sums / np.maximum(counts, 1)
            out[:, place] = np.rint(mean) if out.dtype.kind in "iu" else mean
        return out


def _nearest(positions: range, count: int) -> Sequence[int]:
    """So many of them, the nearest to the middles of equal parts, as GDAL has it."""
    if count == len(positions):
        return positions
    step = len(positions) / count
    return [positions[min(int((i + 0.5) * step), len(positions) - 1)] for i in range(count)]
