"""A raster written strip by strip into a Cloud-Optimized GeoTIFF that appears whole or not at all.

GDAL's COG driver copies a finished file, so rows go into a tiled GeoTIFF in a folder `NAME.part` beside the target, which is
copied, read back whole, compared with what was written, and only then given its name.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.shutil import copy as copy_raster
from rasterio.windows import Window as RasterioWindow

from terralean.errors import OutputFailed
from terralean.raster.grid import Grid, Window
from terralean.raster.source import GDAL_ERRORS, cause
from terralean.raster.style import join_pam

log = logging.getLogger(__name__)

BLOCK = 512
CACHE_BYTES = 128 * 2**20  # GDAL would keep up to 5 % of the machine's memory in blocks it never reads again
PREDICTOR = {"i": "2", "u": "2", "f": "3"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """What the pixels of a file are."""

    bands: tuple[str, ...]  # a name per band
    dtype: str
    nodata: float | None
    overviews: Literal["MODE", "NEAREST", "AVERAGE"]  # how a coarser pixel is made
    bits: int  # information in a pixel at most, for the space it may take
    colours: Mapping[int, tuple[int, int, int, int]] | None = None  # colour table: value to red, green, blue, alpha
    band_tags: Mapping[str, str] | None = None  # of the first band


class CogWriter:
    """Context manager: `write` full-width strips from top to bottom; the file is there when the block ends without error.

    A disk that fills, a folder that cannot be written: OutputFailed, with nothing left behind.
    """

    def __init__(self, path: str | Path, *, grid: Grid, content: Content, tags: Mapping[str, str]) -> None:
        self.path = Path(path)
        self.grid = grid
        self._content, self._tags = content, dict(tags)
        self._folder = self.path.with_name(f"{self.path.name}.part")
        self._strips: Any = None
        self._rows = 0
        self._sums = [0] * len(content.bands)
        self._new = [folder for folder in self.path.absolute().parents if not folder.exists()]  # ours to remove

    def __enter__(self) -> CogWriter:
        with self.whole_or_nothing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self._folder, ignore_errors=True)  # a killed run's
            check_space(self.path, needed=space_bytes(self.grid, self._content))
            self._folder.mkdir()
            self._strips = self._create()
        return self

    def write(self, window: Window, values: NDArray[Any]) -> None:
        """Values (C, h, w) of the next rows."""
        due = Window(row=self._rows, col=0, height=window.height, width=self.grid.width)
        assert window == due, f"strips come full width from top to bottom: expected {due}, got {window}"
        expected = (len(self._sums), window.height, window.width)
        assert values.shape == expected and values.dtype == self._content.dtype, f"{values.dtype} {values.shape}"
        with self.whole_or_nothing(), bounded_cache():
            self._strips.write(values, window=RasterioWindow(0, window.row, window.width, window.height))
        self._sums = _checksums(values, self._sums)
        self._rows += window.height

    def finish(self, sidecars: Mapping[Path, str]) -> None:
        """Give the file its name, together with texts that belong beside it; the file itself comes last."""
        with self.whole_or_nothing():
            if self._rows != self.grid.height:
                raise OutputFailed(f"{self.path}: {self._rows} of {self.grid.height} rows were written; write them all")
            self._strips.close()
            whole = self._folder / self.path.name
            with bounded_cache():
                copy_raster(self._folder / "strips", whole, driver="COG", **self._cog_options())
                self._check(whole)
            (self._folder / "strips").unlink()
            beside = [(self._write_text(path, text), path) for path, text in sidecars.items()]
            self._name([*beside, *self._left_by_gdal(sidecars), (whole, self.path)])
        shutil.rmtree(self._folder, ignore_errors=True)

    def abort(self) -> None:
        """Leave nothing behind."""
        if self._strips is not None:
            with suppress(OSError, *GDAL_ERRORS):  # closing flushes again what could not be written
                self._strips.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        with suppress(OSError):  # not there, or meanwhile not empty
            for folder in self._new:
                folder.rmdir()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.abort() if kind else self.finish({})

    @contextmanager
    def whole_or_nothing(self) -> Iterator[None]:
        """Clean up after any error, Ctrl-C included; what the disk or GDAL says becomes OutputFailed."""
        try:
            yield
        except BaseException as error:
            self.abort()
            if isinstance(error, (OSError, *GDAL_ERRORS)):
                raise failed(self.path, error) from error
            raise

    def _create(self) -> Any:
        content = self._content
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a scene without a place makes a map without one
            strips = rasterio.open(
                self._folder / "strips",
                "w",
                driver="GTiff",
                width=self.grid.width,
                height=self.grid.height,
                count=len(content.bands),
                dtype=content.dtype,
                nodata=content.nodata,
                crs=self.grid.crs,
                transform=rasterio.Affine(*self.grid.transform),
                tiled=True,
                blockxsize=BLOCK,
                blockysize=BLOCK,
                interleave="band",
                compress="ZSTD",
                zstd_level=1,  # read once and thrown away
                bigtiff="IF_SAFER",
                photometric="MINISBLACK",
            )
            strips.update_tags(**self._tags)
            strips.descriptions = content.bands
            if content.colours:
                strips.write_colormap(1, dict(content.colours))
            if content.band_tags:
                strips.update_tags(1, **content.band_tags)
        return strips

    def _cog_options(self) -> dict[str, str]:
        classes = self._content.colours is not None
        return {
            "COMPRESS": "ZSTD",
            "PREDICTOR": "NO" if classes else PREDICTOR[np.dtype(self._content.dtype).kind],
            "BLOCKSIZE": str(BLOCK),
            "OVERVIEW_RESAMPLING": self._content.overviews,
            "BIGTIFF": "IF_SAFER",
        }

    def _check(self, whole: Path) -> None:
        """Read the finished file back: GDAL does not report every write that a full disk swallows."""
        sums = [0] * len(self._sums)
        with rasterio.open(whole) as dataset:
            same_size = (dataset.width, dataset.height) == (self.grid.width, self.grid.height)
            for row in range(0, self.grid.height if same_size else 0, BLOCK):
                height = min(BLOCK, self.grid.height - row)
                sums = _checksums(dataset.read(window=RasterioWindow(0, row, self.grid.width, height)), sums)
        if not same_size or sums != self._sums:
            raise OSError(errno.EIO, "the finished file does not hold what was written")

    def _left_by_gdal(self, sidecars: Mapping[Path, str]) -> list[tuple[Path, Path]]:
        aux = self.path.with_name(f"{self.path.name}.aux.xml")
        written = self._folder / aux.name
        return [(written, aux)] if aux not in sidecars and written.exists() else []

    def _write_text(self, path: Path, text: str) -> Path:
        part = self._folder / path.name
        if part.exists():
            text = join_pam(text, part.read_text(encoding="utf-8"))
        part.write_text(text, encoding="utf-8")
        return part

    def _name(self, parts: list[tuple[Path, Path]]) -> None:
        """Move files to their final names; if one fails, none keeps it."""
        done: list[Path] = []
        try:
            for part, final in parts:
                _sync(part)
                os.replace(part, final)
                done.append(final)
        except BaseException:
            for final in done:
                final.unlink(missing_ok=True)
            raise


def bounded_cache() -> rasterio.Env:
    """An Env in which GDAL holds few blocks, unless the user has said how many."""
    return rasterio.Env() if "GDAL_CACHEMAX" in os.environ else rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES)


def space_bytes(grid: Grid, content: Content) -> int:
    """The most a file may take while it is written: strips, the COG with its overviews, and a copy of these."""
    plain = grid.width * grid.height * len(content.bands) * content.bits / 8
    return round(plain * (1 + 4 / 3 + 1 / 3) * 1.05) + 2**16


def check_space(path: Path, *, needed: int) -> None:
    """Raise OutputFailed if the disk has less than `needed` bytes."""
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise OutputFailed(
            f"{path} may need {needed:,} bytes while it is written, {free:,} are available in {path.parent}; "
            "free some space or choose another folder"
        )


def failed(path: Path, error: BaseException) -> OutputFailed:
    """OutputFailed in words: the path, the cause, the fix."""
    number = error.errno if isinstance(error, OSError) else None
    if number in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}:
        fix = "choose a folder that you may write to"
    elif number == errno.ENOENT:
        fix = "choose a place where folders can be made"
    else:
        parent = next((folder for folder in path.absolute().parents if folder.is_dir()), Path("/"))
        free = shutil.disk_usage(parent).free
        fix = f"{free:,} bytes are free there; free some space, check your quota, or choose another folder"
    return OutputFailed(f"{path} could not be written: {cause(error)}; nothing is left of it; {fix}")


def _checksums(values: NDArray[Any], sums: list[int]) -> list[int]:
    return [zlib.crc32(np.ascontiguousarray(band).data, total) for band, total in zip(values, sums, strict=True)]


def _sync(path: Path) -> None:
    """A network disk or a quota may refuse what it first took; only this asks."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
