"""NumPy's .npy files as cubes: a header of text before plain numbers."""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.lib import format as npy_format

from terralean.errors import UnreadableScene
from terralean.raster.arrays import Layout, Mapped
from terralean.raster.mat5 import Variable


def variable(path: Path) -> Variable:
    """The array of a file. Raises UnreadableScene where it is cut off, or holds no numbers."""
    with path.open("rb") as file:
        try:
            version = npy_format.read_magic(file)
            read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
            shape, fortran, dtype = read(file)
        except (ValueError, EOFError, SyntaxError, TokenError) as error:
            raise UnreadableScene(f"{path} is no .npy file: {error}; write it with numpy.save") from error
        offset = file.tell()
        size = file.seek(0, 2)
    needed = offset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size < needed:
        raise UnreadableScene(f"{path} has {size:,} bytes, an array of {shape} takes {needed:,}; copy or download it again")

    def store(layout: Layout) -> Mapped:
        return Mapped(str(path), offset=offset, layout=layout)

    real = dtype.kind in "iufb" and not dtype.hasobject
    stored = np.dtype("u1") if dtype.kind == "b" else dtype
    return Variable(
        name=path.stem,
        kind=dtype.name,
        shape=tuple(int(n) for n in shape),
        dtype=stored.str if real else "",
        store=store if real else None,
        reversed_axes=fortran,
    )
