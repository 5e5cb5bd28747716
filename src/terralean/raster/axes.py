"""What the axes of an array are, as the user says it, as what lies beside it in the file shows it, or as is usual."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

from terralean.errors import UnreadableScene
from terralean.raster.cube_config import CubeConfig
from terralean.raster.mat import CUBE_DIMS, Contents
from terralean.raster.mat5 import Variable

USUAL = "rcb"
ROWS, COLS = ("nrow", "nrows", "rows", "lines"), ("ncol", "ncols", "cols", "samples")


@dataclass(frozen=True, kw_only=True, slots=True)
class Axes:
    """The axes of an array in order; for one of (band, pixel) the number of rows and columns, too; and how that is known."""

    order: str
    size: tuple[int, int] | None = None
    note: str | None = None


def find_axes(found: Contents, variable: Variable, config: CubeConfig, *, bands: int | None) -> Axes:
    """`bands` is the length of a list of wavelengths, or of bad bands, in the file."""
    if len(variable.shape) == CUBE_DIMS:
        return _of_three(found, variable, config, bands=bands)
    size = _told_size(found, variable, config)
    if size is None:
        if config.axes is not None and bands is not None:
            raise _lacks_size(found, variable)
        return Axes(order=config.axes or USUAL)
    return _of_pixels(found, variable, config, size)


def _of_three(found: Contents, variable: Variable, config: CubeConfig, *, bands: int | None) -> Axes:
    if config.axes is not None:
        return Axes(order=config.axes)
    shape = variable.shape
    if bands is not None and shape.count(bands) == 1:
        band = shape.index(bands)
        order = "".join("rc"[i - (i > band)] if i != band else "b" for i in range(CUBE_DIMS))
        return Axes(order=order, note=_note(order, f"a list of {bands} numbers, one for each band, is in the file"))
    by_map = _by_maps(found, shape)
    if by_map is not None:
        return Axes(order=by_map, note=_note(by_map, "a label map of that size is in the file"))
    return Axes(order=USUAL)


def _note(order: str, why: str) -> str | None:
    return None if order == USUAL else f"the axes are {_words(order)}, since {why}"


def _words(order: str) -> str:
    return ", ".join({"r": "row", "c": "column", "b": "band"}[axis] for axis in order)


def _by_maps(found: Contents, shape: tuple[int, ...]) -> str | None:
    """The order in which the cube has the rows and columns of the label maps in the file, if it is one only."""
    maps = {v.shape for v in found.arrays if len(v.shape) == CUBE_DIMS - 1}
    sized = _size_beside(found)
    fits = {
        "".join(order)
        for order in permutations(USUAL)
        for size in (maps | ({sized} if sized else set()))
        if (shape[order.index("r")], shape[order.index("c")]) == size
    }
    if USUAL in fits:
        return USUAL
    return next(iter(fits)) if len(fits) == 1 else None


def _size_beside(found: Contents) -> tuple[int, int] | None:
    """Rows and columns that the file tells in variables of its own."""
    rows, cols = (found.list_of(names) for names in (ROWS, COLS))
    return (int(rows[0]), int(cols[0])) if len(rows) == len(cols) == 1 else None


def _told_size(found: Contents, variable: Variable, config: CubeConfig) -> tuple[int, int] | None:
    pixels = [n for n in variable.shape]
    if config.rows is None and config.cols is None:
        beside = _size_beside(found)
        return beside if beside and math.prod(beside) in pixels and beside != variable.shape else None
    rows, cols = config.rows, config.cols
    other = rows or cols or 1
    fits = [n for n in pixels if n % other == 0] if rows is None or cols is None else [n for n in pixels if n == rows * cols]
    if len(fits) != 1:
        said = f"rows={rows}, cols={cols}" if rows and cols else f"{'rows' if rows else 'cols'}={other}"
        raise UnreadableScene(
            f"{found.path}: {variable.name} is {' x '.join(map(str, variable.shape))}, which {said} does not make a cube of; "
            "rows times cols must be the length of one axis"
        )
    return rows or fits[0] // other, cols or fits[0] // other


def _of_pixels(found: Contents, variable: Variable, config: CubeConfig, size: tuple[int, int]) -> Axes:
    pixel = variable.shape.index(math.prod(size))
    usual = "cr" if variable.reversed_axes else "rc"  # MATLAB lists pixels down the columns, NumPy along the rows
    order = config.axes or (usual + "b" if pixel == 0 else "b" + usual)
    if order[1] == "b" or (order[0] == "b") != (pixel == 1):
        raise UnreadableScene(
            f"{found.path}: {variable.name} is {' x '.join(map(str, variable.shape))}, pixels along axis {pixel + 1}; "
            f"axes={order} does not fit; say axes={'crb or rcb' if pixel == 0 else 'bcr or brc'}"
        )
    listed = "down the columns" if order.replace("b", "") == "cr" else "along the rows"
    told = config.axes is not None
    note = None if told else f"{variable.name} is a list of pixels, read {listed} ({size[0]} rows, {size[1]} columns)"
    return Axes(order=order, size=size, note=note)


def _lacks_size(found: Contents, variable: Variable) -> UnreadableScene:
    return UnreadableScene(
        f"{found.path}: {variable.name} is a list of pixels, {' x '.join(map(str, variable.shape))}; say how many rows and "
        f"columns they are behind the path: {Path(found.path).name}#rows=R,cols=C"
    )
