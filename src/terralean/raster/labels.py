"""Labels onto the grid of an image: from a raster of class numbers or colours, from polygons, or from a table of points.

One band holds class numbers: 0 to K-1 unless a Coding says otherwise. 255, the file's nodata value, and pixels that a mask or
alpha band hides are ignored. A nodata value of 0 is taken for class 0 all the same, where there is a class stored as 0: many
programs set it on rasters in which 0 is the first class. A palette is not looked at: the numbers count.
Three bands of bytes hold colours, as the Coding lists them; a nodata value means nothing there.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from terralean.errors import LabelError
from terralean.raster.coding import (
    PLAIN,
    Coding,
    Colour,
    apart,
    as_hex,
    from_colours,
    from_numbers,
    packed,
    unpacked,
)
from terralean.raster.cube_source import CubeSource, is_cube
from terralean.raster.grid import Grid, Window, check_same_grid
from terralean.raster.label_points import burn_points, is_points, point_values, read_points
from terralean.raster.polygons import burn_polygons, field_values, is_vector
from terralean.raster.scene import Scene, describe, scene_of
from terralean.raster.source import named_part
from terralean.spec import IGNORE, Classes

log = logging.getLogger(__name__)

STRIP_PIXELS = 2**24  # read at once when a whole label raster is looked through
COLOUR_BANDS = 3
SMEARED = 24  # distinct colours that are no class, from which they come of lossy compression or resampling
MOST_COLOURS = 4096  # counted; a raster with more is a picture, not labels
BLACK = (0, 0, 0)
NEAR = 24  # largest difference of a channel at which reading a colour as its nearest is proposed
SHOWN = 10  # wrong numbers or colours named in an error

Counted = dict[Any, int]  # by number, name or colour


def read_labels(
    path: str | Path,
    *,
    like: Grid,
    window: Window,
    classes: Classes | None,
    coding: Coding = PLAIN,
    field: str | None = None,
    name: str,
) -> NDArray[np.uint8]:
    """Class values (h, w) in a window of the image `name`, whose grid is `like`; 255 where there is no label.

    The window may reach past the edges: there 255. `field` is the attribute that holds the class of a polygon. Without
    `classes` any value 0..254 passes. Raises MissingFile, LabelError, and GridMismatch where a label raster lies elsewhere.
    """
    if is_vector(path) or is_points(path):
        burn = burn_points if is_points(path) else burn_polygons
        return burn(str(path), like=like, window=window, classes=classes, coding=coding, field=field, name=name)
    with _open(path, coding, size=(like.height, like.width)) as scene:
        check_same_grid(like, scene.grid, image_name=name, mask_name=str(path))
        values, valid = scene.read(window)
    if coding.colours is not None and (colours := palette(path)):
        values = _painted(values[0], colours)
    if coding.above is not None:  # 255 is a class, so that what is not valid has to be told apart
        return np.where(valid, from_numbers(values[0], coding=coding, classes=None)[0], np.uint8(IGNORE))
    if len(values) == COLOUR_BANDS:
        return _coloured(values, valid, classes=classes, coding=coding, path=str(path))
    return _numbered(values[0], valid, classes=classes, coding=coding, path=str(path))


def label_values(path: str | Path, *, field: str | None = None) -> Counted:
    """What a label file holds, in order: number or colour to pixels, or for polygons class value or name to their number.

    Ignored pixels are not counted. A raster is read in strips.
    """
    counts = count_stored(path, coding=PLAIN, field=field)
    if set(counts) == {0} and _hidden(str(path), *_stamp(path)):
        log.warning("%s holds 0 and 255 only, and 255 means ignored: if it is a class, write it as 1", path)
    return counts


def count_stored(path: str | Path, *, coding: Coding, field: str | None = None) -> Counted:
    """`label_values` of labels with a coding. A file is counted once as long as it does not change."""
    if is_vector(path):
        return field_values(str(path), field=field)
    if is_points(path):
        return point_values(read_points(path, field=field))
    counts = dict(_counted_file(str(path), *_stamp(path), zero=0 in coding.listed(1))[0])
    if coding.colours is not None and (colours := palette(path)):
        painted: Counter[Colour] = Counter()
        for number, pixels in counts.items():
            painted[colours.get(number, BLACK)] += pixels
        return dict(sorted(painted.items()))
    return counts


def is_coloured(path: str | Path) -> bool:
    """Whether a label file is a raster of three bands of colours."""
    return not (is_vector(path) or is_points(path)) and _header(str(path), *_stamp(path))[0] == COLOUR_BANDS


def palette(path: str | Path) -> dict[int, Colour]:
    """The colour of each number in a label raster; empty where the file says none."""
    return {} if is_vector(path) or is_points(path) else dict(_header(str(path), *_stamp(path))[1])


def strange_numbers(wrong: Mapping[int, int], *, classes: Classes | None, coding: Coding, path: str) -> str:
    """What to say of a label raster with pixels of numbers that are not listed, and how to list them."""
    fix = "name the missing classes, or say with data.label_values which numbers the classes have"
    if len(wrong) == 1:
        value = next(iter(wrong))
        how = "add it to data.ignore" if coding.ignored else f'--set "data.ignore=[{value}]"'
        fix += f"; if {value} means no label: {how}"
    return f"{numbers_found(wrong, classes=classes, coding=coding, path=path)}; {fix}"


def numbers_found(wrong: Mapping[int, int], *, classes: Classes | None, coding: Coding, path: str) -> str:
    """What numbers that are not listed a label raster holds, and what was expected."""
    shown = _shown([f"{value} ({count} px)" for value, count in wrong.items()])
    if classes is None:
        expected = "class numbers are 0 to 254, 255 is ignored"
    else:
        pairs = zip(coding.numbers(len(classes)), classes.names, strict=True)
        ignored = ", ".join(map(str, (*coding.ignored, IGNORE)))
        expected = f"the classes are {', '.join(f'{value} {name}' for value, name in pairs)}; ignored: {ignored}"
    return f"{path} holds {shown}; {expected}"


def strange_colours(wrong: Mapping[Colour, int], *, classes: Classes | None, coding: Coding, path: str) -> str:
    """What to say of a label raster with pixels of colours that are not listed."""
    names = [f"class {i}" for i in range(len(coding.colours or ()))] if classes is None else classes.names
    known = {colour: name for name, colour in zip(names, coding.colours or (), strict=True)}
    known |= dict.fromkeys(coding.ignored_colours, "ignored")
    ordered = sorted(wrong, key=lambda colour: -wrong[colour])
    shown = _shown([f"{as_hex(colour)} ({wrong[colour]} px, {_nearest(colour, known)})" for colour in ordered])
    expected = ", ".join(f"{as_hex(colour)} {name}" for colour, name in known.items())
    start = f"{path} holds colours that are no class: {shown}; the classes are {expected}; "
    if len(wrong) > 1 and all(len(set(colour)) == 1 for colour in wrong):
        return start + f"its three bands are equal, so they are numbers: keep one, gdal_translate -b 1 {path} OUT"
    if len(wrong) > SMEARED or Path(path).suffix.lower() in (".jpg", ".jpeg"):
        return start + (
            f"{len(wrong)} of them, as lossy compression (JPEG) or resampling smears colours; take the original PNG or TIFF "
            "and resample it by nearest neighbour; near ones alone are read with data.colour_tolerance"
        )
    far = max(min(apart(colour, other) for other in known) for colour in wrong)
    near = f"; if each is meant as its nearest: --set data.colour_tolerance={far}" if far <= NEAR else ""
    return start + f"give them a class (data.classes, data.colours), or list those without one in data.ignore{near}"


def _open(path: str | Path, coding: Coding, *, size: tuple[int, int] | None = None) -> Scene:
    if is_cube(str(path)):
        scene = scene_of(CubeSource(str(path), labels=True, size=size))
    else:
        scene = describe(path, expected="a raster of class numbers or colours, or a vector file, or a table of points")
    if len(scene.bands) == COLOUR_BANDS and scene.bands.dtype == "uint8":
        return replace(scene, nodata_values=(None,) * COLOUR_BANDS)  # any 255 or 0 in a band would hide whole classes
    if len(scene.bands) != 1:
        scene.close()
        raise LabelError(
            f"{path} has {len(scene.bands)} bands of {scene.bands.dtype}; labels are one band of class numbers (255: ignored) "
            "or three bands of bytes, red, green and blue, whose colours stand for classes"
        )
    if scene.nodata == 0 and 0 in coding.listed(1):
        return replace(scene, nodata_values=(None,))
    return scene


# Numbers.


def _numbered(
    values: NDArray[Any], valid: NDArray[np.bool_], *, classes: Classes | None, coding: Coding, path: str
) -> NDArray[np.uint8]:
    whole = _whole(values, valid, path=path)
    labels, wrong = from_numbers(whole, coding=coding, classes=None if classes is None else len(classes))
    if wrong.any():
        counts = _counted(np.where(wrong, whole, np.array(IGNORE, dtype=whole.dtype)))
        raise LabelError(strange_numbers(counts, classes=classes, coding=coding, path=path))
    return labels


def _whole(values: NDArray[Any], valid: NDArray[np.bool_], *, path: str) -> NDArray[Any]:
    """Whole numbers, 255 where not valid."""
    if values.dtype.kind != "f":
        return np.where(valid, values, np.array(IGNORE, dtype=values.dtype if values.dtype != np.int8 else np.int16))
    known = np.where(valid, values, IGNORE)
    broken = known[known != np.rint(known)]
    if broken.size:
        raise LabelError(
            f"{path} holds {broken.size} px that are no whole numbers, {broken[0]:g} for example; labels are class numbers 0 "
            "to K-1 (255: ignored); rasterise or resample them without interpolation (gdalwarp -r near)"
        )
    return known.astype(np.int64)


def _counted(values: NDArray[Any]) -> dict[int, int]:
    """Pixels of each value but 255."""
    return {value: count for value, count in _tally(values.ravel()) if value != IGNORE}


# Colours.


def _painted(numbers: NDArray[Any], colours: Mapping[int, Colour]) -> NDArray[np.uint8]:
    """Numbers (h, w) of a palette as colours (3, h, w)."""
    table = np.zeros((np.iinfo(numbers.dtype).max + 1, COLOUR_BANDS), dtype=np.uint8)
    table[list(colours)] = list(colours.values())
    return np.moveaxis(table[numbers], -1, 0)


def _coloured(
    values: NDArray[np.uint8], valid: NDArray[np.bool_], *, classes: Classes | None, coding: Coding, path: str
) -> NDArray[np.uint8]:
    if coding.colours is None:
        raise LabelError(f"{path} holds colours; say which class has which with data.classes and data.colours")
    labels, wrong = from_colours(values, coding=coding)
    wrong &= valid
    if wrong.any():
        counts = _counted_colours(values, wrong)
        raise LabelError(strange_colours(counts, classes=classes, coding=coding, path=path))
    return np.where(valid, labels, np.uint8(IGNORE))


def _counted_colours(values: NDArray[np.uint8], where: NDArray[np.bool_]) -> Counter[Colour]:
    """Pixels of each colour."""
    return Counter({unpacked(code): count for code, count in _tally(packed(values)[where])})


def _nearest(colour: Colour, known: Mapping[Colour, str]) -> str:
    if not known:
        return "no class has a colour"
    near = min(known, key=lambda other: (apart(colour, other), other))
    return f"nearest: {known[near]} {as_hex(near)}, {apart(colour, near)} off"


# Whole files.


def _tally(values: NDArray[Any]) -> list[tuple[int, int]]:
    """Each value of (n,) and how often it is there. Runs of one value are counted at once: labels have long ones."""
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])[: values.size])
    found, place = np.unique(values[starts], return_inverse=True)
    counts = np.bincount(place, weights=np.diff(starts, append=values.size), minlength=len(found))
    return [(int(value), int(count)) for value, count in zip(found, counts, strict=True)]


def _stamp(path: str | Path) -> tuple[int, int]:
    """Changes when the file does; a file that is not local is taken to stay as it is."""
    file = named_part(str(path))[0]
    if not os.path.exists(file):
        return 0, 0
    found = os.stat(file)
    return found.st_mtime_ns, found.st_size


def _hidden(path: str, changed: int, size: int) -> bool:
    return _counted_file(path, changed, size, zero=True)[1]


@lru_cache(maxsize=65536)
def _header(path: str, changed: int, size: int) -> tuple[int, tuple[tuple[int, Colour], ...]]:
    """Number of bands, and the palette."""
    with _open(path, PLAIN) as scene, scene.source.dataset() as dataset:
        if dataset.colorinterp[scene.positions[0] - 1] != ColorInterp.palette:
            return len(scene.bands), ()
        table = dataset.colormap(scene.positions[0])
    return 1, tuple((number, colour[:3]) for number, colour in sorted(table.items()))


@lru_cache(maxsize=65536)
def _counted_file(path: str, changed: int, size: int, *, zero: bool) -> tuple[tuple[tuple[Any, int], ...], bool]:
    """Pixels of each number or colour, in order, and whether valid pixels hold 255; with `zero`, nodata 0 is a number."""
    counts: Counter[Any] = Counter()
    hidden = False
    with _open(path, PLAIN if zero else Coding(values=())) as scene:
        for values, valid in _strips(scene):
            if len(values) == COLOUR_BANDS:
                counts.update(_counted_colours(values, valid))
            else:
                hidden |= bool((values[0][valid] == IGNORE).any())
                counts.update(_counted(_whole(values[0], valid, path=path)))
            if len(counts) > MOST_COLOURS:
                raise LabelError(
                    f"{path} holds more than {MOST_COLOURS} different {'colours' if len(values) > 1 else 'numbers'}: that is "
                    "a picture, or labels smeared by lossy compression (JPEG) or resampling; give the original labels"
                )
    return tuple(sorted(counts.items())), hidden


def _strips(scene: Scene) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]:
    rows = max(1, STRIP_PIXELS // scene.grid.width)
    for row in range(0, scene.grid.height, rows):
        yield scene.read(Window(row=row, col=0, height=rows, width=scene.grid.width).cut(scene.grid.window))


def _shown(items: list[str]) -> str:
    more = len(items) - SHOWN
    return ", ".join(items[:SHOWN]) + (f" and {more} more" if more > 0 else "")
