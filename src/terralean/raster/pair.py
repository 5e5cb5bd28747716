"""Two dates of one place as one scene: the bands of the earlier, then those of the later, `BEFORE:AFTER` for a path.

A pixel is valid where it is in both dates, each by its own file's rules, so that nodata may differ between them. Dates on
different grids are refused; `BEFORE:AFTER#resample` has the later one interpolated bilinearly, window by window, onto the grid
of the earlier.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.io import MemoryFile
from rasterio.shutil import copy
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterioWindow

from terralean.errors import BandMismatch, GridMismatch, MissingFile, SwappedDates
from terralean.raster.acquired import Acquired, acquired
from terralean.raster.grid import Grid, Window, offset_px
from terralean.raster.scene import Scene, describe, read_part, scene_from
from terralean.raster.source import CONNECTION, REMOTE, Source, named_part
from terralean.spec import Bands

SEPARATOR = ":"
RESAMPLE = "#resample"
EXPECTED = "an image of one of two dates"
OPAQUE = 255  # of a mask
EXACT_PX = 0.01  # below a hundredth of a pixel it is rounding
SCENE_NUMBER = re.compile(r"\d{4,}")  # in descriptions of bands that were made of file names
PROCESSED = "tifftag_datetime"  # when a file was written, as often as not, and so no proof that dates are swapped


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two dates by path."""

    before: str
    after: str
    resample: bool = False

    def __str__(self) -> str:
        return f"{self.before}{SEPARATOR}{self.after}{RESAMPLE if self.resample else ''}"


def find_pair(text: str) -> Pair | None:
    """The pair that a path names, None where it names one file. Raises MissingFile where only one of two files is there."""
    if SEPARATOR not in text or text.lstrip().startswith("<") or os.path.exists(text):
        return None
    body = text.removesuffix(RESAMPLE)
    ends = [i for i, sign in enumerate(body) if sign == SEPARATOR and body[i + 1 : i + 3] != "//"]
    splits = [(body[:i], body[i + 1 :]) for i in ends]
    for before, after in splits:
        if _there(before) and _there(after):
            return Pair(before=before, after=after, resample=body != text)
    for before, after in splits:
        here = _local(before), _local(after)
        if any(here) and not (CONNECTION.match(before) and not here[0]):
            lacks, has = (after, before) if here[0] else (before, after)
            raise MissingFile(
                f"{lacks} is not there; it is the {'later' if here[0] else 'earlier'} date of a pair with {has}; check the "
                "path, a pair is BEFORE:AFTER"
            )
    return None


def open_pair(pair: Pair, *, bands: Sequence[int] | None = None) -> Scene:
    """The scene of a pair; `bands` are positions in each of its files, from 1.

    Raises BandMismatch and GridMismatch where the dates differ in bands or grid, SwappedDates where the files say that the
    later was taken first.
    """
    source = PairSource(pair, bands)
    before = source.before
    return Scene(
        path=str(pair),
        grid=before.grid,
        bands=_both(_common(before.bands, source.after.bands)),
        nodata_values=(None,) * 2 * len(before.bands),  # it shows in the mask
        positions=tuple(range(1, 2 * len(before.bands) + 1)),
        alpha=None,
        masks=(1,),
        part=before.grid.window,
        limit=before.grid.window,
        source=source,
    )


def dates_of(pair: Pair, *, bands: Sequence[int] | None = None) -> tuple[Scene, Scene]:
    """The two scenes, on one grid."""
    source = PairSource(pair, bands)
    return source.before, source.after


class PairSource(Source):
    """A pair in the place of a file that GDAL opens."""

    def __init__(self, pair: Pair, bands: Sequence[int] | None) -> None:
        super().__init__(str(pair))
        self.pair, self.bands = pair, bands
        self.before = describe(pair.before, bands=bands, expected=EXPECTED)
        after = describe(pair.after, bands=bands, expected=EXPECTED)
        _check_bands(self.before, after)
        _check_order(self.before, after)
        self.after = after if _same_grid(self.before.grid, after.grid) else _onto(self.before, after, pair=pair, bands=bands)

    def __reduce__(self) -> tuple[Any, ...]:
        return PairSource, (self.pair, self.bands)

    @property
    def files(self) -> tuple[str, ...]:
        """Those of both dates."""
        return (*self.before.source.files, *self.after.source.files)

    @contextmanager
    def dataset(self) -> Iterator[Any]:
        """What answers like a rasterio dataset, as far as scenes ask."""
        yield OpenPair(self.before, self.after)

    @contextmanager
    def reading(self, window: Window) -> Iterator[Any]:
        """`dataset`; errors name the file of the date that breaks."""
        yield OpenPair(self.before, self.after)

    def close(self) -> None:
        """Let go of both files."""
        self.before.close()
        self.after.close()


