"""What MATLAB, HDF5 and NumPy files hold, and which of their variables is meant."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from terralean.errors import UnreadableScene
from terralean.raster import hdf5, mat5, npy
from terralean.raster.mat5 import Variable

CUBE_DIMS, MAP_DIMS = 3, 2
FEW_BANDS = 4  # a picture of a cube for the screen has no more
SMALL = 100_000  # numbers in what is read whole: lists and sizes, no maps


@dataclass(frozen=True, kw_only=True)
class Contents:
    """A file of arrays."""

    path: str
    kind: str
    variables: tuple[Variable, ...]
    values_of: Callable[[list[str]], Mapping[str, Any]]

    @property
    def arrays(self) -> list[Variable]:
        """Those of real numbers with two or three axes longer than one."""
        return [
            v for v in self.variables if v.store and len(v.shape) in (MAP_DIMS, CUBE_DIMS) and sum(n > 1 for n in v.shape) > 1
        ]

    def small(self, names: Iterable[str]) -> Any:
        """The first variable of these names (without regard to case), read; None if there is none."""
        wanted = tuple(names)
        for variable in self.variables:
            if variable.name.lower() in wanted and math.prod(variable.shape) <= SMALL:
                return self.values_of([variable.name]).get(variable.name)
        return None

    def list_of(self, names: Iterable[str]) -> list[float]:
        """The numbers of such a variable; none if there is none."""
        found = self.small(names)
        values = np.ravel(np.asarray(found)) if found is not None else np.empty(0)
        return [float(v) for v in values] if values.dtype.kind in "iuf" else []

    def listing(self) -> str:
        """Names, shapes and kinds, for messages."""
        return ", ".join(f"{v.name} ({' x '.join(map(str, v.shape))} {v.kind})" for v in self.variables) or "nothing"


def contents(path: Path) -> Contents:
    """What a .mat, .h5 or .npy file holds. Raises UnreadableScene."""
    name = str(path)
    if path.suffix.lower() == ".npy":
        return Contents(path=name, kind="NumPy", variables=(npy.variable(path),), values_of=lambda names: {})
    if hdf5.is_hdf5(name):
        kind = "MATLAB 7.3 (HDF5)" if path.suffix.lower() == ".mat" else "HDF5"
        return Contents(
            path=name, kind=kind, variables=tuple(hdf5.variables(name)), values_of=lambda names: hdf5.values_of(name, names)
        )
    found = tuple(mat5.variables(name))
    return Contents(path=name, kind="MATLAB 5", variables=found, values_of=lambda names: mat5.values_of(name, names))


def the_cube(found: Contents, key: str | None, *, known: Sequence[str]) -> Variable:
    """The variable with the cube: the one named, that of a public scene, or the only one that can be meant."""
    if key is not None:
        return named(found, key)
    arrays = found.arrays
    public = [v for v in arrays if v.name in known]
    cubes = [v for v in arrays if len(v.shape) == CUBE_DIMS]
    many = [v for v in cubes if v.shape[-1] > FEW_BANDS] or cubes
    flat = [v for v in arrays if len(v.shape) == MAP_DIMS]
    for candidates in (public, many, flat):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise several(found, candidates)
    raise UnreadableScene(f"{found.path} holds no array of two or three axes of real numbers, but {found.listing()}")


def the_labels(found: Contents, key: str | None, *, known: Sequence[str], sizes: Sequence[tuple[int, int]] = ()) -> Variable:
    """The variable with a label map: the one named, that of a public scene, or the only one of two axes (and of this size)."""
    if key is not None:
        return named(found, key)
    maps = [v for v in found.arrays if len(v.shape) == MAP_DIMS]
    public = [v for v in maps if v.name in known]
    of_size = [v for v in maps if v.shape in sizes]
    for candidates in (public, of_size, maps):
        if len(candidates) == 1:
            return candidates[0]
    if maps:
        raise several(found, maps)
    raise UnreadableScene(f"{found.path} holds no label map (an array of two axes of whole numbers), but {found.listing()}")


def named(found: Contents, key: str) -> Variable:
    """The variable of that name; without regard to case where that is one only."""
    exact = [v for v in found.variables if v.name == key]
    alike = exact or [v for v in found.variables if v.name.lower() == key.lower()]
    if len(alike) != 1:
        raise UnreadableScene(f"{found.path} has no variable {key!r}; it has {found.listing()}; say #key=NAME behind the path")
    variable = alike[0]
    if variable.store is None or len(variable.shape) not in (MAP_DIMS, CUBE_DIMS):
        shape = " x ".join(map(str, variable.shape))
        raise UnreadableScene(
            f"{found.path}: variable {variable.name} is {variable.kind} of {shape}; expected 2 or 3 axes of real numbers; "
            f"the file has {found.listing()}"
        )
    return variable


def several(found: Contents, candidates: Sequence[Variable]) -> UnreadableScene:
    """The error where more than one variable can be meant."""
    example = max(candidates, key=lambda v: math.prod(v.shape)).name
    return UnreadableScene(
        f"{found.path} holds {len(candidates)} arrays that can be meant; it has {found.listing()}; say which behind the path: "
        f"{Path(found.path).name}#key={example}"
    )
