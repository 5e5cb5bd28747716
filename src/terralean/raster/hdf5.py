"""Arrays in HDF5 files, and so in MATLAB files of version 7.3, which are HDF5 with the axes of MATLAB in reverse."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terralean.errors import UnreadableScene
from terralean.raster.arrays import Layout
from terralean.raster.mat5 import Variable

SIGNATURE = b"\x89HDF\r\n\x1a\n"
USER_BLOCKS = (0, 512, 1024, 2048)  # where it may stand; MATLAB writes 512 bytes of its own before
CACHE_BYTES = 64 * 2**20  # of unpacked chunks, so that a chunk which neighbouring reads share is unpacked once


def is_hdf5(path: str) -> bool:
    """Whether a file begins as HDF5 files do."""
    with open(path, "rb") as file:
        return any(file.seek(place) == place and file.read(8) == SIGNATURE for place in USER_BLOCKS)


def variables(path: str) -> list[Variable]:
    """The data sets of a file, shapes as in MATLAB where MATLAB wrote it."""
    with _reading(path), _opened(path) as file:
        found: list[Variable] = []
        file.visititems(lambda name, item: _add(found, path, name, item))
        return found


def values_of(path: str, names: list[str]) -> dict[str, Any]:
    """Small data sets by name, as numpy arrays with the axes of MATLAB."""
    with _reading(path), _opened(path) as file:
        return {name: np.asarray(file[name][()]).T for name in names}


def _add(found: list[Variable], path: str, name: str, item: Any) -> None:
    if getattr(item, "shape", None) is None or name.startswith("#"):  # a group, or empty; MATLAB keeps cells under #refs#
        return
    kind = item.attrs.get("MATLAB_class", item.dtype.name.encode())
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    numeric = item.dtype.kind in "iuf" and kind not in ("char", "cell") and item.shape and all(item.shape)
    shape = tuple(int(n) for n in item.shape)
    from_matlab = "MATLAB_class" in item.attrs
    found.append(
        Variable(
            name=name,
            kind=f"complex {kind}" if item.dtype.names else kind,
            shape=shape[::-1] if from_matlab else shape,
            dtype=item.dtype.str if numeric else "",
            store=partial(HdfArray, path, name) if numeric else None,
            reversed_axes=from_matlab,
        )
    )


class HdfArray:
    """A data set of two or three axes. Only the chunks that are asked for are read and unpacked.

    With two axes in the file and three in the layout, the first or the last two of the layout are one in the file: pixels.
    """

    def __init__(self, path: str, name: str, layout: Layout) -> None:
        self.path, self.name, self.layout = path, name, layout
        self._lock = threading.Lock()
        self._file: Any = None
        self._pid = os.getpid()

    def part(self, start: Sequence[int], stop: Sequence[int]) -> NDArray[Any]:
        """As `Store` says."""
        shape = self.layout.shape
        if self._pid != os.getpid():  # a fork: the parent's handle and lock are the parent's
            self._file, self._lock, self._pid = None, threading.Lock(), os.getpid()
        with self._lock, _reading(self.path):
            if self._file is None:
                self._file = _opened(self.path)
            item = self._file[self.name]
            if len(item.shape) == len(shape):
                return np.asarray(item[tuple(map(slice, start, stop))])
            if item.shape == (shape[0] * shape[1], shape[2]):
                found = item[start[0] * shape[1] : stop[0] * shape[1], start[2] : stop[2]]
                return np.asarray(found).reshape(stop[0] - start[0], shape[1], -1)[:, start[1] : stop[1]]
            found = item[start[0] : stop[0], start[1] * shape[2] : stop[1] * shape[2]]
            return np.asarray(found).reshape(stop[0] - start[0], -1, shape[2])[..., start[2] : stop[2]]

    def step_bytes(self, wide: int, long: int) -> int:
        """As `Store` says."""
        return wide * long * np.dtype(self.layout.dtype).itemsize

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None and self._pid == os.getpid():
            self._file.close()
        self._file = None


def _opened(path: str) -> Any:
    try:
        import h5py  # noqa: PLC0415 - an extra: most scenes are in other formats
    except ImportError as error:
        raise UnreadableScene(
            f"{path} is a MATLAB 7.3 or HDF5 file, which needs h5py: pip install 'terralean[spectral]'; or save it in MATLAB "
            "with save('NAME.mat', 'NAME', '-v7')"
        ) from error
    return h5py.File(path, "r", rdcc_nbytes=CACHE_BYTES)


@contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, KeyError) as error:  # h5py has all three for what is damaged, depending on the place
        raise UnreadableScene(f"{path} cannot be read as HDF5: {error}; copy or download it again") from error