class OpenPair:
    """A pair with the part of a rasterio dataset's interface that scenes and inspect use. What was read last is kept."""

    compression = None
    driver = "pair of dates"
    gcps: tuple[list[Any], None] = ([], None)
    rpcs = None

    def __init__(self, before: Scene, after: Scene) -> None:
        self.before, self.after = before, after
        self._last: tuple[Any, NDArray[Any], NDArray[np.bool_]] | None = None

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Of each band."""
        return (self.before.bands.dtype,) * 2 * len(self.before.bands)

    @property
    def crs(self) -> CRS | None:
        """As rasterio has it."""
        return CRS.from_user_input(self.before.grid.crs) if self.before.grid.crs else None

    @property
    def transform(self) -> Affine:
        """As rasterio has it."""
        return Affine(*self.before.grid.transform)

    @property
    def colorinterp(self) -> tuple[ColorInterp, ...]:
        """None."""
        return (ColorInterp.undefined,) * 2 * len(self.before.bands)

    @property
    def block_shapes(self) -> list[tuple[int, int]]:
        """The larger of both dates."""
        (high, wide), (higher, wider) = self.before.block(), self.after.block()
        return [(max(high, higher), max(wide, wider))] * 2 * len(self.before.bands)

    def overviews(self, position: int) -> list[int]:
        """None of their own."""
        return []

    def tags(self, position: int = 0, ns: str | None = None) -> dict[str, str]:
        """Of the later date, which is that of what has changed."""
        if position:
            return {}
        with self.after.source.dataset() as dataset:
            return dict(dataset.tags(ns=ns) if ns else dataset.tags())

    def read(
        self,
        positions: int | Sequence[int],
        *,
        window: RasterioWindow,
        out_shape: Sequence[int],
        resampling: Resampling = Resampling.nearest,
    ) -> NDArray[Any]:
        """Values of bands (from 1) in a window, on as many pixels as the last two of `out_shape`."""
        values, _ = self._both(window, (out_shape[-2], out_shape[-1]), resampling)
        wanted = [positions] if isinstance(positions, int) else list(positions)
        found = values if len(wanted) == len(values) else values[[i - 1 for i in wanted]]
        return found[0] if isinstance(positions, int) else found

    def read_masks(self, position: int, *, window: RasterioWindow, out_shape: Sequence[int]) -> NDArray[np.uint8]:
        """255 where both dates hold data."""
        _, valid = self._both(window, (out_shape[-2], out_shape[-1]), Resampling.nearest)
        return np.where(valid, OPAQUE, 0).astype(np.uint8)

    def _both(
        self, window: RasterioWindow, shape: tuple[int, int], resampling: Resampling
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        key = (window, shape, resampling)
        if self._last is None or self._last[0] != key:
            part = Window(row=window.row_off, col=window.col_off, height=window.height, width=window.width)
            dates = [read_part(scene, part, shape=shape, resampling=resampling) for scene in (self.before, self.after)]
            (before, seen), (after, seen_later) = dates
            self._last = key, np.concatenate([before, after.astype(before.dtype)]), seen & seen_later
        return self._last[1], self._last[2]


# Whether two dates make a pair.


def _both(bands: Bands) -> Bands:
    """Of the pair; where they are named by position only, so are these."""
    if bands.named:
        names = tuple(f"{name} {when}" for when in ("before", "after") for name in bands.names)
    else:
        names = tuple(f"band_{i}" for i in range(1, 2 * len(bands) + 1))
    nm = None if bands.wavelength_nm is None else bands.wavelength_nm * 2
    return replace(bands, names=names, wavelength_nm=nm)


def _common(before: Bands, after: Bands) -> Bands:
    """The bands by what both dates call them: numbers that name a scene or its day are left out where they differ."""
    if before.names == after.names or not (before.named and after.named):
        return before
    names = tuple(map(_without_numbers, before.names))
    return replace(before, names=names) if len(set(names)) == len(names) else before


def _without_numbers(name: str) -> str:
    return SCENE_NUMBER.sub("", name)


def _check_bands(before: Scene, after: Scene) -> None:
    ours, theirs = before.bands, after.bands
    known = [[_without_numbers(name).casefold() for name in bands.names] for bands in (ours, theirs)]
    names = ours.named and theirs.named and known[0] != known[1]
    stored = [(len(bands), bands.dtype, bands.units, bands.scale) for bands in (ours, theirs)]
    if names or stored[0] != stored[1]:
        told = [
            f"{scene.path}: {len(b)} x {b.dtype} ({', '.join(b.names)}), {b.units} in steps of {b.scale:g}"
            for scene, b in ((before, ours), (after, theirs))
        ]
        raise BandMismatch(
            f"the dates of a pair must have the same bands, stored alike\n  {told[0]}\n  {told[1]}\nchoose common bands by "
            "position (data.bands in training, --bands in mapping), or convert one of them"
        )


def _check_order(before: Scene, after: Scene) -> None:
    """Raise SwappedDates where the files say when they were taken, and the first one later."""
    first, second = _taken(before), _taken(after)
    if (first.moment or first.start) > (second.moment or second.end):
        raise SwappedDates(
            f"{before.path} was taken {first.moment or first.start} ({first.told_by}), after {after.path}, taken "
            f"{second.moment or second.end}; the earlier date comes first: {after.path}{SEPARATOR}{before.path}"
        )


def _taken(scene: Scene) -> Acquired:
    with scene.source.dataset() as dataset:
        found = acquired(dataset)
    scene.close()
    return Acquired() if found.told_by.casefold() == PROCESSED else found


def _same_grid(one: Grid, other: Grid) -> bool:
    if (one.width, one.height) != (other.width, other.height):
        return False
    if not (one.located and other.located):
        return True
    return CRS.from_user_input(one.crs) == CRS.from_user_input(other.crs) and offset_px(one, other) <= EXACT_PX


def _onto(before: Scene, after: Scene, *, pair: Pair, bands: Sequence[int] | None) -> Scene:
    """The later date on the grid of the earlier. Raises GridMismatch where that is not asked for, or cannot be."""
    if not pair.resample:
        raise GridMismatch(
            f"the dates of a pair lie on different grids: {_grid_words(before)}; {_grid_words(after)}; say --resample "
            "(pairs.resample in training) to have the later one interpolated bilinearly onto the earlier, or warp it with "
            "gdalwarp -te -ts -t_srs"
        )
    if not (before.grid.located and after.grid.located):
        raise GridMismatch(
            f"{_grid_words(before)}; {_grid_words(after)}: only dates with a CRS can be laid over each other; cut both to one "
            "size"
        )
    name = f"{after.path} on the grid of {before.path}"
    warped = Source(name, opened=_warped(before.grid, after))
    return _chosen(scene_from(warped), after)


def _chosen(warped: Scene, after: Scene) -> Scene:
    """The bands of the file that were chosen."""
    nodata = tuple(warped.nodata_values[i - 1] for i in after.positions)
    masks = tuple(i for i in warped.masks if i in after.positions)
    return replace(warped, bands=after.bands, positions=after.positions, nodata_values=nodata, masks=masks)


def _warped(grid: Grid, after: Scene) -> str:
    """A virtual raster of a file on another grid, with an alpha band where the file shows nothing."""
    with after.source.dataset() as dataset:
        how: dict[str, Any] = {} if after.alpha else {"add_alpha": True}
        with (
            WarpedVRT(
                dataset,
                crs=grid.crs,
                transform=Affine(*grid.transform),
                width=grid.width,
                height=grid.height,
                resampling=Resampling.bilinear,
                **how,
            ) as warped,
            MemoryFile(ext=".vrt") as file,
        ):
            copy(warped, file.name, driver="VRT")
            text = file.read().decode()
    after.close()
    return text


def _grid_words(scene: Scene) -> str:
    grid = scene.grid
    place = f" in {grid.crs}, top left {grid.transform[2]:.10g}, {grid.transform[5]:.10g}" if grid.located else ""
    return f"{scene.path} is {grid.width} x {grid.height} px{place}"


def _local(path: str) -> bool:
    return bool(path) and os.path.isfile(named_part(path)[0])


def _there(path: str) -> bool:
    return _local(path) or bool(REMOTE.match(path))
