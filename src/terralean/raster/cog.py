"""Cloud-Optimized GeoTIFFs, made of rows that lie in a plain file, and whole or not there at all.

GDAL's COG driver copies a finished raster. Here it copies a VRT that tells it how to read a `RowFile`; the result is read back
whole and compared with the rows before it gets its name: GDAL does not report every write that a full disk swallows.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree as Xml

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import WktVersion
from rasterio.errors import NotGeoreferencedWarning
from rasterio.shutil import copy as copy_raster
from rasterio.windows import Window as RasterioWindow

from terralean.errors import OutputFailed
from terralean.raster.grid import IDENTITY, Grid, Window
from terralean.raster.rows import RowFile
from terralean.raster.source import GDAL_ERRORS, cause

log = logging.getLogger(__name__)

BLOCK = 512
CACHE_BYTES = 32 * 2**20  # GDAL would keep up to 5 % of the machine's memory in blocks it never reads again
LEAST_CACHE_BYTES = 4 * 2**20
PREDICTOR = {"i": "2", "u": "2", "f": "3"}
GDAL_TYPES = {"uint8": "Byte", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "float32": "Float32"}
COLOURS = 256  # of a table
NOTHING_LEFT = "nothing is left of it"  # of a file that could not be written


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

    def rows(self, path: Path, *, width: int) -> RowFile:
        """A file of rows for such pixels."""
        return RowFile(path, width=width, bands=len(self.bands), dtype=self.dtype)


def write_cog(path: Path, rows: RowFile, *, grid: Grid, content: Content, tags: Mapping[str, str]) -> None:
    """Make a COG of rows. It is no file to show before this returns: a kill leaves half of it.

    A `.vrt` stays beside the rows, and where the CRS does not fit into GeoTIFF keys, GDAL writes an `.aux.xml` beside the COG.
    Raises OSError or one of GDAL_ERRORS where the disk does not take it.
    """
    vrt = rows.path.with_name(f"{rows.path.name}.vrt")
    vrt.write_text(_vrt(rows, grid=grid, content=content, tags=tags), encoding="utf-8")
    with bounded_cache(_blocks_bytes(rows)), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a scene without a place makes a map without one
        copy_raster(vrt, path, driver="COG", **_cog_options(content))
        _check(path, rows, grid=grid)


class CogWriter:
    """Context manager: `write` full-width strips from top to bottom; the file is there when the block ends without error.

    A disk that fills, a folder that cannot be written: OutputFailed, with nothing left behind.
    """

    def __init__(self, path: str | Path, *, grid: Grid, content: Content, tags: Mapping[str, str]) -> None:
        self.path = Path(path)
        self.grid = grid
        self._content, self._tags = content, dict(tags)
        self._folder = self.path.with_name(f"{self.path.name}.part")
        self._rows: RowFile | None = None
        self._new = [folder for folder in self.path.absolute().parents if not folder.exists()]  # ours to remove

    def __enter__(self) -> CogWriter:
        with self._whole_or_nothing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self._folder, ignore_errors=True)  # a killed run's
            space = rows_bytes(self.grid, self._content) + cog_bytes(self.grid, self._content)
            check_space(self.path, needed=space)
            self._folder.mkdir()
            self._rows = self._content.rows(self._folder / "rows", width=self.grid.width)
        return self

    def write(self, window: Window, values: NDArray[Any]) -> None:
        """Values (C, h, w) of the next rows."""
        assert self._rows is not None, "rows are written within the block"
        due = Window(row=self._rows.height, col=0, height=window.height, width=self.grid.width)
        assert window == due, f"strips come full width from top to bottom: expected {due}, got {window}"
        with self._whole_or_nothing():
            self._rows.append(values)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._abort() if kind else self._finish()

    def _finish(self) -> None:
        assert self._rows is not None, "a block that was entered"
        with self._whole_or_nothing():
            if self._rows.height != self.grid.height:
                raise OutputFailed(f"{self.path}: {self._rows.height} of {self.grid.height} rows were written; write them all")
            whole = self._folder / self.path.name
            write_cog(whole, self._rows, grid=self.grid, content=self._content, tags=self._tags)
            beside = self._folder.glob(f"{self.path.name}.aux.xml")  # GDAL's
            name_files([(part, self.path.with_name(part.name)) for part in (*beside, whole)])
        self._rows.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _abort(self) -> None:
        """Leave nothing behind."""
        if self._rows is not None:
            self._rows.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        remove_empty(self._new)

    @contextmanager
    def _whole_or_nothing(self) -> Iterator[None]:
        """Clean up after any error, Ctrl-C included; what the disk or GDAL says becomes OutputFailed."""
        try:
            yield
        except BaseException as error:
            self._abort()
            if isinstance(error, (OSError, *GDAL_ERRORS)):
                raise failed(self.path, error) from error
            raise


def name_files(parts: list[tuple[Path, Path]]) -> None:
    """Move files to their final names; if one fails, none has moved (a file that had such a name before is lost)."""
    done: list[tuple[Path, Path]] = []
    try:
        for part, final in parts:
            sync(part)
            os.replace(part, final)
            done.append((part, final))
    except BaseException:
        for part, final in done:
            os.replace(final, part)
        raise


def remove_empty(folders: list[Path]) -> None:
    """Remove folders, innermost first, up to one that is not empty."""
    with suppress(OSError):  # not there, or meanwhile not empty
        for folder in folders:
            folder.rmdir()


def bounded_cache(most: int = CACHE_BYTES) -> rasterio.Env:
    """An Env in which GDAL holds few blocks, unless the user has said how many."""
    return rasterio.Env() if "GDAL_CACHEMAX" in os.environ else rasterio.Env(GDAL_CACHEMAX=most)


def _blocks_bytes(rows: RowFile) -> int:
    """What GDAL may hold while it copies rows: those of two rows of blocks. Of narrow files more would be kept for nothing."""
    return min(max(2 * BLOCK * rows.row_bytes, LEAST_CACHE_BYTES), CACHE_BYTES)


def rows_bytes(grid: Grid, content: Content) -> int:
    """What the rows of a file take."""
    return grid.window.pixels * len(content.bands) * np.dtype(content.dtype).itemsize


def cog_bytes(grid: Grid, content: Content) -> int:
    """The most a COG may take while it is made of rows: itself with its overviews, and a copy of these."""
    plain = grid.window.pixels * len(content.bands) * content.bits / 8
    return round(plain * (4 / 3 + 1 / 3) * 1.05) + 2**16


def check_space(path: Path, *, needed: int) -> None:
    """Raise OutputFailed if the disk has less than `needed` bytes."""
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise OutputFailed(
            f"{path} may need {needed:,} bytes while it is written, {free:,} are available in {path.parent}; "
            "free some space or choose another folder"
        )


def failed(path: Path, error: BaseException, *, left: str = NOTHING_LEFT) -> OutputFailed:
    """OutputFailed in words: the path, the cause, what is left, the fix."""
    number = error.errno if isinstance(error, OSError) else None
    if number in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}:
        fix = "choose a folder that you may write to"
    elif number == errno.ENOENT:
        fix = "choose a place where folders can be made"
    else:
        parent = next((folder for folder in path.absolute().parents if folder.is_dir()), Path("/"))
        free = shutil.disk_usage(parent).free
        fix = f"{free:,} bytes are free there; free some space, check your quota, or choose another folder"
    return OutputFailed(f"{path} could not be written: {cause(error)}; {left}; {fix}")


def sync(path: Path) -> None:
    """Return when the disk has the file. A network disk or a quota may refuse what it first took; only this asks."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _cog_options(content: Content) -> dict[str, str]:
    classes = content.colours is not None
    return {
        "COMPRESS": "ZSTD",
        "PREDICTOR": "NO" if classes else PREDICTOR[np.dtype(content.dtype).kind],
        "BLOCKSIZE": str(BLOCK),
        "OVERVIEW_RESAMPLING": content.overviews,
        "BIGTIFF": "IF_SAFER",
    }


