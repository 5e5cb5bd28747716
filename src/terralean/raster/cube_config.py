"""What a user may say of a cube's file behind its path: `scene.mat#key=X,axes=bcr`. It works wherever a path does."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal, get_args

from terralean.errors import ConfigError
from terralean.raster.source import named_part

Partial = Literal["drop", "keep"]
AXES = tuple("".join(order) for order in itertools.permutations("rcb"))
YES_NO = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


@dataclass(frozen=True, kw_only=True, slots=True)
class CubeConfig:
    """How a cube is read, where the file does not say it."""

    key: str | None = None  # the variable of a .mat file; None: the one that can be meant
    axes: str | None = None  # what the axes are, in order: r row, c column, b band; None: as found, else rcb
    rows: int | None = (
        None  # of a (band, pixel) array; axes=bcr: down the columns first, as MATLAB lists pixels; brc: along rows
    )
    cols: int | None = None
    wavelengths: str | None = None  # a text file with a line for each band that begins with its wavelength, in nm or um
    nodata: float | None = None  # the value of pixels without data; None: as the file says
    partial: Partial = "drop"  # a pixel with the nodata value in some good bands only: dropped like any, or kept
    raw: bool = False  # stored numbers, without the file's gains, offsets and scale
    known: bool = True  # compare the file with the public scenes of that name

    def __post_init__(self) -> None:
        if self.axes is not None and self.axes not in AXES:
            raise ConfigError(f"axes names each of r (row), c (column), b (band) once, {', '.join(AXES)}; got {self.axes!r}")
        if self.partial not in get_args(Partial):
            raise ConfigError(f"partial is {' or '.join(get_args(Partial))}, got {self.partial!r}")
        for name in ("rows", "cols"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise ConfigError(f"{name} is at least 1, got {count}")


def told(path: str) -> tuple[str, CubeConfig]:
    """The file of a path, and what is said behind it: `FILE#NAME=VALUE,...`, or `FILE#KEY` for the key alone."""
    file, text = named_part(path)
    if not text:
        return file, CubeConfig()
    said: dict[str, str] = {}
    for item in text.split(","):
        name, equals, value = (part.strip() for part in item.partition("="))
        said["key" if not equals else name] = value if equals else name
    _check_names(said, path)
    return file, CubeConfig(**{name: _value(name, value, path) for name, value in said.items()})


def _check_names(said: Mapping[str, str], path: str) -> None:
    names = [field.name for field in fields(CubeConfig)]
    for name in said:
        if name not in names:
            near = get_close_matches(name, names, n=1)
            hint = f"; nearest: {near[0]}" if near else ""
            raise ConfigError(f"{path}: behind # there is no {name!r}{hint}; there are {', '.join(names)}")


def _value(name: str, text: str, path: str) -> Any:
    kind = {"rows": int, "cols": int, "nodata": float}.get(name)
    if name in ("raw", "known"):
        if text.lower() not in YES_NO:
            raise ConfigError(f"{path}: {name} is yes or no, got {text!r}")
        return YES_NO[text.lower()]
    if kind is None:
        return text
    try:
        return kind(text)
    except ValueError as error:
        raise ConfigError(f"{path}: {name} is a {'whole ' if kind is int else ''}number, got {text!r}") from error