def _check(path: Path, rows: RowFile, *, grid: Grid) -> None:
    """Raise OSError unless the file holds the rows, byte for byte."""
    with rasterio.open(path) as dataset:
        same = (dataset.width, dataset.height) == (grid.width, grid.height)
        for row in range(0, grid.height if same else 0, BLOCK):
            height = min(BLOCK, grid.height - row)
            found = dataset.read(window=RasterioWindow(0, row, grid.width, height))
            same = same and all(_same_bytes(one, other) for one, other in zip(found, rows.read(row, height), strict=True))
    if not same:
        raise OSError(errno.EIO, "the finished file does not hold what was written")


def _same_bytes(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether rows are the same, NaN by NaN."""
    return one.shape == other.shape and bool((one.view(np.uint8) == other.view(np.uint8)).all())


def _vrt(rows: RowFile, *, grid: Grid, content: Content, tags: Mapping[str, str]) -> str:
    """A VRT, to lie beside the rows, that describes them: GDAL reads raw bands only of files beside or below their VRT."""
    root = Xml.Element("VRTDataset", rasterXSize=str(grid.width), rasterYSize=str(grid.height))
    if grid.crs is not None:
        Xml.SubElement(root, "SRS").text = CRS.from_user_input(grid.crs).to_wkt(version=WktVersion.WKT2_2019)
    a, b, c, d, e, f = grid.transform
    if grid.transform != IDENTITY:
        Xml.SubElement(root, "GeoTransform").text = ", ".join(map(repr, (c, a, b, f, d, e)))
    _tagged(root, tags)
    for index, name in enumerate(content.bands):
        _describe_band(root, index, name, rows=rows, content=content)
    return Xml.tostring(root, encoding="unicode")


def _describe_band(root: Xml.Element, index: int, name: str, *, rows: RowFile, content: Content) -> None:
    size = rows.dtype.itemsize
    kind = {"dataType": GDAL_TYPES[content.dtype], "band": str(index + 1), "subClass": "VRTRawRasterBand"}
    band = Xml.SubElement(root, "VRTRasterBand", kind)
    _tagged(band, content.band_tags if index == 0 and content.band_tags else {})
    texts = {"Description": name, "NoDataValue": None if content.nodata is None else repr(content.nodata)}
    texts |= {"ColorInterp": "Palette" if content.colours else "Gray" if index == 0 else "Undefined"}
    for tag, text in texts.items():
        if text is not None:
            Xml.SubElement(band, tag).text = text
    if content.colours:
        table = Xml.SubElement(band, "ColorTable")
        for value in range(COLOURS):
            channels = zip(("c1", "c2", "c3", "c4"), content.colours.get(value, (0, 0, 0, 255)), strict=True)
            Xml.SubElement(table, "Entry", {key: str(channel) for key, channel in channels})
    Xml.SubElement(band, "SourceFilename", relativeToVRT="1").text = rows.path.name
    offsets = {"ImageOffset": index * rows.width * size, "PixelOffset": size, "LineOffset": rows.row_bytes}
    for tag, offset in offsets.items():
        Xml.SubElement(band, tag).text = str(offset)
    Xml.SubElement(band, "ByteOrder").text = "LSB" if sys.byteorder == "little" else "MSB"


def _tagged(element: Xml.Element, tags: Mapping[str, str]) -> None:
    if tags:
        metadata = Xml.SubElement(element, "Metadata")
        for key, text in tags.items():
            Xml.SubElement(metadata, "MDI", key=key).text = text
